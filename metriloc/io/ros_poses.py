"""Poses with their covariance as ROS has them: JSON lines with the fields of the message, and ROS 2 bags.

Covariance in ROS is of position and of a rotation about the axes of the frame that the pose is told in, in this order.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.geometry.conventions import CONVENTIONS
from metriloc.io.posed_photos import PosedPhotos
from metriloc.io.poses import ros_pose_stamped

MISSING_ROSBAGS = "ROS bags are read and written by rosbags: pip install 'metriloc[ros]'"
TOPIC = "/metriloc/pose"
MESSAGE = "geometry_msgs/msg/PoseWithCovarianceStamped"


def ros_covariance(
    cam_from_world: Pose, covariance: Float[Tensor, "6 6"], *, keep_world: bool = False
) -> Float[Tensor, "6 6"]:
    """Of position and rotation about the axes of the world, float64.

    - covariance: of ``delta = [t, w]`` in ``Pose.from_tangent(delta) @ cam_from_world``.
    - keep_world: whether the world keeps its axes; else it takes forward, left, up.

    A small ``delta`` moves the center by ``-R^T t`` and turns the camera in the world by ``-R^T w``.
    """
    R = cam_from_world.R.detach().to("cpu", torch.float64)
    turn = -R.mT if keep_world else -CONVENTIONS["ros"].matrix() @ R.mT
    J = torch.block_diag(turn, turn)
    return J @ covariance.detach().to("cpu", torch.float64) @ J.mT


def messages(found: PosedPhotos) -> Iterator[tuple[str, dict[str, Any]]]:
    """The photo and the fields of a PoseWithCovarianceStamped, one after another.

    Where the covariance is not known, its first number is -1 and the others are 0.
    """
    keep = found.reference is None
    for photo in found.photos:
        pose = photo.cam_from_world
        message = ros_pose_stamped(pose, stamp=photo.stamp, frame_id=found.world, keep_world=keep)
        unknown = [-1.0, *35 * [0.0]]
        own = photo.covariance
        known = own is not None and bool(torch.isfinite(own).all())
        spread = ros_covariance(pose, own, keep_world=keep).flatten().tolist() if own is not None and known else unknown
        yield photo.name, {"header": message["header"], "pose": {"pose": message["pose"], "covariance": spread}}


def ros_covariance_text(found: PosedPhotos) -> str:
    """The poses as PoseWithCovarianceStamped messages, one a line. Each is JSON, with the photo and the unit beside its
    fields."""
    lines = (
        json.dumps({**message, "photo": photo, "unit": found.unit}, allow_nan=False)
        for photo, message in messages(found)
    )
    return "".join(f"{line}\n" for line in lines)


# -- bags -------------------------------------------------------------------------------------------------------------
def require_rosbags() -> None:
    """Raises ImportError, with the pip command, where rosbags is not here. It is not loaded."""
    if find_spec("rosbags") is None:
        raise ImportError(MISSING_ROSBAGS)


def bag_files(found: PosedPhotos) -> Mapping[str, bytes]:
    """The files of a ROS 2 bag with the poses. File name -> content; they are on ``/metriloc/pose`` (sqlite3, version
    8).

    Raises ImportError without rosbags.
    """
    require_rosbags()
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poses"
        with Writer(path, version=8) as writer:
            topic = writer.add_connection(TOPIC, MESSAGE, typestore=types)
            for _, message in messages(found):
                stamp = message["header"]["stamp"]
                nanoseconds = max(0, 10**9 * stamp["sec"] + stamp["nanosec"])
                writer.write(topic, nanoseconds, types.serialize_cdr(_built(types, message), MESSAGE))
        return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def _built(types: Any, message: Mapping[str, Any]) -> Any:
    import numpy as np

    def of(kind: str, **fields: Any) -> Any:
        return types.types[kind](**fields)

    header, pose = message["header"], message["pose"]["pose"]
    return of(
        MESSAGE,
        header=of(
            "std_msgs/msg/Header",
            stamp=of("builtin_interfaces/msg/Time", **header["stamp"]),
            frame_id=header["frame_id"],
        ),
        pose=of(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=of(
                "geometry_msgs/msg/Pose",
                position=of("geometry_msgs/msg/Point", **pose["position"]),
                orientation=of("geometry_msgs/msg/Quaternion", **pose["orientation"]),
            ),
            covariance=np.array(message["pose"]["covariance"]),
        ),
    )
