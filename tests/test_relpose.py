"""Methods by name: which calibration they get, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import metriloc
from metriloc.baselines.matching import FeatureMatching
from metriloc.evaluation.calibration import CalibratedMethod, load_calibration, save_calibration
from metriloc.io import InputError
from metriloc.io.local_features import find_weights
from metriloc.relpose import MethodChoice, choose_method

PACKAGED = Path(metriloc.__file__).parent / "data" / "calibration" / "matching.json"


def test_the_default_is_calibrated_for_the_weights_of_the_wheel() -> None:
    method = choose_method(MethodChoice())
    assert isinstance(method, CalibratedMethod)
    assert method.weights_id == load_calibration(PACKAGED).weights_id and method.name == "matching"
    assert not isinstance(choose_method(MethodChoice(calibration="none")), CalibratedMethod)
    assert not isinstance(choose_method(MethodChoice("sift")), CalibratedMethod)


def test_other_weights_are_not_given_its_calibration(tmp_path: Path) -> None:
    import torch

    tensors = torch.load(find_weights("xfeat"), weights_only=True)
    other = tmp_path / "xfeat.pt"
    torch.save({name: value + 0.0 if i else value * 1.0001 for i, (name, value) in enumerate(tensors.items())}, other)
    assert isinstance(choose_method(MethodChoice("matching", weights=str(other))), FeatureMatching)
    with pytest.raises(InputError, match="the calibration is for matching"):
        choose_method(MethodChoice("matching", weights=str(other), calibration=str(PACKAGED)))


def test_a_calibration_of_ones_own_is_used(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    calibration = load_calibration(PACKAGED)
    save_calibration(mine, calibration)
    chosen = choose_method(MethodChoice(calibration=str(mine)))
    assert isinstance(chosen, CalibratedMethod) and chosen.calibration == calibration
    content = json.loads(mine.read_text())
    assert content["source"] == "synthetic scenes" and content["pairs"] >= 200


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (MethodChoice("identity", polish=True), "--polish is MicKey's"),
        (MethodChoice("mickey", distance=1.0), "MicKey measures the distance itself"),
        (MethodChoice(depth="constant:x"), "constant:x"),
        (MethodChoice(depth="file:x"), "--depth-source must be"),
        (MethodChoice(device="nowhere"), "no device 'nowhere'"),
        (MethodChoice("loftr"), r"loftr_outdoor\.ckpt are not here"),
    ],
)
def test_options_that_do_not_fit(choice: MethodChoice, says: str) -> None:
    with pytest.raises(InputError, match=says):
        choose_method(choice)
