"""Ranking the photos of a map: the nearest first, what is kept on disk, and when it no longer holds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import metriloc
from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, load_view
from metriloc.io.maps import read_map
from metriloc.methods.matching import MapRetrieval, RetrievalConfig
from metriloc.methods.matching.retrieval import mutual_matches
from metriloc.types import SfmMap, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


class Colors:
    """Features that need no network: a descriptor for each of 16 blocks of a photo, made of its colours."""

    name = "colours"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: Tensor) -> LocalFeatures:
        self.calls += 1
        blocks = torch.nn.functional.adaptive_avg_pool2d(image - 0.5, 16).reshape(3, 4, 4, 4, 4)
        descriptors = blocks.permute(1, 3, 0, 2, 4).reshape(16, 48)
        return LocalFeatures(torch.zeros(16, 2), descriptors, torch.ones(16))


def make_map(folder: Path, count: int = 4) -> SfmMap:
    """Photos of noise, each of which observes one point; the last observes none."""
    torch.manual_seed(0)
    for n in range(count):
        noise = (255 * torch.rand(16, 16, 3)).byte().numpy()
        Image.fromarray(noise).resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{n}.png")
    camera = Camera.from_fov(torch.tensor([64.0, 64.0]), 1.0)
    seen = torch.arange(count - 1)
    pose = Pose.identity((count,), dtype=torch.float64)
    names = tuple(f"{n}.png" for n in range(count))
    uv = torch.full((count - 1, 2), 5.0)
    return SfmMap(names, (camera,) * count, pose, torch.ones(count, 3), seen, seen, uv, folder)


def retrieval(features: Colors, cache: Path | None, identity: str = "a") -> MapRetrieval:
    return MapRetrieval(features, identity, RetrievalConfig(min_cosine=0.9), cache=cache)


def view_of(scene: SfmMap, name: str) -> View:
    assert scene.folder is not None
    return load_view(scene.folder / name, camera=scene.cameras[0])


def test_the_same_photo_comes_first_and_those_without_points_never(tmp_path: Path) -> None:
    scene = make_map(tmp_path)
    found = retrieval(Colors(), None).rank(view_of(scene, "2.png"), scene)
    assert found.names[0] == "2.png" and found.matches[0] == 16
    assert "3.png" not in found.names and found.messages == ()
    assert list(found.matches) == sorted(found.matches, reverse=True)
    assert len(retrieval(Colors(), None).rank(view_of(scene, "2.png"), scene, 1).names) == 1


def test_what_was_found_is_kept_until_photos_or_weights_change(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    scene, cache = make_map(tmp_path / "photos"), tmp_path / "cache"
    query = view_of(scene, "0.png")
    features = Colors()
    first = retrieval(features, cache).rank(query, scene)
    assert features.calls == 1 + 3
    (file,) = cache.iterdir()
    # another process, the same files
    again = Colors()
    assert retrieval(again, cache).rank(query, scene) == first
    assert again.calls == 1
    # a part of the map shares what is known of the whole
    assert retrieval(again, cache).rank(query, scene.without([0])).names == first.names[1:]
    assert again.calls == 2
    # one photo is another one now
    shutil.copy(tmp_path / "photos" / "2.png", tmp_path / "photos" / "1.png")
    changed = Colors()
    assert "2.png" in retrieval(changed, cache).prepare(scene)[0]
    assert changed.calls == 1
    # other weights
    other = Colors()
    retrieval(other, cache, "b").prepare(scene)
    assert other.calls == 3 and len(list(cache.iterdir())) == 2
    # a file that is not whole
    file.write_bytes(file.read_bytes()[:100])
    damaged = Colors()
    retrieval(damaged, cache).prepare(scene)
    assert damaged.calls == 3
    assert not [path for path in cache.iterdir() if path.name.endswith(".tmp")]


def test_a_photo_that_is_missing_is_passed_over(tmp_path: Path) -> None:
    scene = make_map(tmp_path)
    query = view_of(scene, "0.png")
    os.remove(tmp_path / "1.png")
    done: list[tuple[int, int]] = []
    found = retrieval(Colors(), None).rank(query, scene, progress=lambda n, total: done.append((n, total)))
    assert found.names[0] == "0.png" and "1.png" not in found.names
    assert len(found.messages) == 1 and "1.png" in found.messages[0]
    assert done[-1] == (2, 2)
    os.remove(tmp_path / "2.png")
    found = retrieval(Colors(), None).rank(query, scene)
    assert found.names == ("0.png",) and found.messages == (f"'{tmp_path}' lacks 2 of the 3 photos: '1.png', '2.png'",)


def test_an_interrupt_keeps_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    scene, cache = make_map(tmp_path / "photos"), tmp_path / "cache"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrieval(Colors(), cache).prepare(scene, stop)
    features = Colors()
    retrieval(features, cache).prepare(scene)
    assert features.calls == 1


def test_wrong_use(tmp_path: Path) -> None:
    scene = make_map(tmp_path)
    query = view_of(scene, "0.png")
    with pytest.raises(ValueError, match="must be positive, got 0"):
        retrieval(Colors(), None).rank(query, scene, 0)
    blind = SfmMap(
        scene.names, scene.cameras, scene.cam_from_world, scene.xyz, scene.image_index, scene.point_index, scene.uv
    )
    with pytest.raises(InputError, match="not at hand"):
        retrieval(Colors(), None).rank(query, blind)


def test_mutual_matches_against_loops(generator: torch.Generator) -> None:
    a, b = (torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (13, 17))
    for least in (-1.0, 0.5, 0.8):
        count = 0
        for i in range(len(a)):
            cosines = [float(a[i] @ other) for other in b]
            j = max(range(len(b)), key=cosines.__getitem__)
            back = max(range(len(a)), key=lambda k, j=j: float(a[k] @ b[j]))  # type: ignore[misc]
            count += back == i and cosines[j] >= least
        assert mutual_matches(a, b, least) == count
    assert mutual_matches(a[:0], b) == mutual_matches(a, b[:0]) == 0


@pytest.mark.slow
def test_real_photos(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """The neighbours along the row of photos come first."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    scene = whole.without([5])
    query = load_view(place / whole.names[5], camera=whole.cameras[5])
    names = MapRetrieval.from_pretrained(cache=tmp_path).rank(query, scene, 2).names
    assert set(names) == {"seq0/frame_00004.jpg", "seq0/frame_00006.jpg"}


