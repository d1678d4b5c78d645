"""From folders to training pairs: overlaps made from depth or a model, found again, or replaced by uniform draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets import (
    Augment,
    PairBatches,
    PairDataset,
    SceneBalancedSampler,
    make_overlaps,
    read_training_pairs,
)
from metriloc.io import InputError
from metriloc.types import Pair

Shared = Callable[[str], Path]


def make_scene(folder: Path, count: int = 5) -> Path:
    """A camera that moves 0.3 m a photo along a wall 2 m away; each photo is 2 m wide there."""
    (folder / "seq0").mkdir(parents=True)
    names = [f"seq0/frame_{i:05d}" for i in range(count)]
    (folder / "poses.txt").write_text("".join(f"{n}.jpg 1 0 0 0 {-0.3 * i} 0 0\n" for i, n in enumerate(names)))
    (folder / "intrinsics.txt").write_text("".join(f"{n}.jpg 80 80 39.5 29.5 80 60\n" for n in names))
    for name in names:
        Image.new("RGB", (80, 60)).save(folder / f"{name}.jpg")
        Image.fromarray(np.full((60, 80), 2000, dtype=np.uint16)).save(folder / f"{name}.depth.png")
    return folder


def test_overlaps_from_depth_feed_a_trainer(tmp_path: Path) -> None:
    make_overlaps(make_scene(tmp_path / "a"))
    make_overlaps(make_scene(tmp_path / "b"), source="depth")
    lists = read_training_pairs(tmp_path, 0.5, 0.9)
    assert [part.scene.name for part in lists] == ["a", "b"]
    # overlaps are 0.85, 0.7, 0.55 and 0.4 for photos 1, 2, 3 and 4 apart, both ways
    assert [len(part) for part in lists] == [2 * (4 + 3 + 2)] * 2
    for index0, index1, overlap in zip(lists[0].index0, lists[0].index1, lists[0].overlap, strict=True):
        assert overlap == pytest.approx(1 - 0.15 * abs(int(index0) - int(index1)), abs=0.02)
    pair = PairDataset(lists)[0]
    assert pair.cam1_from_cam0 is not None and float(pair.cam1_from_cam0.t[0]) == pytest.approx(-0.3)


def test_batches_of_a_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_scene(tmp_path / name)
    data = PairDataset(read_training_pairs(tmp_path, uniform=20), (40, 30), augment=Augment())
    sampler = SceneBalancedSampler(data.lengths, per_scene=6, batch_size=4, seed=3)

    def collate(pairs: list[Pair]) -> torch.Tensor:
        assert all(pair.cam1_from_cam0 is not None and pair.cam1_from_cam0.dtype == torch.float32 for pair in pairs)
        return torch.stack([pair.view0.image for pair in pairs])

    source = PairBatches(data, sampler, collate)
    whole = source.batch(5, 0, 1)
    assert whole.shape == (4, 3, 30, 40)
    assert torch.equal(torch.cat([source.batch(5, part, 2) for part in (0, 1)]), whole)
    with pytest.raises(ValueError, match="the sampler counts 12 pairs in 1 scenes, the data set has 40 in 2"):
        PairBatches(data, SceneBalancedSampler((12,)), collate)


def test_overlaps_kept_elsewhere(tmp_path: Path) -> None:
    folder = make_scene(tmp_path / "data" / "a")
    (tmp_path / "made" / "a").mkdir(parents=True)
    make_overlaps(folder, tmp_path / "made/a/overlaps.npz")
    assert not (folder / "overlaps.npz").exists()
    (part,) = read_training_pairs(tmp_path / "data", overlaps=tmp_path / "made")
    assert len(part) == 20


def test_overlaps_from_a_model(shared: Shared, tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    place = shared("data/eval/places/entry_p10")
    told: list[tuple[int, int]] = []
    path = make_overlaps(place, tmp_path / "overlaps.npz", progress=lambda *done: told.append(done))
    assert told[-1] == (10, 10)
    arrays = np.load(path, allow_pickle=False)
    assert arrays["idxs"].dtype == np.uint16 and set(arrays["idxs"][:, 0]) == {0}
    # the facade: neighbours share, most pairs do
    assert len(arrays["overlaps"]) > 60 and arrays["overlaps"].max() > 0.3


def test_uniform_draws(tmp_path: Path) -> None:
    make_scene(tmp_path / "a")
    make_scene(tmp_path / "b")
    with pytest.raises(InputError, match=r"a/overlaps\.npz' does not exist"):
        read_training_pairs(tmp_path)
    first, again, other = (read_training_pairs(tmp_path, uniform=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0].index1, again[0].index1)
    assert (first[0].index1 != other[0].index1).any() and (first[0].index1 != first[1].index1).any()
    assert np.isnan(first[0].overlap).all() and len(first[1]) == 50


def test_nothing_to_take_overlaps_from(tmp_path: Path) -> None:
    folder = make_scene(tmp_path / "a", 2)
    (folder / "seq0/frame_00001.depth.png").unlink()
    with pytest.raises(InputError, match=r"frame_00001\.jpg' has no depth map"):
        make_overlaps(folder)
    with pytest.raises(InputError, match="holds no COLMAP model"):
        make_overlaps(folder, source="sfm")
    with pytest.raises(ValueError, match=r"source must be .*, got 'guess'"):
        make_overlaps(folder, source="guess")  # type: ignore[arg-type]
