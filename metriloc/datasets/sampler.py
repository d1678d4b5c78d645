"""Which training pairs come when: the same number from every scene, shuffled, as a pure function of seed and step.

MicKey's published code draws from the global generator, so that from the second epoch on every epoch repeats the same
list. Here epoch and step alone decide, so a resumed run, or one spread over processes, sees what an
uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.datasets.sources import PairDataset
from metriloc.types import Pair


def scene_balanced_order(
    lengths: Sequence[int], per_scene: int, generator: torch.Generator, *, replacement: bool = True
) -> Int[Tensor, " n"]:
    """``per_scene`` indices from each scene, shuffled together.

    As in MicKey's published code; equals its order when the generator is in the state of upstream's global one.

    - lengths: how many each scene has; scenes lie one after the other, and empty ones are passed over.
    - per_scene: how many are taken of each.
    - generator: of draws and order.
    - replacement: with it they are drawn independently; without, an index comes twice only in scenes that have fewer than
      ``per_scene`` (all of them once, the rest drawn independently).
    """
    if per_scene < 1 or any(n < 0 for n in lengths):
        raise ValueError(f"per_scene and lengths must be positive, got {per_scene} and {min(lengths, default=0)}")
    drawn, start = [torch.zeros(0, dtype=torch.int64)], 0
    for n in lengths:
        if replacement and n:
            drawn.append(torch.randint(start, start + n, (per_scene,), generator=generator))
        elif n:
            drawn.append(torch.randperm(n, generator=generator)[:per_scene] + start)
            if n < per_scene:
                drawn.append(torch.randint(start, start + n, (per_scene - n,), generator=generator))
        start += n
    indices = torch.cat(drawn)
    return indices[torch.randperm(len(indices), generator=generator)]


def derived_seed(*parts: int) -> int:
    """A 63-bit seed from whole numbers that are not negative. Different parts, unrelated seeds."""
    low, high = np.random.SeedSequence(parts).generate_state(2, np.uint32).tolist()
    return (high << 32 | low) & (2**63 - 1)


@lru_cache(maxsize=4)
def _epoch_order(lengths: tuple[int, ...], per_scene: int, replacement: bool, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch))
    return scene_balanced_order(lengths, per_scene, generator, replacement=replacement)


@dataclass(frozen=True)
class SceneBalancedSampler:
    """The batches of a run. ``batch(step)`` depends on nothing but the fields and ``step``.

    lengths: pairs in each scene (``PairDataset.lengths``); per_scene: drawn from each an epoch; batch_size: pairs of a
    step of the whole run, over all processes. What is left at the end of an epoch is dropped. key: a number for each
    pair; the pairs of an epoch come from the largest to the smallest instead of shuffled. None: shuffled.
    """

    lengths: tuple[int, ...]
    per_scene: int = 100
    batch_size: int = 8
    seed: int = 0
    replacement: bool = True
    key: Float[Tensor, " n"] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(int(n) for n in self.lengths))
        if self.key is not None and self.key.shape != (sum(self.lengths),):
            raise ValueError(f"there are {sum(self.lengths)} pairs, and keys {list(self.key.shape)}")
        if self.batch_size < 1 or self.seed < 0:
            raise ValueError(f"batch_size {self.batch_size} must be positive and seed {self.seed} must not be negative")
        if not self.steps_per_epoch:
            raise ValueError(
                f"{sum(n > 0 for n in self.lengths)} scenes with {self.per_scene} pairs each "
                f"do not fill one batch of {self.batch_size}"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return sum(n > 0 for n in self.lengths) * self.per_scene // self.batch_size

    def batch(self, step: int, part: int = 0, parts: int = 1) -> list[tuple[int, int]]:
        """One of ``parts`` equal parts of the batch of a step.

        (index of the pair, seed of its augmentation) each. The parts in order are the whole batch, whatever their number.

        - step: from 0.
        - part, parts: which part (from 0) of how many.

        Raises ValueError when the batch cannot be cut so.
        """
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        if parts < 1 or self.batch_size % parts or not 0 <= part < parts:
            raise ValueError(f"a batch of {self.batch_size} cannot be cut into {parts} equal parts (part {part})")
        epoch, within = divmod(step, self.steps_per_epoch)
        order = _epoch_order(self.lengths, self.per_scene, self.replacement, self.seed, epoch)
        if self.key is not None:
            order = order[self.key[order].argsort(descending=True, stable=True)]
        size = self.batch_size // parts
        places = range(part * size, (part + 1) * size)
        start = within * self.batch_size
        indices = order[start + places.start : start + places.stop].tolist()
        return [(i, derived_seed(self.seed, step, place, 1)) for i, place in zip(indices, places, strict=True)]

    def batches(self, start: int, stop: int | None = None) -> Iterator[list[tuple[int, int]]]:
        """The batches of the steps from ``start`` up to ``stop``.

        None: for ever; a DataLoader's ``batch_sampler``.
        """
        step = start
        while stop is None or step < stop:
            yield self.batch(step)
            step += 1


@dataclass(frozen=True, eq=False)
class PairBatches:
    """A data set drawn by a sampler, as the trainer asks. It is the trainer's ``BatchSource``.

    collate: makes a batch of loaded pairs, ``PairBatch.from_pairs`` for MicKey.
    """

    dataset: PairDataset
    sampler: SceneBalancedSampler
    collate: Callable[[list[Pair]], Any]

    def __post_init__(self) -> None:
        if self.sampler.lengths != self.dataset.lengths:
            raise ValueError(
                f"the sampler counts {sum(self.sampler.lengths)} pairs in {len(self.sampler.lengths)} scenes, "
                f"the data set has {len(self.dataset)} in {len(self.dataset.lengths)}"
            )

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Any:
        """One of equal parts of the batch of a step.

        - step: from 0. The same arguments give the same batch.
        - part, parts: which part (from 0) of how many.
        """
        return self.collate([self.dataset[entry] for entry in self.sampler.batch(step, part, parts)])
