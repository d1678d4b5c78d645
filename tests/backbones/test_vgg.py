"""VGG: names and values of torchvision's layout, blocks and strides, light shapes, inference of the shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from metriloc.backbones.vgg import (
    VGG,
    VGG16,
    VGG19,
    VGGConfig,
    normalize_imagenet,
    vgg_config_from_weights,
    vgg_from_torchvision,
)

LIGHT = VGGConfig(convs=(1, 2, 1), widths=(4, 6, 8))


def torchvision_features(config: VGGConfig) -> nn.Sequential:
    """``torchvision.models.vgg*.features``: convolutions, ReLUs and poolings in one sequence."""
    layers: list[nn.Module] = []
    before = 3
    for convs, width in zip(config.convs, config.widths, strict=True):
        for _ in range(convs):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
            before = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


@pytest.mark.parametrize("config", [LIGHT, VGGConfig(convs=(2, 2, 3, 3, 3), widths=(4, 4, 6, 6, 8))])
def test_equals_torchvisions_sequence(config: VGGConfig) -> None:
    torch.manual_seed(0)
    theirs = torchvision_features(config)
    ours = VGG(config)
    named = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    ours.load_state_dict(vgg_from_torchvision({**named, "classifier.0.weight": torch.zeros(1)}, config))
    image = torch.rand(2, 3, 37, 50)
    found = ours(image)
    current, expected = image, []
    for layer in theirs:
        if isinstance(layer, nn.MaxPool2d):
            expected.append(current.clone())
        current = layer(current)
    assert [f.shape for f in found] == [e.shape for e in expected]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_published_shapes() -> None:
    with torch.device("meta"):
        for config, last, count in ((VGG16, "4.5", 26), (VGG19, "4.7", 32)):
            tensors = VGG(config).state_dict()
            assert len(tensors) == count and list(tensors)[-1] == f"{last}.bias"
            assert vgg_config_from_weights(tensors) == config
        maps = VGG(VGG19)(torch.zeros(1, 3, 75, 101))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 75, 101),
        (128, 37, 50),
        (256, 18, 25),
        (512, 9, 12),
        (512, 4, 6),
    ]


def test_average_pooling_is_another_function() -> None:
    torch.manual_seed(0)
    first = VGG(LIGHT)
    second = VGG(VGGConfig(LIGHT.convs, LIGHT.widths, average_pooling=True))
    second.load_state_dict(first.state_dict())
    image = torch.rand(1, 3, 16, 16)
    a, b = first(image), second(image)
    torch.testing.assert_close(a[0], b[0])
    assert not torch.allclose(a[1], b[1])
    assert vgg_config_from_weights(second.state_dict(), average_pooling=True) == second.config


def test_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    plain, thrifty = VGG(LIGHT), VGG(LIGHT, checkpointed=True)
    thrifty.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 16, 20)

    def gradients(network: VGG) -> list[Tensor]:
        sum(m.square().sum() for m in network(image)).backward()
        return [p.grad for p in network.parameters() if p.grad is not None]

    for a, b in zip(gradients(plain), gradients(thrifty), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalization(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    found = normalize_imagenet(torch.full(shape, 0.485, dtype=dtype))
    assert found.dtype == dtype and found.shape == shape
    torch.testing.assert_close(found[..., 0, 0, 0], torch.zeros(shape[:-3], dtype=dtype))
    torch.testing.assert_close(found[..., 1, 0, 0], torch.full(shape[:-3], (0.485 - 0.456) / 0.224, dtype=dtype))


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="one positive width a block"):
        VGGConfig(convs=(2, 2), widths=(64,))
    with pytest.raises(ValueError, match="must be positive"):
        VGGConfig(convs=(2, 0), widths=(64, 64))
    with pytest.raises(ValueError, match=r"blocks are \[0, 2\]"):
        vgg_config_from_weights({"0.0.weight": torch.zeros(4, 3, 3, 3), "2.1.weight": torch.zeros(4, 4, 3, 3)})
    with pytest.raises(ValueError, match=r"'features.0.weight' is missing"):
        vgg_from_torchvision({}, LIGHT)
