"""The Map-free scorer against every golden case of the published one, and what the clean mode does differently."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metriloc.evaluation.mapfree import MapfreeScore, score_mapfree
from metriloc.evaluation.mapfree_files import KEPT_WARNINGS, parse_intrinsics_lines, parse_pose_lines
from metriloc.io import InputError

Shared = Callable[[str], Path]
CASES = [
    "basic",
    "behind_camera",
    "duplicates",
    "empty_scene_file",
    "extra_scene",
    "malformed_lines",
    "missing_frames",
    "missing_scene",
    "nan_inf_zero_quat",
    "no_seq1_frame0",
    "perfect",
    "sign_flipped_quat",
    "skipped_frames",
    "skipped_frames_wrong_subset",
    "ties_all_equal",
    "zero_confidence",
]


def number(value: Any) -> float:
    return float(value)


def compare_metrics(score: MapfreeScore, expected: dict[str, Any]) -> None:
    assert set(score.metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(score.metrics[name], number(value), atol=1e-7, rtol=0, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_official_mode_equals_the_published_scorer(shared: Shared, case: str) -> None:
    folder = shared(f"golden/bench/mapfree/{case}")
    expected = json.loads((folder / "expected.json").read_text())
    score = score_mapfree(folder / "dataset/val", folder / "submission.zip")
    assert {s.scene: s.failures for s in score.scenes} == expected["failures_per_scene"]
    assert {s.scene: s.evaluated for s in score.scenes} == expected["gt_frames_per_scene"]
    # upstream opens each file twice and so prints its warnings twice
    assert [w for w in score.warnings if "unknown scene" not in w] == expected["log"]
    rows = [
        (s.scene, frame, *errors)
        for s in score.scenes
        for frame, *errors in zip(s.frames, s.center_m, s.rotation_deg, s.vcre_px, s.confidence, strict=True)
    ]
    assert [row[:2] for row in rows] == [tuple(row[:2]) for row in expected["per_frame"]]
    if expected["status"] == "no valid pose estimates":
        assert not rows and math.isnan(score.metrics["Average Median Translation Error"])
        return
    found = np.array([row[2:] for row in rows], float)
    golden = np.array([[number(x) for x in row[2:]] for row in expected["per_frame"]])
    # errors that are zero up to rounding differ in rounding; asin is steep at 180 degrees
    np.testing.assert_allclose(found[:, [0, 2, 3]], golden[:, [0, 2, 3]], rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(found[:, 1], golden[:, 1], rtol=1e-12, atol=1e-7 if case == "perfect" else 1e-11)
    compare_metrics(score, expected["metrics"])
    for curve, golden_curve in ((score.pose_curve, expected["pr_pose"]), (score.vcre_curve, expected["pr_vcre"])):
        assert curve.area == pytest.approx(golden_curve["auc"], abs=1e-7)
        n = len(golden_curve["precision"])
        np.testing.assert_allclose(curve.precision[:n], golden_curve["precision"], atol=1e-7)
        np.testing.assert_allclose(curve.recall[:n], golden_curve["recall"], atol=1e-7)


def test_rotations_of_180_degrees(shared: Shared) -> None:
    folder = shared("golden/bench/mapfree/rot_180")
    expected = json.loads((folder / "expected.json").read_text())
    golden = np.array([number(row[3]) for row in expected["per_frame"]])
    assert np.isnan(golden).any()
    official = np.concatenate(
        [s.rotation_deg for s in score_mapfree(folder / "dataset/val", folder / "submission.zip").scenes]
    )
    both = ~np.isnan(golden) & ~np.isnan(official)
    np.testing.assert_allclose(official[both], golden[both], atol=1e-5)
    clean = score_mapfree(folder / "dataset/val", folder / "submission.zip", mode="clean")
    assert all(np.isfinite(s.rotation_deg).all() for s in clean.scenes)
    assert math.isfinite(clean.metrics["Average Median Rotation Error"])


def test_negative_confidence_stops_official_and_loses_the_line_in_clean(shared: Shared) -> None:
    folder = shared("golden/bench/mapfree/negative_confidence")
    assert json.loads((folder / "expected.json").read_text())["status"].endswith("confidence must be non negative")
    with pytest.raises(InputError, match="confidence must be non negative"):
        score_mapfree(folder / "dataset/val", folder / "submission.zip")
    clean = score_mapfree(folder / "dataset/val", folder / "submission.zip", mode="clean")
    assert clean.failures >= 1
    assert any("Negative confidence" in warning for warning in clean.warnings)


def test_mickeys_copy_of_the_benchmark(shared: Shared) -> None:
    folder = shared("golden/mickey/benchmark_synth")
    expected = json.loads((folder / "expected.json").read_text())
    score = score_mapfree(folder / "val", folder / "submission.zip")
    compare_metrics(score, expected["metrics"])
    assert {s.scene: s.failures for s in score.scenes} == expected["failures"]
    for scene in score.scenes:
        if scene.frames:
            golden = expected["per_scene"][scene.scene]
            np.testing.assert_allclose(scene.center_m, golden["trans_err"], rtol=1e-12, atol=1e-11)
            np.testing.assert_allclose(scene.rotation_deg, golden["rot_err"], rtol=1e-12, atol=1e-10)
            np.testing.assert_allclose(scene.vcre_px, golden["reproj_err"], rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(score.vcre_curve.precision, expected["curves"]["vcre_prec_values"], atol=1e-7)
    np.testing.assert_allclose(score.vcre_curve.recall, expected["curves"]["vcre_recall_values"], atol=1e-7)


def test_clean_mode_counts_the_evaluated_frames_of_an_absent_scene(shared: Shared) -> None:
    folder = shared("golden/bench/mapfree/missing_scene")
    official = score_mapfree(folder / "dataset/val", folder / "submission.zip")
    clean = score_mapfree(folder / "dataset/val", folder / "submission.zip", mode="clean")
    absent = next(s.scene for s in official.scenes if not s.frames)
    failures = [{s.scene: s.failures for s in score.scenes}[absent] for score in (official, clean)]
    assert failures[0] == 41 and failures[1] <= 9


def write_scene(folder: Path, frames: int) -> None:
    folder.mkdir(parents=True)
    names = ["seq0/frame_00000.jpg", *(f"seq1/frame_{i:05d}.jpg" for i in range(frames))]
    (folder / "poses.txt").write_text("".join(f"{n} 1 0 0 0 {0.01 * i:.4f} 0 0\n" for i, n in enumerate(names)))
    (folder / "intrinsics.txt").write_text("".join(f"{n} 590 590 269.5 359.5 540 720\n" for n in names))


def test_clean_mode_tells_sequences_apart(tmp_path: Path) -> None:
    write_scene(tmp_path / "val/s00000", 11)
    perfect = "".join(f"seq1/frame_{i:05d}.jpg 1 0 0 0 {0.01 * (i + 1):.4f} 0 0 1\n" for i in range(11))
    wrong_sequence = perfect.replace("seq1/frame_00005", "seq0/frame_00005")
    for mode, failures in (("official", 0), ("clean", 1)):
        score = score_mapfree(tmp_path / "val", {"s00000": wrong_sequence}, mode=mode)  # type: ignore[arg-type]
        assert score.failures == failures and score.total == 3
        np.testing.assert_allclose(score.scenes[0].center_m, 0, atol=1e-12)


def test_official_mode_says_each_line_that_it_left_out_twice(tmp_path: Path) -> None:
    write_scene(tmp_path / "val/s00000", 6)
    file = tmp_path / "val/s00000/poses.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("# frame qw qx qy qz tx ty\n# a note\n" + "".join(lines[::-1]))
    text = "# seq1/frame 1 0 0 0 0 0 0\nseq1/frame_00000.jpg 1 0 0 0 0.01 0 0 1\njunk\n"
    score = score_mapfree(tmp_path / "val", {"s00000": text})
    truth = f"WARNING: Invalid number of fields in file {file} line 1. Expected 8, received 3. Ignoring line."
    said = "WARNING: Invalid number of fields in file pose_s00000.txt line 2. Expected 9, received 1. Ignoring line."
    assert list(score.warnings) == [truth, said, truth, said] and score.about_submission == (said,)
    assert score.scenes[0].evaluated == 2
    # nothing valid at all: every evaluated frame is a failure, and every line is named
    score = score_mapfree(tmp_path / "val", {"s00000": "junk\nseq1/frame_00000.jpg 0 0 0 0 0 0 0 1\n"})
    assert score.failures == score.total == 2 and math.isnan(score.metrics["Average Median Translation Error"])
    assert len(score.warnings) == 6


def test_step_is_a_parameter(tmp_path: Path) -> None:
    write_scene(tmp_path / "val/s00000", 6)
    text = "".join(f"seq1/frame_{i:05d}.jpg 1 0 0 0 {0.01 * (i + 1):.4f} 0 0 1\n" for i in range(6))
    assert score_mapfree(tmp_path / "val", {"s00000": text}, mode="clean", step=1).total == 6
    assert score_mapfree(tmp_path / "val", {"s00000": text}, mode="clean").total == 2
    with pytest.raises(ValueError, match="got 0"):
        score_mapfree(tmp_path / "val", {"s00000": text}, step=0)


def test_bad_ground_truth_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no scene"):
        score_mapfree(tmp_path, {})
    write_scene(tmp_path / "s00000", 3)
    (tmp_path / "s00000/intrinsics.txt").write_text("seq0/frame_00000.jpg 590 590 269.5 359.5 540 720\n")
    with pytest.raises(InputError, match="seq1/frame_00000"):
        score_mapfree(tmp_path, {}, mode="clean")
    (tmp_path / "s00000/intrinsics.txt").write_text("nothing here\n")
    with pytest.raises(InputError, match="frame 0"):
        score_mapfree(tmp_path, {})
    poses = (tmp_path / "s00000/poses.txt").read_text().replace("1 0 0 0 0.0100", "0 0 0 0 0")
    (tmp_path / "s00000/poses.txt").write_text(poses)
    with pytest.raises(InputError, match="withholds"):
        score_mapfree(tmp_path, {}, mode="clean", step=1)


_LINE = st.one_of(
    st.text(max_size=60),
    st.builds(
        lambda name, values, gap: gap.join([name, *values]),
        st.sampled_from(["seq1/frame_00000.jpg", "seq1/frame_00005.jpg", "frame_00010.png", "#x", "é", ""]),
        st.lists(st.sampled_from(["1", "0", "-2.5", "nan", "inf", "1e400", "abc", "1_0", "", "0x1"]), max_size=9),
        st.sampled_from([" ", "  ", "\t"]),
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_LINE, max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_no_text_breaks_the_line_parsers(lines: list[str], ending: str) -> None:
    text = ending.join(lines)
    for with_confidence in (True, False):
        table = parse_pose_lines(text, "f.txt", with_confidence=with_confidence)
        assert len(table.frames) == len(table.q) == len(table.t) == len(table.confidence) == len(set(table.frames))
        assert np.isfinite(table.q).all() and np.isfinite(table.t).all() and np.isfinite(table.confidence).all()
    cameras, _ = parse_intrinsics_lines(text)
    assert all(K.shape == (3, 3) for K in cameras.values())


def test_warnings_are_counted_and_the_first_kept(tmp_path: Path) -> None:
    write_scene(tmp_path / "s00000", 11)
    text = "bad\n" * 50_000
    for mode in ("official", "clean"):
        warnings = score_mapfree(tmp_path, {"s00000": text}, mode=mode).warnings  # type: ignore[arg-type]
        # the published scorer reads each file twice, and says everything twice
        assert len(warnings) == (KEPT_WARNINGS + 1) * (2 if mode == "official" else 1)
        assert warnings[0].startswith("WARNING: Invalid number of fields in file pose_s00000.txt line 0.")
        assert warnings[-1] == f"WARNING: {50_000 - KEPT_WARNINGS} more warnings on lines of file pose_s00000.txt."


@settings(max_examples=60, deadline=None)
@given(st.lists(_LINE, max_size=12))
def test_a_malformed_submission_scores_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        write_scene(folder / "s00000", 11)
    text = "\n".join(lines)
    clean = score_mapfree(folder, {"s00000": text}, mode="clean")
    assert clean.total == 3
    try:
        official = score_mapfree(folder, {"s00000": text})
    except InputError:
        return  # a negative confidence
    assert official.total == 3


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(_LINE, max_size=6), st.sampled_from(["poses.txt", "intrinsics.txt"]), st.booleans())
def test_malformed_ground_truth_scores_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], file: str, keep: bool
) -> None:
    folder = tmp_path_factory.getbasetemp() / "broken" / file
    if not folder.exists():
        write_scene(folder / "s00000", 11)
        (folder / "whole").write_text((folder / "s00000" / file).read_text())
    text = "\n".join(lines) + "\n" + ((folder / "whole").read_text() if keep else "")
    (folder / "s00000" / file).write_text(text, encoding="utf-8", errors="replace")
    perfect = "".join(f"seq1/frame_{i:05d}.jpg 1 0 0 0 {0.01 * (i + 1):.4f} 0 0 1\n" for i in range(11))
    for mode in ("official", "clean"):
        try:
            score = score_mapfree(folder, {"s00000": perfect}, mode=mode)  # type: ignore[arg-type]
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert score.total == score.scenes[0].evaluated and len(score.scenes[0].frames) == len(score.scenes[0].vcre_px)
