"""metriloc eval depth and metriloc eval table on a tiny set: Tables 7, 3 and 6 of the MicKey paper."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metriloc.cli.eval_table import combinations, folder_name
from metriloc.cli.main import main
from metriloc.evaluation.depth_table import name_of
from metriloc.io import InputError


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


def estimates(scene: Path, name: str, metres: float) -> None:
    """Estimated maps of the set, beside all photos."""
    for photo in scene.glob("seq*/*.jpg"):
        map_ = np.full((56, 42), round(1000 * metres), dtype=np.uint16)
        Image.fromarray(map_).save(photo.with_suffix(f".{name}.png"))


def test_depth_of_sources_is_compared_with_the_true_one(
    mapfree_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimates(mapfree_like / "val/s00460", "dptkitti", 2.2)
    arguments = ("--data", mapfree_like / "val", "--step", "6", "--out", tmp_path / "out")
    assert run("eval", "depth", "constant:3", "file:dptkitti", *arguments) == 0
    shown = capsys.readouterr().out
    assert "δ1" in shown and "REL" in shown and "log10" in shown and "dptkitti" in shown
    rows = {row["depth"]: row for row in json.loads((tmp_path / "out/depth.json").read_text())["rows"]}
    three, file = rows["constant:3"]["over_pixels"], rows["dptkitti"]["over_pixels"]
    assert (three["delta1"], three["delta2"], three["rel"], three["rmse"]) == (0, 1, 0.5, 1)
    assert three["log10"] == pytest.approx(np.log10(1.5)) and three["count"] == 3 * 42 * 56
    assert file["rel"] == pytest.approx(0.1, abs=1e-6) and rows["dptkitti"]["photos"] == 3
    assert (tmp_path / "out/depth.md").read_text().startswith("| depth | δ1 |")


@pytest.mark.slow
def test_mickey_has_a_row_of_its_better_half(mapfree_like: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("eval", "depth", "metriloc-small", "--data", mapfree_like / "val", "--step", "12", "--per-photo") == 0
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert lines[-1][1:5] == ["photos;", "mean", "over", "photos;"]
    # in a narrow terminal "Sc" stands below "metriloc-small-"
    assert sum(line[0].endswith("Sc") for line in lines if line) == 1, shown


@pytest.mark.parametrize(
    "words, message",
    [
        (("constant:3", "--step", "0"), "--step 0"),
        (("file",), "'file' predicts no depth; the data set's own estimates are file:NAME"),
        (("file:dptnyu",), "dptnyu knows the depth of none of the 13 photos"),
        (("constant:x",), "depth source constant:x"),
        (("nothing",), "a depth source must be file, file:NAME"),
    ],
)
def test_wrong_sources_of_depth_are_one_sentence(
    words: tuple[str, ...], message: str, mapfree_like: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval", "depth", *words, "--data", mapfree_like / "val") == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.slow
def test_matchers_with_depths_are_one_table_which_goes_on_where_it_was(
    mapfree_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimates(mapfree_like / "val/s00460", "dptkitti", 3.0)
    arguments = ("eval", "table", "mapfree", "--data", mapfree_like, "--split", "val", "--out", tmp_path / "out")
    named = ("--methods", "xfeat", "identity", "--depths", "file", "file:dptkitti")
    assert run(*arguments, *named) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("AUC", "Prec.", "Trans", "Rot", "ms", "dptkitti"))
    content = json.loads((tmp_path / "out/table.json").read_text())
    rows = {(row["method"], row["depth"]): row for row in content["rows"]}
    assert list(rows) == [("xfeat", "file"), ("xfeat", "dptkitti"), ("identity", "its own")]
    right, far = rows["xfeat", "file"], rows["xfeat", "dptkitti"]
    # the wall is 2 m away; where it is said to be 3 m away, the way comes out half as long again
    assert right["metres"] < 0.1 < far["metres"] and abs(right["degrees"] - far["degrees"]) < 2
    assert right["milliseconds"] > 0 and right["estimates"] == far["estimates"] == 1  # nothing is withheld
    assert rows["identity", "its own"]["milliseconds"] is None
    table = (tmp_path / "out/table.md").read_text()
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/records-*.jsonl")}
    assert len(before) == 3
    assert run(*arguments, *named) == 0
    assert table == (tmp_path / "out/table.md").read_text()
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize(
    "words, message",
    [
        (("mapfree", "--methods", "nothing"), "--methods nothing: there is no such method for pairs"),
        (("mapfree", "--methods", "xfeat", "--weights", "x"), "--weights x: weights belong to one method"),
        (("mapfree", "--methods", "xfeat", "--depth-source", "none"), "--depth-source none: a table takes --depths"),
        (("7scenes", "--methods", "identity"), "7scenes needs --hloc"),
    ],
)
def test_wrong_tables_are_one_sentence(
    words: tuple[str, ...], message: str, mapfree_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("eval", "table", *words, "--data", mapfree_like, "--split", "val", "--out", tmp_path / "out")
    assert code == 2 and message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_named_depth_belongs_to_data_sets(mapfree_like: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [mapfree_like / f"val/s00460/seq{k}/frame_00000.jpg" for k in range(2)]
    assert run("relpose", *photos, "--method", "xfeat", "--depth-source", "file:dptkitti") == 2
    assert "only data sets have named depth maps" in capsys.readouterr().err


def test_rows_and_their_folders_have_names() -> None:
    assert combinations(("loftr", "mickey"), ("file", "none")) == [
        ("loftr", "file"), ("loftr", "none"), ("mickey", None)
    ]  # fmt: skip
    with pytest.raises(InputError, match="at least one"):
        combinations((), ("file",))
    assert folder_name("aliked+lightglue", "mickey:a/b") == "aliked+lightglue__mickey_a_b"
    assert folder_name("mickey", None) == "mickey"
    names = [
        name_of(text) for text in ("file:dptkitti", "runs/x/weights", "metriloc-depth", "constant:3", "mickey:a/b")
    ]
    assert names == ["dptkitti", "weights", "metriloc-depth", "constant:3", "b"]
