"""The published localisation settings are those of the table in the specification (pixloc 12.3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from metriloc import recipes
from metriloc.datasets.visloc_files import VISLOC_FILES, VislocName
from metriloc.methods.pixloc import AlignConfig, CostConfig, LocalizeConfig, ResizeConfig, RobustCost
from metriloc.recipes.localization_published import (
    FROM_POSES,
    FROM_RETRIEVAL,
    LocalizationRun,
    published_localization,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "localization.md"
NAMES = {"7Scenes": "7scenes", "Cambridge": "cambridge", "Aachen": "aachen", "CMU": "cmu", "RobotCar": "robotcar"}


def in_words(run: LocalizationRun, *, posed: bool) -> set[str]:
    """Settings as the table of the specification abbreviates them; what it does not say must be the default."""
    config, words = run.config, {f"{run.align.num_iters} it", f"pad {run.align.cost.pad}"}
    words.add(f"num_dbs {config.num_references}")
    words.add("average" if config.average else "duplicate")
    if posed:
        words |= {f"min_points_opt {config.min_points}", "inliers", f"levels {list(config.levels or ())}"}
        assert config.points == "inliers" and config.image_scales == (1,) and config.rank_by_inliers
        assert config.min_inliers == config.min_reference_inliers == 10
    else:
        one = config.image_scales == (1,)
        words.add("single scale" if one else f"multiscale [{','.join(map(str, config.image_scales))}]")
        assert config.points == "all" and config.levels is None and config.min_points == 10
        assert not config.rank_by_inliers
    if config.approximate_pose:
        words.add("pose approximation")
    if run.resize.size != 1024:
        words.add(f"resize {run.resize.size}")
    assert config.min_track == 3 and config.normalize_features and config.use_confidences
    assert not config.covisible_only and not config.check
    assert not run.resize.enlarge and not run.resize.antialias
    return words


def table(shared: Callable[[str], Path]) -> dict[str, list[str]]:
    text = shared("spec/pixloc.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.splitlines() if re.match(r"\| (\w+) \| (megadepth|cmu) \|", line)]
    found = {NAMES[row[0].strip()]: [cell.strip().replace("**", "") for cell in row[1:]] for row in rows}
    assert set(found) == set(get_args(VislocName))
    return found


def words_of(cell: str, table: dict[str, list[str]], column: int) -> set[str]:
    if match := re.fullmatch(r"as (\w+)", cell):
        return words_of(table[NAMES[match[1]]][column], table, column)
    words = {word.strip() for word in re.split(r", (?![^\[]*\])", cell)}
    return {"duplicate" if word == "duplicate obs" else word.replace("[0,1]", "[0, 1]") for word in words}


@pytest.mark.parametrize("benchmark", get_args(VislocName))
def test_settings_are_those_of_the_table(shared: Callable[[str], Path], benchmark: VislocName) -> None:
    rows = table(shared)
    for column, posed in ((1, False), (2, True)):
        run = published_localization(benchmark, from_poses=posed)
        assert in_words(run, posed=posed) == words_of(rows[benchmark][column], rows, column)
        assert run.checkpoint == f"pixloc_{rows[benchmark][0]}"
        assert run.align == AlignConfig(CostConfig(pad=run.align.cost.pad), num_iters=run.align.num_iters)


def test_all_of_them_once() -> None:
    assert set(FROM_RETRIEVAL) == set(FROM_POSES) == set(VISLOC_FILES) == set(get_args(VislocName))
    assert FROM_POSES["aachen"].resize == ResizeConfig(1600)
    with pytest.raises(ValueError, match="no published settings for 'inloc'"):
        published_localization("inloc")  # type: ignore[arg-type]


def test_trainings_are_listed_apart() -> None:
    assert "published_localization" not in recipes.__all__
    assert all("localization" not in name for name in recipes.__all__)


def test_the_checkpoint_brings_loss_and_damping() -> None:
    stored = AlignConfig(
        CostConfig(RobustCost("huber", scale=0.5), mode="cubic", pad=4), num_iters=15, damping="fixed", stop_every=3
    )
    published = published_localization("aachen", from_poses=True)
    run = published.with_checkpoint(stored, ResizeConfig(512, antialias=True))
    assert run.align == replace(stored, num_iters=50, cost=replace(stored.cost, pad=1))
    assert run.resize == ResizeConfig(1600, antialias=True)
    assert run.config == published.config and run.checkpoint == published.checkpoint


def test_defaults_of_the_localizer_are_those_of_the_first_row() -> None:
    run = published_localization("7scenes")
    assert replace(run.config, check=True) == LocalizeConfig() and run.align == AlignConfig()


def test_the_document_has_the_same_table(shared: Callable[[str], Path]) -> None:
    text = DOCUMENT.read_text()
    for benchmark in get_args(VislocName):
        (row,) = re.findall(rf"^\| `{benchmark}` \|( `pixloc_.*)\|$", text, re.M)
        checkpoint, *cells = (cell.strip() for cell in row.split("|"))
        for posed, cell in zip((False, True), cells, strict=True):
            run = published_localization(benchmark, from_poses=posed)
            assert checkpoint == f"`{run.checkpoint}`"
            assert words_of(cell, {}, 0) == in_words(run, posed=posed)
