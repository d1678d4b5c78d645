"""Where an alignment starts in training: somewhere between knowing nothing and the truth.

A start lies on a path of poses that ends at the truth: from the identity (the query is taken to stand where the
reference stands), or from a random disturbance. It is placed by a share of the way, or by how far it moves the points
in the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, so3_exp, so3_log

StartKind = Literal["identity", "share", "error"]
FEW_POINTS = 10
"""Points that truth and start must both see for an error in the image to mean something."""


@dataclass(frozen=True)
class Start:
    """How starts are drawn.

    kind: ``identity``; ``share`` of the way from the identity to the truth, uniform within ``share``; ``error``, as far
    from the truth as a median error in the image, uniform within ``error`` pixels, allows. The rest is for ``error``:
    disturbed, how often the path comes from a random disturbance of up to ``rotation_deg`` degrees and ``translation``
    times the median depth, in place of the identity; steps, how finely the path is cut.
    """

    kind: StartKind = "identity"
    share: tuple[float, float] = (0.75, 1.0)
    error: tuple[float, float] = (0.0, 50.0)
    disturbed: float = 0.0
    rotation_deg: float = 15.0
    translation: float = 0.3
    steps: int = 50

    def __post_init__(self) -> None:
        if self.kind not in ("identity", "share", "error"):
            raise ValueError(f"Start.kind must be 'identity', 'share' or 'error', got {self.kind!r}")
        for name in ("share", "error"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"Start.{name} must be two numbers, 0 <= low <= high, got {(low, high)}")
        if not 0 <= self.disturbed <= 1 or self.steps < 1:
            raise ValueError(f"Start.disturbed must be in 0..1 and steps positive, got {self.disturbed}, {self.steps}")


def draw_start(how: Start, truth: Pose, xyz: Float[Tensor, "N 3"], camera: Camera, generator: torch.Generator) -> Pose:
    """A start for one pair. truth: ``query_from_reference``; xyz: points of the reference, in its camera frame; camera: of
    the query. All chance comes from ``generator`` (CPU), two numbers a call at least."""
    if how.kind == "identity":
        return Pose.identity((), truth.dtype, truth.device)
    place = float(torch.rand((), generator=generator))
    if how.kind == "share":
        low, high = how.share
        return partway(truth, low + place * (high - low))
    low, high = how.error

    def path(share: float) -> Pose:
        return partway(truth, share)

    if float(torch.rand((), generator=generator)) < how.disturbed:
        seen = xyz[:, 2] > 0
        depth = float(xyz[seen, 2].median()) if bool(seen.any()) else 1.0
        tangent = _disturbance(how, depth, generator).to(truth.t)

        def path(share: float) -> Pose:
            return Pose.from_tangent((1 - share) * tangent) @ truth

    return start_at_error(path, xyz, camera, low + place * (high - low), how.steps)


def partway(truth: Pose, share: float) -> Pose:
    """A share of the way from the identity. Rotation vector and translation are scaled by it."""
    return Pose(so3_exp(share * so3_log(truth.R)), share * truth.t)


def start_at_error(
    path: Callable[[float], Pose], xyz: Float[Tensor, "N 3"], camera: Camera, max_error: float, steps: int = 50
) -> Pose:
    """The first of ``steps + 1`` poses on a path to ``path(1)``, the truth, from where the points that both see lie
    within ``max_error`` pixels (median) of their true places; the truth when none is (fewer than ten points count as none).
    """
    truth = path(1.0)
    uv_true, seen = camera.project(truth.transform(xyz))
    for share in torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist():
        pose = path(share)
        uv, visible = camera.project(pose.transform(xyz))
        both = seen & visible
        if int(both.sum()) >= FEW_POINTS and float((uv - uv_true)[both].norm(dim=-1).quantile(0.5)) < max_error:
            return pose
    return truth


def _disturbance(how: Start, depth: float, generator: torch.Generator) -> Float[Tensor, " 6"]:
    """[t, w]: a random direction each, of the lengths that ``how`` allows at most; the path goes from there to zero."""
    direction = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    size = torch.rand(2, 1, generator=generator, dtype=torch.float64)
    reach = torch.tensor([[how.translation * depth], [how.rotation_deg * torch.pi / 180]], dtype=torch.float64)
    return (direction * size * reach).flatten()
