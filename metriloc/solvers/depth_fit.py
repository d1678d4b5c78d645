"""Whether a depth map belongs to a photo: its depths against those that a second photo triangulates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.solvers.joint import DepthError
from metriloc.solvers.two_view import Cameras, log_depths

_MIN_COUNT = 20
_SHIFT_SIGMAS = 3.0  # a triangulated depth means something where its e-fold moves a point by more of the pixel noise
_FITS = 5
_TILT_SIGMAS = 3.0
_FAR_TOO_WIDE = 3.5
_TOO_WIDE, _UNEXPLAINED = 2.2, 0.6
_UNORDERED, _FLAT = 0.25, 1.5


@dataclass(frozen=True)
class DepthFit:
    """How the depths of a photo lie around the triangulated ones, once scale and tilt are taken out.

    scatter: robust standard deviation of the logarithm of their ratio. excess: the same in sigmas of what the kind of
    depths and the parallax allow, 1 for a map that fits. variation: robust standard deviation of the triangulated
    log-depths; visible: in sigmas of what the parallax allows alone. order: rank correlation of the two depths, 0 for a
    constant map. count: matches.
    """

    scatter: float
    excess: float
    variation: float
    visible: float
    order: float
    count: int

    @property
    def fits(self) -> bool:
        """False where the map clearly belongs to something else.

        Clearly: it scatters far too much (3.5 sigmas); or too much (2.2), and by more than 0.6 of the variation of the
        scene, that is, it explains next to nothing of it; or near and far have no order in it (rank correlation below
        0.25) where the parallax tells them apart. Limits from own and foreign maps of NYUv2's training half.
        """
        wide = self.excess > _FAR_TOO_WIDE
        wide |= self.excess > _TOO_WIDE and self.scatter > _UNEXPLAINED * self.variation
        return not (wide or (self.order < _UNORDERED and self.visible > _FLAT))


def depth_fit(
    pose: Pose,
    uvs: tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]],
    depth0: Float[Tensor, " N"],
    cameras: Cameras,
    error: DepthError,
    pixel_sigma: float,
) -> DepthFit | None:
    """How well depths of photo 0 fit its inlier matches.

    - pose: 1_from_0, of any length, found without the depths.
    - depth0: 0 or NaN where unknown.
    - error: how depths of this kind err; pixel_sigma: of keypoints.

    None below twenty matches with a depth and enough parallax to triangulate one.
    """
    measured, triangulated, shift = log_depths(pose, uvs[0], depth0, uvs[1], cameras, _SHIFT_SIGMAS * pixel_sigma)
    if len(measured) < _MIN_COUNT:
        return None
    open_sigma = pixel_sigma / shift
    sigma = (open_sigma.square() + error.shape**2).sqrt()
    residual = _without_tilt(measured - triangulated, measured - measured.mean(), sigma, error.tilt)
    centered = triangulated - triangulated.median()
    return DepthFit(
        _spread(residual),
        _spread(residual / sigma),
        _spread(centered),
        _spread(centered / open_sigma),
        _rank_correlation(measured, triangulated),
        len(measured),
    )


def _without_tilt(ratio: Tensor, lever: Tensor, sigma: Tensor, tilt_sigma: float) -> Tensor:
    """``ratio - scale - tilt * lever``, robustly; the tilt stays within three sigmas of its prior."""
    A = torch.stack([torch.ones_like(lever), lever], -1) / sigma[:, None]
    prior = torch.diag(ratio.new_tensor([0.0, tilt_sigma**-2]))
    residual = ratio - ratio.median()
    for _ in range(_FITS):
        scale = max(_spread(residual / sigma), 1.0)
        weight = 1 / (1 + (residual / sigma / scale).square())[:, None]  # Cauchy
        b = (weight * A).mT @ (ratio / sigma)
        found = torch.linalg.solve((weight * A).mT @ A + prior, b)
        # depths that are noise would be explained by a tilt of 1
        tilt = found[1].clamp(-_TILT_SIGMAS * tilt_sigma, _TILT_SIGMAS * tilt_sigma)
        residual = ratio - tilt * lever
        residual = residual - residual.median()
    return residual


def _spread(values: Tensor) -> float:
    return 1.4826 * float(values.abs().median())


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's; 0 where either is constant. Equal values share their mean rank."""
    ranks = torch.stack([_ranks(a), _ranks(b)])
    centered = ranks - ranks.mean(-1, keepdim=True)
    norm = math.sqrt(float(centered.square().sum(-1).prod()))
    return float((centered[0] * centered[1]).sum()) / norm if norm > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2).double()[inverse]
