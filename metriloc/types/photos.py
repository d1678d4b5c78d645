"""A photo with what is known of its camera, and a pair of photos."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.bounds import require_image_range
from metriloc.geometry import Camera, Pose

GUESSED_FOCAL = 0.1
"""Relative standard deviation from which on a focal length counts as a guess."""


@dataclass(frozen=True, eq=False)
class View:
    """One photo and what is known about its camera.

    - image: RGB in 0..1, float32; half precision is made single.
    - camera: intrinsics of *this* image, pixels, first pixel centre at (0, 0).
    - cam_from_world: pose of the camera, if known.
    - name: how reports call the photo (usually its path).
    - intrinsics_source: one sentence that says where ``camera`` came from.
    - focal_sigma: relative standard deviation of the focal length; 0 when it is known,
      ``GUESSED_FOCAL`` and more when it is only a guess.
    - depth: metres along z, 0 where unknown; any resolution, covering the same field of view as the
      image.

    >>> view = metriloc.load_view("reference.jpg")
    >>> view.size, view.camera.f.tolist(), view.intrinsics_source
    ((640, 480), [520.0, 520.0], 'intrinsics.txt:2 (reference.jpg)')
    """

    image: Float[Tensor, "3 H W"]
    camera: Camera
    cam_from_world: Pose | None = None
    name: str = ""
    intrinsics_source: str = "given"
    depth: Float[Tensor, "h w"] | None = None
    focal_sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[0] != 3:
            raise ValueError(f"View.image must have shape [3, H, W], got {list(self.image.shape)} ({self.name!r})")
        require_image_range(self.image, self.name)
        if self.image.dtype in (torch.float16, torch.bfloat16):
            object.__setattr__(self, "image", self.image.float())
        if self.camera.shape != ():
            raise ValueError(f"View.camera must be a single camera, got batch shape {tuple(self.camera.shape)}")
        if self.depth is not None and self.depth.ndim != 2:
            raise ValueError(f"View.depth must have shape [h, w], got {list(self.depth.shape)} ({self.name!r})")
        if not 0 <= self.focal_sigma < 10:
            raise ValueError(f"View.focal_sigma must be in 0..10, got {self.focal_sigma} ({self.name!r})")

    def detach(self) -> View:
        """Without gradients."""
        pose, depth = self.cam_from_world, self.depth
        return replace(
            self,
            image=self.image.detach(),
            camera=self.camera.detach(),
            cam_from_world=None if pose is None else pose.detach(),
            depth=None if depth is None else depth.detach(),
        )

    @property
    def focal_is_guessed(self) -> bool:
        """Whether nothing but habit speaks for the focal length.

        No answer that rests on it is reliable.
        """
        return self.focal_sigma >= GUESSED_FOCAL

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.shape[2], self.image.shape[1]


@dataclass(frozen=True, eq=False)
class Pair:
    """One training or evaluation sample.

    view0 is the reference, view1 the query; the true pose is None if unknown.

    >>> pair = Pair(metriloc.load_view("reference.jpg"), metriloc.load_view("query.jpg"))
    >>> pair.cam1_from_cam0 is None  # the truth, where it is known
    True
    """

    view0: View
    view1: View
    cam1_from_cam0: Pose | None = None
