"""Posed folders of every form against the same scene written by hand, and COLMAP models against Map-free text files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp

from metriloc.datasets import (
    read_colmap,
    read_mapfree,
    read_nerfstudio,
    read_posed,
    read_posed_scenes,
    read_rgbd,
    read_sevenscenes,
    read_tum_folder,
    scene_from_map,
    uniform_pairs,
    with_depth_folder,
)
from metriloc.datasets.matrices import parse_camera_pose, parse_matrix, pinhole
from metriloc.datasets.nerfstudio import parse_opengl_pose
from metriloc.datasets.rgbd import natural_key, parse_camera
from metriloc.datasets.sevenscenes import parse_absolute_list, parse_relative_list, parse_split
from metriloc.datasets.tum import interpolate_poses, parse_stamped_files
from metriloc.geometry import Pose, so3_exp
from metriloc.io import InputError, tum_line
from metriloc.types import SfmMap

Shared = Callable[[str], Path]


def photo(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path)


def depth(path: Path, value: int = 1500, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, dtype=np.uint16)).save(path)


def some_pose(seed: int) -> Pose:
    numbers = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Pose(so3_exp(numbers[:3]), numbers[3:])


def matrix_text(pose: Pose) -> str:
    return "\n".join(" ".join(f"{value:.9f}" for value in row) for row in pose.matrix().tolist()) + "\n"


def same_pose(found: Pose | None, expected: Pose, atol: float = 1e-6) -> None:
    assert found is not None
    torch.testing.assert_close(found.matrix(), expected.matrix(), rtol=0, atol=atol)


# -- COLMAP -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["kitchen", "holo_a", "fountain_p11", "entry_p10"])
def test_colmap_models_of_the_real_places(shared: Shared, place: str) -> None:
    folder = shared(f"data/eval/places/{place}")
    (listed,) = read_mapfree(folder)
    scene = read_colmap(folder, folder)
    for frame in scene:
        other = listed.posed.frame(listed.posed.index(frame.name))
        same_pose(frame.cam_from_world, other.cam_from_world, 1e-6)  # type: ignore[arg-type]
        torch.testing.assert_close(frame.camera.K, other.camera.K, rtol=0, atol=1e-3)
    assert scene.frame(0).load().size == tuple(listed.posed.frame(0).camera.size.int().tolist())


def test_colmap_scale_and_missing_photos(shared: Shared, tmp_path: Path) -> None:
    folder = shared("data/eval/places/fountain_p11")
    plain, scaled = read_colmap(folder), read_colmap(folder, scale=2.5)
    torch.testing.assert_close(scaled.cam_from_world.center(), 2.5 * plain.cam_from_world.center())
    assert plain.folder == folder and plain.name == "fountain_p11" == read_colmap(folder / "sparse").name
    with pytest.raises(InputError, match="holds no COLMAP model"):
        read_colmap(tmp_path)
    for file in (folder / "sparse").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"frame_00000\.jpg' of the map is in none of"):
        read_colmap(tmp_path)


# -- TUM --------------------------------------------------------------------------------------------------------------
def make_tum(folder: Path, name: str = "rgbd_dataset_freiburg2_toy") -> Path:
    folder = folder / name
    times = [10.0, 10.033, 10.066, 12.0]
    for i, _ in enumerate(times):
        photo(folder / f"rgb/{i}.png", (640, 480))
        depth(folder / f"depth/{i}.png", 5000 * (i + 1), (640, 480))
    (folder / "rgb.txt").write_text("# comment\n" + "".join(f"{t:.6f} rgb/{i}.png\n" for i, t in enumerate(times)))
    (folder / "depth.txt").write_text("".join(f"{t + 0.01:.6f} depth/{i}.png\n" for i, t in enumerate(times[:2])))
    lines = [tum_line(9.99 + 0.02 * i, some_pose(i)) for i in range(8)]
    (folder / "groundtruth.txt").write_text("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(lines) + "\n")
    return folder


def test_tum_folder(tmp_path: Path) -> None:
    folder = make_tum(tmp_path)
    scene = read_tum_folder(folder)
    # the last photo has no pose within reach
    assert scene.names == ("rgb/0.png", "rgb/1.png", "rgb/2.png")
    assert [f.depth.name if f.depth else None for f in scene] == ["0.png", "1.png", None]
    view = scene.frame(1).load()
    assert view.depth is not None and float(view.depth[0, 0]) == pytest.approx(2.0)
    assert view.camera.model == "radtan" and view.camera.f.tolist() == pytest.approx([520.9, 521.0])
    assert read_posed(folder).names == scene.names
    given = read_tum_folder(folder, pinhole((640, 480), (500.0, 500.0, 320.0, 240.0)))
    assert given.frame(0).camera.f.tolist() == [500, 500]


def test_tum_interpolation_against_scipy() -> None:
    stamps = [0.0, 0.05, 0.12, 0.5]
    poses = [some_pose(i) for i in range(4)]
    times = [-0.01, 0.0, 0.01, 0.06, 0.12, 0.3, 0.5, 0.6]
    found = interpolate_poses(list(zip(stamps, poses, strict=True)), times, max_gap=0.1)
    assert [pose is not None for pose in found] == [False, True, True, True, True, False, True, False]
    slerp = Slerp(stamps, Rotation.from_matrix(torch.stack([p.inverse().R for p in poses]).numpy()))
    centers = torch.stack([p.center() for p in poses]).numpy()
    for time, pose in zip(times, found, strict=True):
        if pose is not None:
            np.testing.assert_allclose(pose.R.mT.numpy(), slerp(time).as_matrix(), atol=1e-9)
            expected = [np.interp(time, stamps, centers[:, axis]) for axis in range(3)]
            np.testing.assert_allclose(pose.center().numpy(), expected, atol=1e-9)


def test_malformed_tum(tmp_path: Path) -> None:
    folder = make_tum(tmp_path, "elsewhere")
    with pytest.raises(InputError, match=r"the camera of .*elsewhere' is not known"):
        read_tum_folder(folder)
    with pytest.raises(InputError, match=r"rgb.txt:2: 'now' is not a finite number"):
        parse_stamped_files("1.0 a\nnow b\n")
    with pytest.raises(InputError, match=r"rgb.txt:2: 'a' is listed already"):
        parse_stamped_files("1.0 a\n2.0 a\n")
    with pytest.raises(InputError, match=r"rgb.txt:1: .* not of the form"):
        parse_stamped_files("1.0\n")
    (folder / "groundtruth.txt").write_text("50 0 0 0 0 0 0 1\n51 0 0 0 0 0 0 1\n")
    with pytest.raises(InputError, match="none of the 4 photos"):
        read_tum_folder(folder, pinhole((640, 480), (500.0, 500.0, 320.0, 240.0)))


# -- 7-Scenes ---------------------------------------------------------------------------------------------------------
def make_sevenscenes(folder: Path) -> dict[str, Pose]:
    poses = {}
    for sequence in ("seq-01", "seq-02"):
        for i in range(2):
            stem = folder / sequence / f"frame-{i:06d}"
            photo(stem.with_name(f"{stem.name}.color.png"), (640, 480))
            depth(stem.with_name(f"{stem.name}.depth.png"), 65535 if i else 2000, (640, 480))
            pose = some_pose(len(poses))
            stem.with_name(f"{stem.name}.pose.txt").write_text(matrix_text(pose.inverse()))
            poses[f"{sequence}/frame-{i:06d}.color.png"] = pose
    (folder / "TrainSplit.txt").write_text("sequence2\n")
    (folder / "TestSplit.txt").write_text("sequence1\nsequence9\n")
    return poses


def test_sevenscenes(tmp_path: Path) -> None:
    poses = make_sevenscenes(tmp_path / "chess")
    scene = read_sevenscenes(tmp_path / "chess")
    assert scene.names == tuple(poses)
    for frame in scene:
        same_pose(frame.cam_from_world, poses[frame.name])
    assert read_sevenscenes(tmp_path / "chess", "train").names == tuple(n for n in poses if n.startswith("seq-02"))
    assert [frame.name for frame in read_sevenscenes(tmp_path / "chess/seq-01")] == [
        "frame-000000.color.png",
        "frame-000001.color.png",
    ]
    assert read_posed(tmp_path / "chess").names == scene.names
    view = scene.frame(0).load()
    assert view.camera.f.tolist() == [525, 525] and view.camera.c.tolist() == [320, 240]
    # the depth sensor has a longer focal length: the border of the photo has no depth
    assert view.depth is not None and float(view.depth[240, 320]) == 2 and float(view.depth[2, 2]) == 0
    share = float((view.depth > 0).float().mean())
    assert share == pytest.approx((525 / 585) ** 2, abs=0.01)
    nothing = scene.frame(1).load()
    assert nothing.depth is not None and not nothing.depth.any()
    with pytest.raises(InputError, match="seq-09' holds no frame"):
        read_sevenscenes(tmp_path / "chess", "test")


def test_sevenscenes_lists() -> None:
    pose = some_pose(3)
    q, c, t = pose.quaternion().tolist(), pose.center().tolist(), pose.t.tolist()
    text = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    text += " ".join(["seq-01/a.png", *(f"{x:.9f}" for x in [*c, *q])]) + "\n"
    same_pose(parse_absolute_list(text)["seq-01/a.png"], pose)
    line = " ".join(["a.png", "b.png", "0.75", *(f"{x:.9f}" for x in [*q, *t]), *["0"] * 9])
    (pair,) = parse_relative_list(f"# comment\n{line}\n")
    assert (pair.reference, pair.query, pair.similarity) == ("a.png", "b.png", 0.75)
    same_pose(pair.query_from_reference, pose)
    for bad, message in ((line + " 1", "20 fields"), (line.replace("0.75", "x"), "'x' is not a finite number")):
        with pytest.raises(InputError, match=f"test_pairs.txt:1: {message}"):
            parse_relative_list(bad)
    with pytest.raises(InputError, match=r"dataset_test.txt:4: the quaternion is zero"):
        parse_absolute_list("\n\n\na 0 0 0 0 0 0 0")
    with pytest.raises(InputError, match=r"dataset_test.txt:5: 'a' is listed already"):
        parse_absolute_list("\n\n\na 0 0 0 1 0 0 0\na 0 0 0 1 0 0 0")
    assert parse_split("sequence1\n\nsequence 12\r\n") == ["seq-01", "seq-12"]
    with pytest.raises(InputError, match=r"TrainSplit.txt:1"):
        parse_split("../..\n")


# -- nerfstudio -------------------------------------------------------------------------------------------------------
def opengl_matrix(cam_from_world: Pose) -> Tensor:
    """The ``transform_matrix`` [4, 4] of a pose: camera to world, OpenGL axes."""
    world_from_cam = cam_from_world.inverse()
    return Pose(world_from_cam.R * world_from_cam.t.new_tensor([1.0, -1.0, -1.0]), world_from_cam.t).matrix()


def make_nerfstudio(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    poses = [some_pose(i) for i in range(3)]
    for i in range(3):
        photo(folder / f"images/{i}.png")
        depth(folder / f"depth/{i}.png")
    frames = [
        {
            "file_path": f"./images/{i}.png",
            "transform_matrix": opengl_matrix(pose).tolist(),
            "depth_file_path": f"depth/{i}.png",
        }
        for i, pose in enumerate(poses)
    ]
    top = {
        "camera_model": "OPENCV",
        "fl_x": 60.0,
        "fl_y": 61.0,
        "cx": 32.5,
        "cy": 24.0,
        "w": 64,
        "h": 48,
        "k1": 0.1,
        "p2": 0.01,
    }
    (folder / "transforms.json").write_text(json.dumps({**top, "frames": frames, **changes}))
    return folder


def test_nerfstudio(tmp_path: Path) -> None:
    scene = read_nerfstudio(make_nerfstudio(tmp_path))
    for i, frame in enumerate(scene):
        same_pose(frame.cam_from_world, some_pose(i), 1e-9)
        assert frame.name == f"images/{i}.png"
    view = scene.frame(0).load()
    assert view.camera.c.tolist() == [32.0, 23.5] and view.camera.f.tolist() == [60, 61]
    assert view.camera.model == "radtan"
    assert view.camera.distortion.tolist() == pytest.approx([0.1, 0, 0, 0.01, 0])
    assert view.depth is not None and float(view.depth[0, 0]) == 1.5
    assert read_posed(tmp_path).names == scene.names
    doubled = read_nerfstudio(tmp_path, scale=2.0)
    torch.testing.assert_close(doubled.cam_from_world.center(), 2 * scene.cam_from_world.center())


def test_opengl_axes() -> None:
    """A camera at (1, 2, 3) that looks along world -z with y up: OpenGL's default orientation."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    pose = parse_opengl_pose(matrix.tolist())
    ahead_up_right = torch.tensor([[1.5, 2.25, -1.0]], dtype=torch.float64)
    found = pose.transform(ahead_up_right)
    # 0.5 to the right, 0.25 up (so -0.25 down), 4 in front
    torch.testing.assert_close(found, torch.tensor([[0.5, -0.25, 4.0]], dtype=torch.float64))


