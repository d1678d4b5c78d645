"""Networks as functions of one image: run elsewhere, they and all around them give what torch gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import metriloc
from metriloc.backbones import DinoV2Config
from metriloc.backbones.dinov2 import DinoV2
from metriloc.backbones.fixed import Exportable, FixedNetwork, identity_of
from metriloc.geometry import Camera
from metriloc.io.local_features import load_extractor
from metriloc.methods.matching.depth_network import DepthNetwork
from metriloc.methods.mickey import MicKeyConfig, MicKeyNetwork
from metriloc.methods.nre.features import NREFeatures
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig
from metriloc.types import View

TINY_VIT = DinoV2Config(embed_dim=32, depth=2, num_heads=2, image_size=56)
TINY_MICKEY = MicKeyConfig(backbone=TINY_VIT, blocks=(16, 16, 16, 8), descriptor_dim=8, border=0)


class Elsewhere:
    """A runner that is torch after all, at any size or at one."""

    def __init__(self, fixed: FixedNetwork, only: tuple[int, int] | None = None) -> None:
        self.fixed, self.only, self.sizes = fixed, only, set[tuple[int, int]]()

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        return self.only or (width, height)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
        size = image.shape[-1], image.shape[-2]
        self.sizes.add(size)
        assert all(side % self.fixed.multiple == 0 for side in size)
        return dict(zip(self.fixed.outputs, self.fixed.at(size)(image), strict=True))


def photo(width: int, height: int) -> View:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    return View(image, Camera.from_fov((width, height), 1.0))


def mickey_tensors(network: Any, view: View) -> list[Tensor]:
    found = network.detect(view.image[None], Camera.stack([view.camera]))
    return [found.uv, found.depth, found.score, found.descriptor]


def pixloc_tensors(extractor: Any, view: View) -> list[Tensor]:
    found = extractor(view, 1)
    return [*found.pyramid.features, *found.pyramid.confidences, torch.tensor(found.scales)]


def local_tensors(network: Any, view: View) -> list[Tensor]:
    found = network(view.image)
    return [found.uv, found.descriptors, found.scores]


def dense_tensors(network: Any, view: View) -> list[Tensor]:
    found = network.dense(view.image)
    return [found.descriptors, torch.tensor([*found.stride, *found.origin])]


def tiny_mickey() -> MicKeyNetwork:
    torch.manual_seed(0)
    return MicKeyNetwork(TINY_MICKEY).eval()


def tiny_nre() -> NREFeatures:
    torch.manual_seed(0)
    return NREFeatures(NRENetwork(NRENetworkConfig("fine")))


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any, View], list[Tensor]], tuple[int, int]]] = {
    "mickey": (tiny_mickey, mickey_tensors, (90, 61)),
    "metriloc-small": (lambda: metriloc.MicKey.from_pretrained(calibrations=()).network, mickey_tensors, (90, 61)),
    "metriloc-depth": (DepthNetwork.from_pretrained, lambda n, view: list(n.predict(view)), (90, 61)),
    "pixloc-small": (
        lambda: metriloc.PixLoc.from_pretrained(calibrations=()).extractor, pixloc_tensors, (90, 61),
    ),
    "xfeat": (lambda: load_extractor("xfeat")[0], local_tensors, (90, 61)),
    "xfeat, dense": (lambda: load_extractor("xfeat")[0], dense_tensors, (90, 61)),
    "aliked": (lambda: load_extractor("aliked")[0], local_tensors, (90, 61)),
    "nre": (tiny_nre, dense_tensors, (96, 64)),
}  # fmt: skip


def loaded(name: str) -> tuple[Any, Callable[[Any, View], list[Tensor]], View]:
    make, look, size = CASES[name]
    try:
        return make(), look, photo(*size)
    except (ImportError, ValueError) as error:
        pytest.skip(f"weights or kornia are not here: {error}")


@pytest.mark.parametrize("name", CASES)
def test_run_elsewhere_it_gives_the_same(name: str) -> None:
    network, look, view = loaded(name)
    assert isinstance(network, Exportable)
    runner = Elsewhere(network.fixed())
    with torch.no_grad():
        expected, found = look(network, view), look(network.running_on(runner), view)
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    assert runner.sizes == set(network.sizes_for(*view.size))


@pytest.mark.parametrize("name", CASES)
def test_with_a_file_of_another_size_the_photo_is_brought_to_it(name: str) -> None:
    network, look, _ = loaded(name)
    fixed, view = network.fixed(), photo(90, 61)
    size = 4 * fixed.multiple, 3 * fixed.multiple
    with torch.no_grad():
        found = look(network.running_on(Elsewhere(fixed, size)), view)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found)
    if look is local_tensors or look is mickey_tensors:  # keypoints are of the photo all the same
        uv = found[0].reshape(-1, 2)
        assert len(uv) and bool((uv > -1).all()) and bool((uv < torch.tensor([91.0, 62.0])).all())


def test_positions_are_baked_for_one_grid_alone() -> None:
    torch.manual_seed(0)
    network = DinoV2(TINY_VIT).eval()
    image = torch.rand(1, 3, 3 * 14, 5 * 14)
    with torch.no_grad():
        baked = network.for_grid((3, 5))
        torch.testing.assert_close(baked(image), network(image))
        assert baked.pos_embed.shape[1] == 1 + 3 * 5 and network.pos_embed.shape[1] == 1 + 4 * 4
        with pytest.raises(ValueError, match=r"positions are those of a grid of \(3, 5\) patches .* has \(5, 3\)"):
            baked(image.mT.contiguous())


def test_identity_tells_weights_and_settings_apart() -> None:
    network = tiny_mickey()
    same = network.fixed().identity
    assert same == tiny_mickey().fixed().identity
    other = tiny_mickey()
    other.config = replace(other.config, score_temperature=50.0)
    assert other.fixed().identity != same
    with torch.no_grad():
        network.dustbin += 1
    assert network.fixed().identity != same
    assert identity_of({"a": torch.zeros(2, 3)}) != identity_of({"a": torch.zeros(3, 2)})
