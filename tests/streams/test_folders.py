"""Folders of photos and of data sets as streams."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracles.stream_files import SIZE, some_poses, write_photos, write_video
from PIL import Image

from metriloc.geometry import Pose
from metriloc.io import InputError, mapfree_pose_line
from metriloc.streams.folder import seconds_of, stamps_of_names
from metriloc.streams.source import StreamOptions, open_stream
from metriloc.streams.views import CameraOptions

FOV = StreamOptions(CameraOptions(fov=60.0))


def same(found: Pose | None, expected: Pose, atol: float = 1e-9) -> None:
    assert found is not None
    torch.testing.assert_close(found.matrix().double(), expected.matrix(), rtol=0, atol=atol)


def numbers(values: list[float], between: str = " ") -> str:
    return between.join(repr(value) for value in values)


def test_photos_come_in_natural_order_with_the_rate_that_is_given(tmp_path: Path) -> None:
    write_photos(tmp_path, ["frame_2.jpg", "frame_10.png", "frame_1.jpg"])
    (tmp_path / "notes.txt").write_text("x")
    Image.new("I;16", SIZE).save(tmp_path / "frame_1.depth.png")
    stream = open_stream(tmp_path, replace(FOV, fps=10.0))
    frames = list(stream)
    assert [(f.index, f.name, f.time) for f in frames] == [
        (0, "frame_1.jpg", 0.0),
        (1, "frame_2.jpg", 0.1),
        (2, "frame_10.png", 0.2),
    ]
    assert stream.count == 3 and frames[1].load().size == SIZE and frames[0].path == tmp_path / "frame_1.jpg"


def test_names_that_are_time_stamps_tell_the_time(tmp_path: Path) -> None:
    assert seconds_of("1305031102.175304") == 1305031102.175304
    assert seconds_of("1403636579763555584") == pytest.approx(1403636579.7635556)
    assert stamps_of_names(["1305031102.1", "frame"]) is None and stamps_of_names(["000001"]) is None
    write_photos(tmp_path, ["1305031102.275.png", "1305031102.175.png"])
    assert [f.time for f in open_stream(tmp_path, FOV)] == [1305031102.175, 1305031102.275]


def test_an_unreadable_photo_costs_itself(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8 nothing")
    frames = list(open_stream(tmp_path, FOV))
    with pytest.raises(InputError, match=r"b\.jpg"):
        frames[1].load()
    assert frames[2].load().size == SIZE


def test_intrinsics_of_the_user_win(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg"])
    k = (100.0, 101.0, 31.0, 23.0)
    (frame,) = open_stream(tmp_path, StreamOptions(CameraOptions(k=k)))
    assert frame.load().camera.f.tolist() == [100, 101]
    (frame,) = open_stream(tmp_path, StreamOptions(CameraOptions(k=k, k_size=(128, 96), max_side=32)))
    view = frame.load()
    assert view.size == (32, 24) and view.camera.f.tolist() == pytest.approx([25, 25.25])
    with pytest.raises(InputError, match="contradict"):
        open_stream(tmp_path, StreamOptions(CameraOptions(k=k, fov=60.0)))


def test_a_mapfree_scene_has_its_queries_with_the_poses_of_the_phone(tmp_path: Path) -> None:
    names = ["seq0/frame_00000.jpg", "seq1/frame_00000.jpg", "seq1/frame_00001.jpg"]
    write_photos(tmp_path, names)
    pose = some_poses(3)[2]
    lines = "".join(f"{mapfree_pose_line(name, pose)}\n" for name in names)
    (tmp_path / "poses.txt").write_text(lines)
    (tmp_path / "poses_device.txt").write_text(lines.splitlines()[2] + "\n")
    focal = "".join(f"{name} {60 + i} {60 + i} 31.5 23.5 64 48\n" for i, name in enumerate(names))
    (tmp_path / "intrinsics.txt").write_text(focal)
    stream = open_stream(tmp_path)
    first, second = stream
    assert (first.name, second.name) == tuple(names[1:]) and first.device_pose is None
    same(second.device_pose, pose)
    assert [f.load().camera.f.tolist() for f in (first, second)] == [[61, 61], [62, 62]]  # of each its own
    assert len(stream.notes.sentences()) == 0  # of the data set's own gaps nothing need be said
    without = open_stream(tmp_path, StreamOptions(device_poses=False))
    assert [f.device_pose for f in without] == [None, None]


def test_a_nerfstudio_capture_has_cameras_and_poses(tmp_path: Path) -> None:
    write_photos(tmp_path, ["images/b.jpg", "images/a.jpg"])
    poses = some_poses(2)
    frames = [
        {
            "file_path": f"images/{name}.jpg",
            "fl_x": 50 + i,
            "transform_matrix": p.to("nerfstudio", keep_world=True).matrix().tolist(),
        }
        for i, (name, p) in enumerate(zip("ba", poses, strict=True))
    ]
    (tmp_path / "transforms.json").write_text(json.dumps({"w": 64, "h": 48, "frames": frames}))
    found = list(open_stream(tmp_path))
    assert [f.name for f in found] == ["images/b.jpg", "images/a.jpg"] and found[1].load().camera.f[0] == 51
    for frame, pose in zip(found, poses, strict=True):
        same(frame.device_pose, pose)


def test_tum_and_kitti_have_times_and_cameras_but_no_truth_as_device_poses(tmp_path: Path) -> None:
    tum = write_photos(tmp_path / "rgbd_dataset_freiburg3_x", ["rgb/1.5.png", "rgb/2.5.png"])
    (tum / "rgb.txt").write_text("# color\n2.5 rgb/2.5.png\n1.5 rgb/1.5.png\n")
    (tum / "groundtruth.txt").write_text("1.5 0 0 0 0 0 0 1\n")
    frames = list(open_stream(tum, FOV))
    assert [(f.time, f.device_pose) for f in frames] == [(1.5, None), (2.5, None)]
    kitti = write_photos(tmp_path / "00", ["image_2/000000.png", "image_2/000001.png"])
    (kitti / "times.txt").write_text("0.0e+00\n1.037875e-01\n")
    (kitti / "calib.txt").write_text("P0: 70 0 31 0 0 70 23 0 0 0 1 0\nP2: 71 0 32 4 0 72 24 0 0 0 1 0\n")
    frames = list(open_stream(kitti))
    assert [f.time for f in frames] == [0.0, 0.1037875]
    assert frames[0].load().camera.f.tolist() == [71, 72] and frames[0].load().camera.c.tolist() == [32, 24]
    (kitti / "times.txt").write_text("0\n")
    with pytest.raises(InputError, match="1 times for 2 photos"):
        open_stream(kitti)


def euroc(root: Path, poses: list[Pose], body_from_cam: Pose) -> Path:
    stamps = [1403636579763555584 + 50_000_000 * i for i in range(len(poses))]
    camera = root / "mav0" / "cam0"
    write_photos(camera / "data", [f"{stamp}.png" for stamp in stamps])
    (camera / "data.csv").write_text("#timestamp [ns],filename\n" + "".join(f"{s},{s}.png\r\n" for s in stamps))
    sensor = {
        "T_BS": {"rows": 4, "cols": 4, "data": body_from_cam.matrix().flatten().tolist()},
        "resolution": list(SIZE),
        "camera_model": "pinhole",
        "intrinsics": [70.0, 71.0, 31.0, 23.0],
        "distortion_model": "radial-tangential",
        "distortion_coefficients": [-0.28, 0.07, 2e-4, 1e-5],
    }
    (camera / "sensor.yaml").write_text(json.dumps(sensor))
    truth = root / "mav0" / "state_groundtruth_estimate0"
    truth.mkdir()
    lines = ["#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"]
    for stamp, pose in zip(stamps, poses, strict=True):
        world_from_body = pose.inverse() @ body_from_cam.inverse()
        lines.append(
            numbers([stamp, *world_from_body.t.tolist(), *world_from_body.quaternion().tolist(), 0.1, 0.2], ",")
        )
    (truth / "data.csv").write_text("\n".join(lines) + "\n")
    return truth / "data.csv"


def test_euroc_poses_of_the_body_become_the_cameras(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    poses, body_from_cam = some_poses(3), some_poses(8)[7]
    file = euroc(tmp_path, poses, body_from_cam)
    plain = list(open_stream(tmp_path))
    assert plain[0].device_pose is None and plain[1].time == pytest.approx(plain[0].time + 0.05)  # type: ignore[operator]
    view = plain[0].load()
    assert view.camera.model == "radtan" and view.camera.distortion.tolist() == pytest.approx(
        [-0.28, 0.07, 2e-4, 1e-5, 0]
    )
    for frame, pose in zip(open_stream(tmp_path, StreamOptions(device_poses=file)), poses, strict=True):
        same(frame.device_pose, pose)
    (tmp_path / "mav0" / "cam0" / "sensor.yaml").unlink()
    with pytest.raises(InputError, match="--device-mount"):
        open_stream(tmp_path, StreamOptions(device_poses=file))


def record3d(poses: list[Pose]) -> dict[str, object]:
    rows = []
    for pose in poses:
        theirs = pose.to("arkit", keep_world=True)
        w, x, y, z = theirs.quaternion().tolist()
        rows.append([x, y, z, w, *theirs.t.tolist()])
    focal = [[60.0 + i, 61.0, 31.0, 23.0] for i in range(len(poses) - 1)]
    K = [50.0, 0, 0, 0, 51.0, 0, 30.0, 22.0, 1]
    return {
        "w": 64,
        "h": 48,
        "fps": 30,
        "K": K,
        "poses": rows,
        "perFrameIntrinsicCoeffs": focal,
        "frameTimestamps": [0.0, 0.1, 0.25],
    }


@pytest.mark.parametrize("packed", [True, False])
def test_record3d_captures(tmp_path: Path, packed: bool) -> None:
    poses = some_poses(3)
    content = json.dumps(record3d(poses))
    folder = write_photos(tmp_path / "capture", [f"rgbd/{i}.jpg" for i in range(3)])
    (folder / "metadata").write_text(content)
    source = folder
    if packed:
        source = tmp_path / "capture.r3d"
        with zipfile.ZipFile(source, "w") as archive:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(folder).as_posix())
    frames = list(open_stream(source))
    assert [f.time for f in frames] == [0.0, 0.1, 0.25]
    for frame, pose in zip(frames, poses, strict=True):
        same(frame.device_pose, pose)
    cameras = [frame.load().camera for frame in open_stream(source)]  # an archive is open while frames are read
    assert [camera.f.tolist() for camera in cameras] == [[60, 61], [61, 61], [50, 51]]  # the last one has K alone


def test_record3d_says_what_is_wrong(tmp_path: Path) -> None:
    content = record3d(some_poses(3))
    for change, said in (
        ({"poses": [[1, 2, 3]]}, "poses must be rows of 7 numbers"),
        ({"w": -1}, "w must be a positive number"),
        ({"poses": [[float("nan")] * 7] * 3}, "there is no pose"),
        ({"perFrameIntrinsicCoeffs": "x"}, "perFrameIntrinsicCoeffs must be rows of 4 numbers"),
    ):
        file = tmp_path / "metadata.json"
        file.write_text(json.dumps({**content, **change}))
        (tmp_path / "rgbd").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=said):
            open_stream(tmp_path)
    lost = [list(row) for row in content["poses"]]  # type: ignore[call-overload]
    lost[1] = [float("nan")] * 7
    (tmp_path / "metadata.json").write_text(json.dumps({**content, "poses": lost}))
    stream = open_stream(tmp_path)
    assert [frame.device_pose is not None for frame in stream] == [True, False, True]
    said = stream.notes.sentences()
    assert "pose 1: the pose is not finite" in said[0] and "1.jpg, frame 1, has no pose" in said[1]
    (tmp_path / "x.r3d").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"x\.r3d' is not an archive of Record3D"):
        open_stream(tmp_path / "x.r3d")


@pytest.mark.extras
@pytest.mark.parametrize("new", [True, False])
def test_stray_scanner_dumps(tmp_path: Path, new: bool) -> None:
    write_video(tmp_path / "rgb.mp4", [0, 100, 200], rotation=90)
    poses = some_poses(3)
    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw, fx, fy, cx, cy"] if new else []
    for i, pose in enumerate(poses):
        world = pose.inverse()
        w, x, y, z = world.quaternion().tolist()
        row = [*world.t.tolist(), x, y, z, w]
        lines.append(f"{5.0 + i}, {i:06d}, {numbers(row, ', ')}, {60 + i}, 61, 31, 23" if new else numbers(row, ", "))
    (tmp_path / "odometry.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "camera_matrix.csv").write_text("55.0, 0.0, 31.5\n0.0, 56.0, 23.5\n0.0, 0.0, 1.0\n")
    frames = list(open_stream(tmp_path))
    assert [f.time for f in frames] == ([5.0, 6.0, 7.0] if new else [0.0, 0.1, 0.2])
    for frame, pose in zip(frames, poses, strict=True):
        same(frame.device_pose, pose)
    views = [frame.load() for frame in frames]
    assert views[0].size == SIZE  # poses and camera are of the pixels as they are stored, so they are not turned
    assert [view.camera.f.tolist() for view in views] == ([[60, 61], [61, 61], [62, 61]] if new else [[55, 56]] * 3)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("gone", "does not exist: SOURCE is a folder of photos"),
        ("empty", "holds no photos"),
        ("notes.txt", "is no stream"),
    ],
)
def test_what_is_no_stream_is_one_sentence(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=said):
        open_stream(tmp_path / source)


def test_fps_and_tolerances_must_be_numbers_that_can_be(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg"])
    options = StreamOptions()
    with pytest.raises(InputError, match="--fps 0"):
        open_stream(tmp_path, replace(options, fps=0.0))
    with pytest.raises(InputError, match="--device-gap -1"):
        open_stream(tmp_path, replace(options, match=replace(options.match, gap=-1.0)))


def test_jpegs_of_standard_input(tmp_path: Path) -> None:
    write_photos(tmp_path, ["a.jpg", "b.jpg"])
    pipe = io.BytesIO(b"".join((tmp_path / name).read_bytes() for name in ("a.jpg", "b.jpg")))
    frames = list(open_stream("-", replace(FOV, fps=5.0), pipe))
    assert [(f.name, f.time, f.load().size) for f in frames] == [
        ("frame_000000", 0.0, SIZE),
        ("frame_000001", 0.2, SIZE),
    ]


Shared = Callable[[str], Path]


def test_real_frames_in_order(shared: Shared) -> None:
    frames = list(open_stream(shared("data/eval/kitti_street1")))
    assert len(frames) == 51 and frames[50].name == "rgb/000050.jpg"
    assert frames[0].load().size == (640, 193)
