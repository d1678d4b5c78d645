"""Polish: a pose of two photos that a localizer makes more exact on the pair, where both agree about it.

A reference with depths is a map of one photo: its pixels, lifted by their depths, are the points, and the pose that
two photos gave is where NRE or PixLoc starts. The points carry the metres. They are brought to those of the two-photo
answer first (one factor, from what its matches triangulate), so that a wrong scale of predicted depth bends no pose.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from metriloc.calibration import Calibrations, calibrations_of
from metriloc.geometry import Pose, sample_depth
from metriloc.io import InputError, turn_view
from metriloc.io.maps import map_from_view
from metriloc.methods.matching.depth import depth_from_cells
from metriloc.solvers.relative import marginal_score
from metriloc.solvers.two_view import scale_from_depth
from metriloc.types import AbsolutePoseMethod, PairDetails, PhotoFeatures, PoseEstimate, RelativePoseMethod, View

PolishName = Literal["matches", "nre", "pixloc"]
"""matches: MicKey's own, by the reprojection error of its inliers; nre, pixloc: of any method, by a localizer."""
POLISHERS: tuple[PolishName, ...] = ("nre", "pixloc")
"""Those that are localizers."""
_AS_GOOD_GIVEN, _AS_GOOD_PREDICTED = 0.7, 0.95
"""Shares of the score of the matches that a polish must keep, with depths that were given and with predicted ones; from
pairs of ``data/train``, where predicted depths turned right poses by degrees below."""
_SAME_METRES = 0.25  # logarithm: a map farther from the two photos has other metres than theirs


@dataclass(frozen=True, eq=False)
class _Polish:
    """What a localizer made of a pose. pose: float64, its length by the points. given: their depths came with the photo.
    own_metres: the points have the metres of that map, which are better than those of the two photos."""

    pose: Pose
    given: bool
    own_metres: bool


