"""The recipe of the default model on a tiny folder: it runs, mixes real and synthetic pairs, validates and saves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets import make_overlaps
from metriloc.lessons.mickey_mixed import SIZE, SmallBatches
from metriloc.methods.mickey import MicKey
from metriloc.recipes.mickey_small import NETWORK, mickey_small
from metriloc.training import override, train

QUICK = (
    *("batches.scenes=1", "batches.pairs_per_scene=2", "batches.batch_size=2", "validation.scenes=1"),
    *("validation.pairs_per_scene=1", "training.steps=2", "training.epoch_steps=2", "training.workers=0"),
    *("method.imagenet=false", "training.tensorboard=off", "training.device=cpu", "method.pose_sets=2"),
)


def make_scene(folder: Path) -> None:
    """Three RGB-D photos of a wall 2 m away."""
    (folder / "seq0").mkdir(parents=True)
    names = [f"seq0/frame_{i:05d}" for i in range(3)]
    (folder / "poses.txt").write_text("".join(f"{n}.jpg 1 0 0 0 {-0.3 * i} 0 0\n" for i, n in enumerate(names)))
    (folder / "intrinsics.txt").write_text("".join(f"{n}.jpg 80 80 39.5 29.5 80 60\n" for n in names))
    for name in names:
        Image.new("RGB", (80, 60), "teal").save(folder / f"{name}.jpg")
        Image.fromarray(np.full((30, 40), 2000, dtype=np.uint16)).save(folder / f"{name}.depth.png")


@pytest.mark.slow
def test_a_run_from_an_empty_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_scene(data / "real" / "wall")
    make_overlaps(data / "real" / "wall")
    train(override(mickey_small(), [*QUICK, "method.supervised_alone=1"]), tmp_path / "run", data)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"depth_log_error", "vcre_auc", "loss_depth", "loss_pose"} <= {name for line in lines for name in line}
    model = MicKey.from_pretrained(tmp_path / "run/weights")
    assert model.network.config == replace(NETWORK, longest_side=320, depth_side=256)
    assert sum(p.numel() for p in model.network.parameters()) < 5_000_000
    assert (tmp_path / "run/weights/model.safetensors").stat().st_size < 25e6


@pytest.mark.slow
def test_batches_mix_and_repeat(tmp_path: Path) -> None:
    make_scene(tmp_path / "real" / "wall")
    make_overlaps(tmp_path / "real" / "wall")
    batches = SmallBatches(scenes=1, pairs_per_scene=2, batch_size=4, real_share=0.5)(tmp_path)
    one, two = batches.batch(3), batches.batch(3)
    assert torch.equal(one.image0, two.image0) and one.depth0 is not None
    assert one.image0.shape == (4, 3, SIZE[1], SIZE[0]) and one.depth0.shape == (4, SIZE[1], SIZE[0])
    halves = torch.cat([batches.batch(3, part, 2).image0 for part in range(2)])
    assert torch.equal(one.image0, halves)
    assert replace(batches, real=None).batch(0).depth0 is not None
    with pytest.raises(ValueError, match="cannot be cut"):
        batches.batch(0, 0, 3)


def test_a_data_folder_is_needed() -> None:
    with pytest.raises(ValueError, match="--data DIR"):
        SmallBatches()(None)
