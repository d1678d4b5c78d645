"""Correspondence maps, loss maps and windows against golden data and naive twins, and the upstream bugs they avoid."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from oracles.nre_maps import gain_at, log_matching_probability, neural_reprojection_error, window_mass

from metriloc.backbones.local import descriptors_at
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.methods.nre.evidence import pose_gain, score_poses
from metriloc.methods.nre.maps import (
    GainMaps,
    blocks,
    from_log_probability,
    gain_maps,
    log_cardinality,
    log_correspondence,
    map_camera,
    reprojection_pmf,
    window_gain_maps,
)

EPSILON = 2.0**-23  # upstream adds it before the logarithm; the golden data contain it


def features(seed: int, *shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loss_by_hand(log_c: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Eq. (6) for one map and one position, the slow way."""
    h, w = log_c.shape
    worst = math.log(h * w + 1)
    x, y = float(uv[0]), float(uv[1])
    if not (0 <= x <= w - 1 and 0 <= y <= h - 1):
        return torch.tensor(worst)
    x0, y0 = min(int(x), w - 2), min(int(y), h - 2)
    total = 0.0
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1 - abs(x - x0 - j)) * (1 - abs(y - y0 - i))
        total += weight * min(worst, -float(log_c[y0 + i, x0 + j]))
    return torch.tensor(total)


# -- golden data ------------------------------------------------------------------------------------------------------
def test_golden_maps(golden):
    data = golden("b_nre_maps")
    # parity: the source keypoint is scaled without the half-pixel shift (U2); descriptors are read as upstream reads them
    hw, f = data["source_image_hw"], data["source_features"][0]
    ratio = torch.tensor([f.shape[2] / float(hw[1]), f.shape[1] / float(hw[0])])
    cells = data["keypoints_image"] * ratio
    torch.testing.assert_close(cells, data["keypoints_feature"], rtol=0, atol=1e-5)
    descriptors = descriptors_at(f, cells)
    torch.testing.assert_close(descriptors, data["descriptors"], rtol=0, atol=1e-5)
    log_c = log_correspondence(descriptors, data["target_features"][0])
    torch.testing.assert_close(log_c.exp(), data["cmaps"], rtol=0, atol=1e-5)
    # parity: upstream's epsilon; ours has none, which moves a loss by at most epsilon / C
    shifted = (log_c.exp() + EPSILON).log()
    worst = log_cardinality((30, 22))
    torch.testing.assert_close((-shifted).clamp(max=worst), data["nre_maps"], rtol=0, atol=1e-5)
    torch.testing.assert_close(from_log_probability(shifted).entropy, data["entropy"], rtol=0, atol=1e-5)
    maps = gain_maps(descriptors, data["target_features"][0])
    difference = (worst - maps.gain - data["nre_maps"]).abs()
    assert float((difference - EPSILON / log_c.exp().clamp(min=1e-3)).max()) < 1e-5
    torch.testing.assert_close(maps.entropy, data["entropy"], rtol=0, atol=2e-3)
    assert torch.equal(maps.peak_uv, data["argmax_2D"]) and maps.max_gain == worst


def test_golden_sparsification_without_bug_u3(golden):
    """Upstream counts a cell whose loss is exactly 0 but does not store it, and misreads every later map."""
    data, source = golden("c_sparse_coarse"), golden("b_nre_maps")
    maps = from_log_probability((source["cmaps"] + EPSILON).log())
    worst = maps.max_gain
    stored = (data["nre_maps"] < worst).nonzero()
    n, y, x = stored.unbind(-1)
    ours = (maps.gain > 1e-6).nonzero()
    assert torch.equal(ours, stored) and len(ours) == int(data["num_non_zero"].sum()) == 2743
    kept = data["nre_maps"][n, y, x] != 0
    assert torch.equal(stored[kept].T, data["indices"]) and int(kept.sum()) == 2742
    torch.testing.assert_close(worst - maps.gain[n, y, x][kept], data["values"], rtol=0, atol=2e-6)
    # the certain cell that upstream drops has the largest gain of all, and belongs to the map it came from
    n, y, x = stored[~kept][0].tolist()
    assert float(maps.gain[n, y, x]) == pytest.approx(worst, abs=1e-6) and float(maps.gain[n].max()) == float(
        maps.peak[n]
    )


