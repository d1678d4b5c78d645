"""The localiser whole: the published sample pair, failures with reasons, scales brought together, references that fail."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from metriloc.backbones.local import DenseMap
from metriloc.datasets.nre_sample import NreSample, read_nre_sample
from metriloc.geometry import Camera, Pose, rotation_angle, so3_exp
from metriloc.io import InputError
from metriloc.methods.nre.looks import Reference, apparent_scale
from metriloc.methods.nre.model import NRE
from metriloc.methods.nre.settings import CONFIGS, NREConfig, StageConfig
from metriloc.types import PoseEstimate, SfmMap, View

Shared = Callable[[str], Path]


def errors(estimate: PoseEstimate, truth: Pose | None) -> tuple[float, float]:
    """Degrees, and distance of the vectors t as the paper has it."""
    assert truth is not None and bool(estimate.success), estimate.reasons
    pose = estimate.pose.to(torch.float64)
    return math.degrees(float(rotation_angle(pose.R @ truth.R.mT))), float((pose.t - truth.t).norm())


def localizer(features: str) -> NRE:
    try:
        method = NRE.from_features(features)  # type: ignore[arg-type]
    except InputError as error:
        pytest.skip(str(error))
    # the map of the sample has one photo
    method.config = dataclasses.replace(method.config, min_track=1)
    return method


@pytest.fixture(scope="module")
def sample(shared: Shared) -> NreSample:
    return read_nre_sample(shared("data/nre_sample/sample.npz"))


def test_sample_file_is_what_the_spec_says(sample: NreSample) -> None:
    assert len(sample.source.xyz) == 707 and len(sample.source.point_index) == 707
    back = sample.reversed()
    assert back.source.names == ("target_image.jpg",) and len(back.source.point_index) == 600
    assert back.target.cam_from_world is not None


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize(
    ("features", "seeds", "bar"),
    [("xfeat", range(5), (0.5, 0.05)), ("xfeat+aliked", range(1), (0.2, 0.02)), ("xfeat+disk", range(1), (0.1, 0.01))],
)
def test_sample_pair_is_localized(sample: NreSample, features: str, seeds: range, bar: tuple[float, float]) -> None:
    """All five seeds of the slow features: ``benchmarks/nre_sample.py``; the fine stage forgets the seed."""
    method = localizer(features)
    view = sample.target.load()
    for seed in seeds:
        estimate = method.localize(view, sample.source, sample.source.names, seed=seed)
        rotation, translation = errors(estimate, sample.target.cam_from_world)
        assert rotation <= bar[0] and translation <= bar[1]
        details = estimate.localization[0]
        assert [stage.name for stage in details.stages] == ["p3p", "coarse", "fine"]
        assert 0.5 < float(estimate.confidence) < 1
        assert {"support", "coarse_support", "explained", "explained_ratio"} < set(details.statistics)
        assert {"inliers", "inlier_ratio", "coverage", "order", "precision", "fine_ratio"} < set(details.statistics)


def test_sample_pair_in_reverse(sample: NreSample) -> None:
    back = sample.reversed()
    estimate = localizer("xfeat").localize(back.target.load(), back.source, back.source.names)
    rotation, translation = errors(estimate, back.target.cam_from_world)
    assert rotation <= 0.2 and translation <= 0.04


def test_a_first_guess_takes_the_place_of_p3p(sample: NreSample) -> None:
    truth = sample.target.cam_from_world
    assert truth is not None
    guess = Pose(so3_exp(torch.tensor([0.0, 0.02, 0.0], dtype=torch.float64)), torch.zeros(3).double()) @ truth
    estimate = localizer("xfeat").localize(sample.target.load(), sample.source, sample.source.names, guess)
    assert [stage.name for stage in estimate.localization[0].stages] == ["init", "coarse", "fine"]
    assert errors(estimate, truth)[0] <= 0.5


def test_options_of_the_published_config(sample: NreSample) -> None:
    method = localizer("xfeat")
    view = sample.target.load()
    config = method.config
    method.config = dataclasses.replace(config, skip_gnc=True)
    p3p = method.localize(view, sample.source, sample.source.names)
    assert [stage.name for stage in p3p.localization[0].stages] == ["p3p"]
    assert errors(p3p, sample.target.cam_from_world)[0] < 2
    method.config = dataclasses.replace(config, use_re=True)
    assert errors(method.localize(view, sample.source, sample.source.names), sample.target.cam_from_world)[0] < 0.5


@pytest.mark.slow
def test_a_black_photo_and_a_photo_of_something_else_fail(sample: NreSample) -> None:
    method = localizer("xfeat")
    camera = Camera.from_fov((320, 240), 1.0)
    black = method.localize(View(torch.zeros(3, 240, 320), camera), sample.source, sample.source.names)
    assert not bool(black.success) and black.reasons[0] is not None
    noise = torch.rand(3, 240, 320, generator=torch.Generator().manual_seed(0))
    other = method.localize(View(noise, camera), sample.source, sample.source.names)
    assert float(other.confidence) < 0.3


# -- without trained features -----------------------------------------------------------------------------------------
class Colors:
    """Dense features that are the colours of a photo, at every second pixel."""

    name, temperature = "colours", 0.02

    def dense(self, image: Tensor) -> DenseMap:
        flat = torch.nn.functional.avg_pool2d(image[None], 2)[0]
        wave = torch.cat([flat, torch.sin(9 * flat), torch.cos(9 * flat), torch.sin(25 * flat)])
        return DenseMap(torch.nn.functional.normalize(wave, dim=0), (2.0, 2.0), (0.5, 0.5))


def painted_map(folder: Path, kind: str = "scene") -> tuple[SfmMap, View, Pose]:
    """Points of a bumpy wall, each a spot of its own colour, in a reference and a query photo."""
    g = torch.Generator().manual_seed(1)
    n = {"three": 3, "line": 30}.get(kind, 80)
    xyz = torch.rand(n, 3, dtype=torch.float64, generator=g) * torch.tensor([3.0, 2.0, 0.8]) + torch.tensor(
        [-1.5, -1.0, 3.0]
    )
    if kind == "line":
        xyz = torch.linspace(-1, 1, n, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.3, 0.2]) + torch.tensor(
            [0, 0, 3.5]
        )
    colors = torch.rand(n, 3, generator=g)
    camera = Camera.from_fov((320, 240), 1.1)
    reference = Pose.identity((), dtype=torch.float64)
    truth = Pose(
        so3_exp(torch.tensor([0.02, -0.05, 0.03], dtype=torch.float64)), torch.tensor([0.2, -0.05, 0.1]).double()
    )
    seen = {}
    for name, pose in (("a.png", reference), ("query", truth)):
        uv, _ = camera.to(torch.float64).project(pose.transform(xyz))
        image = torch.full((3, 240, 320), 0.5)
        y, x = torch.meshgrid(torch.arange(240.0), torch.arange(320.0), indexing="ij")
        for (u, v), color in zip(uv.tolist(), colors, strict=True):
            image = torch.where(((x - u) ** 2 + (y - v) ** 2) < 10, color[:, None, None], image)
        seen[name] = (uv, image)
    uv, image = seen["a.png"]
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / "a.png")
    index = torch.arange(n)
    single = Pose(reference.R[None], reference.t[None])
    scene = SfmMap(("a.png",), (camera,), single, xyz, torch.zeros_like(index), index, uv, folder)
    return scene, View(seen["query"][1], camera), truth


CONFIG = NREConfig(coarse=StageConfig(320), fine=StageConfig(320), min_track=1, min_explained=5)


def test_painted_spots_are_localized(tmp_path: Path) -> None:
    scene, query, truth = painted_map(tmp_path)
    method = NRE(Colors(), Colors(), CONFIG, "colours")
    estimate = method.localize(query, scene, ["a.png"])
    rotation, translation = errors(estimate, truth)
    assert rotation < 0.5 and translation < 0.05  # a spot is four cells wide
    assert method.name == "nre-colours" and estimate.localization[0].references == ("a.png",)
    again = method.localize(query, scene, ["a.png"])
    assert torch.equal(again.pose.R, estimate.pose.R)
    assert again.trace is None
    trace = method.localize(query, scene, ["a.png"], trace=True).trace
    assert trace is not None and [m.stage for m in trace.maps] == ["coarse", "fine"]
    assert [len(m.values) for m in trace.maps] == [len(m.index) for m in trace.maps]
    assert [course.stage for course in trace.courses] == ["coarse", "fine"]
    assert [stage.name for stage in trace.stages] == ["p3p", "coarse", "fine"]


def test_the_truth_is_told_costs_and_changes_nothing(tmp_path: Path) -> None:
    scene, query, truth = painted_map(tmp_path)
    method = NRE(Colors(), Colors(), CONFIG, "colours")
    plain = method.localize(query, scene, ["a.png"])
    told = method.localize(query, scene, ["a.png"], truth=truth)
    assert torch.equal(plain.pose.R, told.pose.R) and torch.equal(plain.pose.t, told.pose.t)
    details = told.localization[0]
    assert list(details.costs_at_truth) == ["p3p", "coarse", "fine"] and not plain.localization[0].costs_at_truth
    stages = {stage.name: stage.cost for stage in details.stages}
    assert stages["coarse"] <= details.costs_at_truth["coarse"] + 1e-6 < 0
    coarse = dataclasses.replace(CONFIG, coarse_only=True)
    alone = NRE(Colors(), Colors(), coarse, "colours").localize(query, scene, ["a.png"], truth=truth)
    assert [stage.name for stage in alone.localization[0].stages] == ["p3p", "coarse"]


def test_failures_have_reasons(tmp_path: Path) -> None:
    scene, query, truth = painted_map(tmp_path)
    method = NRE(Colors(), Colors(), CONFIG, "colours")
    empty = dataclasses.replace(
        scene, image_index=scene.image_index[:0], point_index=scene.point_index[:0], uv=scene.uv[:0]
    )
    assert method.localize(query, empty, ["a.png"]).reasons == ("no_reference",)
    nowhere = dataclasses.replace(scene, folder=None)
    lost = method.localize(query, nowhere, ["a.png"])
    assert lost.reasons == ("no_reference",) and "not at hand" in lost.localization[0].messages[0]
    absent = dataclasses.replace(scene, names=("b.png",))
    assert "b.png" in method.localize(query, absent, ["b.png"]).localization[0].messages[0]
    with pytest.raises(ValueError, match=r"no image 'z\.png'"):
        method.localize(query, scene, ["z.png"])
    turned = Pose(so3_exp(torch.tensor([0.0, math.pi, 0.0], dtype=torch.float64)), truth.t)
    behind = method.localize(query, scene, ["a.png"], turned)
    assert not bool(behind.success) and behind.reasons[0] is not None
    flat = View(torch.full((3, 240, 320), 0.5), query.camera)
    assert not bool(method.localize(flat, scene, ["a.png"]).success)


@pytest.mark.parametrize("kind", ["three", "line"])
def test_points_that_do_not_fix_a_pose(tmp_path: Path, kind: str) -> None:
    scene, query, _ = painted_map(tmp_path, kind)
    estimate = NRE(Colors(), None, dataclasses.replace(CONFIG, min_explained=3), "c").localize(query, scene, ["a.png"])
    assert not bool(estimate.success)
    assert estimate.reasons[0] in ("too_few_points", "degenerate", "flat_maps", "diverged")


def test_apparent_scale_is_focal_length_over_depth(tmp_path: Path) -> None:
    scene, query, _ = painted_map(tmp_path)
    seen = [Reference.of(scene, 0, (320, 240), torch.arange(len(scene.point_index)))]
    closer = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, -1.7]).double())
    depths = scene.xyz[:, 2]
    expected = float((depths / (depths - 1.7)).median())
    assert apparent_scale(query, seen, closer) == pytest.approx(expected, rel=1e-3)
    away = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, -9.0]).double())
    assert apparent_scale(query, seen, away) == 1


def test_unknown_features_and_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no NRE on 'orb'"):
        NRE.from_features("orb")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="two weights files"):
        NRE.from_features("nre", weights=[])
    assert set(CONFIGS) >= {"xfeat", "xfeat+aliked", "xfeat+disk"}
    (tmp_path / "s.npz").write_bytes(b"PK junk")
    with pytest.raises(InputError, match=r"not a usable \.npz file"):
        read_nre_sample(tmp_path / "s.npz")
