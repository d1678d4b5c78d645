"""PixLoc's training files (``train_pixloc_cmu.yaml`` and the like): groups data, model and train, as a run here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from metriloc.datasets.cmu import TRAIN_SLICES
from metriloc.datasets.megadepth import TRAIN_SCENES
from metriloc.io import InputError
from metriloc.lessons.sfm_batches import CmuBatches, CmuValidation, MegaDepthValidation
from metriloc.methods.pixloc.checkpoint import parse_loss
from metriloc.overrides import flat
from metriloc.recipes.pixloc_published import PublishedPixLoc, gnnet, pixloc_cmu, pixloc_megadepth
from metriloc.recipes.published_keys import PublishedRun, Setting, applied, as_text, number
from metriloc.training import Run

_FIELDS = {
    "data.seed": "batches.seed",
    "data.min_overlap": "batches.overlap[first]",
    "data.max_overlap": "batches.overlap[last]",
    "data.min_baseline": "batches.min_baseline",
    "data.max_baseline": "batches.baseline",
    "data.sort_by_overlap": "batches.sort_by_overlap",
    "data.batch_size": "batches.batch_size",
    "data.train_batch_size": "batches.batch_size",
    "data.num_workers": "training.workers",
    "data.train_num_per_scene": "batches.per_scene",
    "data.train_num_per_slice": "batches.per_scene",
    "data.val_num_per_scene": "validation.per_scene",
    "data.val_num_per_slice": "validation.per_scene",
    "data.max_num_points3D": "batches.points",
    "data.grayscale": "batches.square.grayscale",
    "data.resize": "batches.square.resize",
    "data.resize_by": "batches.square.by",
    "data.crop": "batches.square.crop",
    "data.pad": "batches.square.pad",
    "data.optimal_crop": "batches.square.centered",
    "model.success_thresh": "method.success_threshold",
    "model.clamp_error": "method.max_error",
    "model.normalize_features": "method.normalize_features",
    "model.normalize_dt": "method.relative_translation",
    "model.optimizer.num_iters": "method.num_iters",
    "model.optimizer.pad": "method.pad",
    "model.optimizer.interpolation.pad": "method.pad",
    "model.optimizer.lambda_": "method.initial_damping",
    "model.extractor.decoder": "method.decoder",
    "model.extractor.output_scales": "method.levels",
    "model.extractor.compute_uncertainty": "method.confidences",
    "model.extractor.do_average_pooling": "method.encoder.average_pooling",
    "model.extractor.checkpointed": "method.checkpointed",
    "model.extractor.freeze_batch_normalization": "method.freeze_batch_norm",
    "model.margin_positive": "method.losses.margin_positive",
    "model.margin_negative": "method.losses.margin_negative",
    "model.ratio_radius_negative": "method.losses.window",
    "model.num_top_negative_sampling": "method.losses.top_negatives",
    "model.gauss_newton_magnitude": "method.losses.disturbance",
    "model.gauss_newton_reg_weight": "method.losses.curvature_weight",
    "model.gauss_newton_weight": "method.losses.gauss_newton_weight",
    "model.contrastive_weight": "method.losses.contrastive_weight",
    "train.seed": "training.seed",
    "train.lr": "training.optimizer.lr",
    "train.optimizer": "training.optimizer.name",
    "train.opt_regexp": "training.optimizer.train_only",
    "train.eval_every_iter": "training.epoch_steps",
    "train.log_every_iter": "training.log_every",
    "train.clip_grad": "training.clip_norm",
    "train.lr_schedule.start": "training.schedule.decay_start",
    "train.lr_schedule.exp_div_10": "training.schedule.tenfold_steps",
}
_EMPTY = {"data.min_baseline": 0, "data.max_baseline": 1e9, "train.opt_regexp": ""}
"""What a null means where it is not none."""
_OPTIMIZER = ("betas", "eps", "momentum", "weight_decay")
_NO_MEANING = re.compile(
    r"(data|model)\.name|model\.(extractor|optimizer)\.(name|trainable)|model\.(trainable|extractor\.num_downsample)"
    r"|data\.(two_view|force_num_points3D|num_threads|shuffle_training|(val|test)_batch_size|\w*split\w*|\w*slices?)"
    r"|train\.(epochs|lr_schedule|lr_schedule\.type|keep_last_checkpoints|load_experiment|median_metrics.*|best_key"
    r"|dataset_callback_fn|optimizer_options|lr_scaling)"
)


def is_pixlocs(values: Mapping[str, Any]) -> bool:
    """Whether a file has groups of PixLoc's."""
    return any(isinstance(values.get(group), Mapping) for group in ("data", "model", "train"))


