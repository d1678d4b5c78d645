"""P3P against golden data, PoseLib, planted poses, and triplets that fix no pose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metriloc.geometry import so3_exp
from metriloc.solvers.p3p import p3p


def problems(shape: tuple[int, ...], seed: int = 0, dtype=torch.float64):
    """Rays, points and the pose they come from; every point at least half a unit in front of the camera."""
    generator = torch.Generator().manual_seed(seed)
    R = so3_exp(torch.randn(*shape, 3, generator=generator, dtype=torch.float64))
    seen = torch.rand(*shape, 3, 3, generator=generator, dtype=torch.float64) * torch.tensor([6.0, 4.0, 5.0])
    seen = seen + torch.tensor([-3.0, -2.0, 0.5])
    t = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    xyz = (seen - t[..., None, :]) @ R  # R^T (p - t)
    return (seen / seen[..., 2:]).to(dtype), xyz.to(dtype), R, t


def distances(R, t, others_R, others_t):
    """[n, m] largest difference of any number of two poses."""
    return torch.maximum(
        (R[:, None] - others_R).abs().amax((-1, -2)),
        (t[:, None] - others_t).abs().amax(-1),
    )


def test_golden_minimal_problems(shared):
    with np.load(shared("golden/nre/a_p3p_minimal.npz")) as data:
        golden = {key: torch.from_numpy(data[key]) for key in data.files}
    K = golden["K"]
    rays = torch.cat([(golden["p2D"] - K[:2, 2]) / K.diagonal()[:2], torch.ones(200, 3, 1)], -1).double()
    found = p3p(rays, golden["p3D"])
    for i in range(200):
        n, ok = int(golden["n_solutions"][i]), found.valid[i]
        d = distances(found.pose.R[i][ok], found.pose.t[i][ok], golden["sol_R"][i, :n], golden["sol_t"][i, :n])
        assert n == int(ok.sum()) and (n == 0 or (float(d.amin(0).max()) < 1e-5 > float(d.amin(1).max()))), i
        if golden["valid"][i]:
            truth = distances(
                found.pose.R[i][ok], found.pose.t[i][ok], golden["R_gt"][i, None], golden["t_gt"][i, None]
            )
            assert float(truth.min()) < 1e-5


def test_same_solutions_as_poselib():
    poselib = pytest.importorskip("poselib")
    rays, xyz, *_ = problems((400,))
    found = p3p(rays, xyz)
    unit = rays / rays.norm(dim=-1, keepdim=True)
    for i in range(400):
        theirs = poselib.p3p(unit[i].numpy(), xyz[i].numpy())
        ok = found.valid[i]
        R = torch.tensor(np.stack([pose.R for pose in theirs]))
        t = torch.tensor(np.stack([pose.t for pose in theirs]))
        d = distances(found.pose.R[i][ok], found.pose.t[i][ok], R, t)
        assert len(theirs) == int(ok.sum()) and float(d.amin(0).max()) < 1e-6 > float(d.amin(1).max()), i


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (3000,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finds_the_planted_pose(shape, dtype):
    rays, xyz, R, t = problems(shape, dtype=dtype)
    before = rays.clone(), xyz.clone()
    found = p3p(rays, xyz)
    assert found.valid.shape == found.pose.shape == (*shape, 4) and found.pose.dtype == dtype
    error = torch.maximum(
        (found.pose.R - R[..., None, :, :]).abs().amax((-1, -2)), (found.pose.t - t[..., None, :]).abs().amax(-1)
    )
    best = torch.where(found.valid, error, torch.inf).amin(-1)
    if dtype == torch.float64:
        assert float(best.max()) < 1e-6 and float(best.median()) < 1e-12
    else:  # rounded inputs move solutions near a double root, and may make them complex
        assert float(best.median()) < 1e-5 and float((best < 1e-2).float().mean()) > 0.98
    assert torch.equal(rays, before[0]) and torch.equal(xyz, before[1])


def test_every_solution_sees_the_points_along_the_rays():
    rays, xyz, *_ = problems((2000,), seed=3)
    found = p3p(rays, xyz)
    assert int(found.valid.sum()) > 2000
    p = found.pose.transform(xyz[:, None].expand(-1, 4, -1, -1))[found.valid]
    direction = rays[:, None].expand(-1, 4, -1, -1)[found.valid]
    p, direction = p / p.norm(dim=-1, keepdim=True), direction / direction.norm(dim=-1, keepdim=True)
    assert float((p - direction).abs().max()) < 1e-9  # equal and not opposite: depths are positive
    R = found.pose.R[found.valid]
    assert float((R @ R.mT - torch.eye(3)).abs().max()) < 1e-9 and float(torch.linalg.det(R).min()) > 0.999
    assert found.pose.R[~found.valid].isnan().all() and found.pose.t[~found.valid].isnan().all()


def test_rays_may_have_any_length_and_units_do_not_matter():
    rays, xyz, _, t = problems((50,), seed=1)
    found, scaled = p3p(rays, xyz), p3p(rays * 7.0, xyz * 1e4)
    assert torch.equal(found.valid, scaled.valid) and bool(found.valid.any(-1).all())
    torch.testing.assert_close(scaled.pose.t, found.pose.t * 1e4, rtol=1e-6, atol=1e-3, equal_nan=True)
    assert float(t.abs().max()) > 0


def test_narrow_triangles_far_away():
    """Points within a fiftieth of their distance: the depths need polishing."""
    generator = torch.Generator().manual_seed(0)
    xyz = 0.02 * torch.randn(20000, 3, 3, generator=generator, dtype=torch.float64)
    R = so3_exp(torch.randn(20000, 3, generator=generator, dtype=torch.float64))
    seen = xyz @ R.mT + torch.tensor([0.0, 0.0, 5.0])
    found = p3p(seen, xyz)
    error = torch.where(found.valid, (found.pose.R - R[:, None]).abs().amax((-1, -2)), torch.inf).amin(-1)
    assert float(error.median()) < 1e-9 and int((error > 1e-6).sum()) <= 5


def test_symmetric_triplet_with_double_roots():
    # an equilateral triangle seen head-on: the classic case in which solutions coincide
    angle = torch.arange(3) * 2 * torch.pi / 3
    xyz = torch.stack([angle.cos(), angle.sin(), torch.zeros(3)], -1).double()
    t = torch.tensor([0.0, 0.0, 3.0]).double()
    found = p3p((xyz + t) / 3, xyz)
    error = (found.pose.R - torch.eye(3)).abs().amax((-1, -2)) + (found.pose.t - t).abs().amax(-1)
    assert float(torch.where(found.valid, error, torch.inf).min()) < 1e-6


def test_triplets_that_fix_no_pose_have_none_and_leave_the_others_alone():
    rays, xyz, *_ = problems((6,), seed=2)
    alone = p3p(rays[5], xyz[5])
    xyz[0, 2] = 0.3 * xyz[0, 0] + 0.7 * xyz[0, 1]  # collinear
    xyz[1, 2] = xyz[1, 0]  # coincident
    xyz[2] = 1.0  # all coincident
    rays[3, 1] = rays[3, 0]  # two points on one ray: only at different depths
    xyz[4, 0, 0] = torch.nan
    found = p3p(rays, xyz)
    assert not found.valid[[0, 1, 2, 4]].any()
    assert torch.equal(found.valid[5], alone.valid)
    torch.testing.assert_close(found.pose.R[5], alone.pose.R, equal_nan=True)
    assert not p3p(torch.zeros(3, 3), torch.eye(3)).valid.any()
    assert p3p(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3)).valid.shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_parallel_rays_have_no_pose(dtype):
    generator = torch.Generator().manual_seed(3)
    rays, xyz = torch.randn(2, 5000, 3, 3, dtype=torch.float64, generator=generator)
    for length in (1.0, -1.0, 0.25, 1 + 1e-15, 0.0):
        for others in ((1,), (1, 2)):
            bad = rays.clone()
            for i in others:
                bad[:, i] = length * bad[:, 0]
            found = p3p(bad.to(dtype), xyz.to(dtype))
            assert not bool(found.valid.any()), (length, others)
            assert bool(found.pose.t.isnan().all())


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\[\*b, 3, 3\], got \[4, 3\] and \[3, 3\]"):
        p3p(torch.zeros(4, 3), torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"got \[3, 2\]"):
        p3p(torch.zeros(3, 2), torch.zeros(3, 2))