def test_golden_windows_without_bug_u1(golden):
    """Upstream places every window half its size too far right and down; the golden indices are moved back."""
    data, window, half = golden("c_sparse_fine_w16"), 16, 8
    f = data["target_features"][0]
    # parity: cells outside the map take part with logit 0 (zero features), priors are truncated, a factor mass / w
    padded = F.pad(f, (half, half, half, half))
    prior = data["prior_keypoints"].trunc()
    log_mass = (data["norm_coarse"] / window).log()
    maps = window_gain_maps(data["descriptors"], padded, prior + half, window, log_mass=log_mass)
    worst = log_cardinality((f.shape[2], f.shape[1]))
    origin = maps.origin - half
    assert torch.equal(origin, prior.long() - half)
    assert torch.equal(maps.origin, data["patch_origin_padded"])
    probability = (maps.log_ratio - maps.max_gain).exp()
    torch.testing.assert_close(probability, data["local_prob"], rtol=0, atol=1e-5)
    loss = -(probability + EPSILON).log()
    truncated = torch.where(loss < worst, loss, torch.zeros(()))  # the golden file holds 0 where there is no gain
    torch.testing.assert_close(truncated, data["local_nre_truncated"], rtol=0, atol=1e-5)
    n, i, j = ((loss < worst) & (loss != 0)).nonzero().unbind(-1)
    y, x = i + origin[n, 1], j + origin[n, 0]
    inside = (x >= 0) & (y >= 0) & (x < f.shape[2]) & (y < f.shape[1])
    found = {(a, b, c): v for a, b, c, v in zip(*(t[inside].tolist() for t in (n, y, x, loss[n, i, j])), strict=True)}
    theirs = {
        (a, b - half, c - half): v
        for (a, b, c), v in zip(data["indices"].T.tolist(), data["values"].tolist(), strict=True)
    }
    for cell, value in theirs.items():
        assert found[cell] == pytest.approx(value, abs=1e-5), cell
    # what upstream loses: cells that its shift pushed over the right or lower edge
    lost = {cell for cell in found if cell not in theirs}
    assert all(c + half >= f.shape[2] or b + half >= f.shape[1] for _, b, c in lost)
    ours = window_gain_maps(data["descriptors"], f, data["prior_keypoints"], window)
    assert torch.equal(ours.peak_uv, data["true_cell"])
    offset = data["peak_offset_xy"]  # -1 where upstream's shift pushed the peak out of the map
    assert set(offset.flatten().tolist()) == {half, -1}


@pytest.mark.parametrize("name", ["d_nre_cost_pinhole", "d_nre_cost_dist"])
def test_golden_dense_cost(golden, camera_of, name):
    data = golden(name)
    logits = data["logits"].float()
    h, w = logits.shape[1:]
    camera = camera_of(data, (h, w))
    maps = from_log_probability((logits.flatten(1).softmax(-1) + EPSILON).log().unflatten(-1, (h, w)))
    poses = Pose(data["R"].double(), data["t"].double())
    p = poses.transform(data["p3D"].double())
    uv, seen = camera.project(p)
    assert torch.equal(p[..., 2] > 1e-3, data["visible"])
    torch.testing.assert_close(uv[seen].float(), data["projections"][seen], rtol=0, atol=1e-3)
    # parity with U6: upstream clamps positions to the map, so a point outside gets the border cell's value, and does not
    # know the fold of the distortion
    clamped = data["projections"].clamp(min=0).minimum(torch.tensor([w - 1.0, h - 1.0]))
    parity = torch.where(data["visible"], gain_at(maps, clamped), torch.zeros(()))
    torch.testing.assert_close(50 * maps.max_gain - parity.sum(-1), data["dense_cost"], rtol=0, atol=1e-3)
    ours = score_poses(maps, data["p3D"].double(), camera, poses)
    by_hand = torch.stack([gain_at(maps, torch.where(seen[k, :, None], uv[k], torch.nan)).sum() for k in range(24)])
    torch.testing.assert_close(ours, (50 * maps.max_gain - by_hand).double(), rtol=0, atol=1e-3)
    outside = ~seen & data["visible"]
    assert bool(outside.any()) and bool((ours >= data["dense_cost"] - 1e-3).all())


