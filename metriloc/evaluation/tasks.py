"""What is evaluated: pairs of photos with a true relative pose, or queries in a map; and how one of them is solved."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from metriloc.datasets.mapfree import FrameBlock
from metriloc.datasets.sources import FramePair, PosedFrame
from metriloc.evaluation.records import Record, record_of, unreadable
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.types import AbsolutePoseMethod, PoseEstimate, RelativePoseMethod, SfmMap, View


class Task(Protocol):
    """key: unique in a benchmark. group: tasks of one group share work (a reference photo) and stay together."""

    @property
    def key(self) -> str:
        """Names the task in records."""
        ...

    @property
    def group(self) -> str:
        """What it shares with its neighbours."""
        ...


Solve = Callable[[Any, int], Record]
"""(task, seed) -> record; never raises for what is wrong with a task's own files."""


@dataclass(frozen=True, eq=False)
class PairTask:
    """A reference and a query. block: with the frames before the query, in Map-free's multi-frame track."""

    pair: FramePair
    block: FrameBlock | None = None

    @property
    def key(self) -> str:
        """``scene/reference query``."""
        return f"{self.pair.scene}/{self.pair.frame0.name} {self.pair.frame1.name}"

    @property
    def group(self) -> str:
        """The reference."""
        return f"{self.pair.scene}/{self.pair.frame0.name}"


@dataclass(frozen=True, eq=False)
class QueryTask:
    """A photo to localise in ``scene``; references: names of images of the map, the best first; init: a first guess."""

    frame: PosedFrame
    scene: SfmMap
    references: tuple[str, ...]
    init: Pose | None = None

    @property
    def key(self) -> str:
        """``scene/query``."""
        return f"{self.frame.scene}/{self.frame.name}"

    @property
    def group(self) -> str:
        """The scene."""
        return self.frame.scene


def seed_of(key: str, seed: int) -> int:
    """The seed of one task: whoever runs it, in whatever order, gets the same answer."""
    return zlib.crc32(f"{seed} {key}".encode()) & 0x7FFFFFFF


class PairSolver:
    """Solves pairs with a relative-pose method; the features of the last reference are kept.

    size: (width, height) photos are resized to; None takes them as they are.
    """

    def __init__(self, method: RelativePoseMethod, size: tuple[int, int] | None = None, *, depth: bool = True) -> None:
        self.method, self.size, self.depth = method, size, depth
        self._reference: tuple[str, Any] | None = None

    def __call__(self, task: PairTask, seed: int) -> Record:
        """The estimate of one pair as a record; a photo that cannot be read is a failure with its sentence."""
        start = time.perf_counter()
        try:
            estimate = self.estimate(task, seed)
        except InputError as error:
            return unreadable(task.key, error)
        return record_of(task.key, estimate, time.perf_counter() - start)

    def estimate(self, task: PairTask, seed: int) -> PoseEstimate:
        """The same with all its details. Raises InputError for a photo that cannot be read."""
        if self._reference is None or self._reference[0] != task.group:
            self._reference = (task.group, self.method.extract(self._load(task.pair.frame0)))
        query = self._load(task.pair.frame1)
        return self.method.relative_pose(self._reference[1], query, seed=seed_of(task.key, seed))

    def _load(self, frame: PosedFrame) -> View:
        return frame.load(self.size, depth=self.depth)


class FrameTracker(Protocol):
    """What follows a camera: ``metriloc.Tracker``."""

    def add(self, photo: Any, device_pose: Pose | None = None, *, name: str = "") -> PoseEstimate:
        """The pose of the next frame."""
        ...


class BurstSolver:
    """Solves frames in a row with a tracker, by the phone's own tracking of them where there is any.

    - method: of matching, as records name it. begin: a tracker against a reference, from it and a seed.
    - size: (width, height) photos are resized to; None takes them as they are.
    """

    def __init__(
        self,
        method: RelativePoseMethod,
        begin: Callable[[View, int], FrameTracker],
        size: tuple[int, int] | None = None,
    ) -> None:
        self.method, self.begin, self.size = method, begin, size

    def __call__(self, task: PairTask, seed: int) -> Record:
        """The estimate of the last frame as a record; a photo that cannot be read costs itself, the last one the task."""
        start = time.perf_counter()
        try:
            estimate = self.estimate(task, seed)
        except InputError as error:
            return unreadable(task.key, error)
        return record_of(task.key, estimate, time.perf_counter() - start)

    def estimate(self, task: PairTask, seed: int) -> PoseEstimate:
        """The same with all its details. Raises InputError where the reference or the last frame cannot be read."""
        block = task.block or FrameBlock(task.pair.frame0, (task.pair.frame1,))
        tracker = self.begin(block.reference.load(self.size, depth=False), seed_of(task.key, seed))
        for index, frame in enumerate(block.queries[:-1]):
            try:
                view = frame.load(self.size, depth=False)
            except InputError:
                continue
            tracker.add(view, _device_pose(block, index), name=frame.name)
        last = len(block.queries) - 1
        view = block.queries[last].load(self.size, depth=False)
        return tracker.add(view, _device_pose(block, last), name=block.queries[last].name)


def _device_pose(block: FrameBlock, index: int) -> Pose | None:
    if block.cam_from_last is None:
        return None
    pose = block.cam_from_last[index]
    return pose if bool(pose.is_finite()) else None


class QuerySolver:
    """Localises queries with an absolute-pose method."""

    def __init__(self, method: AbsolutePoseMethod) -> None:
        self.method = method

    def __call__(self, task: QueryTask, seed: int) -> Record:
        """The estimate of one query as a record; a photo that cannot be read is a failure with its sentence."""
        start = time.perf_counter()
        try:
            view = task.frame.load(depth=False)
            estimate = self.method.localize(view, task.scene, task.references, task.init, seed=seed_of(task.key, seed))
        except InputError as error:
            return unreadable(task.key, error)
        return record_of(task.key, estimate, time.perf_counter() - start)


def check_unique(tasks: Sequence[Task]) -> None:
    """Raises InputError when two tasks have the same key: one of them would silently not count."""
    seen: set[str] = set()
    for task in tasks:
        if task.key in seen:
            raise InputError(f"the benchmark names {task.key!r} twice")
        seen.add(task.key)
