"""ROS 1 and ROS 2 bags, written by rosbags: photos, cameras, transforms, odometry; and what is wrong with them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.stream_files import SIZE, BagWriter, color, some_poses
from PIL import Image

from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.streams.bag import BagOptions, camera_of_info, rgb_of_message
from metriloc.streams.pose_files import MountOptions
from metriloc.streams.source import StreamOptions, open_stream

K = (60.0, 61.0, 31.0, 23.0)
TOPIC = "/cam/image_raw"
TIMES = [100.0, 100.1, 100.2, 100.3]


def same(found: Pose | None, expected: Pose) -> None:
    assert found is not None
    torch.testing.assert_close(found.matrix(), expected.matrix(), rtol=0, atol=1e-7)


def body_from_optical() -> Pose:
    """A camera that looks ahead from a mast: optical axes in a body with x forward, y left, z up."""
    R = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]], dtype=torch.float64)
    return Pose(R, torch.tensor([0.1, 0.02, 0.5], dtype=torch.float64))


def walk(writer: BagWriter, poses: list[Pose], *, jpeg: bool = False, odometry: bool = False) -> None:
    """Photos at TIMES; the body's pose twenty times a second, so that every photo's is one of them."""
    writer.transform("/tf_static", 99.0, "base_link", "optical", body_from_optical())
    for time, pose in zip(TIMES, poses, strict=True):
        odom_from_body = pose.inverse() @ body_from_optical().inverse()
        if odometry:
            writer.odometry("/odom", time, "odom", "base_link", odom_from_body)
        else:
            writer.transform("/tf", time, "odom", "base_link", odom_from_body)
    writer.camera("/cam/camera_info", 99.9, K)
    for index, time in enumerate(TIMES):
        if jpeg:
            data = io.BytesIO()
            Image.fromarray(color(index)).save(data, "JPEG", quality=95)
            raw = np.frombuffer(data.getvalue(), np.uint8)
            header = writer.header(time, "optical")
            kind = "sensor_msgs/msg/CompressedImage"
            writer.write(f"{TOPIC}/compressed", time, kind, header=header, format="jpeg", data=raw)
        else:
            writer.image(TOPIC, time, color(index), "bgr8" if index % 2 else "rgb8")


@pytest.mark.slow
@pytest.mark.extras
@pytest.mark.parametrize("name", ["walk.bag", "walk"])
@pytest.mark.parametrize("odometry", [True, False])
def test_a_walk_has_photos_camera_and_device_poses(tmp_path: Path, name: str, odometry: bool) -> None:
    poses = some_poses(4)
    with BagWriter(tmp_path / name) as writer:
        walk(writer, poses, jpeg=odometry, odometry=odometry)
    stream = open_stream(tmp_path / name)
    frames = list(stream)
    assert [f.time for f in frames] == pytest.approx(TIMES)
    for index, (frame, pose) in enumerate(zip(frames, poses, strict=True)):
        same(frame.device_pose, pose)
        view = frame.load()
        assert view.size == SIZE and view.camera.f.tolist() == [60, 61] and "CameraInfo" in view.intrinsics_source
        np.testing.assert_allclose(
            255 * view.image[:, 20, 40].numpy(), color(index)[20, 40], atol=4 if odometry else 0.01
        )
    assert stream.notes.sentences() == []
    assert [f.device_pose for f in open_stream(tmp_path / name, StreamOptions(device_poses=False))] == [None] * 4


@pytest.mark.extras
@pytest.mark.parametrize("mcap", [True, False])
def test_one_file_of_a_bag_is_enough(tmp_path: Path, mcap: bool) -> None:
    with BagWriter(tmp_path / "walk", mcap) as writer:
        walk(writer, some_poses(4))
    (file,) = [path for path in (tmp_path / "walk").iterdir() if path.name != "metadata.yaml"]
    alone = file.rename(tmp_path / file.name)
    assert [frame.device_pose is not None for frame in open_stream(alone)] == [True] * 4


@pytest.mark.extras
def test_odometry_without_a_camera_in_the_transforms_is_taken_for_the_cameras(tmp_path: Path) -> None:
    (pose,) = some_poses(1)
    with BagWriter(tmp_path / "walk") as writer:
        writer.odometry("/odom", 100.0, "odom", "base_link", pose.inverse())
        writer.image(TOPIC, 100.0, color(0))
    stream = open_stream(tmp_path / "walk")
    (frame,) = stream
    optical_from_body = Pose(body_from_optical().R.mT, torch.zeros(3, dtype=torch.float64))
    same(frame.device_pose, optical_from_body @ pose)
    (said,) = stream.notes.sentences()
    assert "taken for the camera's" in said and "--device-mount" in said
    mount = tmp_path / "mount.txt"
    mount.write_text("\n".join(" ".join(map(repr, row)) for row in body_from_optical().matrix().tolist()))
    stream = open_stream(tmp_path / "walk", StreamOptions(mount=MountOptions(mount=mount)))
    (frame,) = stream
    same(frame.device_pose, body_from_optical().inverse() @ pose)
    assert stream.notes.sentences() == []


@pytest.mark.extras
def test_several_topics_and_frames_are_chosen_by_name(tmp_path: Path) -> None:
    poses = some_poses(4)
    with BagWriter(tmp_path / "walk") as writer:
        walk(writer, poses)
        writer.image("/other/image_raw", 100.0, color(5))
        writer.transform("/tf_static", 99.0, "map", "odom", Pose.identity(dtype=torch.float64))
    with pytest.raises(InputError, match=r"has photos on /cam/image_raw, /other/image_raw: name one with --topic"):
        list(open_stream(tmp_path / "walk"))
    chosen = StreamOptions(bag=BagOptions(TOPIC, device_frame="map"))
    same(next(iter(open_stream(tmp_path / "walk", chosen))).device_pose, poses[0])
    for bag, said in (
        (BagOptions("/gone"), "has no photos on '/gone'; it has /cam/image_raw"),
        (BagOptions(TOPIC, "/gone"), "has no poses on '/gone'; it has "),
        (BagOptions(TOPIC, device_frame="moon"), "nothing leads from 'optical' to 'moon'"),
    ):
        with pytest.raises(InputError, match=said):
            list(open_stream(tmp_path / "walk", StreamOptions(bag=bag)))


@pytest.mark.extras
def test_gaps_and_broken_messages_are_named_and_survived(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "walk") as writer:
        walk(writer, some_poses(4))
        writer.image(TOPIC, 150.0, color(4))
        writer.writer.write(writer.topics[TOPIC], 160 * 10**9, b"\x00\x01\x00\x00 no message")
    stream = open_stream(tmp_path / "walk")
    frames = list(stream)
    assert [f.device_pose is not None for f in frames] == [True] * 4 + [False] * 2
    with pytest.raises(InputError, match="a message cannot be read"):
        frames[5].load()
    assert frames[4].load().size == SIZE
    assert "at 150.000 s has no pose" in stream.notes.sentences()[0]


@pytest.mark.extras
def test_what_is_no_bag_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags: pip install 'metriloc[ros]'")
    (tmp_path / "x.bag").write_bytes(b"#ROSBAG V2.0\n" + b"\xff" * 100)
    with pytest.raises(InputError, match=r"x\.bag' cannot be read"):
        list(open_stream(tmp_path / "x.bag"))
    with BagWriter(tmp_path / "empty") as writer:
        writer.camera("/cam/camera_info", 1.0, K)
    with pytest.raises(InputError, match="holds no photos"):
        list(open_stream(tmp_path / "empty"))


def info(model: str, D: list[float]) -> dict[str, object]:
    k = [60.0, 0, 31, 0, 61, 23, 0, 0, 1]
    p = [50.0, 0, 30, 0, 0, 51, 22, 0, 0, 0, 1, 0]
    return {"width": 64, "height": 48, "K": k, "D": D, "P": p, "model": model, "frame": "optical"}


def test_cameras_of_messages() -> None:
    plain = camera_of_info(info("plumb_bob", [0.0] * 5), TOPIC)
    assert plain.model == "pinhole" and plain.f.tolist() == [60, 61] and plain.c.tolist() == [31, 23]
    bent = camera_of_info(info("plumb_bob", [0.1, 0.2, 0.3, 0.4]), TOPIC)
    assert bent.model == "radtan" and bent.distortion.tolist() == [0.1, 0.2, 0.3, 0.4, 0]
    assert camera_of_info(info("equidistant", [0.1] * 4), TOPIC).model == "fisheye"
    rectified = camera_of_info(info("plumb_bob", [0.1] * 5), "/cam/image_rect/compressed")
    assert rectified.model == "pinhole" and rectified.f.tolist() == [50, 51] and rectified.c.tolist() == [30, 22]
    with pytest.raises(InputError, match="rational_polynomial' with 8 terms"):
        camera_of_info(info("rational_polynomial", [0.1] * 8), TOPIC)


def test_encodings_of_messages() -> None:
    rgb = color(3)

    def read(kind: str, pixels: np.ndarray, step: int | None = None, big: bool = False) -> np.ndarray:
        row = pixels.reshape(48, -1)
        padded = np.pad(row, ((0, 0), (0, (step or row.shape[1]) - row.shape[1])))
        head = {"encoding": kind, "width": 64, "height": 48, "step": padded.shape[1], "big": big}
        return rgb_of_message(head, padded.tobytes(), "photo")

    assert (read("rgb8", rgb) == rgb).all() and (read("bgr8", rgb[..., ::-1], 200) == rgb).all()
    with_alpha = np.concatenate([rgb, np.full((48, 64, 1), 9, np.uint8)], -1)
    assert (read("rgba8", with_alpha) == rgb).all()
    assert (read("mono8", rgb[..., :1]) == rgb[..., :1]).all()
    grey16 = rgb[..., 0].astype("<u2") * 257
    assert (read("mono16", grey16.view(np.uint8)) == rgb[..., :1]).all()
    assert (read("mono16", grey16.astype(">u2").view(np.uint8), big=True) == rgb[..., :1]).all()
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    color_of_two = np.where(np.arange(64)[None, :] % 2 == 0, ycc[..., 1], np.roll(ycc[..., 2], 1, 1))
    yuyv = np.stack([ycc[..., 0], color_of_two], -1)
    assert int(np.abs(read("yuv422_yuy2", yuyv).astype(int) - rgb).max()) <= 3
    assert int(np.abs(read("yuv422", yuyv[..., ::-1]).astype(int) - rgb).max()) <= 3
    with pytest.raises(InputError, match="has the encoding 'bayer_rggb8'"):
        read("bayer_rggb8", rgb[..., :1])
    with pytest.raises(InputError, match="are no 64x48 pixels of rgb8"):
        read("rgb8", rgb[..., :2])
