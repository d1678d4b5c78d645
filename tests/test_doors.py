"""What callers may hand in: tensors that still carry gradients, and matches too few for the rigid solver."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.choose import LocalizerChoice, MethodChoice, choose_localizer, choose_method
from metriloc.geometry import Camera, Pose, sample_depth
from metriloc.io import load_view
from metriloc.methods.matching.solver import MatchedPair, SolvingConfig, fit_pair
from metriloc.solvers.pinhole import collinear
from metriloc.types import SfmMap, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
K = (480.0, 480.0, 319.5, 239.5)


def learned(view: View) -> View:
    """The same photo, every tensor of which asks for a gradient."""
    camera = view.camera
    f, c = (x.clone().requires_grad_() for x in (camera.f, camera.c))
    return dataclasses.replace(
        view,
        image=view.image.clone().requires_grad_(),
        camera=dataclasses.replace(camera, f=f, c=c),
        depth=None if view.depth is None else view.depth.clone().requires_grad_(),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "depth"),
    [
        (MethodChoice("matching"), True),
        (MethodChoice("matching", distance=0.6), False),
        (MethodChoice("matching", solver="pnp"), True),
        (MethodChoice("matching", solver="rigid", depth="mickey:metriloc-small"), False),
        (MethodChoice("mickey"), False),
        (MethodChoice("identity"), False),
    ],
    ids=lambda value: f"{value.name} {value.solver}" if isinstance(value, MethodChoice) else None,
)
def test_two_photos_with_gradients(choice: MethodChoice, depth: bool) -> None:
    reference = load_view(EXAMPLE / "reference.jpg", K=K, depth=EXAMPLE / "reference.depth.png" if depth else None)
    query = load_view(EXAMPLE / "query.jpg", K=K)
    method = choose_method(choice)
    wanted = method.relative_pose(reference, query)
    found = metriloc.relative_pose(learned(reference), learned(query), method=method)
    assert torch.equal(found.pose.matrix().nan_to_num(7), wanted.pose.matrix().nan_to_num(7))
    assert not found.pose.t.requires_grad and not found.confidence.requires_grad


def test_intrinsics_with_gradients() -> None:
    matrix = torch.tensor([[480.0, 0, 319.5], [0, 480, 239.5], [0, 0, 1]], requires_grad=True)
    view = load_view(EXAMPLE / "query.jpg", K=matrix)
    assert view.camera.f.tolist() == [480, 480] and not view.detach().camera.f.requires_grad


@pytest.fixture(scope="module")
def small_map() -> SfmMap:
    """A map of one photo: its pixels with depth are the points."""
    photo = load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png", K=K)
    assert photo.depth is not None
    camera = photo.camera.to(torch.float64)
    v, u = torch.meshgrid(torch.arange(6.0, 480, 16), torch.arange(6.0, 640, 16), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).double()
    depth, known = sample_depth(photo.depth.double(), uv, photo.size)
    xyz = camera.unproject(uv[known])[0] * depth[known, None]
    index = torch.arange(len(xyz))
    one = Pose.identity((1,), dtype=torch.float64)
    return SfmMap(("reference.jpg",), (camera,), one, xyz, torch.zeros_like(index), index, uv[known], EXAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nre-xfeat", "xfeat-pnp", "pixloc"])
def test_localize_with_gradients(kind: str, small_map: SfmMap) -> None:
    method = choose_localizer(LocalizerChoice(kind))
    query = load_view(EXAMPLE / "query.jpg", K=K)
    names = ["reference.jpg"]
    init = Pose.identity((), dtype=torch.float64)
    given = None if kind == "xfeat-pnp" else init
    wanted = metriloc.localize(query, small_map, references=names, init=given, method=method)
    asking = dataclasses.replace(
        small_map,
        xyz=small_map.xyz.clone().requires_grad_(),
        uv=small_map.uv.clone().requires_grad_(),
        cam_from_world=Pose(small_map.cam_from_world.R, small_map.cam_from_world.t.clone().requires_grad_()),
    )
    start = None if given is None else Pose(init.R.clone().requires_grad_(), init.t.clone().requires_grad_())
    found = metriloc.localize(learned(query), asking, references=names, init=start, method=method)
    assert torch.equal(found.pose.matrix().nan_to_num(7), wanted.pose.matrix().nan_to_num(7))
    assert not found.pose.t.requires_grad


@pytest.mark.parametrize("inliers", [0, 1, 2, 3])
def test_the_rigid_solver_with_few_inliers_fails_in_words(inliers: int) -> None:
    generator = torch.Generator().manual_seed(inliers)
    camera = Camera(torch.tensor([64.0, 48.0]), torch.tensor([60.0, 60.0]), torch.tensor([31.5, 23.5]))
    depth = 1 + 30 * torch.rand(48, 64, generator=generator)
    views = [View(torch.zeros(3, 48, 64), camera, name=name, depth=depth.roll(i * 7, 1)) for i, name in enumerate("ab")]
    for count in (3, 4, 8, 30):
        uv0, uv1 = (torch.rand(count, 2, generator=generator) * torch.tensor([60.0, 44.0]) for _ in range(2))
        uv1[:inliers] = uv0[:inliers]
        config = SolvingConfig("rigid", rigid_error=1e-4)
        fit = fit_pair(MatchedPair(uv0, uv1, torch.ones(count), *views), config, seed=0)
        assert fit.pose is None and fit.reason == "degenerate"


def test_few_points_lie_on_a_line() -> None:
    points = torch.eye(3).numpy()
    assert [collinear(points[:n]) for n in range(4)] == [True, True, True, False]
