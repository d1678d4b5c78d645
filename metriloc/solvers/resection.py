"""How many 2D-3D matches some camera of unknown numbers explains: the direct linear transform in RANSAC.

Eleven numbers are free: pose, focal lengths, principal point, skew. It answers no pose, because walls leave most of them
open; but what it explains and a stated camera does not speaks against that camera.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_MINIMAL = 6
_HYPOTHESES, _ROUNDS = 1000, 5


def projective_inliers(
    uv: Float[Tensor, "N 2"], xyz: Float[Tensor, "N 3"], max_error_px: float, seed: int = 0
) -> Bool[Tensor, " N"]:
    """The matches that one projective camera ``P [3, 4]`` agrees with (Hartley and Zisserman 2004, algorithm 7.1).

    uv: of a photo without distortion; xyz: NaN where unknown. Empty where fewer than six matches are known.

    >>> xyz = torch.rand(50, 3) + torch.tensor([0.0, 0.0, 2.0])
    >>> int(projective_inliers(700 * xyz[:, :2] / xyz[:, 2:] + 90, xyz, 1.0).sum())
    50
    """
    usable = torch.isfinite(uv).all(-1) & torch.isfinite(xyz).all(-1)
    inliers = torch.zeros_like(usable)
    if int(usable.sum()) < _MINIMAL:
        return inliers
    points, scale = _normalized(uv[usable].double())
    world, _ = _normalized(xyz[usable].double())
    rows = _equations(points, world)
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(_HYPOTHESES, len(points), generator=generator).topk(_MINIMAL, dim=1).indices
    cameras = _solved(rows[index].flatten(1, 2))
    best = torch.zeros(len(points), dtype=torch.bool)
    for _ in range(1 + _ROUNDS):  # the best of many first, then least squares on all that agree
        agree = _errors(cameras, points, world) <= max_error_px * scale
        chosen = agree[agree.sum(-1).argmax()]
        if int(chosen.sum()) <= int(best.sum()) or int(chosen.sum()) < _MINIMAL:
            break
        best = chosen
        cameras = _solved(rows[best].flatten(0, 1)[None])
    inliers[usable] = best
    return inliers


def _normalized(x: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N D"], float]:
    """Around zero, with a mean distance of one; and by what lengths were multiplied."""
    x = x - x.mean(0)
    scale = 1 / max(float(x.norm(dim=-1).mean()), 1e-12)
    return x * scale, scale


def _equations(uv: Float[Tensor, "N 2"], xyz: Float[Tensor, "N 3"]) -> Float[Tensor, "N 2 12"]:
    """Two rows a match, linear in the camera."""
    X = torch.cat([xyz, torch.ones_like(xyz[:, :1])], -1)
    zero = torch.zeros_like(X)
    first = torch.cat([X, zero, -uv[:, :1] * X], -1)
    second = torch.cat([zero, X, -uv[:, 1:] * X], -1)
    return torch.stack([first, second], 1)


def _solved(rows: Float[Tensor, "B M 12"]) -> Float[Tensor, "B 3 4"]:
    """The camera that makes the rows smallest."""
    return torch.linalg.eigh(rows.mT @ rows).eigenvectors[..., 0].reshape(-1, 3, 4)


def _errors(cameras: Float[Tensor, "B 3 4"], uv: Float[Tensor, "N 2"], xyz: Float[Tensor, "N 3"]) -> Tensor:
    """Distances in the photo, infinite for points on the other side of a camera than most."""
    seen = cameras[:, :, :3] @ xyz.mT + cameras[:, :, 3:]
    side = seen[:, 2].sign()
    side = side * torch.where(side.sum(-1, keepdim=True) < 0, -1.0, 1.0)
    off = (seen[:, :2] / seen[:, 2:] - uv.mT).norm(dim=1)
    return torch.where((side > 0) & torch.isfinite(off), off, torch.inf)
