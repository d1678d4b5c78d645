"""How wrong is a pose? MicKey's training losses of one hypothesis against the true pose.

Paper Eq. (7): the virtual correspondence reprojection error (VCRE), how far virtual points in front of the camera move
in the image when the pose is wrong. As published in the code it is measured in both directions, clipped to the image
and softly clipped; the paper's plain form is an option. The pose loss (rotation angle plus translation) is the other
published choice. All are differentiable in the estimated pose and broadcast over batch shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.solvers.vcre import virtual_shift

LossKind = Literal["vcre", "pose"]
VcreForm = Literal["symmetric", "paper"]
_PIXEL_EPS = 1e-6  # px^2 inside the root: a finite gradient at zero
_MIN_ABS_DEPTH = 1e-8  # metres; the published 1e-16 has infinite derivatives at depth zero
_COSINE_LIMIT = 0.99999  # the arc cosine has no derivative at 1
_SOFT_PIXELS = 80.0
_SOFT_POSE = 0.9  # radians and metres


@dataclass(frozen=True)
class PoseLossConfig:
    """Which loss of a pose; defaults are the published code's."""

    kind: LossKind = "vcre"
    """``vcre`` (Eq. (7)) or ``pose`` (rotation angle plus L1 of the translation)."""
    soft_clip: bool = True
    """Through tanh, scale 80 px or 0.9 rad and 0.9 m."""
    vcre_form: VcreForm = "symmetric"
    """``symmetric`` (mean of both directions, in image 0 and image 1) or ``paper`` (one direction,
    in image 1)."""
    clip_px: float | None = 720.0
    """Both coordinates of a projection are clipped to 0..clip_px, None for no clipping; the paper's
    raw loss is ``soft_clip=False, vcre_form="paper", clip_px=None``."""
    max_loss: float | None = None
    """What a useless pose costs (null hypothesis), None for the published value."""

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, LossKind), ("vcre_form", self.vcre_form, VcreForm)):
            if value not in get_args(known):
                raise ValueError(f"PoseLossConfig.{name} must be one of {', '.join(get_args(known))}, got {value!r}")
        for name in ("clip_px", "max_loss"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"PoseLossConfig.{name} must be positive, got {getattr(self, name)}")

    @property
    def worst(self) -> float:
        """The loss of the null hypothesis.

        0.8 with soft clipping (87.9 px), else 90 px or 1.5 rad + m. Differs from the paper: 120 px
        there.
        """
        if self.max_loss is not None:
            return self.max_loss
        if self.soft_clip:
            return 0.8
        return 90.0 if self.kind == "vcre" else 1.5


def soft_clipped(pixels: float) -> float:
    """What a VCRE of so many pixels costs with soft clipping. ``tanh(px / 80)``."""
    return math.tanh(pixels / _SOFT_PIXELS)


def vcre_loss(
    estimated: Pose, true: Pose, camera0: Camera, camera1: Camera, config: PoseLossConfig | None = None
) -> Float[Tensor, "*b"]:
    """Virtual correspondence reprojection error in pixels, or ``tanh(px / 80)`` with soft clipping; paper Eq. (7).

    Poses are ``1_from_0``; cameras set the pixels (their pinhole part; those of the original photos as published).
    Batch shapes broadcast.
    Differs from the paper: the mean of two directions, composed the other way round, clipped to 0..720 px and through
    tanh; ``vcre_form="paper"`` is the one direction of Eq. (7).
    """
    config = config or PoseLossConfig()
    if config.vcre_form == "paper":
        pixels = reprojection_shift(estimated @ true.inverse(), camera1, config.clip_px)
    else:
        there = reprojection_shift(true.inverse() @ estimated, camera0, config.clip_px)
        back = reprojection_shift(true @ estimated.inverse(), camera1, config.clip_px)
        pixels = 0.5 * (there + back)
    return torch.tanh(pixels / _SOFT_PIXELS) if config.soft_clip else pixels


def reprojection_shift(motion: Pose, camera: Camera, clip_px: float | None) -> Float[Tensor, "*b"]:
    """Mean distance, pixels, between the images of the virtual points before and after ``motion``:
    Eq. (7) one way."""
    return virtual_shift(motion, camera, clip_px, smoothing=_PIXEL_EPS, min_abs_depth=_MIN_ABS_DEPTH)


def rotation_error(estimated: Pose, true: Pose) -> Float[Tensor, "*b"]:
    """Angle between two rotations, radians. No gradient within 0.3 degrees of 0 and of half a turn.

    As published, with the published derivative for each entry of ``R``; the error itself is
    ``Pose.angle_to``.
    """
    trace = (estimated.R * true.R).sum((-1, -2))
    return torch.acos(((trace - 1) / 2).clamp(-_COSINE_LIMIT, _COSINE_LIMIT))


def translation_error(estimated: Pose, true: Pose) -> Float[Tensor, "*b"]:
    """L1 distance of the translations, metres."""
    return (estimated.t - true.t).abs().sum(-1)


def pose_loss(estimated: Pose, true: Pose, config: PoseLossConfig | None = None) -> Float[Tensor, "*b"]:
    """Rotation error plus translation error (radians + metres), or the tanh of each over 0.9 with soft clipping."""
    rotation, translation = rotation_error(estimated, true), translation_error(estimated, true)
    if config is None or config.soft_clip:
        return torch.tanh(rotation / _SOFT_POSE) + torch.tanh(translation / _SOFT_POSE)
    return rotation + translation


def hypothesis_loss(
    estimated: Pose, true: Pose, camera0: Camera, camera1: Camera, config: PoseLossConfig
) -> Float[Tensor, "*b"]:
    """The configured loss of each pose."""
    if config.kind == "pose":
        return pose_loss(estimated, true, config)
    return vcre_loss(estimated, true, camera0, camera1, config)
