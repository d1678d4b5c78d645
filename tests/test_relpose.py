"""Methods by name: what the default is, which calibration a method gets, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import metriloc
from metriloc.auto import WithRival
from metriloc.backbones.dinov2 import DinoV2Config
from metriloc.calibration import (
    CALIBRATION_FILE,
    Calibration,
    Target,
    calibrations_of,
    load_calibration,
    save_calibration,
)
from metriloc.calibration.probability import camera_doubts
from metriloc.choose import MethodChoice, choose_method
from metriloc.cli.main import main
from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.io.local_features import find_weights, weights_are_here
from metriloc.io.packaged import bundled_folder, own_data
from metriloc.io.weights import is_bundled, load_weights
from metriloc.methods.matching.matchers import best_matcher
from metriloc.methods.matching.model import FeatureMatching
from metriloc.methods.mickey import MicKey, MicKeyConfig, MicKeyNetwork
from metriloc.types import View

PACKAGED = own_data("calibration/xfeat.none.json")
GEOMETRY = Target(rotation_deg=5, direction_deg=10, near_m=0.05)
EXAMPLE = own_data("example")
PHOTOS = EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg"


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``metriloc/data`` as it is with bundled weights: a small MicKey that knows nothing, and its calibration."""
    torch.manual_seed(0)
    network = MicKeyNetwork(MicKeyConfig(DinoV2Config(64, 2, 4), blocks=(48, 40, 32, 24), descriptor_dim=32))
    data = tmp_path_factory.mktemp("data")
    identity = MicKey(network).save_pretrained(data / "weights" / "metriloc-small")
    target = Target(rotation_deg=None, vcre_fraction=0.1)
    fitted = Calibration(
        "logistic", target, ("score", "inliers"), (-9.0, 0.1, 0.1), "mickey", identity, 99, "nothing", "procrustes"
    )
    (data / "calibration").mkdir()
    save_calibration(data / "calibration" / "metriloc-small.json", fitted)
    return data


