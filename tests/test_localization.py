"""Localisation in one call, localisers by name, and maps of few photos."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import metriloc
from metriloc.backbones.vgg import VGGConfig
from metriloc.choose import LOCALIZERS, LocalizerChoice, choose_localizer
from metriloc.choose.for_maps import suited
from metriloc.geometry import Pose
from metriloc.io import InputError, read_mapfree_poses
from metriloc.io.maps import read_map
from metriloc.io.weights import load_weights
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.pixloc import NetworkConfig, PixLocNetwork, UNetConfig, save_pretrained
from metriloc.opened_map import open_map
from metriloc.types import AbsolutePoseMethod, SfmMap

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


@pytest.fixture(scope="module")
def nre() -> metriloc.NRE:
    return metriloc.NRE.from_features("xfeat")


def test_one_call(scene: SfmMap, nre: metriloc.NRE) -> None:
    truth = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert truth is not None
    found = metriloc.localize(EXAMPLE / "query.jpg", scene, references=["reference.jpg"], method=nre)
    assert bool(found.success)
    assert math.degrees(float((found.pose @ truth.inverse()).angle())) < 0.2
    assert float((found.pose.center() - truth.center()).norm()) < 0.02
    assert [stage.name for stage in found.localization[0].stages] == ["p3p", "coarse", "fine"]
    again = metriloc.localize(
        metriloc.load_view(EXAMPLE / "query.jpg"), scene, references=["reference.jpg"], init=truth, method=nre
    )
    assert again.localization[0].stages[0].name == "init"
    assert float((again.pose.center() - truth.center()).norm()) < 0.02


@pytest.mark.slow
def test_only_a_guess_that_is_used_is_warned_of(scene: SfmMap, nre: metriloc.NRE, tmp_path: Path) -> None:
    (tmp_path / "unknown.jpg").write_bytes((EXAMPLE / "query.jpg").read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metriloc.localize(tmp_path / "unknown.jpg", scene, references=["reference.jpg"], method=nre)
    assert bool(found.success) and any("only estimated" in doubt for doubt in found.doubts)
    Image.new("RGB", (640, 480), "gray").save(tmp_path / "blank.jpg")
    with pytest.warns(UserWarning, match="blank.jpg: the intrinsics are a guess"):
        metriloc.localize(tmp_path / "blank.jpg", scene, references=["reference.jpg"], method="xfeat-pnp")


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize("name", ["nre-xfeat", "pixloc", "xfeat-pnp"])
def test_numbers_that_a_map_speaks_against_are_doubted(shared: Callable[[str], Path], name: str) -> None:
    """K times 1.15 was 1.1 to 1.3 m off, and reliable with 0.997."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    photo, index = place / "seq0/frame_00003.jpg", 3
    method, without = choose_localizer(LocalizerChoice(name)), whole.without([index])
    references = [whole.names[2], whole.names[4]]
    camera = whole.cameras[index]
    verdicts = []
    for factor, shift in ((1.0, 0.0), (1.15, 0.0), (1.0, 120.0)):
        K = [*(camera.f * factor).tolist(), *(camera.c + shift).tolist()]
        found = metriloc.localize(metriloc.load_view(photo, K=K), without, references=references, method=method)
        verdicts.append(found.verdict)
        said = [doubt for doubt in found.reasons_for_doubt if "the map speaks for a" in doubt]
        assert len(said) == (1 if bool(found.success) and (factor, shift) != (1.0, 0.0) else 0), (found.doubts, shift)
    assert verdicts[0] == "reliable" and verdicts[1] == "doubtful" and verdicts[2] != "reliable"


