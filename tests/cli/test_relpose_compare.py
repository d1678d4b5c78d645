"""``relpose --compare`` and ``--export``, and ``eval compare --pictures``, on the bundled photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metriloc
from metriloc.cli.main import main
from metriloc.evaluation.identity import IdentityPose

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
REFERENCE, QUERY, TRUTH = (EXAMPLE / name for name in ("reference.jpg", "query.jpg", "poses.txt"))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["relpose", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_methods_in_one_view_and_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, file = tmp_path / "out", tmp_path / "arrays/pair.npz"
    common = [REFERENCE, QUERY, "--method", "mickey", "--truth", TRUTH, "--out", out, "--export", file]
    assert run(*common, "--compare", "identity") == 0
    shown = capsys.readouterr().out
    assert "  identity: 0 inliers" in shown and max(map(len, shown.splitlines()[:-1])) <= 80
    assert Image.open(out / "compared.jpg").size[0] == 960
    assert Image.open(out / "scene.confidence.png").size == (960, 720)
    for role in ("reference", "query"):
        width, height = Image.open(out / f"{role}.predicted.jpg").size
        assert height == 480 and width > 3 * 640
    page = (out / "report.html").read_text()
    assert "Methods compared" in page and page.count("Keypoint scores") == 0
    entry = json.loads((out / "pose.json").read_text())["queries"][0]
    (other,) = entry["compared"]
    assert other["method"] == "identity" and other["query_from_reference"]["translation"] == [0, 0, 0]
    with np.load(file) as arrays:
        expected = np.array(entry["query_from_reference"]["matrix"])
        np.testing.assert_allclose(arrays["query_from_reference"], expected, atol=1e-6)
        assert arrays["inlier"].sum() == entry["num_inliers"] and arrays["depth_map0"].ndim == 2
        moved = arrays["xyz0"] @ expected[:3, :3].T + expected[:3, 3]
        off = np.linalg.norm(moved - arrays["xyz1"], axis=1)
        # MicKey's inliers are those whose two points agree
        assert np.median(off) < 0.5 < np.nanmedian(np.linalg.norm(arrays["xyz0"], axis=1))

    kept = (out / "report.html").stat().st_mtime_ns
    assert run(*common, "--compare", "identity", "--resume") == 0
    assert (out / "report.html").stat().st_mtime_ns == kept
    file.unlink()  # what is lost is made again
    assert run(*common, "--compare", "identity", "--resume") == 0
    assert file.is_file() and (out / "report.html").stat().st_mtime_ns != kept
    # without the other method it is another run, and its picture would be of the earlier one
    capsys.readouterr()
    assert run(*common, "--resume") == 2 and "holds another run (compare: " in capsys.readouterr().err
    assert (out / "compared.jpg").exists()
    assert run(*common) == 0
    assert not (out / "compared.jpg").exists()


@pytest.mark.slow
def test_a_method_that_breaks_costs_its_own_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(IdentityPose, "relative_pose", broken)
    assert run(REFERENCE, QUERY, "--method", "matching", "--compare", "identity", "--out", tmp_path) == 0
    assert "identity: no pose, out of memory" in capsys.readouterr().out
    (other,) = json.loads((tmp_path / "pose.json").read_text())["queries"][0]["compared"]
    assert other["success"] is False and "query_from_reference" not in other


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--compare", "orb"], "there is no method 'orb': one of auto, mickey"),
        (["--export", "pair.zip"], "'pair.zip' does not end in .npz"),
    ],
)
def test_wrong_words_are_one_sentence(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(REFERENCE, QUERY, *given) == 2
    assert said in capsys.readouterr().err
