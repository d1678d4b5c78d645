"""The focal length of a photo from the map that it is localised in: where the photo tells none, or a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metriloc.methods.matching.cells import nearest_cells
from metriloc.methods.matching.localizer import LocalizingConfig, MatchingLocalizer
from metriloc.methods.matching.stated_focal import (
    CellMatches,
    contradiction,
    contradiction_of_matches,
    focal_of_matches,
)
from metriloc.types import SfmMap, View

_EXACT = 0.03  # relative standard deviation; what the first reference says alone is enough


def with_estimated_focal(
    query: View, scene: SfmMap, references: Sequence[str], matching: MatchingLocalizer, seed: int = 0
) -> View:
    """The photo with the focal length that its matches with the map speak for; as it was where they are too few.

    matching: whose features, and those kept of the map, are compared.

    So with principal point and distortion where the photo must have been cut off the center or is bent. Its
    ``intrinsics_source`` then says so, and ``focal_sigma`` how exact the focal length is.
    """
    matches = _matches(query, scene, references, matching)
    fit = None if matches is None else focal_of_matches(query, matches, seed)
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
    query: View, scene: SfmMap, references: Sequence[str], matching: MatchingLocalizer, seed: int = 0
) -> str | None:
    """What the map says against the camera of a photo, in words (``contradiction``).

    The first reference is asked alone, because that costs a third; the others where it says too little, or contradicts.
    """
    matches = _matches(query, scene, references[:1], matching)
    fit = None if matches is None else focal_of_matches(query, matches, seed)
    if fit is not None and fit.sigma <= _EXACT and contradiction(query, fit) is None:
        return None
    matches = _matches(query, scene, references, matching)
    return None if matches is None else contradiction_of_matches(query, matches, seed)


def _matches(query: View, scene: SfmMap, references: Sequence[str], matching: MatchingLocalizer) -> CellMatches | None:
    """The mutual matches; None without a usable reference."""
    # also in a map of one photo
    tracks = int(scene.track_lengths().max()) if len(scene.point_index) else 1
    matching = matching.with_settings(LocalizingConfig(min_track=min(LocalizingConfig().min_track, tracks)))
    points, descriptors, _, used = matching.describe_points(scene, references)
    if not used:
        return None
    dense = matching.features.dense(query.image)
    descriptors = descriptors.to(dense.descriptors)
    cell, mutual = nearest_cells(descriptors, dense)
    return CellMatches(descriptors[mutual], dense, cell[mutual], scene.xyz[points[mutual]])
