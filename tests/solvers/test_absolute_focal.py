"""Pose and focal length together: synthetic truth, honest spread, and real photos without intrinsics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.io import load_view
from metriloc.io.maps import read_map
from metriloc.localize import LocalizerChoice, choose_localizer, localize
from metriloc.solvers.absolute_focal import MODEL_SIGMA, absolute_pose_and_focal

pytest.importorskip("pycolmap")
TRUE_FOCAL = 647.0
GUESS = Camera.from_K(torch.tensor([[500.0, 0, 359.5], [0, 500.0, 239.5], [0, 0, 1]]), (720, 480))
POSE = Pose.from_tangent(torch.tensor([0.1, -0.2, 0.3, 0.4, -0.3, 0.6], dtype=torch.float64))


def scene(noise: float, wrong: int, seed: int, flat: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and points of the world; the first ``wrong`` of 200 are anywhere."""
    chance = torch.Generator().manual_seed(seed)
    depth = torch.full((200, 1), 6.0) if flat else 3 + 6 * torch.rand(200, 1, generator=chance)
    uv = torch.rand(200, 2, generator=chance) * torch.tensor([720.0, 480.0])
    local = torch.cat([(uv - GUESS.c) / TRUE_FOCAL * depth, depth], -1).double()
    uv = uv.double() + noise * torch.randn(200, 2, generator=chance).double()
    uv[:wrong] = torch.rand(wrong, 2, generator=chance).double() * 480
    return uv, POSE.inverse().transform(local)


def test_exact_matches_give_the_exact_focal_length() -> None:
    uv, xyz = scene(0.0, 0, 0)
    fit = absolute_pose_and_focal(uv, xyz, GUESS)
    assert fit is not None and bool(fit.inliers.all())
    assert fit.camera.f.tolist() == pytest.approx([TRUE_FOCAL] * 2, rel=1e-6)
    torch.testing.assert_close(fit.pose.matrix(), POSE.matrix(), atol=1e-6, rtol=0)
    assert fit.sigma == pytest.approx(MODEL_SIGMA, rel=1e-3)


def test_half_of_the_matches_may_be_wrong_and_the_spread_is_honest() -> None:
    misses, sigmas = [], []
    for seed in range(12):
        fit = absolute_pose_and_focal(*scene(1.5, 100, seed), GUESS, seed=seed)
        assert fit is not None and int(fit.inliers.sum()) >= 90
        misses.append(math.log(float(fit.camera.f.mean()) / TRUE_FOCAL))
        sigmas.append(math.sqrt(fit.sigma**2 - MODEL_SIGMA**2))
    rms = math.sqrt(sum(m * m for m in misses) / len(misses))
    typical = sum(sigmas) / len(sigmas)
    assert 0.4 * typical < rms < 2.5 * typical


def test_a_wall_from_in_front_fixes_no_focal_length() -> None:
    fit = absolute_pose_and_focal(*scene(1.0, 0, 0, flat=True), GUESS)
    assert fit is None or fit.sigma > 0.1


def test_too_few_matches_and_other_cameras_are_left_alone() -> None:
    uv, xyz = scene(0.0, 0, 0)
    assert absolute_pose_and_focal(uv[:29], xyz[:29], GUESS) is None
    assert absolute_pose_and_focal(uv, xyz.roll(1, 0), GUESS) is None
    assert absolute_pose_and_focal(uv, xyz, replace(GUESS, model="radtan", distortion=torch.zeros(5))) is None
    assert absolute_pose_and_focal(uv * torch.nan, xyz, GUESS) is None


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize("method", ["xfeat-pnp", "nre-xfeat"])
def test_photos_without_intrinsics_are_localized(shared: Callable[[str], Path], method: str, tmp_path: Path) -> None:
    """Five photos of the fountain with nothing known of their camera land within 10 cm (were 1.2 to 1.7 m wrong)."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    localizer = choose_localizer(LocalizerChoice(method))
    for number in (2, 4, 5, 6, 8):
        name = f"seq0/frame_{number:05d}.jpg"
        (tmp_path / "query.jpg").write_bytes((place / name).read_bytes())
        with pytest.warns(UserWarning, match="a guess"):
            query = load_view(tmp_path / "query.jpg")
        index = whole.index(name)
        estimate = localize(query, whole.without([index]), method=localizer)
        assert bool(estimate.success), (name, estimate.reasons)
        apart = estimate.pose.to(torch.float64).center() - whole.cam_from_world[index].center()
        assert float(apart.norm()) < 0.1, name
        # crops and distortion would move both, and nobody could tell
        assert estimate.verdict != "reliable" and any("only estimated" in doubt for doubt in estimate.doubts)


@pytest.mark.slow
@pytest.mark.wheels
def test_a_focal_length_that_the_map_speaks_against_is_doubted(shared: Callable[[str], Path]) -> None:
    """720 px in place of 647 (EXIF of another lens) were 1.2 m off and called reliable."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    index = whole.index("seq0/frame_00004.jpg")
    scene = whole.without([index])
    for fov, contradicted in ((2 * math.atan(360 / 720), True), (2 * math.atan(360 / 647), False)):
        query = load_view(place / "seq0/frame_00004.jpg", fov_deg=math.degrees(fov))
        estimate = localize(query, scene, method=choose_localizer(LocalizerChoice("xfeat-pnp")))
        doubts = [doubt for doubt in estimate.doubts if "the map speaks for a focal length" in doubt]
        assert bool(doubts) == contradicted
        assert (estimate.verdict == "reliable") is not contradicted
