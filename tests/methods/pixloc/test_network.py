"""The networks against golden maps, the released names, and what inference does to them."""

from __future__ import annotations

import csv
import dataclasses
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metriloc.backbones.vgg import VGG16, VGG19, VGGConfig
from metriloc.methods.pixloc import (
    FeaturePyramid,
    GaussianConfig,
    GaussianPyramid,
    NetworkConfig,
    PixLocNetwork,
    S2DNet,
    S2DNetConfig,
    UNet,
    UNetConfig,
)
from metriloc.methods.pixloc.other_networks import gaussian_blur

AVERAGE = VGGConfig(VGG19.convs, VGG19.widths, average_pooling=True)
LIGHT = UNetConfig(
    encoder=VGGConfig(convs=(1, 1, 1, 1, 1), widths=(4, 6, 8, 8, 8)), decoder=(8, 8, 8, 4), channels=(4, 8, 8)
)


def assert_golden(found: FeaturePyramid, golden: dict[str, Any], key: str, confidences: bool) -> None:
    """Stored in float32 from double precision."""
    for level, fmap in enumerate(found.features):
        torch.testing.assert_close(fmap.float(), golden[f"{key}features_{level}"], rtol=1e-5, atol=1e-6)
    if confidences:
        assert found.confidences is not None
        for level, trust in enumerate(found.confidences):
            torch.testing.assert_close(trust.float(), golden[f"{key}confidence_{level}"], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("name", "encoder"), [("vgg19", VGG19), ("vgg16", VGG16)])
def test_golden_unet(name: str, encoder: VGGConfig, load: Any, data: Any) -> None:
    golden = load("unet")
    network = data.fill(UNet(UNetConfig(encoder=encoder))).eval()
    assert network.strides == (1, 4, 16)
    for size in ("64x96", "75x101"):
        assert_golden(network(golden[f"image_{size}"].double()), golden, f"{name}/{size}/", True)
    folded = network.fold_batch_norms()
    found = folded(golden["image_75x101"].double())
    assert_golden(found, golden, f"{name}/75x101/", True)
    assert found.features[0].is_contiguous(memory_format=torch.channels_last)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("avgpool", UNetConfig(encoder=AVERAGE, confidences=False)),
        ("nonorm", UNetConfig(batch_norm=False, confidences=False)),
        ("nodecoder", UNetConfig(decoder=None, confidences=False)),
    ],
)
def test_golden_variants(name: str, config: UNetConfig, load: Any, data: Any) -> None:
    golden = load("unet")
    network = data.fill(UNet(config)).eval()
    assert_golden(network(golden["image_64x96"].double()), golden, f"{name}/", False)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
def test_golden_training_mode(checkpointed: bool, load: Any, data: Any) -> None:
    golden = load("unet")
    network = data.fill(UNet(UNetConfig(checkpointed=checkpointed))).train()
    found = network(golden["train/image"].double())
    assert_golden(found, golden, "train/", True)
    for key, value in network.state_dict().items():
        if "running" in key:
            # the photo is stored in single precision
            torch.testing.assert_close(value, golden[f"train/{key}"], rtol=1e-5, atol=1e-7)
    if checkpointed:  # the second computation must not count the statistics again
        before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k or "tracked" in k}
        found.features[0].sum().backward()
        after = network.state_dict()
        assert all(torch.equal(after[key], value) for key, value in before.items())


@torch.no_grad()
@pytest.mark.parametrize(
    ("key", "layers", "channels", "strides"),
    [("", ("conv1_2", "conv3_3", "conv5_3"), 128, (1, 4, 16)), ("b/", ("conv1_2", "relu3_3"), 64, (1, 4))],
)
def test_golden_s2dnet(key: str, layers: Any, channels: int, strides: Any, load: Any, data: Any) -> None:
    golden = load("s2dnet")
    network = data.fill(S2DNet(S2DNetConfig(layers, channels))).eval()
    found = network(golden["image"].double())
    assert network.strides == strides == tuple(golden[f"{key}scales"].tolist())
    assert len(found.features) == len(layers) and found.confidences is None
    assert_golden(found, golden, key, False)


@pytest.mark.parametrize(
    ("experiment", "encoder", "count"), [("pixloc_megadepth", VGG19, 71), ("pixloc_cmu", VGG16, 65)]
)
def test_released_names_and_shapes(experiment: str, encoder: VGGConfig, count: int, shared: Any) -> None:
    with open(shared("spec/pixloc_state_dict.tsv")) as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["experiment"] == experiment]
    expected = {row["key"]: row["shape"].replace("scalar", "") for row in rows}
    with torch.device("meta"):
        network = PixLocNetwork(NetworkConfig(UNetConfig(encoder=encoder)))
    ours = {key: "x".join(map(str, value.shape)) for key, value in network.state_dict().items()}
    assert len(ours) == count and ours == expected
    assert sum(p.numel() for p in network.parameters()) == {71: 21_022_101, 65: 15_712_405}[count]


