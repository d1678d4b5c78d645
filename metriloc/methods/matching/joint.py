"""Two photos with depths: one fit of rotation, direction and length, from every start that the matches allow.

Five-point consensus says which matches agree, PnP on lifted points where the depths are those of a sensor or where
nothing moves between the photos; ``joint_fit`` refines either with the depths of both photos as soft priors, and the
pose that explains the matches best is kept, the start itself among them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.methods.matching.metres import depth_error_of, depth_sources
from metriloc.methods.matching.pair import Fit, MatchedPair, SolvingConfig
from metriloc.solvers.joint import DepthError, JointConfig, JointFit, joint_fit
from metriloc.solvers.relative import RelativeFit, pnp_from_depth
from metriloc.solvers.scales import ScaleSource
from metriloc.solvers.two_view import sampson_errors, scale_from_depth, translation_observable

ONLY_TURNED = "the photos show no parallax: the cameras turned on the spot, as far as the matches can tell"
_SENSOR = 0.1  # depths whose scale errs by less are good enough to start from
_ROUNDS = 2
_ALL = 1e9
_WIDER = 2.0  # times the inlier threshold: matches the fit looks at
_MAX_MATCHES = 800
_STEPS = (0.5, 1.0, 2.0, 4.0)  # times the inlier threshold, over which support is summed


@dataclass(frozen=True, eq=False)
class Candidate:
    """A pose with its length in metres of the depths, its support, and what each photo says of the length."""

    pose: Pose
    support: float
    sources: tuple[ScaleSource, ...]


def fit_with_depths(
    pair: MatchedPair, found: RelativeFit, essential: Fit, config: SolvingConfig, seed: int
) -> tuple[Fit, tuple[ScaleSource, ...]] | None:
    """The pose that explains the matches best, and what the depths say of its length.

    found, essential: the five-point pose and the same judged. None where the depths know nothing at the matches. Where
    the cameras only turned, the pose has next to no translation, and ``doubts`` say so.
    """
    error = config.depth_error or depth_error_of(config.depth_name)
    depths = _known(pair, 0), _known(pair, 1)
    candidates: list[Candidate] = []
    if not found.t_observable:
        # without parallax free points would follow the noise and pretend to a way: hold them where the depths put them
        error = replace(error, votes=_ALL)
    for start in _starts(pair, found, essential, depths, error, config, seed):
        candidates += _refined(pair, start, depths, error, config)
    if not candidates:
        return None
    best = max(candidates, key=lambda c: c.support)
    fit = pair.judged(best.pose, config.max_error_px, pair.depth(0))
    i = fit.inliers
    still = int(i.sum()) > 0 and not translation_observable(best.pose, pair.uv0[i], pair.uv1[i], pair.cameras)
    told = f"the {config.depth_name} of the photos"
    return replace(fit, metric=True, scale_source=told, doubts=(ONLY_TURNED,) if still else ()), best.sources


def _known(pair: MatchedPair, k: int) -> Tensor:
    depth = pair.depth(k)
    return torch.zeros(len(pair.uv0)) if depth is None else depth


def _starts(
    pair: MatchedPair,
    found: RelativeFit,
    essential: Fit,
    depths: tuple[Tensor, Tensor],
    error: DepthError,
    config: SolvingConfig,
    seed: int,
) -> list[Pose]:
    """Poses in metres of the depths to start from."""
    starts: list[Pose] = []
    if essential.pose is not None and found.t_observable:
        i = essential.inliers
        scale = scale_from_depth(essential.pose, pair.uv0[i], depths[0][i], pair.uv1[i], pair.cameras, depths[1][i])
        if scale is not None:
            starts.append(Pose(essential.pose.R, essential.pose.t * scale.scale))
    elif essential.pose is not None:
        starts.append(Pose(essential.pose.R, torch.zeros_like(essential.pose.t)))
    trusted = error.scale <= _SENSOR or not starts or not found.t_observable
    if config.solver == "auto" and trusted and pair.view0.depth is not None:
        lifted = pnp_from_depth(pair.uv0, depths[0], pair.uv1, pair.cameras, 2 * config.max_error_px, seed)
        if lifted.pose is not None:
            starts.append(lifted.pose)
    return starts


def _refined(
    pair: MatchedPair, start: Pose, depths: tuple[Tensor, Tensor], error: DepthError, config: SolvingConfig
) -> list[Candidate]:
    """The start and what ``joint_fit`` makes of it; none when nothing can be fitted to it."""
    settings = JointConfig(error, pixel_sigma=config.max_error_px / 3)
    pose, fit = start, None
    for _ in range(_ROUNDS):
        near = _near(pair, pose, depths[0], _WIDER * config.max_error_px)
        uvs, chosen = (pair.uv0[near], pair.uv1[near]), (depths[0][near], depths[1][near])
        refined = joint_fit(pose, uvs, chosen, pair.cameras, settings)
        if not refined.ok:
            break
        pose, fit = refined.pose, refined
    if fit is None:
        return []
    name = config.depth_name
    poses = [candidate for candidate in (start, pose) if float(candidate.distance()) > 0 or candidate is pose]
    return [_candidate(pair, candidate, depths[0], fit, name, error, config) for candidate in poses]


def _candidate(
    pair: MatchedPair, pose: Pose, depth0: Tensor, fit: JointFit, name: str, error: DepthError, config: SolvingConfig
) -> Candidate:
    sources = depth_sources(fit, name, error)
    return Candidate(pose, _support(pair, pose, depth0, config.max_error_px), tuple(sources))


def _near(pair: MatchedPair, pose: Pose, depth0: Tensor, max_error: float) -> Bool[Tensor, " N"]:
    """Matches to fit to: those that agree about, thinned out evenly where they are very many."""
    near = pair.judged(pose, max_error, depth0).inliers.nonzero().squeeze(-1)
    if len(near) > _MAX_MATCHES:
        near = near[torch.linspace(0, len(near) - 1, _MAX_MATCHES).round().long()]
    mask = torch.zeros(len(pair.uv0), dtype=torch.bool)
    mask[near] = True
    return mask


def _support(pair: MatchedPair, pose: Pose, depth0: Float[Tensor, " N"], max_error: float) -> float:
    """Truncated quadratic score of the matches, summed over thresholds; a match may agree by its epipolar line, or by the
    place where its depth puts it."""
    squared, in_front = sampson_errors(pose, pair.uv0, pair.uv1, pair.cameras)
    squared = torch.where(in_front, squared, torch.inf)
    if float(pose.distance()) == 0:
        squared = torch.full_like(squared, torch.inf)
    seen, in_view = pair.view1.camera.project(pose.transform(pair.view0.camera.lift(pair.uv0, depth0)))
    apart = (seen - pair.uv1).square().sum(-1).double() / 4
    squared = torch.minimum(squared, torch.where(in_view & (depth0 > 0), apart, torch.inf))
    thresholds = max_error * squared.new_tensor(_STEPS)
    return float((1 - squared[:, None] / thresholds**2).clamp(min=0).sum())
