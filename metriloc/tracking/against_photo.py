"""A stream against one reference photo: the last frames are one camera whose size the device knows.

The metres come from the device's motion wherever it moved; depths of the photos are asked only where it did not, and
weigh as little as they are worth.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metriloc.calibration import judged
from metriloc.geometry import Pose
from metriloc.methods.matching.depth import with_depth
from metriloc.methods.matching.metres import DEPTHS, depth_error_of, in_metres
from metriloc.methods.matching.model import FeatureMatching, ImageFeatures, confidence_of
from metriloc.methods.matching.pair import Fit, MatchedPair
from metriloc.methods.matching.solver import setup_of
from metriloc.solvers.burst import Burst, BurstConfig, BurstFit, solve_burst
from metriloc.solvers.burst_pairs import FreeMotions
from metriloc.solvers.motion import DeviceDrift
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.scales import ScaleSource
from metriloc.types import MetresSource, PoseEstimate, TrackDrift, TrackNote, TrackTrouble, View

MOTION = "motion of the device"
"""What results call metres that the device's way tells."""
ENOUGH = 0.1
"""Standard deviation of the logarithm of a distance up to which motion alone is asked."""
UNMODELED = 0.03
"""Standard deviation of the logarithm of a distance, of what neither pixels nor drift explain."""
UNTESTED = "how sure metres of a device's motion are is not fitted to real streams yet"
"""The doubt of each answer whose metres the device's way tells: with two frames, intervals held too few distances."""
_WIDER = 2.0  # times the inlier threshold, for matches that the refinement may look at
_NEWEST = 0.7  # share of the matches of the best frame with which the newest speaks for itself
_ITERATIONS = 2000


@dataclass(frozen=True, eq=False)
class Kept:
    """A frame of the window. matches: with the reference, all. agreeing: those that agree with some motion. to_older:
    matches with frames before, by their number."""

    index: int
    features: ImageFeatures
    device_pose: Pose | None
    world: int
    matches: MatchedPair
    agreeing: Tensor
    to_older: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class BurstAnswer:
    """estimate: of the newest frame. frames: numbers of the frames behind it; moved: metres between those farthest apart.
    notes: what was wrong with frames. drift: where the device's world lies before the reference. smoothed: number and
    pose of the frames, relative to the reference. predicted: where the device's motion put the newest one."""

    estimate: PoseEstimate
    frames: tuple[int, ...]
    moved: float = math.nan
    notes: tuple[TrackNote, ...] = ()
    drift: TrackDrift | None = None
    smoothed: tuple[tuple[int, Pose], ...] = ()
    predicted: Pose | None = None


