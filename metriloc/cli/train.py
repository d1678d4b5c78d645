"""``metriloc train RECIPE``: train a method by a recipe of ``metriloc.recipes``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from metriloc import recipes
from metriloc.cli.live import LiveOptions, stay_open
from metriloc.cli.terminal import EXIT_INTERRUPTED, fitted
from metriloc.io import InputError
from metriloc.overrides import plain
from metriloc.recipes.published_files import run_of_files
from metriloc.runs.viewed_training import watched
from metriloc.training import Run, override, settable_fields
from metriloc.training import train as run_training
from metriloc.training.batches import OneBatch
from metriloc.training.console import on_the_terminal


def train(
    recipe: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="RECIPE")] = None,
    data: Path | None = None,
    out: Path | None = None,
    set: Annotated[tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]], tyro.conf.arg(metavar="FIELD=VALUE")] = (),
    config: tuple[Path, ...] = (),
    init: Path | None = None,
    resume: bool = False,
    overfit: bool = False,
    show: bool = False,
    live: Annotated[LiveOptions, tyro.conf.arg(name="live")] = LiveOptions(),
) -> int:
    """Train a method by a recipe; without one, list the recipes.

    Ctrl+C finishes the step and saves. On several GPUs: torchrun --nproc-per-node N -m metriloc train ...

    Args:
        recipe: A recipe's name, or a training file of MicKey or PixLoc (YAML).
        data: Folder of the training data.
        out: Folder of the run: config.json, log.txt, metrics.jsonl, checkpoints, validation pages, TensorBoard.
        set: Set fields of the recipe, e.g. --set training.optimizer.lr=3e-4; --show lists them.
        config: Training files of MicKey or PixLoc (YAML), the later over the earlier; --set wins over them.
        init: Checkpoint folder or safetensors file to take the first weights from, e.g. of a warm-up run.
        resume: Go on from the last checkpoint in --out, or start if there is none.
        overfit: Train on the first batch alone, again and again: whether the loss can fall at all.
        show: Only print the fields that --set can set, and their values.
        live: What is seen while it is found.
    """
    if recipe is None and not config:
        for name in recipes.__all__:
            print(f"{name:<26} {(getattr(recipes, name).__doc__ or '').strip().splitlines()[0]}")
        return 0
    run = override(_chosen(recipe, config), [one for several in set for one in several])
    if show:
        for path, value in settable_fields(run):
            print(f"{path}={value if isinstance(value, str) else json.dumps(plain(value))}")
        return 0
    if out is None:
        raise InputError("say where the run shall be written: --out DIR")
    if data is not None and not data.is_dir():
        raise InputError(f"'{data}' is not a folder with training data")
    if overfit:
        run = replace(run, batches=OneBatch(run.batches))
    first = int(os.environ.get("RANK", "0")) == 0
    live = live if first else LiveOptions()
    live.check()
    with live.opened(f"{recipe}: {out}", stay=False) as view:
        with watched(view, out) if view is not None else nullcontext():
            result = run_training(run, out, data, resume=resume, init=init, reporter=on_the_terminal)
        if first:
            state = f"stopped by {result.stopped_by}" if result.stopped_by else "finished"
            print(f"{state} at step {result.progress.step} of {run.training.steps}: {out}", flush=view is not None)
        if view is not None and not result.stopped_by.startswith("SIG"):
            stay_open(view)
    return EXIT_INTERRUPTED if result.stopped_by.startswith("SIG") else 0


def _chosen(recipe: str | None, config: tuple[Path, ...]) -> Run:
    """The run of a recipe, of published files, or of files over a recipe; what was not read in them is told."""
    name = recipe
    if name is not None and name.endswith((".yaml", ".yml")) and Path(name).is_file():
        config, name = (Path(name), *config), None
    if not config:
        return find_recipe(name or "")()
    stem = recipes.PUBLISHED_NAMES.get(config[0].stem, config[0].stem)
    if name is None and stem in recipes.__all__:
        name = stem
    found = run_of_files(config, None if name is None else find_recipe(name))
    if found.unread:
        shown = ", ".join(found.unread[:12]) + (" and more" if len(found.unread) > 12 else "")
        told = f"not read from {config[0].name}, as nothing here corresponds: {shown}"
        print("\n".join(fitted(told)), file=sys.stderr)
    return found.run


def find_recipe(name: str) -> Callable[[], Run]:
    """The recipe of that name, also of a published file's (``config/MicKey/curriculum_learning.yaml``).

    Raises InputError naming those there are.
    """
    if name.endswith(".yaml"):
        name = Path(name).stem
    name = recipes.PUBLISHED_NAMES.get(name, name)
    if name not in recipes.__all__:
        raise InputError(f"there is no recipe {name!r}: there are {', '.join(recipes.__all__)}")
    found: Callable[[], Run] = getattr(recipes, name)
    return found
