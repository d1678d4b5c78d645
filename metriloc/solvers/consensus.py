"""Score hypotheses of a pose by soft inliers, and find the best of many."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose

_NARROW = 1000.0  # squares of thresholds
_QUICK_ERROR = 1e-3  # of every inlier: such squares have errors of 3e-4 squares of thresholds
_RESIDUAL_EPS = 1e-6  # inside the root: a finite gradient at zero


def residuals(pose: Pose, xyz0: Float[Tensor, "*b N 3"], xyz1: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b N"]:
    """``sqrt(|R x0 + t - x1|^2 + 1e-6)`` in metres."""
    return ((pose.transform(xyz0) - xyz1).square().sum(-1) + _RESIDUAL_EPS).sqrt()


def soft_inliers(residual: Float[Tensor, "*b N"], threshold: float) -> Float[Tensor, "*b"]:
    """Soft count of inliers, MicKey paper Eq. (5).

    ``sum sigmoid(beta (tau - r))`` with ``beta = 5 / tau``.
    """
    return torch.sigmoid(_steepness(threshold) * (threshold - residual)).sum(-1)


def _steepness(threshold: float) -> float:
    """beta of the soft inlier count, 1/metres."""
    if not threshold > 0:
        raise ValueError(f"the soft-inlier threshold must be positive metres, got {threshold}")
    return 5 / threshold


def score_hypotheses(
    poses: Pose, xyz0: Float[Tensor, "Q S 3"], xyz1: Float[Tensor, "Q S 3"], threshold: float
) -> Float[Tensor, "Q J"]:
    """Soft inliers of J poses for each of Q sets of correspondences, poses [Q, J]; no gradients.

    One matrix product a set and everything after it in place: the residuals of all sets never stand in memory at once.
    """
    _check_sets(poses, xyz0, xyz1)
    scores = []
    for q in range(len(xyz0)):
        R, t = poses.R[q], poses.t[q]
        difference = torch.baddbmm(t[..., None], R, xyz0[q].mT.expand(len(R), 3, -1))
        difference -= xyz1[q].mT.contiguous()
        scores.append(_soft_inliers_in_place(difference.square_().sum(1), threshold))
    return torch.stack(scores)


def best_hypothesis(
    poses: Pose,
    usable: Bool[Tensor, "Q J"],
    xyz0: Float[Tensor, "Q S 3"],
    xyz1: Float[Tensor, "Q S 3"],
    threshold: float,
) -> tuple[int, int] | None:
    """(q, j) of the usable pose with the largest ``score_hypotheses``, the first of equals; None without any.

    Scores are estimated by ``_quick_scores``, and only poses that may be the best by that are scored themselves.
    """
    _check_sets(poses, xyz0, xyz1)
    quick = _quick_scores(poses, xyz0, xyz1, threshold)
    usable = usable & torch.isfinite(quick)
    if not bool(usable.any()):
        return None
    quick = quick.where(usable, -torch.inf)
    q, j = (quick >= quick.max() - _QUICK_ERROR * xyz0.shape[1]).nonzero(as_tuple=True)
    # a few at a time: where all poses are alike, all of them may be the best
    scores = torch.cat(
        [
            soft_inliers(residuals(poses[a, b], xyz0[a], xyz1[a]), threshold)
            for a, b in zip(q.split(64), j.split(64), strict=True)
        ]
    )
    best = int(scores.argmax())
    return int(q[best]), int(j[best])


def _quick_scores(
    poses: Pose, xyz0: Float[Tensor, "Q S 3"], xyz1: Float[Tensor, "Q S 3"], threshold: float
) -> Float[Tensor, "Q J"]:
    """``score_hypotheses`` within ``_QUICK_ERROR`` of the number of correspondences, in half the time.

    A squared residual is linear in 17 numbers of the pose: |R x + t - y|^2 = |x|^2 + |y|^2 + |t|^2 + 2 t.R x - 2 t.y -
    2 y.R x. Where points lie so far apart that the squares would lose digits, scores are those of ``score_hypotheses``.
    """
    # about the middle of the points squares are small
    middle0, middle1 = xyz0.mean(1, keepdim=True), xyz1.mean(1, keepdim=True)
    centered0, centered1 = xyz0 - middle0, xyz1 - middle1
    shifted = poses.t + (poses.R @ middle0[..., None])[..., 0] - middle1
    squares = centered0.square().sum(-1) + centered1.square().sum(-1)
    narrow = (squares.amax(-1) <= _NARROW * threshold**2).tolist()
    scores = []
    for q, (x, y, R, t) in enumerate(zip(centered0, centered1, poses.R, shifted, strict=True)):
        if not narrow[q]:
            scores.append(score_hypotheses(poses[q : q + 1], xyz0[q : q + 1], xyz1[q : q + 1], threshold)[0])
            continue
        products, one = (y[:, :, None] * x[:, None, :]).flatten(1), torch.ones_like(x[:, :1])
        points = torch.cat([products, x, y, squares[q, :, None], one], 1)
        turned, one = 2 * (t[:, None] @ R)[:, 0], torch.ones_like(t[:, :1])
        numbers = torch.cat([-2 * R.flatten(1), turned, -2 * t, one, t.square().sum(-1, keepdim=True)], 1)
        scores.append(_soft_inliers_in_place((numbers @ points.mT).clamp_(min=0), threshold))
    return torch.stack(scores)


def _soft_inliers_in_place(squared: Float[Tensor, "J S"], threshold: float) -> Float[Tensor, " J"]:
    beta = _steepness(threshold)
    return squared.add_(_RESIDUAL_EPS).sqrt_().mul_(-beta).add_(beta * threshold).sigmoid_().sum(-1)


def _check_sets(poses: Pose, xyz0: Tensor, xyz1: Tensor) -> None:
    if xyz0.shape != xyz1.shape or xyz0.ndim != 3 or len(poses.shape) != 2 or poses.shape[0] != len(xyz0):
        raise ValueError(
            f"need poses [Q, J] and points [Q, S, 3], got {list(poses.shape)}, {list(xyz0.shape)}, {list(xyz1.shape)}"
        )
