"""ScanNet: the pair list against poses kept elsewhere, the training index, the folders of scans, and malformed files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metriloc.datasets import read_scannet_index, read_scannet_pairs, read_scannet_scan, scannet_training_pairs
from metriloc.datasets.scannet import EVALUATION_SIZE, parse_scannet_pairs
from metriloc.geometry import Pose, so3_exp
from metriloc.io import InputError

K = [1163.45, 0, 653.626, 0, 1164.79, 481.6, 0, 0, 1]


def some_pose(seed: int) -> Pose:
    numbers = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Pose(so3_exp(numbers[:3]), numbers[3:])


def line(pose: Pose, name0: str = "scene0711_00/a.jpg", name1: str = "scene0711_00/b.jpg", turns: str = "0 0") -> str:
    T = " ".join(f"{value:.5f}" for value in pose.matrix().flatten().tolist())
    numbers = " ".join(str(value) for value in K)
    return f"{name0} {name1} {turns} {numbers} {numbers} {T}"


# -- the list ---------------------------------------------------------------------------------------------------------
def test_a_list(tmp_path: Path) -> None:
    poses = [some_pose(i) for i in range(3)]
    text = "# comment\n" + "\n".join(line(pose, f"scene071{i}_00/sens/a.jpg") for i, pose in enumerate(poses)) + "\n\n"
    pairs = parse_scannet_pairs(text)
    assert [pair.scene for pair in pairs] == ["scene0710_00", "scene0711_00", "scene0712_00"]
    for pair, pose in zip(pairs, poses, strict=True):
        torch.testing.assert_close(pair.cam1_from_cam0.matrix(), pose.matrix(), rtol=0, atol=2e-5)
        R = pair.cam1_from_cam0.R
        torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-13)
        assert pair.K0.tolist() == [K[:3], K[3:6], K[6:]]
    (tmp_path / "pairs.txt").write_text(text)
    frames = read_scannet_pairs(tmp_path / "pairs.txt", tmp_path / "photos")
    assert frames[1].frame1.path == tmp_path / "photos/scene0711_00/b.jpg"
    relative = frames[1].cam1_from_cam0
    assert relative is not None
    torch.testing.assert_close(relative.matrix(), pairs[1].cam1_from_cam0.matrix())


def test_loaded_at_the_size_of_the_published_results(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "scene0711_00").mkdir(exist_ok=True)
        Image.new("RGB", (1296, 968)).save(tmp_path / "scene0711_00" / name)
    (tmp_path / "pairs.txt").write_text(line(some_pose(0)))
    (pair,) = read_scannet_pairs(tmp_path / "pairs.txt", tmp_path)
    view = pair.load(EVALUATION_SIZE).view0
    sx, sy = 640 / 1296, 480 / 968
    assert view.camera.f.tolist() == pytest.approx([1163.45 * sx, 1164.79 * sy])
    assert view.camera.c.tolist() == pytest.approx([(653.626 + 0.5) * sx - 0.5, (481.6 + 0.5) * sy - 0.5], rel=1e-6)


def test_the_pairs_that_are_at_hand(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """data/eval/scannet_pairs keeps lines of the public list in Map-free form: written back as a list, they agree."""
    from metriloc.datasets import read_mapfree

    scenes = read_mapfree(shared("data/eval/scannet_pairs"), "val")
    truth = [scene.evaluation_pairs()[0].cam1_from_cam0 for scene in scenes]
    text = "\n".join(line(pose) for pose in truth if pose is not None)
    for pair, pose in zip(parse_scannet_pairs(text), truth, strict=True):
        assert pose is not None
        torch.testing.assert_close(pair.cam1_from_cam0.matrix(), pose.matrix(), rtol=0, atol=2e-5)


GOOD = line(some_pose(0))


@pytest.mark.parametrize(
    "text, message",
    [
        (GOOD + " 1", "pairs:1: 39 fields instead of 38"),
        ("\n" + GOOD.replace("1163.45", "nan", 1), "pairs:2: 'nan' is not a finite number"),
        (line(some_pose(0), turns="0 4"), "quarter turns must be 0 to 3, got 0 4"),
        (GOOD.replace("1163.45 0", "1163.45 3", 1), "not a calibration matrix without skew"),
        (GOOD.replace(" 1163.45", " -1163.45", 1), "not a calibration matrix"),
        (line(Pose(2 * some_pose(0).R, some_pose(0).t)), "the matrix is no rotation"),
        (GOOD[: GOOD.rindex("1.00000")] + "2", "the last row of a pose must be 0 0 0 1"),
    ],
)
def test_malformed_lists(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_scannet_pairs(text)


def test_turned_photos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(line(some_pose(0), turns="0 1"))
    with pytest.raises(InputError, match="turned photos are not supported"):
        read_scannet_pairs(tmp_path / "pairs.txt", tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["0", "1", "x", "-1", "1e999", "nan", "500.5", "é"]), min_size=34, max_size=40))
def test_any_fields_give_pairs_or_one_sentence(fields: list[str]) -> None:
    try:
        parse_scannet_pairs(" ".join(["a", "b", *fields]), "f.txt")
    except InputError as error:
        assert str(error).startswith("f.txt:1: ")


# -- index ------------------------------------------------------------------------------------------------------------
def test_index(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", name=np.array([[5, 1, 0, 10], [5, 1, 10, 20]]), score=np.array([0.5, 0.4]))
    np.savez(
        tmp_path / "a.npz", name=np.array([[3, 0, 7, 9]], dtype=np.uint16), score=np.array([0.9], dtype=np.float32)
    )
    index = read_scannet_index(tmp_path)
    assert index.rows.tolist() == [[3, 0, 7, 9], [5, 1, 0, 10]]  # 0.4 is not greater
    assert index.scans() == ["scene0003_00", "scene0005_01"]
    assert len(read_scannet_index(tmp_path, None).rows) == 3


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"score": np.zeros(1)}, "has no array 'name'"),
        ({"name": np.zeros((2, 3), int)}, r"name must be whole numbers \[N, 4\]"),
        ({"name": np.zeros((2, 4))}, "name must be whole numbers"),
        ({"name": np.array(3)}, "name must be whole numbers"),
        ({"name": np.zeros((2, 4), int), "score": np.zeros(3)}, "score must be"),
        ({"name": -np.ones((2, 4), int)}, "outside 0 to"),
        ({"name": np.array([None, {}], dtype=object)}, "not a usable .npz"),
    ],
)
def test_malformed_index(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_scannet_index(tmp_path)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a folder with .npz files"):
        read_scannet_index(tmp_path / "nothing")


# -- scans ------------------------------------------------------------------------------------------------------------
INFO = """m_versionNumber = 4
m_colorWidth = 1296
m_colorHeight = 968
m_calibrationColorIntrinsic = 1163.45 0 653.626 0 0 1164.79 481.6 0 0 0 1 0 0 0 0 1
"""


def make_scan(root: Path, name: str = "scene0005_01", frames: tuple[int, ...] = (0, 10, 20)) -> Path:
    data = root / name / "sensor_data"
    data.mkdir(parents=True)
    for number in frames:
        pose = "\n".join(" ".join(map(str, row)) for row in some_pose(number).inverse().matrix().tolist())
        (data / f"frame-{number:06d}.pose.txt").write_text(pose)
        Image.new("RGB", (1296, 968)).save(data / f"frame-{number:06d}.color.jpg")
    (data / "_info.txt").write_text(INFO)
    header = b"P5\n640 480\n65535\n"
    (data / "frame-000000.depth.pgm").write_bytes(header + np.full(640 * 480, 2500, dtype=">u2").tobytes())
    return root / name


def test_scan(tmp_path: Path) -> None:
    folder = make_scan(tmp_path)
    scene = read_scannet_scan(folder)
    assert read_scannet_scan(folder, [20, 0]).names == scene.names[::2]
    assert scene.names[1] == "sensor_data/frame-000010.color.jpg" and len(scene) == 3
    pose = scene.frame(1).cam_from_world
    assert pose is not None
    torch.testing.assert_close(pose.matrix(), some_pose(10).matrix(), rtol=0, atol=1e-9)
    view = scene.frame(0).load((640, 480))
    assert view.depth is not None and float(view.depth[0, 0]) == 2.5
    assert scene.frame(1).depth is None
    assert scene.frame(0).camera.K.flatten().tolist() == K


def test_training_pairs(tmp_path: Path) -> None:
    folder = make_scan(tmp_path)
    (folder / "sensor_data/frame-000020.pose.txt").write_text("-inf -inf -inf -inf\n" * 4)
    np.savez(
        tmp_path / "index.npz",
        name=np.array([[5, 1, 10, 0], [5, 1, 0, 20], [5, 1, 0, 10]]),
        score=np.array([0.5, 0.6, 0.7]),
    )
    (pairs,) = scannet_training_pairs(tmp_path, read_scannet_index(tmp_path))
    # the pair with the lost pose is left out
    assert [
        (pairs[i].frame0.name[-16:-10], pairs[i].frame1.name[-16:-10], pairs[i].overlap) for i in range(len(pairs))
    ] == [
        ("000010", "000000", 0.5),
        ("000000", "000010", 0.7),
    ]
    expected = some_pose(0) @ some_pose(10).inverse()
    relative = pairs[0].cam1_from_cam0
    assert relative is not None
    torch.testing.assert_close(relative.matrix(), expected.matrix(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "info, message",
    [
        ("m_colorWidth = 5\n", "has no m_calibrationColorIntrinsic"),
        (INFO.replace("1163.45 0", "1163.45"), r"_info\.txt:4: m_calibrationColorIntrinsic must be 16 numbers, got 15"),
        (INFO.replace("1163.45", "0"), "not a calibration matrix"),
        (INFO.replace("1296", "-3"), r"_info\.txt:2: m_colorWidth is not a size"),
        (INFO.replace("968", ""), r"_info\.txt:3: m_colorHeight is not a size"),
    ],
)
def test_malformed_info(tmp_path: Path, info: str, message: str) -> None:
    folder = make_scan(tmp_path)
    (folder / "sensor_data/_info.txt").write_text(info)
    with pytest.raises(InputError, match=message):
        read_scannet_scan(folder)


def test_info_without_sizes_and_empty_scans(tmp_path: Path) -> None:
    folder = make_scan(tmp_path)
    (folder / "sensor_data/_info.txt").write_text(INFO.replace("m_colorWidth", "m_other"))
    assert read_scannet_scan(folder).frame(0).camera.size.tolist() == [1296, 968]
    (folder / "sensor_data/_info.txt").write_text(INFO)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no frame-000000\.pose\.txt"):
        read_scannet_scan(tmp_path / "empty")
    with pytest.raises(InputError, match=r"frame-000777\.pose\.txt' does not exist"):
        read_scannet_scan(folder, [777])