def test_golden_preprocessing_conventions(golden):
    """U2: the two conventions for cells that upstream mixes; ours uses one for reference and query alike."""
    data = golden("h_preprocess")
    for name in ("source", "target"):
        h, w = data[f"{name}_1600_hw"].tolist()
        camera = Camera.from_K(data[f"{name}_1600_K"].double(), (w, h))
        rows, columns = data[f"{name}_1600_coarse_hw"].tolist()
        assert (rows, columns) == (-(-h // 16), -(-w // 16))
        parity = camera.scale((columns / w, rows / h))  # with the half-pixel shift: upstream's target
        torch.testing.assert_close(parity.K.float(), data[f"{name}_1600_coarse_K"], rtol=0, atol=1e-4)
        ratio = torch.tensor([columns / w, rows / h])
        parity_uv = data[f"{name}_1600_uv"] * ratio  # without it: upstream's source
        torch.testing.assert_close(parity_uv, data[f"{name}_1600_coarse_uv_feature"], rtol=1e-6, atol=1e-3)
        exact = map_camera(camera, (columns, rows), 16)
        torch.testing.assert_close(exact.f, camera.f / 16)
        torch.testing.assert_close(exact.c, camera.c / 16)


# -- the map camera ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("origin", [(0.0, 0.0), (3.5, 3.5)])
def test_map_camera_sees_the_cell_of_the_pixel(origin):
    size, terms = torch.tensor([640.0, 480.0]), torch.tensor([-0.1, 0.03, 0.004, -0.003, 0.01])
    camera = Camera(size, torch.tensor([500.0, 510.0]), torch.tensor([320.0, 241.0]), terms, "radtan")
    cells = map_camera(camera, (80, 60), 8, origin)
    xyz = torch.randn(20, 3, dtype=torch.float64) * 0.5 + torch.tensor([0, 0, 4.0])
    uv = camera.to(torch.float64).project(xyz)[0]
    torch.testing.assert_close(cells.project(xyz)[0], (uv - torch.tensor(origin)) / 8)
    assert cells.size.tolist() == [80, 60] and cells.dtype == torch.float64 and cells.model == "radtan"


# -- correspondence maps ----------------------------------------------------------------------------------------------
def test_chunks_change_nothing_and_inputs_stay(monkeypatch):
    h, f = features(0, 13, 8), features(1, 8, 7, 9)
    before = h.clone(), f.clone()
    whole = gain_maps(h, f, 0.5)
    monkeypatch.setattr("metriloc.methods.nre.maps._CHUNK", 100)
    parts = gain_maps(h, f, 0.5)
    for name in ("log_ratio", "origin", "peak_uv", "peak", "entropy", "mass"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name))
    assert torch.equal(h, before[0]) and torch.equal(f, before[1])
    expected = log_correspondence(h, f, 0.5)
    torch.testing.assert_close(whole.log_ratio - whole.max_gain, expected)
    torch.testing.assert_close(expected.exp().sum((1, 2)), torch.ones(13))
    torch.testing.assert_close(whole.entropy, -(expected.exp() * expected).sum((1, 2)))


def test_one_point_alone_works():
    """U15: upstream fails for a single point."""
    h, f = features(0, 1, 8), features(1, 8, 7, 9)
    assert gain_maps(h, f).log_ratio.shape == (1, 7, 9)
    assert window_gain_maps(h, f, torch.tensor([[3.0, 3.0]]), 4).log_ratio.shape == (1, 5, 5)
    assert len(gain_maps(h[:0], f)) == 0 and len(window_gain_maps(h[:0], f, torch.zeros(0, 2), 4)) == 0


def test_flat_zero_and_nan_features_are_not_informative():
    f, h = features(1, 8, 7, 9), features(0, 4, 8) * 4
    h[1], h[2] = 0, torch.nan
    maps = gain_maps(h, f)
    assert maps.informative().tolist() == [True, False, False, True]
    assert float(maps.gain[2].max()) == 0 and bool(torch.isfinite(maps.gain).all())
    black = gain_maps(h, torch.zeros(8, 7, 9))
    assert not black.informative().any()
    # uniform: every cell is better than the outlier by ln((HW + 1) / HW) and no more
    assert float(black.gain[0].max()) == pytest.approx(math.log(64 / 63), abs=1e-6)
    assert not maps.one_hot().gain[2].any()
    # a window is small, so each of its cells is far likelier than a cell of the whole map; flat is flat all the same
    windows = window_gain_maps(h, torch.zeros(8, 40, 40), torch.full((4, 2), 20.0), 8)
    assert float(windows.gain[0].min()) > 2 and not windows.informative().any()
    assert window_gain_maps(h, f, torch.full((4, 2), 3.0), 4).informative().tolist() == [True, False, False, True]


def test_matching_probability_of_inliers_and_outliers_is_a_distribution():
    """Eq. (2), with the category out of probability 0 for inliers."""
    log_c = log_correspondence(features(0, 2, 8), features(1, 8, 5, 6))
    log_q = log_matching_probability(log_c, torch.tensor([True, False])[:, None, None], (6, 5))
    total = log_q.exp().sum((1, 2))
    assert float(total[0]) == pytest.approx(1, abs=1e-5) and float(total[1]) == pytest.approx(30 / 31, abs=1e-5)


def test_reprojection_error_special_case_keeps_the_ranking():
    """Eq. (11); U19: upstream's flag makes all minima equal, so that its best quarter of the points is arbitrary."""
    maps = gain_maps(features(0, 12, 8) * torch.linspace(0.5, 2, 12)[:, None], features(1, 8, 7, 9))
    certain = maps.one_hot()
    assert int((certain.gain > 0).sum()) == 12 and float(certain.gain.max()) == pytest.approx(maps.max_gain)
    x, y = maps.peak_uv.unbind(-1)
    assert bool((certain.gain[torch.arange(12), y, x] > 0).all())
    assert torch.equal(certain.entropy, maps.entropy) and torch.equal(certain.peak, maps.peak)
    windows = window_gain_maps(features(0, 5, 8), features(1, 8, 9, 9), torch.full((5, 2), 4.0), 4)
    again = windows.one_hot()
    assert torch.equal((again.gain.flatten(1).argmax(-1)), windows.gain.flatten(1).argmax(-1))


@pytest.mark.slow
def test_importing_leaves_autograd_on():
    """U18: upstream switches gradients off for the whole process."""
    code = "import torch, metriloc.methods.nre.refine; assert torch.is_grad_enabled()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# -- positions --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gain_at_is_eq_6_by_hand(batch, dtype):
    log_c = log_correspondence(features(0, 6, 8), features(1, 8, 7, 9))
    maps = from_log_probability(log_c)
    uv = (
        torch.rand(*batch, 6, 2, generator=torch.Generator().manual_seed(3), dtype=dtype) * torch.tensor([12.0, 10.0])
        - 2
    )
    uv.view(-1, 2)[:3] = torch.tensor([[0.0, 0.0], [8.0, 6.0], [torch.nan, 1.0]])
    gain = gain_at(maps, uv)
    assert gain.shape == (*batch, 6)
    expected = [
        maps.max_gain - float(loss_by_hand(log_c[i % 6], position)) for i, position in enumerate(uv.reshape(-1, 2))
    ]
    torch.testing.assert_close(gain.flatten(), torch.tensor(expected), rtol=0, atol=1e-5)


def test_outside_the_map_is_out_and_not_the_border():
    """U6: upstream gives a point outside the value of the border cell."""
    log_c = torch.full((1, 5, 6), -20.0)
    log_c[0, 2, 5] = 0.0
    maps = from_log_probability(log_c)
    uv = torch.tensor([[[5.0, 2.0]], [[5.001, 2.0]], [[9.0, 2.0]], [[1e30, 2.0]], [[torch.inf, 2.0]], [[-1.0, 2.0]]])
    assert gain_at(maps, uv)[:, 0].tolist() == pytest.approx([maps.max_gain, 0, 0, 0, 0, 0])


def test_windows_hold_the_same_gains_as_whole_maps():
    log_c = log_correspondence(features(0, 5, 8), features(1, 8, 20, 30))
    whole = from_log_probability(log_c)
    origin = torch.tensor([[0, 0], [3, 4], [21, 11], [10, 5], [7, 2]])
    cut = torch.stack([log_c[n, y : y + 9, x : x + 9] for n, (x, y) in enumerate(origin.tolist())])
    window = from_log_probability(cut, origin, (30, 20))
    assert window.max_gain == whole.max_gain
    inside = origin + torch.rand(5, 2) * 8
    torch.testing.assert_close(gain_at(window, inside), gain_at(whole, inside), rtol=0, atol=1e-5)
    outside = origin + torch.tensor([9.5, 3.0])
    assert not gain_at(window, outside).any()
    x, y = (window.peak_uv - origin).unbind(-1)
    assert torch.equal(cut[torch.arange(5), y, x], cut.flatten(1).amax(-1))
    certain = from_log_probability(torch.zeros(5, 9, 9), origin, (30, 20))
    past = torch.tensor([[0.0, -1.0], [9.0, 3.0], [4.0, 9.0], [-1.0, 4.0], [9.0, 9.0]])
    assert not gain_at(certain, origin + past).any()  # absent cells have no gain, not that of the window's border
    assert float(gain_at(certain, origin + torch.tensor([8.5, 3.0]))[1]) == pytest.approx(0.5 * whole.max_gain)
    one = window[torch.tensor([2])]
    torch.testing.assert_close(gain_at(one, inside[2:3]), gain_at(window, inside)[2:3])


def test_blocks_hold_every_stored_cell_near_their_center():
    log_c = log_correspondence(features(0, 3, 8), features(1, 8, 9, 11))
    maps = from_log_probability(log_c[:, 1:8, 2:9], torch.tensor([[2, 1]] * 3), (11, 9))
    center = torch.tensor([[[5, 4], [0, 0], [100000, -100000]], [[8, 7], [2, 5], [6, 2]]])
    found, first = blocks(maps, center, 2)
    assert found.shape == (2, 3, 5, 5)
    for k in range(2):
        for n in range(3):
            x0, y0 = first[k, n].tolist()
            assert 2 <= x0 <= 4 and 1 <= y0 <= 3  # inside what is stored
            expected = log_c[n, y0 : y0 + 5, x0 : x0 + 5]
            torch.testing.assert_close(found[k, n] - maps.max_gain, expected, rtol=0, atol=1e-5)
    assert first[0, 0].tolist() == [3, 2] and first[0, 1].tolist() == [2, 1] and first[1, 0].tolist() == [4, 3]
    small, first = blocks(maps, center, 5)
    assert small.shape == (2, 3, 7, 7) and bool((first == torch.tensor([2, 1])).all())


def test_mass_at_the_borders_and_golden_inside(golden, camera_of):
    """U9: upstream's slices with negative ends read the far side, or nothing at all on row and column 0."""
    log_c = torch.full((4, 5, 6), -torch.inf)
    log_c[:, 0, 0], log_c[:, 2, 5] = math.log(0.5), math.log(0.5)
    maps = from_log_probability(log_c)
    uv = torch.tensor([[0.2, -0.3], [-2.0, 2.0], [5.4, 2.0], [torch.nan, 0.0]])
    torch.testing.assert_close(window_mass(maps, uv), torch.tensor([0.5, 0.0, 0.5, 0.0]))
    data = golden("g_coarse_pipeline")
    logits = data["logits"].float()
    log_c = logits.flatten(1).log_softmax(-1).unflatten(-1, logits.shape[1:])
    camera = camera_of(data, logits.shape[1:])
    pose = Pose(so3_exp(data["p3p_rvec"][:, 0].double()), data["p3p_tvec"].double())
    uv, seen = camera.project(pose.transform(data["p3D"].double()))
    # parity: 2p x 2p cells, one more to the upper left
    parity = window_mass(from_log_probability(log_c), uv, before=1, after=0)
    inside = seen & (uv.round() >= 1).all(-1)
    torch.testing.assert_close(parity[inside], data["norm_coarse"][inside], rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 2)])
