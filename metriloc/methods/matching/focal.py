"""The focal length of a photo that does not tell it, from the map that it is localised in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import DenseExtractor, DenseMap
from metriloc.methods.matching.localizer import LocalizingConfig, describe_points, nearest_cells
from metriloc.solvers.absolute_focal import FocalFit, absolute_pose_and_focal
from metriloc.types import SfmMap, View

MAX_SIGMA = 0.1
"""Relative; a focal length that is found less exactly (a wall seen from in front) is no better than a guess."""
_SIGMAS = 3.0
_CELLS = 0.75  # least inlier threshold


def with_estimated_focal(
    query: View, scene: SfmMap, references: Sequence[str], features: DenseExtractor, seed: int = 0
) -> View:
    """The photo with the focal length that its matches with the map speak for; as it was where they are too few.

    So with principal point and distortion where the photo must have been cut off the center or is bent. Its
    ``intrinsics_source`` then says so, and ``focal_sigma`` how exact the focal length is.
    """
    fit = _fit(query, scene, references, features, seed)
    if fit is None:
        return query
    focal, count = float(fit.camera.f.mean()), int(fit.inliers.sum())
    source = f"estimated {focal:.0f} px +- {max(1.0, fit.sigma * focal):.0f} from {count} points of the map"
    if fit.camera.model != query.camera.model:
        (x, y), k1 = fit.camera.c.tolist(), float(fit.camera.distortion[0])
        source += f", with the center at {x:.0f} {y:.0f} and k1 {k1:.3f}"
    return replace(
        query,
        camera=fit.camera.to(query.camera.dtype),
        intrinsics_source=source,
        focal_sigma=fit.sigma,
    )


def focal_contradiction(
    query: View, scene: SfmMap, references: Sequence[str], features: DenseExtractor, seed: int = 0
) -> str | None:
    """What the map says against the focal length of a photo, in words: more than three standard deviations of both."""
    fit = _fit(query, scene, references, features, seed)
    if fit is None:
        return None
    found, stated = float(fit.camera.f.mean()), float(query.camera.f.mean())
    if abs(math.log(found / stated)) <= _SIGMAS * math.hypot(fit.sigma, query.focal_sigma):
        return None
    return f"the map speaks for a focal length of {found:.0f} px, not of {stated:.0f} px"


def _fit(query: View, scene: SfmMap, references: Sequence[str], features: DenseExtractor, seed: int) -> FocalFit | None:
    config = LocalizingConfig()
    points, descriptors, _, used = describe_points(features, scene, references, config)
    if not used:
        return None
    dense = features.dense(query.image)
    cell, mutual = nearest_cells(descriptors, dense)
    # rounding to cells of 8 pixels would be most of the error
    uv = dense.to_pixels(between_cells(descriptors[mutual], dense, cell[mutual]).double())
    # cells, not photos, are what matches are exact to
    threshold = max(config.max_error_px * max(query.size) / 1024, _CELLS * max(dense.stride))
    fit = absolute_pose_and_focal(uv, scene.xyz[points[mutual]], query.camera, threshold, seed)
    return None if fit is None or fit.sigma > MAX_SIGMA else fit


def between_cells(
    descriptors: Float[Tensor, "n C"], dense: DenseMap, cell: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 2"]:
    """Where the similarity peaks near the best cell of each descriptor: a parabola through three cells in each axis."""
    size = torch.tensor(dense.size)
    center = cell.long().cpu()

    def similarity(step: Tensor) -> Float[Tensor, " n"]:
        x, y = (center + step).clamp(min=torch.zeros_like(size), max=size - 1).unbind(-1)
        return (descriptors * dense.descriptors[:, y, x].mT).sum(-1).cpu()

    best = similarity(torch.zeros(2, dtype=torch.long))
    found = cell.clone()
    for axis in range(2):
        step = torch.eye(2, dtype=torch.long)[axis]
        before, after = similarity(-step), similarity(step)
        bend = before - 2 * best + after
        inside = (center[:, axis] > 0) & (center[:, axis] < size[axis] - 1) & (bend < -1e-6)
        shift = torch.where(inside, 0.5 * (before - after) / bend.where(inside, -torch.ones_like(bend)), 0.0)
        found[:, axis] += shift.clamp(-0.5, 0.5)
    return found
