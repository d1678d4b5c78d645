"""Every method by its name: what ``metriloc.load`` gives, and what it says of a name that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

import metriloc
from metriloc.calibration import calibrations_of
from metriloc.choose import (
    LOCALIZERS,
    METHODS,
    MethodChoice,
    choice_beside,
    choose_depth,
    is_method,
    predicted_depth,
)
from metriloc.choose.depth import PREDICTED
from metriloc.evaluation.identity import IdentityPose
from metriloc.io import InputError
from metriloc.methods.matching import DepthConfig, DepthNetwork


def test_a_method_by_its_name_with_its_calibration() -> None:
    method = metriloc.load("mickey")
    assert isinstance(method, metriloc.MicKey) and calibrations_of(method)
    without = metriloc.load("mickey", calibration="none")
    assert isinstance(without, metriloc.MicKey) and calibrations_of(without) == ()
    assert isinstance(metriloc.load("identity"), IdentityPose) and calibrations_of(metriloc.load("identity")) == ()
    localizer = metriloc.load("pixloc")
    assert isinstance(localizer, metriloc.PixLoc) and calibrations_of(localizer)


def test_a_wrong_name_is_one_sentence_with_the_list() -> None:
    with pytest.raises(InputError, match="there is no method 'orb'") as caught:
        metriloc.load("orb")
    assert all(name in str(caught.value) for name in (*METHODS, *LOCALIZERS)) and "\n" not in str(caught.value)


def test_options_of_other_methods_are_refused() -> None:
    with pytest.raises(InputError, match="depth 'metriloc-small' is for methods of two photos"):
        metriloc.load("pixloc", depth="metriloc-small")
    with pytest.raises(InputError, match="there is no device 'warp'"):
        metriloc.load("mickey", device="warp")


@pytest.mark.wheels
def test_depth_by_the_name_of_its_weights(tmp_path: Path) -> None:
    DepthNetwork(DepthConfig(side=64, width=8)).save_pretrained(tmp_path)
    for depth, told in (
        (str(tmp_path), "depth of depth-"),
        ("metriloc-small", "depth of mickey-"),
        ("none", "depth map"),
    ):
        method = metriloc.load("xfeat", depth=depth, calibration="none")
        assert isinstance(method, metriloc.FeatureMatching) and method.config.depth_id.startswith(told)
    with pytest.raises(InputError, match="weights that predict depth"):
        metriloc.load("xfeat", depth="tape-measure")
    with pytest.raises(InputError, match=r"holds weights of 'pixloc', not of 'mickey'|must be"):
        metriloc.load("xfeat", depth="pixloc-small")


def test_names_that_are_none() -> None:
    for name in (None, 5):
        with pytest.raises(InputError, match="a method has a name"):
            metriloc.load(name)  # type: ignore[arg-type]


def test_methods_to_compare_with_have_the_same_metres_and_their_own_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metriloc.choose.pairs.best_matcher", lambda: "xfeat+lightglue")
    beside = choice_beside(MethodChoice("auto", weights=None), "xfeat")
    assert (beside.name, beside.depth) == ("xfeat", PREDICTED)
    asked = MethodChoice("xfeat", weights="own.pt", distance=0.6, camera_height=1.4, calibration="own.json")
    assert choice_beside(asked, "aliked") == MethodChoice("aliked", distance=0.6, camera_height=1.4)
    assert choice_beside(asked, "mickey") == MethodChoice("mickey")
    assert choice_beside(MethodChoice("mickey", polish="matches", calibration="none"), "sift").calibration == "none"


def test_names_of_methods_for_two_photos() -> None:
    assert is_method("xfeat") and is_method("hub:zju-community/matchanything_eloftr")
    assert not is_method("pixloc") and not is_method("")


def test_depth_to_be_judged_and_depth_that_is_predicted() -> None:
    view = metriloc.load_view(Path(metriloc.__file__).parent / "data" / "example" / "query.jpg", max_side=64)
    source = choose_depth("constant:2.5")
    found = source(view)
    assert found is not None and found.depth.unique().tolist() == [2.5]
    assert choose_depth("none")(view) is None
    with pytest.raises(InputError, match="predicts none"):
        predicted_depth("constant:2.5")
