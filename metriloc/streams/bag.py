"""A ROS 1 or ROS 2 bag as a stream (extra ``ros``: rosbags; no ROS is needed)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.io.ros_poses import require_rosbags
from metriloc.streams.child import Record, read_records
from metriloc.streams.device_poses import MatchConfig
from metriloc.streams.frames import DevicePoses, Stream, StreamFrame
from metriloc.streams.notes import Notes
from metriloc.streams.pose_files import MountOptions, read_mount
from metriloc.streams.transforms import BodyConfig, TransformTree, camera_in_tree
from metriloc.streams.views import CameraOptions, view_of_jpeg, view_of_rgb
from metriloc.types import View

BAG_ENDINGS = frozenset((".bag", ".mcap", ".db3"))
_CHANNELS: Mapping[str, tuple[int, ...]] = {
    "rgb8": (0, 1, 2),
    "8UC3": (2, 1, 0),
    "bgr8": (2, 1, 0),
    "rgba8": (0, 1, 2, -1),
    "bgra8": (2, 1, 0, -1),
    "mono8": (0, 0, 0),
    "8UC1": (0, 0, 0),
}
"""Where red, green and blue lie in a pixel; a fourth place is not looked at."""


@dataclass(frozen=True)
class BagOptions:
    """Which topics of a bag are used."""

    topic: str = ""
    """Topic of the photos (Image or CompressedImage); by default the only one."""
    device_topic: str = ""
    """Topic of device poses (Odometry, PoseStamped, ...); by default the transforms, and the only topic of Odometry."""
    device_frame: str | None = None
    """Fixed frame that device poses are told in; by default odom, else world or map, else the top of the transforms."""


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: a ``.bag``, ``.mcap`` or ``.db3`` file, or a folder with ``metadata.yaml`` beside one."""
    if path.is_dir():
        stored = any(path.glob("*.mcap*")) or any(path.glob("*.db3*"))
        return stored and (path / "metadata.yaml").is_file()
    return path.suffix.lower() in BAG_ENDINGS


def bag_stream(
    path: Path,
    options: CameraOptions,
    bag: BagOptions,
    mount: MountOptions,
    match: MatchConfig,
    *,
    poses: bool = True,
) -> Stream:
    """The photos of a bag, with cameras (CameraInfo) and poses (transforms, Odometry, PoseStamped).

    poses: whether device poses of the bag are wanted.

    Raises ImportError without rosbags, and InputError, when it is opened, for a bag without such topics.
    """
    require_rosbags()
    notes = Notes()

    def frames() -> Iterator[StreamFrame]:
        device = bag.device_topic if poses else None
        records = read_records("bag", {"path": str(path.absolute()), "topic": bag.topic, "device": device})
        tree, body, topic = _read_tree(records, str(path), notes)
        config = BodyConfig(
            body, bag.device_frame, mount.axes, None if mount.mount is None else read_mount(mount.mount)
        )
        known: dict[str, DevicePoses | None] = {}
        for index, record in enumerate(records):
            frame = _frame(topic, index, record, options)
            camera = str(record.head.get("frame", ""))
            if poses and "bad" not in record.head and camera not in known and len(known) < 16:
                known[camera] = camera_in_tree(tree, camera, config, match, notes, f"'{path}'")
            told = known.get(camera)
            yield (
                frame if told is None else StreamFrame(index, frame.name, frame.time, frame.load, None, told.at(frame))
            )

    return Stream(str(path), frames, notes=notes)


def _read_tree(records: Iterator[Record], path: str, notes: Notes) -> tuple[TransformTree, str | None, str]:
    """The transforms, the frame that a topic of poses is about, and the topic of the photos."""
    tree, body = TransformTree(), None
    for record in records:
        if "ready" in record.head:
            return tree, body, str(record.head["topic"])
        parent, child = record.head["edge"]
        rows = np.frombuffer(record.data, np.float64).reshape(-1, 8).tolist()
        tree.add(parent, child, rows, record.head["static"], f"'{path}'", notes)
        if record.head["posed"] and child in tree.edges:
            body = child
    raise InputError(f"'{path}' ended before its photos")


