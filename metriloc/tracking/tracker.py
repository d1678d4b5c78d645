"""``Tracker``: the poses of a camera that moves, frame after frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

from metriloc.choose import MethodChoice, choose_method
from metriloc.geometry import Pose
from metriloc.io import InputError, Photo, as_view
from metriloc.io.arguments import require_kind, require_method, require_number, require_seed
from metriloc.io.bundles import is_bundle
from metriloc.localizer import Localizer
from metriloc.methods.matching.model import FeatureMatching
from metriloc.solvers.motion import DeviceDrift
from metriloc.tracking.against_photo import PhotoWindow
from metriloc.tracking.in_map import MapWindow
from metriloc.tracking.stream import StreamCheck, Told
from metriloc.types import (
    Frame,
    LocalizationDetails,
    MapUnit,
    PoseEstimate,
    SfmMap,
    TrackDetails,
    TrackNote,
    TrackState,
    TrackTrouble,
    View,
)

FRAMES = 5
"""How many frames measure together against a photo."""
SPACING = 0.05
"""Metres a device must have moved between two frames that are kept for that, unless one is the newest."""


class Tracker:
    """Follows a camera that moves, metric by the device's motion.

    It does so against one reference photo or in a map.

    - target: a reference photo, or what else ``as_view`` takes; or a map, as ``Localizer`` takes it; or a ``Localizer``.
    - images: the folder of the map's photos, where that is not beside it.
    - method: a loaded method or its name; for a photo one of feature matching, for a map a localizer.
    - frames: how many of the last frames measure together against a photo.
    - spacing: metres the device must have moved between two of them; a slower camera's frames make room.
    - K, fov: intrinsics of all photos, as in ``as_view``.
    - drift: how the device's motion errs.
    - seed: same seed, same answers. device: where networks run.

    Keeps the last frames only. Raises InputError for a photo, a map or a method that cannot be used.

    >>> tracker = metriloc.Tracker("reference.jpg")  # doctest: +SKIP
    >>> for photo, pose in frames:  # doctest: +SKIP
    ...     estimate = tracker.add(photo, device_pose=pose)
    >>> estimate.track.state, estimate.pose.center()  # doctest: +SKIP
    """

    def __init__(
        self,
        target: Photo | SfmMap | Localizer,
        *,
        images: str | Path | None = None,
        method: Any = None,
        frames: int = FRAMES,
        spacing: float = SPACING,
        K: Sequence[Any] | None = None,
        fov: float | None = None,
        drift: DeviceDrift | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        require_number("frames", frames, 1, 100, whole=True)
        require_number("spacing", spacing, 0)
        require_seed(seed)
        require_kind("drift", drift, DeviceDrift, "a DeviceDrift")
        self._K, self._fov = K, fov
        self._check = StreamCheck()
        self._count = 0
        self._state = TrackState.LOST
        self._ever = False
        drift = drift or DeviceDrift()
        self.reference: View | None = None
        self.localizer: Localizer | None = None
        if isinstance(target, Localizer | SfmMap) or is_map(target):
            self.localizer = _localizer(target, images, method, device)
            self._map = MapWindow(self.localizer, drift, seed)
        else:
            if images is not None:
                raise InputError(f"images {str(images)!r} was given for a reference photo: they belong to a map")
            self.reference = self._view(target, None, None, "reference")
            self._photo = PhotoWindow(self.reference, _matching(method, device), frames, drift, spacing, seed)

    @property
    def in_map(self) -> bool:
        """Whether the poses are in a map. Else they are relative to a reference photo."""
        return self.localizer is not None

    @property
    def unit(self) -> MapUnit:
        """What lengths of the answers are in."""
        return "metre" if self.localizer is None else self.localizer.unit

    @property
    def state(self) -> TrackState:
        """After the last frame; lost before the first."""
        return self._state

    def add(
        self,
        photo: Photo,
        device_pose: Pose | None = None,
        time: float | None = None,
        *,
        K: Sequence[Any] | None = None,
        fov: float | None = None,
        name: str = "",
    ) -> PoseEstimate:
        """The pose of the next frame.

        ``track`` of the estimate tells its state, and what was wrong with the frame.

        - photo: a file, or what else ``as_view`` takes.
        - device_pose: ``cam_from_world`` in the device's own world, metres (``Pose.from_convention`` reads ARKit's).
        - time: seconds.
        - K, fov: of this photo. name: what notes call it.

        Returns ``query_from_reference`` for a photo, ``cam_from_world`` in a map. A photo that cannot be read costs itself:
        ``success=False`` with the reason ``no_photo``. Times and device poses that are wrong are named in ``track.notes``,
        and not used. Raises InputError for arguments of the wrong kind.
        """
        require_kind("device_pose", device_pose, Pose, "a Pose")
        if time is not None and (isinstance(time, bool) or not isinstance(time, Real)):
            raise InputError(f"time must be seconds, got {time!r}")
        index, self._count = self._count, self._count + 1
        name = name or (str(photo) if isinstance(photo, (str, PathLike)) else f"frame {index}")
        time = None if time is None else float(time)
        told = self._check.told(name, time, device_pose)
        try:
            view = self._view(photo, K, fov, name)
        except InputError as error:
            return self._missing(index, name, time, told, str(error))
        track = TrackDetails(name, index, time, TrackState.LOST, notes=told.notes, device_pose=told.device_pose)
        return self._in_map(view, told, track) if self.in_map else self._against_photo(view, told, track)

    def add_frame(self, frame: Frame) -> PoseEstimate:
        """``add`` of a frame as sources of streams give it.

        One without a photo is a failure that says why.
        """
        if frame.photo is not None:
            return self.add(frame.photo, frame.device_pose, frame.time, name=frame.name)
        index, self._count = self._count, self._count + 1
        told = self._check.told(frame.name, frame.time, frame.device_pose)
        return self._missing(index, frame.name, frame.time, told, frame.error or f"'{frame.name}' has no photo")

    # -- frames -------------------------------------------------------------------------------------------------------
    def _view(self, photo: Photo, K: Sequence[Any] | None, fov: float | None, name: str) -> View:
        """The photo; what is said of all photos holds where nothing is said of this one, and it is no View."""
        if K is None and fov is None and not isinstance(photo, View):
            K, fov = self._K, self._fov
        return as_view(photo, K=K, fov=fov, name=name, warn_of_guess=False)

    def _missing(self, index: int, name: str, time: float | None, told: Told, said: str) -> PoseEstimate:
        self._state = TrackState.LOST
        notes = (*told.notes, TrackNote(TrackTrouble.NO_PHOTO, said))
        track = TrackDetails(name, index, time, TrackState.LOST, notes=notes, device_pose=told.device_pose)
        details = LocalizationDetails(messages=(said,), unit=self.unit) if self.in_map else None
        return replace(PoseEstimate.failure("no_photo", details), track=track)

    def _in_map(self, view: View, told: Told, track: TrackDetails) -> PoseEstimate:
        answer = self._map.add(view, track.index, told.device_pose, told.world)
        self._state = answer.state
        track = replace(
            track,
            state=answer.state,
            frames=answer.frames,
            notes=(*track.notes, *answer.notes),
            predicted=answer.predicted,
            drift=answer.drift,
            smoothed=answer.smoothed,
            searched=answer.searched,
        )
        return replace(answer.estimate, track=track)

    def _against_photo(self, view: View, told: Told, track: TrackDetails) -> PoseEstimate:
        answer = self._photo.add(view, track.index, told.device_pose, told.world)
        before, found = self._state, bool(answer.estimate.success)
        if not found:
            self._state = TrackState.LOST
        elif before is not TrackState.LOST:
            self._state = TrackState.TRACKING
        else:
            self._state = TrackState.RELOCALIZED if self._ever else TrackState.FOUND
        self._ever = self._ever or found
        track = replace(
            track,
            state=self._state,
            frames=answer.frames if found else (),
            moved=answer.moved,
            notes=(*track.notes, *answer.notes),
            predicted=answer.predicted,
            drift=answer.drift,
            smoothed=answer.smoothed,
            searched=math.isnan(answer.moved),
        )
        return replace(answer.estimate, track=track)


def is_map(target: object) -> bool:
    """Whether a path is that of a map and not of a photo."""
    if not isinstance(target, (str, PathLike)):
        return False
    path = Path(target)
    return path.is_dir() or path.suffix.lower() == ".npz" or (path.is_file() and is_bundle(path))


def _localizer(target: Any, images: str | Path | None, method: Any, device: str) -> Localizer:
    if not isinstance(target, Localizer):
        return Localizer(target, images=images, method=method, device=device)
    if images is not None or method is not None:
        raise InputError("a Localizer has its photos and its method: leave out images and method")
    return target


def _matching(method: Any, device: str) -> FeatureMatching:
    """Feature matching by name or as it is; what a rival adds to it is no use to a burst."""
    require_method(method, "relative_pose")
    if method is None or isinstance(method, str):
        method = choose_method(MethodChoice(method or "auto", device=device))
    found = getattr(method, "matching", method)
    if not isinstance(found, FeatureMatching):
        raise InputError(
            f"a stream against a photo needs matches of its frames, which {method.name} has none of: "
            "choose a matcher (pip install 'metriloc[features]')"
        )
    return found
