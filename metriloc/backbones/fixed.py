"""Networks as functions of one image of a fixed size, which other runtimes can run in place of torch.

What a network does with a photo before (bringing it to a size) and with its outputs after (keypoints, cells on the photo)
stays in torch: runtimes disagree on how to resize.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Look(nn.Module):
    """A network and what is asked of it, as a module. It gives a tuple of tensors."""

    def __init__(self, network: nn.Module, look: Callable[[Any, Tensor], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network, self._look = network, look
        self.eval()

    def forward(self, image: Float[Tensor, "1 3 H W"]) -> tuple[Tensor, ...]:
        return self._look(self.network, image)


@dataclass(frozen=True, eq=False)
class FixedNetwork:
    """A network as a function of one image. It is [1, 3, H, W], RGB in 0..1, of whole multiples of ``multiple`` pixels.

    kind: what it is, such as ``mickey``. outputs: names of what the module gives, in order. identity: equal only for equal
    weights and settings, see ``identity_of``. baked: the module for one size (width, height), with what depends on the size
    as constants; None where nothing does.
    """

    kind: str
    module: Look
    outputs: tuple[str, ...]
    multiple: int
    identity: str
    baked: Callable[[int, int], Look] | None = None

    def at(self, size: tuple[int, int]) -> Look:
        """The module for images of this size alone."""
        return self.module if self.baked is None else self.baked(*size)


def identity_of(tensors: Mapping[str, Tensor], settings: object = "") -> str:
    """Twelve hexadecimal digits that name weights and settings. The weights are as they were published (not folded),
    the settings those beside them."""
    digest = hashlib.sha256(repr(settings).encode())
    for name, tensor in sorted(tensors.items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()[:12]


class NetworkRunner(Protocol):
    """Another runtime's copy of a ``FixedNetwork``, at the sizes that it has."""

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) to bring an image to first. The image is of this size; mostly it is its own."""
        ...

    def __call__(self, image: Float[Tensor, "1 3 H W"]) -> Mapping[str, Tensor]:
        """The outputs by name; the image is a whole number of multiples wide and high."""
        ...


@runtime_checkable
class Exportable(Protocol):
    """A network that other runtimes can run."""

    def fixed(self) -> FixedNetwork:
        """As a function of one image."""
        ...

    def sizes_for(self, width: int, height: int) -> list[tuple[int, int]]:
        """The (width, height) of the images made of a photo. The photo is of this size; the one that matters most comes
        first."""
        ...

    def running_on(self, runner: NetworkRunner) -> Any:
        """A copy whose network is run elsewhere; all around it stays."""
        ...


Swap = Callable[[Any], Any]
"""Gives a network that is run elsewhere in place of one; one that cannot be as it is."""
