"""A calibration belongs to its weights: however a method is loaded, it answers alike, verdict included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import metriloc
from metriloc.calibration import calibrations_for, calibrations_of
from metriloc.choose.for_maps import suited
from metriloc.io.maps import map_from_view
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.types import AbsolutePoseMethod, PoseEstimate, RelativePoseMethod, SfmMap, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
DEPTH = EXAMPLE / "reference.depth.png"


def answer(estimate: PoseEstimate) -> dict[str, Any]:
    """All that is told of an estimate but the seconds that it took."""
    return {name: value for name, value in estimate.to_dict().items() if name != "timings_s"}


@pytest.fixture(scope="module")
def photos() -> tuple[View, View]:
    return metriloc.load_view(EXAMPLE / "reference.jpg", depth=DEPTH), metriloc.load_view(EXAMPLE / "query.jpg")


@pytest.fixture(scope="module")
def scene(photos: tuple[View, View]) -> SfmMap:
    """A map of one photo: its pixels with depth are the points."""
    return map_from_view(photos[0], spacing=12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "load"),
    [("mickey", metriloc.MicKey.from_pretrained), ("matching", metriloc.FeatureMatching.from_pretrained)],
    ids=["mickey", "matching"],
)
def test_two_photos(name: str, load: Callable[..., RelativePoseMethod], photos: tuple[View, View]) -> None:
    depth = None if name == "mickey" else DEPTH  # MicKey has its own, and refuses one
    called = metriloc.relative_pose(EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg", depth=depth, method=name)
    method, bare = load(), load(calibrations=())
    own = method.relative_pose(*photos)
    assert answer(own) == answer(called) and own.verdict == called.verdict != "uncalibrated"
    assert own.doubts == called.doubts and own.distance_interval == called.distance_interval is not None
    assert calibrations_of(method) == calibrations_of(metriloc.load(name)) != ()
    raw = bare.relative_pose(*photos)
    assert raw.verdict == "uncalibrated" and raw.distance_interval is None and calibrations_of(bare) == ()
    assert torch.equal(raw.pose.matrix(), own.pose.matrix())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("pixloc", metriloc.PixLoc.from_pretrained),
        ("nre-xfeat", lambda **words: metriloc.NRE.from_features("xfeat", **words)),
        ("xfeat-pnp", MatchingLocalizer.from_features),
    ],
    ids=["pixloc", "nre", "pnp"],
)
def test_a_photo_in_a_map(
    name: Any, load: Callable[..., AbsolutePoseMethod], photos: tuple[View, View], scene: SfmMap
) -> None:
    called = metriloc.localize(EXAMPLE / "query.jpg", scene, references=["reference.jpg"], method=name)
    method, bare = load(), load(calibrations=())
    assert calibrations_of(method) == calibrations_of(metriloc.load(name)) != () == calibrations_of(bare)
    own = suited(method, scene).localize(photos[1], scene, ["reference.jpg"])
    assert answer(own) == answer(called) and own.verdict == called.verdict != "uncalibrated"
    raw = suited(bare, scene).localize(photos[1], scene, ["reference.jpg"])
    assert raw.verdict == "uncalibrated" and torch.equal(raw.pose.matrix(), own.pose.matrix())


@pytest.mark.slow
def test_many_queries_are_judged_as_one(photos: tuple[View, View]) -> None:
    model = metriloc.MicKey.from_pretrained()
    one = model.relative_pose(*photos)
    many = model.relative_poses(photos[0], [photos[1]])
    (only,) = many.elements
    assert (only.verdict, only.doubts, only.distance_interval) == (one.verdict, one.doubts, one.distance_interval)
    assert float(many.confidence[0]) == float(one.confidence) and many.probability_of == one.probability_of != ""


def test_other_settings_and_other_weights_are_not_judged(photos: tuple[View, View], tmp_path: Path) -> None:
    assert metriloc.MicKey.from_pretrained(polish=False).relative_pose(*photos).verdict == "uncalibrated"
    model = metriloc.MicKey.from_pretrained()
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.001)
    assert model.calibrations
    model.save_pretrained(tmp_path)  # from now on the weights are others
    assert model.calibrations == () == metriloc.MicKey.from_pretrained(tmp_path).calibrations
    assert calibrations_for("mickey", "mickey-published") == ()
    given = metriloc.MicKey.from_pretrained().calibrations
    with pytest.raises(metriloc.InputError, match="the calibration is for mickey"):
        metriloc.MicKey.from_pretrained(tmp_path, calibrations=given)
