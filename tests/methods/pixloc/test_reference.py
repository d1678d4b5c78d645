"""Reference features: golden observations and averages, and a store that computes once, notices changes and survives."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metriloc.io.files import InputError
from metriloc.methods.pixloc import CostConfig, ReferenceStore
from metriloc.methods.pixloc.reference import Observations, by_point, combine, observe

COST = CostConfig(pad=1, validity="pixloc")


@pytest.mark.parametrize("trusted", [True, False])
def test_golden_observations_and_averages(trusted: bool, tiny: SimpleNamespace) -> None:
    golden, scene = tiny.golden, tiny.scene
    key = f"agg_unc{int(trusted)}"
    parts = []
    for image in (11, 12, 13):
        index = tiny.image_of[image]
        view = SimpleNamespace(name=f"images/{scene.names[index]}")
        seen = observe(tiny.extractor()(view, 1), scene, index, COST)
        if not trusted:
            seen = dataclasses.replace(seen, confidences=None)
        ids = [tiny.point_of[int(i)] for i in golden[f"{key}/obs_ids/{image}"]]
        rows = torch.searchsorted(seen.point_index, torch.tensor(ids))
        assert set(seen.point_index[seen.valid.all(-1)].tolist()) >= set(ids)
        for level in range(3):
            expected = golden[f"{key}/obs/{image}/level{level}"]
            channels = seen.features[level].shape[1]
            torch.testing.assert_close(seen.features[level][rows], expected[:, :channels].float(), rtol=1e-4, atol=1e-5)
            if seen.confidences is not None:
                torch.testing.assert_close(
                    seen.confidences[level][rows], expected[:, channels].float(), rtol=1e-4, atol=1e-5
                )
        parts.append((seen, torch.tensor(sorted(ids))))
    mean = combine(parts, (0, 1, 2), average=True)
    ids = [tiny.point_of[int(i)] for i in golden[f"{key}/avg1/ids"]]
    rows = torch.searchsorted(mean.point_index, torch.tensor(ids))
    assert len(mean) == len(ids) == len(golden[f"{key}/avg0/ids"])
    for level in range(3):
        expected = golden[f"{key}/avg1/level{level}"].float()
        channels = mean.features[level].shape[1]
        torch.testing.assert_close(mean.features[level][rows], expected[:, :channels], rtol=1e-4, atol=1e-5)
        if mean.confidences is not None:
            torch.testing.assert_close(mean.confidences[level][rows], expected[:, channels], rtol=1e-4, atol=1e-5)
    apart = combine(parts, (0, 1, 2), average=False)
    points, table = by_point(apart)
    assert set(points.tolist()) == {tiny.point_of[int(i)] for i in golden[f"{key}/avg0/ids"]}
    assert int((table >= 0).sum()) == len(apart) == sum(len(golden[f"{key}/obs_ids/{image}"]) for image in (11, 12, 13))
    assert (golden[f"{key}/avg0/num_entries"] == len(apart.features)).all()


def made(points: list[int], value: float, trust: float, levels: int = 2) -> Observations:
    n = len(points)
    features = tuple(torch.full((n, 3), value) for _ in range(levels))
    return Observations(
        torch.tensor(points),
        features,
        tuple(torch.full((n,), trust) for _ in range(levels)),
        torch.ones(n, levels).bool(),
    )


def test_combine_by_hand() -> None:
    first, second = made([1, 4, 7], 1.0, 0.25), made([4, 7, 9], 3.0, 0.75)
    second.valid[1, 1] = False  # point 7 at level 1
    points = torch.tensor([1, 4, 7])
    both = combine([(first, points), (second, points)], (0, 1), average=False)
    assert both.point_index.tolist() == [1, 4, 7, 4]
    fine = combine([(first, points), (second, points)], (0,), average=False)
    assert fine.point_index.tolist() == [1, 4, 7, 4, 7] and len(fine.features) == 1
    mean = combine([(first, points), (second, points)], (0, 1), average=True)
    assert mean.point_index.tolist() == [1, 4, 7]
    torch.testing.assert_close(mean.features[1][:, 0], torch.tensor([1.0, 2.5, 1.0]))
    assert mean.confidences is not None
    torch.testing.assert_close(mean.confidences[0], torch.tensor([0.25, 0.5, 0.25]))
    unsure = combine([(made([4], 1.0, 0.0), points), (made([4], 3.0, 0.0), points)], (0,), average=True)
    torch.testing.assert_close(unsure.features[0][0], torch.full((3,), 2.0))  # not 0 / 0
    nothing = combine([(first, torch.tensor([2]))], (0, 1), average=True)
    assert len(nothing) == 0 and by_point(nothing)[1].shape == (0, 1)
    points, rows = by_point(both)
    assert points.tolist() == [1, 4, 7] and rows.tolist() == [[0, -1], [1, 3], [2, -1]]


def same(a: Observations, b: Observations) -> bool:
    return torch.equal(a.point_index, b.point_index) and all(
        torch.equal(x, y) for x, y in zip(a.features, b.features, strict=True)
    )


@pytest.fixture()
def scene(tiny: SimpleNamespace, tmp_path: Path) -> Any:
    """The tiny map with its photos where a test may change them."""
    folder = tmp_path / "images"
    for name in tiny.scene.names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((tiny.folder / "images" / name).read_bytes())
    return dataclasses.replace(tiny.scene, folder=folder)


def test_computes_once(tiny: SimpleNamespace, scene: Any, tmp_path: Path) -> None:
    extractor = tiny.extractor()
    store = ReferenceStore(extractor, COST, tmp_path / "cache")
    first = store.get(scene, 0, 1)
    assert store.get(scene, 0, 1) is first and extractor.calls == 1
    other = tiny.extractor()
    again = ReferenceStore(other, COST, tmp_path / "cache").get(scene, 0, 1)
    assert other.calls == 0 and same(first, again)
    assert first.confidences is not None and again.confidences is not None
    assert torch.equal(first.confidences[2], again.confidences[2]) and torch.equal(first.valid, again.valid)
    (scene.folder / scene.names[0]).unlink()  # a map may travel without its photos
    assert same(first, ReferenceStore(other, COST, tmp_path / "cache").get(scene, 0, 1)) and other.calls == 0
    assert not list((tmp_path / "cache").glob("*.tmp")) and not list((tmp_path / "cache").glob(".*"))


def test_notices_changes(tiny: SimpleNamespace, scene: Any, tmp_path: Path) -> None:
    extractor = tiny.extractor()

    def calls(changed: Any = scene, image: int = 0, image_scale: int = 1, cost: CostConfig = COST, **kind: Any) -> int:
        before = extractor.calls
        ReferenceStore(extractor, cost, tmp_path / "cache", **kind).get(changed, image, image_scale)
        return extractor.calls - before

    assert calls() == 1 and calls() == 0
    assert calls(image_scale=4) == 1 and calls(image=1) == 1 and calls() == 0
    assert calls(half=True) == 1 and calls(half=True) == 0 and calls() == 1
    assert calls(cost=CostConfig(pad=3)) == 1 and calls() == 1
    moved = dataclasses.replace(scene, xyz=scene.xyz + 0.01)
    assert calls(moved) == 1 and calls() == 1
    photo = scene.folder / scene.names[0]
    os.utime(photo, (1, 1))  # another time, the same photo
    assert calls() == 0
    from PIL import Image

    Image.new("RGB", (256, 192), (9, 9, 9)).save(photo)
    assert calls() == 1 and calls() == 0
    extractor.identity = "other weights"
    assert calls() == 1 and calls() == 0


def test_a_store_in_use_notices_a_new_photo(tiny: SimpleNamespace, scene: Any) -> None:
    extractor = tiny.extractor()
    store = ReferenceStore(extractor, COST)
    store.get(scene, 0, 1)
    from PIL import Image

    Image.new("RGB", (256, 192), (9, 9, 9)).save(scene.folder / scene.names[0])
    store.get(scene, 0, 1)
    assert extractor.calls == 2


def test_damaged_files_are_made_again(tiny: SimpleNamespace, scene: Any, tmp_path: Path) -> None:
    extractor = tiny.extractor()
    first = ReferenceStore(extractor, COST, tmp_path / "cache").get(scene, 0, 1)
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff" * 100):
        file.write_bytes(damaged)
        assert same(first, ReferenceStore(extractor, COST, tmp_path / "cache").get(scene, 0, 1))
        before = extractor.calls
        assert same(first, ReferenceStore(extractor, COST, tmp_path / "cache").get(scene, 0, 1))
        assert extractor.calls == before
    assert extractor.calls == 4


def test_half_precision_is_half_the_size(tiny: SimpleNamespace, scene: Any, tmp_path: Path) -> None:
    full = ReferenceStore(tiny.extractor(), COST, tmp_path / "full").get(scene, 0, 1)
    half = ReferenceStore(tiny.extractor(), COST, tmp_path / "half", half=True).get(scene, 0, 1)
    sizes = [next((tmp_path / name).glob("*.safetensors")).stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    for a, b in zip(full.features, half.features, strict=True):
        assert b.dtype == torch.float16
        torch.testing.assert_close(b.float(), a, rtol=5e-4, atol=1e-6)


def test_build_goes_on_when_photos_are_missing(tiny: SimpleNamespace, scene: Any, tmp_path: Path) -> None:
    (scene.folder / scene.names[2]).unlink()
    extractor = tiny.extractor()
    store = ReferenceStore(extractor, COST, tmp_path / "cache")
    problems = store.build(scene, (4, 1))
    assert len(problems) == 1 and scene.names[2] in problems[0]
    assert extractor.calls == 8 and len(list((tmp_path / "cache").iterdir())) == 8


def test_memory_is_bounded(tiny: SimpleNamespace, scene: Any) -> None:
    extractor = tiny.extractor()
    store = ReferenceStore(extractor, COST, max_images=2)
    for image in (0, 1, 0, 2, 0, 1):
        store.get(scene, image, 1)
    assert extractor.calls == 4  # 0, 1, 2, and 1 again; 0 was always recent


def test_photos_that_cannot_be_used(tiny: SimpleNamespace, scene: Any) -> None:
    store = ReferenceStore(tiny.extractor(), COST)
    with pytest.raises(InputError, match="not at hand"):
        store.get(dataclasses.replace(scene, folder=None), 0, 1)
    photo = scene.folder / scene.names[0]
    photo.write_bytes(b"not a photo")
    with pytest.raises(InputError, match=r"r0\.png"):
        store.get(scene, 0, 1)
    from PIL import Image

    Image.new("RGB", (100, 50)).save(photo)
    with pytest.raises(InputError, match="100x50"):
        store.get(scene, 0, 1)
    photo.unlink()
    with pytest.raises(InputError, match="does not exist"):
        store.get(scene, 0, 1)


def test_a_folder_that_goes_away_is_a_warning(tiny: SimpleNamespace, scene: Any, tmp_path: Path) -> None:
    extractor = tiny.extractor()
    store = ReferenceStore(extractor, COST, tmp_path / "cache")
    (tmp_path / "cache").rmdir()
    with pytest.warns(UserWarning, match="kept in memory only"):
        first = store.get(scene, 0, 1)
    assert store.get(scene, 0, 1) is first and len(store.get(scene, 1, 1)) and extractor.calls == 2


def test_unusable_cache_folder(tiny: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file is in the way"):
        ReferenceStore(tiny.extractor(), COST, tmp_path / "file")