def test_other_cameras_of_nerfstudio(tmp_path: Path) -> None:
    fisheye = make_nerfstudio(tmp_path / "a", camera_model="OPENCV_FISHEYE", k4=0.002, p2=0.0)
    camera = read_nerfstudio(fisheye).frame(0).camera
    assert camera.model == "fisheye" and camera.distortion.tolist() == [0.1, 0, 0, 0.002]
    # the first NeRFs: an angle, no sizes, no endings
    folder = make_nerfstudio(tmp_path / "b")
    top = json.loads((folder / "transforms.json").read_text())
    frames = [{**frame, "file_path": frame["file_path"][:-4]} for frame in top["frames"]]
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames}))
    frame = read_nerfstudio(folder).frame(1)
    assert frame.name == "images/1.png" and frame.camera.model == "pinhole"
    assert frame.camera.f.tolist() == pytest.approx([32 / math.tan(0.4)] * 2)
    assert frame.camera.c.tolist() == [31.5, 23.5]


def test_fisheyes_of_instant_ngp_and_listed_terms(tmp_path: Path) -> None:
    folder = make_nerfstudio(tmp_path / "a", is_fisheye=True, k4=0.002, p2=0.0)
    file = folder / "transforms.json"
    top = json.loads(file.read_text())
    del top["camera_model"]
    file.write_text(json.dumps(top))
    camera = read_nerfstudio(folder).frame(0).camera
    assert camera.model == "fisheye" and camera.distortion.tolist() == [0.1, 0, 0, 0.002]
    file.write_text(json.dumps({**top, "is_fisheye": False, "k4": 0, "p2": 0.01}))
    camera = read_nerfstudio(folder).frame(0).camera
    assert camera.model == "radtan" and camera.distortion.tolist() == [0.1, 0, 0, 0.01, 0]
    file.write_text(json.dumps({**top, "is_fisheye": False, "distortion_params": [0.2, 0.03, 0.004, 0, 0.01, 0.02]}))
    assert read_nerfstudio(folder).frame(0).camera.distortion.tolist() == [0.2, 0.03, 0.01, 0.02, 0.004]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"k4": 0.002}, "k4 0.002 is not supported with camera_model 'OPENCV'"),
        ({"k6": -0.1}, "k6 -0.1 is not supported with camera_model 'OPENCV'"),
        ({"s1": 0.1}, "s1 0.1 is not supported"),
        ({"distortion_params": [0, 0, 0, 0.5, 0, 0]}, "k4 0.5 is not supported"),
        ({"distortion_params": [0, 0]}, "distortion_params must be the six numbers k1 k2 k3 k4 p1 p2"),
        ({"camera_model": "PINHOLE"}, "k1 0.1 is not supported with camera_model 'PINHOLE'"),
        ({"camera_model": "OPENCV_FISHEYE"}, "p2 0.01 is not supported with camera_model 'OPENCV_FISHEYE'"),
        ({"is_fisheye": True}, "is_fisheye and camera_model 'OPENCV' contradict"),
        ({"is_fisheye": 1}, "is_fisheye must be true or false, got '1'"),
        ({"ftheta_p0": 0.0}, "a lens described by 'ftheta_p0' is not supported"),
        ({"latlong": True}, "a lens described by 'latlong' is not supported"),
    ],
)
def test_lenses_that_nerfstudio_has_and_we_do_not(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"transforms.json', frame 0: {message}"):
        read_nerfstudio(make_nerfstudio(tmp_path, **changes))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frames": []}, "has no list of frames"),
        ({"frames": [3]}, "frame 0: '3' is not an object"),
        ({"camera_model": "PANORAMA"}, "camera_model 'PANORAMA' is not supported"),
        ({"fl_x": -3}, "fl_x -3 must be positive"),
        ({"fl_x": "60"}, "fl_x must be a number, got '60'"),
        ({"w": 64.5}, "64.5x48 is not an image size"),
        ({"cx": float("nan")}, "cx must be a number, got 'nan'"),
        ({"frames": [{"file_path": "a.png"}]}, "transform_matrix must be 4x4 numbers, got 'None'"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": [[1, 0], [0, 1]]}]}, "a pose is a 4x4 matrix, got 2x2"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": np.diag([1, 1, -1, 1]).tolist()}]}, "R mirrors"),
        ({"frames": [{"file_path": 7, "transform_matrix": np.eye(4).tolist()}]}, "file_path must be a path"),
        ({"frames": [{"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}] * 2}, "names a photo twice"),
    ],
)
def test_malformed_nerfstudio(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_nerfstudio(make_nerfstudio(tmp_path, **changes))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_json_gives_a_scene_or_one_sentence(tmp_path: Path, data: st.DataObject) -> None:
    matrix = np.eye(4).tolist()
    frame = {"file_path": "a.png", "transform_matrix": matrix}
    top: dict[str, Any] = {"fl_x": 60.0, "w": 64, "h": 48, "frames": [frame]}
    for _ in range(data.draw(st.integers(0, 3))):
        target = data.draw(st.sampled_from([top, frame]))
        keys = ["fl_x", "fl_y", "cx", "w", "h", "k1", "camera_model", "frames", "transform_matrix", "file_path"]
        target[data.draw(st.sampled_from([*keys, "camera_angle_x", "depth_file_path", "depth_unit_scale_factor"]))] = (
            data.draw(JSON)
        )
    (tmp_path / "transforms.json").write_text(json.dumps(top))
    try:
        assert len(read_nerfstudio(tmp_path)) >= 1
    except InputError as error:
        assert "transforms.json" in str(error) or "a.png" in str(error) or str(tmp_path) in str(error)


def test_not_json(tmp_path: Path) -> None:
    for text in ("{", "[1]", "[" * 100_000, '{"frames": 1e999}'):
        (tmp_path / "transforms.json").write_text(text)
        with pytest.raises(InputError, match=r"transforms.json"):
            read_nerfstudio(tmp_path)


# -- RGB-D folders ----------------------------------------------------------------------------------------------------
def make_rgbd(folder: Path) -> Path:
    for i in (0, 2, 10):
        photo(folder / f"color/{i}.jpg")
        depth(folder / f"depth/{i}.png", size=(32, 24))
        (folder / "pose").mkdir(exist_ok=True)
        (folder / f"pose/{i}.txt").write_text(matrix_text(some_pose(i).inverse()))
    photo(folder / "color/11.jpg")  # without a pose file
    (folder / "pose/2.txt").write_text("-inf -inf -inf -inf\n" * 4)
    (folder / "intrinsic").mkdir()
    (folder / "intrinsic/intrinsic_color.txt").write_text("60 0 31 0\n0 61 23 0\n0 0 1 0\n0 0 0 1\n")
    return folder


def test_rgbd(tmp_path: Path) -> None:
    scene = read_rgbd(make_rgbd(tmp_path))
    assert scene.names == ("color/0.jpg", "color/2.jpg", "color/10.jpg")
    same_pose(scene.frame(2).cam_from_world, some_pose(10))
    assert scene.frame(1).cam_from_world is None
    view = scene.frame(0).load()
    assert view.camera.K.tolist() == [[60, 0, 31], [0, 61, 23], [0, 0, 1]]
    assert view.depth is not None and tuple(view.depth.shape) == (24, 32) and float(view.depth[0, 0]) == 1.5
    assert read_posed(tmp_path).names == scene.names


def test_depth_of_another_folder(tmp_path: Path) -> None:
    scene = read_rgbd(make_rgbd(tmp_path / "scene"))
    np.save(tmp_path / "10.npy", np.full((24, 32), 3.0, dtype=np.float32))
    other = with_depth_folder(scene, tmp_path)
    assert [frame.depth.name if frame.depth else None for frame in other] == [None, None, "10.npy"]
    with pytest.raises(InputError, match=r"holds no depth map of the 3 photos, such as 'color/0\.jpg'"):
        with_depth_folder(scene, tmp_path / "scene" / "pose")


def test_malformed_rgbd(tmp_path: Path) -> None:
    folder = make_rgbd(tmp_path)
    (folder / "pose/0.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 2 0\n0 0 0 1\n")
    with pytest.raises(InputError, match=r"pose/0\.txt: the matrix is no rotation"):
        read_rgbd(folder)
    (folder / "intrinsic/intrinsic_color.txt").unlink()
    with pytest.raises(InputError, match="has no intrinsics"):
        read_rgbd(folder)
    (tmp_path / "without" / "rgb").mkdir(parents=True)
    with pytest.raises(InputError, match="has no folder of poses"):
        read_rgbd(tmp_path / "without")


@pytest.mark.parametrize(
    "text, f, c",
    [
        ("60 0 31\n0 61 23\n0 0 1", [60, 61], [31, 23]),
        ("60 61 31 23", [60, 61], [31, 23]),
        ("120 122 62.5 46.5 128 96", [60, 61], [31, 23]),
    ],
)
def test_cameras_in_text(text: str, f: list[float], c: list[float]) -> None:
    camera = parse_camera(text, (64, 48))
    assert camera.size.tolist() == [64, 48]
    assert (camera.f.tolist(), camera.c.tolist()) == (f, c)


@pytest.mark.parametrize(
    "text", ["60 1 31\n0 61 23\n0 0 1", "60 0 31\n0 61 23\n0 0 2", "nan 61 31 23", "0 61 31 23", "1 2 3"]
)
def test_malformed_cameras(text: str) -> None:
    with pytest.raises(InputError, match=r"camera.txt"):
        parse_camera(text, (64, 48))


def test_natural_order() -> None:
    assert sorted(["frame10", "frame9", "a2", "10", "9"], key=natural_key) == ["9", "10", "a2", "frame9", "frame10"]


# -- matrices ---------------------------------------------------------------------------------------------------------
def test_a_rounded_rotation_is_projected() -> None:
    rounded = some_pose(1).inverse().matrix().mul(1000).round().div(1000)
    found = parse_camera_pose(matrix_text(Pose.from_matrix(rounded)), "pose.txt")
    same_pose(found, some_pose(1), 3e-3)
    torch.testing.assert_close(found.R @ found.R.mT, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds no matrix"),
        ("1 0 0\n0 1", "pose.txt:2: 2 numbers after rows of 3"),
        ("a b c", "pose.txt:1: 'a b c' is not a row of numbers"),
        ("1 2 3 4\n" * 5, "pose.txt:5: more than four rows"),
        ("1 0 0\n0 1 0\n0 0 1", "a pose is a 4x4 matrix, got 3x3"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 2", "the last row of a pose must be 0 0 0 1"),
    ],
)
def test_malformed_matrices(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_camera_pose(text, "pose.txt")


def test_a_comment_after_a_row_does_not_lose_the_row() -> None:
    text = "# K\n500 0 320 # fx\n0 500 240\t#fy\n #\n0 0 1\n"
    assert parse_matrix(text, "K.txt").tolist() == [[500, 0, 320], [0, 500, 240], [0, 0, 1]]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.-+einfa \n\t#,\0é", max_size=120))
def test_any_text_gives_a_matrix_or_one_sentence(text: str) -> None:
    for parse in (
        lambda: parse_matrix(text, "f.txt"),
        lambda: parse_camera_pose(text, "f.txt"),
        lambda: parse_camera(text, (64, 48), "f.txt"),
        lambda: parse_stamped_files(text, "f.txt"),
        lambda: parse_absolute_list(text, "f.txt"),
        lambda: parse_relative_list(text, "f.txt"),
        lambda: parse_split(text, "f.txt"),
    ):
        try:
            parse()
        except InputError as error:
            assert "f.txt" in str(error) and "\n" not in str(error)


# -- any form ---------------------------------------------------------------------------------------------------------
def test_several_scenes_of_several_forms(tmp_path: Path) -> None:
    make_rgbd(tmp_path / "b")
    make_nerfstudio(tmp_path / "a")
    make_sevenscenes(tmp_path / "c")
    (tmp_path / "notes").mkdir()
    assert [(scene.name, len(scene)) for scene in read_posed_scenes(tmp_path)] == [("a", 3), ("b", 3), ("c", 4)]
    assert [scene.name for scene in read_posed_scenes(tmp_path / "b")] == ["b"]
    with pytest.raises(InputError, match=r"no folder of posed photos: it has no poses.txt"):
        read_posed_scenes(tmp_path / "notes")
    with pytest.raises(InputError, match="nowhere' is not a folder"):
        read_posed(tmp_path / "nowhere")


def test_the_photos_of_a_map_are_a_scene(tmp_path: Path) -> None:
    camera, none = pinhole((64, 48), (60, 60, 31.5, 23.5)), torch.zeros(0, dtype=torch.long)
    poses = Pose.stack([some_pose(0), some_pose(1)])
    empty = torch.zeros(0, 3, dtype=torch.float64)
    sfm = SfmMap(("a.png", "b.png"), (camera, camera), poses, empty, none, none, empty[:, :2])
    with pytest.raises(InputError, match=r"'a\.png' of the map is in none of"):
        scene_from_map(sfm, tmp_path)
    for name in sfm.names:
        photo(tmp_path / name)
    scene = scene_from_map(sfm, tmp_path, scale=2.0)
    assert [frame.name for frame in scene] == ["a.png", "b.png"]
    torch.testing.assert_close(scene.cam_from_world.t, 2 * poses.t)
    with pytest.raises(ValueError, match="scale must be positive"):
        scene_from_map(sfm, tmp_path, scale=0.0)
    pairs = uniform_pairs(scene, 6, torch.Generator().manual_seed(0))
    assert len(pairs) == 6 and set(zip(pairs.index0, pairs.index1, strict=True)) <= {(0, 1), (1, 0)}
