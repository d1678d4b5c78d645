"""From matched pixels to a metric pose: which solvers a matching baseline may use, and which answer wins.

Photos alone fix rotation and direction (essential matrix). Metres come from depths of either photo or a known distance;
without any the result says ``metric=False`` and why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.methods.matching.height import HABIT, height_source, words_on
from metriloc.methods.matching.joint import ONLY_TURNED, fit_with_depths
from metriloc.methods.matching.metres import DEPTHS, distance_source, in_metres
from metriloc.methods.matching.misfit import misfits, sigma_of, told, widened
from metriloc.methods.matching.pair import DEPTH_MAP, Fit, MatchedPair, Solver, SolvingConfig
from metriloc.solvers.relative import essential_pose, pnp_from_depth, rigid_from_depths
from metriloc.solvers.reprojection import PolishConfig, polish
from metriloc.solvers.scales import ScaleSource

__all__ = ["Fit", "MatchedPair", "Solver", "SolvingConfig", "fit_pair", "setup_of"]

_DEPTH_SIGMA = 0.05  # of the logarithm of a measured depth


def setup_of(pair: MatchedPair, solver: Solver, depth_id: str) -> str:
    """What calibrations call the way a pose is found.

    It is the solver, and the depths if there are any. A distance or a camera height changes the length alone, of which the
    result tells its own uncertainty.

    - pair: of two photos.
    - solver: its name.
    - depth_id: what the depths are of.
    """
    if not pair.has_depth:
        return f"solver {solver}, no depth"
    joint = " (joint fit)" if solver in ("auto", "essential") else ""
    return f"solver {solver}{joint}, {depth_id}"


def fit_pair(pair: MatchedPair, config: SolvingConfig, seed: int) -> Fit:
    """The best pose that matches and known lengths allow.

    - pair: matches of two photos, with what is known of the length, which has its say.
    - config: the solver and its settings.
    - seed: of its draws.
    """
    if config.solver in ("pnp", "rigid"):
        return _tested(pair, _from_depth_alone(pair, config, seed), config, seed)
    found = essential_pose(pair.uv0, pair.uv1, pair.cameras, config.max_error_px, seed)
    essential = pair.judged(found.pose, config.max_error_px)
    missing = "no depth map of the reference and no distance was given"
    sources: list[ScaleSource] = []
    fit, observable = essential, found.t_observable
    if pair.has_depth:
        metric = fit_with_depths(pair, found, essential, config, seed)
        missing = f"the {config.depth_name} of the reference knows no depth at the matched points"
        if metric is not None:
            observable = ONLY_TURNED not in metric[0].doubts
            comparable = observable and found.t_observable and config.distance is None
            fit, sources = _doubted(pair, essential, metric, config) if comparable else (metric[0], list(metric[1]))
    pose = fit.pose
    if pose is None:
        return fit
    if not observable and not fit.metric:
        degrees = math.degrees(float(pose.angle()))
        return dataclasses.replace(fit, reason="degenerate", messages=(f"{ONLY_TURNED}, by {degrees:.1f} degrees",))
    if config.distance is not None and observable:
        sources.append(distance_source(config.distance))
    if config.camera_height is not None and observable:
        height = height_source(pair, fit, config.camera_height, seed)
        said = words_on(height, config.camera_height, sources)
        missing = said[0] if said and not pair.has_depth else missing
        sources += [height] if height is not None and not said else []
        fit = dataclasses.replace(fit, messages=(*fit.messages, *said))
    if sources:
        return _measured(fit, pose, sources)
    return fit if fit.metric else dataclasses.replace(fit, scale_source=missing)


def _doubted(
    pair: MatchedPair, essential: Fit, metric: tuple[Fit, tuple[ScaleSource, ...]], config: SolvingConfig
) -> tuple[Fit, list[ScaleSource]]:
    """The fit with a doubt for each depth map that does not fit the matches, and what its depths are worth then."""
    found = misfits(pair, essential, config)
    fit = dataclasses.replace(metric[0], doubts=(*metric[0].doubts, *told(found)), misfit=bool(found))
    return fit, widened(metric[1], found)


def _measured(fit: Fit, pose: Pose, sources: Sequence[ScaleSource]) -> Fit:
    """The fit brought to the length that its sources give it.

    Of depths alone, and a habit, no standard deviation is told: what they are worth depends on the photos, and a
    calibration knows it;
    not so of depths that do not fit, which are unlike those that it was fitted on.
    """
    found, alone = in_metres(pose, sources), not fit.misfit and all(source.kin in (DEPTHS, HABIT) for source in sources)
    return dataclasses.replace(
        fit,
        pose=found.pose,
        metric=True,
        scale_source=found.sentence,
        scale_sigma=float("nan") if alone else found.sigma,
        sources=found.sources,
        doubts=(*fit.doubts, *found.doubts),
    )


def _from_depth_alone(pair: MatchedPair, config: SolvingConfig, seed: int) -> Fit:
    """PnP or 3D-3D; ValueError when a photo that the solver needs has no depth map."""
    depth0, depth1 = pair.depth(0), pair.depth(1)
    if depth0 is None or (config.solver == "rigid" and depth1 is None):
        missing = pair.view0 if depth0 is None else pair.view1
        raise ValueError(f"the solver {config.solver!r} needs a depth map of {missing.name!r}: choose a depth source")
    if config.solver == "pnp" or depth1 is None:
        found = pnp_from_depth(pair.uv0, depth0, pair.uv1, pair.cameras, 2 * config.max_error_px, seed)
        start = pair.judged(found.pose, config.max_error_px, depth0)
        polished = _polished(pair, start, depth0, config.max_error_px)
        best = polished if int(polished.inliers.sum()) >= int(start.inliers.sum()) else start
        return dataclasses.replace(best, metric=True, scale_source=f"the {config.depth_name} of the reference")
    found = rigid_from_depths(pair.uv0, depth0, pair.uv1, depth1, pair.cameras, config.rigid_error, seed)
    return Fit(found.pose, found.inliers, found.reason, True, f"the {config.depth_name}s of both photos")


def _tested(pair: MatchedPair, fit: Fit, config: SolvingConfig, seed: int) -> Fit:
    """The fit with a doubt for each depth map that does not fit what the matches say without depths.

    A pose that rests on depths cannot test them; where the photos alone fix none, nothing is said.
    """
    if fit.pose is None or config.depth_name != DEPTH_MAP:
        return fit
    found = essential_pose(pair.uv0, pair.uv1, pair.cameras, config.max_error_px, seed)
    if found.pose is None or not found.t_observable:
        return fit
    wrong = misfits(pair, pair.judged(found.pose, config.max_error_px), config)
    if not wrong:
        return fit
    return dataclasses.replace(fit, doubts=(*fit.doubts, *told(wrong)), misfit=True, scale_sigma=sigma_of(wrong))


def _polished(pair: MatchedPair, fit: Fit, depth0: Tensor, max_error: float) -> Fit:
    if fit.pose is None:
        return fit
    i = fit.inliers
    unknown = torch.zeros(int(i.sum()))
    config = PolishConfig(pixel_sigma=max_error / 2, log_depth_sigma=_DEPTH_SIGMA)
    refined = polish(fit.pose, pair.uv0[i], depth0[i], pair.uv1[i], unknown, pair.cameras, config)
    return pair.judged(refined.pose, max_error, depth0)
