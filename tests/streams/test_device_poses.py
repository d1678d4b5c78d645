"""Files of device poses in every format, matched to frames; what is wrong with lines is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.stream_files import some_poses
from scipy.spatial.transform import Rotation, Slerp

from metriloc.geometry import Pose
from metriloc.io import InputError, mapfree_pose_line, tum_line
from metriloc.io.poses import kitti_line
from metriloc.streams.device_poses import MatchConfig
from metriloc.streams.frames import StreamFrame
from metriloc.streams.notes import Notes
from metriloc.streams.pose_files import MountOptions, read_device_poses

POSES = some_poses(4)


def at(index: int, time: float | None = None, name: str = "x.jpg", path: Path | None = None) -> StreamFrame:
    def load() -> None:
        raise AssertionError("nothing is read")

    return StreamFrame(index, name, time, load, path)  # type: ignore[arg-type]


def same(found: Pose | None, expected: Pose, atol: float = 1e-7) -> None:
    assert found is not None
    torch.testing.assert_close(found.matrix(), expected.matrix(), rtol=0, atol=atol)


def read(path: Path, match: MatchConfig | None = None, **mount: object):  # type: ignore[no-untyped-def]
    notes = Notes()
    options = MountOptions(**mount)  # type: ignore[arg-type]
    return read_device_poses(path, match or MatchConfig(), options, notes), notes


def tum(path: Path, times: list[float], poses: list[Pose]) -> Path:
    path.write_text(
        "# time x y z qx qy qz qw\n" + "".join(f"{tum_line(t, p)}\n" for t, p in zip(times, poses, strict=True))
    )
    return path


def test_tum_is_interpolated_as_scipy_does(tmp_path: Path) -> None:
    poses, notes = read(tum(tmp_path / "a.txt", [1.0, 1.1, 1.2, 9.0], POSES))
    for i, time in enumerate((1.0, 1.1, 1.2)):
        same(poses.at(at(0, time)), POSES[i])
    found = poses.at(at(0, 1.13))
    assert found is not None
    turns = Slerp([1.1, 1.2], Rotation.from_matrix([p.R.mT.numpy() for p in POSES[1:3]]))(1.13).as_matrix()
    np.testing.assert_allclose(found.R.mT.numpy(), turns, atol=1e-7)
    np.testing.assert_allclose(
        found.center().numpy(), (0.7 * POSES[1].center() + 0.3 * POSES[2].center()).numpy(), atol=1e-7
    )
    assert notes.sentences() == []
    same(poses.at(at(0, 1.215)), POSES[2])  # within the tolerance
    assert poses.at(at(0, 5.0)) is None and poses.at(at(0, 20.0)) is None and poses.at(at(0, None)) is None
    said = " ".join(notes.sentences())
    assert "no pose lies within 0.02 s, and no two 0.2 s apart" in said and "--device-offset" in said


def test_tolerance_gap_and_offset_are_those_that_are_given(tmp_path: Path) -> None:
    file = tum(tmp_path / "a.txt", [1.0, 1.1, 1.2, 9.0], POSES)
    nearest, _ = read(file, MatchConfig(tolerance=0.04, gap=0.0))
    same(nearest.at(at(0, 1.13)), POSES[1])
    assert nearest.at(at(0, 1.15)) is None
    moved, _ = read(file, MatchConfig(offset=100.0))
    same(moved.at(at(0, 101.1)), POSES[1], 1e-6)


def test_wrong_lines_are_named_with_file_and_line_and_survived(tmp_path: Path) -> None:
    lines = [tum_line(t, p) for t, p in zip([1.1, 1.0, 1.2], POSES, strict=False)]
    other = tum_line(1.1, POSES[3])
    text = [lines[0], lines[1], other, "1.15 nan 0 0 0 0 0 1", "1.16 0 0 0 0 0 0 0", "1.17 inf 0 0 0 0 0 1", lines[2]]
    (tmp_path / "a.txt").write_text("\n".join(text))
    poses, notes = read(tmp_path / "a.txt")
    same(poses.at(at(0, 1.0)), POSES[1])
    same(poses.at(at(0, 1.1)), POSES[0])  # the first of two
    said = notes.sentences()
    for place, words in (
        (2, "is before that of an earlier line"),
        (3, "has a pose already"),
        (4, "not finite"),
        (5, "zero"),
    ):
        assert any(f"a.txt:{place}: " in sentence and words in sentence for sentence in said), (place, said)
    assert any("(and 1 more" in sentence for sentence in said if "not finite" in sentence)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1.0 0 0 0 0 0 1\n", r"a\.txt:1: 7 fields instead of 8"),
        ("1.0 0 0 0 0 0 0 1\n1.1 0 x 0 0 0 0 1\n", r"a\.txt:2: 'x' is not a number"),
        ("nan 0 0 0 0 0 0 1\n", r"a\.txt:1: 'nan' is not a finite number"),
        ("1.0 nan 0 0 0 0 0 1\n", "holds no pose"),
        ("# nothing\n", "holds no device poses"),
        ("a b c\n", r"a\.txt:1: this is no line of device poses"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0\n", r"a\.txt:2: 3 numbers instead of the 12"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n", "is no rotation"),
    ],
)
def test_malformed_files_are_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        read(tmp_path / "a.txt")


def test_kitti_is_by_number_and_lost_lines_leave_a_gap(tmp_path: Path) -> None:
    lines = [kitti_line(pose) for pose in POSES]
    lines[1] = " ".join(["nan"] * 12)
    (tmp_path / "00.txt").write_text("\n".join(lines) + "\n")
    poses, notes = read(tmp_path / "00.txt")
    same(poses.at(at(2)), POSES[2])
    assert poses.at(at(1)) is None and poses.at(at(4)) is None
    assert "00.txt:2: the pose is not finite" in notes.sentences()[0] and "frame 1" in notes.sentences()[1]


def test_mapfree_is_by_name_also_of_a_longer_path(tmp_path: Path) -> None:
    names = [f"seq1/frame_{i:05d}.jpg" for i in range(4)]
    (tmp_path / "poses_device.txt").write_text(
        "".join(f"{mapfree_pose_line(n, p)}\n" for n, p in zip(names, POSES, strict=True))
    )
    poses, _ = read(tmp_path / "poses_device.txt")
    same(poses.at(at(0, name=names[2])), POSES[2])
    same(poses.at(at(0, name="frame_00003.jpg", path=Path("/data/s00460/seq1/frame_00003.jpg"))), POSES[3])
    assert poses.at(at(0, name="other.jpg")) is None


def test_a_mount_and_axes_make_poses_of_a_body_the_cameras(tmp_path: Path) -> None:
    body_from_cam = some_poses(9)[8]
    bodies = [body_from_cam @ pose for pose in POSES]
    file = tum(tmp_path / "body.txt", [0.0, 1.0, 2.0, 3.0], bodies)
    mount = tmp_path / "mount.txt"
    mount.write_text("\n".join(" ".join(map(repr, row)) for row in body_from_cam.matrix().tolist()))
    mounted, _ = read(file, mount=mount)
    same(mounted.at(at(0, 2.0)), POSES[2])
    for name in ("ros", "arkit"):
        theirs = [pose.to(name, keep_world=True).inverse() for pose in POSES]
        poses, _ = read(tum(tmp_path / "axes.txt", [0.0, 1.0, 2.0, 3.0], theirs), axes=name)
        same(poses.at(at(0, 1.0)), POSES[1])
    mount.write_text("nan 0 0 0\n" * 4)
    with pytest.raises(InputError, match="not finite"):
        read(file, mount=mount)


def test_folders_say_what_they_lack(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without device poses"):
        read(tmp_path)
