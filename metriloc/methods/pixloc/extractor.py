"""From a photo to the feature maps of every level: resizing, the network for inference, and where the maps lie.

``FeatureExtractor`` is what the localiser knows of a network, so that other features (or maps made by hand) can be put in
its place. Every level says by which factors of the full photo it is smaller, so that cameras follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.fixed import FixedNetwork, Look, NetworkRunner, identity_of
from metriloc.bounds import require_flags, require_within
from metriloc.methods.pixloc.network import PixLocNetwork
from metriloc.methods.pixloc.pyramid import FeaturePyramid, PyramidNetwork
from metriloc.types import View


@dataclass(frozen=True, eq=False)
class Extraction:
    """Maps of one photo (batch axis of 1), finest first. scales: of each level against the full photo, (x, y)."""

    pyramid: FeaturePyramid
    scales: tuple[tuple[float, float], ...]


class FeatureExtractor(Protocol):
    """Photos to maps. identity: equal only for equal weights and equal preprocessing."""

    @property
    def identity(self) -> str:
        """Names weights and preprocessing."""
        ...

    @property
    def num_levels(self) -> int:
        """Levels of the pyramid."""
        ...

    def damping(self, level: int) -> Float[Tensor, " 6"] | None:
        """Learned damping factors of a level (0 is the finest), or None."""
        ...

    def __call__(self, view: View, image_scale: int) -> Extraction | None:
        """Maps of the photo reduced by ``image_scale`` more than usual; None for a photo that is too small then."""
        ...


@dataclass(frozen=True)
class ResizeConfig:
    """How photos are brought to a size."""

    size: int | None = 1024
    """Longest side that photos are reduced to, divided (and rounded down) by the image scale; none: as they are."""
    enlarge: bool = False
    """Bring smaller photos up to it too."""
    antialias: bool = False
    """Low-pass filter when reducing; the released networks were trained without."""

    def __post_init__(self) -> None:
        require_within(self, size=(1, 16_384))
        require_flags(self, "enlarge", "antialias")

    def target(self, width: int, height: int, image_scale: int) -> tuple[int, int]:
        """(width, height) that a photo of this size is brought to.

        - width, height: of the photo.
        - image_scale: how many times smaller it is looked at.
        """
        longest = max(width, height)
        wanted = (self.size or longest) // image_scale
        if wanted >= longest and not (self.enlarge and self.size):
            return width, height
        factor = wanted / longest
        return max(1, round(width * factor)), max(1, round(height * factor))


class NetworkExtractor:
    """A ``PixLocNetwork`` for inference: batch norms merged, channels-last memory, no gradients.

    Differs from the published code: the factors are those of the sizes that were made, not the nominal one (up to half
    a pixel at the border).
    """

    def __init__(self, network: PixLocNetwork, weights_id: str, resize: ResizeConfig | None = None) -> None:
        self.resize = resize or ResizeConfig()
        self._weights_id = weights_id
        self._extractor: PyramidNetwork = network.extractor.fold_batch_norms()
        parameter = next(network.extractor.parameters(), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        with torch.no_grad():
            factors = [network.damping(level) for level in range(network.num_levels)]
        self._damping = [None if factor is None else factor.detach() for factor in factors]
        self._weights = identity_of(network.extractor.state_dict(), network.config.extractor)
        self._runner: NetworkRunner | None = None

    @property
    def identity(self) -> str:
        """Weights and preprocessing in one line."""
        resize = self.resize
        whole_cells = "" if self._runner is None else " whole cells"
        said = f"size={resize.size} enlarge={resize.enlarge} antialias={resize.antialias}"
        return f"{self._weights_id} {said}{whole_cells}"

    def fixed(self) -> FixedNetwork:
        """The maps of an image of whole cells of the coarsest level."""
        names = [f"features{level}" for level in range(self.num_levels)]
        module = Look(self._extractor, _tensors)  # type: ignore[arg-type]
        with torch.no_grad():
            side = self._extractor.smallest_side
            confident = self._extractor(torch.zeros(1, 3, side, side, device=self.device)).confidences is not None
        names += [f"confidences{level}" for level in range(self.num_levels if confident else 0)]
        return FixedNetwork("pixloc", module, tuple(names), side, self._weights)

    def sizes_for(self, width: int, height: int, image_scales: Sequence[int] = (1,)) -> list[tuple[int, int]]:
        """(width, height) of whole cells of a photo of this size.

        - width, height: of the photo.
        - image_scales: how many times smaller it is looked at; one size for each.
        """
        cell = self._extractor.smallest_side
        targets = (self.resize.target(width, height, scale) for scale in sorted(image_scales))
        return list(dict.fromkeys((w - w % cell, h - h % cell) for w, h in targets))

    def running_on(self, runner: NetworkRunner) -> NetworkExtractor:
        """The same settings and weights on another runtime.

        It makes the maps of what fills whole cells.
        """
        other = copy(self)
        other._runner = runner
        return other

    @property
    def num_levels(self) -> int:
        """Levels of the pyramid."""
        return len(self._damping)

    def to(self, device: torch.device | str) -> NetworkExtractor:
        """Move the network; returns self."""
        self._extractor.to(device)  # type: ignore[attr-defined]
        self.device = torch.device(device)
        return self

    def resized(self, resize: ResizeConfig) -> NetworkExtractor:
        """The same network on photos brought to another size."""
        other = copy(self)
        other.resize = resize
        return other

    def damping(self, level: int) -> Float[Tensor, " 6"] | None:
        """Learned damping factors of a level (0 is the finest), or None."""
        return self._damping[level]

    @torch.no_grad()
    def __call__(self, view: View, image_scale: int) -> Extraction | None:
        """Maps of a photo; None when it is smaller than the coarsest cell after the reduction."""
        width, height = self.resize.target(*view.size, image_scale)
        strides = self._extractor.strides
        if min(width, height) < self._extractor.smallest_side:
            return None
        if self._runner is not None:
            width, height = self._runner.size_for(width, height)
        image = view.image[None].to(self.device)
        if (width, height) != view.size:
            image = F.interpolate(
                image, (height, width), mode="bilinear", align_corners=False, antialias=self.resize.antialias
            )
        pyramid = self._maps(image)
        x, y = width / view.size[0], height / view.size[1]
        return Extraction(pyramid, tuple((x / stride, y / stride) for stride in strides))

    def _maps(self, image: Tensor) -> FeaturePyramid:
        if self._runner is None:
            return self._extractor(image.contiguous(memory_format=torch.channels_last))
        cell = self._extractor.smallest_side
        height, width = (side - side % cell for side in image.shape[-2:])
        found = list(self._runner(image[..., :height, :width]).values())
        features, confidences = found[: self.num_levels], found[self.num_levels :]
        return FeaturePyramid(tuple(features), tuple(confidences) or None)


def _tensors(network: PyramidNetwork, image: Tensor) -> tuple[Tensor, ...]:
    found = network(image)
    return (*found.features, *(found.confidences or ()))
