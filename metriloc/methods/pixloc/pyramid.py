"""What feature networks of PixLoc make of photos, and what the localiser and the training want of such a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FeaturePyramid:
    """Maps from fine to coarse, not normalised.

    And how much each cell can be trusted (0..1), or None.
    """

    features: tuple[Float[Tensor, "B C h w"], ...]
    confidences: tuple[Float[Tensor, "B 1 h w"], ...] | None


class PyramidNetwork(Protocol):
    """Photos, RGB in 0..1, to a ``FeaturePyramid``; must also be an ``nn.Module``."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of each level, finest first."""
        ...

    @property
    def smallest_side(self) -> int:
        """Pixels that a photo must have in each direction."""
        ...

    def __call__(self, image: Float[Tensor, "B 3 H W"]) -> FeaturePyramid:
        """The maps."""
        ...

    def fold_batch_norms(self) -> Any:
        """A copy for inference, which gives the same maps up to rounding."""
        ...


def check_image(image: Tensor, smallest: int) -> None:
    """ValueError unless ``image`` is [B, 3, H, W] of floats with sides of at least ``smallest``."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
        raise ValueError(f"image must be floats of shape [B, 3, H, W], got {image.dtype} {list(image.shape)}")
    if min(image.shape[-2:]) < smallest:
        raise ValueError(f"an image of {image.shape[-1]}x{image.shape[-2]} pixels is smaller than {smallest} pixels")


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its lists as tuples, which frozen configurations hold."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
