"""Batch norms over processes: two processes see what one sees of both their batches, forward, backward, statistics."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from metriloc import recipes
from metriloc.training import override
from metriloc.training.preparation import prepare
from metriloc.training.processes import Processes
from metriloc.training.shared_norms import SharedBatchNorm, share_batch_norms


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.BatchNorm2d(3, affine=False)).double()


def batch() -> torch.Tensor:
    return torch.randn(4, 2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, photos: torch.Tensor) -> dict[str, torch.Tensor]:
    model(photos).pow(3).sum().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def work(rank: int, folder: str) -> None:
    os.environ.update(OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = network()
    share_batch_norms(model)
    own = batch()[:1] if rank == 0 else batch()[1:]  # not of one size
    found: dict[str, Any] = gradients(model, own)
    for value in found.values():
        dist.all_reduce(value)
    if rank == 0:
        model.eval()
        torch.save({**found, "state": model.state_dict(), "eval": model(batch())}, Path(folder) / "found.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_see_what_one_sees(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, str(tmp_path))) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    model = network()
    wanted = gradients(model, batch())
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12, msg=name)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found["state"][name], value, rtol=1e-12, atol=1e-14, msg=name)
    torch.testing.assert_close(found["eval"], model.eval()(batch()), rtol=1e-12, atol=1e-13)


def test_alone_it_is_a_plain_one_and_keeps_what_was_there() -> None:
    model = network()
    norm = model[1].eval()
    norm.running_mean.add_(3)
    share_batch_norms(model)
    assert isinstance(model[1], SharedBatchNorm) and not model[1].training and model[3].training
    assert model[1].running_mean is norm.running_mean and model[1].weight is norm.weight
    plain = network()
    plain[1].eval().running_mean.add_(3)
    assert torch.equal(model(batch()), plain(batch()))
    assert model.state_dict().keys() == plain.state_dict().keys()


class Alone(Processes):
    """One of two, with nobody to talk to."""

    def spread(self, tensors: Sequence[torch.Tensor]) -> None:
        pass


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_of_several_processes_shares_them_if_it_says_so(shared: bool) -> None:
    toy = override(recipes.toy(), [f"training.sync_batch_norm={str(shared).lower()}", "training.device=cpu"])
    norm = torch.nn.Sequential(toy.method(), nn.BatchNorm2d(3))
    norm.training_step = toy.method().training_step
    run = replace(toy, method=lambda: norm)
    for count, expected in ((2, shared), (1, False)):
        prepared = prepare(run, None, Alone(0, count, torch.device("cpu")), None, None)
        prepared.batches.close()
        assert isinstance(prepared.method[1], SharedBatchNorm) == expected  # type: ignore[index]
        norm[1] = nn.BatchNorm2d(3)
