"""NRE's support: best cells of maps made by hand, under a right pose, a wrong one, and where tiles repeat."""

from __future__ import annotations

import dataclasses
import math

import torch

from metriloc.geometry import Camera, Pose
from metriloc.methods.nre.maps import from_log_probability
from metriloc.methods.nre.support import Look, nre_has_rival, nre_support

CAMERA = Camera.from_fov((80, 60), math.radians(60)).to(torch.float64)
RIGHT = Pose.identity((), dtype=torch.float64)
ASIDE = Pose(RIGHT.R, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))


def look(generator: torch.Generator, *placed: Pose, count: int = 120, sure: float = 12.0) -> Look:
    """Maps whose probability lies where each of the poses puts the points, the first a little ahead."""
    uv = 2 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([75.0, 55.0])
    xyz = CAMERA.unproject(uv)[0] * (5 + 2 * torch.rand(count, 1, generator=generator, dtype=torch.float64))
    logits = torch.randn(count, 60, 80, generator=generator)
    for number, pose in enumerate(placed):
        cells = CAMERA.project(pose.transform(xyz))[0].round().long()
        for n, (x, y) in enumerate(cells.tolist()):
            if 0 <= x < 80 and 0 <= y < 60:
                logits[n, y, x] = sure - 0.1 * number
    maps = from_log_probability(logits.flatten(1).log_softmax(-1).unflatten(-1, (60, 80)))
    return Look(maps, xyz, CAMERA, uv, torch.zeros(count, dtype=torch.long))


def test_support_is_for_the_pose_that_the_maps_show(generator: torch.Generator) -> None:
    shown = look(generator, RIGHT)
    right, wrong = nre_support(RIGHT, shown, None), nre_support(ASIDE, shown, None)
    assert set(right) == {*("inliers", "inlier_ratio", "coverage", "order", "precision", "fine_inliers", "fine_ratio")}
    assert right["inlier_ratio"] > 0.9 and right["coverage"] > 0.6 and right["order"] > 0.9
    assert right["fine_ratio"] > 0.95 and right["precision"] > 100
    for name in right:
        assert right[name] > wrong[name], name
    assert wrong["inlier_ratio"] < 0.1 and wrong["precision"] < 0.2 * right["precision"]


def test_precision_and_share_are_of_the_fine_maps_where_there_are_some(generator: torch.Generator) -> None:
    shown = look(generator, RIGHT)
    blurred = look(generator, ASIDE)
    told = nre_support(RIGHT, shown, dataclasses.replace(blurred, xyz=blurred.xyz))
    assert told["inlier_ratio"] > 0.9 and told["fine_ratio"] < 0.1 and told["precision"] < 50


def test_maps_that_show_two_places_have_a_rival(generator: torch.Generator) -> None:
    assert not nre_has_rival(RIGHT, look(generator, RIGHT), seed=0)
    both = look(generator, RIGHT, ASIDE)
    assert nre_has_rival(RIGHT, both, seed=0)
    assert not nre_has_rival(RIGHT, look(generator, RIGHT, ASIDE, count=15), seed=0)
