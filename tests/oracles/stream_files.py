"""Small streams of every kind, written by other libraries where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.geometry import Pose, so3_exp

SIZE = (64, 48)


def color(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A photo that tells its number by its grey, with a red corner at the top left and a blue edge at the bottom."""
    rgb = np.full((size[1], size[0], 3), 20 + 10 * index % 200, np.uint8)
    rgb[: size[1] // 4, : size[0] // 4] = [240, 20, 20]
    rgb[-size[1] // 4 :] = [20, 20, 240]
    return rgb


def some_poses(count: int) -> list[Pose]:
    """``cam_from_world`` of a camera that walks along a bow and turns."""
    time = torch.arange(count, dtype=torch.float64) / 10
    centers = torch.stack([2 * time.cos(), time.sin(), 0.2 * time], -1)
    turns = so3_exp(torch.stack([0.1 * time, time / 3, 0 * time], -1))
    return [Pose(R, -(R @ c)) for R, c in zip(turns, centers, strict=True)]


def write_photos(folder: Path, names: Sequence[str]) -> Path:
    """A photo for each name."""
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(color(index)).save(folder / name, quality=95)
    return folder


def write_video(path: Path, milliseconds: Sequence[int], rotation: int | None = None) -> Path:
    """A video by PyAV, a photo at each time; skips without PyAV."""
    av: Any = pytest.importorskip("av", reason="needs PyAV (extra video)")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height = SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index, time in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(color(index), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class BagWriter:
    """A ROS 1 (``.bag``) or ROS 2 bag by rosbags; skips without it. ``write(topic, kind, stamp, **fields)``."""

    def __init__(self, path: Path, mcap: bool = False) -> None:
        pytest.importorskip("rosbags", reason="needs rosbags (extra ros)")
        from rosbags.rosbag1 import Writer as Writer1
        from rosbags.rosbag2 import StoragePlugin
        from rosbags.rosbag2 import Writer as Writer2
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self.ros1 = path.suffix == ".bag"
        self.types = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        if self.ros1:
            self.types.register(
                get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage")
            )
        self.writer: Any = (
            Writer1(path)
            if self.ros1
            else Writer2(path, version=8, storage_plugin=StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3)
        )
        self.topics: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self.writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def make(self, kind: str, **fields: Any) -> Any:
        return self.types.types[kind](**fields)

    def header(self, seconds: float, frame: str) -> Any:
        nanoseconds = round(1e9 * seconds)
        time = self.make("builtin_interfaces/msg/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)
        sequence = {"seq": 0} if self.ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=time, frame_id=frame, **sequence)

    def write(self, topic: str, seconds: float, kind: str, **fields: Any) -> None:
        if topic not in self.topics:
            self.topics[topic] = self.writer.add_connection(topic, kind, typestore=self.types)
        message = self.make(kind, **fields)
        data = (self.types.serialize_ros1 if self.ros1 else self.types.serialize_cdr)(message, kind)
        self.writer.write(self.topics[topic], round(1e9 * seconds), data)

    def image(
        self, topic: str, seconds: float, rgb: np.ndarray, encoding: str = "rgb8", frame: str = "optical"
    ) -> None:
        height, width = rgb.shape[:2]
        channels = rgb if encoding == "rgb8" else rgb[..., ::-1]
        self.write(
            topic,
            seconds,
            "sensor_msgs/msg/Image",
            header=self.header(seconds, frame),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(channels).reshape(-1),
        )

    def camera(
        self, topic: str, seconds: float, K: Sequence[float], D: Sequence[float] = (), model: str = "plumb_bob"
    ) -> None:
        fx, fy, cx, cy = K
        k = np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0])
        p = np.array([fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0.0])
        named = {"d": np.array(D, float), "k": k, "r": np.eye(3).reshape(-1), "p": p}
        named = {name.upper(): value for name, value in named.items()} if self.ros1 else named
        roi = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}
        self.write(
            topic,
            seconds,
            "sensor_msgs/msg/CameraInfo",
            header=self.header(seconds, "optical"),
            height=SIZE[1],
            width=SIZE[0],
            distortion_model=model,
            binning_x=0,
            binning_y=0,
            roi=self.make("sensor_msgs/msg/RegionOfInterest", **roi),
            **named,
        )

    def transform(self, topic: str, seconds: float, parent: str, child: str, parent_from_child: Pose) -> None:
        w, x, y, z = parent_from_child.quaternion().tolist()
        transform = self.make(
            "geometry_msgs/msg/Transform",
            translation=self.make(
                "geometry_msgs/msg/Vector3", **dict(zip("xyz", parent_from_child.t.tolist(), strict=True))
            ),
            rotation=self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        )
        one = self.make(
            "geometry_msgs/msg/TransformStamped",
            header=self.header(seconds, parent),
            child_frame_id=child,
            transform=transform,
        )
        self.write(topic, seconds, "tf2_msgs/msg/TFMessage", transforms=[one])

    def odometry(self, topic: str, seconds: float, parent: str, child: str, parent_from_child: Pose) -> None:
        w, x, y, z = parent_from_child.quaternion().tolist()
        pose = self.make(
            "geometry_msgs/msg/Pose",
            position=self.make(
                "geometry_msgs/msg/Point", **dict(zip("xyz", parent_from_child.t.tolist(), strict=True))
            ),
            orientation=self.make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        )
        zero = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = self.make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
        self.write(
            topic,
            seconds,
            "nav_msgs/msg/Odometry",
            header=self.header(seconds, parent),
            child_frame_id=child,
            pose=self.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
            twist=self.make("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )
