"""Batch norms merged into the convolutions before them: the same numbers up to rounding, sooner."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_PAIRS = (
    *((f"conv{number}", f"bn{number}") for number in (1, 2, 3)),
    ("expand", "norm0"), ("depthwise", "norm1"), ("project", "norm2"),
)  # fmt: skip


def fold_batch_norms(network: nn.Module) -> None:
    """Merge batch norms into convolutions, in place, where one follows the other.

    For evaluation only. They are found as neighbours in an ``nn.Sequential``, and by the names that
    residual blocks give them (conv1 and bn1, or those of EfficientNet). Norms after anything but an
    ``nn.Conv2d`` stay. The state dict has other entries then.
    """
    for parent in list(network.modules()):
        for before, after in list(_followed(parent)):
            norm, convolution = parent._modules[after], parent._modules[before]
            if (
                isinstance(norm, nn.BatchNorm2d)
                and norm.running_mean is not None
                and isinstance(convolution, nn.Conv2d)
            ):
                parent._modules[before] = fuse_conv_bn_eval(convolution.eval(), norm.eval()).requires_grad_(False)
                parent._modules[after] = nn.Identity()


def _followed(parent: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(parent, nn.Sequential):
        names = list(parent._modules)
        yield from itertools.pairwise(names)
        return
    yield from (pair for pair in _PAIRS if set(pair) <= parent._modules.keys())
