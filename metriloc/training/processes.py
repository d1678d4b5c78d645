"""The processes of a run, one a GPU, as torchrun starts them; and the little they say to each other.

The gradient is summed by one all-reduce of everything after the backward passes, instead of wrapping the method in
``DistributedDataParallel``: it needs no ``forward``, takes parameters that got no gradient, and carries the votes to
stop in the same message, so that all processes stop at the same step.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from metriloc.io import InputError

_PATIENCE = timedelta(hours=2)
"""The others wait while the first process validates and saves, or for one that has more to do."""


@dataclass(frozen=True)
class Worker:
    """Which of how many processes this is, and which of those on its machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ValueError(f"worker {self.rank} of {self.count}")


def worker_from_environment(environment: Mapping[str, str] = os.environ) -> Worker:
    """The worker that ``torchrun`` says this process is (RANK, WORLD_SIZE, LOCAL_RANK); the only one without it."""
    try:
        rank, count, local = (environment.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Worker(int(rank or 0), int(count or 1), int(local or 0))
    except ValueError as error:
        raise InputError(f"RANK, WORLD_SIZE and LOCAL_RANK do not name a worker: {error}") from error


@dataclass(frozen=True)
class Processes:
    """This process among all. device: where it computes."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that validates, saves and logs."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Add up over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite with the first process's values, in place."""
        if self.world_size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor.detach())
        for group in by_type.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.broadcast(flat, 0)
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in order of rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


def choose_device(name: str, local_rank: int) -> torch.device:
    """``auto`` (the GPU of this process, else the CPU), cpu, cuda or cuda:N. Raises ValueError for what is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"training.device {name!r} is not a device: give auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        index = device.index if device.index is not None else local_rank
        if index >= torch.cuda.device_count():
            raise ValueError(f"training.device: there is no GPU {index} (this machine has {torch.cuda.device_count()})")
        return torch.device("cuda", index)
    return device


@contextmanager
def joined_processes(device_name: str) -> Iterator[Processes]:
    """Join the group that torchrun announces in the environment (or one that is joined already); alone without one.

    Raises ValueError for a device that is not there, and where the environment names no worker.
    """
    worker = worker_from_environment()
    device = choose_device(device_name, worker.local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL and plain "cuda" mean this one
    joining = worker.count > 1 and not dist.is_initialized()
    if joining:
        # An optimizer imports this when it is made, and what it imports would keep the group for ever, as default values
        # of functions: its threads would then outlive the interpreter, which now and then ends in SIGABRT.
        importlib.import_module("torch._dynamo")
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        together = dist.is_initialized()
        yield Processes(dist.get_rank() if together else 0, dist.get_world_size() if together else 1, device)
    finally:
        if joining:
            dist.destroy_process_group()
