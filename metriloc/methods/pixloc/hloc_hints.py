"""What hloc found out about a query, as PixLoc's ``Hints``: matches with the map, and likeness of global descriptors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io.hloc import LoggedQuery, MapIds
from metriloc.methods.pixloc.selection import Hints, MapMatches


def map_matches(logged: LoggedQuery, ids: MapIds) -> MapMatches:
    """Matches of a log by the indices of a map.

    Those with points or images that the map lacks are left out. The number of inliers stays the
    log's: it says how sure hloc was.
    """
    entries = [
        (ids.image_of[image], ids.point_of[point], inlier)
        for point, sources, inlier in zip(
            logged.point_ids.tolist(), logged.sources, logged.inlier.tolist(), strict=True
        )
        for image in sources
        if point in ids.point_of and image in ids.image_of
    ]
    images, points, inliers = zip(*entries, strict=True) if entries else ((), (), ())
    return MapMatches(
        torch.tensor(images, dtype=torch.long),
        torch.tensor(points, dtype=torch.long),
        torch.tensor(inliers, dtype=torch.bool),
        logged.num_inliers,
    )


def logged_references(logged: LoggedQuery, ids: MapIds, names: Sequence[str]) -> list[str]:
    """Names of the retrieved references that the map has, the best first. names: of the map's images."""
    return [names[ids.image_of[image]] for image in logged.references if image in ids.image_of]


def similarities(
    descriptors: Mapping[str, Float[Tensor, " D"]], query: str, references: Sequence[str]
) -> dict[str, float]:
    """Dot products of the query's global descriptor with those of references, by name; those without one are left out.

    Raises ValueError when the query has none.
    """
    if query not in descriptors:
        raise ValueError(f"there is no global descriptor of the query {query!r}")
    own = descriptors[query]
    return {name: float(own @ descriptors[name]) for name in references if name in descriptors}


def hints_of(logged: LoggedQuery | None, ids: MapIds | None, similarity: Mapping[str, float] | None = None) -> Hints:
    """Both in one; None leaves a part out."""
    matches = None if logged is None or ids is None else map_matches(logged, ids)
    return Hints(matches, similarity)
