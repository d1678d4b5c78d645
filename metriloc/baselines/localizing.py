"""Matching + PnP in a map: the peer of NRE and PixLoc on the same features, photos and points.

Each point of the map that a reference sees takes the descriptor at its observation there, chooses the most similar cell
of the query, and poselib's LO-RANSAC finds the pose. Unlike NRE, which keeps the whole distribution, one match a point
is all that counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.backbones.local import DenseExtractor, DenseMap
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.maps import load_map_view, pixels_in
from metriloc.solvers.absolute import absolute_pose
from metriloc.types import LocalizationDetails, PoseEstimate, SfmMap, Stage, View

_CHUNK = 1 << 25  # similarities in memory at once


@dataclass(frozen=True)
class LocalizingConfig:
    """max_error_px: inlier threshold, pixels of a query whose longer side has 1024 (it grows with the photo). mutual:
    a cell must choose its point back. max_points: of a query, evenly spread when there are more. min_inliers: fewer are
    no pose. min_track: points seen by fewer images are left out."""

    max_error_px: float = 6.0
    mutual: bool = True
    max_points: int = 4000
    min_inliers: int = 12
    min_track: int = 2


class MatchingLocalizer:
    """Dense features, one match a point, poselib: an ``AbsolutePoseMethod``."""

    def __init__(self, features: DenseExtractor, weights_id: str, config: LocalizingConfig | None = None) -> None:
        self.features, self.weights_id = features, weights_id
        self.config = config or LocalizingConfig()
        self.name = f"{features.name}-pnp"

    def localize(
        self, query: View, scene: SfmMap, references: Sequence[str], init: Pose | None = None, *, seed: int = 0
    ) -> PoseEstimate:
        """``cam_from_world`` of the query, batch shape (). ``init`` is not needed and not used.

        Fails with ``no_reference`` when no reference can be read, ``too_few_points`` below four points,
        ``too_few_matches`` below ``min_inliers``. Raises ValueError for a name that the map does not have.
        """
        start = time.perf_counter()
        points, descriptors, messages, used = describe_points(self.features, scene, references, self.config)
        details = LocalizationDetails(tuple(used), len(points), messages=tuple(messages))
        if not used:
            return PoseEstimate.failure("no_reference", details)
        if len(points) < 4:
            return PoseEstimate.failure("too_few_points", details)
        described = time.perf_counter()
        dense = self.features.dense(query.image)
        index, cell = best_cells(descriptors, dense, self.config.mutual)
        uv = dense.to_pixels(cell.double())
        xyz = scene.xyz[points[index]]
        found = absolute_pose(uv, xyz, query.camera, self.config.max_error_px * max(query.size) / 1024, seed)
        timings = {"references": described - start, "query": time.perf_counter() - described}
        inliers = int(found.inliers.sum())
        statistics = {"inliers": float(inliers), "inlier_ratio": inliers / max(len(index), 1)}
        stages = () if found.pose is None else (Stage("pnp", found.pose, -float(inliers), statistics["inlier_ratio"]),)
        details = LocalizationDetails(tuple(used), len(index), stages, timings, tuple(messages), statistics)
        if found.pose is None or inliers < self.config.min_inliers:
            return PoseEstimate.failure(found.reason or "too_few_matches", details)
        confidence = torch.tensor(inliers / (inliers + 50.0))
        return PoseEstimate(found.pose, torch.tensor(True), confidence, (None,), localization=(details,))


def describe_points(
    features: DenseExtractor, scene: SfmMap, references: Sequence[str], config: LocalizingConfig
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n C"], list[str], list[str]]:
    """Points that the references see (each once, described by the best reference that does), their descriptors, what went
    wrong with a reference, and the references that were used. Raises ValueError for a name the map does not have."""
    points, descriptors, messages, used = [], [], [], []
    for image, seen in scene.assign_points([scene.index(name) for name in references], config.min_track):
        try:
            view = load_map_view(scene, image)
        except InputError as error:
            messages.append(str(error))
            continue
        points.append(scene.point_index[seen])
        descriptors.append(descriptors_at(features.dense(view.image), pixels_in(view, scene, image, scene.uv[seen])))
        used.append(scene.names[image])
    if not points:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, 0), messages, used
    joined, described = torch.cat(points), torch.cat(descriptors)
    if len(joined) > config.max_points:
        even = torch.linspace(0, len(joined) - 1, config.max_points).round().long()
        joined, described = joined[even], described[even]
    return joined, described, messages, used


def descriptors_at(dense: DenseMap, uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n C"]:
    """Descriptors between cells, bilinear, of unit length; the border's beyond it."""
    w, h = dense.size
    cells = dense.to_cells(uv.to(dense.descriptors))
    grid = (2 * cells + 1) / cells.new_tensor([w, h]) - 1
    found = F.grid_sample(dense.descriptors[None], grid[None, None], "bilinear", "border", align_corners=False)
    return F.normalize(found[0, :, 0].mT, dim=-1)


def best_cells(
    descriptors: Float[Tensor, "n C"], dense: DenseMap, mutual: bool
) -> tuple[Int[Tensor, " m"], Float[Tensor, "m 2"]]:
    """(which descriptor, its cell (x, y)): the most similar cell of each; mutual: only where it chooses it back."""
    cells = dense.descriptors.flatten(1)
    w, _ = dense.size
    best = torch.full((cells.shape[1],), -2.0, device=cells.device)
    owner = torch.full((cells.shape[1],), -1, device=cells.device)
    choices = []
    chunk = max(1, _CHUNK // cells.shape[1])
    for begin in range(0, len(descriptors), chunk):
        similarity = descriptors[begin : begin + chunk] @ cells
        choices.append(similarity.argmax(1))
        column, row = similarity.max(0)
        better = column > best
        best = torch.where(better, column, best)
        owner = torch.where(better, row + begin, owner)
    choice = torch.cat(choices)
    index = torch.arange(len(descriptors), device=cells.device)
    if mutual:
        index = index[owner[choice] == index]
    chosen = choice[index]
    cell = torch.stack([chosen % w, chosen // w], -1).float()
    return index.cpu(), cell.cpu()
