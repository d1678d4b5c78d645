"""Metres from the height of the camera: the ground among the matches or in the depths, and a word where there is none."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metriloc.choose import MethodChoice, choose_method
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.methods.matching.height import HANDHELD, NO_GROUND, NO_OTHER
from metriloc.methods.matching.model import MatchingConfig
from metriloc.methods.matching.pair import CameraHeight, Fit, MatchedPair, SolvingConfig
from metriloc.methods.matching.solver import fit_pair
from metriloc.relpose import relative_pose
from metriloc.types import View

SIZE = (640, 480)
CAMERA = Camera(torch.tensor([640.0, 480.0]), torch.tensor([520.0, 520.0]), torch.tensor([319.5, 239.5]))
TRUTH = Pose.from_tangent(torch.tensor([0.7, 0.0, -0.1, 0.0, 0.12, 0.0]))
HEIGHT, WALL = 1.4, 7.0


def scene_depth(uv: Tensor, pose: Pose) -> Tensor:
    """Depth of a floor ``HEIGHT`` below the reference and a wall ``WALL`` in front of it, seen from ``pose`` (from the
    reference)."""
    rays, back = CAMERA.unproject(uv)[0], pose.inverse()
    center, away = back.t, rays @ back.R.mT
    floor = (HEIGHT - center[1]) / away[:, 1]
    wall = (WALL - center[2]) / away[:, 2]
    return torch.minimum(torch.where(floor > 0, floor, torch.inf), wall)


def photographed(pose: Pose, factor: float | None) -> View:
    """A photo whose depth map has the right shape, ``factor`` times too deep; None for no depth map."""
    v, u = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
    depth = scene_depth(torch.stack([u, v], -1).reshape(-1, 2), pose).reshape(480, 640)
    image = torch.zeros(3, 1, 1).expand(3, 480, 640)
    return View(image, CAMERA, depth=None if factor is None else factor * depth)


def pair_of(generator: torch.Generator, *, floor: bool, factors: tuple[float | None, float | None]) -> MatchedPair:
    """Matches with half a pixel of noise on the wall and, if asked, on the floor."""
    uv0 = torch.rand(1200, 2, generator=generator) * torch.tensor([639.0, 479.0])
    depth = scene_depth(uv0, Pose.identity())
    on_wall = depth > 0.999 * WALL
    kept = torch.ones_like(on_wall) if floor else on_wall
    uv1, inside = CAMERA.project(TRUTH.transform(CAMERA.lift(uv0, depth)))
    uv0, uv1 = uv0[kept & inside], uv1[kept & inside]
    uv1 = uv1 + 0.5 * torch.randn(uv1.shape, generator=generator)
    views = photographed(Pose.identity(), factors[0]), photographed(TRUTH, factors[1])
    return MatchedPair(uv0, uv1, torch.ones(len(uv0)), *views)


def solved(pair: MatchedPair, metres: CameraHeight = HEIGHT) -> Fit:
    return fit_pair(pair, SolvingConfig(camera_height=metres, depth_name="predicted depth"), 0)


def test_the_floor_among_the_matches_gives_the_metres(generator: torch.Generator) -> None:
    pair = pair_of(generator, floor=True, factors=(None, None))
    fit = solved(pair)
    assert fit.pose is not None and fit.metric and not fit.messages
    assert float(fit.pose.distance()) == pytest.approx(float(TRUTH.distance()), rel=0.04)
    assert fit.scale_source == "the camera height of 1.4 m" and 0.04 < fit.scale_sigma < 0.2
    assert abs(math.log(float(fit.pose.distance() / TRUTH.distance()))) < 2 * fit.scale_sigma
    doubled = solved(pair, 2 * HEIGHT)
    assert doubled.pose is not None
    assert float(doubled.pose.distance() / fit.pose.distance()) == pytest.approx(2, rel=1e-4)


def test_the_shape_of_wrong_depths_shows_the_floor_that_nothing_matches(generator: torch.Generator) -> None:
    fit = solved(pair_of(generator, floor=False, factors=(0.6, 0.7)))
    (height,) = [s for s in fit.sources if s.name.startswith("camera height")]
    assert height.metres == pytest.approx(float(TRUTH.distance()), rel=0.06)
    assert height.share > 0.6  # surer than what a network predicts
    assert fit.pose is not None and not fit.doubts
    assert float(fit.pose.distance()) == pytest.approx(float(TRUTH.distance()), rel=0.15)


def test_the_usual_height_pulls_predicted_depths_toward_it(generator: torch.Generator) -> None:
    pair = pair_of(generator, floor=True, factors=(0.65, 0.65))
    known, usual = solved(pair), solved(pair, "handheld")
    assert known.pose is not None and usual.pose is not None and not usual.messages
    (height,) = [s for s in usual.sources if s.name == f"usual height of {HANDHELD:g} m"]
    assert 0.4 < height.share < 0.9 and height.sigma > 0.2  # a habit is no measurement
    off = math.log(float(usual.pose.distance() / TRUTH.distance()))
    assert math.log(0.65) < off < -0.02 and math.isnan(usual.scale_sigma)  # the interval stays that of the depths
    assert abs(off) > abs(math.log(float(known.pose.distance() / TRUTH.distance())))


def test_the_usual_height_is_nothing_by_itself(generator: torch.Generator) -> None:
    fit = solved(pair_of(generator, floor=True, factors=(None, None)), "handheld")
    assert fit.pose is not None and not fit.metric and not fit.sources
    assert fit.messages == (NO_OTHER,) and fit.scale_source == NO_OTHER
    assert solved(pair_of(generator, floor=False, factors=(None, None)), "handheld").messages == (NO_GROUND,)


def test_a_table_is_no_ground_and_a_habit_contradicts_nobody(generator: torch.Generator) -> None:
    """By depths the plane lies 0.5 m below the cameras; a known distance is right, too."""
    pair = pair_of(generator, floor=True, factors=(0.35, 0.35))
    without = fit_pair(pair, SolvingConfig(depth_name="predicted depth"), 0)
    fit = solved(pair, "handheld")
    assert fit.pose is not None and without.pose is not None
    assert torch.equal(fit.pose.t, without.pose.t) and not fit.doubts and math.isnan(fit.scale_sigma)
    (said,) = fit.messages
    assert said.startswith("what looks like ground lies 0.49 m below the cameras")
    far = SolvingConfig(camera_height="handheld", distance=3 * float(TRUTH.distance()))
    fit = fit_pair(pair_of(generator, floor=True, factors=(None, None)), far, 0)
    assert fit.pose is not None and not fit.doubts
    assert float(fit.pose.distance()) == pytest.approx(3 * float(TRUTH.distance()), rel=1e-5)


def test_the_usual_height_is_taken_where_it_is_asked_for() -> None:
    def height(**given: Any) -> object:
        method = choose_method(MethodChoice(**given))
        return getattr(method, "matching", method).config.camera_height

    assert height() is None and height(camera_height="handheld") == "handheld" and height(camera_height=1.2) == 1.2
    assert height(name="xfeat", depth="metriloc-depth", camera_height="handheld") == "handheld"
    with pytest.raises(InputError, match="camera_height must be metres or 'handheld', got 'high'"):
        relative_pose("a.jpg", "b.jpg", camera_height="high")  # type: ignore[arg-type]


def test_facades_alone_pose_as_no_ground(generator: torch.Generator) -> None:
    fit = solved(pair_of(generator, floor=False, factors=(None, None)))
    assert fit.pose is not None and not fit.metric and fit.messages == (NO_GROUND,) and fit.scale_source == NO_GROUND
    assert not fit.sources


def test_depths_give_the_metres_where_no_ground_is_seen(generator: torch.Generator) -> None:
    pair = pair_of(generator, floor=False, factors=(1.0, 1.0))
    views = []
    for view in (pair.view0, pair.view1):
        assert view.depth is not None
        views.append(replace(view, depth=torch.where(view.depth > 6, view.depth, 0.0)))
    fit = solved(replace(pair, view0=views[0], view1=views[1]))
    assert fit.metric and fit.messages == (NO_GROUND,) and fit.scale_source == "the predicted depth of both photos"


def test_grounds_that_contradict_each_other_are_none(generator: torch.Generator) -> None:
    pair = pair_of(generator, floor=False, factors=(1.0, 1.0))
    bent = pair.view1.depth
    assert bent is not None
    lower = torch.arange(480.0)[:, None] > 300
    wrong = replace(pair, view1=replace(pair.view1, depth=torch.where(lower, 0.5 * bent, bent)))
    assert not any(s.name.startswith("camera height") for s in solved(wrong).sources)


def test_a_height_is_a_positive_number_for_matching() -> None:
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="camera_height must be a positive number of metres"):
            MatchingConfig(camera_height=wrong)
    with pytest.raises(InputError, match=r"camera height 1\.4: MicKey measures the distance itself"):
        choose_method(MethodChoice("mickey", camera_height=1.4))
