"""metriloc: where is the camera? Metric relative pose from two photos.

>>> import metriloc
>>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", depth="reference.depth.png")
>>> estimate.pose.center(), estimate.confidence

And where in a map: the pose of a photo among the points of a COLMAP model.

>>> estimate = metriloc.localize("query.jpg", "map/sparse", images="map/images")
"""

from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, as_view, load_view
from metriloc.io.maps import read_map
from metriloc.localize import localize
from metriloc.methods.matching.model import FeatureMatching, MatchingConfig
from metriloc.methods.mickey import MicKey
from metriloc.methods.nre.model import NRE
from metriloc.methods.pixloc import PixLoc
from metriloc.relpose import relative_pose
from metriloc.types import (
    AbsolutePoseMethod,
    Correspondences,
    LocalizationDetails,
    Pair,
    PairDetails,
    PoseEstimate,
    RelativePoseMethod,
    SfmMap,
    View,
)
from metriloc.version import __version__

__all__ = [
    "__version__",
    # types
    "AbsolutePoseMethod",
    "Camera",
    "Correspondences",
    "LocalizationDetails",
    "Pair",
    "PairDetails",
    "Pose",
    "PoseEstimate",
    "RelativePoseMethod",
    "SfmMap",
    "View",
    # photos and maps in
    "InputError",
    "as_view",
    "load_view",
    "read_map",
    # methods
    "FeatureMatching",
    "MatchingConfig",
    "MicKey",
    "NRE",
    "PixLoc",
    # one call
    "localize",
    "relative_pose",
]
