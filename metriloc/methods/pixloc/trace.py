"""What pictures are drawn from, of one query that PixLoc localized: how every scale converged, and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from metriloc.io.files import InputError
from metriloc.io.maps import load_map_view
from metriloc.methods.pixloc.extractor import FeatureExtractor
from metriloc.methods.pixloc.pyramid import FeaturePyramid
from metriloc.methods.pixloc.tracker import Tracker
from metriloc.types import Course, DenseFeatures, PoseEstimate, SfmMap, Trace, View


def trace_of(estimate: PoseEstimate, track: Tracker, extractor: FeatureExtractor, query: View, scene: SfmMap) -> Trace:
    """The trace of an estimate whose iterations ``track`` heard."""
    details = estimate.localization[0]
    features = dense_features(extractor, query, scene, details.references)
    return Trace(details.stages, tuple(courses(track)), features=features, table=track.as_dict())


def courses(track: Tracker) -> Iterator[Course]:
    """Stages are called "scale 4, level 2". A course a scale, a phase a level."""
    for scale in dict.fromkeys(step.stage.partition(", ")[0] for step in track.steps):
        mine = [step for step in track.steps if step.stage.partition(", ")[0] == scale]
        phases = tuple(step.stage.partition(", ")[2] for step in mine)
        values, poses = tuple(step.cost for step in mine), tuple(step.pose for step in mine)
        yield Course(scale, values, phases, "mean cost of a point", poses)


def dense_features(
    extractor: FeatureExtractor, query: View, scene: SfmMap, references: Sequence[str]
) -> tuple[DenseFeatures, ...]:
    """Of the query and the first reference, in full size.

    None where a photo is too small or cannot be read.
    """
    try:
        photos = [query, *(load_map_view(scene, scene.index(name)) for name in references[:1])]
    except InputError:
        return ()
    found = []
    for photo in photos:
        extraction = extractor(photo, 1)
        if extraction is None:
            return ()
        found.append(made_of(photo.name, extraction.pyramid))
    return tuple(found)


def made_of(name: str, pyramid: FeaturePyramid) -> DenseFeatures:
    """What is in the pyramid of a photo, of the first of a batch."""
    trust = () if pyramid.confidences is None else tuple(c[0, 0].cpu() for c in pyramid.confidences)
    return DenseFeatures(name, tuple(features[0].cpu() for features in pyramid.features), trust)