def test_only_the_most_alike_of_many_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortlist of four ranks as all do, as long as what is sought is on it; and a bundle as the photos."""
    from metriloc.io.reference_features import entry_name
    from metriloc.methods.matching import retrieval as module

    scene = make_map(tmp_path, 12)
    query = view_of(scene, "4.png")
    every = MapRetrieval(Colors(), "a", RetrievalConfig(min_cosine=0.9))
    short = MapRetrieval(Colors(), "a", RetrievalConfig(min_cosine=0.9, shortlist=4))
    assert every.rank(query, scene, 1).names == ("4.png",)
    compared: list[int] = []
    count = module.mutual_matches
    monkeypatch.setattr(module, "mutual_matches", lambda *a: (compared.append(1), count(*a))[1])
    assert short.rank(query, scene, 1).names == ("4.png",) and len(compared) == 4
    index = short._index
    assert short.rank(query, scene.without([7]), 1).names == ("4.png",) and short._index is index

    entries = {entry_name(key): entry for key, entry in short.entries(scene)}

    class Source:
        def find(self, key: dict[str, str]) -> dict[str, Tensor] | None:
            return entries.get(entry_name(key))

    bundled = MapRetrieval(Colors(), "a", RetrievalConfig(min_cosine=0.9, shortlist=4), source=Source())
    nowhere = replace(scene, folder=None)
    for name in ("2.png", "4.png", "9.png"):
        view = view_of(scene, name)
        assert bundled.rank(view, nowhere) == short.rank(view, scene)
    entries.clear()
    with pytest.raises(InputError, match="make the bundle again"):
        MapRetrieval(Colors(), "a", RetrievalConfig(min_cosine=0.9, shortlist=4), source=Source()).rank(query, nowhere)
