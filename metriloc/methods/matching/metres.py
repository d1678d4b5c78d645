"""Metres: what each source says of the way between two cameras, fused, named, and doubted where sources contradict.

Matches fix a pose up to its length. Depths of either photo, a distance that is known, or a camera height each give the
length with an uncertainty of its own; ``fuse_scales`` weighs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from metriloc.geometry import Pose
from metriloc.solvers.joint import DepthError, JointFit
from metriloc.solvers.scales import ScaleSource, fuse_scales
from metriloc.types import MetresSource

DEPTH_ERRORS = {
    "depth map": DepthError(scale=0.03, correlation=0.5, tilt=0.03, shape=0.05, votes=400),
    "completed depth map": DepthError(scale=0.05, correlation=0.5, tilt=0.05, shape=0.17, votes=30),
    "predicted depth": DepthError(scale=0.35, correlation=0.6, tilt=0.45, shape=0.17, votes=30),
    "constant depth": DepthError(scale=0.7, correlation=0.9, tilt=1.0, shape=0.5, votes=10),
}
"""How depths err, by what they are called. Predicted: correlation, tilt and shape of metriloc-small on 80 pairs of NYUv2's
training half (``tools/depth_errors.py``), where the scale errs by 0.19; twice that outdoors. Completed: a coarse map that a
network has made fine, taken as a sensor's in scale and as predicted in shape; not measured."""
DEPTHS = "depths"
"""What sources that are depths have in common; see ``ScaleSource.kin``."""


def depth_error_of(name: str) -> DepthError:
    """By the name that results give the depths.

    As those of a sensor where nothing is known of them.
    """
    return DEPTH_ERRORS.get(name, DEPTH_ERRORS["depth map"])


@dataclass(frozen=True)
class Metres:
    """pose: brought to its length. sources: what each said of it. sentence: where the metres come from. sigma: standard
    deviation of the logarithm of the length. doubts: one for each contradiction."""

    pose: Pose
    sources: tuple[MetresSource, ...]
    sentence: str
    sigma: float
    doubts: tuple[str, ...]


def depth_sources(fit: JointFit, name: str, error: DepthError) -> list[ScaleSource]:
    """What the depths of each photo say of the length of ``fit.pose``.

    What the pixels leave open is the same for both, and so is much of what a network gets wrong.
    """
    length = float(fit.pose.distance())
    if length == 0 or not math.isfinite(fit.open_sigma):
        return []
    found = []
    for photo, owner in zip(fit.photos, ("reference", "query"), strict=True):
        if photo is not None:
            sigma = math.hypot(photo.sigma, fit.open_sigma)
            shared = (error.correlation * error.scale**2 + fit.open_sigma**2) / sigma**2
            log_length = math.log(length) + photo.log_scale
            found.append(ScaleSource(f"{name} of the {owner}", log_length, sigma, DEPTHS, min(shared, 0.999)))
    return found


def distance_source(metres: float) -> ScaleSource:
    """A distance that was given, which is taken as exact."""
    return ScaleSource(f"distance of {metres:g} m that was given", math.log(metres), 0.0)


def in_metres(pose: Pose, sources: Sequence[ScaleSource]) -> Metres:
    """The pose with the length that all sources together give it. Raises ValueError without a source."""
    fused = fuse_scales(sources)
    factor = math.exp(fused.log_length) / float(pose.distance())
    told = tuple(
        MetresSource(source.name, math.exp(source.log_length), source.sigma, share)
        for source, share in zip(sources, fused.shares, strict=True)
    )
    doubts = tuple(_contradiction(told, pair) for pair in fused.contradictions)
    return Metres(Pose(pose.R, pose.t * factor), told, sentence_of(told), fused.sigma, doubts)


def _contradiction(sources: Sequence[MetresSource], names: tuple[str, str]) -> str:
    one, other = (next(s for s in sources if s.name == name) for name in names)
    return f"the {one.name} says {one.metres:.3g} m and the {other.name} {other.metres:.3g} m: they contradict"


def sentence_of(sources: Sequence[MetresSource]) -> str:
    """Which sources gave the metres, with their shares where several did."""
    shares: dict[str, float] = {}
    for source in sources:
        shares[source.name] = shares.get(source.name, 0.0) + source.share
    for name in list(shares):
        base = name.removesuffix(" of the reference")
        if base != name and f"{base} of the query" in shares:
            shares[f"{base} of both photos"] = shares.pop(name) + shares.pop(f"{base} of the query")
    given = {name: share for name, share in shares.items() if share >= 0.005}
    if len(given) == 1:
        return f"the {next(iter(given))}"
    ordered = sorted(given.items(), key=lambda item: -item[1])
    return " and ".join(f"the {name} ({share:.0%})" for name, share in ordered)
