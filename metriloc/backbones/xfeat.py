"""XFeat local features through kornia's class, with weights given as tensors.

XFeat ("Accelerated Features for Lightweight Image Matching", CVPR 2024, Apache-2.0) is the detector and descriptor that
metriloc uses when no metric network is at hand. kornia owns the architecture; this file owns the pixel convention:
kornia reports positions of the image it resized to multiples of 32, scaled about the corner of the first pixel instead
of about its centre, so the photo is resized here and the half pixel is put right.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones.fixed import FixedNetwork, Look, NetworkRunner, identity_of
from metriloc.backbones.folding import fold_batch_norms
from metriloc.backbones.local import (
    DenseMap,
    LocalFeatures,
    cells_on_photo,
    detached,
    load_exactly,
    longer_side_size,
    moved_to_photo,
    nearest_multiples,
    require_kornia,
    resize_to_longer_side,
    resize_to_multiple,
    resized_to,
)

MULTIPLE = 32  # the coarsest stride of XFeat's encoder
_STRIDE = 8


@dataclass(frozen=True)
class XFeatConfig:
    """Settings of XFeat keypoints."""

    max_keypoints: int = 4096
    """The best by score are kept."""
    detection_threshold: float = 0.05
    """Of the keypoint heat map (0..1)."""
    longest_side: int | None = None
    """Larger photos are made smaller first; None takes them as they are."""


class XFeat:
    """XFeat features of one photo at a time. Sparse by calling it, dense (64 channels, stride 8) by ``dense``.

    weights: the state dict of the released ``xfeat.pt`` (128 tensors; names as released or prefixed ``net.``).
    Raises ValueError when the weights do not fit and ImportError, with the pip command, without kornia.
    """

    name = "xfeat"
    temperature = 0.02
    identity = ""
    """Of weights other than the released ones: tells networks of one name apart."""

    def __init__(self, weights: Mapping[str, Tensor], config: XFeatConfig | None = None) -> None:
        require_kornia("XFeat")
        from kornia.feature import XFeat as KorniaXFeat

        self.config = config or XFeatConfig()
        self._model = KorniaXFeat(top_k=self.config.max_keypoints, detection_threshold=self.config.detection_threshold)
        tensors = {k.removeprefix("net."): v for k, v in weights.items()}
        load_exactly(self._model.net, tensors, "XFeat", may_miss=frozenset(), may_add=frozenset())
        self._model.eval()
        self._weights = identity_of(self._model.net.state_dict())
        fold_batch_norms(self._model.net)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._runner: NetworkRunner | None = None

    def fixed(self) -> FixedNetwork:
        """The network with descriptors, keypoint logits and reliabilities as outputs. It takes an image of whole
        multiples of 32 pixels."""
        outputs = ("descriptors", "keypoints", "reliability")
        return FixedNetwork("xfeat", Look(self._model.net, _outputs), outputs, MULTIPLE, self._weights)

    def sizes_for(self, width: int, height: int) -> list[tuple[int, int]]:
        """The size that a photo is looked at in. There is one (width, height) for a photo of this size."""
        return [nearest_multiples(*longer_side_size(width, height, self.config.longest_side), MULTIPLE)]

    def running_on(self, runner: NetworkRunner) -> XFeat:
        """A copy whose network another runtime runs. Keypoints are found in its outputs as ever."""
        other = copy(self)
        other._runner = runner
        other._model = copy(self._model)
        other._model._modules = {**self._model._modules, "net": _Elsewhere(runner)}
        return other

    def to(self, device: torch.device | str) -> XFeat:
        """Move the weights; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """Features of a photo (RGB in 0..1, any size); an image without structure gives none."""
        working = self._resized(image)
        found = self._model.detectAndCompute(working)[0]
        uv = moved_to_photo(found["keypoints"].to(working), working, image)
        return LocalFeatures(detached(uv), detached(found["descriptors"]), detached(found["scores"]))

    @torch.no_grad()
    def dense(self, image: Float[Tensor, "3 H W"]) -> DenseMap:
        """A descriptor for every 8 x 8 pixels of the photo."""
        working = self._resized(image)
        features = self._model.net(working)[0][0]
        stride, origin = cells_on_photo(working, image, _STRIDE, (_STRIDE - 1) / 2)
        return DenseMap(detached(F.normalize(features, dim=0)), stride, origin)

    def _resized(self, image: Tensor) -> Tensor:
        parameter = next(self._model.parameters(), image)  # run elsewhere, it has none
        image = image.to(parameter.device)
        working = resize_to_multiple(resize_to_longer_side(image, self.config.longest_side), MULTIPLE)
        if self._runner is None:
            return working
        return resized_to(working, self._runner.size_for(working.shape[-1], working.shape[-2]))


class _Elsewhere(nn.Module):
    """In place of the network."""

    def __init__(self, runner: NetworkRunner) -> None:
        super().__init__()
        self._runner = runner

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._runner(image).values())


def _outputs(network: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    return tuple(network(image))
