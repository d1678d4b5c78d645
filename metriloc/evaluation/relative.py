"""Relative-pose metrics of the ScanNet tables: errors, error AUCs, recalls and scale accuracies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from metriloc.evaluation.curves import pose_error_auc
from metriloc.evaluation.errors import direction_error_deg, rotation_error_deg, scale_ratio, translation_error
from metriloc.geometry import Pose

ANGLES_DEG = (5.0, 10.0, 20.0)
METRES = (0.1, 0.5, 1.0)
RECALLS = ((0.1, 5.0), (0.25, 5.0), (0.5, 10.0), (1.0, 20.0))
"""(metres, degrees), both inclusive here: ScanNet scripts use <=, Map-free and 7-Scenes <."""


@dataclass(frozen=True, eq=False)
class RelativeErrors:
    """Errors of many pairs; NaN in all of them where a method failed.

    direction_deg is folded at 90 degrees, as ScanNet tables have it (a reversed translation looks perfect).
    """

    rotation_deg: Float[ndarray, " n"]
    direction_deg: Float[ndarray, " n"]
    translation_m: Float[ndarray, " n"]
    scale_ratio: Float[ndarray, " n"]


def relative_errors(estimated: Pose, true: Pose) -> RelativeErrors:
    """Errors of ``cam1_from_cam0``, batch shape (n,); a pose with NaN is a failure."""
    failed = ~estimated.is_finite()
    values = (
        rotation_error_deg(estimated, true),
        direction_error_deg(estimated.t, true.t, folded=True),
        translation_error(estimated, true),
        scale_ratio(estimated.t, true.t),
    )
    return RelativeErrors(*(torch.where(failed, torch.nan, value).cpu().numpy() for value in values))


def relative_summary(errors: RelativeErrors) -> dict[str, float]:
    """The numbers of the ScanNet protocol of map-free-reloc; failures are misses, not in medians."""
    pose = np.maximum(errors.rotation_deg, errors.direction_deg)
    summary = {
        "median rotation error (deg)": _nanmedian(errors.rotation_deg),
        "median direction error (deg, folded)": _nanmedian(errors.direction_deg),
        "median translation error (m)": _nanmedian(errors.translation_m),
        "failures": float(np.mean(np.isnan(errors.rotation_deg))) if len(pose) else float("nan"),
    }
    for title, values in (
        ("pose", pose),
        ("rotation", errors.rotation_deg),
        ("direction", errors.direction_deg),
    ):
        for threshold, area in zip(ANGLES_DEG, pose_error_auc(values, ANGLES_DEG), strict=True):
            summary[f"{title} error AUC@{threshold:g}deg"] = area
    for threshold, area in zip(METRES, pose_error_auc(errors.translation_m, METRES), strict=True):
        summary[f"translation error AUC@{threshold:g}m"] = area
    for metres, degrees in RECALLS:
        # NaN compares false: a failure is a miss
        hit = (errors.translation_m <= metres) & (errors.rotation_deg <= degrees)
        summary[f"recall ({metres:g} m, {degrees:g} deg)"] = float(np.mean(hit)) if len(hit) else float("nan")
    for k in (1, 2, 3):
        close = errors.scale_ratio < 1.25**k
        summary[f"A{k} (scale within 1.25^{k})"] = float(np.mean(close)) if len(close) else float("nan")
    return summary


def _nanmedian(values: ndarray) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")
