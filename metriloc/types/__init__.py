"""The types that travel between folders: photos, maps, pose estimates, and what a method is.

All are frozen dataclasses without behavior beyond small conversions. Poses are metric (metres) and named
``b_from_a``; cameras live in :mod:`metriloc.geometry`. ``PoseEstimate`` is what *every* method of the library returns,
also when it fails.
"""

from metriloc.types.details import (
    Correspondences,
    FailureReason,
    LocalizationDetails,
    MapUnit,
    MetresSource,
    PairDetails,
    ReferenceSaid,
    Stage,
    WinningHypothesis,
)
from metriloc.types.estimate import FAILED, RELIABLE, RELIABLE_METRES, PoseEstimate, Verdict
from metriloc.types.methods import (
    AbsolutePoseMethod,
    PhotoFeatures,
    QueryNeeds,
    RelativePoseMethod,
    StepOutput,
    Trainable,
    needs_of,
)
from metriloc.types.photos import GUESSED_FOCAL, Pair, View
from metriloc.types.sfm_map import SfmMap
from metriloc.types.trace import Course, DenseFeatures, PointMaps, Trace
from metriloc.types.track import Frame, TrackDetails, TrackDrift, TrackNote, TrackState, TrackTrouble

__all__ = [
    "AbsolutePoseMethod",
    "Correspondences",
    "Course",
    "DenseFeatures",
    "FAILED",
    "FailureReason",
    "Frame",
    "GUESSED_FOCAL",
    "LocalizationDetails",
    "MapUnit",
    "MetresSource",
    "Pair",
    "PairDetails",
    "PhotoFeatures",
    "PointMaps",
    "PoseEstimate",
    "QueryNeeds",
    "RELIABLE",
    "RELIABLE_METRES",
    "ReferenceSaid",
    "RelativePoseMethod",
    "SfmMap",
    "Stage",
    "StepOutput",
    "Trace",
    "TrackDetails",
    "TrackDrift",
    "TrackNote",
    "TrackState",
    "TrackTrouble",
    "Trainable",
    "Verdict",
    "View",
    "WinningHypothesis",
    "needs_of",
]