def run_of_pixlocs_file(values: Mapping[str, Any], source: str, base: Run | None = None) -> PublishedRun:
    """The run that a PixLoc (or GN-Net) training file describes.

    - values: what the file holds; source: how errors call it.
    - base: run whose values stand where the file says nothing; by default the recipe of its model and data.

    Raises InputError naming the key of a value that cannot be.
    """
    found = flat(values)
    run = base or _base(found, source)
    if not isinstance(run.method, PublishedPixLoc):
        raise InputError(f"'{source}' is a file of PixLoc, and {run.name} is no published recipe of PixLoc")
    settings = [Setting(key, path, _value(key, found[key])) for key, path in _FIELDS.items() if key in found]
    if not isinstance(run.batches, CmuBatches):
        settings = [setting for setting in settings if not setting.key.endswith("_baseline")]
    for key, read in _READERS.items():
        if key in found:
            settings += read(key, found[key], source)
    settings += [
        Setting(f"train.optimizer_options.{name}", f"training.optimizer.{name}", value)
        for name in _OPTIMIZER
        if (value := found.get(f"train.optimizer_options.{name}")) is not None
    ]
    settings += _widths(found)
    # a photo is cut or filled up: what is not wanted goes first
    settings.sort(key=lambda one: (one.path.startswith("batches.square"), one.value is not None))
    run = _with_loss(applied(run, settings, source), found, source)
    run = _with_epochs(run, found, source)
    if isinstance(run.validation, (CmuValidation, MegaDepthValidation)):
        run = replace(run, validation=replace(run.validation, batches=run.batches))  # type: ignore[arg-type]
    known = {setting.key for setting in settings} | {"model.optimizer.loss_fn"}
    return PublishedRun(run, tuple(key for key in found if key not in known and not _NO_MEANING.fullmatch(key)))


def _base(found: Mapping[str, Any], source: str) -> Run:
    if str(found.get("model.name", "")).lower() == "gnnet":
        return gnnet()
    data = str(found.get("data.name", "")).lower()
    recipes: dict[str, Callable[[], Run]] = {"cmu": pixloc_cmu, "megadepth": pixloc_megadepth}
    if data not in recipes:
        raise InputError(f"'{source}': data.name must be cmu or megadepth, or a recipe be named, got {data[:60]!r}")
    return recipes[data]()


def _value(key: str, value: Any) -> Any:
    return _EMPTY.get(key) if value is None else value


def _widths(found: Mapping[str, Any]) -> list[Setting]:
    """``output_dim`` is one width, or one a level; levels and widths must change together."""
    width, levels = found.get("model.extractor.output_dim"), found.get("model.extractor.output_scales")
    if isinstance(width, int):
        width = [width] * (len(levels) if isinstance(levels, list) else 3)
    return [] if width is None else [Setting("model.extractor.output_dim", "method.channels", width)]


def _encoder(key: str, value: Any, source: str) -> list[Setting]:
    vgg = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
    name = str(value).lower()
    if name in vgg:
        return [Setting(key, "method.encoder.convs", vgg[name]), Setting(key, "method.resnet", 0)]
    if re.fullmatch(r"resnet\d+", name):
        return [Setting(key, "method.resnet", name.removeprefix("resnet"))]
    raise InputError(f"'{source}': {key} must be vgg16, vgg19 or a resnet, got {name[:60]!r}")


def _features(key: str, value: Any, source: str) -> list[Setting]:
    names = {"unet": "unet", "s2dnet": "s2dnet", "gaussiannet": "gaussian"}
    if str(value).lower() not in names:
        raise InputError(f"'{source}': {key} must be unet, s2dnet or gaussiannet, got {str(value)[:60]!r}")
    return [Setting(key, "method.features", names[str(value).lower()])]


def _start(key: str, value: Any, source: str) -> list[Setting]:
    if isinstance(value, list):
        return [Setting(key, "batches.start.kind", "share"), Setting(key, "batches.start.share", value)]
    if value not in ("identity", "max_error"):
        raise InputError(f"'{source}': {key} must be identity, max_error or two shares, got {str(value)[:60]!r}")
    return [Setting(key, "batches.start.kind", "error" if value == "max_error" else "identity")]


def _scaling(key: str, value: Any, source: str) -> list[Setting]:
    """``[[100, [part of a name, ...]], ...]``."""
    try:
        pairs = [f'["{part}",{float(factor)}]' for factor, parts in value for part in parts]
    except (TypeError, ValueError):
        raise InputError(f"'{source}': {key} must be pairs of a factor and a list of names") from None
    return [Setting(key, "training.optimizer.lr_scaling", f"[{','.join(pairs)}]")]


_READERS: Mapping[str, Callable[[str, Any, str], list[Setting]]] = {
    "model.extractor.encoder": _encoder,
    "model.extractor.name": _features,
    "model.extractor.decoder_norm": lambda key, value, _: [Setting(key, "method.batch_norm", value is not None)],
    "model.duplicate_optimizer_per_scale": lambda key, value, _: [Setting(key, "method.shared_damping", not value)],
    "model.windowed_negative_sampling": lambda key, value, _: (
        [] if value else [Setting(key, "method.losses.window", None)]
    ),
    "data.init_pose": _start,
    "train.lr_scaling": _scaling,
    "train.lr_schedule.type": lambda key, value, _: [
        Setting(key, "training.schedule.decay", "exponential" if value == "exp" else as_text(value or "constant"))
    ],
}


def _with_loss(run: Run, found: Mapping[str, Any], source: str) -> Run:
    text = found.get("model.optimizer.loss_fn")
    if text is None or not isinstance(run.method, PublishedPixLoc):
        return run
    try:
        return replace(run, method=replace(run.method, loss=parse_loss(str(text))))
    except ValueError as error:
        raise InputError(f"'{source}': model.optimizer.loss_fn: {error}") from error


def _with_epochs(run: Run, found: Mapping[str, Any], source: str) -> Run:
    """``epochs`` over all scenes as steps; the published files name more of them than anybody trains."""
    if "train.epochs" not in found:
        return run
    scenes = TRAIN_SLICES if isinstance(run.batches, CmuBatches) else TRAIN_SCENES
    epoch = len(scenes) * run.batches.per_scene // run.batches.batch_size  # type: ignore[attr-defined]
    steps = max(1, round(number(found, "train.epochs", source, 1) * epoch))
    return replace(run, training=replace(run.training, steps=steps))
