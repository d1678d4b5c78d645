"""The NRE networks as dense features: descriptors of any length, temperature 1 (their last layer has learned it)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import DenseMap
from metriloc.methods.nre.network import NRENetwork

MAX_SIDE = 1600
"""Pixels; larger photos are made smaller first (the released map sizes follow a wrong formula)."""


class NREFeatures:
    """A coarse (stride 16) or fine (stride 2) NRE network as a ``DenseExtractor``; its batch norms are folded."""

    name = "nre"
    temperature = 1.0

    def __init__(self, network: NRENetwork) -> None:
        self._network = network.eval().fold()
        self._stride = float(network.config.stride)
        self.level = network.config.level
        self.identity = f"{self.level}"
        """Tells networks of one name apart."""

    def to(self, device: torch.device | str) -> NREFeatures:
        """Move the weights; returns self."""
        self._network.to(device)
        return self

    @torch.no_grad()
    def dense(self, image: Float[Tensor, "3 H W"]) -> DenseMap:
        """A descriptor for every ``stride`` pixels; the first cell stands on the first pixel."""
        image = image.to(next(self._network.parameters()).device)
        return DenseMap(self._network(image[None])[0], (self._stride, self._stride), (0.0, 0.0), unit=False)
