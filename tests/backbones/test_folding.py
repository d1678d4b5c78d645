"""Folded batch norms change nothing but rounding, wherever they are found."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from metriloc.backbones.efficientnet_lite import EfficientNetLite
from metriloc.backbones.folding import fold_batch_norms
from metriloc.backbones.resnet import ResNet, ResNetConfig
from metriloc.methods.matching.depth_network import DepthNetwork


def with_statistics(network: nn.Module) -> nn.Module:
    """Norms that do something: random statistics and weights."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def kornia_networks() -> list[nn.Module]:
    feature = pytest.importorskip("kornia.feature", reason="needs the extra features")

    class Dense(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.network.extract_dense_map(image)  # type: ignore[operator,no-any-return]

    return [feature.XFeat().net, Dense(feature.ALIKED("aliked-t16"))]


def outputs(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    found = network(image)
    if isinstance(found, dict):
        return list(found.values())
    if hasattr(found, "log_depth"):
        return [found.log_depth, found.log_spread]
    return list(found) if isinstance(found, (tuple, list)) else [found]


@torch.no_grad()
@pytest.mark.parametrize("name", ["efficientnet", "resnet", "depth", "xfeat", "aliked"])
def test_folding_changes_rounding_only(name: str) -> None:
    made = {
        "efficientnet": lambda: EfficientNetLite(),
        "resnet": lambda: ResNet(ResNetConfig()),
        "depth": lambda: DepthNetwork(),
        "xfeat": lambda: kornia_networks()[0],
        "aliked": lambda: kornia_networks()[1],
    }
    network = with_statistics(made[name]())
    folded = copy.deepcopy(network)
    fold_batch_norms(folded)
    image = torch.rand(1, 3, 64, 96)
    before = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    left = sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert left < before  # those of deformable convolutions stay
    for one, other in zip(outputs(network, image), outputs(folded, image), strict=True):
        scale = float(one.abs().max())
        assert float((one - other).abs().max()) <= 1e-4 * scale


def test_a_norm_after_something_else_stays() -> None:
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    fold_batch_norms(network)
    assert [type(m).__name__ for m in network] == ["ReLU", "BatchNorm2d", "Conv2d", "ReLU", "BatchNorm2d"]
