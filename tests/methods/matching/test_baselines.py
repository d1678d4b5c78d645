"""Matcher x depth source x solver, and matching + PnP in a map: rendered pairs with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import metriloc
from metriloc.backbones.local import DenseMap, descriptors_at
from metriloc.evaluation.held_out import held_out_queries
from metriloc.evaluation.identity import IdentityPose
from metriloc.geometry import Camera, Pose, rotation_angle, so3_exp
from metriloc.io import InputError, load_view, read_mapfree_poses
from metriloc.io.local_features import load_extractor
from metriloc.io.maps import read_map
from metriloc.methods.matching.cells import nearest_cells
from metriloc.methods.matching.depth import constant_depth, depth_from_cells, depth_of_method
from metriloc.methods.matching.localizer import LocalizingConfig, MatchingLocalizer
from metriloc.methods.matching.matchers import MATCHERS, load_matcher
from metriloc.methods.matching.model import FeatureMatching, MatchingConfig
from metriloc.types import SfmMap, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


@pytest.fixture(scope="module")
def views() -> tuple[View, View, Pose]:
    reference = load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    pose = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert pose is not None
    return reference, load_view(EXAMPLE / "query.jpg"), pose.to(torch.float64)


def degrees(a: Pose, b: Pose) -> float:
    return math.degrees(float(rotation_angle(a.R.double() @ b.R.double().mT)))


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize("name", [name for name in MATCHERS if name != "loftr"])
def test_every_matcher_solves_the_example(name: str, views: tuple[View, View, Pose]) -> None:
    try:
        matcher = load_matcher(name, longest_side=400)  # small, to be quick
    except InputError as error:
        pytest.skip(str(error))
    estimate = FeatureMatching(matcher).relative_pose(views[0], views[1])
    assert bool(estimate.success) and estimate.details[0].metric
    assert degrees(estimate.pose, views[2]) < 1
    assert float((estimate.pose.center().double() - views[2].center()).norm()) < 0.05
    assert {"inliers", "inlier_ratio", "coverage", "parallax_deg", "order"} == set(estimate.details[0].statistics)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["essential", "pnp", "auto"])
def test_solvers(solver: str, views: tuple[View, View, Pose]) -> None:
    method = FeatureMatching.from_pretrained(config=MatchingConfig(solver=solver))  # type: ignore[arg-type]
    estimate = method.relative_pose(views[0], views[1])
    assert degrees(estimate.pose, views[2]) < 1
    assert float((estimate.pose.center().double() - views[2].center()).norm()) < 0.05
    assert estimate.details[0].metric


@pytest.mark.slow
def test_rigid_solver_needs_depth_of_both_photos(views: tuple[View, View, Pose]) -> None:
    method = FeatureMatching.from_pretrained(config=MatchingConfig(solver="rigid"))
    with pytest.raises(ValueError, match=r"'rigid' needs a depth map of .*query"):
        method.relative_pose(views[0], views[1])
    method.depth_source = lambda view: None
    with pytest.raises(ValueError, match="reference"):
        method.relative_pose(views[0], views[1])
    # the example's depth, seen from the query by the true pose: enough for 3D-3D
    method.depth_source = lambda view: views[0].depth
    itself = method.relative_pose(views[0], views[0])
    assert float(itself.pose.distance()) < 0.01 and degrees(itself.pose, Pose.identity(())) < 0.2


@pytest.mark.slow
def test_constant_depth_gives_metres_of_that_order(views: tuple[View, View, Pose]) -> None:
    depth = views[0].depth
    assert depth is not None
    typical = float(depth[depth > 0].median())
    method = FeatureMatching.from_pretrained(
        config=MatchingConfig(solver="essential", depth_name="constant depth"), depth_source=constant_depth(typical)
    )
    estimate = method.relative_pose(views[0], views[1])
    ratio = float(estimate.pose.distance() / views[2].distance())
    assert estimate.details[0].metric and 0.6 < ratio < 1.6
    assert estimate.details[0].scale_source == "the constant depth of both photos"
    with pytest.raises(ValueError, match="got 0"):
        constant_depth(0)


def test_depth_of_a_network_that_sees_a_reduced_photo() -> None:
    """Cells of 17.14 x 16.9 pixels: the depth of the last one stands in the photo's last corner."""
    cells = torch.arange(336.0).reshape(16, 21) + 1
    full = depth_from_cells(cells, (360 / 21, 270 / 16), (360, 270))
    assert full.shape == (270, 360)
    assert float(full[261:263, 351].mean()) == pytest.approx(float(cells[15, 20]), abs=0.5)
    assert float(full[8, 8]) == pytest.approx(1.0, abs=0.6) and float(full.max()) <= 336


def test_depth_of_a_method_is_spread_over_the_photo() -> None:
    class Features:
        cell = (14.0, 14.0)
        view = None

        def depth_map(self) -> Tensor:
            return torch.arange(6.0).reshape(2, 3) + 1

    class Method(IdentityPose):
        def extract(self, view: object) -> Features:
            return Features()

    image = torch.zeros(3, 30, 50)
    view = View(image, Camera.from_fov((50, 30), 1.0))
    full = depth_of_method(Method())(view)
    assert full is not None and full.shape == (30, 50)
    # cells differ by 1 and 3 over 14 pixels: about the centre of a cell stands its own value, at the end the last one
    assert float(full[6:8, 6:8].mean()) == pytest.approx(1.0, abs=0.1)
    assert float(full[20:22, 34:36].mean()) == pytest.approx(6.0, abs=0.1)
    assert float(full[29, 49]) == pytest.approx(6.0, abs=0.1)
    assert float(full[6:8, 13:15].mean()) == pytest.approx(1.5, abs=0.1)
    assert depth_from_cells(torch.ones(1, 1), (8, 8), (9, 9)).shape == (9, 9)


