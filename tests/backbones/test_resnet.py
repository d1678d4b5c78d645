"""ResNet encoders against a naive twin written tensor by tensor, their names, and what loads into them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.backbones.resnet import (
    ResNet,
    ResNetConfig,
    is_resnet,
    load_imagenet,
    resnet_config_from_weights,
)


def filled(layers: int) -> ResNet:
    """With weights and statistics that are none of the usual zeros and ones."""
    torch.manual_seed(layers)
    network = ResNet(ResNetConfig(layers)).double().eval()  # type: ignore[arg-type]
    for key, value in network.state_dict().items():
        if (value.is_floating_point() and "bn" in key) or "downsample.1" in key:
            value.copy_(torch.rand(value.shape) + 0.5)
    return network


def twin(tensors: dict[str, Tensor], image: Tensor, bottleneck: bool) -> list[Tensor]:
    def norm(x: Tensor, name: str) -> Tensor:
        parts = [tensors[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=1e-5)

    def conv(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, tensors[f"{name}.weight"], stride=stride, padding=padding)

    x = F.relu(norm(conv(image, "conv1", 2, 3), "bn1"))
    maps = [image, x]
    x = F.max_pool2d(x, 3, 2, 1)
    for layer in (1, 2, 3):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in tensors:
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            if bottleneck:
                y = F.relu(norm(conv(x, f"{name}.conv1", 1, 0), f"{name}.bn1"))
                y = F.relu(norm(conv(y, f"{name}.conv2", stride, 1), f"{name}.bn2"))
                y = norm(conv(y, f"{name}.conv3", 1, 0), f"{name}.bn3")
            else:
                y = F.relu(norm(conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
                y = norm(conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in tensors:
                x = norm(conv(x, f"{name}.downsample.0", stride, 0), f"{name}.downsample.1")
            x, block = F.relu(x + y), block + 1
        maps.append(x)
    return maps


@pytest.mark.parametrize(("layers", "widths"), [(18, (64, 128, 256)), (50, (256, 512, 1024))])
@torch.no_grad()
def test_maps_are_those_of_the_twin(layers: int, widths: tuple[int, ...]) -> None:
    network = filled(layers)
    image = torch.rand(1, 3, 37, 50, dtype=torch.float64)
    found = network(image)
    assert network.channels == (3, 64, *widths) == tuple(m.shape[1] for m in found)
    assert [tuple(m.shape[-2:]) for m in found] == [(32 // s, 48 // s) for s in (1, 2, 4, 8, 16)]
    for ours, theirs in zip(found, twin(network.state_dict(), image[..., :32, :48], layers >= 50), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("layers", "tensors"), [(18, 90), (34, 174), (50, 258), (101, 564)])
def test_the_shape_is_told_by_the_tensors(layers: int, tensors: int) -> None:
    with torch.device("meta"):
        state = ResNet(ResNetConfig(layers)).state_dict()  # type: ignore[arg-type]
    assert is_resnet(state) and resnet_config_from_weights(state).layers == layers
    assert len(state) == tensors
    wrong = {key: value for key, value in state.items() if not key.startswith("layer3.1.")}
    with pytest.raises(ValueError, match="ResNet-18, 34, 50 or 101"):
        resnet_config_from_weights(wrong)


def test_torchvisions_files_load_without_their_classifier() -> None:
    network = filled(18)
    published = {key: value.float() + 1 for key, value in network.state_dict().items()}
    published |= {"layer4.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1000, 512)}
    load_imagenet(network, published)
    assert torch.equal(network.conv1.weight, published["conv1.weight"].double())
    del published["layer2.0.bn1.weight"]
    with pytest.raises(ValueError, match=r"'layer2\.0\.bn1\.weight' is missing"):
        load_imagenet(network, published)
    with pytest.raises(ValueError, match="18, 34, 50, 101, got 152"):
        ResNetConfig(152)  # type: ignore[arg-type]
