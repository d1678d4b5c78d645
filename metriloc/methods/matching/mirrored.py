"""Whether a photo fits better when it is mirrored: a picture in a mirror, or the other half of a building.

A photo of a facade that is the same on both sides, mirrored, looks like one from the other side of its axis; no pose
that matches tell can be trusted then.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Pose
from metriloc.methods.matching.matchers import Matcher
from metriloc.solvers.relative import essential_pose
from metriloc.types import View

MIRRORED = "the photos fit better with one of them mirrored (a mirror, or a symmetric building?)"
"""What makes such an estimate doubtful."""
_LEAST_ANGLE = 15.0  # degrees; seen from nearer to the axis of symmetry, the mirrored place is nearly the right one
_MOST_MATCHED = 0.5  # share of the keypoints; with more the photos show the same thing
_CLEARLY = (
    1.5  # times as many matches; a symmetric entrance, seen as it is, had up to 1.1 times as many in its mirror image
)
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
    camera = view1.camera
    center = torch.stack([camera.size[0] - 1 - camera.c[0], camera.c[1]])
    mirrored = replace(view1, image=view1.image.flip(-1), camera=replace(camera, c=center), depth=None)
    matches = matcher.match(view0, local0, mirrored, matcher.extract(mirrored))
    fit = essential_pose(matches.uv0, matches.uv1, (view0.camera, camera), max_error_px, seed, _ITERATIONS)
    return int(fit.inliers.sum()) > _CLEARLY * agreeing
