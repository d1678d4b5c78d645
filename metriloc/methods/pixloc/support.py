"""What speaks for PixLoc's pose: is the photo like the references just where the pose puts the points, and only there?

An alignment lowers its cost whatever the photo shows. But only in the right place is a point's reference feature more
like the photo at its projection than like the photo elsewhere, near by (which tells how exact the pose is) and far away
(which tells whether it is the place at all).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.methods.pixloc.cost import AlignmentProblem, CostConfig, Linearization, normal_equations
from metriloc.methods.pixloc.lookup import look_up
from metriloc.solvers.absolute_support import covariance_from_normal, precision_from_normal
from metriloc.solvers.support import coverage

FAR_PX, NEAR_PX = 12.0, 3.0
"""Least shift of a projection, pixels of the map: to somewhere else, and to just beside."""
_SHIFTS = 4
_MAX_POINTS = 1000
_TIMES = 2.0  # standard deviations are larger than independent residuals let expect; measured


def pixloc_support(
    problems: Sequence[AlignmentProblem], pose: Pose, end: Linearization, cost: CostConfig, seed: int = 0
) -> dict[str, float]:
    """Support of ``pose`` by one problem a level, the finest last.

    end: the finest one's cost there. distinct_K, beside_K: of level K (0 is the finest), see
    ``distinctness``, far away and near by; seen: points in view; coverage: share of 8 x 8 fields of
    the query that points in view lie in, where they are distinct; precision: see
    ``precision_from_normal``.
    """
    found: dict[str, float] = {}
    for level, problem in enumerate(reversed(problems)):
        view = _view(problem, pose, cost)
        for name, least, most in (("distinct", FAR_PX, math.inf), ("beside", NEAR_PX, 2 * NEAR_PX)):
            share, points, uv = _compared(problem, view, least, most, cost, seed)
            found[f"{name}_{level}"] = float(share.mean()) if len(share) else 0.0
            if level == 0 and name == "distinct":
                found["seen"] = float(len(points))
                found["coverage"] = coverage(uv[share > 0.9], problem.camera[0]) if len(share) else 0.0
    found["precision"] = _precision(problems[-1], pose, end)
    return found


def _view(problem: AlignmentProblem, pose: Pose, cost: CostConfig) -> tuple[Tensor, Tensor]:
    """Where the points are in the query's map [N, 2], and which of them can be compared there."""
    device, dtype = problem.features.device, problem.features.dtype
    local = pose.to(device, torch.float64).transform(problem.xyz[0].to(device, torch.float64))
    uv, seen = problem.camera[0].to(device, torch.float64).project(local)
    if problem.mask is not None:
        seen = seen & problem.mask[0].any(-1)
    w, h = problem.table.size
    limit = uv.new_tensor([w - 1 - cost.pad, h - 1 - cost.pad])
    return uv.to(dtype), seen & ((uv >= cost.pad) & (uv <= limit)).all(-1)


def _compared(
    problem: AlignmentProblem, view: tuple[Tensor, Tensor], least: float, most: float, cost: CostConfig, seed: int
) -> tuple[Float[Tensor, " n"], Tensor, Tensor]:
    """For each point in view the share of shifted positions that are less like its references than its projection is;
    the points; and their projections."""
    uv, seen = view
    points = seen.nonzero().squeeze(-1)
    if len(points) > _MAX_POINTS:
        points = points[torch.linspace(0, len(points) - 1, _MAX_POINTS, device=points.device).round().long()]
    if not len(points):
        return uv.new_zeros(0), points, uv[points]
    others = _shifted(uv[points].cpu(), problem.table.size, least, most, cost.pad, seed).to(uv)
    places = torch.cat([uv[points][None], others]).flatten(0, 1)
    values = F.normalize(look_up(problem.table, places[None], cost).terms[0, :, 0], dim=-1)
    values = values.unflatten(0, (-1, len(points)))
    reference, mask = problem.features[0, points], None if problem.mask is None else problem.mask[0, points]
    alike = torch.einsum("snc,nkc->snk", values, F.normalize(reference, dim=-1))
    weight = torch.ones_like(alike[0]) if mask is None else mask.to(alike)
    won = ((alike[:1] > alike[1:]).to(alike).mean(0) * weight).sum(-1) / weight.sum(-1).clamp(min=1)
    return won, points, uv[points]


def _shifted(
    uv: Float[Tensor, "n 2"], size: tuple[int, int], least: float, most: float, pad: int, seed: int
) -> Float[Tensor, "S n 2"]:
    """Positions in the map away from the given ones: anywhere beyond ``least``, or on a ring up to ``most``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (_SHIFTS, len(uv))
    low, high = uv.new_tensor([pad, pad]), uv.new_tensor([size[0] - 1 - pad, size[1] - 1 - pad])
    if math.isfinite(most):
        angle = 2 * math.pi * torch.rand(shape, generator=generator)
        radius = least + (most - least) * torch.rand(shape, generator=generator)
        shift = torch.stack([angle.cos(), angle.sin()], -1) * radius[..., None]
        inside = ((uv + shift >= low) & (uv + shift <= high)).all(-1, keepdim=True)
        return (uv + torch.where(inside, shift, -shift)).maximum(low).minimum(high)
    offset = low + (high - low) * torch.rand((*shape, 2), generator=generator) - uv
    length = offset.norm(dim=-1, keepdim=True)
    direction = torch.where(length > 1e-3, offset / length.clamp(min=1e-3), torch.ones_like(offset) / math.sqrt(2))
    shift = direction * length.clamp(min=least)
    inside = ((uv + shift >= low) & (uv + shift <= high)).all(-1, keepdim=True)
    return (uv + torch.where(inside, shift, -shift)).maximum(low).minimum(high)


def pixloc_covariance(problem: AlignmentProblem, end: Linearization) -> Float[Tensor, "6 6"] | None:
    """``covariance_from_normal`` of the finest level's normal equations at the end.

    None where no point is in view.
    """
    H = _normalized(problem, end)
    return None if H is None else covariance_from_normal(H / _TIMES**2)


def _precision(problem: AlignmentProblem, pose: Pose, end: Linearization) -> float:
    """Of the normal equations at the end."""
    H = _normalized(problem, end)
    if H is None:
        return 0.0
    local = pose.transform(problem.xyz[0].to("cpu", torch.float64))
    return precision_from_normal(H, float(local[end.valid[0].any(-1).cpu(), 2].median()))


def _normalized(problem: AlignmentProblem, end: Linearization) -> Float[Tensor, "6 6"] | None:
    """Normal equations as if the residual of each channel were noise."""
    valid: Bool[Tensor, "N K"] = end.valid[0]
    if not bool(valid.any()):
        return None
    weight = torch.where(end.valid, end.irls if end.confidence is None else end.irls * end.confidence, 0.0)
    squared = torch.where(end.valid, end.cost, 0.0)
    noise = float((weight * squared).sum() / weight.sum().clamp(min=1e-12)) / problem.features.shape[-1]
    return normal_equations(end)[0][0].double().cpu() / max(noise, 1e-12)
