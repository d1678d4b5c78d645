"""Settings that a method would not use are refused in one sentence, at every door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import metriloc
from metriloc.choose import MethodChoice, require_used
from metriloc.choose.pairs import choose_method
from metriloc.cli.main import main
from metriloc.io import InputError, load_view

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
REFERENCE, QUERY, DEPTH = (EXAMPLE / name for name in ("reference.jpg", "query.jpg", "reference.depth.png"))


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("mickey", {"solver": "pnp"}, "solver pnp: MicKey has its own"),
        ("mickey", {"depth": "none"}, "depth source none: MicKey predicts depth itself"),
        ("mickey", {"depth_map": True}, "the depth map of the reference: MicKey predicts depth itself"),
        ("mickey", {"distance": 0.0}, "distance 0: MicKey measures"),
        ("identity", {"solver": "pnp"}, "solver pnp: it is of feature matching, and identity has none"),
        ("identity", {"distance": 3.0}, "distance 3: it is of feature matching"),
        ("identity", {"weights": "w"}, r"weights 'w': it is MicKey's \(method mickey\) or of feature matching"),
        ("xfeat", {"precision": "fp16"}, "precision fp16: it is MicKey's"),
        ("xfeat", {"depth": "constant:3", "depth_map": True}, "contradict: give one"),
        ("xfeat", {"solver": "pnp", "distance": 3.0}, "distance 3: solver pnp has its metres from depth alone"),
        ("auto", {"polish": "matches"}, "method mickey"),
        ("identity", {"polish": "nre"}, "identity finds no pose that could be polished"),
        ("xfeat", {"polish": "pixloc", "depth": "none"}, "polish by pixloc lifts points by depth"),
        ("xfeat", {"polish": "pixlok"}, "polish must be one of matches, nre, pixloc, got .pixlok."),
        ("auto", {"weights": "metriloc-small", "depth_map": True}, "MicKey predicts depth itself"),
    ],
)
def test_what_a_method_would_not_use_is_refused(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        choose_method(MethodChoice(name, **given))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mickey", {"precision": "fp16", "polish": "matches", "weights": "w"}),
        ("xfeat", {"solver": "essential", "distance": 3.0, "depth": "mickey:metriloc-small", "precision": "fp16"}),
        ("xfeat", {"solver": "pnp", "depth_map": True, "weights": "w"}),
        ("identity", {"calibration": "none", "polish": None}),
        ("hub:a/b", {"camera_height": 1.4, "polish": "nre"}),
        ("mickey", {"depth_map": True, "polish": "pixloc"}),
    ],
)
def test_what_it_uses_is_not(name: str, given: dict[str, Any]) -> None:
    require_used(MethodChoice(name, **given))


def test_python_speaks_of_python() -> None:
    for name, depth in (("mickey", "none"), ("xfeat", "foo"), ("xfeat", "constant:x")):
        with pytest.raises(InputError, match="depth source") as caught:
            metriloc.load(name, depth=depth)
        assert "--" not in str(caught.value)
    for method in ("mickey", metriloc.MicKey.from_pretrained()):
        with pytest.raises(InputError, match="MicKey predicts depth itself"):
            metriloc.relative_pose(REFERENCE, QUERY, method=method, depth=DEPTH)


def test_one_word_for_the_camera_of_a_photo() -> None:
    for one, two in (
        ({"K": (500, 500, 320, 240)}, {"fov": 60.0}),
        ({"intrinsics": EXAMPLE / "intrinsics.txt"}, {"fov": 60.0}),
    ):
        with pytest.raises(InputError, match="are both given: which of the two is meant"):
            load_view(REFERENCE, **one, **two)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a field of view of 179\.99 degrees: focal lengths .* are not plausible"):
        load_view(REFERENCE, fov=179.99)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("relpose", REFERENCE, QUERY, "--k", 500, 500, 320, 240, "--fov", 60), "K and fov are both given"),
        (
            ("relpose", REFERENCE, QUERY, "--k", 500, 500, 320, 240, "--intrinsics", "F"),
            "K and intrinsics are both given",
        ),
        (("relpose", REFERENCE, QUERY, "--resume"), "give its --out"),
        (("relpose", "", ""), "one of the arguments is empty"),
        (("relpose", REFERENCE, QUERY, "--out", ""), "one of the arguments is empty"),
        (("relpose", REFERENCE, QUERY, "--method", "mickey", "--depth", DEPTH), "MicKey predicts depth itself"),
        (("localize", "M", "--held-out", "--fov", 30), "--held-out takes the cameras from the map"),
        (("localize", "M", QUERY, "--k", 500, 500, 320, 240, "--fov", 30), "--k says what"),
        (("demo", "--out", REFERENCE), "a file is in the way"),
    ],
)
def test_the_command_line_refuses_before_any_work(
    words: tuple[Any, ...], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def working(*given: object, **named: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("metriloc.cli.demo.load_view", working)
    monkeypatch.setattr("metriloc.cli.relpose.run_relpose", working)
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    sentence = capsys.readouterr().err
    assert stop.value.code == 2 and says in sentence and sentence.count("\n") == 1
