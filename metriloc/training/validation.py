"""What a validation is: numbers that decide which checkpoint is best, and pictures to look at.

``no_grad_evaluation`` is the state a validation runs in: every module in evaluation mode, no gradients, and afterwards
exactly the modes that were there before (a frozen backbone stays frozen).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture for the validation page and for TensorBoard.

    It is uint8 RGB [H, W, 3], a title, perhaps a sentence.
    """

    title: str
    rgb: UInt8[np.ndarray, "H W 3"]
    note: str = ""

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise ValueError(
                f"a picture must be uint8 [H, W, 3], got {self.rgb.dtype} {list(self.rgb.shape)} ({self.title!r})"
            )


@dataclass(frozen=True, eq=False)
class Validation:
    """The result of one validation.

    metrics: numbers by name, NaN where undefined. pictures: a few. figures: of the validation page alone, HTML that a
    reader can look into; script: the one that moves them.
    """

    metrics: Mapping[str, float]
    pictures: tuple[Picture, ...] = field(default=())
    figures: tuple[str, ...] = ()
    script: str | None = None


Validator: TypeAlias = Callable[[nn.Module], Validation]
"""Called with the method, in evaluation mode and without gradients, on the device it trains on; must always look at the
same data in the same way, so that its numbers can be compared."""


@contextmanager
def no_grad_evaluation(method: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the modes of all submodules are restored afterwards, one by one."""
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def is_better(value: float, best: float | None, best_is: str) -> bool:
    """Whether a validation value beats the best so far (None: there is none); NaN never does, nor does an equal one."""
    if value != value:
        return False
    return best is None or (value > best if best_is == "largest" else value < best)