@pytest.mark.wheels
@pytest.mark.parametrize("box", [(0, 0, 480, 320), (150, 0, 720, 480)])
def test_numbers_of_the_whole_photo_are_doubted_for_a_part_of_it(
    shared: Callable[[str], Path], tmp_path: Path, box: tuple[int, int, int, int]
) -> None:
    """A corner zoomed in was 3.1 m off, a photo cut on one side 1.3 m, both reliable."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    part = Image.open(place / "seq0/frame_00005.jpg").crop(box)
    if box[0] == 0:
        part = part.resize((720, 480))
    part.save(tmp_path / "part.png")
    camera = whole.cameras[5]
    K = [*camera.f.tolist(), *camera.c.tolist()]
    found = metriloc.localize(
        tmp_path / "part.png", whole.without([5]), K=K, references=[whole.names[4], whole.names[6]], method="xfeat-pnp"
    )
    assert found.verdict != "reliable" and (not bool(found.success) or "the map speaks for a" in found.doubts[0])


def test_references_are_looked_for(
    scene: SfmMap, nre: metriloc.NRE, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path))
    found = metriloc.localize(EXAMPLE / "query.jpg", scene, method=nre, seed=3)
    assert bool(found.success) and found.localization[0].references == ("reference.jpg",)
    assert (tmp_path / "retrieval").is_dir()


def test_wrong_use(scene: SfmMap, nre: metriloc.NRE) -> None:
    with pytest.raises(InputError, match=r"no image 'other\.jpg'"):
        metriloc.localize(EXAMPLE / "query.jpg", scene, references=["other.jpg"], method=nre)
    with pytest.raises(InputError, match="read already"):
        metriloc.localize(EXAMPLE / "query.jpg", scene, images=EXAMPLE, references=["reference.jpg"])
    with pytest.raises(InputError, match="holds no COLMAP model"):
        metriloc.localize(EXAMPLE / "query.jpg", EXAMPLE, images=EXAMPLE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"query": None}, "query must be a path, bytes of an image file, .* got NoneType"),
        ({"scene": 3}, "scene must be a path or a SfmMap, got 3"),
        ({"images": 3}, "images must be a folder, got 3"),
        ({"init": [1, 0, 0, 0]}, r"init must be a Pose, got \[1, 0, 0, 0\]"),
        ({"method": 3}, "method must be a name or have localize, got 3"),
        ({"seed": "1"}, "seed must be a whole number, got '1'"),
        ({"seed": float("nan")}, "seed must be a finite whole number, got nan"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"references": "reference.jpg"}, "references must be a list of names"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(scene: SfmMap, arguments: dict[str, Any], words: str) -> None:
    usual: dict[str, Any] = {"query": EXAMPLE / "query.jpg", "scene": scene}
    with pytest.raises(InputError, match=words):
        metriloc.localize(**{**usual, **arguments})


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (LocalizerChoice("magic"), "no localizer 'magic'"),
        (LocalizerChoice("pixloc", "/nowhere"), "/nowhere"),
        (LocalizerChoice("nre", features="sift"), "no NRE on 'sift'"),
        (LocalizerChoice("nre-xfeat", features="disk"), "--features disk belongs to nre"),
        (LocalizerChoice("nre-xfeat", "a.pt,b.pt"), "takes 1 weights files"),
        (LocalizerChoice("nre", features="nre"), "two weights files"),
    ],
)
def test_choices_that_cannot_be(choice: LocalizerChoice, words: str) -> None:
    with pytest.raises(InputError, match=words):
        choose_localizer(choice)


def test_pixloc_uses_the_bundled_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metriloc.io.packaged.own_data", lambda relative: tmp_path / relative)
    with pytest.raises(InputError, match="'pixloc-small' are not in this installation"):
        choose_localizer(LocalizerChoice("pixloc"))
    torch.manual_seed(0)
    light = NetworkConfig(UNetConfig(VGGConfig((1, 1, 1), (8, 8, 8)), (8, 8), (0, 1, 2), (8, 8, 8)))
    folder = tmp_path / "weights" / "pixloc-small"
    save_pretrained(PixLocNetwork(light), folder)
    identity = load_weights(folder, "pixloc").weights_id
    for method in (choose_localizer(LocalizerChoice("pixloc")), metriloc.PixLoc.from_pretrained()):
        assert isinstance(method, metriloc.PixLoc) and method.weights_id == identity


def test_names() -> None:
    wanted = {"nre", "nre-xfeat", "nre-xfeat+aliked", "nre-xfeat+disk", "pixloc", "xfeat-pnp"}
    assert wanted <= set(LOCALIZERS)
    for name in ("nre-xfeat", "xfeat-pnp"):
        method: AbsolutePoseMethod = choose_localizer(LocalizerChoice(name))
        assert method.name == name and method.weights_id


def test_short_tracks(scene: SfmMap, nre: metriloc.NRE) -> None:
    """A map of one photo has no point that two see; without it nothing would be left."""
    changed = suited(nre, scene)
    assert isinstance(changed, metriloc.NRE) and changed.config.min_track == 1
    assert nre.config.min_track == 2  # the one that was given is as it was
    doubled = SfmMap(
        ("a", "b"),
        scene.cameras * 2,
        Pose.identity((2,), dtype=torch.float64),
        scene.xyz,
        torch.cat([scene.image_index, scene.image_index + 1]),
        torch.cat([scene.point_index, scene.point_index]),
        torch.cat([scene.uv, scene.uv]),
    )
    assert suited(nre, doubled) is nre
    matching = choose_localizer(LocalizerChoice("xfeat-pnp"))
    lowered = suited(matching, scene)
    assert isinstance(lowered, MatchingLocalizer) and lowered.config.min_track == 1


def test_sample_of_the_paper(shared: Callable[[str], Path], nre: metriloc.NRE) -> None:
    sample = shared("data/nre_sample/sample.npz")
    scene = open_map(sample).scene
    assert scene.names == ("source_image.jpg",) and len(scene.xyz) > 600
    with pytest.raises(InputError, match="photos beside it"):
        open_map(sample, sample.parent)


def test_names_of_localizers_and_lists_of_references(scene: SfmMap) -> None:
    with pytest.raises(InputError, match="there is no localizer 'orb'"):
        metriloc.localize(EXAMPLE / "query.jpg", scene, references=["reference.jpg"], method="orb")
    with pytest.raises(InputError, match=r"must be a list of names.*say \['reference.jpg'\]"):
        metriloc.localize(EXAMPLE / "query.jpg", scene, references="reference.jpg")
