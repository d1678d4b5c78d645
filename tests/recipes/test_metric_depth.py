"""The recipe of the depth network on tiny made-up sets: shares, batches, a run that is stopped, and its validation."""

from __future__ import annotations

import importlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets.depth_photos import DepthAugment
from metriloc.io import InputError
from metriloc.lessons.depth_photos import DepthBatches, HeldOutPhotos, MixedPhotos, training_photos
from metriloc.methods.matching import DepthBatch, DepthConfig, DepthTraining
from metriloc.recipes.metric_depth import DepthMethod, metric_depth
from metriloc.training import Run, override, train
from metriloc.training.checkpoint import load_checkpoint
from metriloc.types import StepOutput

recipe = importlib.import_module("metriloc.recipes.metric_depth")  # the package has a function of that name
photos = importlib.import_module("metriloc.lessons.depth_photos")
TINY = DepthConfig(side=64, width=8, attention=1)


@pytest.fixture()
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A room of six photos 2 m away, and three facades of which one is held out; batches of 64 x 64 pixels."""
    monkeypatch.setattr(photos, "_HELD_OUT", {"facades": 1})
    monkeypatch.setattr(photos, "_SHAPES", ((64, 64), (96, 64)))
    root = tmp_path / "data"
    names = [f"seq0/frame_{i:05d}" for i in range(6)]
    (root / "fr1_rpy/seq0").mkdir(parents=True)
    (root / "fr1_rpy/poses.txt").write_text("".join(f"{n}.jpg 1 0 0 0 {-0.3 * i} 0 0\n" for i, n in enumerate(names)))
    (root / "fr1_rpy/intrinsics.txt").write_text("".join(f"{n}.jpg 80 80 47.5 31.5 96 64\n" for n in names))
    for name in names:
        Image.new("RGB", (96, 64), "teal").save(root / "fr1_rpy" / f"{name}.jpg")
        Image.fromarray(np.full((32, 48), 2000, np.uint16)).save(root / "fr1_rpy" / f"{name}.depth.png")
    (root / "facades/rgb").mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (96, 96), "tan").save(root / f"facades/rgb/{name}.jpg")
    (root / "facades/boxes.txt").write_text("".join(f"{name} 5 48 48 90 40\n" for name in "abc"))
    return root


def batches_of(data: Path, **fields: object) -> MixedPhotos:
    return DepthBatches(batch_size=4, **fields)(data)  # type: ignore[arg-type]


def test_sets_are_read_once_and_drawn_by_their_shares(data: Path) -> None:
    source = batches_of(data)
    assert dict(source.lengths) == {"facades": 2, "fr1_rpy": 3}  # every second photo of a film
    weak = torch.cat([source.batch(step).weak for step in range(60)])
    assert float(weak.float().mean()) == pytest.approx(0.2 / 0.25, abs=0.1)
    clean = torch.cat([batches_of(data, clean=True).batch(step).weak for step in range(60)])
    assert float(clean.float().mean()) == pytest.approx(0.3 / 0.4, abs=0.1)


def test_batches_repeat_and_can_be_cut(data: Path) -> None:
    source = batches_of(data)
    one, two = source.batch(3), source.batch(3)
    assert torch.equal(one.image, two.image)
    torch.testing.assert_close(one.target, two.target, rtol=0, atol=0, equal_nan=True)
    assert one.image.shape == (4, 3, 64, 96) and one.target.shape == (4, 8, 12)
    halves = [source.batch(3, part, 2) for part in range(2)]
    assert torch.equal(torch.cat([half.image for half in halves]), one.image)
    assert source.batch(4).image.shape == (4, 3, 64, 64)
    assert not torch.equal(source.batch(5).image, one.image)
    for part, parts in ((0, 3), (2, 2), (-1, 2)):
        with pytest.raises(ValueError, match="cannot be cut"):
            source.batch(0, part, parts)


def test_targets_are_metres_of_the_canonical_camera(data: Path) -> None:
    whole = DepthAugment(smallest=1.0, turned=0.0)
    source = batches_of(data, augment=whole)
    for step in (1, 3, 5):  # batches of the room's own shape: nothing is cut
        batch = source.batch(step)
        for target, weak in zip(batch.target, batch.weak.tolist(), strict=True):
            known = target[target.isfinite()]
            metres = known.exp() * 80 / DepthConfig().canonical_focal
            assert weak or torch.allclose(metres, torch.full_like(known, 2.0), rtol=1e-3)
            assert len(known) == target.numel() or weak


def test_what_is_missing_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="needs --data DIR"):
        DepthBatches()(None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds none of nyuv2, facades"):
        DepthBatches()(tmp_path / "empty")
    monkeypatch.setattr(photos, "_HELD_OUT", {"facades": 3})
    with pytest.raises(InputError, match="facades' holds 3 photos and the last 3 are for validation"):
        training_photos(data, "facades")


class Stopped(DepthTraining):
    """Sends a signal to its own process in the given step."""

    at = -1

    def training_step(self, batch: DepthBatch, step: int, generator: torch.Generator) -> StepOutput:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().training_step(batch, step, generator)


def tiny() -> Run:
    run = metric_depth()
    run = replace(run, training=replace(run.training, best_metric=""), validation=None)
    return override(
        run,
        [
            *("batches.batch_size=2", "training.steps=3", "training.epoch_steps=3", "training.workers=0"),
            *("training.tensorboard=off", "training.device=cpu", "training.log_every=1", "method.imagenet=false"),
            *("training.schedule.warmup_steps=1", "method.config.side=64", "method.config.width=8"),
        ],
    )


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "DepthTraining", Stopped)
    train(tiny(), tmp_path / "whole", data)
    monkeypatch.setattr(Stopped, "at", 1)
    result = train(tiny(), tmp_path / "parts", data)
    assert (result.progress.step, result.stopped_by) == (2, "SIGINT")
    monkeypatch.setattr(Stopped, "at", -1)
    torch.manual_seed(99)  # as in another process
    train(tiny(), tmp_path / "parts", data, resume=True)
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoints" / "last") for name in ("whole", "parts"))
    assert whole.progress.step == parts.progress.step == 3
    assert whole.tensors.keys() == parts.tensors.keys()
    assert all(torch.equal(whole.tensors[key], parts.tensors[key]) for key in whole.tensors)
    assert not torch.equal(whole.tensors["network.output.weight"], torch.zeros(2, 8, 1, 1))  # it did learn
    lines = [json.loads(line) for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and all("scale_error" in line for line in lines)


def test_validation_measures_the_sets_that_are_held_out(data: Path) -> None:
    validator = HeldOutPhotos()(data)
    method = DepthMethod(imagenet=False, config=TINY)()
    assert isinstance(method, DepthTraining)
    found = validator(method.eval())
    assert {"facades_scale", "facades_bias", "facades_drift", "score"} <= set(found.metrics)
    assert found.metrics["facades_scale"] == pytest.approx(abs(found.metrics["facades_bias"]))
    # fresh weights say e metres for the canonical camera, whatever is in the picture
    photo = HeldOutPhotos()(data).data.sets["facades"][0]  # type: ignore[attr-defined]
    truth = photo.depth[photo.depth > 0].median()
    side = TINY.side * 0.75**0.5  # of the square that the network sees, in whole cells of 32
    seen = round(side / 32) * 32
    predicted = np.e * (photo.focal * seen / 96) / TINY.canonical_focal
    assert found.metrics["facades_bias"] == pytest.approx(float(np.log(predicted / float(truth))), abs=0.01)
    with pytest.raises(InputError, match="needs --data DIR"):
        HeldOutPhotos()(None)
