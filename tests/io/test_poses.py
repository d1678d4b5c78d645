"""Pose files: golden submission lines, directions and quaternion orders, strict readers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from metriloc.geometry import Pose
from metriloc.io import (
    InputError,
    listed_name,
    mapfree_pose_line,
    parse_mapfree_poses,
    parse_submission,
    parse_tum,
    pose_as_dict,
    pose_from_dict,
    read_mapfree_poses,
    read_tum,
    submission_line,
    tum_line,
)
from metriloc.io.poses import format_submission_line


def random_pose(seed: int = 0, dtype: torch.dtype = torch.float64) -> Pose:
    rng = np.random.default_rng(seed)
    R = Rotation.random(None, rng).as_matrix()
    return Pose(torch.from_numpy(R), torch.from_numpy(rng.normal(size=3))).to(dtype)


def same(a: Pose, b: Pose, tolerance: float) -> bool:
    return bool((a.matrix() - b.matrix()).abs().max() <= tolerance)


def unsigned_zeros(line: str) -> list[str]:
    return [field.lstrip("-") if field.strip("-0.") == "" else field for field in line.split(" ")]


def test_golden_submission_lines(shared: Callable[[str], Path]) -> None:
    cases = json.loads(shared("golden/mickey/submission_lines.json").read_text())
    compared = 0
    for case in cases:
        name, confidence = case["image_name"], case["confidence"]
        # the text exactly, signs of zeros included, from the golden numbers
        assert format_submission_line(name, case["q"], case["t"], confidence) == case["line"]
        pose = Pose(torch.tensor(case["R"], dtype=torch.float32), torch.tensor(case["t"], dtype=torch.float32))
        if not pose.R.any():
            with pytest.raises(ValueError, match="no rotation"):  # a failed solve, which upstream wrote as valid
                submission_line(name, pose, confidence)
            continue
        # from the pose, only the sign of a quaternion's exact zeros may differ: upstream's depends on LAPACK
        line = submission_line(name, pose, confidence)
        assert unsigned_zeros(line) == unsigned_zeros(case["line"])
        assert line.split(" ")[5:] == case["line"].split(" ")[5:]
        compared += 1
    assert compared == len(cases) - 1 > 10


def test_submission_text() -> None:
    pose = Pose(torch.eye(3), torch.tensor([-1e-9, 0.5, 2.0]))
    line = submission_line("seq1/frame_00005.jpg", pose, torch.tensor(519.7958984375).item())
    assert line == (
        "seq1/frame_00005.jpg 1.000000 0.000000 0.000000 0.000000 -0.000000 0.500000 2.000000 519.7958984375"
    )
    assert submission_line("a.jpg", pose, np.float64(3)).endswith(" 3.0")  # not np.float64(3.0)


@pytest.mark.parametrize("confidence", [math.nan, math.inf, -0.5])
def test_submission_refuses_confidences(confidence: float) -> None:
    with pytest.raises(ValueError, match="must be finite and not negative"):
        submission_line("a.jpg", random_pose(), confidence)


@pytest.mark.parametrize("name", ["", "a b.jpg", "a#b.jpg", "a.jpg\n", " a.jpg"])
def test_submission_refuses_names(name: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a line"):
        submission_line(name, random_pose(), 1.0)


def test_failed_poses_are_not_written() -> None:
    nan = Pose(torch.full((3, 3), math.nan), torch.full((3,), math.nan))
    infinite = Pose(torch.eye(3), torch.tensor([0.0, math.inf, 0.0]))
    zero = Pose(torch.zeros(3, 3), torch.zeros(3))
    mirror = Pose(torch.diag(torch.tensor([1.0, 1.0, -1.0])), torch.zeros(3))
    batch = Pose.identity((2,))
    for pose, says in [(nan, "not finite"), (infinite, "not finite"), (zero, "no rotation"), (mirror, "no rotation")]:
        for write in (
            lambda p: submission_line("a.jpg", p, 1.0),
            lambda p: mapfree_pose_line("a.jpg", p),
            lambda p: tum_line(0.0, p),
            lambda p: pose_as_dict(p, to_frame="b", from_frame="a"),
        ):
            with pytest.raises(ValueError, match=says):
                write(pose)
    with pytest.raises(ValueError, match=r"batch shape \(2,\)"):
        tum_line(0.0, batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_submission_reads_back(dtype: torch.dtype) -> None:
    poses = {f"seq1/frame_{i:05d}.jpg": random_pose(i, dtype) for i in range(5)}
    text = "\n".join(submission_line(name, pose, float(i)) for i, (name, pose) in enumerate(poses.items()))
    read = parse_submission(text)
    assert list(read) == list(poses)
    for i, (name, (pose, confidence)) in enumerate(read.items()):
        assert confidence == i and same(pose, poses[name].to(torch.float64), 5e-6)


def test_mapfree_poses_golden(shared: Callable[[str], Path]) -> None:
    root = shared("golden/mickey/mapfree_synth")
    expected = np.load(root / "expected.npz")
    poses = read_mapfree_poses(root / "train" / "s00000" / "poses.txt")
    for item in (0, 5, 17):
        name0, name1 = expected[f"train.{item}.pair_names"]
        pose0, pose1 = poses[name0], poses[name1]
        assert pose0 is not None and pose1 is not None
        relative = pose1 @ pose0.inverse()
        assert np.abs(relative.matrix().numpy() - expected[f"train.{item}.T_0to1"]).max() < 1e-6
        assert np.abs(pose0.center().numpy() - expected[f"train.{item}.abs_c_0"]).max() < 1e-7
    lines = [mapfree_pose_line(name, pose) for name, pose in poses.items() if pose is not None]
    again = parse_mapfree_poses("\n".join(lines))
    assert list(again) == list(poses)
    for name, pose in poses.items():
        assert pose is not None and again[name] is not None and same(pose, again[name], 1e-9)  # type: ignore[arg-type]


def test_withheld_poses_are_none() -> None:
    poses = parse_mapfree_poses("seq0/a.jpg 1 0 0 0 0 0 0\nseq1/a.jpg 0 0 0 0 0 0 0\n# seq1/b.jpg\n\n")
    assert poses["seq1/a.jpg"] is None and poses["seq0/a.jpg"] is not None and len(poses) == 2
    assert parse_mapfree_poses("") == {} and parse_tum("# nothing\n") == [] and parse_submission(" \n") == {}


def test_quaternions_need_not_be_normalized() -> None:
    pose = random_pose(3)
    q = [2.5 * value for value in pose.quaternion().tolist()]
    read = parse_mapfree_poses(" ".join(["a.jpg", *map(repr, [*q, *pose.t.tolist()])]))["a.jpg"]
    assert read is not None and same(read, pose, 1e-12)


def test_tum_is_camera_to_world_and_xyzw() -> None:
    cam_from_world = random_pose(1)
    fields = [float(value) for value in tum_line(12.5, cam_from_world).split(" ")]
    assert fields[0] == 12.5
    # scipy writes x y z w too: an independent reading of the line
    R = Rotation.from_quat(fields[4:]).as_matrix()
    assert np.abs(R - cam_from_world.R.numpy().T).max() < 1e-8
    assert np.abs(np.array(fields[1:4]) - cam_from_world.center().numpy()).max() < 1e-8
    ((time, read),) = parse_tum(tum_line(12.5, cam_from_world))
    assert time == 12.5 and same(read, cam_from_world, 1e-8)
    with pytest.raises(ValueError, match="timestamp must be finite"):
        tum_line(math.nan, cam_from_world)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(tum_line(1.0, random_pose()) + "\n")
    assert len(read_tum(tmp_path / "t.txt")) == 1
    (tmp_path / "p.txt").write_text("a.jpg 1 0 0 0 0 0\n")
    with pytest.raises(InputError, match=rf"{tmp_path}/p.txt:1: 7 fields instead of 8"):
        read_mapfree_poses(str(tmp_path / "p.txt"))
    with pytest.raises(InputError, match="does not exist"):
        read_tum(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("parse", "text", "says"),
    [
        (parse_mapfree_poses, "a.jpg 1 0 0 0 0 0 0\nb.jpg 1 0 0 0 0 0", ":2: 7 fields instead of 8"),
        (parse_mapfree_poses, "a.jpg 1 0 0 x 0 0 0", ":1: 'x' is not a finite number"),
        (parse_mapfree_poses, "a.jpg 1 0 0 0 0 0 nan", ":1: 'nan'"),
        (parse_mapfree_poses, "a.jpg 1 0 0 0 0 0 0\n\na.jpg 1 0 0 0 0 0 0", ":3: 'a.jpg' has a pose already"),
        (parse_submission, "a.jpg 1 0 0 0 0 0 0", ":1: 8 fields instead of 9"),
        (parse_submission, "a.jpg 0 0 0 0 0 0 0 1", ":1: the quaternion 0 0 0 0 is zero"),
        (parse_submission, "a.jpg 1 0 0 0 0 0 0 -1", ":1: the confidence -1 is negative"),
        (parse_submission, "a.jpg 1 0 0 0 0 0 0 1\na.jpg 1 0 0 0 0 0 0 1", ":2: 'a.jpg' has a pose already"),
        (parse_submission, "a.jpg 1 0 0 0 0 0 0 tensor(3.)", "is not a finite number"),
        (parse_tum, "1.0 0 0 0 0 0 0 0", ":1: the quaternion 0 0 0 0 is zero"),
        (parse_tum, "1.0 0 0 0 0 0 0", ":1: 7 fields instead of 8"),
    ],
)
def test_malformed_lines(parse: Callable[[str, str], object], text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        parse(text, "poses.txt")
    assert str(caught.value).startswith("poses.txt:")


def test_comments_after_the_numbers_do_not_lose_the_line() -> None:
    poses = parse_mapfree_poses("# all\nseq0/a.jpg 1 0 0 0 0 0 0 # start\n  # b\nseq1/a#2.jpg 1 0 0 0 0 0 1\n")
    assert list(poses) == ["seq0/a.jpg", "seq1/a#2.jpg"]
    assert len(parse_tum("1 0 0 0 0 0 0 1 #first\n#2 0 0 0 0 0 0 1\n")) == 1
    assert list(parse_submission("a.jpg 1 0 0 0 0 0 0 0.5\t# sure\n")) == ["a.jpg"]
    with pytest.raises(InputError, match=r"poses\.txt:1: 3 fields"):
        parse_mapfree_poses("a.jpg 1 0 # 0 0 0 0 0\n")


FUZZ = st.text(max_size=120) | st.text(alphabet="01.-e \n#naifx_", max_size=200)
ROW = st.lists(st.floats(allow_nan=True, allow_infinity=True).map(repr), min_size=6, max_size=9).map(" ".join)


@pytest.mark.parametrize("parse", [parse_mapfree_poses, parse_submission, parse_tum])
@given(text=FUZZ | st.lists(ROW, max_size=4).map("\n".join) | st.lists(ROW.map("a.jpg {}".format)).map("\n".join))
def test_parsers_never_raise_anything_else(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except InputError as error:
        assert ":" in str(error)


def test_dictionary_for_json() -> None:
    pose = random_pose(2, torch.float32)
    entry = json.loads(json.dumps(pose_as_dict(pose, to_frame="query camera", from_frame="reference camera")))
    assert entry["maps"] == "X[query camera] = R X[reference camera] + t"
    assert entry["translation_unit"] == "metre"
    assert np.allclose(entry["matrix"], pose.matrix().numpy(), atol=1e-7)
    x, y, z = entry["quaternion_wxyz"][1:]
    assert np.allclose(Rotation.from_quat([x, y, z, entry["quaternion_wxyz"][0]]).as_matrix(), pose.R, atol=1e-6)
    assert same(pose_from_dict(entry), pose.to(torch.float64), 1e-12)
    unscaled = pose_as_dict(pose, to_frame="b", from_frame="a", unit="unknown scale")
    assert unscaled["translation_unit"] == "unknown scale"


NO_POSES = [{}, {"matrix": 1}, {"matrix": [["a"]]}, {"matrix": [[math.nan] * 4] * 4}, {"matrix": None}]


@pytest.mark.parametrize("entry", NO_POSES)
def test_dictionary_that_is_no_pose(entry: dict[str, object]) -> None:
    with pytest.raises(InputError, match="matrix"):
        pose_from_dict(entry)


def test_a_listed_name_is_one_word() -> None:
    assert listed_name("my photo #2\t.jpg") == "my_photo__2_.jpg" and listed_name("ä/b.jpg") == "ä/b.jpg"
