"""Covariance as ROS has it, against samples; bags that rosbags reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.stream_files import some_poses

from metriloc.geometry import Camera, Pose, so3_log
from metriloc.io.posed_photos import PosedPhoto, PosedPhotos
from metriloc.io.ros_poses import ros_covariance, ros_covariance_text
from metriloc.runs.pose_files import checked_formats, write_pose_files

POSE = some_poses(7)[6]


def spread() -> torch.Tensor:
    A = torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return 1e-6 * (A @ A.mT)


def photos(covariance: torch.Tensor | None, reference: bool = False) -> PosedPhotos:
    camera = Camera(torch.tensor([64.0, 48]), torch.tensor([60.0, 60]), torch.tensor([31.5, 23.5]))
    one = PosedPhoto("a.jpg", Path("a.jpg"), camera, POSE, 1.5, 0.9, covariance)
    world = PosedPhoto("r.jpg", Path("r.jpg"), camera, Pose.identity(dtype=torch.float64))
    return PosedPhotos((one,), world if reference else None)


@pytest.mark.parametrize("keep_world", [True, False])
def test_the_covariance_is_that_of_samples(keep_world: bool) -> None:
    C = spread()
    draws = (
        torch.randn(40_000, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        @ torch.linalg.cholesky(C).mT
    )
    moved = (Pose.from_tangent(draws) @ POSE).to("ros", keep_world=keep_world)
    mean = POSE.to("ros", keep_world=keep_world)
    turned = so3_log(moved.R @ mean.R.mT)  # about the axes of the world
    sampled = torch.cat([moved.t - mean.t, turned], -1)
    expected = ros_covariance(POSE, C, keep_world=keep_world)
    torch.testing.assert_close(torch.cov(sampled.mT), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


def test_lines_have_the_fields_of_the_message() -> None:
    entry = json.loads(ros_covariance_text(photos(spread())))
    assert entry["header"] == {"stamp": {"sec": 1, "nanosec": 500_000_000}, "frame_id": "map"}
    np.testing.assert_allclose(list(entry["pose"]["pose"]["position"].values()), POSE.center().numpy(), atol=1e-12)
    found = np.array(entry["pose"]["covariance"]).reshape(6, 6)
    np.testing.assert_allclose(found, ros_covariance(POSE, spread(), keep_world=True).numpy(), atol=1e-15)
    for unknown in (None, torch.full((6, 6), float("nan"))):
        told = json.loads(ros_covariance_text(photos(unknown)))["pose"]["covariance"]
        assert told == [-1.0] + 35 * [0.0]
    assert json.loads(ros_covariance_text(photos(None, reference=True)))["header"]["frame_id"] == "reference"


@pytest.mark.extras
def test_rosbags_reads_our_bag(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags (extra ros)")
    from rosbags.highlevel import AnyReader

    write_pose_files(tmp_path, ["rosbag"], photos(spread()))
    write_pose_files(tmp_path, ["rosbag"], photos(spread()))  # over an earlier one
    with AnyReader([tmp_path / "poses.rosbag"]) as bag:
        ((connection, stamp, raw),) = bag.messages()
        message = bag.deserialize(raw, connection.msgtype)
    assert connection.topic == "/metriloc/pose" and stamp == 1_500_000_000
    position, turn = message.pose.pose.position, message.pose.pose.orientation  # type: ignore[attr-defined]
    np.testing.assert_allclose([position.x, position.y, position.z], POSE.center().numpy(), atol=1e-12)
    q = torch.tensor([turn.w, turn.x, turn.y, turn.z], dtype=torch.float64)
    forward = Pose.from_quaternion(q, torch.zeros(3, dtype=torch.float64)).R[:, 0]
    torch.testing.assert_close(forward, POSE.R[2], rtol=0, atol=1e-9)  # where x of the body points: ahead
    found = message.pose.covariance.reshape(6, 6)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, ros_covariance(POSE, spread(), keep_world=True).numpy(), atol=1e-15)


def test_a_bag_without_the_extra_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metriloc.io.ros_poses.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'metriloc\[ros\]'"):
        checked_formats(["rosbag"])
    assert checked_formats(["tum"]) == ("tum",)
