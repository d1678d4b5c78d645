"""The true pose of ``relpose --truth``: two forms, and one sentence for what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metriloc.geometry import Pose, so3_exp
from metriloc.io import InputError, mapfree_pose_line, read_reference_poses, read_true_poses

REFERENCE, QUERY = Path("/photos/a/r.jpg"), Path("/photos/a/q.jpg")
POSE = Pose(so3_exp(torch.tensor([0.1, -0.5, 0.2], dtype=torch.float64)), torch.tensor([1.0, 2.0, 3.0]).double())
WORLD = Pose(so3_exp(torch.tensor([0.4, 0.0, -0.2], dtype=torch.float64)), torch.tensor([0.0, -1.0, 0.5]).double())


def matrix_text(matrix: torch.Tensor) -> str:
    return "\n".join(" ".join(f"{float(v):.12f}" for v in row) for row in matrix)


def same(a: Pose, b: Pose) -> bool:
    return torch.allclose(a.matrix(), b.matrix(), rtol=0, atol=1e-8)


def test_a_matrix_is_of_the_one_query(tmp_path: Path) -> None:
    file = tmp_path / "true.txt"
    file.write_text(f"# query from reference\n{matrix_text(POSE.matrix())}\n")
    assert same(read_true_poses(file, REFERENCE, [QUERY])[str(QUERY)], POSE)
    with pytest.raises(InputError, match="one matrix for 2 queries"):
        read_true_poses(file, REFERENCE, [QUERY, Path("b.jpg")])


@pytest.mark.parametrize("name", ["q.jpg", "a/q.jpg", "/photos/a/q.jpg"])
def test_mapfree_lines_are_found_by_name_and_from_the_reference(tmp_path: Path, name: str) -> None:
    file = tmp_path / "poses.txt"
    file.write_text(mapfree_pose_line(name, POSE) + "\n")
    assert same(read_true_poses(file, REFERENCE, [QUERY, Path("b.jpg")])[str(QUERY)], POSE)
    lines = [mapfree_pose_line("r.jpg", WORLD), mapfree_pose_line(name, POSE @ WORLD)]
    file.write_text("\n".join(lines))
    assert same(read_true_poses(file, REFERENCE, [QUERY])[str(QUERY)], POSE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# nothing\n", "must have lines"),
        ("1 2 3\n", "must have lines"),
        (matrix_text(torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0]))), "no motion"),
        (matrix_text(torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0]))), "no motion"),
        (matrix_text(torch.eye(4)).replace("1.0", "x"), "not a finite number"),
        ("other.jpg 1 0 0 0 1 2 3\n", "it names other.jpg"),
        ("# a\nq.jpg 0 0 0 0 0 0 0\n", r"true\.txt:2: the quaternion of 'q\.jpg' is zero"),
        ("q.jpg 1 0 0 0 0 0 0\nr.jpg 0 0 0 0 0 0 0\n", r"true\.txt:2: the quaternion of 'r\.jpg' is zero"),
    ],
)
def test_what_is_neither_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "true.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=words):
        read_true_poses(file, REFERENCE, [QUERY])


def test_poses_of_references_come_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "poses.txt"
    file.write_text("\n".join([mapfree_pose_line("q.jpg", POSE), mapfree_pose_line("a/r.jpg", WORLD)]))
    found = read_reference_poses(file, [REFERENCE, QUERY])
    assert same(found[0], WORLD) and same(found[1], POSE)
    with pytest.raises(InputError, match=r"other\.jpg"):
        read_reference_poses(file, [REFERENCE, Path("other.jpg")])
