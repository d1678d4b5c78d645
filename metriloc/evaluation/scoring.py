"""From records of pairs to errors and the numbers of a table, all sets alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from metriloc.calibration import Target
from metriloc.evaluation.curves import mapfree_auc, pose_error_auc
from metriloc.evaluation.errors import center_error, direction_error_deg, rotation_error_deg, vcre
from metriloc.evaluation.mapfree import POSE_DEGREES, POSE_METRES
from metriloc.evaluation.records import Record
from metriloc.evaluation.relative import relative_errors, relative_summary
from metriloc.evaluation.tasks import PairTask
from metriloc.geometry import Pose
from metriloc.io import InputError

VCRE_MEANING = (
    "VCRE: how far apart virtual points before the query camera fall in its photo under the true and the estimated pose, "
    "averaged; in pixels, or in % of the photo's diagonal where that stands beside it."
)
"""What a reader of a table with VCRE is told."""
VCRE_FRACTION = 0.1
"""A pose is good enough for AR when the VCRE is below this fraction of the image diagonal (MicKey paper)."""


@dataclass(frozen=True, eq=False)
class PairScores:
    """Errors of every pair, in the order of the tasks; NaN where there is no estimate.

    center_m and vcre_fraction (VCRE over the diagonal of the query photo) are also NaN for an estimate without metres.
    direction_deg: angle of the translations, not folded. baseline_m: true distance of the cameras. overlap: of the
    data set, NaN when unknown. matching_s: seconds until the correspondences of the query are known, NaN when not told.
    estimated: with a pose; metric: with a pose in metres.
    """

    keys: tuple[str, ...]
    scenes: tuple[str, ...]
    rotation_deg: Float[ndarray, " n"]
    direction_deg: Float[ndarray, " n"]
    center_m: Float[ndarray, " n"]
    vcre_fraction: Float[ndarray, " n"]
    confidence: Float[ndarray, " n"]
    baseline_m: Float[ndarray, " n"]
    overlap: Float[ndarray, " n"]
    seconds: Float[ndarray, " n"]
    matching_s: Float[ndarray, " n"]
    estimated: Bool[ndarray, " n"]
    metric: Bool[ndarray, " n"]
    estimate: Pose
    truth: Pose

    def __len__(self) -> int:
        return len(self.keys)

    def subset(self, index: ndarray) -> PairScores:
        """The pairs of an index array (repeats allowed) or a mask."""
        index = np.flatnonzero(index) if index.dtype == bool else index
        values: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple):
                values[item.name] = tuple(value[i] for i in index)
            else:
                values[item.name] = value[torch.from_numpy(index)] if isinstance(value, Pose) else value[index]
        return PairScores(**values)


def score_pairs(tasks: Sequence[PairTask], records: Sequence[Record]) -> PairScores:
    """Errors of records against the true poses. Raises InputError for a pair without a true pose."""
    n = len(tasks)
    true, estimated = [], []
    nan = Pose(torch.full((3, 3), torch.nan, dtype=torch.float64), torch.full((3,), torch.nan, dtype=torch.float64))
    for task, record in zip(tasks, records, strict=True):
        pose = task.pair.cam1_from_cam0
        if pose is None:
            raise InputError(f"the pose of {task.key!r} is withheld: only a submission can be made of this set")
        true.append(pose.to(torch.float64))
        estimated.append(record.pose or nan)
    truth, estimate = Pose.stack(true), Pose.stack(estimated)
    cameras = [task.pair.frame1.camera.to(torch.float64) for task in tasks]
    K, size = torch.stack([c.K for c in cameras]), torch.stack([c.size for c in cameras])
    found = np.array([record.pose is not None for record in records], bool).reshape(n)
    metric = found & np.array([record.metric for record in records], bool).reshape(n)
    pixels = vcre(estimate, truth, K, size) / size.norm(dim=-1)
    direction = direction_error_deg(estimate.t, truth.t)
    return PairScores(
        keys=tuple(task.key for task in tasks),
        scenes=tuple(task.pair.scene for task in tasks),
        rotation_deg=np.where(found, rotation_error_deg(estimate, truth).numpy(), np.nan),
        direction_deg=np.where(found, direction.numpy(), np.nan),
        center_m=np.where(metric, center_error(estimate, truth).numpy(), np.nan),
        vcre_fraction=np.where(metric, pixels.numpy(), np.nan),
        confidence=np.array([record.confidence for record in records]).reshape(n),
        baseline_m=truth.distance().numpy(),
        overlap=np.array([task.pair.overlap for task in tasks]).reshape(n),
        seconds=np.array([record.seconds for record in records]).reshape(n),
        matching_s=np.array([record.matching_seconds for record in records], float).reshape(n),
        estimated=found,
        metric=metric,
        estimate=estimate,
        truth=truth,
    )


def within(target: Target, scores: PairScores) -> Bool[ndarray, " n"]:
    """Which pairs have an estimate within the bounds of the target."""
    right = scores.estimated.copy()
    for name, bound in dataclasses.asdict(target).items():
        if bound is None or name == "near_m":
            continue
        good = getattr(scores, name) < bound  # NaN is never below
        if name == "direction_deg" and target.near_m is not None:
            good |= scores.center_m < target.near_m
        right &= good
    return right


# -- the numbers of a table -------------------------------------------------------------------------------------------
def vcre_note(names: Iterable[str]) -> list[str]:
    """What VCRE is, for a table of metrics in which it stands; nothing for another."""
    return [VCRE_MEANING] if any("VCRE" in name or "Reprojection" in name for name in names) else []


def vcre_precision(scores: PairScores) -> float:
    """Share of all pairs with a VCRE below 10 % of the diagonal."""
    return float(np.mean(scores.vcre_fraction < VCRE_FRACTION))


def vcre_auc(scores: PairScores) -> float:
    """``mapfree_auc`` of it."""
    return _auc(scores, scores.vcre_fraction < VCRE_FRACTION, scores.metric)


def pose_precision(scores: PairScores) -> float:
    """Share of all pairs within 25 cm and 5 degrees."""
    return float(np.mean((scores.center_m < POSE_METRES) & (scores.rotation_deg < POSE_DEGREES)))


def pose_auc(scores: PairScores) -> float:
    """``mapfree_auc`` of it."""
    return _auc(scores, (scores.center_m < POSE_METRES) & (scores.rotation_deg < POSE_DEGREES), scores.metric)


def angular_precision(scores: PairScores) -> float:
    """Share of all pairs within 5 degrees of rotation and 10 of direction: what a pose without metres can claim."""
    return float(np.mean((scores.rotation_deg < 5) & (scores.direction_deg < 10)))


def angular_auc20(scores: PairScores) -> float:
    """``pose_error_auc`` up to 20 degrees of the larger of rotation and direction error."""
    return pose_error_auc(np.maximum(scores.rotation_deg, scores.direction_deg), (20.0,))[0]


def _auc(scores: PairScores, accepted: ndarray, present: ndarray) -> float:
    return mapfree_auc(scores.confidence[present], accepted[present], int((~present).sum()))


def _median_over(values: Callable[[PairScores], ndarray]) -> Callable[[PairScores], float]:
    def median(scores: PairScores) -> float:
        known = values(scores)[np.isfinite(values(scores))]
        return float(np.median(known)) if len(known) else float("nan")

    return median


STATISTICS: Mapping[str, Callable[[PairScores], float]] = {
    "estimates": lambda s: float(np.mean(s.estimated)),
    "median rotation error (deg)": _median_over(lambda s: s.rotation_deg),
    "median direction error (deg)": _median_over(lambda s: s.direction_deg),
    "median center error (m)": _median_over(lambda s: s.center_m),
    "median relative center error": _median_over(lambda s: s.center_m / np.maximum(s.baseline_m, 1e-9)),
    "median VCRE (% of diagonal)": _median_over(lambda s: 100 * s.vcre_fraction),
    "VCRE precision (10 % of diagonal)": vcre_precision,
    "VCRE AUC (10 % of diagonal)": vcre_auc,
    "pose precision (25 cm, 5 deg)": pose_precision,
    "pose AUC (25 cm, 5 deg)": pose_auc,
    "angular precision (5 deg, direction 10 deg)": angular_precision,
    "angular error AUC@20deg": angular_auc20,
    "median time of matching (ms)": _median_over(lambda s: 1000 * s.matching_s),
}
"""The numbers of every report, each a function of pairs; medians are over estimates, precisions over all pairs."""


def summarize(scores: PairScores) -> dict[str, float]:
    """All ``STATISTICS``."""
    return {name: statistic(scores) for name, statistic in STATISTICS.items()}


def per_scene(scores: PairScores) -> dict[str, dict[str, float]]:
    """``summarize`` of each scene, in order of first appearance, and how many ``pairs`` it has."""
    table = {}
    for scene in dict.fromkeys(scores.scenes):
        part = scores.subset(np.array([s == scene for s in scores.scenes]))
        table[scene] = {"pairs": float(len(part)), **summarize(part)}
    return table


def scannet_summary(scores: PairScores) -> dict[str, float]:
    """The ScanNet protocol's numbers (``metriloc.evaluation.relative``); estimates without metres fail by distance."""
    errors = relative_errors(scores.estimate, scores.truth)
    lost = ~scores.metric
    errors = dataclasses.replace(
        errors,
        translation_m=np.where(lost, np.nan, errors.translation_m),
        scale_ratio=np.where(lost, np.nan, errors.scale_ratio),
    )
    return relative_summary(errors)
