"""Depth maps that do not belong to their photos: doubted in words, and trusted less."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from metriloc.methods.matching.metres import depth_error_of
from metriloc.methods.matching.pair import DEPTH_MAP, Fit, MatchedPair, SolvingConfig
from metriloc.solvers.depth_fit import DepthFit, depth_fit
from metriloc.solvers.scales import ScaleSource

_A_GUESS = 1.5  # standard deviation of the logarithm of a length that a map of something else tells: next to nothing


def misfits(pair: MatchedPair, essential: Fit, config: SolvingConfig) -> dict[str, DepthFit]:
    """What the depth maps say that do not fit, by the name of their source; the pose is one found without depths.

    Predicted depths are of the photo in any case; how they err, where they are bent, too, their calibration knows.
    """
    found: dict[str, DepthFit] = {}
    pose, i = essential.pose, essential.inliers
    if pose is None or config.depth_name != DEPTH_MAP:
        return found
    error, pixel_sigma = config.depth_error or depth_error_of(config.depth_name), config.max_error_px / 3
    uvs = pair.uv0[i], pair.uv1[i]
    for k, owner in enumerate(("reference", "query")):
        depth = pair.depth(k)
        if depth is None:
            continue
        sides = (pose, uvs, pair.cameras) if k == 0 else (pose.inverse(), uvs[::-1], pair.cameras[::-1])
        fit = depth_fit(sides[0], sides[1], depth[i], sides[2], error, pixel_sigma)
        if fit is not None and not fit.fits:
            found[f"{config.depth_name} of the {owner}"] = fit
    return found


def told(found: Mapping[str, DepthFit]) -> tuple[str, ...]:
    """One doubt for each map that does not fit."""
    return tuple(
        f"the {name} does not fit the photos: its depths scatter by {math.expm1(fit.scatter):.0%} around the "
        f"triangulated ones, with a rank correlation of {fit.order:.2f}"
        for name, fit in found.items()
    )


def sigma_of(found: Mapping[str, DepthFit]) -> float:
    """Standard deviation of the logarithm of a length from maps that do not fit: their scatter, at least a blind guess's."""
    return max(_A_GUESS, *(fit.scatter for fit in found.values()))


def widened(sources: Sequence[ScaleSource], found: Mapping[str, DepthFit]) -> list[ScaleSource]:
    """The same sources, those that do not fit as uncertain as their depths scatter, and at least as a blind guess: no number
    of points helps."""

    def doubted(source: ScaleSource) -> ScaleSource:
        own = sigma_of({source.name: found[source.name]})
        return dataclasses.replace(source, sigma=math.hypot(source.sigma, own))

    return [doubted(source) if source.name in found else source for source in sources]
