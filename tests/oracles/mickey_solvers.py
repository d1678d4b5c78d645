"""MicKey's keypoints with other solvers: mutual nearest neighbours, then PnP with depth, or robust 3D-3D alignment.

Deterministic alternatives to the probabilistic Procrustes, behind the same result type. The authors report PnP with the
top half of the keypoints close behind it.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from metriloc.methods.mickey.matching import scored_match_probabilities
from metriloc.methods.mickey.model import MicKey, MicKeyFeatures
from metriloc.methods.mickey.solver import SCALE_SOURCE
from metriloc.solvers.assignment import mutual_nearest
from metriloc.solvers.relative import RelativeFit, pnp_from_depth, rigid_from_depths
from metriloc.types import Correspondences, PairDetails, PoseEstimate


def nearest_matches(model: MicKey, features0: MicKeyFeatures, features1: MicKeyFeatures) -> Correspondences:
    """Keypoints that are each other's most probable match, by descending probability."""
    first, second = features0.keypoints, features1.keypoints
    config = model.network.config
    found = scored_match_probabilities(
        first.descriptor[0],
        second.descriptor[0],
        first.score[0],
        second.score[0],
        config.match_temperature,
        model.network.dustbin if config.use_dustbin else None,
    )
    rows, columns = mutual_nearest(found.values).unbind(-1)
    probability = found.values[rows, columns]
    order = probability.argsort(descending=True, stable=True)
    i, j = found.index0[rows[order]], found.index1[columns[order]]
    parts = (first.uv[0, i], second.uv[0, j], first.depth[0, i], second.depth[0, j], probability[order])
    return Correspondences(*(part.cpu() for part in parts))


def pnp_pose(
    model: MicKey, features0: MicKeyFeatures, features1: MicKeyFeatures, max_error_px: float = 10.0, seed: int = 0
) -> PoseEstimate:
    """Mutual nearest neighbours and PnP (poselib) with the depths of the reference.

    Confidence is the share of the matches that are inliers. max_error_px: reprojection error of an inlier; keypoints
    sit on a coarse grid, so it is not small. Fails with the reasons of ``pnp_from_depth``.
    """
    matches = nearest_matches(model, features0, features1)
    cameras = features0.view.camera, features1.view.camera
    fit = pnp_from_depth(matches.uv0, matches.depth0, matches.uv1, cameras, max_error_px, seed)
    return _estimate(fit, matches)


def rigid_pose(
    model: MicKey, features0: MicKeyFeatures, features1: MicKeyFeatures, relative_error: float = 0.1, seed: int = 0
) -> PoseEstimate:
    """Mutual nearest neighbours and robust 3D-3D alignment of both sets of metric keypoints.

    Confidence is the share of the matches that are inliers: within ``relative_error`` times their depth. Fails with the
    reasons of ``rigid_from_depths``.
    """
    matches = nearest_matches(model, features0, features1)
    cameras = features0.view.camera, features1.view.camera
    parts = (matches.uv0, matches.depth0, matches.uv1, matches.depth1)
    return _estimate(rigid_from_depths(*parts, cameras, relative_error, seed), matches)


def _estimate(fit: RelativeFit, matches: Correspondences) -> PoseEstimate:
    inliers = _chosen(matches, fit.inliers)
    statistics = {"inliers": float(len(inliers)), "inlier_ratio": len(inliers) / max(len(matches), 1)}
    details = PairDetails(float(len(inliers)), inliers, scale_source=SCALE_SOURCE, statistics=statistics)
    if fit.pose is None or fit.reason is not None:
        return PoseEstimate.failure(fit.reason or "degenerate", details)
    confidence = torch.tensor(len(inliers) / max(len(matches), 1))
    return PoseEstimate(fit.pose.to("cpu"), torch.tensor(True), confidence, (None,), (details,))


def _chosen(matches: Correspondences, mask: Bool[Tensor, " N"]) -> Correspondences:
    parts = (matches.uv0, matches.uv1, matches.depth0, matches.depth1, matches.probability)
    return Correspondences(*(part[mask] for part in parts))
