"""Verdicts of localisers: their calibrations, what fits what, and doubts; on estimates made by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

import metriloc
from metriloc.backbones.local import DenseMap
from metriloc.calibration import (
    Calibration,
    Target,
    calibrations_for,
    calibrations_of,
    judged,
    save_calibration,
    that_fit,
)
from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.choose.for_maps import suited
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.io.settings import differing_settings
from metriloc.localizer import LOCALIZED
from metriloc.methods.matching.localizer import LocalizingConfig, MatchingLocalizer
from metriloc.methods.nre.settings import CONFIGS, NREConfig, StageConfig
from metriloc.methods.pixloc import LocalizeConfig, PixLoc
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.settings import setup_of
from metriloc.solvers.absolute_support import ABSOLUTE_RIVAL
from metriloc.types import LocalizationDetails, PoseEstimate, SfmMap, View

VIEW = View(torch.zeros(3, 48, 64), Camera.from_fov((64, 48), 1.0))
SCENE = SfmMap(
    ("a",),
    (VIEW.camera,),
    Pose.identity((1,), dtype=torch.float64),
    torch.ones(1, 3, dtype=torch.float64),
    torch.zeros(1, dtype=torch.long),
    torch.zeros(1, dtype=torch.long),
    torch.zeros(1, 2),
)


@dataclasses.dataclass(frozen=True)
class Told:
    """A localiser that says what it is told to."""

    ratio: float
    setup: str = "plain"
    doubts: tuple[str, ...] = ()
    name: str = "told"
    weights_id: str = "told-1"
    calibrations: tuple[Calibration, ...] = ()

    def __post_init__(self) -> None:
        that_fit(self.name, self.weights_id, self.calibrations)

    def localize(
        self, query: View, scene: SfmMap, references: Sequence[str], init: Pose | None = None, *, seed: int = 0
    ) -> PoseEstimate:
        details = LocalizationDetails(statistics={"inlier_ratio": self.ratio}, setup=self.setup)
        pose = Pose(torch.eye(3), torch.ones(3))
        found = PoseEstimate(
            pose, torch.tensor(True), torch.tensor(0.5), (None,), localization=(details,), doubts=self.doubts
        )
        return judged(found, self.calibrations, [query])


# sure of two in five, and lost below one in five
CALIBRATION = Calibration(
    "logistic", LOCALIZED, ("inlier_ratio",), (8.0, 5.7), "told", "told-1", 100, "made up", "plain", ((0.01, 0.9),)
)


def estimate(method: Told, view: View = VIEW) -> PoseEstimate:
    return dataclasses.replace(method, calibrations=(CALIBRATION,)).localize(view, SCENE, ["a"])


@pytest.mark.parametrize(("ratio", "verdict"), [(0.5, "reliable"), (0.25, "doubtful"), (0.1, "failed")])
def test_verdicts_follow_the_probability(ratio: float, verdict: str) -> None:
    found = estimate(Told(ratio))
    assert found.verdict == verdict and bool(found.success) == (verdict != "failed")
    assert "2 degrees" in found.probability_of and "2% of the depth" in found.probability_of
    if verdict == "failed":
        assert found.reasons == ("unsupported",) and bool(found.pose.t.isnan().all()) and float(found.confidence) == 0
    assert found.localization[0].statistics == {"inlier_ratio": ratio}  # kept, also of a failure


def test_doubts_and_guessed_focal_lengths_are_never_reliable() -> None:
    assert estimate(Told(0.8, doubts=("another pose explains the photo nearly as well",))).verdict == "doubtful"
    guessed = dataclasses.replace(VIEW, focal_sigma=0.3, name="phone.jpg")
    found = estimate(Told(0.8), guessed)
    assert found.verdict == "doubtful" and "phone.jpg" in found.doubts[0]


def test_a_calibration_is_for_one_setup_and_one_set_of_weights() -> None:
    assert estimate(Told(0.8, setup="other settings")).verdict == "uncalibrated"
    for other in (Told(0.8, name="else"), Told(0.8, weights_id="told-2")):
        with pytest.raises(InputError, match="the calibration is for told told-1"):
            dataclasses.replace(other, calibrations=(CALIBRATION,))
    assert calibrations_for("told", "told-1") == ()  # nothing comes with metriloc for it
    assert Told(0.8).localize(VIEW, SCENE, ["a"]).verdict == "uncalibrated"


def test_files_beside_weights(tmp_path: Path) -> None:
    beside = tmp_path / "calibration.json"
    assert calibrations_for("told", "told-1", beside) == ()
    save_calibration(beside, CALIBRATION)
    assert calibrations_for("told", "told-1", beside) == (CALIBRATION,)
    assert calibrations_for("told", "other", beside) == ()  # the weights were replaced
    packaged = calibrations_of(choose_localizer(LocalizerChoice("pixloc")))
    assert packaged and calibrations_for("pixloc", packaged[0].weights_id, beside) == packaged


def test_setups_name_what_differs_and_nothing_else() -> None:
    assert differing_settings(NREConfig(), NREConfig()) == ""
    changed = NREConfig(fine=StageConfig(400), min_track=1, skip_gnc=True)
    assert differing_settings(changed, NREConfig(), ("min_track",)) == "fine.longest_side=400, skip_gnc=True"
    setups = [differing_settings(config, NREConfig()) for config in CONFIGS.values()]
    assert len(set(setups)) == len(setups)
    pixloc = setup_of(LocalizeConfig(num_references=1, min_track=1, average=True), AlignConfig(), "w size=512")
    assert pixloc == "average=True; size=512"


def test_targets_may_be_a_share_of_the_depth() -> None:
    assert str(LOCALIZED) == "rotation below 2 degrees, position below 2% of the depth in view"
    with pytest.raises(ValueError, match="center_share"):
        Target(center_share=-1.0)


def test_pixloc_with_its_calibration_is_chosen_changed_and_suited() -> None:
    method = choose_localizer(LocalizerChoice("pixloc"))
    assert isinstance(method, PixLoc) and method.calibrations
    short = suited(method, SCENE)
    assert isinstance(short, PixLoc) and short.config.min_track == 1
    changed = method.adjusted(config=dataclasses.replace(method.config, average=True))
    assert short.calibrations == changed.calibrations == method.calibrations
    without = choose_localizer(LocalizerChoice("pixloc", calibration="none"))
    assert isinstance(without, metriloc.PixLoc) and without.calibrations == ()


# -- repeated structure -----------------------------------------------------------------------------------------------
class Colors:
    """Dense features that are the colors of a photo, at every second pixel."""

    name, temperature = "colors", 0.02

    def dense(self, image: torch.Tensor) -> DenseMap:
        flat = torch.nn.functional.avg_pool2d(image[None], 2)[0]
        wave = torch.cat([flat, torch.sin(9 * flat), torch.cos(9 * flat), torch.sin(25 * flat)])
        return DenseMap(torch.nn.functional.normalize(wave, dim=0), (2.0, 2.0), (0.5, 0.5))


def painted_wall(folder: Path, tiles: int) -> tuple[SfmMap, View, Pose]:
    """Spots of their own colors on a bumpy wall of three metres that consists of so many equal tiles, seen by a map of
    one photo and by a query."""
    g = torch.Generator().manual_seed(1)
    width, each = 3.0 / tiles, 96 // tiles
    tile = torch.rand(each, 3, dtype=torch.float64, generator=g) * torch.tensor([width, 2.0, 0.5])
    xyz = torch.cat([tile + torch.tensor([k * width - 1.5, -1.0, 3.0]) for k in range(tiles)])
    colors = torch.rand(each, 3, generator=g).repeat(tiles, 1)
    camera = Camera.from_fov((320, 240), 1.1)
    truth = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.2, -0.05, 0.1], dtype=torch.float64))
    photos = []
    for pose in (Pose.identity((), dtype=torch.float64), truth):
        uv, _ = camera.to(torch.float64).project(pose.transform(xyz))
        image = torch.full((3, 240, 320), 0.5)
        y, x = torch.meshgrid(torch.arange(240.0), torch.arange(320.0), indexing="ij")
        for (u, v), color in zip(uv.tolist(), colors, strict=True):
            image = torch.where(((x - u) ** 2 + (y - v) ** 2) < 10, color[:, None, None], image)
        photos.append((uv, image))
    uv, image = photos[0]
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / "a.png")
    index = torch.arange(len(xyz))
    one = Pose.identity((1,), dtype=torch.float64)
    scene = SfmMap(("a.png",), (camera,), one, xyz, torch.zeros_like(index), index, uv, folder)
    return scene, View(photos[1][1], camera), truth


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nre", "pnp"])
def test_tiles_are_doubtful_and_a_wall_without_is_not(kind: str, tmp_path: Path) -> None:
    if kind == "nre":
        look = StageConfig(320)
        method: metriloc.NRE | MatchingLocalizer = metriloc.NRE(
            Colors(), Colors(), NREConfig(coarse=look, fine=look, min_track=1, min_explained=5)
        )
    else:
        method = MatchingLocalizer(Colors(), "colors", LocalizingConfig(min_track=1, min_inliers=5))
    for tiles in (1, 4):
        scene, query, truth = painted_wall(tmp_path, tiles)
        found = method.localize(query, scene, ["a.png"])
        assert bool(found.success)
        assert found.doubts == ((ABSOLUTE_RIVAL,) if tiles > 1 else ())
        if tiles == 1:
            assert float((found.pose.center() - truth.center()).norm()) < 0.1
