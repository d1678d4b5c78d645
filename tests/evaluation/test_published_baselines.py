"""The scale vote of the published matching baselines, and ours beside it; MicKey's training VCRE, a different quantity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.evaluation.errors import center_error, rotation_error_deg, vcre
from metriloc.geometry import Camera, Pose
from metriloc.solvers.relative import essential_pose, pnp_from_depth
from metriloc.solvers.two_view import scale_from_depth

Shared = Callable[[str], Path]
CASES = range(6)


class Case:
    """One made-up pair with keypoints, intrinsics and depth read at the keypoints."""

    def __init__(self, golden: dict[str, np.ndarray], k: int) -> None:
        self.values = {key.split("_", 1)[1]: value for key, value in golden.items() if key.startswith(f"{k}_")}

    def __getattr__(self, name: str) -> np.ndarray:
        return self.values[name]

    @property
    def cameras(self) -> tuple[Camera, Camera]:
        size = (2000, 2000)
        return tuple(Camera.from_K(torch.from_numpy(K).double(), size) for K in (self.K0, self.K1))  # type: ignore[return-value]

    @property
    def truth(self) -> Pose:
        return Pose(torch.from_numpy(self.R_gt), torch.from_numpy(self.t_gt))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, shared: Shared) -> Case:
    return Case(dict(np.load(shared("golden/bench/unit/baseline_solvers.npz"))), request.param)


def published_scales(case: Case) -> np.ndarray:
    """Of each essential-matrix inlier with both depths: ``(X1 - R X0) . t``, keypoints truncated to whole pixels."""
    inlier = case.E_mask.ravel().astype(bool) & (case.d0_at_k0 > 0) & (case.d1_at_k1 > 0)
    lifted = []
    for uv, depth, K in ((case.kpts0, case.d0_at_k0, case.K0), (case.kpts1, case.d1_at_k1, case.K1)):
        whole = np.concatenate([uv.astype(np.int32), np.ones((len(uv), 1))], 1)
        lifted.append(depth[:, None] * (whole @ np.linalg.inv(K.astype(np.float64)).T))
    x0, x1 = (x[inlier] for x in lifted)
    return (x1 - x0 @ case.E_R.T) @ case.E_t.ravel()


def test_the_published_vote_and_mean_are_understood(case: Case) -> None:
    if not np.isfinite(case.metric_t).all():
        # too few matches, or no two scales within 10 cm: the published solver gives up whole
        assert np.isnan(case.metric_t).all() and int(case.metric_inliers) == 0
        return
    scales = published_scales(case)
    votes = (np.abs(scales[:, None] - scales[None]) < 0.1).sum(1)
    best = scales[votes.argmax()] * case.E_t.ravel()
    assert votes.max() == int(case.metric_inliers)
    np.testing.assert_allclose(best, case.metric_t.ravel(), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(case.mean_t), abs(scales.mean()), rtol=0.2, atol=0.05)


def test_ours_is_at_least_as_good_as_the_published_solvers(case: Case) -> None:
    """The same matches and depths, at the whole pixels that the published solvers (and so the golden depths) are of."""
    uv0, uv1 = (torch.from_numpy(np.floor(uv)).double() for uv in (case.kpts0, case.kpts1))
    depth0, depth1 = torch.from_numpy(case.d0_at_k0).double(), torch.from_numpy(case.d1_at_k1).double()
    pnp = pnp_from_depth(uv0, depth0, torch.from_numpy(case.kpts1).double(), case.cameras, 3.0)
    theirs = Pose(torch.from_numpy(case.pnp_R), torch.from_numpy(case.pnp_t.ravel()))
    assert pnp.pose is not None
    assert float(center_error(pnp.pose, case.truth)) <= float(center_error(theirs, case.truth)) + 0.01
    essential = essential_pose(uv0, uv1, case.cameras, 2.0)
    if len(uv0) < 60:
        return  # too few for the ambiguity of small sets to be a matter of quality
    assert essential.pose is not None
    i = essential.inliers
    scale = scale_from_depth(essential.pose, uv0[i], depth0[i], uv1[i], case.cameras, depth1[i])
    assert scale is not None
    ours = Pose(essential.pose.R, essential.pose.t * scale.scale)
    if not np.isfinite(case.metric_t).all():
        # the published vote found no scale here
        assert float(center_error(ours, case.truth)) < 0.1
        return
    published = Pose(torch.from_numpy(case.metric_R), torch.from_numpy(case.metric_t.ravel()))
    assert float(rotation_error_deg(ours, case.truth)) <= float(rotation_error_deg(published, case.truth)) + 0.3
    assert float(center_error(ours, case.truth)) <= float(center_error(published, case.truth)) + 0.01


def test_the_vcre_of_mickeys_training_is_another_quantity(shared: Shared) -> None:
    golden = np.load(shared("golden/bench/unit/mickey_train_vcre.npz"))
    truth = Pose.from_matrix(torch.from_numpy(golden["T_gt"]).double())
    estimate = Pose(torch.from_numpy(golden["R"]).double(), torch.from_numpy(golden["t"]).double())
    K = torch.from_numpy(golden["K"]).double()
    size = torch.tensor([540.0, 720.0], dtype=torch.float64).expand(len(K), 2)
    benchmark = vcre(estimate, truth, K, size).numpy()
    np.testing.assert_allclose(benchmark, golden["benchmark_vcre"], rtol=1e-4, atol=1e-3)  # R is float32
    flipped = (benchmark < 90) != (golden["vcre_torch"] < 90)
    assert 0.01 < flipped.mean() < 0.1 and np.median(np.abs(benchmark - golden["vcre_torch"])) > 10
