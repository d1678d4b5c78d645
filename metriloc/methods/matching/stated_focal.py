"""Focal lengths that matches with a map, or of two photos, speak for; and whether they contradict the stated ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import DenseMap
from metriloc.solvers.absolute import absolute_pose
from metriloc.solvers.absolute_focal import MIN_INLIERS, FocalFit, absolute_pose_and_focal
from metriloc.solvers.pinhole import pinhole_points
from metriloc.solvers.resection import projective_inliers
from metriloc.solvers.shared_focal import FocalFactor
from metriloc.types import View

MAX_SIGMA = 0.1
"""Relative; a focal length that is found less exactly (a wall seen from in front) is no better than a guess."""
_ERROR_PX, _CELLS = (
    6.0,
    0.75,
)  # inlier threshold of a photo whose longer side has 1024, and at least: matches are to cells
_SIGMAS, _SIGMAS_GIVEN = 3.0, 3.5
_FOCAL_GIVEN = 0.035  # relative
_SHARE_GIVEN = 0.05  # of the longer side, for the principal point
_SIGMAS_PAIR, _SHARE_PAIR = 4.0, 0.15
_MORE_FREE = (
    1.2  # times the matches of the stated camera; with right numbers, of 30 photos of four places, at most 1.05
)


@dataclass(frozen=True, eq=False)
class CellMatches:
    """Points of a map, their descriptors, and the cells of a photo that they chose."""

    descriptors: Float[Tensor, "n C"]
    dense: DenseMap
    cell: Float[Tensor, "n 2"]
    xyz: Float[Tensor, "n 3"]

    def pixels(self) -> Float[Tensor, "n 2"]:
        """Where they are in the photo; rounding to cells of 8 pixels would be most of the error."""
        return self.dense.to_pixels(between_cells(self.descriptors, self.dense, self.cell).double())

    def threshold(self, query: View) -> float:
        """Pixels that they may be off."""
        return max(_ERROR_PX * max(query.size) / 1024, _CELLS * max(self.dense.stride))


def focal_of_matches(query: View, matches: CellMatches, seed: int = 0) -> FocalFit | None:
    """Pose and focal length of a photo; None where its matches fix no focal length to ``MAX_SIGMA``."""
    threshold = matches.threshold(query)
    fit = absolute_pose_and_focal(matches.pixels(), matches.xyz, query.camera, threshold, seed)
    return None if fit is None or fit.sigma > MAX_SIGMA else fit


def contradiction_of_matches(query: View, matches: CellMatches, seed: int = 0) -> str | None:
    """``contradiction`` of a photo and its matches.

    Where these fix no focal length (of a photo that was cut far off the center no focal length alone is right), a camera
    whose numbers are all free must not explain many more of them.
    """
    fit = focal_of_matches(query, matches, seed)
    if fit is not None:
        return contradiction(query, fit)
    uv, threshold = matches.pixels(), matches.threshold(query) / 2  # tighter, other numbers show more clearly
    stated = int(absolute_pose(uv, matches.xyz, query.camera, threshold, seed).inliers.sum())
    points, defined, _ = pinhole_points(uv, query.camera)
    straight = torch.where(torch.from_numpy(defined)[:, None], torch.from_numpy(points), torch.nan)
    free = int(projective_inliers(straight, matches.xyz, threshold, seed).sum())
    if free < max(MIN_INLIERS, _MORE_FREE * stated):
        return None
    return (
        f"the map speaks for a camera of other numbers: of {len(uv)} points {free} agree with one that is free, "
        f"and {stated} with the stated one"
    )


def contradiction(query: View, fit: FocalFit | None) -> str | None:
    """What the map says against the camera of a photo, in words.

    A focal length from EXIF or a field of view is doubted from three standard deviations of both on. Numbers that were
    given are doubted from 3.5 of the map's and 3.5 % on, and their principal point from 5 % of the longer side on, where
    the matches leave no doubt about it. With 5 % for both, of 102 photos of four places, whole, halved, cut and of 256 px,
    with the right numbers none is; of 27 whole ones with a focal length, or all numbers, times 1.15, 1.3 or 0.8 each is.
    """
    if fit is None:
        return None
    found, stated = float(fit.camera.f.detach().mean()), float(query.camera.f.detach().mean())
    if query.focal_sigma > 0:
        doubted = _SIGMAS * math.hypot(fit.sigma, query.focal_sigma)
    else:
        doubted = max(_SIGMAS_GIVEN * fit.sigma, _FOCAL_GIVEN)
    if abs(math.log(found / stated)) > doubted:
        return f"the map speaks for a focal length of {found:.0f} px, not of {stated:.0f} px"
    apart = float((fit.camera.c - query.camera.c.double()).norm())
    if query.focal_sigma == 0 and apart > _SHARE_GIVEN * max(query.size):
        (x, y), (u, v) = fit.camera.c.tolist(), query.camera.c.tolist()
        return f"the map speaks for a principal point at {x:.0f} {y:.0f}, not at {u:.0f} {v:.0f}"
    return None


def pair_contradiction(views: tuple[View, View], found: FocalFactor | None) -> str | None:
    """What the matches of two photos say against their focal lengths, in words.

    Doubted from 15 % and four standard deviations on; the other focal length must explain the matches that much better, too.
    """
    if found is None:
        return None
    sigma = math.hypot(found.sigma, max(view.focal_sigma for view in views))
    clearly = abs(found.log_factor) > max(_SIGMAS_PAIR * sigma, _SHARE_PAIR) and found.gain > _SIGMAS_PAIR**2
    if not clearly:
        return None
    stated = [float(view.camera.f.mean()) for view in views]
    theirs = [f * math.exp(found.log_factor) for f in stated]
    if round(stated[0]) == round(stated[1]):
        return f"the matches speak for a focal length of {theirs[0]:.0f} px, not of {stated[0]:.0f} px"
    (f0, f1), (g0, g1) = theirs, stated
    return f"the matches speak for focal lengths of {f0:.0f} and {f1:.0f} px, not of {g0:.0f} and {g1:.0f} px"


def between_cells(
    descriptors: Float[Tensor, "n C"], dense: DenseMap, cell: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 2"]:
    """Where the similarity peaks near the best cell of each descriptor.

    A parabola through three cells in each axis.
    """
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
