"""The depth network: what its answer means when a photo is zoomed, resized or turned, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.methods.matching import DepthConfig, DepthNetwork
from metriloc.types import View

SMALL = DepthConfig(side=64, canonical_focal=100.0, width=8, attention=1)


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    torch.manual_seed(0)
    made = DepthNetwork(SMALL).eval()
    with torch.no_grad():
        made.output.weight.normal_(0, 0.2)  # fresh weights say the same depth everywhere
    return made


def photo(size: tuple[int, int] = (128, 96), focal: tuple[float, float] = (100.0, 100.0)) -> View:
    width, height = size
    generator = torch.Generator().manual_seed(1)
    image = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 8, generator=generator), (height, width), mode="bilinear", align_corners=False
    )[0]
    K = torch.tensor([[focal[0], 0, (width - 1) / 2], [0, focal[1], (height - 1) / 2], [0, 0, 1]])
    return View(image, Camera.from_K(K, size))


def test_metres_are_proportional_to_the_focal_length(network: DepthNetwork) -> None:
    depth, spread = network.predict(photo())
    for focal, factor in (((200.0, 200.0), 2.0), ((50.0, 50.0), 0.5), ((400.0, 100.0), 2.0)):
        other, same = network.predict(photo(focal=focal))
        torch.testing.assert_close(other, factor * depth)
        assert torch.equal(same, spread)
    assert float(depth.std()) > 0 and bool((depth > 0).all()) and bool((spread > 0).all())


def test_a_resized_photo_is_as_far(network: DepthNetwork) -> None:
    depth, _ = network.predict(photo())
    large, _ = network.predict(photo((256, 192), (200.0, 200.0)))
    assert large.shape == depth.shape
    assert float((large / depth).log().abs().max()) < 0.03


def test_the_answer_is_for_the_camera_of_the_reduced_photo(network: DepthNetwork) -> None:
    view = photo((128, 96), (90.0, 110.0))
    image, camera = network.reduced(view)
    depth, spread = network.predict(view)
    with torch.no_grad():
        maps = network(image[None])
    f = float(camera.f.prod().sqrt())
    torch.testing.assert_close(depth, maps.log_depth[0].exp() * f / 100.0)
    torch.testing.assert_close(spread, maps.log_spread[0].exp())
    # metres times pixels: a thing of one metre has f / depth pixels in the photo that the network sees
    assert f == pytest.approx((90 * 110 * (image.shape[2] / 128) * (image.shape[1] / 96)) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("size", [(128, 96), (96, 128), (300, 100), (40, 40), (9, 7), (500, 20)])
def test_photos_are_reduced_to_whole_cells_of_one_area(network: DepthNetwork, size: tuple[int, int]) -> None:
    image, camera = network.reduced(photo(size))
    height, width = image.shape[1:]
    assert height % 32 == width % 32 == 0 and min(height, width) >= 32
    assert camera.size.tolist() == [width, height]
    depth, spread = network.predict(photo(size))
    assert depth.shape == spread.shape == (height // 8, width // 8)
    assert bool(depth.isfinite().all())


def test_the_encoder_keeps_its_statistics(network: DepthNetwork) -> None:
    made = DepthNetwork(SMALL).train()
    before = {name: value.clone() for name, value in made.encoder.named_buffers()}
    made(torch.rand(2, 3, 64, 64)).log_depth.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in made.encoder.named_buffers())
    assert made.output.weight.grad is not None


def test_fresh_weights_say_three_metres_and_do_not_overflow() -> None:
    made = DepthNetwork(SMALL).eval()
    depth, _ = made.predict(photo((64, 48), (100.0, 100.0)))
    _, camera = made.reduced(photo((64, 48)))
    expected = 2.71828 * float(camera.f.log().mean().exp()) / 100
    torch.testing.assert_close(depth, torch.full_like(depth, expected), rtol=1e-4, atol=0)
    with torch.no_grad():
        made.output.bias.copy_(torch.tensor([1e4, 1e4]))
        maps = made(torch.rand(1, 3, 64, 64))
    assert float(maps.log_depth.max()) == 7.0 and float(maps.log_spread.max()) == 1.5


@pytest.mark.parametrize(
    "fields",
    [{"side": 32}, {"side": 4096}, {"canonical_focal": 0.0}, {"width": 4}, {"attention": -1}, {"attention": 99}],
)
def test_configurations_that_cannot_be(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="DepthConfig"):
        DepthConfig(**fields)


def test_filters_are_stored_in_half_precision(network: DepthNetwork, tmp_path: Path) -> None:
    identity = network.save_pretrained(tmp_path)
    loaded = DepthNetwork.from_pretrained(tmp_path)
    assert loaded.weights_id == identity and loaded.config == network.config and not loaded.training
    stored = load_file(tmp_path / "model.safetensors")
    assert all((value.dtype == torch.float16) == (value.ndim > 1) for value in stored.values())
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    rounded = DepthNetwork(SMALL).eval()
    rounded.load_state_dict({k: v.half().float() if v.ndim > 1 else v for k, v in network.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(loaded(image).log_depth, rounded(image).log_depth)


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds weights of 'mickey', not of 'depth'"):
        DepthNetwork.from_pretrained("metriloc-small")
    DepthNetwork(SMALL).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "network": {"side": 7}}))
    with pytest.raises(
        InputError, match=r"wrong configuration of a depth network: DepthConfig\.side must be 64 to 2048"
    ):
        DepthNetwork.from_pretrained(tmp_path)