@pytest.fixture()
def bundled(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in takes the place of what the package carries, and is the default."""

    def find(relative: str) -> Path:
        path = stand_in / relative
        return path if path.exists() or relative.startswith("weights") else own_data(relative)

    monkeypatch.setattr("metriloc.io.packaged.own_data", find)
    monkeypatch.setattr("metriloc.choose.pairs.best_matcher", lambda: None)  # as without the extra ``features``
    fitted = load_calibration(find("calibration/metriloc-small.json"))
    monkeypatch.setattr("metriloc.calibration.files._all_packaged", lambda: (fitted,))
    return stand_in / "weights" / "metriloc-small"


def test_matching_is_calibrated_for_the_weights_of_the_wheel() -> None:
    method = choose_method(MethodChoice("matching"))
    assert isinstance(method, FeatureMatching) and method.calibrations
    assert method.weights_id == load_calibration(PACKAGED).weights_id and method.name == "matching"
    assert not calibrations_of(choose_method(MethodChoice("matching", calibration="none")))
    assert not calibrations_of(choose_method(MethodChoice("sift")))


def test_other_weights_are_not_given_its_calibration(tmp_path: Path) -> None:
    tensors = torch.load(find_weights("xfeat"), weights_only=True)
    other = tmp_path / "xfeat.pt"
    torch.save({name: value + 0.0 if i else value * 1.0001 for i, (name, value) in enumerate(tensors.items())}, other)
    chosen = choose_method(MethodChoice("matching", weights=str(other)))
    assert isinstance(chosen, FeatureMatching) and not chosen.calibrations
    with pytest.raises(InputError, match="the calibration is for matching"):
        choose_method(MethodChoice("matching", weights=str(other), calibration=str(PACKAGED)))


def test_a_calibration_of_ones_own_is_used(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    calibration = load_calibration(PACKAGED)
    save_calibration(mine, calibration)
    chosen = choose_method(MethodChoice("matching", calibration=str(mine)))
    assert isinstance(chosen, FeatureMatching) and chosen.calibrations == (calibration,)
    content = json.loads(mine.read_text())
    assert "unrelated" in content["source"] and content["pairs"] >= 200


# -- the bundled model ------------------------------------------------------------------------------------------------
def test_bundled_weights_come_with_their_calibration() -> None:
    if not is_bundled("metriloc-small"):
        pytest.skip("metriloc-small is not in this installation yet")
    method = choose_method(MethodChoice("mickey"))
    (found,) = calibrations_of(method)
    assert method.name == "mickey"
    assert found.weights_id == load_weights(bundled_folder("metriloc-small"), "mickey").weights_id
    assert found.target == GEOMETRY and found.metres is not None


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        (MethodChoice(), "mickey"),
        (MethodChoice("mickey"), "mickey"),
    ],
)
def test_what_auto_stands_for(choice: MethodChoice, name: str, bundled: Path) -> None:
    method = choose_method(choice)
    assert method.name == name
    found = calibrations_of(method)
    assert found and all(c.weights_id == method.weights_id for c in found)


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize(
    ("choice", "setup"),
    [
        (MethodChoice(), "solver auto (joint fit), depth of depth-"),
        # metres that the user gives are not thrown away
        (MethodChoice(depth_map=True), "solver auto, no depth"),
        (MethodChoice(distance=2.0), "solver auto, no depth"),
        (MethodChoice(depth="none"), "solver auto, no depth"),
        (MethodChoice(solver="essential"), "solver essential (joint fit), depth of depth-"),
    ],
)
def test_auto_is_the_best_matcher_with_predicted_depth(choice: MethodChoice, setup: str) -> None:
    method = choose_method(choice)
    joined = isinstance(method, WithRival)
    assert joined == (choice == MethodChoice())  # metres that are given, MicKey could not use
    matching = method.matching if isinstance(method, WithRival) else method
    assert isinstance(matching, FeatureMatching) and matching.calibrations
    here = "aliked-" if weights_are_here("aliked", "aliked_lightglue") else "xfeat-"
    assert method.weights_id.startswith(here) and "+lightglue-" in method.weights_id
    found = method.relative_pose(*(metriloc.load_view(path, max_side=320) for path in PHOTOS))
    assert found.details[0].setup.startswith(setup)
    # fitted for the default solver and the bundled depth network
    calibrated = choice.solver == "auto" and choice.depth in ("file", "metriloc-depth", "none")
    assert (found.verdict != "uncalibrated") == calibrated, found.details[0].setup


def test_the_best_matcher_is_one_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: set[str] = set()
    monkeypatch.setattr("metriloc.methods.matching.matchers.weights_are_here", lambda *names: not missing & set(names))
    assert best_matcher() == "aliked+lightglue"
    missing.add("aliked_lightglue")
    assert best_matcher() == "xfeat+lightglue"
    missing.add("lighterglue")
    assert best_matcher() is None


def test_from_pretrained_loads_the_bundled_weights(bundled: Path) -> None:
    assert MicKey.from_pretrained().weights_id == load_weights(bundled, "mickey").weights_id


def test_the_calibration_is_for_these_weights_wherever_they_lie(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MicKey.from_pretrained()
    model.save_pretrained(tmp_path / "copy")
    assert calibrations_of(choose_method(MethodChoice(weights=str(tmp_path / "copy"))))
    with torch.no_grad():
        next(model.network.parameters()).mul_(1.001)
    identity = model.save_pretrained(tmp_path / "other")
    assert not calibrations_of(choose_method(MethodChoice(weights=str(tmp_path / "other"))))
    # the one beside the weights is asked first
    packaged = load_calibration(bundled.parents[1] / "calibration" / "metriloc-small.json")
    own = dataclasses.replace(packaged, weights_id=identity, source="mine")
    save_calibration(tmp_path / "other" / CALIBRATION_FILE, own)
    assert calibrations_of(choose_method(MethodChoice(weights=str(tmp_path / "other")))) == (own,)


@pytest.mark.slow
def test_one_call_takes_the_units_of_the_depth_map() -> None:
    depth = EXAMPLE / "reference.depth.png"
    method = choose_method(MethodChoice("matching"))
    known, halved = (
        metriloc.relative_pose(*PHOTOS, method=method, depth=depth, depth_scale=scale).pose.t for scale in (None, 2000)
    )
    assert torch.allclose(halved.norm(), known.norm() / 2, rtol=0.02)
    with pytest.raises(InputError, match="depth_scale 2000 was given for a reference that is a View already"):
        metriloc.relative_pose(metriloc.io.load_view(PHOTOS[0]), PHOTOS[1], method=method, depth_scale=2000)


@pytest.mark.slow
def test_one_call_takes_the_depth_map_or_the_model(bundled: Path) -> None:
    alone = metriloc.relative_pose(*PHOTOS, seed=1)
    assert "depth map" not in alone.details[0].scale_source and alone.details[0].metric
    again = metriloc.relative_pose(*PHOTOS, method=MicKey.from_pretrained(), seed=1)
    assert again.details[0].metric
    assert bool(alone.success) or not bool(alone.pose.t.isfinite().any())  # the stand-in believes nothing
    depth = EXAMPLE / "reference.depth.png"
    for given in (
        metriloc.relative_pose(*PHOTOS, depth=depth),
        metriloc.relative_pose(metriloc.load_view(PHOTOS[0], depth=depth), PHOTOS[1]),
    ):
        assert "depth map" in given.details[0].scale_source


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_commands_use_the_bundled_model(bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = load_weights(bundled, "mickey").weights_id
    assert run("relpose", *PHOTOS, "--json") in (0, 1)
    shown = json.loads(capsys.readouterr().out)
    assert shown["weights_id"] == identity and shown["confidence"]["calibrated"]
    (query,) = shown["queries"]
    assert query["confidence_is_probability_of"] == "VCRE below 10% of the diagonal"
    assert query["verdict"] == "failed" and not query["success"]  # the stand-in's calibration believes nothing
    assert "query_from_reference" not in query
    assert run("relpose", *PHOTOS, "--json", "--depth", EXAMPLE / "reference.depth.png") == 0
    assert json.loads(capsys.readouterr().out)["method"] == "matching"
    assert run("weights", "list") == 0
    listed = capsys.readouterr().out
    assert f"here, part of metriloc: {bundled}" in listed and "not in this installation" in listed
    assert run("weights", "get", "metriloc-small") == 0
    assert f"metriloc-small comes with metriloc: {bundled}" in capsys.readouterr().out


@pytest.mark.slow
def test_demo_shows_the_model_and_one_flag_the_matching(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("demo", "--out", tmp_path / "out") in (0, 1)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"method: mickey, weights {load_weights(bundled, 'mickey').weights_id}" in shown
    assert "true camera position" in shown
    assert (tmp_path / "out" / "query.depth.jpg").is_file()  # the model's own depth, no depth map was read
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Depth given" not in page and f"Depth predicted by {load_weights(bundled, 'mickey').weights_id}" in page
    assert run("demo", "--method", "matching") == 0
    shown = capsys.readouterr().out
    assert "method: matching, weights xfeat-" in shown and "depth map" in shown


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (MethodChoice("identity", polish="matches"), "polish by matches: it is MicKey's"),
        (MethodChoice("mickey", distance=1.0), "MicKey measures the distance itself"),
        (MethodChoice(depth="constant:x"), "constant:x"),
        (MethodChoice(depth="file:x"), "only data sets have named depth maps"),
        (MethodChoice(depth="flie"), "a depth source must be"),
        (MethodChoice(device="nowhere"), "no device 'nowhere'"),
        (MethodChoice("loftr"), r"loftr_outdoor\.ckpt are not here"),
    ],
)
def test_options_that_do_not_fit(choice: MethodChoice, says: str) -> None:
    with pytest.raises(InputError, match=says):
        choose_method(choice)


@pytest.mark.slow
def test_methods_are_taken_by_name() -> None:
    folder = Path(metriloc.__file__).parent / "data" / "example"
    photos = folder / "reference.jpg", folder / "query.jpg"
    named = metriloc.relative_pose(*photos, method="mickey")
    loaded = metriloc.relative_pose(*photos, method=choose_method(MethodChoice("mickey")))
    assert torch.equal(named.pose.matrix(), loaded.pose.matrix()) and named.verdict == loaded.verdict
    with pytest.raises(InputError, match="there is no method 'orb'"):
        metriloc.relative_pose(*photos, method="orb")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"reference": None}, "reference must be a path, bytes of an image file, .* got NoneType"),
        ({"query": 3}, "query must be a path, bytes of an image file, .* got int"),
        ({"method": 3}, "method must be a name or have relative_pose, got 3"),
        ({"distance": "2"}, "distance must be a number, got '2'"),
        ({"distance": float("nan")}, "distance must be a finite number, got nan"),
        ({"distance": -2.0}, "distance must be a positive number of metres, at most 1,000,000, got -2"),
        ({"depth_scale": "5000", "depth": EXAMPLE / "reference.depth.png"}, "depth_scale must be a number, got '5000'"),
        ({"seed": 1.5}, "seed must be a finite whole number, got 1.5"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(arguments: dict[str, Any], words: str) -> None:
    usual: dict[str, Any] = {"reference": EXAMPLE / "reference.jpg", "query": EXAMPLE / "query.jpg"}
    with pytest.raises(InputError, match=words):
        metriloc.relative_pose(**{**usual, **arguments})


@pytest.mark.slow
@pytest.mark.wheels
def test_a_loaded_method_takes_a_known_distance() -> None:
    method = metriloc.load("xfeat")
    loaded = metriloc.relative_pose(*PHOTOS, method=method, distance=0.61)
    named = metriloc.relative_pose(*PHOTOS, method="xfeat", distance=0.61)
    assert torch.equal(loaded.pose.matrix(), named.pose.matrix()) and loaded.verdict == named.verdict
    assert method.config.distance is None  # the method itself stays as it was
    with pytest.raises(InputError, match="distance 2 is used by feature matching only, and this method is mickey"):
        metriloc.relative_pose(*PHOTOS, method=MicKey.from_pretrained(), distance=2.0)
    with pytest.raises(InputError, match="distance must be a positive number of metres, at most 1,000,000"):
        metriloc.relative_pose(*PHOTOS, method="xfeat", distance=1e300)


@pytest.mark.slow
@pytest.mark.wheels
def test_numbers_of_another_size_make_doubtful() -> None:
    """K of the photo before it was halved: 45 degrees for 21, and called reliable."""
    views = [metriloc.as_view(str(path)) for path in PHOTOS]
    doubled = [
        dataclasses.replace(v, camera=dataclasses.replace(v.camera, f=2 * v.camera.f, c=2 * v.camera.c + 0.5))
        for v in views
    ]
    found = metriloc.relative_pose(*doubled, method="xfeat")
    assert found.verdict != "reliable" and any("look like those of a photo of 1280x960" in d for d in found.doubts)
    right = metriloc.relative_pose(*views, method="xfeat")
    assert not any("look like" in doubt for doubt in right.doubts)


def test_pixels_that_are_not_square_are_doubted() -> None:
    camera = Camera(torch.tensor([64.0, 48.0]), torch.tensor([66.0, 60.0]), torch.tensor([31.5, 23.5]))
    view = View(torch.zeros(3, 48, 64), camera, name="a.jpg")
    assert "not square (66 and 60 px)" in camera_doubts([view])[0]
    nearly = dataclasses.replace(view, camera=dataclasses.replace(camera, f=torch.tensor([61.0, 60.0])))
    assert camera_doubts([nearly]) == ()
