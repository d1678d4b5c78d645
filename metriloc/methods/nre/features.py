"""The NRE networks as dense features: descriptors of any length, temperature 1 (their last layer has learned it)."""

from __future__ import annotations

from copy import copy

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.fixed import FixedNetwork, Look, NetworkRunner, identity_of
from metriloc.backbones.local import DenseMap, cells_on_photo, nearest_multiples, resize_to_multiple, resized_to
from metriloc.methods.nre.network import NRENetwork

MAX_SIDE = 1600
"""Pixels; larger photos are made smaller first (the released map sizes follow a wrong formula)."""

MULTIPLE = 32
"""Pixels that sides are whole multiples of for other runtimes, so that they need few sizes."""


class NREFeatures:
    """A coarse (stride 16) or fine (stride 2) NRE network as a ``DenseExtractor``; its batch norms are folded."""

    name = "nre"
    temperature = 1.0

    def __init__(self, network: NRENetwork) -> None:
        self._weights = identity_of(network.state_dict(), network.config)
        self._network = network.eval().fold()
        self._stride = float(network.config.stride)
        self.level = network.config.level
        self.identity = f"{self.level}"
        """Tells networks of one name apart."""
        self._runner: NetworkRunner | None = None

    def fixed(self) -> FixedNetwork:
        """The descriptors of an image of whole multiples of 32 pixels."""
        look = Look(self._network, _descriptors)
        return FixedNetwork(f"nre-{self.level}", look, ("descriptors",), MULTIPLE, self._weights)

    def sizes_for(self, width: int, height: int) -> list[tuple[int, int]]:
        """The nearest whole multiples of 32 pixels. Stages look at photos at sizes of their own."""
        return [nearest_multiples(width, height, MULTIPLE)]

    def running_on(self, runner: NetworkRunner) -> NREFeatures:
        """A copy that brings photos to whole multiples of 32 pixels, and has another runtime describe them."""
        other = copy(self)
        other._runner = runner
        return other

    def to(self, device: torch.device | str) -> NREFeatures:
        """Move the weights; returns self."""
        self._network.to(device)
        return self

    @torch.no_grad()
    def dense(self, image: Float[Tensor, "3 H W"]) -> DenseMap:
        """A descriptor for every ``stride`` pixels. The first cell stands on the first pixel."""
        image = image.to(next(self._network.parameters()).device)
        if self._runner is not None:
            return self._elsewhere(image, self._runner)
        return DenseMap(self._network(image[None])[0], (self._stride, self._stride), (0.0, 0.0), unit=False)

    def _elsewhere(self, image: Tensor, runner: NetworkRunner) -> DenseMap:
        whole = resize_to_multiple(image, MULTIPLE)
        working = resized_to(whole, runner.size_for(whole.shape[-1], whole.shape[-2]))
        (descriptors,) = runner(working).values()
        return DenseMap(descriptors[0], *cells_on_photo(working, image, self._stride, 0), unit=False)


def _descriptors(network: NRENetwork, image: Tensor) -> tuple[Tensor, ...]:
    return (network(image),)
