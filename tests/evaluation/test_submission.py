"""Submissions: the bytes are the same every time, and no archive or text file from outside can do harm."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metriloc.evaluation.submission as submission
from metriloc.evaluation.absolute import score_absolute
from metriloc.evaluation.submission import (
    read_submission,
    read_visloc,
    scene_text,
    write_submission,
    write_visloc,
)
from metriloc.geometry import Pose, so3_exp
from metriloc.io import InputError, parse_submission
from metriloc.io.maps import read_map
from metriloc.io.poses import visloc_name

Shared = Callable[[str], Path]


def some_poses(n: int, generator: torch.Generator) -> list[Pose]:
    w, t = torch.randn(2, n, 3, dtype=torch.float64, generator=generator)
    return [Pose(R, x) for R, x in zip(so3_exp(w), t, strict=True)]


def test_a_submission_round_trips_and_is_deterministic(tmp_path: Path, generator: torch.Generator) -> None:
    poses = some_poses(4, generator)
    text = scene_text({f"seq1/frame_{i:05d}.jpg": (p, 0.5 + i) for i, p in enumerate(poses)})
    scenes = {"s00461": "", "s00460": text}
    write_submission(tmp_path / "a.zip", scenes)
    write_submission(tmp_path / "b.zip", dict(reversed(scenes.items())))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    found = read_submission(tmp_path / "a.zip")
    assert found == scenes and list(found) == ["s00460", "s00461"]
    again = parse_submission(found["s00460"])
    for (pose, confidence), (i, truth) in zip(again.values(), enumerate(poses), strict=True):
        assert confidence == 0.5 + i
        torch.testing.assert_close(pose.t, truth.t, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="cannot be a scene"):
        write_submission(tmp_path / "c.zip", {"../evil": ""})
    assert not (tmp_path / "c.zip").exists()


def test_the_golden_archive_is_read(shared: Shared) -> None:
    found = read_submission(shared("golden/mickey/submission_example.zip"))
    lines = [line for text in found.values() for line in text.splitlines()]
    expected = json.loads(shared("golden/mickey/submission_lines.json").read_text())
    assert lines and str(expected)
    assert all(len(line.split(" ")) == 9 for line in lines)


def archive(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def test_hostile_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"

    def refused(data: bytes, says: str) -> None:
        path.write_bytes(data)
        with pytest.raises(InputError, match=says):
            read_submission(path)

    # members elsewhere are never looked at, let alone written
    path.write_bytes(archive([("../pose_s00000.txt", b"x"), ("/pose_s00001.txt", b"x"), ("a/pose_s2.txt", b"x")]))
    assert read_submission(path) == {}
    assert list(tmp_path.iterdir()) == [path]
    refused(b"not a zip", "not a zip")
    refused(archive([("pose_s0.txt", b"\xff\xfe")]), "not UTF-8")
    whole = archive([("pose_s0.txt", b"a" * 1000)])
    refused(whole[: len(whole) // 2], "not a zip|damaged")
    flipped = bytearray(whole)
    flipped[45] ^= 0xFF
    refused(bytes(flipped), "damaged|too long|not UTF-8")
    monkeypatch.setattr(submission, "MAX_MEMBER_BYTES", 10_000)
    bomb = archive([("pose_s0.txt", b"0" * 50_000_000)])
    assert len(bomb) < 100_000
    refused(bomb, "too long")
    # an archive that lies about the size still is not read further
    at = bomb.rindex(struct.pack("<I", 50_000_000))
    refused(bomb[:at] + struct.pack("<I", 10) + bomb[at + 4 :], "too long|damaged")
    monkeypatch.setattr(submission, "MAX_MEMBERS", 3)
    refused(archive([(f"f{i}", b"") for i in range(4)]), "holds 4 files")
    monkeypatch.setattr(submission, "MAX_TOTAL_BYTES", 15)
    refused(archive([("pose_a.txt", b"1" * 10), ("pose_b.txt", b"1" * 10)]), "too long")
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = archive([("pose_a.txt", b"1"), ("pose_a.txt", b"2")])
    refused(twice, "twice")
    encrypted = bytearray(archive([("pose_a.txt", b"1")], zipfile.ZIP_STORED))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(signature) + offset] |= 1
    refused(bytes(encrypted), "encrypted")


def test_lines_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "lines.zip"
    for ending in (b"\n", b"\r"):
        half = b"x" + ending * (submission.MAX_TOTAL_LINES // 2 + 1)
        path.write_bytes(archive([("pose_a.txt", half)]))
        assert set(read_submission(path)) == {"a"}
        path.write_bytes(archive([("pose_a.txt", half), ("pose_b.txt", half)]))
        with pytest.raises(InputError, match=r"lines\.zip' has .* at most 500000"):
            read_submission(path)


def test_a_huge_table_of_contents_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    path.write_bytes(archive([("pose_a.txt", b"")]))
    data = path.read_bytes()
    entry = data[data.index(b"PK\x01\x02") : data.index(b"PK\x05\x06")]
    count = 5 * 2**20 // len(entry)
    end = data[data.index(b"PK\x05\x06") :]
    start = data[: data.index(b"PK\x01\x02")]
    path.write_bytes(start + entry * count + end[:12] + struct.pack("<II", len(entry) * count, len(start)) + end[20:])
    with pytest.raises(InputError, match="a table of contents of"):
        read_submission(path)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 250), st.binary(max_size=4))
def test_no_bytes_break_the_archive_reader(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, patch: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.zip"
    good = archive([("pose_s0.txt", junk)])
    for data in (junk, good[:at] + patch + good[at + len(patch) :]):
        path.write_bytes(data or b"x")
        try:
            found = read_submission(path)
        except InputError:
            continue
        assert set(found) <= {"s0"} or all(isinstance(text, str) for text in found.values())


# -- visuallocalization.net -------------------------------------------------------------------------------------------
def test_visloc_names_and_round_trip(tmp_path: Path, generator: torch.Generator) -> None:
    assert visloc_name("query/night/a.jpg", "file") == "a.jpg"
    assert visloc_name("night/rear/1418133737.jpg", "folder/file") == "rear/1418133737.jpg"
    poses = some_poses(3, generator)
    named = [(f"night/rear/{i}.jpg", pose) for i, pose in enumerate(poses)]
    write_visloc(tmp_path / "r.txt", named, "folder/file")
    found = read_visloc(tmp_path / "r.txt")
    assert list(found) == ["rear/0.jpg", "rear/1.jpg", "rear/2.jpg"]
    for pose, truth in zip(found.values(), poses, strict=True):
        torch.testing.assert_close(pose.matrix(), truth.matrix(), atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match=r"'0\.jpg'.*'b/0\.jpg'"):
        write_visloc(tmp_path / "s.txt", [("a/0.jpg", poses[0]), ("b/0.jpg", poses[1])], "file")
    nan = Pose(poses[0].R, torch.full((3,), torch.nan, dtype=torch.float64))
    with pytest.raises(ValueError, match="not finite"):
        write_visloc(tmp_path / "s.txt", [("a/0.jpg", nan)], "file")
    assert not (tmp_path / "s.txt").exists()


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=120)
    | st.lists(st.sampled_from(["a.jpg", "1", "0", "nan", "-2e9", "1e999", "\n", " "])).map(" ".join)
)
def test_no_text_breaks_the_visloc_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        found = read_visloc(path)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert all(bool(pose.is_finite()) for pose in found.values())


@pytest.mark.parametrize("naming", ["prepend", "basename"])
@pytest.mark.parametrize("only", [False, True])
def test_absolute_reports_equal_the_published_scripts(shared: Shared, naming: str, only: bool) -> None:
    folder = shared("golden/bench/visloc")
    expected = json.loads((folder / "expected.json").read_text())
    model = read_map(folder / "model_bin")
    truth = {name: model.cam_from_world[i] for i, name in enumerate(model.names)}
    names = (folder / "model_bin/list_test.txt").read_text().split()
    estimates = read_visloc(folder / f"predictions_{naming}.txt")
    if naming == "basename":
        estimates = {n: estimates[n.split("/")[-1]] for n in names if n.split("/")[-1] in estimates}
    score = score_absolute(estimates, truth, names, only_localized=only)
    assert score.as_text() == expected["text_only_localized" if only else "text_all"]


def test_text_and_binary_models_are_the_same(shared: Shared) -> None:
    folder = shared("golden/bench/visloc")
    text, binary = read_map(folder / "model_txt"), read_map(folder / "model_bin")
    assert text.names == binary.names
    torch.testing.assert_close(text.cam_from_world.matrix(), binary.cam_from_world.matrix())
    torch.testing.assert_close(text.uv, binary.uv)


def test_lost_queries_are_infinitely_far(generator: torch.Generator) -> None:
    poses = dict(zip("abc", some_poses(3, generator), strict=True))
    score = score_absolute({"a": poses["a"]}, poses)
    assert score.median_center_m == float("inf") and score.median_rotation_deg == 180
    assert score.recalls[0] == pytest.approx(100 / 3)
    with pytest.raises(ValueError, match="'d'"):
        score_absolute({}, poses, ["d"])


def test_member_names_that_are_no_text_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    good = archive([("pose_\u00e9.txt", b"1"), ("pose_a.txt", b"1")])
    for at in (good.index("\u00e9".encode()), good.rindex("\u00e9".encode())):
        path.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
        try:
            assert "a" in read_submission(path)
        except InputError as error:
            assert "s.zip" in str(error) and "\n" not in str(error)
    local = archive([("pose_a.txt", b"1")]).replace(b"pose_a", b"pos\xff_a", 1)
    flagged = bytearray(local)
    flagged[7] |= 8  # the local header says that the name is UTF-8
    path.write_bytes(bytes(flagged))
    with pytest.raises(InputError, match=r"s\.zip"):
        read_submission(path)
