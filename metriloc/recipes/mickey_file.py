"""MicKey's training files (yacs, YAML): ``config/MicKey/*.yaml`` and the data set's, as a run of this library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from metriloc.backbones import DINOV2
from metriloc.io import InputError
from metriloc.lessons.mapfree import PER_SCENE, SCENES
from metriloc.methods.mickey import Curriculum
from metriloc.methods.mickey.checkpoint import config_from_yaml, solver_config_from_yaml
from metriloc.overrides import flat, override
from metriloc.recipes.mickey_published import PublishedMicKey, curriculum_learning
from metriloc.recipes.published_keys import PublishedRun, Setting, applied, number
from metriloc.training import Run

GROUPS = ("MODEL", "MICKEY", "LOSS_CLASS", "TRAINING", "DATASET", "FEATURE_MATCHER", "PROCRUSTES")
"""Any of these makes a file one of MicKey's."""
_OBJECTIVE = {
    "IT_MATCHES": "solver.num_sets",
    "IT_RANSAC": "solver.num_hypotheses",
    "NUM_SAMPLED_MATCHES": "solver.set_size",
    "NUM_CORR_3D_3D": "solver.minimal_size",
    "NUM_REF_STEPS": "solver.max_refinements",
    "INLIER_REF_TH": "solver.inlier_threshold",
    "INLIER_3D_TH": "solver.soft_inlier_threshold",
    "ADD_NULL_HYPOTHESIS": "null_hypothesis",
    "TH_OUTLIERS": "null_score",
    "SCORE_TEMPERATURE": "score_temperature",
    "MAX_LOSS": "loss.max_loss",
}
_RUN = {
    "TRAINING.LR": "training.optimizer.lr",
    "TRAINING.LOG_INTERVAL": "training.log_every",
    "TRAINING.NUM_WORKERS": "training.workers",
    "DATASET.SEED": "batches.seed",
}
_LOSSES = {"VCRE": "vcre", "POSE_ERR": "pose"}
_ELSEWHERE = re.compile(
    # read together with others, or by the reader of checkpoints
    r"MODEL|MICKEY\..*|FEATURE_MATCHER\..*|PROCRUSTES\..*|TRAINING\.(NUM_GPUS|BATCH_SIZE|VAL_INTERVAL|VAL_BATCHES)"
    r"|TRAINING\.(LR_STEP_INTERVAL|LR_STEP_GAMMA)|(.*\.)?(N_SAMPLES_SCENE|SAMPLE_WITH_REPLACEMENT)"
    r"|LOSS_CLASS\.(.*\.)?(TRAIN_CURRICULUM|TRAIN_WITH_TOPK|TOPK_INIT|TOPK)|LOSS_CLASS\.(.*\.)?(VCRE|POSE_ERR)\..*"
    r"|DATASET\.(HEIGHT|WIDTH|MIN_OVERLAP\w*|MAX_OVERLAP\w*|\w*(AUGMENT|GRAY|GREY)\w*)"
    # of no meaning there, or here: --data names the folder
    r"|DEBUG|PROCRUSTES_TRAINING\..*|DATASET\.(DATA_ROOT|NPZ_ROOT|CONSECUTIVE_PAIRS|FRAME_RATE|PAIRS_TXT)"
)


def is_mickeys(values: Mapping[str, Any]) -> bool:
    """Whether a file has groups of MicKey's."""
    return any(group in values for group in GROUPS)


def run_of_mickeys_file(values: Mapping[str, Any], source: str, base: Run | None = None) -> PublishedRun:
    """The run that a MicKey training file describes.

    - values: what the file holds; source: how errors call it.
    - base: run whose values stand where the file says nothing; by default ``curriculum_learning``.

    Raises InputError naming the key of a value that cannot be.
    """
    run, found = base or curriculum_learning(), flat(values)
    settings = [Setting(key, path, found[key]) for key, path in _RUN.items() if key in found]
    settings += [*_objective(found), *_schedule(found, source), *_data(found, source)]
    run = applied(run, settings, source)
    if not isinstance(run.method, PublishedMicKey):
        raise InputError(f"'{source}' is a file of MicKey, and {run.name} is no recipe of MicKey")
    try:
        network, solver = config_from_yaml(values), solver_config_from_yaml(values)
        curriculum = _curriculum(found, run.method.curriculum, source)
    except ValueError as error:
        raise InputError(f"'{source}': {error}") from error
    method = replace(run.method, network=network, solver=solver, curriculum=curriculum)
    if "MICKEY.DINOV2.CHANNEL_DIM" in found:
        name = next(name for name, shape in DINOV2.items() if shape == network.backbone)
        method = override(method, [f"backbone={name}"])
    known = {setting.key for setting in settings}
    unread = tuple(key for key in found if key not in known and not _ELSEWHERE.fullmatch(key))
    return PublishedRun(replace(run, method=method), unread)