class PhotoWindow:
    """The last frames before a reference photo.

    - reference: the photo. method: whose matcher, depth and calibration are used.
    - frames: how many are kept; spacing: metres the device must have moved between two of them, unless one is the newest.
    """

    def __init__(
        self, reference: View, method: FeatureMatching, frames: int, drift: DeviceDrift, spacing: float, seed: int
    ) -> None:
        self.method, self.frames, self.spacing, self.seed = method, frames, spacing, seed
        self.config = BurstConfig(drift=drift)
        self.reference = self._seen(reference)
        self._with_depth: ImageFeatures | None = None
        self._window: list[Kept] = []
        self._denied: set[int] = set()
        self._motions: FreeMotions = {}
        self._named: set[int] = set()
        self._last: tuple[Pose, Pose, int] | None = None

    def add(self, view: View, index: int, device_pose: Pose | None, world: int) -> BurstAnswer:
        """The pose of the newest frame relative to the reference."""
        predicted = self._expected(device_pose, world)
        answer = self._answer(view, index, device_pose, world)
        if bool(answer.estimate.success) and device_pose is not None:
            self._last = answer.estimate.pose.to(torch.float64), device_pose, world
        return replace(answer, predicted=predicted)

    def _expected(self, device_pose: Pose | None, world: int) -> Pose | None:
        """Where the device's motion since the last answer leads."""
        if self._last is None or device_pose is None or self._last[2] != world:
            return None
        found, then, _ = self._last
        return device_pose @ then.inverse() @ found

    def _answer(self, view: View, index: int, device_pose: Pose | None, world: int) -> BurstAnswer:
        start = time.perf_counter()
        kept = self._matched(view, index, device_pose, world)
        self._window = [*self._followed(kept), kept][-self.frames :]
        for numbers in (self._denied, self._named):
            numbers &= {entry.index for entry in self._window}
        clock = {"extract_query": kept.features.seconds, "match": time.perf_counter() - start - kept.features.seconds}
        together = [entry for entry in self._window if entry.device_pose is not None and entry.world == world]
        if device_pose is None or len(together) < 2:
            return BurstAnswer(self._alone(kept, ""), (index,), math.nan)
        start = time.perf_counter()
        fit = self._solve(together)
        clock["solve"] = time.perf_counter() - start
        notes = self._notes(together, fit)
        if fit.newest_from_reference is None or fit.cam_from_device is None:
            return BurstAnswer(self._alone(kept, fit.said), (index,), fit.moved, notes)
        estimate = self._estimate(together, fit.newest_from_reference, fit, clock)
        used = [k for k in range(len(together)) if k not in fit.strange]
        if not bool(estimate.success):
            return BurstAnswer(estimate, (), fit.moved, notes)
        poses, device_from_reference = fit.cam_from_device, fit.cam_from_device[len(together)].inverse()
        stretch = float(estimate.pose.distance()) / float(fit.newest_from_reference.distance())
        smoothed = [(together[k].index, poses[k] @ device_from_reference) for k in used]
        return BurstAnswer(
            estimate,
            tuple(together[k].index for k in used),
            fit.moved,
            notes,
            TrackDrift(device_from_reference.inverse(), math.nan, math.nan, fit.moved, 1.0 / stretch),
            tuple((index, Pose(pose.R, stretch * pose.t)) for index, pose in smoothed),
        )

    # -- frames -------------------------------------------------------------------------------------------------------
    def _seen(self, view: View) -> ImageFeatures:
        """Keypoints without depth, which is asked for only where it is needed."""
        start = time.perf_counter()
        view = view.detach()
        return ImageFeatures(view, self.method.matcher.extract(view), time.perf_counter() - start)

    def _limit(self, *views: View) -> float:
        return self.method.config.max_error_px * max(max(view.size) for view in views) / 640

    def _matched(self, view: View, index: int, device_pose: Pose | None, world: int) -> Kept:
        features = self._seen(view)
        found = self._match(self.reference, features)
        pair = MatchedPair(*found, self.reference.view, view)
        limit = self._limit(self.reference.view, view)
        best = essential_pose(pair.uv0, pair.uv1, pair.cameras, _WIDER * limit, self.seed, _ITERATIONS)
        to_older = {}
        if device_pose is not None:
            for entry in self._window:
                if entry.device_pose is not None and entry.world == world:
                    uv0, uv1, _ = self._match(entry.features, features)
                    to_older[entry.index] = uv0, uv1
        return Kept(index, features, device_pose, world, pair, best.inliers, to_older)

    def _match(self, one: ImageFeatures, other: ImageFeatures) -> tuple[Tensor, Tensor, Tensor]:
        matches = self.method.matcher.match(one.view, one.local, other.view, other.local)
        return matches.uv0, matches.uv1, matches.score

    def _followed(self, kept: Kept) -> list[Kept]:
        """The window without its last frame where that had moved too little to be worth a place."""
        window = self._window
        if len(window) < 2:
            return window
        before, last = window[-2:]
        if before.device_pose is None or last.device_pose is None or before.world != last.world:
            return window
        moved = float(last.device_pose.center_distance(before.device_pose))
        return window[:-1] if moved < self.spacing else window

    # -- solving ------------------------------------------------------------------------------------------------------
    def _solve(self, together: list[Kept]) -> BurstFit:
        number = {entry.index: k for k, entry in enumerate(together)}
        matches: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for k, entry in reversed(list(enumerate(together))):
            for older, uvs in entry.to_older.items():
                if older in number:
                    matches[number[older], k] = uvs
        # neighbors first: their matches are the surest
        matches = dict(sorted(matches.items(), key=lambda item: item[0][1] - item[0][0]))
        for k, entry in enumerate(together):
            good = entry.agreeing
            matches[k, len(together)] = entry.matches.uv1[good], entry.matches.uv0[good]
        cameras = (*(entry.features.view.camera for entry in together), self.reference.view.camera)
        poses = Pose.stack([entry.device_pose for entry in together if entry.device_pose is not None])
        denied = tuple(number[index] for index in self._denied if index in number)
        known = {(number[a], number[b]): m for (a, b), m in self._motions.items() if a in number and b in number}
        burst = Burst(cameras, poses, matches)
        fit = solve_burst(burst, self.config, denied=denied, free_motions=known, seed=self.seed)
        self._motions = {(together[a].index, together[b].index): m for (a, b), m in known.items()}
        self._denied |= {together[k].index for k in fit.denied}
        return fit

    def _notes(self, together: list[Kept], fit: BurstFit) -> tuple[TrackNote, ...]:
        found = []
        for number, what in ((fit.denied, "its device pose contradicts"), (fit.strange, "its photo matches none of")):
            for k in (k for k in number if together[k].index not in self._named):
                self._named.add(together[k].index)
                said = f"frame {together[k].index} is not believed: {what} the frames around it"
                found.append(TrackNote(TrackTrouble.FRAME_DISAGREES, said))
        return tuple(found)

    def _alone(self, kept: Kept, said: str) -> PoseEstimate:
        """The newest frame by itself, with the metres that depths give."""
        estimate = self.method.relative_pose(self._reference_with_depth(), self._deep(kept.features), seed=self.seed)
        if not said or not estimate.details:
            return estimate
        details = replace(estimate.details[0], messages=(*estimate.details[0].messages, f"no burst: {said}"))
        return replace(estimate, details=(details,))

    def _deep(self, features: ImageFeatures) -> ImageFeatures:
        """With the depth of the method's source."""
        given = features.view.depth
        view = with_depth(self.method.depth_source, features.view)
        origin = "given" if view.depth is given else self.method.config.depth_origin
        return replace(features, view=view, depth_origin=origin)

    def _reference_with_depth(self) -> ImageFeatures:
        if self._with_depth is None:
            self._with_depth = self._deep(self.reference)
        return self._with_depth

    # -- answers ------------------------------------------------------------------------------------------------------
    def _estimate(self, together: list[Kept], alone: Pose, fit: BurstFit, clock: dict[str, float]) -> PoseEstimate:
        pose, sources, told, doubts, sigma = self._metres(together[-1], alone, fit)
        best, in_best = self._witness(together, fit, pose)
        limit = self._limit(best.features.view, self.reference.view)
        inliers = best.matches.judged(in_best, limit).inliers
        setup = setup_of(best.matches, self.method.config.solver, self.method.config.depth_id)
        found = Fit(pose, inliers, None, True, told, sigma, sources)
        details = best.matches.details(replace(found, pose=in_best), clock, setup)
        if len(details.inliers) < self.method.config.min_inliers:
            return PoseEstimate.failure("too_few_matches", details)
        estimate = PoseEstimate(
            pose.to(torch.float32),
            torch.tensor(True),
            torch.tensor(confidence_of(len(details.inliers))),
            (None,),
            (details,),
            doubts=doubts,
            covariance=fit.covariance if len(sources) == 1 else None,
        )
        return judged(estimate, self.method.calibrations, (self.reference.view, best.features.view))

    def _witness(self, together: list[Kept], fit: BurstFit, pose: Pose) -> tuple[Kept, Pose]:
        """The frame whose matches with the reference speak for the answer, and its pose: the newest unless another
        shows far more of it."""
        agreeing = [int(entry.agreeing.sum()) for entry in together]
        newest = together[-1]
        if fit.cam_from_device is None or agreeing[-1] >= _NEWEST * max(agreeing):
            return newest, pose
        k = max((k for k in range(len(together)) if k not in fit.strange), key=lambda k: agreeing[k])
        poses = fit.cam_from_device
        return together[k], poses[k] @ poses[len(together)].inverse()

    def _metres(
        self, newest: Kept, pose: Pose, fit: BurstFit
    ) -> tuple[Pose, tuple[MetresSource, ...], str, tuple[str, ...], float]:
        """The pose in metres: of the motion, and where that says little, of depths, too."""
        sources = []
        if math.isfinite(fit.log_sigma):
            # a focal length that is off makes all that is triangulated as much too near or too far
            sigma = math.hypot(fit.log_sigma, newest.features.view.focal_sigma, UNMODELED)
            sources.append(ScaleSource(MOTION, math.log(float(pose.distance())), sigma))
        if fit.log_sigma > ENOUGH or self.reference.view.depth is not None:
            sources += self._depth_sources(newest)
        if not sources:
            sources = [ScaleSource(MOTION, math.log(float(pose.distance())), 1.0)]
        found = in_metres(pose, sources)
        doubts = (UNTESTED, *found.doubts) if any(source.name == MOTION for source in sources) else found.doubts
        return found.pose, found.sources, found.sentence, doubts, found.sigma

    def _depth_sources(self, newest: Kept) -> list[ScaleSource]:
        alone = self._alone(newest, "")
        if not bool(alone.success) or not alone.details[0].metric:
            return []
        error = self.method.config.depth_error or depth_error_of(self.method.config.depth_name)
        return [
            ScaleSource(source.name, math.log(source.metres), source.sigma, DEPTHS, error.correlation)
            for source in alone.details[0].metres_sources
            if source.metres > 0
        ]
