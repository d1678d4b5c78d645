"""Whatever SOURCE names, opened as a stream; the form is told from the files.

| SOURCE | form | comes with |
|---|---|---|
| ``-`` | JPEGs one after another on standard input | |
| ``*.mp4``, ``*.mov``, ... | video (extra ``video``) | times |
| ``*.bag``, ``*.mcap``, folder with ``metadata.yaml`` | ROS 1 or 2 bag (extra ``ros``) | times, cameras, poses |
| ``*.r3d``, folder with ``metadata`` and ``rgbd/`` | Record3D | times, cameras, poses |
| folder with ``rgb.mp4`` and ``odometry.csv`` | Stray Scanner (extra ``video``) | times, cameras, poses |
| folder with ``transforms.json`` | nerfstudio capture | cameras, poses |
| folder with ``poses.txt`` and ``intrinsics.txt`` | Map-free scene | cameras, ``poses_device.txt`` |
| folder with ``mav0/cam0`` | EuRoC | times, camera |
| folder with ``rgb.txt`` | TUM RGB-D | times, camera of freiburg1 to 3 |
| folder with ``times.txt`` and ``image_2`` | KITTI odometry | times, camera |
| any other folder | photos in the order of their names | times, where names are time stamps |
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import BinaryIO

from metriloc.io import InputError
from metriloc.streams.bag import BagOptions, bag_stream, is_bag
from metriloc.streams.datasets import is_kitti, is_scene, kitti_stream, mapfree_stream, nerfstudio_stream, tum_stream
from metriloc.streams.device_poses import MatchConfig
from metriloc.streams.euroc import euroc_stream, is_euroc
from metriloc.streams.folder import folder_stream
from metriloc.streams.frames import Stream, StreamFrame
from metriloc.streams.jpegs import jpeg_stream
from metriloc.streams.phones import is_stray, stray_stream
from metriloc.streams.pose_files import MountOptions, read_device_poses
from metriloc.streams.record3d import is_record3d, record3d_stream
from metriloc.streams.video import VIDEO_ENDINGS, video_stream
from metriloc.streams.views import CameraOptions

MAX_FPS = 10_000.0


@dataclass(frozen=True)
class StreamOptions:
    """What is known of a stream beside its files.

    - camera: intrinsics, which win over those that come with the stream.
    - bag, mount, match: topics; what device poses are of; how they are matched to frames.
    - fps: frames a second, in place of the times of the stream.
    - device_poses: a file of them, in place of those that come with the stream; False for none at all.
    """

    camera: CameraOptions = field(default_factory=CameraOptions)
    bag: BagOptions = field(default_factory=BagOptions)
    mount: MountOptions = field(default_factory=MountOptions)
    match: MatchConfig = field(default_factory=MatchConfig)
    fps: float | None = None
    device_poses: Path | bool = True


def open_stream(source: str | Path, options: StreamOptions = StreamOptions(), stdin: BinaryIO | None = None) -> Stream:
    """The frames of a source, in the form that the table of this module tells, with poses of the device.

    - source: a path, or ``-``.
    - stdin: read for ``-``; standard input by default.

    Raises InputError, one sentence, for a path that is no stream, options that contradict, and files that are malformed;
    ImportError, with the pip command, where a package for the form is missing.

    >>> for frame in open_stream("walk.mp4"):  # doctest: +SKIP
    ...     print(frame.time, frame.load().size)
    """
    options.camera.check()
    options.match.check()
    if options.fps is not None and not 0 < options.fps <= MAX_FPS:
        raise InputError(f"--fps {options.fps:g} must be above 0 and at most {MAX_FPS:g} frames a second")
    _require_use(str(source), options)
    if str(source) == "-":
        stream = jpeg_stream(sys.stdin.buffer if stdin is None else stdin, options.camera, fps=options.fps)
    else:
        path = Path(source)
        if not path.exists():
            raise InputError(
                f"'{path}' does not exist: SOURCE is a folder of photos, a video, a ROS bag, or - for JPEGs"
            )
        stream = _of_folder(path, options) if path.is_dir() else _of_file(path, options)
    if options.fps is not None:
        stream = _at_rate(stream, options.fps)
    if isinstance(options.device_poses, Path):
        device = read_device_poses(options.device_poses, options.match, options.mount, stream.notes)
        return replace(stream, device=device)
    return stream if options.device_poses else replace(stream, device=None)


def _require_use(source: str, options: StreamOptions) -> None:
    """Raises InputError for options that nothing here would use."""
    from_bag = source != "-" and is_bag(Path(source))
    if not from_bag and options.bag != BagOptions():
        raise InputError(f"{_given(options.bag, '')} is about a ROS bag, and '{source}' is none")
    if options.device_poses is not True and (options.bag.device_topic or options.bag.device_frame is not None):
        why = "--device-poses takes their place" if options.device_poses else "--no-device-poses does without"
        raise InputError(f"{_given(replace(options.bag, topic=''), '')} is about device poses in the bag, and {why}")
    told = isinstance(options.device_poses, Path) or (from_bag and options.device_poses is True)
    for settings in (options.mount, options.match):
        if not told and settings != type(settings)():
            raise InputError(
                f"{_given(settings, 'device-')} is about the poses of --device-poses or of a ROS bag, and there are none"
            )


def _given(settings: BagOptions | MountOptions | MatchConfig, prefix: str) -> str:
    """The first option that is not as by default, as it was typed."""
    named = ((field.name, getattr(settings, field.name)) for field in fields(settings))
    usual = type(settings)()
    name, value = next((name, value) for name, value in named if value != getattr(usual, name))
    return f"--{prefix}{name.replace('_', '-')} {value}"


def _at_rate(stream: Stream, fps: float) -> Stream:
    """So many frames a second, whatever times the stream has."""

    def frames() -> Iterator[StreamFrame]:
        return (replace(frame, time=frame.index / fps) for frame in stream.open())

    return replace(stream, open=frames)


def _of_file(path: Path, options: StreamOptions) -> Stream:
    if is_bag(path):
        return _bag(path, options)
    if is_record3d(path):
        return record3d_stream(path, options.camera)
    if path.suffix.lower() in VIDEO_ENDINGS:
        return video_stream(path, options.camera, fps=options.fps)
    known = ", ".join(sorted(VIDEO_ENDINGS))
    raise InputError(f"'{path}' is no stream: a folder of photos, a video ({known}), a ROS bag, .r3d, or - for JPEGs")


def _bag(path: Path, options: StreamOptions) -> Stream:
    poses = options.device_poses is True
    return bag_stream(path, options.camera, options.bag, options.mount, options.match, poses=poses)


_Form = tuple[Callable[[Path], bool], Callable[[Path, StreamOptions], Stream]]
_FORMS: tuple[_Form, ...] = (
    (is_bag, _bag),
    (is_stray, lambda path, options: stray_stream(path, options.camera)),
    (is_record3d, lambda path, options: record3d_stream(path, options.camera)),
    (lambda path: (path / "transforms.json").is_file(), lambda p, o: nerfstudio_stream(p, o.camera, o.fps)),
    (is_scene, lambda path, options: mapfree_stream(path, options.camera, options.fps)),
    (is_euroc, lambda path, options: euroc_stream(path, options.camera)),
    (lambda path: (path / "rgb.txt").is_file(), lambda path, options: tum_stream(path, options.camera)),
    (is_kitti, lambda path, options: kitti_stream(path, options.camera)),
)


def _of_folder(path: Path, options: StreamOptions) -> Stream:
    for fits, opened in _FORMS:
        if fits(path):
            return opened(path, options)
    return folder_stream(path, options.camera, options.fps)
