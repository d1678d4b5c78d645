"""Validation of a relative-pose method in training: the benchmark's own metrics on a fixed list of pairs, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.evaluation.curves import mapfree_auc
from metriloc.evaluation.errors import center_error, rotation_error_deg, translation_error, vcre
from metriloc.evaluation.mapfree import POSE_DEGREES, POSE_METRES
from metriloc.geometry import Camera, Pose, sample_depth
from metriloc.lessons.pair_pictures import Sides, drawable, pair_pictures, photo_and_depths
from metriloc.methods.mickey import MicKeyTraining
from metriloc.methods.mickey.keypoint_maps import MicKeyFeatures
from metriloc.methods.mickey.objective import Objective, Truth, keypoint_rewards
from metriloc.training import Picture, Validation
from metriloc.types import Pair, PoseEstimate

ACCEPTED = 0.1
"""A pose is right when its VCRE is below this share of the photo's diagonal (Map-free)."""


@dataclass(frozen=True, eq=False)
class PairValidation:
    """A ``Validator``. Runs the model on every pair, always in the same way.

    Metrics: loss, the mean pose loss of training; vcre_precision and vcre_auc at 10 % of the diagonal; pose_precision and
    pose_auc within 25 cm and 5 degrees, pose_auc_coarse within 50 cm and 10; median rotation (degrees) and translation
    (metres) errors, and of the identity pose beside them; where photos have depth, depth_log_error, mean ``|log z /
    z_true|`` at the keypoints (depth_constant: of the best constant depth).
    pictures: pairs that are drawn, where matplotlib is installed. original_size: (width, height) in whose pixels the loss
    is measured, None for the photos' own.
    """

    pairs: Sequence[Pair]
    pictures: int = 4
    original_size: tuple[int, int] | None = None

    def __call__(self, method: nn.Module) -> Validation:
        if not isinstance(method, MicKeyTraining):
            raise ValueError(f"PairValidation validates MicKeyTraining, got {type(method).__name__}")
        model = method.model()
        rows: list[tuple[float, ...]] = []
        logs: list[tuple[Tensor, Tensor]] = []
        pictures: list[Picture] = []
        for pair in self.pairs:
            sides = model.extract(pair.view0), model.extract(pair.view1)
            logs += [_log_ratios(found) for found in sides if found.view.depth is not None]
            estimate, found = model.relative_pose(*sides), self._judged(method, pair, sides)
            rows.append((*_errors(estimate, pair), float(found.pair_loss)))
            if len(rows) <= self.pictures and drawable():
                counts = sides[0].keypoints.score.shape[1], sides[1].keypoints.score.shape[1]
                first, second = keypoint_rewards(found, counts, method.config)
                pictures += [photo_and_depths(sides[0])] if pair.view0.depth is not None else []
                pictures += pair_pictures(sides, estimate, found, (first[0], second[0]))
        return Validation(_metrics(np.array(rows)) | _depth_metrics(logs), tuple(pictures))

    def _judged(self, method: MicKeyTraining, pair: Pair, sides: Sides) -> Objective:
        device = sides[0].keypoints.uv.device
        cameras = [Camera.stack([view.camera]).to(device) for view in (pair.view0, pair.view1)]
        original = cameras
        if self.original_size is not None:
            size = cameras[0].size.new_tensor(self.original_size)
            original = [camera.scale(size / camera.size) for camera in cameras]
        truth = Truth(Pose.stack([_true(pair).to(torch.float32)]).to(device), *original)
        return method.judge((sides[0].keypoints, sides[1].keypoints), (cameras[0], cameras[1]), truth)


def _true(pair: Pair) -> Pose:
    if pair.cam1_from_cam0 is None:
        raise ValueError(f"validation needs pairs with poses, {pair.view0.name!r} has none")
    return pair.cam1_from_cam0


def _metrics(rows: Float[np.ndarray, "n 8"]) -> dict[str, float]:
    share, degrees, metres, confidence, identity_metres, identity_share, center, loss = rows.T
    accepted = share < ACCEPTED
    right = (center < POSE_METRES) & (degrees < POSE_DEGREES)
    coarse = (center < 2 * POSE_METRES) & (degrees < 2 * POSE_DEGREES)
    return {
        "loss": float(loss.mean()),
        "vcre_precision": float(accepted.mean()),
        "vcre_auc": mapfree_auc(confidence, accepted),
        "pose_precision": float(right.mean()),
        "pose_auc": mapfree_auc(confidence, right),
        "pose_auc_coarse": mapfree_auc(confidence, coarse),
        "rotation_deg": _median(degrees),
        "translation_m": _median(metres),
        "identity_translation_m": float(np.median(identity_metres)),
        "identity_precision": float((identity_share < ACCEPTED).mean()),
    }


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _depth_metrics(logs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    if not logs:
        return {}
    ratio, truth = (torch.cat(parts) for parts in zip(*logs, strict=True))
    return {
        "depth_log_error": float(ratio.abs().mean()),
        "depth_constant": float((truth - truth.median()).abs().mean()),
    }


def _log_ratios(features: MicKeyFeatures) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """``log(z / z_true)`` and ``log z_true`` at the keypoints that have a true depth."""
    view, found = features.view, features.keypoints
    if view.depth is None:
        return torch.zeros(0), torch.zeros(0)
    true, known = sample_depth(view.depth, found.uv[0].cpu(), view.size)
    ratio = found.depth[0].cpu()[known].clamp(min=1e-3) / true[known]
    return ratio.log(), true[known].log()


def _errors(estimate: PoseEstimate, pair: Pair) -> tuple[float, ...]:
    """(VCRE over the diagonal, degrees, metres, confidence) of the estimate, (metres, VCRE) of the identity pose, and
    the distance of the estimated from the true camera center."""
    true, camera = _true(pair), pair.view1.camera
    diagonal = float(camera.size.norm())
    pose = estimate.pose.to(true.dtype)
    identity = type(true).identity(dtype=true.dtype)
    values = [vcre(p, true, camera.K, camera.size) / diagonal for p in (pose, identity)]
    own = [float(v) for v in (values[0], rotation_error_deg(pose, true), translation_error(pose, true))]
    center = float(center_error(pose, true))
    if not bool(estimate.success):
        own, center = [float("inf"), float("nan"), float("nan")], float("inf")
    confidence = float(estimate.confidence)
    return (*own, confidence, float(translation_error(identity, true)), float(values[1]), center)
