"""One step: parts add up to the whole, clipping comes before the step, bad steps change nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metriloc.training.batches import Share
from metriloc.training.gradients import StepSetting, training_step
from metriloc.training.processes import Processes
from metriloc.types import StepOutput

ALONE = Processes(0, 1, torch.device("cpu"))


class Network(nn.Module):
    """Linear regression with batch norm where asked, an unused parameter, and a loss that can be spoilt."""

    def __init__(self, batch_norm: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1).double()
        self.norm = nn.BatchNorm1d(3).double() if batch_norm else nn.Identity()
        self.unused = nn.Parameter(torch.ones(2))
        self.draws: list[float] = []

    def training_step(self, batch: Tensor, step: int, generator: torch.Generator) -> StepOutput:
        self.draws.append(float(torch.rand((), generator=generator)))
        return StepOutput(self.layer(self.norm(batch)).square().mean(), {"mean": float(batch.mean())})


def setting(accumulation: int = 1, clip_norm: float | None = None) -> StepSetting:
    return StepSetting(0, Share(0, 1, accumulation), clip_norm, autocast=False, processes=ALONE)


def network(**options: Any) -> Network:
    torch.manual_seed(0)
    return Network(**options)


def state(method: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    moments = [v for s in optimizer.state_dict()["state"].values() for v in s.values() if isinstance(v, Tensor)]
    return [t.clone() for t in (*method.state_dict().values(), *moments)]


def parts(*tensors: Tensor) -> Iterator[Tensor]:
    return iter(tensors)


def test_accumulated_parts_step_like_the_whole_batch(generator: torch.Generator) -> None:
    batch = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    weights = []
    for accumulation in (1, 2, 4):
        method = network()
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        report = training_step(method, optimizer, parts(*batch.chunk(accumulation)), 0, setting(accumulation))
        weights.append(torch.cat([method.layer.weight.flatten(), method.layer.bias]).detach())
        assert report.applied and report.metrics["mean"][1] == accumulation
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-13, atol=1e-15)


def test_every_part_has_its_own_chance_and_repeats_it() -> None:
    first, second = network(), network()
    for method in (first, second):
        optimizer = torch.optim.SGD(method.parameters(), lr=0.0)
        for step in (5, 6):
            training_step(method, optimizer, parts(*torch.ones(2, 4, 3).double()), step, setting(2))
    assert first.draws == second.draws
    assert len(set(first.draws)) == 4


def test_clipping_happens_before_the_step() -> None:
    method = network()
    before = torch.cat([p.detach().flatten().double() for p in method.parameters()])
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    report = training_step(method, optimizer, parts(100 * torch.ones(4, 3).double()), 0, setting(clip_norm=0.01))
    moved = torch.cat([p.detach().flatten().double() for p in method.parameters()]) - before
    assert report.gradient_norm > 100
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-5)


def test_small_gradients_are_not_scaled_up() -> None:
    moved = []
    for clip_norm in (None, 1e9):
        method = network()
        training_step(
            method,
            torch.optim.SGD(method.parameters(), 1.0),
            parts(torch.ones(4, 3).double()),
            0,
            setting(1, clip_norm),
        )
        moved.append(method.layer.weight.detach().clone())
    assert torch.equal(*moved)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_step_changes_nothing(bad: float) -> None:
    method = network(batch_norm=True)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    good = torch.arange(12.0).double().reshape(4, 3)
    assert training_step(method, optimizer, parts(good, good), 0, setting(2)).applied
    before = state(method, optimizer)
    spoilt = good.clone()
    spoilt[1, 2] = bad
    report = training_step(method, optimizer, parts(good, spoilt), 1, setting(2))
    assert not report.applied
    assert "norm of its gradient" in report.why_not
    assert all(torch.equal(a, b) for a, b in zip(before, state(method, optimizer), strict=True))
    assert all(p.grad is None for p in method.parameters())
    assert training_step(method, optimizer, parts(good, good), 2, setting(2)).applied


class Detached(Network):
    def training_step(self, batch: Tensor, step: int, generator: torch.Generator) -> StepOutput:
        return StepOutput(torch.zeros(()))


def test_a_loss_without_gradient_is_a_skipped_step() -> None:
    method = Detached()
    report = training_step(method, torch.optim.Adam(method.parameters()), parts(torch.ones(4, 3)), 0, setting())
    assert (report.applied, report.why_not) == (False, "it had no gradient")


class Vector(Network):
    def training_step(self, batch: Tensor, step: int, generator: torch.Generator) -> StepOutput:
        return StepOutput(self.layer(batch)[:, 0])


def test_a_loss_that_is_no_scalar_is_refused() -> None:
    method = Vector()
    with pytest.raises(ValueError, match=r"scalar loss, got shape \[4\]"):
        training_step(method, torch.optim.Adam(method.parameters()), parts(torch.ones(4, 3).double()), 0, setting())


def test_a_metric_that_is_nan_is_not_counted() -> None:
    class Sometimes(Network):
        def training_step(self, batch: Tensor, step: int, generator: torch.Generator) -> StepOutput:
            return StepOutput(self.layer(batch).sum(), {"error": float(batch[0, 0])})

    method = Sometimes()
    batches = parts(torch.full((1, 3), 4.0).double(), torch.tensor([[math.nan, 0.0, 0.0]]).double())
    report = training_step(method, torch.optim.Adam(method.parameters()), batches, 0, setting(2))
    assert report.metrics == {"error": (4.0, 1)}


def test_autocast_computes_in_bfloat16() -> None:
    seen = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def training_step(self, batch: Tensor, step: int, generator: torch.Generator) -> StepOutput:
            y = self.layer(batch)
            seen.append(y.dtype)
            return StepOutput(y.float().square().mean())

    method = Watching()
    for autocast in (False, True):
        report = training_step(
            method,
            torch.optim.Adam(method.parameters()),
            parts(torch.ones(2, 3)),
            0,
            StepSetting(0, Share(), 1.0, autocast, ALONE),
        )
        assert report.applied
    assert seen == [torch.float32, torch.bfloat16]
    assert method.layer.weight.dtype == torch.float32
