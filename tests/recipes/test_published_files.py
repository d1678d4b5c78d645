"""Training files of MicKey and PixLoc: every key that has a counterpart arrives, the rest is told, nonsense is named."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metriloc import recipes
from metriloc.backbones.vgg import VGGConfig
from metriloc.cli.main import main
from metriloc.io import InputError
from metriloc.methods.pixloc import RobustCost
from metriloc.recipes.mickey_file import run_of_mickeys_file
from metriloc.recipes.pixloc_file import run_of_pixlocs_file
from metriloc.recipes.published_files import merged, run_of_files
from metriloc.training import Run, settable_fields

# the published values, under the keys that the specification of this project names
MICKEY: Mapping[str, Any] = {
    "MODEL": "MicKey",
    "DEBUG": False,
    "MICKEY": {"DINOV2": {"DOWN_FACTOR": 14, "CHANNEL_DIM": 1024, "FLOAT16": True}, "DSC_HEAD": {"LAST_DIM": 128}},
    "LOSS_CLASS": {
        "LOSS_FUNCTION": "VCRE",
        "VCRE": {"MAX_LOSS": 0.8, "SOFT_CLIPPING": True},
        "POSE_ERR": {"MAX_LOSS": 1.5, "SOFT_CLIPPING": False},
        "NULL_HYPOTHESIS": {"ADD_NULL_HYPOTHESIS": True, "TH_OUTLIERS": 0.35},
        "CURRICULUM_LEARNING": {"TRAIN_CURRICULUM": True, "TRAIN_WITH_TOPK": True, "TOPK_INIT": 30, "TOPK": 80},
        "SAMPLER": {"IT_MATCHES": 20, "IT_RANSAC": 20, "NUM_SAMPLED_MATCHES": 512, "NUM_CORR_3D_3D": 8},
        "NUM_REF_STEPS": 4,
        "INLIER_REF_TH": 0.15,
        "INLIER_3D_TH": 0.3,
        "SCORE_TEMPERATURE": 20,
    },
    "TRAINING": {
        "NUM_GPUS": 4,
        "BATCH_SIZE": 8,
        "LR": "1e-4",
        "LOG_INTERVAL": 50,
        "VAL_INTERVAL": 0.5,
        "VAL_BATCHES": 100,
        "LR_STEP_INTERVAL": None,
        "SAMPLER": {"N_SAMPLES_SCENE": 100, "SAMPLE_WITH_REPLACEMENT": True},
    },
    "DATASET": {"HEIGHT": 720, "WIDTH": 540, "DATA_ROOT": "data/", "MIN_OVERLAP_SCORE": 0.0, "MAX_OVERLAP_SCORE": 1.0},
}
CMU: Mapping[str, Any] = {
    "data": {
        "name": "cmu",
        "max_num_points3D": 512,
        "force_num_points3D": True,
        "resize": 720,
        "resize_by": "min",
        "crop": 720,
        "optimal_crop": False,
        "min_overlap": 0.3,
        "max_overlap": 1.0,
        "min_baseline": None,
        "max_baseline": 7.0,
        "batch_size": 3,
        "num_workers": 6,
        "seed": 1,
        "init_pose": "identity",
        "grayscale": False,
        "sort_by_overlap": False,
    },
    "model": {
        "name": "two_view_refiner",
        "success_thresh": 3,
        "clamp_error": 50,
        "normalize_features": True,
        "normalize_dt": False,
        "duplicate_optimizer_per_scale": True,
        "extractor": {
            "name": "unet",
            "encoder": "vgg16",
            "decoder": [64, 64, 64, 32],
            "output_scales": [0, 2, 4],
            "output_dim": [32, 128, 128],
            "compute_uncertainty": True,
            "checkpointed": True,
        },
        "optimizer": {"name": "learned_optimizer", "num_iters": 15, "pad": 3, "loss_fn": "scaled_barron(0, .1)"},
    },
    "train": {
        "seed": 0,
        "lr": 1e-5,
        "lr_scaling": [[100, ["dampingnet.const"]]],
        "eval_every_iter": 500,
        "log_every_iter": 50,
        "clip_grad": 1.0,
        "keep_last_checkpoints": 10,
        "median_metrics": ["loss/total"],
    },
}


def changed(values: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    found = copy.deepcopy(dict(values))
    *groups, last = path.split(".")
    inner: Any = found
    for group in groups:
        inner = inner.setdefault(group, {})
    inner[last] = value
    return found


def fields(run: Run) -> dict[str, Any]:
    return dict(settable_fields(run))


def test_the_released_values_of_mickey_are_its_recipe() -> None:
    found = run_of_mickeys_file(MICKEY, "c.yaml")
    # the loss of the null hypothesis stands in the file; the recipe leaves it to the loss, which says the same
    assert recipes.curriculum_learning().method.objective.loss.worst == 0.8  # type: ignore[attr-defined]
    expected = fields(recipes.curriculum_learning()) | {"method.objective.loss.max_loss": 0.8}
    assert found.unread == () and fields(found.run) == expected


def test_a_warm_up_with_overlaps_is_its_recipe() -> None:
    values: Any = MICKEY
    for path, value in (
        ("LOSS_CLASS.SAMPLER.NUM_SAMPLED_MATCHES", 64),
        ("LOSS_CLASS.NULL_HYPOTHESIS.ADD_NULL_HYPOTHESIS", False),
        ("LOSS_CLASS.CURRICULUM_LEARNING.TRAIN_CURRICULUM", False),
        ("LOSS_CLASS.CURRICULUM_LEARNING.TRAIN_WITH_TOPK", False),
        ("TRAINING.BATCH_SIZE", 24),
        ("TRAINING.VAL_BATCHES", 100 / 3),
        ("DATASET.HEIGHT", 480),
        ("DATASET.WIDTH", 360),
        ("DATASET.MIN_OVERLAP_SCORE", 0.4),
        ("DATASET.MAX_OVERLAP_SCORE", 0.8),
    ):
        values = changed(values, path, value)
    expected = recipes.mickey_overlap_warm_up()
    found = run_of_mickeys_file(values, "c.yaml")
    differing = {"name": "curriculum_learning", "method.objective.loss.max_loss": 0.8}
    assert found.unread == () and fields(found.run) == fields(expected) | differing


@pytest.mark.parametrize(
    ("path", "value", "field", "wanted"),
    [
        ("TRAINING.LR", "3e-5", "training.optimizer.lr", 3e-5),
        ("TRAINING.NUM_GPUS", 2, "batches.batch_size", 16),
        ("TRAINING.VAL_INTERVAL", 1.0, "training.epoch_steps", 1437),
        ("LOSS_CLASS.LOSS_FUNCTION", "POSE_ERR", "method.objective.loss.kind", "pose"),
        ("LOSS_CLASS.LOSS_FUNCTION", "POSE_ERR", "method.objective.loss.max_loss", 1.5),
        ("LOSS_CLASS.LOSS_FUNCTION", "POSE_ERR", "method.objective.loss.soft_clip", False),
        ("LOSS_CLASS.SCORE_TEMPERATURE", 10, "method.objective.score_temperature", 10.0),
        ("LOSS_CLASS.CURRICULUM_LEARNING.TOPK_INIT", 40, "method.curriculum.start", 40),
        ("LOSS_CLASS.CURRICULUM_LEARNING.TRAIN_CURRICULUM", False, "method.curriculum.start", 80),
        ("MICKEY.DINOV2.CHANNEL_DIM", 384, "method.backbone", "dinov2_vits14"),
        ("MICKEY.KP_HEADS", {"MAX_DEPTH": 30, "USE_DEPTHSIGMOID": True}, "method.network.max_depth", 30.0),
        ("PROCRUSTES.IT_RANSAC", 50, "method.solver.num_hypotheses", 50),
        ("DATASET.SEED", 5, "batches.seed", 5),
        ("DATASET.AUGMENTATION_TYPE", "colorjitter", "batches.photometric.brightness", 0.25),
        ("DATASET.AUGMENTATION_TYPE", None, "batches.photometric.brightness", 0),
        ("DATASET.GRAYSCALE", True, "batches.photometric.gray", 1.0),
        ("DATASET.MIN_OVERLAP_SCORE", 0.4, "batches.uniform", None),
    ],
)
def test_keys_of_mickey_arrive(path: str, value: Any, field: str, wanted: Any) -> None:
    assert fields(run_of_mickeys_file(changed(MICKEY, path, value), "c.yaml").run)[field] == wanted


def test_steps_of_the_learning_rate() -> None:
    values = changed(changed(MICKEY, "TRAINING.LR_STEP_INTERVAL", 5000), "TRAINING.LR_STEP_GAMMA", 0.3)
    schedule = run_of_mickeys_file(values, "c.yaml").run.training.schedule
    assert (schedule.decay, schedule.step_every, schedule.step_factor) == ("steps", 5000, 0.3)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("TRAINING.LR", "fast", "TRAINING.LR: training.optimizer.lr must be a number"),
        ("TRAINING.LR", -1, "optimizer.lr must be positive"),
        ("TRAINING.BATCH_SIZE", True, "TRAINING.BATCH_SIZE must be a positive number, got 'True'"),
        ("TRAINING.SAMPLER.SAMPLE_WITH_REPLACEMENT", False, "draw pairs with replacement"),
        ("MODEL", "RPR", "for MODEL 'RPR', not MicKey"),
        ("MICKEY.DINOV2.CHANNEL_DIM", 500, "no published DINOv2"),
        ("LOSS_CLASS.CURRICULUM_LEARNING.TOPK", "all", "TOPK must be a positive number"),
    ],
)
def test_wrong_values_of_mickey_are_named(path: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        run_of_mickeys_file(changed(MICKEY, path, value), "c.yaml")
    assert "c.yaml" in str(error.value)


def test_unknown_keys_are_told() -> None:
    assert run_of_mickeys_file(changed(MICKEY, "TRAINING.WARP", 9), "c.yaml").unread == ("TRAINING.WARP",)
    assert run_of_pixlocs_file(changed(CMU, "model.extractor.depth", 9), "c.yaml").unread == ("model.extractor.depth",)


def test_the_published_values_of_pixloc_are_its_recipe() -> None:
    found = run_of_pixlocs_file(CMU, "c.yaml")
    assert found.unread == () and fields(found.run) == fields(recipes.pixloc_cmu())


@pytest.mark.parametrize(
    ("path", "value", "field", "wanted"),
    [
        ("model.extractor.encoder", "resnet50", "method.resnet", 50),
        ("model.extractor.encoder", "vgg19", "method.encoder.convs", (2, 2, 4, 4, 4)),
        ("model.extractor.output_dim", 64, "method.channels", (64, 64, 64)),
        ("model.extractor.decoder_norm", None, "method.batch_norm", False),
        ("model.extractor.name", "s2dnet", "method.features", "s2dnet"),
        ("model.duplicate_optimizer_per_scale", False, "method.shared_damping", True),
        ("model.success_thresh", 2, "method.success_threshold", 2.0),
        ("model.clamp_error", 20, "method.max_error", 20.0),
        ("data.min_baseline", 0.5, "batches.min_baseline", 0.5),
        ("data.max_baseline", None, "batches.baseline", 1e9),
        ("data.sort_by_overlap", True, "batches.sort_by_overlap", True),
        ("data.grayscale", True, "validation.batches.square.grayscale", True),
        ("data.init_pose", [0.75, 1.0], "batches.start.share", (0.75, 1.0)),
        ("data.init_pose", "max_error", "batches.start.kind", "error"),
        ("train.epochs", 2, "training.steps", 6000),
        ("train.optimizer", "sgd", "training.optimizer.name", "sgd"),
        ("train.optimizer_options", {"momentum": 0.5}, "training.optimizer.momentum", 0.5),
        ("train.lr_schedule", {"type": "exp", "exp_div_10": 9000}, "training.schedule.decay", "exponential"),
        ("train.lr_schedule", {"type": None}, "training.schedule.decay", "constant"),
        ("train.lr_scaling", [[10, ["a", "b"]]], "training.optimizer.lr_scaling", (("a", 10.0), ("b", 10.0))),
    ],
)
def test_keys_of_pixloc_arrive(path: str, value: Any, field: str, wanted: Any) -> None:
    assert fields(run_of_pixlocs_file(changed(CMU, path, value), "c.yaml").run)[field] == wanted


def test_photos_are_filled_up_instead_of_cut() -> None:
    square = run_of_pixlocs_file(
        changed(changed(CMU, "data.crop", None), "data.pad", 1024), "c.yaml"
    ).run.batches.square  # type: ignore[attr-defined]
    assert (square.crop, square.pad) == (None, 1024)


def test_gnnet_and_a_loss() -> None:
    values = changed(changed(CMU, "model.name", "gnnet"), "model.gauss_newton_weight", 0.3)
    run = run_of_pixlocs_file(changed(values, "model.optimizer.loss_fn", "huber_loss"), "c.yaml").run
    assert run.method.gnnet and run.method.losses.gauss_newton_weight == 0.3  # type: ignore[attr-defined]
    assert run.method.loss == RobustCost("huber", scale=1.0)  # type: ignore[attr-defined]
    small = replace(run.method, vgg_weights="random", encoder=VGGConfig((1,) * 5, (8,) * 5))  # type: ignore[type-var]
    assert small().model.config.gauss_newton_weight == 0.3 and small().two_view.align.num_iters == 15


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("data.name", "aachen", "data.name must be cmu or megadepth"),
        ("model.extractor.encoder", "vit", "must be vgg16, vgg19 or a resnet"),
        ("model.extractor.name", "vit", "must be unet, s2dnet or gaussiannet"),
        ("data.init_pose", "guess", "must be identity, max_error or two shares"),
        ("train.lr_scaling", 7, "pairs of a factor and a list of names"),
        ("train.optimizer", "rmsprop", "must be one of adam, adamw, sgd"),
        ("model.optimizer.loss_fn", "exec()", "is not known"),
        ("train.epochs", -2, "train.epochs must be a positive number"),
        ("data.resize_by", 3, "must be one of min, max, min_if"),
    ],
)
def test_wrong_values_of_pixloc_are_named(path: str, value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        run_of_pixlocs_file(changed(CMU, path, value), "c.yaml")
    assert "c.yaml" in str(error.value)


def test_files_lie_over_one_another_and_over_a_recipe(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(dict(MICKEY)))
    second.write_text("DATASET: {SEED: 3}\nTRAINING: {BATCH_SIZE: 4}\n")
    run = run_of_files([first, second]).run
    assert run.name == "first"
    assert (run.batches.seed, run.batches.batch_size, run.batches.size) == (3, 16, (540, 720))  # type: ignore[attr-defined]
    second.write_text("TRAINING: {LR: 1}\n")
    assert run_of_files([second], recipes.mickey_curriculum).run.method == recipes.mickey_curriculum().method
    with pytest.raises(InputError, match="is a file of MicKey, and toy is no recipe of MicKey"):
        run_of_files([second], recipes.toy)
    second.write_text("a: 1\n")
    with pytest.raises(InputError, match="no training file of MicKey"):
        run_of_files([second])
    assert merged({"a": {"b": 1}}, {"a": {"c": 2}, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_the_command_reads_a_file_and_tells_what_it_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = pytest.importorskip("yaml")
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(changed(changed(CMU, "train.lr", 3e-4), "train.colour", "red")))
    for words in (
        ["train", str(file)],
        ["train", "pixloc_cmu", "--config", str(file)],
        ["train", "--config", str(file)],
    ):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--show", "--set", "training.seed=7"])
        assert stop.value.code in (0, None)
        told = capsys.readouterr()
        assert "training.optimizer.lr=0.0003" in told.out and "training.seed=7" in told.out
        assert "train.colour" in told.err


def test_numbers_that_are_no_numbers_and_batches_that_are_no_batches() -> None:
    with pytest.raises(InputError, match=r"MIN_OVERLAP_SCORE: .*must be a number"):
        run_of_mickeys_file(changed(MICKEY, "DATASET.MIN_OVERLAP_SCORE", "-inf 0.4"), "c.yaml")
    tiny = run_of_mickeys_file(changed(MICKEY, "TRAINING.BATCH_SIZE", 0.1), "c.yaml").run
    huge = run_of_mickeys_file(changed(MICKEY, "TRAINING.BATCH_SIZE", 1e6), "c.yaml").run
    assert (tiny.batches.batch_size, huge.training.steps) == (1, 100)  # type: ignore[attr-defined]


def test_all_trainings_are_of_their_own_name() -> None:
    for make in (recipes.metric_depth_clean, recipes.mickey_overlap, recipes.mickey_small, recipes.overlap_score):
        assert make().name == make.__name__