def test_identity_never_moves() -> None:
    estimate = IdentityPose().relative_pose("a", "b")
    assert float(estimate.pose.distance()) == 0 and float(estimate.confidence) == 0.5
    assert estimate.details[0].metric


def test_unknown_matchers_and_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'orb'"):
        load_matcher("orb")
    with pytest.raises(InputError, match=r"loftr_outdoor\.ckpt are not here"):
        load_matcher("loftr")
    (tmp_path / "x.pt").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"x\.pt"):
        load_matcher("xfeat", weights=tmp_path / "x.pt")


# -- in a map ---------------------------------------------------------------------------------------------------------
class Painted:
    """Dense features that are what the photo shows: a made-up photo whose colours name the point of a plane."""

    name, temperature = "painted", 0.02

    def dense(self, image: Tensor) -> DenseMap:
        flat = image / image.norm(dim=0).clamp(min=1e-9)
        return DenseMap(flat, (1.0, 1.0), (0.0, 0.0))


def test_nearest_cells_may_be_mutual_and_descriptors_are_read_between_cells() -> None:
    descriptors = torch.eye(4)[:, :, None].expand(4, 4, 2).contiguous()
    dense = DenseMap(torch.nn.functional.normalize(descriptors, dim=0), (2.0, 2.0), (0.5, 0.5))
    cells = dense.to_cells(torch.tensor([[0.5, 2.5], [2.5, 3.5], [-9.0, 2.5]]))
    found = descriptors_at(dense.descriptors, cells, normalize=True, border=True)
    torch.testing.assert_close(found[0], torch.eye(4)[1])
    torch.testing.assert_close(found[1], torch.tensor([0.0, 0.5, 0.5, 0.0]) / 0.5**0.5)
    torch.testing.assert_close(found[2], torch.eye(4)[1])  # beyond the border, that of the border
    cell, mutual = nearest_cells(torch.stack([torch.eye(4)[2], torch.eye(4)[2] * 0.9 + 0.1]), dense)
    assert mutual.tolist() == [True, False] and cell[:, 1].tolist() == [2.0, 2.0]
    cell, mutual = nearest_cells(torch.eye(4)[:2], dense)
    assert mutual.tolist() == [True, True] and cell[:, 1].tolist() == [0.0, 1.0]


def make_map(folder: Path | None, observed: bool = True) -> SfmMap:
    camera = Camera.from_fov((64, 48), 1.0)
    pose = Pose(so3_exp(torch.zeros(2, 3, dtype=torch.float64)), torch.zeros(2, 3, dtype=torch.float64))
    n = 20 if observed else 0
    g = torch.Generator().manual_seed(0)
    xyz = torch.rand(n, 3, dtype=torch.float64, generator=g) + torch.tensor([-0.5, -0.5, 3.0])
    uv, _ = camera.to(torch.float64).project(xyz)
    index = torch.arange(n)
    return SfmMap(
        ("a.jpg", "b.jpg"),
        (camera, camera),
        pose,
        xyz,
        torch.cat([torch.zeros(n), torch.ones(n)]).long(),
        torch.cat([index, index]),
        torch.cat([uv, uv]),
        folder,
    )


def test_failures_of_the_localizer_have_a_reason(tmp_path: Path) -> None:
    method = MatchingLocalizer(Painted(), "painted")
    query = View(torch.rand(3, 48, 64), Camera.from_fov((64, 48), 1.0))
    assert method.localize(query, make_map(None), ["a.jpg"]).reasons == ("no_reference",)
    absent = method.localize(query, make_map(tmp_path), ["a.jpg", "b.jpg"])
    assert absent.reasons == ("no_reference",) and "a.jpg" in absent.localization[0].messages[0]
    assert method.localize(query, make_map(tmp_path, observed=False), ["a.jpg"]).reasons == ("no_reference",)
    with pytest.raises(ValueError, match=r"no image 'c\.jpg'"):
        method.localize(query, make_map(tmp_path), ["c.jpg"])
    picky = MatchingLocalizer(Painted(), "painted", LocalizingConfig(min_inliers=1000))
    from PIL import Image

    Image.fromarray((torch.rand(48, 64, 3).numpy() * 255).astype("uint8")).save(tmp_path / "a.jpg")
    found = picky.localize(query, make_map(tmp_path), ["a.jpg"])
    assert not bool(found.success) and float(found.confidence) == 0


def test_photos_of_a_real_map_are_localized(shared: Callable[[str], Path]) -> None:
    place = shared("data/eval/places/fountain_p11")
    try:
        features, identity = load_extractor("xfeat")
    except InputError as error:
        pytest.skip(str(error))
    whole = read_map(place / "sparse", place)
    tasks = held_out_queries(whole, 5, 2, "fountain")
    assert len(tasks) == 3 and all(len(task.scene) == 10 and task.frame.name not in task.scene.names for task in tasks)
    task = tasks[1]
    estimate = MatchingLocalizer(features, identity).localize(task.frame.load(), task.scene, task.references)  # type: ignore[arg-type]
    truth = task.frame.cam_from_world
    assert truth is not None and bool(estimate.success)
    assert degrees(estimate.pose, truth) < 0.5
    assert float((estimate.pose.center() - truth.center()).norm()) < 0.3
    details = estimate.localization[0]
    assert details.references and details.stages[0].name == "pnp" and details.num_points > 50
