"""The scene-balanced order against the published loader's draws, and that batches are a pure function of the step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.datasets import SceneBalancedSampler, scene_balanced_order
from metriloc.datasets.sampler import derived_seed


@pytest.mark.parametrize("replacement", [True, False])
def test_published_draws(shared: Callable[[str], Path], replacement: bool) -> None:
    expected = np.load(shared("golden/mickey/mapfree_synth/expected.npz"), allow_pickle=False)
    lengths = expected["train.lengths"].tolist()
    generator = torch.Generator().manual_seed(66)
    for epoch in (0, 1):
        order = scene_balanced_order(lengths, 30, generator, replacement=replacement)
        assert order.tolist() == expected[f"sampler.replacement{int(replacement)}.epoch{epoch}"].tolist()


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    SceneBalancedSampler((5, 9), per_scene=4, batch_size=2, seed=3).batch(7)
    assert torch.equal(before, torch.get_rng_state())


def test_every_scene_gets_its_share() -> None:
    sampler = SceneBalancedSampler((1000, 0, 3, 50), per_scene=20, batch_size=6)
    assert sampler.steps_per_epoch == 10
    indices = [i for step in range(10) for i, _ in sampler.batch(step)]
    assert Counter("abbb"[0] if i < 1000 else "b" if i < 1003 else "c" for i in indices) == {"a": 20, "b": 20, "c": 20}


def test_without_replacement() -> None:
    sampler = SceneBalancedSampler((30, 4), per_scene=10, batch_size=20, replacement=False)
    counts = Counter(i for i, _ in sampler.batch(0))
    assert all(counts[i] <= 1 for i in range(30)) and sum(counts[i] for i in range(30)) == 10
    assert all(counts[i] >= 1 for i in range(30, 34)) and sum(counts[i] for i in range(30, 34)) == 10


def test_a_batch_depends_on_its_step_alone() -> None:
    sampler = SceneBalancedSampler((40, 11), per_scene=12, batch_size=4, seed=5)
    straight = [sampler.batch(step) for step in range(25)]
    assert [sampler.batch(step) for step in reversed(range(25))] == straight[::-1]
    resumed = SceneBalancedSampler((40, 11), per_scene=12, batch_size=4, seed=5)
    assert list(resumed.batches(9, 25)) == straight[9:]
    other = SceneBalancedSampler((40, 11), per_scene=12, batch_size=4, seed=6)
    assert [other.batch(step) for step in range(25)] != straight
    # epochs differ, and so does the augmentation of a pair that comes again
    epochs = [sorted(i for step in range(6 * e, 6 * e + 6) for i, _ in sampler.batch(step)) for e in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    seeds = [seed for batch in straight for _, seed in batch]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)


def test_processes_share_the_batch_of_one() -> None:
    sampler = SceneBalancedSampler((40, 11, 7), per_scene=9, batch_size=6, seed=2)
    for step in range(2 * sampler.steps_per_epoch):
        for parts in (2, 3, 6):
            found = [entry for part in range(parts) for entry in sampler.batch(step, part, parts)]
            assert found == sampler.batch(step)
    for part, parts in ((0, 4), (3, 3), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"a batch of 6 cannot be cut into {parts} equal parts"):
            sampler.batch(0, part, parts)


def test_an_epoch_can_go_from_the_largest_key_to_the_smallest() -> None:
    key = torch.tensor([0.3, 0.9, 0.5, 0.7, 0.1, 0.2])
    sampler = SceneBalancedSampler((4, 2), per_scene=2, batch_size=2, seed=3, replacement=False, key=key)
    for epoch in range(3):
        drawn = [i for step in (2 * epoch, 2 * epoch + 1) for i, _ in sampler.batch(step)]
        assert len(set(drawn)) == 4 and {4, 5} <= set(drawn)
        assert key[drawn].tolist() == sorted(key[drawn].tolist(), reverse=True)
    with pytest.raises(ValueError, match=r"there are 6 pairs, and keys \[5\]"):
        SceneBalancedSampler((4, 2), per_scene=2, batch_size=2, key=key[:5])


def test_as_the_batches_of_a_loader() -> None:
    sampler = SceneBalancedSampler((8,), per_scene=8, batch_size=4)

    class Echo(torch.utils.data.Dataset):
        def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
            return key

    loader = torch.utils.data.DataLoader(Echo(), batch_sampler=sampler.batches(1, 4), collate_fn=list)
    assert list(loader) == [sampler.batch(step) for step in (1, 2, 3)]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"seed": -1}, "seed -1 must not be negative"),
        ({"lengths": (0, 0)}, "0 scenes"),
        ({"per_scene": 3}, "do not fill one batch"),
    ],
)
def test_wrong_use(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SceneBalancedSampler(**{"lengths": (10,), "per_scene": 10, "batch_size": 8, **fields})


def test_wrong_arguments(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="got 0"):
        scene_balanced_order([3], 0, generator)
    with pytest.raises(ValueError, match="-3"):
        scene_balanced_order([3, -3], 1, generator)
    with pytest.raises(ValueError, match="step must not be negative, got -1"):
        SceneBalancedSampler((10,)).batch(-1)


def test_seeds_differ() -> None:
    assert len({derived_seed(a, b) for a in range(30) for b in range(30)}) == 900
    assert derived_seed(1, 2) == derived_seed(1, 2)