def test_reprojection_pmf_is_a_distribution_with_the_right_mean(shape):
    """Eq. (3)."""
    uv = torch.rand(shape, dtype=torch.float64) * torch.tensor([8.0, 6.0])
    cells, weights, inside = reprojection_pmf(uv, (9, 7))
    assert inside.all() and cells.shape == (*shape[:-1], 4, 2)
    torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:-1]).double())
    torch.testing.assert_close((weights[..., None] * cells).sum(-2), uv)
    cells, weights, inside = reprojection_pmf(torch.tensor([[8.0, 6.0], [8.1, 0.0], [torch.nan, 0.0]]), (9, 7))
    assert inside.tolist() == [True, False, False] and weights.sum(-1).tolist() == [1, 0, 0]
    assert bool((cells >= 0).all()) and bool((cells <= torch.tensor([8, 6])).all())
    assert reprojection_pmf(torch.zeros(1, 2), (1, 1))[1].sum() == 1


def test_neural_reprojection_error():
    """Eq. (4): -ln C read bilinearly (not the logarithm of the mean); uniform maps give ln(HW); gradients are right."""
    log_c = log_correspondence(features(0, 3, 8, dtype=torch.float64), features(1, 8, 5, 6, dtype=torch.float64))
    uv = torch.tensor([[1.3, 2.6], [5.0, 4.0], [7.0, 1.0]], dtype=torch.float64)
    error = neural_reprojection_error(log_c, uv)
    grid = (2 * uv / torch.tensor([5.0, 4.0]) - 1)[:, None, None]
    expected = -F.grid_sample(log_c[:, None], grid.double(), align_corners=True)[:, 0, 0, 0]
    torch.testing.assert_close(error[:2], expected[:2])
    assert error[2] == torch.inf
    flat = torch.full((1, 67, 100), -math.log(6700))
    assert float(neural_reprojection_error(flat, torch.tensor([[3.3, 4.4]]))) == pytest.approx(math.log(6700))
    log_c[1, 3, 3] = -torch.inf  # impossible, but not one of the four cells
    assert torch.isfinite(neural_reprojection_error(log_c, uv)[:2]).all()

    def loss(h: torch.Tensor, f: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        return neural_reprojection_error(log_correspondence(h, f), uv)[:2]

    arguments = (features(0, 3, 4, dtype=torch.float64), features(1, 4, 5, 6, dtype=torch.float64), uv - 0.05)
    assert torch.autograd.gradcheck(loss, [a.requires_grad_() for a in arguments])
    with pytest.raises(ValueError, match=r"\[3, 2\], got \[2, 2\]"):
        neural_reprojection_error(log_c, uv[:2])


def test_score_is_the_sum_of_eq_6(scene):
    s = scene(20, distortion=(-0.1, 0.02, 0.003, -0.002, 0.01))
    generator = torch.Generator().manual_seed(1)
    R = so3_exp(0.3 * torch.randn(2, 3, 3, generator=generator).double()) @ s.pose.R
    poses = Pose(R, s.pose.t + 0.5 * torch.randn(2, 3, 3, generator=generator).double())
    cost = score_poses(s.maps, s.xyz, s.camera, poses)
    assert cost.shape == (2, 3)
    uv, seen = s.camera.project(poses[1, 2].transform(s.xyz))
    by_hand = sum(float(loss_by_hand(s.log_c[n], uv[n])) if seen[n] else s.maps.max_gain for n in range(20))
    assert float(cost[1, 2]) == pytest.approx(by_hand, abs=1e-3)
    assert float(score_poses(s.maps, s.xyz, s.camera, s.pose)) < float(cost.min())
    gain = pose_gain(s.maps, s.xyz, s.camera, s.pose)
    assert float(20 * s.maps.max_gain - gain.sum()) == pytest.approx(
        float(score_poses(s.maps, s.xyz, s.camera, s.pose)), abs=1e-3
    )
    assert 0 <= float(s.maps.support(gain).min()) <= float(s.maps.support(gain).max()) <= 1
    nan = Pose(torch.full((3, 3), torch.nan).double(), s.pose.t)
    behind = Pose(s.pose.R, s.pose.t * torch.tensor([1, 1, -1]))
    single = score_poses(s.maps, s.xyz.float(), s.camera, poses)  # types may be mixed
    torch.testing.assert_close(single, cost, rtol=1e-5, atol=1e-2)
    for bad in (nan, behind):
        assert float(score_poses(s.maps, s.xyz, s.camera, bad)) == pytest.approx(20 * s.maps.max_gain)
    assert score_poses(s.maps, s.xyz, s.camera, poses[0][:0]).shape == (0,)


# -- windows ----------------------------------------------------------------------------------------------------------
def test_windows_are_where_they_say():
    """U1: a planted peak is found in its own cell, also at the borders of the map, in either memory format."""
    f = F.normalize(features(2, 16, 40, 50), dim=0)
    cells = torch.tensor([[0, 0], [49, 39], [25, 20], [3, 37], [48, 2]])
    h = f[:, cells[:, 1], cells[:, 0]].T * 50
    centers = cells + torch.tensor([[1.4, -2.2], [-3.0, 0.4], [2.6, 5.0], [-4.0, 1.0], [1.0, -1.0]])
    maps = window_gain_maps(h, f, centers, 16)
    assert torch.equal(maps.peak_uv, cells) and maps.log_ratio.shape == (5, 17, 17)
    assert bool((maps.origin >= 0).all()) and bool((maps.origin + 17 <= torch.tensor([50, 40])).all())
    assert float(gain_at(maps, cells.float()).min()) > 0.9 * maps.max_gain
    last = f[None].contiguous(memory_format=torch.channels_last)[0]
    torch.testing.assert_close(window_gain_maps(h, last, centers, 16).log_ratio, maps.log_ratio, rtol=0, atol=1e-4)
    for n, (x, y) in enumerate(maps.origin.tolist()):
        logits = torch.einsum("c,cyx->yx", h[n], f[:, y : y + 17, x : x + 17])
        expected = logits.flatten().log_softmax(-1).view(17, 17)
        torch.testing.assert_close(maps.log_ratio[n] - maps.max_gain, expected, rtol=0, atol=1e-4)
    half = window_gain_maps(h, f, centers, 16, log_mass=torch.full((5,), math.log(0.5)))
    torch.testing.assert_close(half.log_ratio, maps.log_ratio - math.log(2))
    small = window_gain_maps(h, f[:, :6, :7].contiguous(), centers, 16)  # the map is smaller than a window
    assert small.log_ratio.shape == (5, 6, 7) and not small.origin.any()


def test_windows_need_no_dense_maps():
    """U21: upstream builds N x H x W maps to store windows; here those would take 29 GB."""
    f = torch.zeros(4, 1500, 2000)
    centers = torch.rand(2400, 2) * torch.tensor([2000.0, 1500.0])
    maps = window_gain_maps(torch.zeros(2400, 4), f, centers, 16)
    assert maps.log_ratio.shape == (2400, 17, 17) and maps.size == (2000, 1500)


# -- descriptors and wrong use ----------------------------------------------------------------------------------------
def test_descriptors():
    f = features(0, 5, 6, 7)
    read = descriptors_at(f, torch.tensor([[2.0, 3.0], [6.0, 5.0], [-9.0, 2.0], [1.5, 0.0], [1e30, 0.0]]))
    torch.testing.assert_close(read[0], f[:, 3, 2])
    torch.testing.assert_close(read[1], f[:, 5, 6])
    torch.testing.assert_close(read[3], (f[:, 0, 1] + f[:, 0, 2]) / 2)
    assert not read[[2, 4]].any()
    unit = descriptors_at(f, torch.tensor([[2.3, 3.1], [-9.0, 2.0]]), normalize=True)
    assert unit.norm(dim=-1).tolist() == pytest.approx([1, 0])


def test_wrong_use_is_named():
    h, f = torch.zeros(3, 8), torch.zeros(8, 5, 6)
    with pytest.raises(ValueError, match=r"\[3, 8\], \[7, 5, 6\]"):
        gain_maps(h, f[:7])
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        gain_maps(h, f, 0.0)
    with pytest.raises(ValueError, match=r"\[2, 2\]"):
        window_gain_maps(h, f, torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"window must be at least 1 .* got 0"):
        window_gain_maps(h, f, torch.zeros(3, 2), 0)
    with pytest.raises(ValueError, match=r"stride \(8, 0\)"):
        map_camera(Camera.from_fov((64, 48), 1.0), (8, 6), (8, 0))
    with pytest.raises(ValueError, match=r"origin \[N, 2\], got \[3, 5, 6\] and \[2, 2\]"):
        from_log_probability(torch.zeros(3, 5, 6), torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"cells \[N, 2\], got .*\[3\]"):
        descriptors_at(f, torch.zeros(3))
    with pytest.raises(ValueError, match=r"\[\*b, 3, 2\], got \[2, 2\]"):
        gain_at(gain_maps(h, f), torch.zeros(2, 2))


def test_maps_are_values():
    maps = gain_maps(features(0, 3, 8), features(1, 8, 5, 6))
    picked = maps[torch.tensor([True, False, True])]
    assert len(picked) == 2 and isinstance(picked, GainMaps) and picked.size == maps.size
    assert torch.equal(picked.gain, maps.gain[[0, 2]])
    assert torch.equal(replace(maps, log_ratio=-maps.log_ratio).gain, (-maps.log_ratio).clamp(min=0))
    assert maps.to("cpu").size == (6, 5)
