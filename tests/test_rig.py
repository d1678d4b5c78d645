"""Several cameras of a rig in a map, in one call of an open ``Localizer``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.changed_views import turn_view
from metriloc.types import SfmMap, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
STILL = Pose(torch.eye(3), torch.zeros(3))


@pytest.fixture(scope="module")
def localizer(scene: SfmMap) -> metriloc.Localizer:
    return metriloc.Localizer(scene, method="xfeat-pnp")


@pytest.fixture(scope="module")
def query() -> View:
    return metriloc.load_view(EXAMPLE / "query.jpg")


def test_a_rig_of_one_camera_is_that_camera(localizer: metriloc.Localizer, query: View) -> None:
    alone, rig = localizer.localize(query), localizer.localize_rig([query], [STILL])
    assert bool(rig.success) and rig.verdict == alone.verdict and rig.localization[0].unit == "unit of the map"
    assert float(rig.pose.center_distance(alone.pose)) < 1e-3
    assert float(rig.pose.angle_to(alone.pose).rad2deg()) < 0.05
    assert rig.covariance is not None and alone.covariance is not None
    torch.testing.assert_close(rig.covariance, alone.covariance, rtol=0.2, atol=1e-9)


@pytest.mark.slow
def test_two_cameras_are_one_pose(localizer: metriloc.Localizer, query: View) -> None:
    """The second camera is the first, turned by a quarter and held 20 cm off the origin of the rig, as is the first."""
    off = Pose(torch.eye(3), torch.tensor([0.2, 0.0, 0.1])).to(torch.float64)
    turned, turned_from_view = turn_view(query, 1)
    found = localizer.localize_rig([query, turned], [off, turned_from_view @ off])
    alone = localizer.localize(query)
    assert bool(found.success) and found.localization[0].statistics["cameras"] == 2
    assert float((off @ found.pose).center_distance(alone.pose)) < 0.02
    assert float(found.confidence) >= 0.9 * float(alone.confidence)


@pytest.mark.slow
def test_a_camera_that_shows_nothing_costs_nothing(localizer: metriloc.Localizer, query: View) -> None:
    gray = View(torch.full_like(query.image, 0.5), query.camera, name="gray")
    found, alone = localizer.localize_rig([query, gray], [STILL, STILL]), localizer.localize(query)
    assert bool(found.success) and float(found.pose.center_distance(alone.pose)) < 0.01
    assert not bool(localizer.localize_rig([gray], [STILL]).success)


def test_what_is_no_rig(localizer: metriloc.Localizer, query: View, tmp_path: Path) -> None:
    for photos, poses, said in (
        ([query], [STILL, STILL], "one cam_from_rig a photo, got 2 poses of 1 photos"),
        ([], [], "one cam_from_rig a photo"),
        ("query.jpg", [STILL], "one cam_from_rig a photo"),
    ):
        with pytest.raises(InputError, match=said):
            localizer.localize_rig(photos, poses)
    (tmp_path / "bare.jpg").write_bytes((EXAMPLE / "query.jpg").read_bytes())
    with pytest.raises(InputError, match="is only a guess, and a rig needs known ones"):
        localizer.localize_rig([tmp_path / "bare.jpg"], [STILL])
    with pytest.raises(InputError, match="the map has no image"):
        localizer.localize_rig([query], [STILL], references=["elsewhere.jpg"])
