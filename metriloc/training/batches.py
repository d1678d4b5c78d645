"""Where batches come from: a pure function of the step, so that a run can stop anywhere and go on as if it had not.

The batch of a step belongs to the whole run: it is cut into ``parts``, one for each process and accumulation, and every
source must make part k of n from (its seed, step, k, n) alone. Two processes, or one that accumulates twice, then see
the very samples that one process sees. ``prefetched`` loads ahead in worker processes.
"""

from __future__ import annotations

import dataclasses
import resource
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from metriloc.training.randomness import generator_of

_GRACE_S = 30


class BatchSource(Protocol):
    """The training data. An endless source needs no more than this; it may be called from several processes."""

    def batch(self, step: int, part: int, parts: int) -> Any:
        """One of equal parts of a step's batch, on the CPU.

        - step: the optimiser's (0-based).
        - part, parts: which part (0-based) of how many.

        The same arguments give the same batch, whatever was asked before; global generators are not used. Raises
        ValueError when the batch cannot be cut into so many equal parts.
        """
        ...


@dataclass(frozen=True, eq=False)
class ShuffledBatches:
    """Batches of a finite set, in a new order every pass.

    Each sample comes once a pass (the rest of a pass is left out). load: makes sample ``index``,
    with a generator of its own for augmentation; collate: makes a batch of samples; length: number
    of samples; batch_size: of the whole run, not of one process.
    """

    load: Callable[[int, torch.Generator], Any]
    length: int
    batch_size: int
    collate: Callable[[Sequence[Any]], Any]
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.length:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be taken from {self.length} samples: batch_size must be 1..{self.length}"
            )

    def indices(self, step: int, part: int, parts: int) -> list[int]:
        """The samples of one part. ValueError when the batch cannot be cut so.

        - step, part, parts: as in ``BatchSource.batch``.
        """
        if self.batch_size % parts or not 0 <= part < parts:
            raise ValueError(f"a batch of {self.batch_size} cannot be cut into {parts} equal parts (part {part})")
        epoch, place = divmod(step, self.length // self.batch_size)
        order = torch.randperm(self.length, generator=generator_of(self.seed, epoch))
        size = self.batch_size // parts
        start = place * self.batch_size + part * size
        return order[start : start + size].tolist()

    def batch(self, step: int, part: int, parts: int) -> Any:
        """See ``BatchSource``.

        - step, part, parts: as there.
        """
        first = part * (self.batch_size // parts)
        indices = self.indices(step, part, parts)
        return self.collate(
            [self.load(index, generator_of(self.seed, step, first + place)) for place, index in enumerate(indices)]
        )


@dataclass(frozen=True, eq=False)
class _FirstBatch:
    """The first batch of a source, again and again."""

    source: BatchSource

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Any:
        """See ``BatchSource``."""
        return self.source.batch(0, part, parts)


@dataclass(frozen=True, eq=False)
class OneBatch:
    """Opens training data of which only the first batch is seen: a loss that does not fall on it will fall on none.

    batches: of a ``Run``.
    """

    batches: Callable[[Path | None], BatchSource]

    def __call__(self, data: Path | None) -> BatchSource:
        return _FirstBatch(self.batches(data))


@dataclass(frozen=True)
class Share:
    """What one process takes of every batch: its rank among ``world_size``, in ``accumulation`` parts."""

    rank: int = 0
    world_size: int = 1
    accumulation: int = 1

    @property
    def parts(self) -> int:
        """Parts the batch of one step is cut into, over all processes."""
        return self.world_size * self.accumulation

    def part(self, index: int) -> int:
        """The ``index``-th part of this process."""
        return self.rank * self.accumulation + index


def prefetched(
    source: BatchSource, share: Share, steps: range, workers: int = 0, ahead: int = 2
) -> Generator[Any, None, None]:
    """The parts of this process, in order, over ``steps``; loaded ahead by ``workers`` processes (0: when asked for).

    An error in a worker is raised here. The workers hear no Ctrl+C, and outlive a SIGTERM by half a minute: the loop
    decides when to stop. Close the iterator to end them.
    """
    options: dict[str, Any] = {"prefetch_factor": ahead, "worker_init_fn": _init_worker} if workers else {}
    if workers:
        _allow_many_files()
    loader = DataLoader(
        _Parts(source, share, steps),
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else the loader would draw its workers' seeds from the global one
        **options,
    )
    batches = iter(loader)
    try:
        yield from batches
    finally:
        # by itself it would end the workers when it is collected, which a kept traceback puts off to the exit
        getattr(batches, "_shutdown_workers", lambda: None)()


class _Parts(Dataset[Any]):
    """The parts of one process as a list that DataLoader can walk."""

    def __init__(self, source: BatchSource, share: Share, steps: range) -> None:
        self._source, self._share, self._steps = source, share, steps

    def __len__(self) -> int:
        return len(self._steps) * self._share.accumulation

    def __getitem__(self, index: int) -> Any:
        step, place = divmod(index, self._share.accumulation)
        return self._source.batch(self._steps[step], self._share.part(place), self._share.parts)


def _as_it_is(batch: Any) -> Any:
    return batch


def _init_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # a batch system tells all processes to end; the step in progress may still need this one
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))


def _allow_many_files() -> None:
    """Raise this process's own limit: every tensor that a worker sends is an open file until it is freed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor on ``device``, through dataclasses, mappings, lists and tuples; the rest as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(to_device(value, device) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        moved = {f.name: to_device(getattr(batch, f.name), device) for f in dataclasses.fields(batch) if f.init}
        return dataclasses.replace(batch, **moved)
    return batch
