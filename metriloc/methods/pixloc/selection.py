"""Which references, which points and which first pose: what is decided about a query before any image is aligned.

Covisibility, ranking by the inliers of a matching pipeline, and poses averaged by the similarity of global descriptors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Pose, matrix_from_quaternion
from metriloc.types import SfmMap


@dataclass(frozen=True, eq=False)
class MapMatches:
    """Matches of a query's keypoints with the map. A matching pipeline (hloc) leaves them so.

    One entry for every image of the map that a match came from: image_index, point_index, and whether the match is an
    inlier of that pipeline's pose. num_inliers: matches (not entries) that are.
    """

    image_index: Int[Tensor, " E"]
    point_index: Int[Tensor, " E"]
    inlier: Bool[Tensor, " E"]
    num_inliers: int

    def __post_init__(self) -> None:
        if not (self.image_index.shape == self.point_index.shape == self.inlier.shape) or self.inlier.ndim != 1:
            raise ValueError(
                f"MapMatches: {list(self.image_index.shape)} images, {list(self.point_index.shape)} points, "
                f"{list(self.inlier.shape)} inliers"
            )

    def inliers_of(self, image: int) -> int:
        """How many inliers come from an image of the map."""
        return int(((self.image_index == image) & self.inlier).sum())


@dataclass(frozen=True, eq=False)
class Hints:
    """What other tools know of a query. matches: with the map. similarity: dot products of global descriptors with
    those of references, by name; references without one count as 1."""

    matches: MapMatches | None = None
    similarity: Mapping[str, float] | None = None


def rank_by_inliers(images: Sequence[int], matches: MapMatches, more_than: int) -> list[int]:
    """Images with more than so many inliers, the most first (ties keep their order)."""
    counts = {image: matches.inliers_of(image) for image in images}
    return sorted((image for image in images if counts[image] > more_than), key=lambda image: -counts[image])


def largest_covisible(scene: SfmMap, images: Sequence[int]) -> list[int]:
    """The largest group of images that share points, directly or through others of the group, in the given order.

    Of equally large groups the one that comes first. (The published code loses the order of retrieval here.)
    """
    parent = list(range(len(images)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    owner = torch.full((len(scene.xyz),), -1)
    for i, image in enumerate(images):
        points = scene.point_index[scene.observations_of(image)]
        for other in owner[points].unique().tolist():
            if other >= 0:
                parent[root(i)] = root(other)
        owner[points] = i
    groups: dict[int, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(root(i), []).append(image)
    return max(groups.values(), key=len, default=[])


def select_points(
    scene: SfmMap, image: int, min_track: int, matches: MapMatches | None = None, only_inliers: bool = True
) -> Int[Tensor, " n"]:
    """Sorted points of an image that at least ``min_track`` observations support.

    All that it observes, or those that the query was matched to through it.
    """
    if matches is None:
        points = scene.point_index[scene.observations_of(image)]
    else:
        chosen = matches.image_index == image
        points = matches.point_index[chosen & matches.inlier if only_inliers else chosen]
    points = points.unique()
    return points[scene.track_lengths()[points] >= min_track]


def weighted_pose(cam_from_world: Pose, weights: Float[Tensor, " n"]) -> Pose:
    """A mean of poses.

    The weighted mean of camera centres, and the rotation whose quaternion is the principal axis of
    ``sum w q q^T``. Raises ValueError for weights that do not sum to something positive.
    """
    if cam_from_world.shape != weights.shape or not bool(weights.sum() > 0):
        raise ValueError(
            f"{list(cam_from_world.shape)} poses need as many weights of positive sum, got {weights.tolist()}"
        )
    weights = (weights / weights.sum()).to(cam_from_world.t)
    center = (weights[:, None] * cam_from_world.center()).sum(0)
    q = cam_from_world.inverse().quaternion()
    _, axes = torch.linalg.eigh((q * weights[:, None]).mT @ q)
    R = matrix_from_quaternion(axes[:, -1]).mT
    return Pose(R, -R @ center)


def similarity_weights(similarity: Float[Tensor, " n"], power: float = 8.0) -> Float[Tensor, " n"]:
    """Weights of references from the dot products of their global descriptors with the query's: ``s^8``, sum 1."""
    weights = similarity.clamp(min=0) ** power
    total = weights.sum()
    return weights / total if bool(total > 0) else torch.full_like(weights, 1 / max(1, len(weights)))
