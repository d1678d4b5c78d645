"""Several references: poses brought together, one that is wrong left out, and a verdict that follows."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

import metriloc
from metriloc.cli.main import main
from metriloc.fusion import FromMany, motion_of, relative_pose_many
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError, read_mapfree_poses
from metriloc.io.packaged import own_data
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View

EXAMPLE = own_data("example")
CAMERA = Camera(torch.tensor([640.0, 480.0]), torch.tensor([520.0, 520.0]), torch.tensor([319.5, 239.5]))
PLACES = {
    "a": (0.0, 0.0, 0.0),
    "b": (1.0, 0.1, 0.2),
    "c": (-0.8, 0.2, 0.1),
    "d": (0.5, -0.4, 0.0),
    "q": (0.3, 0.1, 1.2),
}
TURNS = {"a": 0.0, "b": -0.1, "c": 0.15, "d": 0.05, "q": 0.1}


def pose_of(name: str) -> Pose:
    """``cam_from_world``, the world being the camera of ``a``."""
    R = so3_exp(torch.tensor([0.0, TURNS[name], 0.0], dtype=torch.float64))
    return Pose(R, -R @ torch.tensor(PLACES[name], dtype=torch.float64))


def view(name: str) -> View:
    return View(torch.zeros(3, 1, 1).expand(3, 480, 640), CAMERA, name=f"{name}.jpg")


class Features:
    cell, depth_origin = (8.0, 8.0), "given"

    def __init__(self, view: View) -> None:
        self.view = view

    def score_map(self) -> torch.Tensor:
        return torch.zeros(1, 1)

    def depth_map(self) -> None:
        return None


class Looking:
    """A method that knows where everything is. longer: of its metres, which are ``sigma`` sure; None for directions.

    wrong: pairs whose pose is turned by so many radians. failing: pairs without a pose. doubts: of pairs.
    """

    name, weights_id, calibrations = "looking", "looking-1", ()

    def __init__(
        self,
        longer: float | None = 1.2,
        sigma: float = 0.3,
        wrong: Mapping[str, float] = MappingProxyType({}),
        failing: tuple[str, ...] = (),
        doubts: Mapping[str, str] = MappingProxyType({}),
        confidence: float = 0.8,
    ) -> None:
        self.longer, self.sigma, self.wrong, self.failing, self.doubts = longer, sigma, wrong, failing, doubts
        self.confidence, self.asked = confidence, 0

    def extract(self, view: View) -> Any:
        return Features(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        self.asked += 1
        first, second = (Path(features.view.name).stem for features in (reference, query))
        pair = first + second
        if pair in self.failing:
            return PoseEstimate.failure("too_few_matches")
        true = pose_of(second) @ pose_of(first).inverse()
        generator = torch.Generator().manual_seed(7)
        uv0 = torch.rand(300, 2, generator=generator, dtype=torch.float64) * torch.tensor([639.0, 479.0])
        depth = 4 + 3 * torch.rand(300, generator=generator, dtype=torch.float64)
        camera = CAMERA.to(torch.float64)
        turn = so3_exp(torch.tensor([0.0, self.wrong.get(pair, 0.0), 0.0], dtype=torch.float64))
        uv1 = camera.project(true.transform(camera.lift(uv0, depth)) @ turn.mT)[0]
        one = torch.ones(300)
        metric = self.longer is not None
        t = true.t * self.longer if self.longer is not None else true.t / true.t.norm()
        pose = Pose(turn @ true.R, turn @ t)
        details = PairDetails(300.0, Correspondences(uv0, uv1, one, one, one), metric, "the guess" if metric else "")
        length = float(pose.distance())
        reach = math.exp(1.645 * self.sigma)
        return PoseEstimate(
            pose, torch.tensor(True), torch.tensor(self.confidence), (None,), (details,),
            probability_of="rightness", distance_interval=(length / reach, length * reach) if metric else None,
            doubts=(self.doubts[pair],) if pair in self.doubts else (),
        )  # fmt: skip


def asked(method: Looking, names: str = "abc", known: bool = True) -> PoseEstimate:
    poses = [pose_of(name) for name in names] if known else None
    return FromMany(method, [view(name) for name in names[1:]], poses).relative_pose(view(names[0]), view("q"))


def used(estimate: PoseEstimate) -> str:
    return "".join(Path(said.name).stem for said in estimate.details[0].references if said.used)


def test_known_poses_give_the_metres_that_two_photos_lack() -> None:
    alone = Looking(longer=1.2, confidence=0.95).relative_pose(Features(view("a")), Features(view("q")))
    assert alone.verdict == "doubtful"
    found = asked(Looking(longer=1.2, confidence=0.95))
    assert float(found.pose.center_distance(pose_of("q"))) < 0.03 < float(alone.pose.center_distance(pose_of("q")))
    assert found.distance_interval is not None
    assert found.distance_interval[0] < float(pose_of("q").distance()) < found.distance_interval[1]
    assert found.verdict == "reliable" and found.covariance is not None
    assert found.details[0].scale_source == "the known poses of 3 references and the guess"
    assert float(found.confidence) == pytest.approx(0.95) and found.probability_of == "rightness"


def test_directions_alone_are_enough_where_the_references_know_their_poses() -> None:
    found = asked(Looking(longer=None))
    assert float(found.pose.center_distance(pose_of("q"))) < 0.01
    assert found.details[0].metric and found.details[0].scale_source == "the known poses of 3 references"


def test_the_pose_is_relative_to_the_first_wherever_the_world_is() -> None:
    world = Pose.from_tangent(torch.tensor([3.0, -2.0, 1.0, 0.3, 1.0, -0.4], dtype=torch.float64))
    poses = [pose_of(name) @ world for name in "bca"]
    found = FromMany(Looking(), [view("c"), view("a")], poses).relative_pose(view("b"), view("q"))
    assert float(found.pose.center_distance(pose_of("q") @ pose_of("b").inverse())) < 0.03


def test_unknown_poses_are_estimated_and_change_no_length() -> None:
    method = Looking(longer=1.2)
    found = asked(method, known=False)
    assert method.asked == 6
    assert float(found.pose.angle_to(pose_of("q"))) < 1e-3
    assert torch.allclose(found.pose.t, 1.2 * pose_of("q").t, atol=0.02)
    assert found.distance_interval is not None and found.verdict == "doubtful"
    assert found.distance_interval[0] < float(pose_of("q").distance()) < found.distance_interval[1]
    assert found.details[0].scale_source == "the guess, over 3 references"


def test_poses_among_references_are_estimated_once() -> None:
    method = Looking()
    many = FromMany(method, [view("b"), view("c")])
    first = many.extract(view("a"))
    for _ in range(2):
        many.relative_pose(first, view("q"))
    assert method.asked == 3 + 2 * 3


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("wrong", ["aq", "bq", "cq"])
def test_one_wrong_reference_is_left_out(known: bool, wrong: str) -> None:
    found = asked(Looking(wrong={wrong: 0.4}), known=known)
    assert used(found) == "abc".replace(wrong[0], "")
    assert math.degrees(float(found.pose.angle_to(pose_of("q")))) < 0.2
    assert any(
        f"reference '{wrong[0]}.jpg' is left out: it is off by 23 degrees" in m for m in found.details[0].messages
    )
    assert not found.doubts
    assert bool((found.details[0].inliers.uv0.shape[0] == 0) == (wrong == "aq"))


def test_two_that_contradict_each_other_are_doubtful() -> None:
    found = asked(Looking(wrong={"bq": 0.4}), "ab")
    assert bool(found.success) and found.verdict == "doubtful"
    assert found.doubts[-1].endswith("say otherwise, and as many references do")


def test_two_and_two_are_doubtful() -> None:
    found = asked(Looking(wrong={"cq": 0.4, "dq": 0.4}), "abcd")
    assert used(found) in ("ab", "cd") and found.verdict == "doubtful"


def test_references_without_a_pose_have_no_say() -> None:
    found = asked(Looking(failing=("aq", "cq")))
    assert used(found) == "b" and float(found.pose.angle_to(pose_of("q"))) < 0.01
    assert "reference 'a.jpg' has no pose for the query (too_few_matches)" in found.details[0].messages
    assert float(found.confidence) == pytest.approx(0.8)
    only_first = asked(Looking(failing=("bq", "cq")))
    assert used(only_first) == "a" and torch.allclose(only_first.pose.t, 1.2 * pose_of("q").t)


def test_failures_have_a_reason() -> None:
    none = asked(Looking(failing=("aq", "bq", "cq")))
    assert (none.success.item(), none.reason) == (False, "too_few_matches")
    # the direction from b says nothing of where the query is beside a
    lost = asked(Looking(longer=None, failing=("aq", "cq")))
    assert (lost.success.item(), lost.reason) == (False, "degenerate")
    untied = asked(Looking(failing=("aq", "ab", "ac")), known=False)
    assert (untied.success.item(), untied.reason) == (False, "degenerate")


def test_a_direction_stays_one() -> None:
    found = asked(Looking(longer=None, failing=("bq", "cq")))
    assert not found.details[0].metric and float(found.pose.distance()) == pytest.approx(1)


def test_doubts_of_all_stay_and_doubts_of_one_do_not() -> None:
    guess = dict.fromkeys(("aq", "bq", "cq"), "the focal length of 'q.jpg' is a guess")
    assert asked(Looking(doubts=guess)).doubts == ("the focal length of 'q.jpg' is a guess",)
    assert asked(Looking(doubts={"aq": "another pose explains the photos"})).doubts == ()
    assert asked(Looking(doubts={"aq": "x", "bq": "y"})).doubts == ("x", "y")


def test_it_is_told_as_json() -> None:
    entry = json.loads(json.dumps(asked(Looking(failing=("bq",))).to_dict(), allow_nan=False))
    assert [said["used"] for said in entry["references"]] == [True, False, True]
    assert entry["references"][1]["reason"] == "too_few_matches" and entry["references"][1]["rotation_deg"] is None
    assert len(entry["covariance"]) == 6


@pytest.mark.parametrize(
    ("references", "poses", "says"),
    [
        (["a.jpg"], None, "two photos and more"),
        ("a.jpg", None, "two photos and more"),
        ([view("a"), view("b")], [Pose.identity()], "2 references need a pose each, got 1"),
        ([view("a"), view("b")], 3, "a Pose for each reference, or the file"),
        ([view("a"), view("b")], [Pose.identity(), Pose(torch.eye(3) * torch.nan, torch.zeros(3))], "not finite"),
        ([view("a"), view("b")], "nowhere.txt", "nowhere.txt"),
        ([view("a")] * 70, None, "at most 64 references"),
    ],
)
def test_wrong_use_is_one_sentence(references: Any, poses: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        relative_pose_many(references, view("q"), poses=poses, method=Looking())


# -- files and the command ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, with a second reference that is a copy of the first, and the poses of both in a world."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("reference.jpg", "query.jpg", "intrinsics.txt"):
        shutil.copy(EXAMPLE / name, folder / name)
    shutil.copy(EXAMPLE / "reference.jpg", folder / "again.jpg")
    lines = (folder / "intrinsics.txt").read_text().splitlines()
    named = next(line for line in lines if line.startswith("reference.jpg"))
    (folder / "intrinsics.txt").write_text("\n".join([*lines, named.replace("reference.jpg", "again.jpg")]) + "\n")
    line = "0.8 0 0.6 0 1 2 3"
    (folder / "poses.txt").write_text(f"reference.jpg {line}\nagain.jpg {line}\n")
    return folder


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["relpose", *map(str, arguments)])
    return int(stopped.value.code or 0)


@pytest.mark.slow
def test_the_command_takes_several_references(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [photos / name for name in ("reference.jpg", "again.jpg", "query.jpg")]
    options = ("--method", "sift", "--depth-source", "constant:2", "--reference-poses", photos / "poses.txt")
    code = run("--references", *names, *options, "--json", "--out", tmp_path, "--format", "mapfree", "tum", "opengl")
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert code == 0 and [said["used"] for said in query["references"]] == [True, True]
    truth = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert truth is not None
    world = Pose.from_quaternion(torch.tensor([0.8, 0, 0.6, 0]).double(), torch.tensor([1.0, 2, 3]).double())
    found = Pose.from_matrix(torch.tensor(query["cam_from_world"]["matrix"], dtype=torch.float64))
    assert math.degrees(float(found.angle_to(truth @ world))) < 1
    numbers = torch.tensor([float(x) for x in (tmp_path / "poses.mapfree.txt").read_text().split()[1:8]]).double()
    written = Pose.from_quaternion(numbers[:4], numbers[4:])
    assert float(written.center_distance(found)) < 1e-5
    assert run("--references", *names, *options, "--out", tmp_path, "--format", "mapfree", "--resume") == 0
    again = run(names[2], "--references", *names[:2], *options, "--out", tmp_path, "--resume")
    assert again == 0 and "kept from the earlier run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no query photo given"),
        (("REF",), "no query photo given"),
        (("--references", "REF", "QUERY"), "two photos and more"),
        (("QUERY", "--references", "REF"), "two photos and more"),
        (("--references", "REF", "REF", "QUERY"), "names 'REF' twice"),
        (("REF", "QUERY", "--reference-poses", "POSES"), "are of --references"),
        (("--references", "REF", "AGAIN", "QUERY", "--distance", "2"), "--distance 2 is from one reference"),
        (("--references", "REF", "AGAIN", "QUERY", "--depth", "REF"), "is of one reference"),
        (("--references", "REF", "AGAIN", "QUERY", "--reference-poses", "nowhere.txt"), "nowhere.txt"),
        (("--references", "REF", "QUERY", "AGAIN", "--reference-poses", "POSES"), "has no pose of the reference"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: tuple[str, ...], says: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"REF": "reference.jpg", "AGAIN": "again.jpg", "QUERY": "query.jpg", "POSES": "poses.txt"}
    given = [photos / names[a] if a in names else a for a in arguments]
    assert run(*given, "--method", "sift") == 2
    told = capsys.readouterr().err
    assert says.replace("REF", str(photos / "reference.jpg")) in told and told.count("\n") == 1


def test_the_call_is_public() -> None:
    assert metriloc.relative_pose_many is relative_pose_many
    assert replace(asked(Looking(confidence=0.95)), doubts=()).verdict == "reliable"


def test_a_motion_is_what_an_estimate_says_with_its_uncertainty() -> None:
    views = view("a"), view("q")
    found = Looking().relative_pose(Features(views[0]), Features(views[1]))
    motion = motion_of(found, 0, 1, views)
    assert motion is not None and motion.covariance.shape == (5, 5)  # rotation and direction
    torch.testing.assert_close(motion.pose.matrix(), found.pose.double().matrix())
    assert motion_of(PoseEstimate.failure("too_few_matches"), 0, 1, views) is None