def _frame(topic: str, index: int, record: Record, options: CameraOptions) -> StreamFrame:
    head, name = record.head, f"{topic.strip('/').replace('/', '_')}_{index:06d}"

    def load() -> View:
        if "bad" in head:
            raise InputError(f"{name}: {head['bad']}")
        camera = None if options.said or "camera" not in head else camera_of_info(head["camera"], topic)
        source = f"CameraInfo beside {topic}"
        if "encoding" not in head:
            return view_of_jpeg(record.data, name, options, camera, source)
        return view_of_rgb(rgb_of_message(head, record.data, name), name, options, camera, source)

    return StreamFrame(index, name, float(head["time"]), load)


def camera_of_info(info: Mapping[str, Any], topic: str) -> Camera:
    """The camera of a CameraInfo, for a topic of photos: rectified ones have that of ``P``, without distortion.

    Raises InputError for a distortion that is not known here.
    """
    size = torch.tensor([info["width"], info["height"]], dtype=torch.float64)
    rectified = "rect" in topic.rsplit("/", 2)[-1] or "rect" in topic.removesuffix("/compressed").rsplit("/", 1)[-1]
    K = info["P"] if rectified and len(info["P"]) == 12 and info["P"][0] > 0 else info["K"]
    step = 4 if K is info["P"] else 3
    f = torch.tensor([K[0], K[step + 1]], dtype=torch.float64)
    c = torch.tensor([K[2], K[step + 2]], dtype=torch.float64)
    terms, model = list(info["D"]), info["model"]
    if rectified or not any(terms):
        return Camera(size, f, c)
    if model in ("equidistant", "fisheye") and len(terms) >= 4:
        return Camera(size, f, c, torch.tensor(terms[:4], dtype=torch.float64), "fisheye")
    if model in ("plumb_bob", "rational_polynomial") and len(terms) >= 4 and not any(terms[5:]):
        padded = [*terms, 0.0][:5]
        return Camera(size, f, c, torch.tensor(padded, dtype=torch.float64), "radtan")
    raise InputError(
        f"the CameraInfo beside {topic} has distortion {model!r} with {len(terms)} terms, which is not supported: "
        "use the topic of rectified photos, or give --k"
    )


def rgb_of_message(head: Mapping[str, Any], data: bytes, name: str) -> np.ndarray:
    """Pixels uint8 [H, W, 3] of the bytes of an Image. Raises InputError for another size than they have, and for
    encodings that are no colors or greys."""
    kind, width, height, step = head["encoding"], head["width"], head["height"], head["step"]
    wide = {"mono16": 2, "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2}
    size = len(_CHANNELS[kind]) if kind in _CHANNELS else wide.get(kind)
    size = 1 if kind in ("mono8", "8UC1") else size
    if size is None:
        raise InputError(f"{name} has the encoding {kind!r}: it must be one of {', '.join((*_CHANNELS, *wide))}")
    if min(width, height) < 1 or step < width * size or len(data) < step * height:
        raise InputError(f"{name}: {len(data)} bytes are no {width}x{height} pixels of {kind} in rows of {step}")
    rows = np.frombuffer(data, np.uint8, step * height).reshape(height, step)[:, : width * size]
    pixels = rows.reshape(height, width, size)
    if kind in _CHANNELS:
        return np.ascontiguousarray(pixels[..., _CHANNELS[kind][:3]])
    if kind == "mono16":
        high = pixels[..., 0 if head["big"] else 1]
        return np.repeat(high[..., None], 3, axis=2)
    return _rgb_of_yuv(pixels, luma=1 if kind in ("yuv422", "uyvy") else 0)


def _rgb_of_yuv(pixels: np.ndarray, luma: int) -> np.ndarray:
    """BT.601 of full range, two pixels with one color; luma: which byte of a pixel is its brightness."""
    if pixels.shape[1] % 2:
        raise InputError(f"a photo in yuv422 has an even number of columns, got {pixels.shape[1]}")
    y = pixels[..., luma].astype(np.float32)
    color = pixels[..., 1 - luma].astype(np.float32) - 128
    u, v = (np.repeat(color[:, start::2], 2, axis=1) for start in (0, 1))
    rgb = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], -1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
