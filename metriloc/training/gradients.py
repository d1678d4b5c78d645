"""One training step: the mean gradient of the whole batch over all parts and processes, then clip, then step.

A step whose loss or gradient is not finite, or that has no gradient at all, changes nothing: neither parameters nor
optimiser statistics nor buffers (batch norm would carry the NaN on).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metriloc.training.batches import Share, to_device
from metriloc.training.processes import Processes
from metriloc.training.randomness import generator_of, seed_globally


@dataclass(frozen=True)
class StepSetting:
    """What a step needs beside method and batches. share: this process's part of a batch; autocast: compute in bfloat16
    where torch deems it safe.
    """

    seed: int
    share: Share
    clip_norm: float | None
    autocast: bool
    processes: Processes


@dataclass
class StepReport:
    """What happened. loss: mean over all parts; gradient_norm: before clipping; applied: whether the step was taken;
    why_not: one clause, else empty; stop_votes: processes that were asked to stop; metrics: (sum, count) of this
    process's parts."""

    loss: float
    gradient_norm: float
    applied: bool
    why_not: str
    stop_votes: int
    metrics: dict[str, tuple[float, int]] = field(default_factory=dict)


def training_step(
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Any],
    step: int,
    setting: StepSetting,
    wants_to_stop: Callable[[], bool] = lambda: False,
) -> StepReport:
    """Take one step with the next parts of ``batches``; see the module.

    step: optimiser steps done so far. wants_to_stop: this process's vote, asked for after the backward passes.
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in method.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    loss, metrics = _backward(method, batches, step, setting)
    loss, votes = _combine(method, loss, wants_to_stop(), setting.processes)
    report = _apply(method, optimizer, setting.clip_norm, float(loss))
    report.stop_votes, report.metrics = votes, metrics
    if not report.applied:
        for module, name, buffer, before in buffers:
            setattr(module, name, buffer.copy_(before))  # the step may also have put another tensor there
    setting.processes.spread(list(method.buffers()))
    return report


def _backward(
    method: nn.Module, batches: Iterator[Any], step: int, setting: StepSetting
) -> tuple[Tensor, dict[str, tuple[float, int]]]:
    """Leaves this process's part of the mean gradient in ``.grad``; returns its part of the mean loss."""
    share, device = setting.share, setting.processes.device
    method.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device, dtype=torch.float64)
    metrics: dict[str, tuple[float, int]] = {}
    for index in range(share.accumulation):
        part = share.part(index)
        batch = to_device(next(batches), device)
        seed_globally(setting.seed, step, part)
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.autocast):
            output = method.training_step(batch, step, generator_of(setting.seed, step, part, 1))  # type: ignore[operator]
        if output.loss.shape != ():
            raise ValueError(f"training_step must return a scalar loss, got shape {list(output.loss.shape)}")
        if output.loss.requires_grad:
            (output.loss / share.parts).backward()
        total += output.loss.detach().double() / share.parts
        for key, value in output.metrics.items():
            value, (summed, count) = float(value), metrics.get(key, (0.0, 0))
            if value == value:
                metrics[key] = (summed + value, count + 1)
    return total, metrics


def _combine(method: nn.Module, loss: Tensor, stop: bool, processes: Processes) -> tuple[Tensor, int]:
    """Sum gradients, loss and votes over the processes. A parameter without gradient everywhere stays without."""
    if processes.world_size == 1:
        return loss, int(stop)
    parameters = [p for p in method.parameters() if p.requires_grad]
    dtype = torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
    present = torch.tensor([p.grad is not None for p in parameters], dtype=dtype, device=processes.device)
    numbers = torch.stack([loss, torch.tensor(float(stop), dtype=loss.dtype, device=loss.device)]).to(dtype)
    gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1).to(dtype) for p in parameters]
    flat = torch.cat([numbers, present, *gradients])
    processes.sum(flat)
    sizes = [2, len(parameters), *(p.numel() for p in parameters)]
    numbers, present, *summed = flat.split(sizes)
    for parameter, anywhere, gradient in zip(parameters, present.tolist(), summed, strict=True):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if anywhere else None
    return numbers[0], round(float(numbers[1]))


def _apply(method: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float | None, loss: float) -> StepReport:
    """Clip, then step, if everything is finite; the gradients are gone afterwards."""
    parameters = [p for p in method.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    value = float(norm)
    why_not = ""
    if not parameters:
        why_not = "it had no gradient"
    elif not (abs(loss) < float("inf") and value < float("inf")):
        why_not = f"its loss was {loss:g} and the norm of its gradient {value:g}"
    else:
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepReport(loss, value, not why_not, why_not, 0)