@pytest.mark.parametrize("size", [(16, 16), (47, 33), (64, 80)])
def test_light_encoder_and_sizes(size: tuple[int, int]) -> None:
    network = UNet(LIGHT).eval()
    found = network(torch.rand(2, 3, *size))
    h, w = size[0] // 16, size[1] // 16
    assert [tuple(m.shape) for m in found.features] == [
        (2, 4, 16 * h, 16 * w),
        (2, 8, 4 * h, 4 * w),
        (2, 8, h, w),
    ]
    assert found.confidences is not None
    assert all(((trust > 0) & (trust < 1)).all() for trust in found.confidences)


def test_another_encoder() -> None:
    class Shifted(nn.Module):
        channels = (3, 5)

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            return [image, F.avg_pool2d(image, 2).repeat(1, 2, 1, 1)[:, :5]]

    config = UNetConfig(encoder=None, decoder=(4,), levels=(0, 1), channels=(2, 2))
    found = UNet(config, Shifted())(torch.rand(1, 3, 8, 8))
    assert [m.shape[1:] for m in found.features] == [(2, 8, 8), (2, 4, 4)]
    with pytest.raises(ValueError, match="encoder is None"):
        UNet(config)
    with pytest.raises(ValueError, match=r"must be an nn\.Module, got object"):
        UNet(config, object())  # type: ignore[arg-type]


def test_frozen_batch_norms_keep_their_statistics() -> None:
    network = UNet(dataclasses.replace(LIGHT, freeze_batch_norm=True)).train()
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    network(torch.rand(2, 3, 32, 32))
    assert network.training and all(torch.equal(network.state_dict()[k], v) for k, v in before.items())


def test_configurations_survive_json() -> None:
    for config in (NetworkConfig(), NetworkConfig(LIGHT, shared_damping=True, damping_range=(-3.0, 2.0))):
        assert NetworkConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    with pytest.raises(ValueError, match="not a PixLoc network configuration"):
        NetworkConfig.from_dict({"extractor": {"encoder": "vgg19"}})
    with pytest.raises(ValueError, match="not a PixLoc network configuration"):
        NetworkConfig.from_dict({"colour": "red"})


def test_damping_of_levels() -> None:
    apart = PixLocNetwork(NetworkConfig(LIGHT))
    shared = PixLocNetwork(NetworkConfig(LIGHT, shared_damping=True))
    none = PixLocNetwork(NetworkConfig(LIGHT, learned_damping=False))
    with torch.no_grad():
        apart.optimizer[1].dampingnet.const.fill_(1.0)  # type: ignore[index, union-attr]
    first, second = apart.damping(0), apart.damping(1)
    assert first is not None and second is not None and not torch.equal(first, second)
    torch.testing.assert_close(first, torch.full((6,), 10**-0.5))
    torch.testing.assert_close(shared.damping(0), shared.damping(2))
    assert none.damping(0) is None
    assert [k for k in shared.state_dict() if "damping" in k] == ["optimizer.dampingnet.const"]


def test_gaussian_pyramid() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 40, 52)
    found = GaussianPyramid(GaussianConfig((1, 4)))(image)
    assert [m.shape[2:] for m in found.features] == [(40, 52), (10, 13)]
    constant = GaussianPyramid()(torch.full((2, 3, 32, 48), 0.25))
    for fmap in constant.features:
        torch.testing.assert_close(fmap, torch.full_like(fmap, 0.25))
    # a ramp stays a ramp away from the edge: blur and reduction keep cell centres where cameras expect them
    ramp = torch.arange(64.0).expand(1, 3, 64, 64)
    coarse = GaussianPyramid(GaussianConfig((1, 4)))(ramp).features[1][0, 0, 8, 4:12]
    torch.testing.assert_close(coarse, 4 * torch.arange(4.0, 12.0) + 1.5)
    delta = torch.zeros(1, 1, 21, 21)
    delta[..., 10, 10] = 1
    blurred = gaussian_blur(delta, 2.0)[0, 0]
    torch.testing.assert_close(blurred.sum(), torch.tensor(1.0))
    torch.testing.assert_close(blurred[10, 12] / blurred[10, 10], torch.tensor(-0.5).exp())


@pytest.mark.parametrize("network", [UNet(LIGHT), S2DNet(S2DNetConfig(channels=4, hidden=4)), GaussianPyramid()])
def test_wrong_images(network: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, H, W\], got torch.float32 \[3, 32, 32\]"):
        network(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"got torch\.uint8"):
        network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match="40x15 pixels is smaller than 16"):
        network(torch.zeros(1, 3, 15, 40))


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="levels must increase"):
        UNetConfig(levels=(2, 0, 4))
    with pytest.raises(ValueError, match="levels must increase"):
        UNetConfig(levels=(0, 2))
    with pytest.raises(ValueError, match="5 decoder blocks do not fit 4 poolings"):
        UNet(dataclasses.replace(LIGHT, decoder=(4, 4, 4, 4, 4)))
    with pytest.raises(ValueError, match="not among"):
        UNet(dataclasses.replace(LIGHT, decoder=(4, 4)))
    with pytest.raises(ValueError, match="S2DNet layers must be among"):
        S2DNetConfig(("conv9_9",))
    with pytest.raises(ValueError, match="fine to coarse"):
        S2DNetConfig(("conv3_3", "conv1_2"))
    with pytest.raises(ValueError, match="multiple of the one before"):
        GaussianConfig((1, 3, 4))
