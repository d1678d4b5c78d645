"""ResNets in the U-Net, S2DNet and the photo itself: stored, converted, localised with and trained."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.backbones.resnet import ResNet, ResNetConfig
from metriloc.io import InputError
from metriloc.methods.pixloc import (
    GaussianConfig,
    NetworkConfig,
    NetworkExtractor,
    PixLoc,
    PixLocNetwork,
    S2DNetConfig,
    Settings,
    UNetConfig,
    save_pretrained,
)
from metriloc.methods.pixloc.checkpoint import convert_checkpoint, from_official
from metriloc.recipes import pixloc_megadepth

SMALL = UNetConfig(ResNetConfig(18), decoder=(8, 8, 8, 4), channels=(4, 8, 8))
CONFIGS = [
    NetworkConfig(SMALL),
    NetworkConfig(S2DNetConfig(channels=4, hidden=4), learned_damping=False),
    NetworkConfig(GaussianConfig((1, 2, 8))),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["resnet", "s2dnet", "gaussian"])
@torch.no_grad()
def test_networks_are_stored_and_make_the_same_maps(config: NetworkConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PixLocNetwork(config).eval()
    identity = save_pretrained(network, tmp_path / "weights", Settings())
    model = PixLoc.from_pretrained(tmp_path / "weights")
    assert model.weights_id == identity and isinstance(model.extractor, NetworkExtractor)
    image = torch.rand(1, 3, 64, 96)
    ours = network(image)
    stored = model.extractor._extractor(image)
    assert len(ours.features) == network.num_levels == model.extractor.num_levels
    for a, b in zip(ours.features, stored.features, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert (ours.confidences is None) == (not config.extractor.confidences)


def test_s2dnets_own_file_is_converted(tmp_path: Path) -> None:
    """As spec pixloc 8.3 has it: ``state_dict`` with ``encoder.N`` and ``adaptation_layers.adap_layer_N``."""
    torch.manual_seed(0)
    network = PixLocNetwork(NetworkConfig(S2DNetConfig(channels=6, hidden=4), learned_damping=False))
    tensors = {key.removeprefix("extractor."): value for key, value in network.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "s2dnet_weights.pth")
    convert_checkpoint(tmp_path / "s2dnet_weights.pth", tmp_path / "ours")
    model = PixLoc.from_pretrained(tmp_path / "ours")
    assert model.align.damping == "adaptive" and not model.config.use_confidences
    assert model.extractor.num_levels == 3 and model.extractor.damping(0) is None
    fewer = {key: value for key, value in tensors.items() if "adap_layer_2" not in key}
    torch.save({"state_dict": fewer}, tmp_path / "s2dnet_weights.pth")
    with pytest.raises(InputError, match="only the usual"):
        convert_checkpoint(tmp_path / "s2dnet_weights.pth", tmp_path / "ours")


def test_a_resnet_is_told_by_its_tensors() -> None:
    network = PixLocNetwork(NetworkConfig(dataclasses.replace(SMALL, encoder=ResNetConfig(50))))
    assert from_official({"model": network.state_dict()})[1].network == network.config


@pytest.mark.parametrize("changes", [{"resnet": 18}, {"features": "s2dnet"}, {"features": "gaussian"}])
def test_recipes_train_other_features(changes: dict[str, Any], tmp_path: Path) -> None:
    """Gradients reach what there is to learn, and ImageNet files are read."""
    method = dataclasses.replace(pixloc_megadepth().method, vgg_weights="random", **changes)  # type: ignore[type-var]
    training = method()
    torch.manual_seed(0)
    if changes.get("resnet"):
        file = tmp_path / "resnet18.pth"
        tensors = ResNet(ResNetConfig(18)).state_dict()
        torch.save(tensors, file)
        started = dataclasses.replace(method, vgg_weights=str(file))()
        assert torch.equal(started.network.extractor.encoder.conv1.weight, tensors["conv1.weight"])
    names = {name.split(".")[1] for name, _ in training.network.named_parameters() if name.startswith("optimizer")}
    assert names == {"0", "1", "2"}
    found = training.network(torch.rand(1, 3, 48, 64))
    if any(True for _ in training.network.extractor.parameters()):
        sum(m.sum() for m in found.features).backward()
        assert all(
            p.grad is not None for n, p in training.network.extractor.named_parameters() if "uncertainty" not in n
        )
    assert not found.confidences or changes.get("resnet")


def test_an_encoder_is_of_a_unet() -> None:
    with pytest.raises(ValueError, match="takes no encoder"):
        PixLocNetwork(NetworkConfig(GaussianConfig()), ResNet())