class Polished:
    """A method for two photos whose poses a localizer makes more exact.

    Itself a ``RelativePoseMethod``.

    - method: finds the poses, with its calibration.
    - localizer: NRE or PixLoc, set to take points that a single photo sees.
    - called: what results call the localizer.

    A pose stays as it was where the photos come without depths, where the localizer finds none, and where the matches
    speak against it; ``messages`` say so, and what both say of the length. Confidence, doubts and the width of the
    interval stay those of the two photos: a polish makes nothing reliable.
    """

    def __init__(self, method: RelativePoseMethod, localizer: AbsolutePoseMethod, called: str) -> None:
        self.method, self.localizer, self.called = method, localizer, called
        self.name, self.weights_id = method.name, f"{method.weights_id} + {localizer.weights_id}"

    @property
    def calibrations(self) -> Calibrations:
        """Of the method that finds the poses, for reports."""
        return calibrations_of(self.method)

    def extract(self, view: Any) -> Any:
        """What the method needs of one photo."""
        return self.method.extract(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """``query_from_reference`` of the method, polished; batch shape ()."""
        features0, features1 = (
            self.extract(value) if isinstance(value, View) else value for value in (reference, query)
        )
        found = self.method.relative_pose(features0, features1, seed=seed)
        return self.polished(found, features0, features1, seed=seed)

    def polished(
        self, found: PoseEstimate, features0: PhotoFeatures, features1: PhotoFeatures, *, seed: int = 0
    ) -> PoseEstimate:
        """An estimate of the method for these photos, polished. A failure as it is."""
        if not bool(found.success):
            return found
        start = time.perf_counter()
        polish = self._polish(found, features0, features1.view, seed)
        pose, said = (None, polish) if isinstance(polish, str) else _kept(found, polish, features0.view, features1.view)
        (details,) = found.details
        said = f"{'not ' if pose is None else ''}polished by {self.called}: {said}"
        timings = {**details.timings, f"polish by {self.called}": time.perf_counter() - start}
        details = replace(details, timings=timings, messages=(*details.messages, said))
        if pose is None or isinstance(polish, str):
            return replace(found, details=(details,))
        details = replace(details, setup=f"{details.setup}; polished by {self.called}")
        if polish.own_metres and features0.depth_origin != "given":
            details = replace(details, scale_source=f"the depth map of the reference, by {self.called}")
        low_high = _at_length(found, float(pose.distance()))
        return replace(found, pose=pose.to(found.pose.dtype), details=(details,), distance_interval=low_high)

    def _polish(self, found: PoseEstimate, features0: PhotoFeatures, query: View, seed: int) -> _Polish | str:
        """What the localizer makes of the pose; why it makes nothing of it."""
        depth, given = _depth_of(features0)
        if depth is None:
            return "nothing gives the reference a depth"
        start, view = found.pose.to("cpu", torch.float64), features0.view
        factor = _factor(start, found.details[0], depth, (view, query))
        # a map that contradicts the two photos, whose metres are not predicted, is not believed
        own_metres = given and (features0.depth_origin != "given" or abs(math.log(factor)) < _SAME_METRES)
        if own_metres:
            start = Pose(start.R, start.t / factor)
        else:
            depth = depth * factor
        try:
            scene = map_from_view(replace(view, depth=depth, cam_from_world=None, name="reference"))
        except InputError:
            return "the depth of the reference is known nearly nowhere"
        # features of localizers know up from down: the query is turned as the pose says
        quarters = round(math.degrees(math.atan2(float(start.R[1, 0]), float(start.R[0, 0]))) / 90)
        turned, turned_from_query = turn_view(replace(query, cam_from_world=None), quarters)
        answer = self.localizer.localize(turned, scene, scene.names, turned_from_query @ start, seed=seed)
        if not bool(answer.success):
            return f"it found no pose ({answer.reason})"
        return _Polish(turned_from_query.inverse() @ answer.pose.to("cpu", torch.float64), given, own_metres)


def _kept(found: PoseEstimate, polish: _Polish, view0: View, view1: View) -> tuple[Pose | None, str]:
    """The pose that a polish leaves, None for the one before, and what is to be known of it.

    Matches that agreed with two photos must go on to agree; predicted depths bend poses, so they must hardly notice. The
    length stays that of the two photos, unless the points have the metres of a depth map and no distance is known.
    """
    details, before, after = found.details[0], found.pose.to("cpu", torch.float64), polish.pose
    turned = math.degrees(float(after.angle_to(before)))
    aside = math.degrees(float(torch.cosine_similarity(before.t, after.t, dim=0).clamp(-1, 1).acos()))
    moved = f"{turned:.2g} degrees in rotation and {aside:.2g} in direction"
    matches = details.inliers if details.matches is None else details.matches
    max_error_px = 1.5 * max(*view0.size, *view1.size) / 640
    scores = [
        marginal_score(pose, matches.uv0, matches.uv1, (view0.camera, view1.camera), max_error_px)
        for pose in (after, before)
    ]
    if not scores[0] >= (_AS_GOOD_GIVEN if polish.given else _AS_GOOD_PREDICTED) * scores[1]:
        return None, f"it moved the pose by {moved}, against the matches"
    length, by_points = float(before.distance()), float(after.distance())
    unit = " m" if details.metric else " times"
    told = f"its points put the cameras {by_points:.3g}{unit} apart, the two photos {length:.3g}{unit}"
    knows_better = polish.own_metres and not any(source.sigma == 0 for source in details.metres_sources)
    if not knows_better and by_points > 0:
        after = Pose(after.R, after.t * (length / by_points))
    return after, f"{moved}; {told}"


def _at_length(found: PoseEstimate, length: float) -> tuple[float, float] | None:
    """The interval of an estimate for another length, as wide in proportion."""
    low_high, before = found.distance_interval, float(found.pose.distance())
    if low_high is None or not before > 0:
        return low_high
    return low_high[0] * length / before, low_high[1] * length / before


def _depth_of(features: PhotoFeatures) -> tuple[Tensor | None, bool]:
    """Of the photo: what came with it or a depth source predicts, or what the method itself predicts; and whether it came
    with the photo."""
    depth, cells = features.view.depth, features.depth_map()
    if depth is not None:  # of a method that predicts its own, the photo keeps what it came with
        return depth.cpu(), features.depth_origin == "given" or cells is not None
    if cells is None:
        return None, False
    return depth_from_cells(cells.cpu().clamp(min=0), features.cell, features.view.size), False


def _factor(pose: Pose, details: PairDetails, depth: Tensor, views: tuple[View, View]) -> float:
    """What brings depths of the reference to the length of the pose, by the matches that agree with it."""
    matches, cameras = details.inliers, (views[0].camera.to(torch.float64), views[1].camera.to(torch.float64))
    if len(matches) == 0 or float(pose.distance()) == 0:
        return 1.0
    uv0, uv1 = matches.uv0.double(), matches.uv1.double()
    measured, _ = sample_depth(depth.double(), uv0, views[0].size)
    fit = scale_from_depth(pose, uv0, measured, uv1, cameras)
    return 1.0 if fit is None else 1 / fit.scale
