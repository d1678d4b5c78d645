"""Whether a photo fits better when it is mirrored: a picture in a mirror, or the other half of a building.

A photo of a facade that is the same on both sides, mirrored, looks like one from the other side of its axis; no pose
that matches tell can be trusted then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Pose
from metriloc.io.changed_views import mirror_view, resize_view
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.matching.matchers import Matcher
from metriloc.solvers.relative import essential_pose
from metriloc.types import SfmMap, View

MIRRORED = "the photos fit better with one of them mirrored (a mirror, or a symmetric building?)"
"""What makes such an estimate doubtful."""
_LEAST_ANGLE = 15.0  # degrees; seen from nearer to the axis of symmetry, the mirrored place is nearly the right one
_FEWEST = 30  # agreeing matches; fewer are never reliable anyway
_MOST_MATCHED = 0.5  # share of the keypoints; with more the photos show the same thing
_CLEARLY = (
    1.5  # times as many matches; a symmetric entrance, seen as it is, had up to 1.1 times as many in its mirror image
)
_NEARLY = 0.8  # times as many points of a map
_ITERATIONS = 1000
_SMALL_SIDE, _SMALL_COUNT = 320, 512  # pixels of the longer side and keypoints of a photo that is looked at in a hurry
_WORTH_A_LOOK = 0.5  # share of the keypoints, of that by which the photo as it is agrees


def looks_mirrored(
    matcher: Matcher,
    reference: tuple[View, LocalFeatures],
    query: tuple[View, LocalFeatures],
    found: tuple[Pose, int],
    max_error_px: float,
    seed: int = 0,
) -> bool:
    """Whether the mirrored query has clearly more matches that agree with one motion.

    found: the pose, and how many agree with it. Not looked at for small rotations, for photos of which most keypoints
    agree, and for poses that few agree with. Small copies are looked at first, for a fifth of the work; only where the
    mirrored one fits about as well as the photo does itself is the mirrored query matched as the query was.
    """
    (view0, local0), (view1, local1), (pose, agreeing) = reference, query, found
    if agreeing < _FEWEST or math.degrees(float(pose.angle())) < _LEAST_ANGLE:
        return False
    share = agreeing / max(min(len(local0), len(local1)), 1)
    if share >= _MOST_MATCHED or len(local0) == 0:
        return False
    mirrored = replace(mirror_view(view1), depth=None)
    small0, small1 = _small(view0), _small(mirrored)
    scale = max(small0.size) / max(view0.size)
    few0, few1 = (_strongest(matcher.extract(view)) for view in (small0, small1))
    in_a_hurry = _agreeing(matcher, (small0, few0), (small1, few1), max(1.0, scale * max_error_px), seed)
    if in_a_hurry < _WORTH_A_LOOK * share * min(len(few0), len(few1)):
        return False
    whole = mirrored, matcher.extract(mirrored)
    return _agreeing(matcher, reference, whole, max_error_px, seed) > _CLEARLY * agreeing


def _agreeing(
    matcher: Matcher,
    photo0: tuple[View, LocalFeatures],
    photo1: tuple[View, LocalFeatures],
    max_error_px: float,
    seed: int,
) -> int:
    """How many matches agree with one motion."""
    matches = matcher.match(*photo0, *photo1)
    cameras = photo0[0].camera, photo1[0].camera
    return int(essential_pose(matches.uv0, matches.uv1, cameras, max_error_px, seed, _ITERATIONS).inliers.sum())


def _small(view: View) -> View:
    """A copy of at most ``_SMALL_SIDE`` pixels a side."""
    scale = min(1.0, _SMALL_SIDE / max(view.size))
    width, height = (max(1, round(scale * side)) for side in view.size)
    return resize_view(view, (width, height), antialias=True)


def _strongest(local: LocalFeatures) -> LocalFeatures:
    """The keypoints of the highest scores."""
    best = local.scores.topk(min(_SMALL_COUNT, len(local))).indices
    return LocalFeatures(local.uv[best], local.descriptors[best], local.scores[best])


def looks_mirrored_in_map(
    query: View,
    scene: SfmMap,
    references: Sequence[str],
    matching: MatchingLocalizer,
    look_for: Callable[[View], Sequence[str]],
    seed: int = 0,
) -> bool:
    """Whether nearly as many points of a map agree with one pose of the mirrored query as of the query.

    look_for: finds the references of the mirrored query, too: the half of a symmetric building that a mirrored photo seems
    to show is not the one that it shows. Photos left out of the fountain's map have 0.23 to 0.42 times as many mirrored,
    those of a symmetric entrance 0.62 to 1.08, of rooms at most 0.23.
    """
    mirrored = mirror_view(query)
    found = [
        matching.localize(view, scene, names, seed=seed).localization[0].statistics.get("inliers", 0.0)
        for view, names in ((query, references), (mirrored, references), (mirrored, look_for(mirrored)))
    ]
    return max(found[1:]) > _NEARLY * max(found[0], matching.config.min_inliers)
