"""A stream in a map: each frame starts where the device's motion puts it, and is believed by what speaks for it.

A pose that nothing led to must be sure by itself, or be said twice by searches that know nothing of each other; one that
was started from the pose before needs to agree with that, too, and a start is no evidence. The last poses and the
device's motions between them are one pose graph: it smooths, and a pose that contradicts all others moves nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metriloc.answers import Asked
from metriloc.geometry import Pose
from metriloc.localizer import Localizer
from metriloc.solvers.absolute_support import median_depth
from metriloc.solvers.motion import DeviceDrift, MotionEdges
from metriloc.solvers.smoothing import smooth_poses
from metriloc.tracking.drift import MapScale, drift_of
from metriloc.tracking.nearby import nearby_images
from metriloc.tracking.placed import Placed, motion_edges
from metriloc.types import (
    FAILED,
    RELIABLE,
    PoseEstimate,
    TrackDrift,
    TrackNote,
    TrackState,
    TrackTrouble,
    View,
    needs_of,
)

WINDOW = 30
"""Frames of the pose graph."""
STARTED = 0.5
"""Confidence from which on a pose is believed that a start led to: rather right than wrong."""
_GATE = 4.0  # standard deviations that a believed pose may be from where motion puts it
_ALONE = 5  # frames without a device pose for which the pose before is a start
_STUBBORN = 3  # sure poses in a row, which agree with each other, after which the device is not believed
_NOISE = 0.01  # least standard deviation of a measured position, as a share of the depth of the scene
_TURN = math.radians(0.3)  # of a measured rotation
_FREE = 0.15  # of the depth of the scene, that a camera moves between frames when no device tells


@dataclass(frozen=True, eq=False)
class MapAnswer:
    """What became of a frame."""

    estimate: PoseEstimate
    state: TrackState
    predicted: Pose | None
    searched: bool
    notes: tuple[TrackNote, ...] = ()
    drift: TrackDrift | None = None
    smoothed: tuple[tuple[int, Pose], ...] = ()
    frames: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class _Guess:
    """Where a frame is expected. sigma: of its position, units of the map; turn: of its rotation, radians. is_loose: no
    device told, so that to agree with it says little."""

    pose: Pose
    sigma: float
    turn: float
    is_loose: bool = False


class MapWindow:
    """The last frames in a map. localizer: of the map, with its method."""

    def __init__(self, localizer: Localizer, drift: DeviceDrift, seed: int, window: int = WINDOW) -> None:
        self.localizer, self.drift, self.seed, self.window = localizer, drift, seed, window
        self._placed: list[Placed] = []
        self._candidate: tuple[PoseEstimate, Placed] | None = None
        self._stubborn: list[Placed] = []
        self._found = False
        self._camera: View | None = None
        self._was_lost = False
        self._scale = MapScale(known=localizer.unit == "metre")
        self._uses_start = needs_of(localizer.method).start

    def add(self, view: View, index: int, device_pose: Pose | None, world: int) -> MapAnswer:
        """The pose of the next frame."""
        if self._camera is not None and view.focal_is_guessed and view.size == self._camera.size:
            known = self._camera  # as the map let it appear when the stream was found
            view = replace(view, camera=known.camera, focal_sigma=known.focal_sigma)
        guess = self._expected(index, device_pose, world)
        predicted = None if guess is None else guess.pose
        estimate, searched = None, False
        if guess is not None:
            clock = time.perf_counter()
            references = nearby_images(self.localizer.scene, guess.pose, view.camera, self.localizer.references)
            if references:
                estimate = self.localizer.follow(view, references, guess.pose, seed=self.seed)
                estimate = _timed(estimate, time.perf_counter() - clock)
                told = self._judged(estimate, guess, index, device_pose, world)
                if told is not None:
                    return replace(told, predicted=predicted)
        searched = True
        estimate = self._search(view)
        found = self._believed(estimate, guess, index, device_pose, world)
        if found is not None:
            return replace(found, predicted=predicted, searched=True)
        self._was_lost = self._found
        failed = estimate if not bool(estimate.success) else _unsupported(estimate)
        return MapAnswer(failed, TrackState.LOST, predicted, searched)

    # -- what to expect -----------------------------------------------------------------------------------------------
    def _expected(self, index: int, device_pose: Pose | None, world: int) -> _Guess | None:
        """By the last placed frame and the device's motion since; without that, the pose of a frame just before."""
        return None if not self._placed else self._from(self._placed[-1], index, device_pose, world)

    def _from(self, last: Placed, index: int, device_pose: Pose | None, world: int) -> _Guess | None:
        depth = self._depth(last.pose)
        if device_pose is not None and last.device_pose is not None and last.world == world:
            scale = self._scale.value
            motion = device_pose @ last.device_pose.inverse()
            way = float(motion.distance())
            sigmas = self.drift.sigmas(torch.tensor([way], dtype=torch.float64))[0]
            unsure = min(1.0, self._scale.sigma) * way  # of a map whose unit is not known yet
            pose = Pose(motion.R, scale * motion.t) @ last.pose
            return _Guess(pose, scale * math.hypot(float(sigmas[0]), unsure), float(sigmas[3]))
        if index - last.index > _ALONE:
            return None
        return _Guess(last.pose, _FREE * depth * (index - last.index), math.radians(10) * (index - last.index), True)

    def _depth(self, pose: Pose) -> float:
        """How far things are, units of the map: what errors of poses are measured by."""
        camera = self.localizer.scene.cameras[0]
        depth = median_depth(pose, self.localizer.scene.xyz, camera)
        return depth if math.isfinite(depth) else 1.0

    def _agrees(self, pose: Pose, guess: _Guess, covariance: Tensor) -> bool:
        """Whether a measured pose is where motion puts it."""
        sigma = math.hypot(guess.sigma, math.sqrt(float(covariance[:3, :3].diagonal().max())))
        turn = math.hypot(guess.turn, math.sqrt(float(covariance[3:, 3:].diagonal().max())))
        near = float(pose.center_distance(guess.pose)) <= _GATE * sigma
        return near and float(pose.angle_to(guess.pose)) <= _GATE * turn

    # -- whom to believe ----------------------------------------------------------------------------------------------
    def _judged(
        self, estimate: PoseEstimate, guess: _Guess, index: int, device_pose: Pose | None, world: int
    ) -> MapAnswer | None:
        """The answer for a frame that was started from the one before; None where it must be searched for."""
        if not bool(estimate.success):
            return None
        placed = self._measured(estimate, index, device_pose, world)
        if not self._agrees(placed.measured, guess, placed.covariance):
            return None
        if _is_less(estimate, STARTED if self._uses_start or guess.is_loose else FAILED):
            return None
        self._stubborn = []
        return self._accept(estimate, placed, self._going_on())

    def _believed(
        self, estimate: PoseEstimate, guess: _Guess | None, index: int, device_pose: Pose | None, world: int
    ) -> MapAnswer | None:
        """The answer for a frame that was searched for; None where it is not to be believed."""
        if not bool(estimate.success):
            self._candidate = None
            return None
        placed = self._measured(estimate, index, device_pose, world)
        recent = bool(self._placed) and index - self._placed[-1].index <= _ALONE
        told = bool(self._placed) and device_pose is not None and self._placed[-1].device_pose is not None
        agrees = guess is not None and self._agrees(placed.measured, guess, placed.covariance)
        if guess is not None and agrees and not _is_less(estimate, STARTED if guess.is_loose else FAILED):
            self._stubborn = []
            return self._accept(estimate, placed, self._going_on())
        sure = bool(estimate.probability_of) and float(estimate.confidence) >= RELIABLE
        if guess is not None and recent and told and not self._was_lost:
            return self._rejected(estimate, placed, guess) if sure else None
        if sure or self._said_twice(estimate, placed):
            self._placed = []
            return self._accept(estimate, placed, TrackState.RELOCALIZED if self._found else TrackState.FOUND)
        self._candidate = estimate, placed
        return None

    def _going_on(self) -> TrackState:
        return TrackState.RELOCALIZED if self._was_lost else TrackState.TRACKING

    def _said_twice(self, estimate: PoseEstimate, placed: Placed) -> bool:
        """Whether the frame before was found, by itself, where this one says that it was; without a device, to agree says
        so little that both must be rather right than wrong."""
        if self._candidate is None or placed.index - self._candidate[1].index > _ALONE:
            return False
        said, before = self._candidate
        guess = self._from(before, placed.index, placed.device_pose, placed.world)
        if guess is None or (guess.is_loose and any(_is_less(e, STARTED) for e in (said, estimate))):
            return False
        return self._agrees(placed.measured, guess, placed.covariance)

    def _rejected(self, estimate: PoseEstimate, placed: Placed, guess: _Guess) -> MapAnswer | None:
        """A sure pose far from where the device says: the device goes on, unless it is contradicted again and again."""
        away = float(placed.measured.center_distance(guess.pose))
        self._stubborn = [*self._stubborn, placed][-_STUBBORN:]
        chain = all(
            (g := self._from(a, b.index, b.device_pose, b.world)) is not None
            and self._agrees(b.measured, g, b.covariance)
            for a, b in zip(self._stubborn, self._stubborn[1:], strict=False)
        )
        if len(self._stubborn) == _STUBBORN and chain:
            self._placed, self._stubborn = [], []
            return self._accept(estimate, placed, TrackState.RELOCALIZED)
        said = f"the photo was found {away:.3g} {self._unit()} from where the device's motion leads: not believed"
        note = TrackNote(TrackTrouble.JUMP_REJECTED, said)
        doubted = replace(estimate, pose=guess.pose.to(estimate.pose.dtype), covariance=None)
        doubted = replace(doubted, doubts=(*doubted.doubts, said))
        return MapAnswer(doubted, TrackState.TRACKING, guess.pose, True, (note,), self._drift(placed))

    def _unit(self) -> str:
        return "m" if self.localizer.unit == "metre" else "units of the map"

    # -- the graph ----------------------------------------------------------------------------------------------------
    def _measured(self, estimate: PoseEstimate, index: int, device_pose: Pose | None, world: int) -> Placed:
        pose = estimate.pose.detach().to("cpu", torch.float64)
        floor = [(_NOISE * self._depth(pose)) ** 2] * 3 + [_TURN**2] * 3
        covariance = torch.diag(torch.tensor(floor, dtype=torch.float64))
        if estimate.covariance is not None and bool(torch.isfinite(estimate.covariance).all()):
            covariance = covariance + estimate.covariance.to(covariance)
        return Placed(index, pose, covariance, device_pose, world, pose)

    def _accept(self, estimate: PoseEstimate, placed: Placed, state: TrackState) -> MapAnswer:
        """Into the graph, and out of it the pose."""
        self._candidate, self._found, self._was_lost = None, True, False
        self._placed = [*self._placed, placed][-self.window :]
        covariance = self._smooth()
        last = self._placed[-1]
        self._scale.learn(self._placed)
        answer = replace(estimate, pose=last.pose.to(estimate.pose.dtype))
        if covariance is not None and len(self._edges()):
            answer = replace(answer, covariance=covariance)
        smoothed = tuple((entry.index, entry.pose) for entry in self._placed)
        frames = tuple(entry.index for entry in self._placed)
        return MapAnswer(answer, state, None, False, (), self._drift(last), smoothed, frames)

    def _edges(self) -> MotionEdges:
        """Motions of the device between frames of the window that follow each other, in units of the map."""
        pairs = [
            (k, k + 1)
            for k, (a, b) in enumerate(zip(self._placed, self._placed[1:], strict=False))
            if a.device_pose is not None and b.device_pose is not None and a.world == b.world
        ]
        return motion_edges(self._placed, pairs, self.drift, self._scale.value, self._scale.sigma)

    def _smooth(self) -> Tensor | None:
        edges = self._edges()
        if not len(edges):
            return self._placed[-1].covariance
        start = Pose.stack([entry.pose for entry in self._placed])
        measured = Pose.stack([entry.measured for entry in self._placed])
        spread = torch.stack([entry.covariance for entry in self._placed])
        has = torch.ones(len(self._placed), dtype=torch.bool)
        found = smooth_poses(start, measured, spread, has, edges)
        if found.ok:
            self._placed = [replace(e, pose=found.poses[k]) for k, e in enumerate(self._placed)]
        return found.covariance

    def _drift(self, last: Placed) -> TrackDrift | None:
        return drift_of(self._placed, self._scale.value) if last.device_pose is not None else None

    # -- the localizer ------------------------------------------------------------------------------------------------
    def _search(self, view: View) -> PoseEstimate:
        """Without a start; before the first pose also turned by quarters."""
        if not self._found:
            answer = self.localizer.answer(
                view, lambda turned, _: Asked(self.localizer.look_for(turned)), seed=self.seed
            )
            self._camera = answer.view if view.focal_is_guessed and not answer.view.focal_is_guessed else None
            return answer.estimate
        return self.localizer.follow(view, self.localizer.look_for(view), seed=self.seed)


def _is_less(estimate: PoseEstimate, least: float) -> bool:
    """Whether a probability is below that; one that is none says nothing."""
    return bool(estimate.probability_of) and float(estimate.confidence) < least


def _unsupported(estimate: PoseEstimate) -> PoseEstimate:
    failed = PoseEstimate.failure("unsupported", estimate.localization[0] if estimate.localization else None)
    return replace(failed, probability_of=estimate.probability_of)


def _timed(estimate: PoseEstimate, seconds: float) -> PoseEstimate:
    details = tuple(replace(d, timings={**d.timings, "tracked": seconds}) for d in estimate.localization)
    return replace(estimate, localization=details)
