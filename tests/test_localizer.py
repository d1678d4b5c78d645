"""A map opened once: the same answers as one call each, each photo of the map looked at once, batches, failures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import metriloc
from metriloc.answers import Asked
from metriloc.backbones.local import DenseMap
from metriloc.backbones.xfeat import XFeat
from metriloc.io import InputError
from metriloc.io.reference_features import ReferenceFeatures
from metriloc.keepers import keepers_of, with_kept
from metriloc.types import PoseEstimate, SfmMap, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


@pytest.fixture(scope="module")
def localizer(scene: SfmMap) -> metriloc.Localizer:
    return metriloc.Localizer(scene, method="xfeat-pnp")


def same(a: PoseEstimate, b: PoseEstimate) -> bool:
    return torch.equal(a.pose.R, b.pose.R) and torch.equal(a.pose.t, b.pose.t) and a.doubts == b.doubts


def test_the_same_as_one_call(localizer: metriloc.Localizer, scene: SfmMap) -> None:
    found = localizer.localize(EXAMPLE / "query.jpg")
    assert bool(found.success) and same(found, metriloc.localize(EXAMPLE / "query.jpg", scene, method="xfeat-pnp"))
    assert same(found, localizer.localize(EXAMPLE / "query.jpg", references=["reference.jpg"]))
    stages = found.localization[0].timings
    assert {"photo", "retrieval", "focal length", "references", "query", "second look"} <= set(stages)
    assert all(value >= 0 for value in stages.values())


def test_photos_of_the_map_are_looked_at_once(localizer: metriloc.Localizer, monkeypatch: pytest.MonkeyPatch) -> None:
    view, passes = metriloc.load_view(EXAMPLE / "query.jpg"), list[int]()
    first, dense = localizer.localize(view), XFeat.dense

    def counted(self: XFeat, image: Tensor) -> DenseMap:
        passes.append(1)
        return dense(self, image)

    monkeypatch.setattr(XFeat, "dense", counted)
    assert same(first, localizer.localize(view))
    assert len(passes) == 1  # the query's


@pytest.mark.parametrize("name", ["xfeat-pnp", "nre-xfeat", pytest.param("pixloc", marks=pytest.mark.slow)])
def test_every_pose_has_a_covariance(scene: SfmMap, name: str) -> None:
    found = metriloc.Localizer(scene, method=name).localize(EXAMPLE / "query.jpg")  # type: ignore[arg-type]
    assert found.covariance is not None and found.covariance.shape == (6, 6)
    assert float(torch.linalg.eigvalsh(found.covariance)[0]) > 0
    # metres and radians of a photo that is sharp: between a tenth of a millimetre and ten centimetres
    deviation = found.covariance.diagonal().sqrt()
    assert float(deviation.min()) > 1e-5 and float(deviation.max()) < 0.1
    assert len(found.to_dict()["covariance"]) == 6


def test_many_and_one_that_cannot_be_read(localizer: metriloc.Localizer, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_text("no photo")
    done: list[int] = []
    photos = [EXAMPLE / "query.jpg", tmp_path / "broken.jpg", EXAMPLE / "reference.jpg"]
    found = localizer.localize_many(photos, progress=done.append)
    assert [bool(one.success) for one in found] == [True, False, True] and done == [1, 2, 3]
    assert found[1].reason == "no_photo" and "broken.jpg" in found[1].localization[0].messages[0]
    assert same(found[0], localizer.localize(EXAMPLE / "query.jpg"))
    with pytest.raises(InputError, match=r"must be a list of photos, got 'query.jpg'"):
        localizer.localize_many("query.jpg")


def test_what_there_is_to_compare_with_may_fail(localizer: metriloc.Localizer) -> None:
    """A caller that knows better than retrieval says so, and is asked for every turn of the photo."""
    view, turns = metriloc.load_view(EXAMPLE / "query.jpg"), list[tuple[int, int]]()

    def ask(turned: View, _: object) -> Asked:
        turns.append(turned.size)
        return Asked((), failed=PoseEstimate.failure("too_few_matches"))

    answer = localizer.answer(view, ask)
    assert answer.estimate.reason == "too_few_matches"
    assert turns == [(640, 480), (480, 640), (480, 640), (640, 480)]


def test_wrong_use(scene: SfmMap, localizer: metriloc.Localizer) -> None:
    with pytest.raises(InputError, match="read already"):
        metriloc.Localizer(scene, images=EXAMPLE)
    with pytest.raises(InputError, match="references must be positive"):
        metriloc.Localizer(scene, references=0)
    with pytest.raises(InputError, match=r"no image 'other\.jpg'"):
        localizer.localize(EXAMPLE / "query.jpg", references=["other.jpg"])
    with pytest.raises(InputError, match="seed must not be negative"):
        localizer.localize(EXAMPLE / "query.jpg", seed=-1)

    class Own:
        name, weights_id = "own", ""

        def localize(self, *_: object, **__: object) -> PoseEstimate:
            return PoseEstimate.failure("too_few_matches")

    own = Own()
    assert with_kept(own, ReferenceFeatures()) is own
    assert metriloc.Localizer(scene, method=own).localize(EXAMPLE / "query.jpg").reason == "too_few_matches"
    with pytest.raises(InputError, match="own keeps no features"):
        keepers_of([own], ReferenceFeatures())


def test_memory_has_a_bound() -> None:
    kept = ReferenceFeatures(max_bytes=1000)
    made: list[str] = []

    def make(name: str) -> dict[str, Tensor]:
        made.append(name)
        return {"descriptors": torch.zeros(100).half()}

    for name in "abcdefg" * 2:
        kept.entry({"name": name, "photo": ""}, lambda name=name: make(name))  # type: ignore[misc]
    assert len(made) == 14  # seven do not fit at once, the least recently used is always the one that is needed
    kept.entry({"name": "g", "photo": ""}, lambda: make("g"))
    kept.entry({"name": "g", "photo": "other"}, lambda: make("of another photo"))
    assert made[14:] == ["of another photo"]
