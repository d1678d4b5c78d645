"""Errors and curves against the golden arrays of the published evaluators, and against scikit-like naive twins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.evaluation.curves import (
    abstention_curve,
    mapfree_auc,
    pose_error_auc,
    precision_curve,
    ranking_average_precision,
)
from metriloc.evaluation.errors import (
    center_error,
    direction_error_deg,
    quaternion_error_deg,
    rotation_error_deg,
    scale_ratio,
    translation_error,
    vcre,
)
from metriloc.evaluation.relative import RelativeErrors, relative_errors, relative_summary
from metriloc.geometry import Pose, so3_exp

Shared = Callable[[str], Path]


def poses(q: np.ndarray, t: np.ndarray) -> Pose:
    return Pose.from_quaternion(torch.from_numpy(q), torch.from_numpy(t))


def random_pose(n: int, generator: torch.Generator) -> Pose:
    w, t = torch.randn(2, n, 3, dtype=torch.float64, generator=generator)
    return Pose(so3_exp(w), t)


@pytest.mark.parametrize("file", ["golden/bench/unit/vcre_pairs.npz", "golden/mickey/metrics.npz"])
def test_vcre_equals_the_benchmark(shared: Shared, file: str) -> None:
    golden = np.load(shared(file))
    true = poses(golden["q_gt_c2w"], golden["t_gt_c2w"]).inverse()
    estimated = poses(golden["q_est_c2w"], golden["t_est_c2w"]).inverse()
    n = len(golden["q_gt_c2w"])
    K = torch.from_numpy(golden["K"]).expand(n, 3, 3)
    size = torch.from_numpy(golden["WH"] if "WH" in golden else np.array([golden["W"], golden["H"]])).expand(n, 2)
    expected = golden["vcre"] if "vcre" in golden else golden["reproj_err"]
    np.testing.assert_allclose(vcre(estimated, true, K, size).numpy(), expected, rtol=1e-12, atol=1e-11)


def test_vcre_of_points_at_depth_zero_is_nan_as_upstream(shared: Shared) -> None:
    golden = np.load(shared("golden/bench/unit/vcre_pairs.npz"))
    t = torch.zeros(len(golden["special_tz"]), 3, dtype=torch.float64)
    t[:, 2] = torch.from_numpy(golden["special_tz"])
    n = len(t)
    estimated = Pose(torch.eye(3, dtype=torch.float64).expand(n, 3, 3), t)
    K = torch.from_numpy(golden["special_K"]).expand(n, 3, 3)
    size = torch.tensor([540.0, 720.0]).expand(n, 2)
    expected = golden["special_vcre"]
    assert np.isnan(expected).any()
    found = vcre(estimated.inverse(), Pose.identity((n,), dtype=torch.float64), K, size)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_translation_and_rotation_errors_equal_the_scorer(shared: Shared) -> None:
    golden = np.load(shared("golden/mickey/metrics.npz"))
    true = poses(golden["q_gt_c2w"], golden["t_gt_c2w"]).inverse()
    estimated = poses(golden["q_est_c2w"], golden["t_est_c2w"]).inverse()
    np.testing.assert_allclose(center_error(estimated, true).numpy(), golden["trans_err"], rtol=1e-12, atol=1e-14)
    q = [torch.from_numpy(golden[f"q_{name}_c2w"]) for name in ("est", "gt")]
    np.testing.assert_allclose(quaternion_error_deg(*q, clamp=False).numpy(), golden["rot_err"], rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(rotation_error_deg(estimated, true).numpy(), golden["rot_err"], rtol=1e-9, atol=1e-9)


def test_quaternion_error_is_nan_at_180_only_without_clamp(shared: Shared) -> None:
    golden = np.load(shared("golden/bench/unit/quaternions.npz"))
    q1, q2 = (torch.from_numpy(golden[name]) for name in ("q1", "q2"))
    expected = golden["angle_sin_deg"]
    finite = ~np.isnan(expected)
    found = quaternion_error_deg(q2, q1, clamp=False).numpy()
    both = finite & ~np.isnan(found)
    # asin loses half of the digits next to 180 degrees
    steep = expected > 179.99
    np.testing.assert_allclose(found[both & ~steep], expected[both & ~steep], rtol=1e-9, atol=1e-12)
    assert np.isfinite(quaternion_error_deg(q2, q1, clamp=True).numpy()).all()
    half_turn = torch.tensor([[0.0, 0.6, 0.8, 0.0]], dtype=torch.float64)
    identity = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert float(quaternion_error_deg(half_turn, identity, clamp=True)) == pytest.approx(180, abs=1e-4)


def test_inversion_of_scorer_poses(shared: Shared) -> None:
    golden = np.load(shared("golden/bench/unit/quaternions.npz"))
    inverse = poses(golden["q2"], golden["t_w2c"]).inverse()  # q2 is not of unit length
    np.testing.assert_allclose(inverse.t.numpy(), golden["t_c2w"], atol=1e-12)


def test_precision_curves_equal_the_golden_ones(shared: Shared) -> None:
    golden = np.load(shared("golden/bench/unit/precision_recall.npz"))
    cases = sorted({key.split("_")[0] for key in golden.files})
    assert len(cases) == 40
    for k in cases:
        curve = precision_curve(golden[f"{k}_conf"], golden[f"{k}_tp"], int(golden[f"{k}_fail"]))
        np.testing.assert_allclose(curve.precision, golden[f"{k}_prec"], atol=1e-12)
        np.testing.assert_allclose(curve.recall, golden[f"{k}_rec"], atol=1e-7)
        assert curve.area == pytest.approx(float(golden[f"{k}_auc"]), abs=1e-7)


def test_mickey_curves(shared: Shared) -> None:
    golden = np.load(shared("golden/mickey/metrics.npz"))
    for failures in (0, 17):
        area = mapfree_auc(golden["pr_conf"], golden["pr_tp"], failures)
        assert area == pytest.approx(float(golden[f"auc_{failures}"]), abs=1e-6)


def test_the_three_aucs_differ(generator: torch.Generator) -> None:
    confidence = torch.rand(50, generator=generator, dtype=torch.float64).numpy()
    right = confidence + 0.3 * torch.randn(50, generator=generator, dtype=torch.float64).numpy() > 0.6
    assert right.any() and not right.all()
    kept, found = mapfree_auc(confidence, right), ranking_average_precision(confidence, right)
    # the textbook definition, by hand
    order = np.argsort(-confidence)
    hits = np.flatnonzero(right[order]) + 1
    assert found == pytest.approx(np.mean((np.arange(len(hits)) + 1) / hits))
    assert kept != pytest.approx(found)
    assert mapfree_auc(np.ones(50), right) == pytest.approx(right.mean())
    assert np.isnan(ranking_average_precision(confidence, np.zeros(50, bool)))
    assert mapfree_auc(np.zeros(0), np.zeros(0, bool), 5) == 0
    with pytest.raises(ValueError, match="NaN"):
        precision_curve(np.array([np.nan]), np.array([True]))
    with pytest.raises(ValueError, match="verdicts"):
        precision_curve(np.array([1.0, 2.0]), np.array([True]))


def test_scannet_metrics_equal_the_golden_ones(shared: Shared) -> None:
    golden = np.load(shared("golden/bench/unit/scannet_metrics.npz"))
    true = Pose.from_matrix(torch.from_numpy(golden["T_gt"]).double())
    estimated = Pose(torch.from_numpy(golden["R"]).double(), torch.from_numpy(golden["t"]).double())
    errors = relative_errors(estimated, true)
    # the golden ones are float32 and use acos, which is coarse near zero
    np.testing.assert_allclose(errors.rotation_deg, golden["R_err"], atol=0.05)
    np.testing.assert_allclose(errors.direction_deg, golden["t_err_ang"], atol=0.05)
    np.testing.assert_allclose(errors.translation_m, golden["t_err_euc"], rtol=1e-4)
    np.testing.assert_allclose(errors.scale_ratio, golden["t_err_scale_sym"], rtol=1e-4)
    failed = np.zeros(len(errors.rotation_deg), bool)
    failed[golden["nan_idx"]] = True
    lost = RelativeErrors(*(np.where(failed, np.nan, x) for x in vars(errors).values()))
    summary = relative_summary(lost)
    areas = [[summary[f"{x} error AUC@{a}deg"] for a in (5, 10, 20)] for x in ("pose", "rotation", "direction")]
    np.testing.assert_allclose(areas, [golden["auc_pose"], golden["auc_rot"], golden["auc_tang"]], atol=2e-4)
    metres = [summary[f"translation error AUC@{m}m"] for m in ("0.1", "0.5", "1")]
    np.testing.assert_allclose(metres, golden["auc_teuc"], atol=1e-5)
    recalls = [value for name, value in summary.items() if name.startswith("recall")]
    np.testing.assert_allclose(recalls, golden["recall"], atol=1e-12)
    accuracies = [summary[f"A{k} (scale within 1.25^{k})"] for k in (1, 2, 3)]
    np.testing.assert_allclose(accuracies, golden["A123_with_nan"], atol=1e-12)
    whole = relative_summary(errors)
    accuracies = [whole[f"A{k} (scale within 1.25^{k})"] for k in (1, 2, 3)]
    np.testing.assert_allclose(accuracies, golden["A123"], atol=1e-12)
    medians = [v for k, v in summary.items() if k.startswith("median")]
    np.testing.assert_allclose(medians, golden["medians"], rtol=1e-3)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_errors_keep_batch_shapes(shape: tuple[int, ...], generator: torch.Generator) -> None:
    w, t = torch.randn(2, *shape, 3, generator=generator)
    pose = Pose(so3_exp(w), t)
    K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]).expand(*shape, 3, 3)
    size = torch.tensor([640.0, 480.0]).expand(*shape, 2)
    other = Pose(so3_exp(w + 0.1), t + 0.1)
    for value in (
        rotation_error_deg(other, pose),
        center_error(other, pose),
        translation_error(other, pose),
        direction_error_deg(other.t, pose.t),
        scale_ratio(other.t, pose.t),
        vcre(other, pose, K, size),
    ):
        assert value.shape == shape and value.dtype == torch.float64 and bool((value > 0).all())
    assert bool((vcre(pose, pose, K, size) < 1e-3).all())  # float32 rotations are orthogonal to 1e-7 only


def test_folding_hides_a_reversed_translation() -> None:
    t = torch.tensor([1.0, 2.0, 3.0])
    assert float(direction_error_deg(-t, t)) == pytest.approx(180)
    assert float(direction_error_deg(-t, t, folded=True)) == pytest.approx(0, abs=1e-9)
    assert float(direction_error_deg(torch.zeros(3), t)) == 90


def test_pose_error_auc_by_hand() -> None:
    # errors 1 and 3 of four pairs, two lost: the curve rises to 1/4 at 1 and to 2/4 at 3, then stays
    area = pose_error_auc(np.array([1.0, 3.0, np.nan, np.inf]), (4.0,))[0]
    assert area == pytest.approx((0.5 * 0.25 * 1 + (0.25 + 0.5) / 2 * 2 + 0.5 * 1) / 4)
    assert np.isnan(pose_error_auc(np.zeros(0), (5.0,))[0])


def test_abstention_curve_is_sorted_by_confidence() -> None:
    coverage, median = abstention_curve(np.array([0.1, 0.9, 0.5]), np.array([np.nan, 1.0, 2.0]))
    np.testing.assert_allclose(coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(median, [1.0, 1.5, 2.0])