def _objective(found: Mapping[str, Any]) -> list[Setting]:
    """Of LOSS_CLASS; of its groups VCRE and POSE_ERR, the one that is asked for counts."""
    own = {key: value for key, value in found.items() if key.startswith("LOSS_CLASS.")}
    asked = next(((key, value) for key, value in own.items() if isinstance(value, str) and value in _LOSSES), None)
    settings = [Setting(asked[0], "method.objective.loss.kind", _LOSSES[asked[1]])] if asked is not None else []
    other = {"VCRE": "POSE_ERR", "POSE_ERR": "VCRE"}[asked[1] if asked is not None else "VCRE"]
    for key, value in own.items():
        leaf = key.rpartition(".")[2]
        if f".{other}." in key:
            continue
        if leaf in _OBJECTIVE:
            settings.append(Setting(key, f"method.objective.{_OBJECTIVE[leaf]}", value))
        elif "SOFT_CLIP" in leaf:
            settings.append(Setting(key, "method.objective.loss.soft_clip", value))
    return settings


def _curriculum(found: Mapping[str, Any], default: Curriculum, source: str) -> Curriculum:
    leaves = {key.rpartition(".")[2]: value for key, value in found.items() if key.startswith("LOSS_CLASS.")}
    if not {"TRAIN_CURRICULUM", "TRAIN_WITH_TOPK"} & leaves.keys():
        return default
    end = number(leaves, "TOPK", source, 80)
    if leaves.get("TRAIN_CURRICULUM"):
        every = max(1, SCENES * PER_SCENE // _batch(found, source))
        return Curriculum(start=number(leaves, "TOPK_INIT", source, 30), end=end, every=every)
    if leaves.get("TRAIN_WITH_TOPK"):
        return Curriculum(end, end, 0, 1)
    return Curriculum(100, 100, 0, 1)


def _batch(found: Mapping[str, Any], source: str) -> int:
    """Pairs of a step, over all GPUs."""
    one, gpus = number(found, "TRAINING.BATCH_SIZE", source, 8), number(found, "TRAINING.NUM_GPUS", source, 4)
    return max(1, int(one * gpus))


def _schedule(found: Mapping[str, Any], source: str) -> list[Setting]:
    """Batch, epoch, validation, and steps of the learning rate."""
    batch = _batch(found, source)
    epoch = max(1, SCENES * PER_SCENE // batch)
    interval = number(found, "TRAINING.VAL_INTERVAL", source, 0.5)
    steps = max(1, int(interval * epoch if interval <= 1 else interval))
    settings = [
        Setting("TRAINING.BATCH_SIZE", "batches.batch_size", batch),
        Setting("TRAINING.BATCH_SIZE", "training.steps", 100 * epoch),
        Setting("TRAINING.VAL_INTERVAL", "training.epoch_steps", steps),
    ]
    if "TRAINING.VAL_BATCHES" in found:
        pairs = int(
            number(found, "TRAINING.VAL_BATCHES", source, 100) * number(found, "TRAINING.BATCH_SIZE", source, 8)
        )
        settings.append(Setting("TRAINING.VAL_BATCHES", "validation.pairs", pairs))
    if found.get("TRAINING.LR_STEP_INTERVAL"):
        settings += [
            Setting("TRAINING.LR_STEP_INTERVAL", "training.schedule.decay", "steps"),
            Setting("TRAINING.LR_STEP_INTERVAL", "training.schedule.step_every", found["TRAINING.LR_STEP_INTERVAL"]),
        ]
        if found.get("TRAINING.LR_STEP_GAMMA"):
            gamma = found["TRAINING.LR_STEP_GAMMA"]
            settings.append(Setting("TRAINING.LR_STEP_GAMMA", "training.schedule.step_factor", gamma))
    return settings


def _data(found: Mapping[str, Any], source: str) -> list[Setting]:
    settings = []
    if {"DATASET.HEIGHT", "DATASET.WIDTH"} <= found.keys():
        size = found["DATASET.WIDTH"], found["DATASET.HEIGHT"]
        settings += [Setting("DATASET.WIDTH", f"{part}.size", size) for part in ("batches", "validation")]
    for key, value in found.items():
        leaf = key.rpartition(".")[2]
        if leaf == "N_SAMPLES_SCENE":
            settings += [Setting(key, f"{part}.per_scene", value) for part in ("batches", "validation")]
        elif leaf == "SAMPLE_WITH_REPLACEMENT" and value is not True:
            raise InputError(f"'{source}': {key} must be true: MicKey's recipes draw pairs with replacement")
        elif not key.startswith("DATASET."):
            continue
        elif leaf.startswith("MIN_OVERLAP"):
            settings.append(Setting(key, "batches.overlap[first]", value))
        elif leaf.startswith("MAX_OVERLAP"):
            settings.append(Setting(key, "batches.overlap[last]", value))
        elif re.search("GR[AE]Y", leaf) and value:
            settings.append(Setting(key, "batches.photometric.gray", 1))
        elif "AUGMENT" in leaf and value and str(value).lower() != "none":
            settings += [
                Setting(key, f"batches.photometric.{name}", 0.25) for name in ("brightness", "contrast", "saturation")
            ]
    least = next((one.value for one in settings if one.path == "batches.overlap[first]"), 0)
    if str(least) not in ("0", "0.0"):
        settings.append(
            Setting("DATASET.MIN_OVERLAP", "batches.uniform", None)
        )  # scores are asked for, so they must be
    return settings
