"""The similarity between two sets of points, robustly: scale, rotation and translation (Umeyama 1991)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.solvers.procrustes import kabsch

_DRAWS = 300
_INLIER_SIGMAS = 3.0


@dataclass(frozen=True, eq=False)
class Similarity:
    """``x1 = scale R x0 + t``, float64.

    inliers: the points it was fitted to. rms: of their distances, in units of ``x1``. log_sigma: standard deviation of the
    logarithm of the scale, from the scatter of the points.
    """

    scale: float
    R: Float[Tensor, "3 3"]
    t: Float[Tensor, "3"]
    inliers: Bool[Tensor, " N"]
    rms: float
    log_sigma: float

    def transform(self, xyz: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Points of the first set -> points of the second."""
        return self.scale * xyz.double() @ self.R.mT + self.t


def fit_similarity(
    xyz0: Float[Tensor, "N 3"], xyz1: Float[Tensor, "N 3"], used: Bool[Tensor, " N"] | None = None, sigma: float = 0.0
) -> Similarity | None:
    """Least squares over the points that are ``used`` (default all). sigma: of a coordinate, where it is known to be no
    less. None where they do not fix it: fewer than three, or in one line."""
    used = torch.ones(len(xyz0), dtype=torch.bool) if used is None else used
    a, b = xyz0[used].double(), xyz1[used].double()
    if len(a) < 3:
        return None
    fit = kabsch(a, b)
    spread = float((a - a.mean(0)).square().sum())
    if not bool(fit.rank_ok) or spread <= 0:
        return None
    R = fit.pose.R
    turned = (a - a.mean(0)) @ R.mT
    scale = float(((b - b.mean(0)) * turned).sum()) / spread
    if not (math.isfinite(scale) and scale > 0):
        return None
    t = b.mean(0) - scale * R @ a.mean(0)
    squares = (scale * a @ R.mT + t - b).square().sum(-1)
    # 3 N numbers, 7 of which the similarity takes
    noise = max(math.sqrt(float(squares.sum()) / max(1, 3 * len(a) - 7)), sigma)
    return Similarity(scale, R, t, used, math.sqrt(float(squares.mean())), noise / (scale * math.sqrt(spread)))


def robust_similarity(
    xyz0: Float[Tensor, "N 3"],
    xyz1: Float[Tensor, "N 3"],
    sigma: Float[Tensor, " N"],
    generator: torch.Generator | None = None,
) -> Similarity | None:
    """The similarity that most points agree with within three standard deviations (RANSAC), fitted to those.

    sigma: of each coordinate of ``xyz1``. None where the points do not fix one, or fewer than half agree.
    """
    count = len(xyz0)
    if count < 3:
        return None
    generator = generator or torch.Generator().manual_seed(0)
    limit = _INLIER_SIGMAS * math.sqrt(3) * sigma.double()
    typical = float(sigma.double().median())
    best: Similarity | None = None
    agreeing = torch.zeros(count, dtype=torch.bool)
    for draw in range(_DRAWS + 1):
        # all at once first: mostly nothing is wrong
        chosen = torch.ones(count, dtype=torch.bool) if draw == 0 else torch.zeros(count, dtype=torch.bool)
        if draw:
            chosen[torch.randperm(count, generator=generator)[:3]] = True
        fit = fit_similarity(xyz0, xyz1, chosen)
        if fit is None:
            continue
        near = (fit.transform(xyz0) - xyz1.double()).norm(dim=-1) <= limit
        if int(near.sum()) > int(agreeing.sum()):
            best, agreeing = fit, near
        if bool(agreeing.all()):
            break
    if best is None or 2 * int(agreeing.sum()) < count:
        return None
    return fit_similarity(xyz0, xyz1, agreeing, typical)
