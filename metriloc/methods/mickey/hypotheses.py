"""All hypotheses of a training step at once: refine the minimal sets, then fit and score with gradients.

Paper Eqs. (4)-(6). The refinement itself has no gradient and fits again only hypotheses that still gain inliers; what
it leaves is a set of matches for each hypothesis, and the differentiable fit and score of that set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.methods.mickey.solver import SolverConfig, threshold_unit
from metriloc.solvers.consensus import residuals, soft_inliers
from metriloc.solvers.procrustes import kabsch

RefinementSet = Literal["lagging", "last"]


@dataclass(frozen=True, eq=False)
class RefinementSets:
    """mask: the matches of each hypothesis.

    grown: no longer its minimal set; usable: they fix a pose.
    """

    mask: Bool[Tensor, "G J S"]
    grown: Bool[Tensor, "G J"]
    usable: Bool[Tensor, "G J"]


@dataclass(frozen=True, eq=False)
class Hypotheses:
    """Refined poses ``1_from_0``, their soft inliers 0..S, and where they came from. usable: fixed by their matches."""

    pose: Pose
    score: Float[Tensor, "B Q J"]
    usable: Bool[Tensor, "B Q J"]
    sets: RefinementSets


def make_hypotheses(
    xyz0: Float[Tensor, "B Q S 3"],
    xyz1: Float[Tensor, "B Q S 3"],
    present: Bool[Tensor, "B Q S"],
    minimal: Int[Tensor, "B Q J n"],
    config: SolverConfig,
    which: RefinementSet = "lagging",
) -> Hypotheses:
    """Refine every minimal set, then fit and score again with gradients to the points: Eqs. (4)-(6).

    The gradient passes the last fit only, as published. Hypotheses whose matches do not fix a pose are the identity
    with score zero and no gradient.
    """
    B, Q, J = minimal.shape[:3]
    xyz0, xyz1, present, minimal = (x.flatten(0, 1) for x in (xyz0, xyz1, present, minimal))
    unit = threshold_unit(xyz0, xyz1, config)
    xyz0, xyz1 = xyz0 / unit, xyz1 / unit
    sets = refinement_sets(xyz0.detach(), xyz1.detach(), present, minimal, config, which)
    pose = fit_sets(xyz0, xyz1, minimal, sets)
    residual = residuals(pose, xyz0[:, None].expand(-1, J, -1, -1), xyz1[:, None].expand(-1, J, -1, -1))
    counted = present[:, None] & sets.usable[..., None]
    score = soft_inliers(residual.where(counted, torch.inf), config.soft_inlier_threshold)
    R, t, score, usable = (x.unflatten(0, (B, Q)) for x in (pose.R, pose.t * unit, score, sets.usable))
    return Hypotheses(Pose(R, t), score, usable, sets)


def fit_sets(xyz0: Float[Tensor, "G S 3"], xyz1: Float[Tensor, "G S 3"], minimal: Tensor, sets: RefinementSets) -> Pose:
    """The differentiable fits, Eq. (4).

    Minimal sets by their few points, grown ones by masks over the whole set.
    """
    shape = sets.usable.shape
    R = torch.eye(3, dtype=xyz0.dtype, device=xyz0.device).expand(*shape, 3, 3)
    t = xyz0.new_zeros(*shape, 3)
    for grown in (False, True):
        g, j = (sets.usable & (sets.grown == grown)).nonzero(as_tuple=True)
        if len(g) == 0:
            continue
        if grown:
            points, weights = (xyz0[g], xyz1[g]), sets.mask[g, j].to(xyz0)
        else:
            place = minimal[g, j]
            points, weights = (xyz0[g[:, None], place], xyz1[g[:, None], place]), None
        for x in points:
            if x.requires_grad:
                x.register_hook(_drop_non_finite)
        fit = kabsch(*points, weights)
        R, t = R.index_put((g, j), fit.pose.R), t.index_put((g, j), fit.pose.t)
    return Pose(R, t)


def _drop_non_finite(gradient: Float[Tensor, "M N 3"]) -> Tensor:
    """The SVD has no derivative where singular values coincide: that hypothesis says nothing, the others still do."""
    return gradient.where(torch.isfinite(gradient).all(-1).all(-1)[:, None, None], 0.0)


@torch.no_grad()
def refinement_sets(
    xyz0: Float[Tensor, "G S 3"],
    xyz1: Float[Tensor, "G S 3"],
    present: Bool[Tensor, "G S"],
    minimal: Int[Tensor, "G J n"],
    config: SolverConfig,
    which: RefinementSet = "lagging",
) -> RefinementSets:
    """Grow each minimal set to its inliers while their number grows, at most ``max_refinements`` times: Eq. (6).

    ``lagging``, as published: the set whose fit gave the largest number of inliers, one step behind them.
    ``last``: those inliers themselves (the paper); where they do not fix a pose, the set before them.
    """
    S, (G, J, n) = xyz0.shape[1], minimal.shape
    mask = torch.zeros(G, J, S, dtype=torch.bool, device=xyz0.device).scatter_(2, minimal, True)
    group = torch.arange(G, device=xyz0.device)[:, None, None]
    fit = kabsch(xyz0[group, minimal], xyz1[group, minimal])
    usable, grown = fit.rank_ok.clone(), torch.zeros_like(fit.rank_ok)
    # what goes on: the hypothesis, the set it was fitted to and how many inliers it must exceed
    g, j = fit.rank_ok.nonzero(as_tuple=True)
    pose, fitted, count = fit.pose[g, j], mask[g, j], torch.full_like(g, n)
    for step in range(config.max_refinements):
        inlier = (residuals(pose, xyz0[g], xyz1[g]) <= config.inlier_threshold) & present[g]
        number = inlier.sum(-1)
        more = number > count
        g, j, inlier, fitted, count = g[more], j[more], inlier[more], fitted[more], number[more]
        if len(g) == 0:
            break
        if which == "lagging":
            mask[g, j], grown[g, j] = fitted, step > 0
            if step + 1 == config.max_refinements:
                break
        refit = kabsch(xyz0[g], xyz1[g], inlier.to(xyz0))
        ok = refit.rank_ok
        g, j, fitted, count, pose = g[ok], j[ok], inlier[ok], count[ok], refit.pose[ok]
        if which == "last":
            mask[g, j], grown[g, j] = fitted, True
    return RefinementSets(mask, grown, usable)
