"""Learning rates against hand-computed values; parameter groups and freezing."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from metriloc.training import OptimizerConfig, Schedule, TrainingConfig
from metriloc.training.schedule import freeze_all_but, lr_factor, make_optimizer, set_lr


def test_constant_without_warm_up_is_one() -> None:
    assert [lr_factor(step, 10, Schedule()) for step in (0, 5, 9, 50)] == [1.0] * 4


def test_warm_up_rises_linearly_and_never_starts_at_zero() -> None:
    factors = [lr_factor(step, 100, Schedule(warmup_steps=4)) for step in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_decays_go_from_one_to_final_at_the_last_step(decay: str) -> None:
    schedule = Schedule(warmup_steps=10, decay=decay, final=0.1)  # type: ignore[arg-type]
    factors = [lr_factor(step, 101, schedule) for step in range(101)]
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))


def test_exponential_divides_by_ten_and_waits_for_its_start() -> None:
    schedule = Schedule(decay="exponential", decay_start=100, tenfold_steps=50)
    assert lr_factor(99, 1000, schedule) == 1.0
    assert lr_factor(150, 1000, schedule) == pytest.approx(0.1)
    assert lr_factor(200, 1000, schedule) == pytest.approx(0.01)


def test_steps_multiply_every_so_often_from_their_start() -> None:
    schedule = Schedule(decay="steps", decay_start=100, step_every=50, step_factor=0.5)
    assert [lr_factor(step, 1000, schedule) for step in (0, 99, 100, 149, 150, 199, 200)] == [
        1,
        1,
        1,
        1,
        0.5,
        0.5,
        0.25,
    ]
    with pytest.raises(ValueError, match="step_every must be at least 1"):
        Schedule(step_every=0)
    with pytest.raises(ValueError, match="step_factor lie in"):
        Schedule(step_factor=0.0)


def test_beyond_the_last_step_the_rate_stays() -> None:
    assert lr_factor(500, 100, Schedule(decay="cosine", final=0.2)) == pytest.approx(0.2)
    assert lr_factor(5, 1, Schedule(decay="linear")) == 0.0


def test_groups_scale_rates_and_spare_vectors_from_decay() -> None:
    method = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    config = OptimizerConfig("adamw", lr=0.1, weight_decay=0.5, lr_scaling=(("1.", 100.0),))
    optimizer = make_optimizer(method, config)
    by_id = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    weight, bias = by_id[id(method[0].weight)], by_id[id(method[0].bias)]
    assert (weight["weight_decay"], bias["weight_decay"]) == (0.5, 0.0)
    assert by_id[id(method[1].weight)]["lr"] == pytest.approx(10.0)
    assert set_lr(optimizer, 0.5) == pytest.approx(5.0)
    assert weight["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    "name, kind", [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_the_named_optimizer_is_made(name: str, kind: type) -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), OptimizerConfig(name, eps=1e-6))  # type: ignore[arg-type]
    assert type(optimizer) is kind
    assert optimizer.param_groups[0].get("eps", 1e-6) == 1e-6


def test_train_only_freezes_the_rest() -> None:
    method = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    freeze_all_but(method, OptimizerConfig(train_only=r"^1\."))
    assert [p.requires_grad for p in method.parameters()] == [False, False, True, True]
    with pytest.raises(ValueError, match=r"nothing to train.*'nowhere'"):
        freeze_all_but(method, OptimizerConfig(train_only="nowhere"))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: OptimizerConfig(lr=0.0), "lr must be positive, got 0.0"),
        (lambda: OptimizerConfig(lr=math.nan), "lr must be positive"),
        (lambda: OptimizerConfig(betas=(0.9, 1.0)), "betas"),
        (lambda: OptimizerConfig(weight_decay=-1.0), "weight_decay"),
        (lambda: OptimizerConfig(train_only="("), "not a regular expression"),
        (lambda: Schedule(warmup_steps=-1), "warmup_steps"),
        (lambda: Schedule(final=2.0), "final"),
        (lambda: TrainingConfig(steps=0), "training.steps must be at least 1, got 0"),
        (lambda: TrainingConfig(steps=1, accumulation=0), "accumulation"),
        (lambda: TrainingConfig(steps=1, clip_norm=0.0), "clip_norm"),
        (lambda: TrainingConfig(steps=1, max_minutes=-1.0), "max_minutes"),
        (lambda: TrainingConfig(steps=1, workers=-1), "workers"),
    ],
)
def test_impossible_settings_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
