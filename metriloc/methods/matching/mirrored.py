"""Whether a photo fits better when it is mirrored: a picture in a mirror, or the other half of a building.

A photo of a facade that is the same on both sides, mirrored, looks like one from the other side of its axis; no pose
that matches tell can be trusted then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from metriloc.backbones.local import DenseExtractor, LocalFeatures
from metriloc.geometry import Pose
from metriloc.io.view import mirror_view
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.matching.matchers import Matcher
from metriloc.solvers.relative import essential_pose
from metriloc.types import SfmMap, View

MIRRORED = "the photos fit better with one of them mirrored (a mirror, or a symmetric building?)"
"""What makes such an estimate doubtful."""
_LEAST_ANGLE = 15.0  # degrees; seen from nearer to the axis of symmetry, the mirrored place is nearly the right one
_MOST_MATCHED = 0.5  # share of the keypoints; with more the photos show the same thing
_CLEARLY = (
    1.5  # times as many matches; a symmetric entrance, seen as it is, had up to 1.1 times as many in its mirror image
)
_NEARLY = 0.8  # times as many points of a map
_ITERATIONS = 1000


def looks_mirrored(
    matcher: Matcher,
    reference: tuple[View, LocalFeatures],
    query: tuple[View, LocalFeatures],
    found: tuple[Pose, int],
    max_error_px: float,
    seed: int = 0,
) -> bool:
    """Whether the mirrored query has clearly more matches that agree with one motion.

    found: the pose, and how many agree with it. Costs another extraction; not looked at for small rotations and for photos
    of which most keypoints agree.
    """
    (view0, local0), (view1, local1), (pose, agreeing) = reference, query, found
    if math.degrees(float(pose.angle())) < _LEAST_ANGLE:
        return False
    if agreeing >= _MOST_MATCHED * min(len(local0.uv), len(local1.uv)):
        return False
    mirrored = replace(mirror_view(view1), depth=None)
    matches = matcher.match(view0, local0, mirrored, matcher.extract(mirrored))
    cameras = view0.camera, mirrored.camera
    fit = essential_pose(matches.uv0, matches.uv1, cameras, max_error_px, seed, _ITERATIONS)
    return int(fit.inliers.sum()) > _CLEARLY * agreeing


def looks_mirrored_in_map(
    query: View, scene: SfmMap, references: Sequence[str], features: DenseExtractor, seed: int = 0
) -> bool:
    """Whether nearly as many points of a map agree with one pose of the mirrored query as of the query.

    The references that are compared are those of the query, which favor it: whole photos of the fountain have 0.15 to 0.33
    times as many mirrored, its mirror image 1.2 times.
    """
    localizer = MatchingLocalizer(features, "")
    found = [
        localizer.localize(view, scene, references, seed=seed).localization[0].statistics.get("inliers", 0.0)
        for view in (query, mirror_view(query))
    ]
    return found[1] > _NEARLY * max(found[0], localizer.config.min_inliers)
