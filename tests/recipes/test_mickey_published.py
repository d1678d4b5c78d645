"""MicKey's published trainings: every value against the table of the paper and of the released files; a tiny run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metriloc import recipes
from metriloc.backbones import DINOV2, DinoV2, DinoV2Config
from metriloc.cli.main import main
from metriloc.cli.train import find_recipe
from metriloc.datasets.mapfree import read_mapfree_scene
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.lessons.mapfree import MapfreeBatches, MapfreeValidation
from metriloc.methods.mickey import MicKey, MicKeyNetwork, MicKeyTraining, PairBatch
from metriloc.methods.mickey.objective import ObjectiveConfig, Truth, keypoint_rewards
from metriloc.recipes.mickey_published import PublishedMicKey
from metriloc.training import Run, override, settable_fields
from metriloc.training.checkpoint import load_checkpoint

SIZE = (126, 168)
"""Width and height of the photos of ``mapfree_like``."""


# -- published values -------------------------------------------------------------------------------------------------
# spec mickey: 5 and 12 (values of both), 6 (paper against code: rows 1, 2, 6, 7, 8, 15, 16, 18, 19), 7.4, 8; paper
# Sec. 4 and Appendix B
BOTH = {
    "method.backbone": "dinov2_vitl14",
    "method.network.train_backbone": False,
    "method.network.precision": "auto",
    "method.network.match_temperature": 0.1,
    "method.network.blocks": (512, 256, 128, 64),
    "method.network.descriptor_dim": 128,
    "method.objective.solver.num_sets": 20,
    "method.objective.solver.num_hypotheses": 20,
    "method.objective.solver.max_refinements": 4,
    "method.objective.solver.inlier_threshold": 0.15,
    "method.objective.score_temperature": 20.0,
    "method.objective.loss.kind": "vcre",
    "batches.per_scene": 100,
    "training.optimizer.name": "adam",
    "training.optimizer.lr": 1e-4,
    "training.optimizer.betas": (0.9, 0.999),
    "training.optimizer.eps": 1e-6,
    "training.optimizer.weight_decay": 0.0,
    "training.clip_norm": 5.0,
    "training.schedule.decay": "constant",
    "training.schedule.warmup_steps": 0,
    "training.workers": 8,
    "training.log_every": 50,
    "training.best_metric": "vcre_auc",
    "training.also_best": (("pose_auc", "largest"), ("loss", "smallest")),
    "validation.seed": 66,
}
PAPER = {
    "batches.batch_size": 48,
    "batches.size": (540, 720),
    "method.objective.solver.set_size": 512,
    "method.objective.solver.minimal_size": 5,
    "method.objective.solver.soft_inlier_threshold": 0.15,
    "method.objective.null_hypothesis": True,
    "method.objective.null_score": 0.3,
    "training.epoch_steps": 479,
    "training.steps": 95_800,
}
RELEASED = {
    "batches.batch_size": 32,
    "batches.size": (540, 720),
    "method.objective.solver.set_size": 512,
    "method.objective.solver.minimal_size": 8,
    "method.objective.solver.soft_inlier_threshold": 0.3,
    "method.objective.null_hypothesis": True,
    "method.objective.null_score": 0.35,
    "training.epoch_steps": 718,
    "training.steps": 143_700,
}
WARM_UP = {
    "batches.batch_size": 96,
    "batches.size": (360, 480),
    "validation.size": (360, 480),
    "method.objective.solver.set_size": 64,
    "method.objective.solver.minimal_size": 8,
    "method.objective.solver.soft_inlier_threshold": 0.3,
    "method.objective.null_hypothesis": False,
}
POSES_ALONE = {"batches.overlap": (0.0, 1.0), "batches.listed": True, "batches.uniform": 2000}
OVERLAP = {"batches.overlap": (0.4, 0.8), "batches.uniform": None}


@pytest.mark.parametrize(
    "name, values",
    [
        ("mickey_curriculum", {**BOTH, **PAPER, **POSES_ALONE}),
        ("mickey_overlap", {**BOTH, **PAPER, **OVERLAP}),
        ("curriculum_learning", {**BOTH, **RELEASED, **POSES_ALONE}),
        ("overlap_score", {**BOTH, **RELEASED, **OVERLAP}),
        ("mickey_curriculum_warm_up", {**BOTH, **WARM_UP, **POSES_ALONE}),
        ("mickey_overlap_warm_up", {**BOTH, **WARM_UP, **OVERLAP}),
    ],
)
def test_every_published_value(name: str, values: dict[str, Any]) -> None:
    run = getattr(recipes, name)()
    found = dict(settable_fields(run))
    assert {path: found[path] for path in values} == values
    # Kori: the loss is measured in pixels of the photos before they are reduced
    assert found["batches.original_size"] == found["validation.original_size"] == (540, 720)
    assert not hasattr(run.method, "supervision"), "poses alone"


def test_the_curriculum_grows_as_published() -> None:
    paper = recipes.mickey_curriculum().method.curriculum  # type: ignore[attr-defined]
    grown = [paper.percent(step) for step in (0, 3999, 4000, 8000, 12_000, 16_000, 19_999, 20_000, 95_000)]
    assert grown == [30, 30, 40, 50, 60, 70, 70, 80, 80]  # the warm-up ends after 20k steps
    released = recipes.curriculum_learning().method.curriculum  # type: ignore[attr-defined]
    epoch = 460 * 100 // 32
    assert [released.percent(epoch * n) for n in (0, 1, 2, 9, 10, 11)] == [30, 35, 40, 75, 80, 80]
    assert recipes.mickey_curriculum_warm_up().method.curriculum.percent(479) == 35  # type: ignore[attr-defined]
    for name in ("mickey_overlap", "overlap_score", "mickey_overlap_warm_up"):
        assert getattr(recipes, name)().method.curriculum.percent(0) == 100


def test_the_null_hypothesis_is_120_px_in_the_paper_and_88_in_the_code() -> None:
    worst = {
        name: getattr(recipes, name)().method.objective.loss.worst for name in ("mickey_curriculum", "overlap_score")
    }
    pixels = {name: 80 * float(np.arctanh(value)) for name, value in worst.items()}
    assert pixels["mickey_curriculum"] == pytest.approx(120) and worst["overlap_score"] == 0.8
    assert pixels["overlap_score"] == pytest.approx(87.9, abs=0.05)


def test_the_formulas_of_the_paper_can_be_had() -> None:
    fields = ("score_temperature=1", "loss.soft_clip=false", "loss.vcre_form=paper", "loss.clip_px=none")
    more = ("loss.max_loss=120", "refinement_set=last", "reinforce=mean")
    run = override(recipes.mickey_curriculum(), [f"method.objective.{field}" for field in (*fields, *more)])
    assert run.method.objective.loss.worst == 120  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", ["curriculum_learning", "config/MicKey/overlap_score.yaml", "overlap_score_warm_up"])
def test_published_names_are_recipes(given: str) -> None:
    assert isinstance(find_recipe(given)(), Run)


# -- the backbone -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(DINOV2))
def test_one_option_chooses_the_backbone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = override(recipes.mickey_curriculum(), [f"method.backbone={name}", "method.backbone_weights=random"])
    with torch.device("meta"):
        method = run.method()
    assert isinstance(method, MicKeyTraining)
    assert method.network.config.backbone == DINOV2[name]
    assert not any(p.requires_grad for p in method.network.backbone.parameters())
    assert method.curriculum is not None and method.supervision is None


def test_the_backbone_comes_from_a_file(tmp_path: Path) -> None:
    tiny = DinoV2Config(embed_dim=16, depth=1, num_heads=2, image_size=56, registers=2)
    weights = DinoV2(tiny).state_dict()
    torch.save(weights, tmp_path / "tiny.pth")
    method = PublishedMicKey("network", str(tmp_path / "tiny.pth"))
    small = replace(method.network, blocks=(8, 8, 8, 8), descriptor_dim=8, backbone=tiny)
    network = replace(method, network=small)().network
    assert isinstance(network, MicKeyNetwork)
    assert all(torch.equal(value, weights[key]) for key, value in network.backbone.state_dict().items())
    assert not any(p.requires_grad for p in network.backbone.parameters())
    with pytest.raises(InputError, match=r"tiny.pth' holds another backbone"):
        replace(method, network=replace(small, backbone=replace(tiny, depth=2)))()
    with pytest.raises(InputError, match=r"method.backbone_weights=FILE \(dinov2_vitl14_pretrain.pth"):
        PublishedMicKey()()


# -- data -------------------------------------------------------------------------------------------------------------
def test_pairs_are_listed_or_drawn_from_poses(mapfree_like: Path) -> None:
    data = mapfree_like
    how = MapfreeBatches(batch_size=4, per_scene=6, size=SIZE, uniform=10)
    assert how(data).dataset.lengths == (8, 10)
    assert replace(how, listed=False)(data).dataset.lengths == (10, 10)
    assert replace(how, overlap=(0.6, 0.8))(data).dataset.lengths == (0, 10)
    with pytest.raises(InputError, match=r"s00001.overlaps.npz' does not exist"):
        replace(how, uniform=None)(data)
    batch = how(data).batch(3)
    assert isinstance(batch, PairBatch) and batch.depth0 is None and batch.depth1 is None
    assert batch.original0 is not None and batch.original0.size.tolist() == [[540, 720]] * 4
    halves = [how(data).batch(3, part, 2) for part in range(2)]
    assert torch.equal(batch.image0, torch.cat([half.image0 for half in halves]))


def test_colors_change_when_they_are_asked_to(mapfree_like: Path) -> None:
    how = MapfreeBatches(batch_size=4, per_scene=6, size=SIZE, uniform=10)
    run = override(replace(recipes.curriculum_learning(), batches=how), ["batches.photometric.gray=1"])
    plain, gray = how(mapfree_like).batch(3), run.batches(mapfree_like).batch(3)
    assert torch.equal(plain.camera0.f, gray.camera0.f) and not torch.equal(plain.image0, gray.image0)
    assert float((gray.image0 - gray.image0.mean(1, keepdim=True)).abs().max()) < 1e-6


def test_validation_looks_at_the_published_draw(mapfree_like: Path) -> None:
    data = mapfree_like
    validator = MapfreeValidation(pairs=5, per_scene=8, size=SIZE)(data)
    order = torch.randint(0, 3, (8,), generator=(generator := torch.Generator().manual_seed(66)))
    order = order[torch.randperm(8, generator=generator)][:5]
    frames = read_mapfree_scene(data / "val/s00460").evaluation_pairs()
    expected = [f"s00460/{frames[i].frame1.name}" for i in order.tolist()]
    assert [pair.view1.name for pair in validator.pairs] == expected  # type: ignore[attr-defined]
    for part in (MapfreeBatches(), MapfreeValidation()):
        with pytest.raises(InputError, match=r"--data DIR with the scenes in DIR/train and DIR/val"):
            part(None)
    with pytest.raises(InputError, match=r"has no val/"):
        MapfreeValidation()(data / "train")


# -- a tiny run -------------------------------------------------------------------------------------------------------
TINY = (
    *("method.backbone=network", "method.backbone_weights=random", "method.network.backbone.embed_dim=16"),
    *(
        "method.network.backbone.depth=2",
        "method.network.backbone.num_heads=2",
        "method.network.backbone.image_size=56",
    ),
    *("method.network.blocks=16,16,16,16", "method.network.descriptor_dim=16", "method.network.border=1"),
    *("method.objective.solver.num_sets=3", "method.objective.solver.num_hypotheses=4"),
    *("method.objective.solver.set_size=64", "batches.batch_size=4", "batches.per_scene=6", "batches.uniform=10"),
    *(f"batches.size={SIZE[0]},{SIZE[1]}", f"validation.size={SIZE[0]},{SIZE[1]}", "validation.pairs=3"),
    *("validation.per_scene=3", "validation.pictures=1", "training.steps=6", "training.epoch_steps=3"),
    *("training.workers=0", "training.device=cpu", "training.log_every=1"),
)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def kill_after(steps: int, arguments: list[str], out: Path) -> None:
    """Run in a process of its own, and SIGKILL it when so many steps are saved."""
    code = "from metriloc.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})
    index = out / "checkpoints" / "last" / "checkpoint.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if json.loads(index.read_text())["step"] >= steps:
                break
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL, "it was killed, it did not end"


@pytest.mark.slow
def test_a_tiny_run_is_killed_resumed_evaluated_and_exported(tmp_path: Path, mapfree_like: Path) -> None:
    data = mapfree_like
    start = ["train", "mickey_curriculum", "--data", str(data), "--set", *TINY, "training.checkpoint_minutes=1e-9"]
    assert command(*start, "--out", str(tmp_path / "whole")) == 0
    kill_after(2, [*start, "training.steps=4000", "--out", str(tmp_path / "parts")], tmp_path / "parts")
    killed = load_checkpoint_step(tmp_path / "parts")
    end = f"training.steps={max(6, killed)}"
    assert command(*start, end, "--out", str(tmp_path / "parts"), "--resume") == 0
    assert command(*start, end, "--out", str(tmp_path / "whole"), "--resume") == 0
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoints/last") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts.tensors[key]) for key, value in whole.tensors.items())
    assert str(whole.optimizer) == str(parts.optimizer)

    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert {"loss_pose", "rotation_error_deg", "null_weight", "percent"} <= set(trained[0])
    assert not any("depth" in name for name in trained[0]), "poses alone"
    page = (tmp_path / "whole/validation/step_00000003.html").read_text()
    for what in ("inliers", "matches", "scores", "depth", "reward"):
        assert f"{what} s00460/seq0/frame_00000.jpg" in page
    for name in ("weights", "weights_pose_auc", "weights_loss"):
        assert MicKey.from_pretrained(tmp_path / "whole" / name).network.config.blocks == (16,) * 4
    arguments = ("--weights", str(tmp_path / "whole/weights"), "--data", str(data), "--split", "val", "--draws", "10")
    assert command("eval", "mickey", "mapfree", *arguments, "--out", str(tmp_path / "eval")) == 0
    assert (tmp_path / "eval/submission.zip").is_file()


def load_checkpoint_step(out: Path) -> int:
    return load_checkpoint(out / "checkpoints" / "last").progress.step


def tiny_training() -> MicKeyTraining:
    """A network of a few thousand weights."""
    fields = [field for field in TINY if field.startswith("method.")]
    torch.manual_seed(0)
    method = override(recipes.mickey_curriculum(), fields).method()
    assert isinstance(method, MicKeyTraining)
    return method


def test_validation_has_loss_aucs_and_the_pictures_of_training(mapfree_like: Path) -> None:
    data = mapfree_like
    validator = MapfreeValidation(pairs=2, per_scene=2, size=SIZE, pictures=1)(data)
    method = tiny_training()
    with torch.no_grad():
        found = validator(method)
        again = validator(method)
    assert str(found.metrics) == str(again.metrics)  # as text, because a median may be NaN
    assert {"loss", "vcre_auc", "pose_auc", "vcre_precision", "pose_precision"} <= set(found.metrics)
    assert 0 < found.metrics["loss"] <= 1 and not any("depth" in name for name in found.metrics)
    titles = [picture.title.split()[0] for picture in found.pictures]
    assert titles == ["inliers", "matches", "scores", "depth", "reward"]


def test_rewards_go_to_the_keypoints_of_sets_that_did_better() -> None:
    method = tiny_training()
    data = [torch.rand(1, 3, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(k)) for k in range(2)]
    camera = Camera.stack([Camera.from_K(torch.tensor([[140.0, 0, 62], [0, 140, 83], [0, 0, 1]]), SIZE)])
    method.eval()
    with torch.no_grad():
        sides = [method.network.detect(image, camera) for image in data]
    truth = Truth(Pose.identity((1,)), camera, camera)
    found = method.judge((sides[0], sides[1]), (camera, camera), truth)
    counts = sides[0].score.shape[1], sides[1].score.shape[1]
    first, second = keypoint_rewards(found, counts, method.config)
    naive = torch.zeros(counts[0])
    loss, draws = found.set_loss[0], found.draws
    for q in range(len(loss)):
        for s in range(draws.index0.shape[2]):
            if draws.present[0, q, s]:
                naive[draws.index0[0, q, s]] -= (loss[q] - loss.mean()) / len(loss)
    torch.testing.assert_close(first[0], naive, atol=1e-6, rtol=1e-4)
    # every set is drawn with as many matches, so what is given is taken away elsewhere
    assert abs(float(first.sum())) < 1e-4 and abs(float(second.sum())) < 1e-4
    assert ObjectiveConfig().baseline
