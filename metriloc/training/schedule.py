"""The optimiser and its learning rate: both made from the configuration, the rate as a pure function of the step."""

from __future__ import annotations

import math
import re

import torch
from torch import nn

from metriloc.training.config import OptimizerConfig, Schedule


def lr_factor(step: int, total_steps: int, schedule: Schedule) -> float:
    """The factor on the peak learning rate for step ``step`` (0-based) of ``total_steps``; in 0..1."""
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    start = max(schedule.decay_start, schedule.warmup_steps)
    if schedule.decay == "constant" or step < start:
        return 1.0
    if schedule.decay == "exponential":
        return float(10 ** (-(step - start) / schedule.tenfold_steps))
    if schedule.decay == "steps":
        return float(schedule.step_factor ** ((step - start) // schedule.step_every))
    progress = min(1.0, (step - start) / max(1, total_steps - 1 - start))
    fall = progress if schedule.decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * progress)
    return 1 - (1 - schedule.final) * fall


def freeze_all_but(method: nn.Module, config: OptimizerConfig) -> None:
    """Freeze the parameters that ``train_only`` does not find. Raises ValueError when nothing is left to train."""
    for name, parameter in method.named_parameters():
        if config.train_only and not re.search(config.train_only, name):
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in method.parameters()):
        chosen = f"optimizer.train_only {config.train_only!r}" if config.train_only else "the method"
        raise ValueError(f"there is nothing to train: {chosen} leaves no parameter that takes gradients")


def make_optimizer(method: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser over the parameters that take gradients; every group remembers its peak rate as ``peak_lr``."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            scale = next((factor for part, factor in config.lr_scaling if part in name), 1.0)
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((scale, decay), []).append(parameter)
    entries = [
        {"params": parameters, "lr": scale * config.lr, "peak_lr": scale * config.lr, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]
    if config.name == "sgd":
        return torch.optim.SGD(entries, momentum=config.momentum)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(entries, betas=config.betas, eps=config.eps)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to ``factor`` times its peak rate; returns the largest rate."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak_lr"]
    return max(group["lr"] for group in optimizer.param_groups)
