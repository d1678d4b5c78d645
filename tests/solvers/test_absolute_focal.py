"""Pose and focal length together: synthetic truth, honest spread, and real photos without intrinsics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from metriloc.backbones.local import DenseExtractor
from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.geometry import Camera, Pose
from metriloc.io import crop_view, load_view, resize_view
from metriloc.io.local_features import load_extractor
from metriloc.io.maps import load_map_view, read_map
from metriloc.localization import localize
from metriloc.methods.matching.focal import with_estimated_focal
from metriloc.methods.matching.localizer import MatchingLocalizer
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


def lens(seed: int, noise: float, wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The scene through a lens that is not centered and bends a little, as lenses are."""
    chance = torch.Generator().manual_seed(seed)
    uv, xyz = scene(0.0, 0, seed)
    shift, k1 = 10 * torch.randn(2, generator=chance).double(), 0.02 * float(torch.randn((), generator=chance))
    ray = (uv - GUESS.c) / TRUE_FOCAL
    uv = (1 + k1 * (ray**2).sum(-1, keepdim=True)) * ray * TRUE_FOCAL + GUESS.c + shift
    uv = uv + noise * torch.randn(len(uv), 2, generator=chance).double()
    uv[:wrong] = torch.rand(wrong, 2, generator=chance).double() * 480
    return uv, xyz


@pytest.mark.parametrize(("noise", "wrong", "threshold"), [(1.5, 100, 6.0), (1.5, 0, 2.0)])
def test_the_spread_is_honest(noise: float, wrong: int, threshold: float) -> None:
    """Of noisy matches, of those that a threshold near the noise leaves, and of a lens that is not what is assumed."""
    shares = []
    for seed in range(12):
        fit = absolute_pose_and_focal(*lens(seed, noise, wrong), GUESS, threshold, seed=seed)
        assert fit is not None
        shares.append(math.log(float(fit.camera.f.mean()) / TRUE_FOCAL) / fit.sigma)
    rms = math.sqrt(sum(z * z for z in shares) / len(shares))
    assert 0.2 < rms < 1.2, shares
    assert max(map(abs, shares)) < 3, shares


@pytest.mark.parametrize(("shift", "k1"), [((150.0, 90.0), 0.0), ((0.0, 0.0), -0.2)])
def test_cut_photos_and_bent_ones_are_told(shift: tuple[float, float], k1: float) -> None:
    """They were 10 to 40 % off, and said 1 %."""
    uv, xyz = scene(0.0, 0, 3)
    ray = (uv - GUESS.c) / TRUE_FOCAL
    bent = (1 + k1 * (ray**2).sum(-1, keepdim=True)) * ray * TRUE_FOCAL + GUESS.c + torch.tensor(shift)
    bent = bent + torch.randn(bent.shape, generator=torch.Generator().manual_seed(1)).double()
    fit = absolute_pose_and_focal(bent, xyz, GUESS)
    assert fit is not None and fit.camera.model == "radtan"
    assert float(fit.camera.f.mean()) == pytest.approx(TRUE_FOCAL, rel=0.04)
    assert (fit.camera.c - GUESS.c - torch.tensor(shift)).abs().max() < 20
    assert float(fit.camera.distortion[0]) == pytest.approx(k1, abs=0.03)
    torch.testing.assert_close(fit.pose.center(), POSE.center(), atol=0.25, rtol=0)


def test_distortion_that_is_known_is_taken_out_first() -> None:
    uv, xyz = scene(0.0, 0, 4)
    bent = replace(GUESS, model="radtan", distortion=torch.tensor([-0.1, 0.02, 0.001, 0.002, 0.0])).to(torch.float64)
    straight = torch.cat([(uv - GUESS.c) / bent.f, torch.ones(len(uv), 1)], -1).double()
    fit = absolute_pose_and_focal(bent.project(straight, "always")[0], xyz, bent)
    assert fit is not None and float(fit.camera.f.mean()) == pytest.approx(TRUE_FOCAL, rel=1e-3)


def test_a_wall_from_in_front_fixes_no_focal_length() -> None:
    fit = absolute_pose_and_focal(*scene(1.0, 0, 0, flat=True), GUESS)
    assert fit is None or fit.sigma > 0.1


def test_too_few_matches_are_left_alone() -> None:
    uv, xyz = scene(0.0, 0, 0)
    assert absolute_pose_and_focal(uv[:29], xyz[:29], GUESS) is None
    assert absolute_pose_and_focal(uv, xyz.roll(1, 0), GUESS) is None
    assert absolute_pose_and_focal(uv * torch.nan, xyz, GUESS) is None


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize("method", ["xfeat-pnp", "nre-xfeat"])
def test_photos_without_intrinsics_are_localized(shared: Callable[[str], Path], method: str, tmp_path: Path) -> None:
    """Photos of the fountain with nothing known of their camera land within 10 cm (were 1.2 to 1.7 m wrong)."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    localizer = choose_localizer(LocalizerChoice(method))
    for number in (2, 3, 4, 5, 6, 8):
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
@pytest.mark.parametrize("number", [3, 9])
@pytest.mark.parametrize("change", ["half", "cut"])
def test_the_spread_of_real_photos_is_honest(shared: Callable[[str], Path], number: int, change: str) -> None:
    """Small photos and such that were cut off the center were 5 to 25 sigmas off."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    index = number  # in order of their names
    view = load_map_view(whole, index)
    view = resize_view(view, (360, 240), antialias=True) if change == "half" else crop_view(view, (0, 0), (468, 312))
    focal = float(view.camera.f.mean())
    query = replace(view, camera=Camera.from_fov(view.size, 1.2), focal_sigma=0.25)
    references = [whole.names[index - 1], whole.names[index - 2]]
    features, identity = load_extractor("xfeat")
    matching = MatchingLocalizer(cast(DenseExtractor, features), identity)
    found = with_estimated_focal(query, whole.without([index]), references, matching)
    assert found is not query and found.focal_sigma < 0.1
    assert abs(math.log(float(found.camera.f.mean()) / focal)) < 2 * found.focal_sigma


@pytest.mark.wheels
def test_a_focal_length_that_the_map_speaks_against_is_doubted(shared: Callable[[str], Path]) -> None:
    """720 px in place of 647 (EXIF of another lens) were 1.2 m off and called reliable."""
    place = shared("data/eval/places/fountain_p11")
    whole = read_map(place / "sparse", place)
    index = whole.index("seq0/frame_00004.jpg")
    scene = whole.without([index])
    for fov, contradicted in ((2 * math.atan(360 / 720), True), (2 * math.atan(360 / 647), False)):
        query = load_view(place / "seq0/frame_00004.jpg", fov=math.degrees(fov))
        estimate = localize(query, scene, method=choose_localizer(LocalizerChoice("xfeat-pnp")))
        doubts = [doubt for doubt in estimate.doubts if "the map speaks for a focal length" in doubt]
        assert bool(doubts) == contradicted
        assert (estimate.verdict == "reliable") is not contradicted
