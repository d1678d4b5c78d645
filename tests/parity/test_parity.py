"""docs/parity.md: no row is empty, its tests exist, its commands are understood, its fields are there, nothing is left out."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tyro

from metriloc import recipes
from metriloc.cli.main import COMMANDS
from metriloc.methods.mickey import SolverConfig
from metriloc.methods.mickey.checkpoint import solver_config_from_yaml
from metriloc.methods.nre.settings import PUBLISHED_NAMES as NRE_NAMES
from metriloc.methods.nre.settings import NREConfig
from metriloc.methods.pixloc import GNNetConfig, PixLoc, UNetConfig
from metriloc.methods.pixloc.settings import PUBLISHED_NAMES as PIXLOC_NAMES
from metriloc.methods.pixloc.two_view import TwoViewConfig
from metriloc.overrides import override, settable_fields

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "parity.md"
REASONS = ("weights", "full size", "server", "drawing", "no meaning")
NAMED_TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")
CODE = re.compile(r"`([^`]+)`")
FIELD = re.compile(r"\w+(\.\w+)+")
CLASSES = {kind.__name__: kind for kind in (SolverConfig, TwoViewConfig, UNetConfig, GNNetConfig)}

# the keys of the published files, as they are known here
MICKEY_KEYS = """
MODEL DEBUG DINOV2.DOWN_FACTOR DINOV2.CHANNEL_DIM DINOV2.FLOAT16 KP_HEADS.BLOCKS_DIM KP_HEADS.BN KP_HEADS.USE_SOFTMAX
KP_HEADS.USE_DEPTHSIGMOID KP_HEADS.MAX_DEPTH KP_HEADS.POS_ENCODING DSC_HEAD.LAST_DIM DSC_HEAD.BLOCKS_DIM DSC_HEAD.BN
DSC_HEAD.NORM_DSC DSC_HEAD.POS_ENCODING FEATURE_MATCHER.TYPE DUAL_SOFTMAX.TEMPERATURE DUAL_SOFTMAX.USE_DUSTBIN
SINKHORN.NUM_IT SINKHORN.DUSTBIN_SCORE_INIT USE_TRANSFORMER TOP_KEYPOINTS PROCRUSTES.IT_MATCHES PROCRUSTES.IT_RANSAC
PROCRUSTES.NUM_SAMPLED_MATCHES PROCRUSTES.NUM_CORR_3D_3D PROCRUSTES.NUM_REFINEMENTS PROCRUSTES.TH_INLIER
PROCRUSTES.TH_SOFT_INLIER PROCRUSTES_TRAINING NUM_REF_STEPS INLIER_REF_TH INLIER_3D_TH ADD_NULL_HYPOTHESIS MAX_LOSS
TH_OUTLIERS SCORE_TEMPERATURE TRAIN_CURRICULUM TRAIN_WITH_TOPK TOPK_INIT TOPK NUM_GPUS BATCH_SIZE LR LR_STEP_INTERVAL
LOG_INTERVAL VAL_INTERVAL VAL_BATCHES N_SAMPLES_SCENE SAMPLE_WITH_REPLACEMENT DATA_ROOT HEIGHT WIDTH DATASET.SEED NPZ_ROOT
CONSECUTIVE_PAIRS FRAME_RATE PAIRS_TXT
"""
PIXLOC_KEYS = """
loss_fn normalize_features epochs optimizer optimizer_options opt_regexp lr lr_schedule lr_scaling eval_every_iter
log_every_iter keep_last_checkpoints load_experiment median_metrics best_key dataset_callback_fn clip_grad seed batch_size
num_workers min_overlap max_overlap min_baseline max_baseline max_num_points3D force_num_points3D resize resize_by crop
optimal_crop init_pose grayscale pad sort_by_overlap success_thresh clamp_error normalize_dt duplicate_optimizer_per_scale
output_scales output_dim encoder decoder decoder_norm do_average_pooling compute_uncertainty checkpointed
freeze_batch_normalization margin_positive margin_negative windowed_negative_sampling ratio_radius_negative
num_top_negative_sampling gauss_newton_magnitude gauss_newton_reg_weight gauss_newton_weight contrastive_weight
"""
NRE_KEYS = """
skip_gnc n_iter_p3p top_n_p3p max_fine_imsize gnc_minibatch p3p_sigma_max p3p_sigma_min window_size fine_sigma_max
fine_sigma_min coarse_sigma_max coarse_sigma_min use_re=True
"""
OTHER_FLAGS = {"--help"}
"""Flags of the READMEs that every program has."""


def rows_of(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """(heading above it, cells) of every row of a table but heads and rulers."""
    found, heading = [], ""
    lines = text.splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|") and not line.startswith("|---") and not below.startswith("|---"):
            found.append((heading, tuple(cell.strip() for cell in line.strip("|").split("|"))))
    return found


TEXT = PAGE.read_text(encoding="utf-8")
ROWS = rows_of(TEXT)


@functools.cache
def functions_of(file: Path) -> frozenset[str]:
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def wrong_row(cells: Sequence[str]) -> str:
    """What is wrong with a row, or nothing."""
    if len(cells) != 3 or not all(cells):
        return f"a row must have three full cells: {cells}"
    named = NAMED_TEST.findall(cells[2])
    absent = [f"{file}::{name}" for file, name in named if name not in functions_of(TESTS / file)]
    if absent:
        return f"there is no test {absent[0]}"
    if not named and not re.match(rf"({'|'.join(REASONS)})(:|$)", cells[2]):
        return f"neither a test nor one of the reasons: {cells[2]}"
    return ""


def commands_in(text: str) -> list[list[str]]:
    """The words after ``metriloc`` of the commands that a text shows in full."""
    found = [shlex.split(code)[1:] for code in CODE.findall(text.replace("\n", " ")) if code.startswith("metriloc ")]
    return [words for words in found if " ".join(words) not in COMMANDS]  # a command's bare name shows no use of it


def misunderstood(words: Sequence[str]) -> str:
    """Why the command line does not take some words, or nothing; nothing is run."""
    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in COMMANDS), None)
    if name is None:
        return f"there is no command {words[0]}"
    command = COMMANDS[name]
    function = getattr(importlib.import_module(command.module), command.function)
    given: dict[str, Any] = {}

    @functools.wraps(function)
    def only_parsed(*args: Any, **kwargs: Any) -> int:
        given.update(kwargs)
        return 0

    try:
        tyro.cli(only_parsed, args=list(words[len(name.split()) :]), config=(tyro.conf.OmitArgPrefixes,))
        check_set(name, words)
    except SystemExit as stop:
        return f"wrong use ({stop.code}): {' '.join(words)}"
    except ValueError as error:
        return str(error)
    return ""


def check_set(name: str, words: Sequence[str]) -> None:
    """Raises ValueError for --set of a field that is not there."""
    assigned = [word for word in words if re.match(r"[\w.]+=", word)]
    if name == "train":
        recipe = Path(words[1]).stem
        recipe = recipes.PUBLISHED_NAMES.get(recipe, recipe)
        if recipe == "own" and words[1] == "own.yaml":  # a file of the reader's
            return
        if recipe not in recipes.__all__:
            raise ValueError(f"there is no recipe {recipe}")
        override(getattr(recipes, recipe)(), assigned)
    elif assigned:
        override(PixLoc.from_pretrained().settings, assigned, group="config", aliases=PIXLOC_NAMES)


def settings_of(heading: str) -> Any:
    """What the fields of a table are fields of."""
    if heading.startswith("Keys of MicKey"):
        return recipes.curriculum_learning()
    if heading == "Keys of training":
        return recipes.pixloc_cmu()
    return PixLoc.from_pretrained().settings if heading == "Keys of localization" else NREConfig()


def is_field(heading: str, code: str) -> bool:
    return bool(FIELD.fullmatch(code)) or ("config.yml" in heading and code.isidentifier())


def absent_fields(heading: str, cell: str) -> list[str]:
    """Fields that the second cell of a row names in vain."""
    paths = [path for path, _ in settable_fields(settings_of(heading))]
    absent = []
    for code in CODE.findall(cell):
        kind, _, field = code.partition(".")
        if kind in CLASSES:
            known = [f.name for f in dataclasses.fields(CLASSES[kind])]
            absent += [] if field in known else [code]
        elif is_field(heading, code) and not any(p == code or p.startswith(f"{code}.") for p in paths):
            absent.append(code)
    return absent


def theirs(headings: str) -> str:
    return "\n".join(cells[0] for heading, cells in ROWS if re.match(headings, heading))


def missing(keys: str, headings: str) -> list[str]:
    shown = set(CODE.findall(theirs(headings)))
    return [key for key in keys.split() if key not in shown]


def test_every_row_names_a_test_or_says_why_there_is_none() -> None:
    assert len(ROWS) > 200
    assert [wrong for _, cells in ROWS if (wrong := wrong_row(cells))] == []


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        (("a", "b", "`parity/test_parity.py::test_gone`"), "no test parity/test_parity.py::test_gone"),
        (("a", "b", "`parity/gone.py::test_a`"), "no test parity/gone.py::test_a"),
        (("a", "", "weights"), "three full cells"),
        (("a", "b"), "three full cells"),
        (("a", "b", "later"), "neither a test"),
        (("a", "b", "not yet"), "neither a test"),
        (("a", "b", "weights, perhaps"), "neither a test"),
    ],
)
def test_wrong_rows_are_found(cells: tuple[str, ...], wrong: str) -> None:
    assert wrong in wrong_row(cells)


def test_the_reasons_are_explained_on_the_page_and_rows_are_read() -> None:
    for reason in REASONS:
        assert f"- **{reason}**:" in TEXT
    assert rows_of("# H\n| a | b |\n|---|---|\n| c | d |\n") == [("H", ("c", "d"))]


@pytest.mark.parametrize("words", commands_in(TEXT), ids=" ".join)
def test_commands_are_understood(words: list[str]) -> None:
    assert misunderstood(words) == ""


@pytest.mark.parametrize(
    "line",
    [
        "relpos a.jpg b.jpg",
        "relpose a.jpg b.jpg --true poses.txt",
        "data get aachen",
        "train mickey --data D",
        "train mickey_curriculum --set method.depth=3",
        "eval pixloc 7scenes --data D --out R --set refinement.num_db=5",
        "localize MAP q.jpg --device",
    ],
)
def test_wrong_commands_are_found(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert misunderstood(line.split()) != ""


def test_commands_in_a_text() -> None:
    assert commands_in("`metriloc eval` a `metriloc demo --out\nX` `pip install x`") == [["demo", "--out", "X"]]


@pytest.mark.slow
def test_fields_of_keys_are_there() -> None:
    keys = [(heading, cells[1]) for heading, cells in ROWS if heading.startswith("Keys of")]
    assert [name for heading, cell in keys for name in absent_fields(heading, cell)] == []
    assert absent_fields("Keys of training", "`training.lr`, `UNetConfig.depth`, `training.optimizer`") == [
        "training.lr",
        "UNetConfig.depth",
    ]


@pytest.mark.parametrize(
    ("heading", "names"), [("Keys of localization", PIXLOC_NAMES), ("Keys of `config.yml`", NRE_NAMES)]
)
def test_published_names_are_those_of_the_settings(heading: str, names: Mapping[str, str]) -> None:
    told = {key: cells[1] for under, cells in ROWS if under == heading for key in CODE.findall(cells[0])}
    assert {key: f"`{path.partition('[')[0]}`" for key, path in names.items()}.items() <= told.items()


def test_every_key_of_the_solver_arrives() -> None:
    told = [cells for heading, cells in ROWS if heading.startswith("Keys of MicKey") and "`PROCRUSTES." in cells[0]]
    assert len(told) == len(dataclasses.fields(SolverConfig)) - 2  # two are ours
    for key, field, _ in told:
        name = field.strip("`").removeprefix("SolverConfig.")
        value = 2 * getattr(SolverConfig(), name)
        found = solver_config_from_yaml({"PROCRUSTES": {key.strip("`").removeprefix("PROCRUSTES."): value}})
        assert found == dataclasses.replace(SolverConfig(), **{name: value})


def test_no_key_of_the_published_files_is_left_out() -> None:
    assert missing(MICKEY_KEYS, "Keys of MicKey") == []
    assert missing(PIXLOC_KEYS, "Keys of (localization|training)") == []
    assert missing(NRE_KEYS, "Keys of `config.yml`") == []
    assert missing("skip_gnc skip_all", "Keys of `config.yml`") == ["skip_all"]


def test_no_figure_and_table_of_the_paper_is_left_out() -> None:
    for what, headings in (("Table", "Tables of the paper"), ("Figure", "Figures of the paper")):
        shown = {int(n) for n in re.findall(rf"^{what} (\d)", theirs(headings), re.M)}
        assert shown == set(range(1, 8))


@pytest.mark.parametrize("name", ["mickey", "pixloc", "nre"])
def test_no_flag_and_file_of_a_readme_is_left_out(name: str, shared: Callable[[str], Path]) -> None:
    readme = shared(f"papers/{name}_readme.md").read_text(encoding="utf-8")
    page = theirs("")
    flags = set(re.findall(r"(?<![\w-])--[a-zA-Z_]\w+", readme)) - OTHER_FLAGS
    notebooks = set(re.findall(r"\w+\.ipynb", readme))
    modules = set(re.findall(r"python3? -m ([\w.]+)(?=[\s`])", readme)) - {"pixloc.run_CMU.py"}
    assert [word for word in sorted(flags | notebooks | modules) if not re.search(rf"{re.escape(word)}\b", page)] == []
