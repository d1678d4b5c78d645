"""How sure the pose of two photos is, by the matches that agree with it: rotation and direction, without the length."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.solvers.pinhole import pinhole_points
from metriloc.solvers.shared_focal import EpipolarProblem, EpipolarState

_MIN_MATCHES = 8
_FREE = 5  # rotation, direction
_LEAST_PX = 0.5  # matches that agree better still share errors of camera and features
_TIMES = 3.0  # residuals are not independent: errors on rendered pairs over what they let expect
_FLOOR_DEG = (0.1, 0.1, 0.1, 0.5, 0.5)  # what cameras that are not quite known leave open, however many the matches
_WIDEST = 1.0  # radians: without parallax a direction is no less known than that


@torch.no_grad()
def relative_covariance(
    pose: Pose, uv0: Float[Tensor, "N 2"], uv1: Float[Tensor, "N 2"], cameras: tuple[Camera, Camera]
) -> Float[Tensor, "5 5"] | None:
    """Covariance of rotation (3) and direction (2) of a relative pose, square radians.

    pose: ``1_from_0`` of any length but 0. uv0, uv1: matches that agree with it. The error is ``R' = Exp(w) R`` and
    ``d' = d + across(d) e``, ordered ``[w, e]``. Gauss-Newton of the Sampson errors at the pose, and a floor. None for
    fewer than eight matches.
    """
    (points0, usable0, camera0), (points1, usable1, camera1) = (
        pinhole_points(uv.detach(), camera) for uv, camera in zip((uv0, uv1), cameras, strict=True)
    )
    usable = usable0 & usable1
    length = float(pose.distance())
    if int(usable.sum()) < _MIN_MATCHES or not length > 0:
        return None
    normalized, focals = [], []
    for points, theirs in ((points0, camera0), (points1, camera1)):
        fx, fy, cx, cy = theirs["params"]
        focals.append(torch.tensor([fx, fy], dtype=torch.float64))
        center = torch.tensor([cx, cy], dtype=torch.float64)
        normalized.append((torch.from_numpy(points[usable]) - center) / focals[-1])
    double = pose.detach().to(device="cpu", dtype=torch.float64)
    problem = EpipolarProblem(normalized[0], normalized[1], focals[0], focals[1], 1.0)
    residual, J = problem.residual(EpipolarState(double.R, double.t / length, 0.0))
    J = J[:, :_FREE]
    sigma = max(1.4826 * float(residual.abs().median()), _LEAST_PX) * _TIMES
    H = J.mT @ J / sigma**2 + torch.eye(_FREE, dtype=J.dtype) / _WIDEST**2
    return torch.linalg.inv(H) + torch.diag(torch.deg2rad(H.new_tensor(_FLOOR_DEG)).square())
