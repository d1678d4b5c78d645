"""The loss of the depth network against loops over its pixels, what it must not learn, and that steps lower it."""

from __future__ import annotations

import math

import pytest
import torch

from metriloc.methods.matching import (
    DepthBatch,
    DepthConfig,
    DepthLossConfig,
    DepthMaps,
    DepthNetwork,
    DepthTraining,
    depth_loss,
)

LOSS = DepthLossConfig(likelihood=0.4, absolute=0.7, scale=0.3, weak=0.9)


def made_up(seed: int = 0) -> tuple[DepthMaps, DepthBatch]:
    """Four photos: measured, measured in places, a weak facade, and one of which nothing is known."""
    generator = torch.Generator().manual_seed(seed)
    log_depth, log_spread, target = torch.randn(3, 4, 3, 5, generator=generator).unbind(0)
    target[1, :2] = torch.nan
    target[2, :, :3] = torch.nan
    target[3] = torch.nan
    maps = DepthMaps(log_depth.requires_grad_(), log_spread.requires_grad_())
    return maps, DepthBatch(torch.zeros(4, 3, 24, 40), target, torch.tensor([False, False, True, False]))


def naive(maps: DepthMaps, batch: DepthBatch, b: int) -> float:
    """The module's docstring, pixel by pixel."""
    errors, likelihoods = [], []
    for y in range(batch.target.shape[1]):
        for x in range(batch.target.shape[2]):
            target = float(batch.target[b, y, x])
            if math.isnan(target):
                continue
            error = maps.log_depth[b, y, x].item() - target
            spread = maps.log_spread[b, y, x].item()
            errors.append(error)
            likelihoods.append(abs(error) / math.exp(spread) + spread)  # Laplace, without its constant
    if not errors:
        return 0.0
    mean = sum(errors) / len(errors)
    shift = mean * mean / 0.2 if abs(mean) < 0.1 else abs(mean) - 0.05
    if bool(batch.weak[b]):
        return LOSS.weak * (LOSS.absolute + LOSS.scale) * shift
    absolute = sum(map(abs, errors)) / len(errors)
    return LOSS.likelihood * sum(likelihoods) / len(errors) + LOSS.absolute * absolute + LOSS.scale * shift


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_equals_its_description(seed: int) -> None:
    maps, batch = made_up(seed)
    found = depth_loss(maps, batch, LOSS)
    assert found.tolist() == pytest.approx([naive(maps, batch, b) for b in range(4)], rel=1e-5, abs=1e-7)
    assert found[3].item() == 0


def test_gradients_come_only_from_what_is_known() -> None:
    maps, batch = made_up()
    depth_loss(maps, batch, LOSS).sum().backward()
    known = batch.target.isfinite()
    for values in (maps.log_depth, maps.log_spread):
        assert values.grad is not None and bool(values.grad.isfinite().all())
        assert bool((values.grad[~known] == 0).all())
    depth_grad, spread_grad = maps.log_depth.grad, maps.log_spread.grad
    assert depth_grad is not None and spread_grad is not None
    assert bool((depth_grad[0] != 0).all()) and bool((spread_grad[0] != 0).all())
    # a facade moves as a whole and teaches no spread
    assert bool((spread_grad[2] == 0).all()) and len(depth_grad[2][known[2]].unique()) == 1


def test_the_best_spread_is_the_mean_absolute_error() -> None:
    error = torch.tensor([0.1, -0.3, 0.2, 0.6]).reshape(1, 2, 2)
    batch = DepthBatch(torch.zeros(1, 3, 16, 16), -error, torch.tensor([False]))
    losses = {}
    for spread in torch.linspace(0.05, 1.0, 96).tolist():
        maps = DepthMaps(torch.zeros(1, 2, 2), torch.full((1, 2, 2), math.log(spread)))
        losses[spread] = float(depth_loss(maps, batch, DepthLossConfig(1.0, 0.0, 0.0)))
    assert min(losses, key=lambda spread: losses[spread]) == pytest.approx(0.3, abs=0.011)


def test_targets_on_other_cells_are_refused() -> None:
    maps, batch = made_up()
    other = DepthBatch(batch.image, batch.target[:, :2], batch.weak)
    with pytest.raises(ValueError, match=r"targets \[4, 2, 5\] are not on the cells \[4, 3, 5\]"):
        depth_loss(maps, other, LOSS)


def test_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    training = DepthTraining(DepthNetwork(DepthConfig(side=64, width=8, attention=1))).train()
    generator = torch.Generator().manual_seed(0)
    target = torch.full((3, 8, 8), 2.0) + 0.1 * torch.randn(3, 8, 8, generator=generator)
    target[1] = torch.nan
    batch = DepthBatch(torch.rand(3, 3, 64, 64, generator=generator), target, torch.tensor([False, False, True]))
    optimizer = torch.optim.Adam(training.parameters(), 0.02)
    losses, errors = [], []
    for step in range(3):
        output = training.training_step(batch, step, generator)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
        errors.append(output.metrics["scale_error"])
    assert losses[2] < losses[1] < losses[0]
    assert errors[0] == pytest.approx(1.0, abs=0.05) and errors[2] < errors[0]  # from e metres to e squared
