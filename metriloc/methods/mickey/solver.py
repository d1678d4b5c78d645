"""MicKey's probabilistic Procrustes at test time: draw matches, fit minimal sets, score, refine the best.

Paper Sec. 3.1 and Eqs. (4)-(6). Per pair, in float32, without gradients. ``solve`` draws, ``solve_given_samples`` does
everything after the draws and is deterministic.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import Pose
from metriloc.methods.mickey.matching import MatchProbabilities
from metriloc.solvers.consensus import best_hypothesis, residuals, soft_inliers
from metriloc.solvers.draws import draw_minimal_sets, draw_without_replacement, more_positive_than
from metriloc.solvers.procrustes import RigidFit, kabsch
from metriloc.types import FailureReason, WinningHypothesis

SCALE_SOURCE = "depths that MicKey predicted for the matched keypoints"
"""Where metres of MicKey come from, as results say it."""


@dataclass(frozen=True)
class SolverConfig:
    """Settings of the probabilistic Procrustes; defaults are the published ones."""

    num_sets: int = 20
    """Q: sets of matches that are drawn."""
    num_hypotheses: int = 100
    """J: minimal sets of a set."""
    set_size: int = 2048
    """S: matches of a set."""
    minimal_size: int = 3
    """n: matches of a minimal set."""
    max_refinements: int = 4
    """Refits on the inliers."""
    inlier_threshold: float = 0.15
    """Metres, for refinement, confidence and inlier list."""
    soft_inlier_threshold: float = 0.3
    """Metres, for choosing the best."""
    keep_best_refit: bool = False
    """Return the pose with the most inliers instead of the last refit; off as published."""
    threshold_depth: float | None = None
    """The median depth, metres, at which the thresholds hold; with any other they grow or shrink in
    proportion, as errors of predicted depth do; None for thresholds that stay as they are, as
    published."""

    def __post_init__(self) -> None:
        require_within(self, num_sets=(1, 10_000), num_hypotheses=(1, 10_000), set_size=(3, 1_000_000))
        require_within(self, max_refinements=(0, 1000), minimal_size=(3, 1_000_000))
        if not 3 <= self.minimal_size <= self.set_size:
            raise ValueError(f"minimal_size must be in 3..set_size {self.set_size}, got {self.minimal_size}")
        metres = (1e-9, 1e6)
        require_within(self, inlier_threshold=metres, soft_inlier_threshold=metres, threshold_depth=metres)


@dataclass(frozen=True, eq=False)
class DrawnMatches:
    """Sets of matches that were drawn, [Q, S].

    Keypoint indices, match probabilities and points in camera frames.
    """

    index0: Int[Tensor, "Q S"]
    index1: Int[Tensor, "Q S"]
    probability: Float[Tensor, "Q S"]
    xyz0: Float[Tensor, "Q S 3"]
    xyz1: Float[Tensor, "Q S 3"]


@dataclass(frozen=True, eq=False)
class Solution:
    """What the solver found for one pair.

    pose: ``1_from_0`` in metres. score: soft inliers of the pose in its set, 0..S. inlier0, inlier1: keypoint indices of
    the matches within the inlier threshold, most probable first, with their ``probability``. reason: None on success;
    then ``pose`` and ``hypothesis`` are there. counts: inliers seen at each step of the refinement.
    """

    reason: FailureReason | None
    pose: Pose | None = None
    score: float = 0.0
    confidence: float = 0.0
    inlier0: Int[Tensor, " M"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    inlier1: Int[Tensor, " M"] = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    probability: Float[Tensor, " M"] = field(default_factory=lambda: torch.zeros(0))
    hypothesis: WinningHypothesis | None = None
    counts: tuple[int, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def solve(
    matches: MatchProbabilities,
    xyz0: Float[Tensor, "N0 3"],
    xyz1: Float[Tensor, "N1 3"],
    config: SolverConfig,
    generator: torch.Generator,
) -> Solution:
    """The pose of one pair from match probabilities and metric keypoints (any numbers of them).

    Matches with a keypoint or probability that is not finite are left out. Fails with ``non_finite`` when that leaves
    nothing, ``too_few_matches`` when fewer than a minimal set are possible, ``degenerate`` when no minimal set fixes a
    pose. generator: on the device of the inputs; the only source of chance.
    Raises ValueError for probabilities that do not belong to their indices and for points that are not [N, 3].
    """
    if matches.values.shape != (len(matches.index0), len(matches.index1)):
        raise ValueError(
            f"match probabilities {list(matches.values.shape)} do not belong to "
            f"{len(matches.index0)} and {len(matches.index1)} keypoints"
        )
    if xyz0.shape[1:] != (3,) or xyz1.shape[1:] != (3,):
        raise ValueError(f"points must have shape [N, 3], got {list(xyz0.shape)} and {list(xyz1.shape)}")
    start = time.perf_counter()
    values, reason = usable_matches(matches, xyz0, xyz1, config.minimal_size)
    if reason is not None:
        return Solution(reason)
    flat = draw_without_replacement(values.flatten(), config.set_size, config.num_sets, generator)
    row = torch.div(flat, values.shape[1], rounding_mode="floor")
    index0, index1 = matches.index0[row], matches.index1[flat - row * values.shape[1]]
    drawn = DrawnMatches(index0, index1, values.flatten()[flat], xyz0[index0], xyz1[index1])
    minimal = draw_minimal_sets(drawn.probability, config.num_hypotheses, config.minimal_size, generator)
    sampled = time.perf_counter()
    solution = solve_given_samples(drawn, minimal, config)
    solution.timings.update(sample=sampled - start, fit_and_score=time.perf_counter() - sampled)
    return solution


@torch.no_grad()
def solve_given_samples(drawn: DrawnMatches, minimal: Int[Tensor, "Q J n"], config: SolverConfig) -> Solution:
    """Everything after the draws: minimal fits, Eq. (4).

    Scores, Eq. (5); refinement, Eq. (6); confidence. Differs from the paper: three thresholds
    instead of one (0.3 m to choose, 0.15 m to refine and for the confidence).
    """
    unit = threshold_unit(drawn.xyz0, drawn.xyz1, config)
    drawn = replace(drawn, xyz0=drawn.xyz0 / unit, xyz1=drawn.xyz1 / unit)
    fits = fit_minimal_sets(drawn, minimal)
    usable = fits.rank_ok & fits.pose.is_finite()
    best = best_hypothesis(fits.pose, usable, drawn.xyz0, drawn.xyz1, config.soft_inlier_threshold)
    if best is None:
        return Solution("degenerate")
    q, j = best
    xyz0, xyz1 = drawn.xyz0[q], drawn.xyz1[q]
    start = fits.pose[q, j]
    pose, counts = refine(start, xyz0, xyz1, config)
    residual = residuals(pose, xyz0, xyz1)
    score = float(soft_inliers(residual, config.inlier_threshold))
    inliers = (residual <= config.inlier_threshold).nonzero().squeeze(-1)
    inliers = inliers[drawn.probability[q, inliers].argsort(descending=True, stable=True)]
    pose, start = (Pose(found.R, found.t * unit[q, 0]) for found in (pose, start))
    return Solution(
        None,
        pose,
        score,
        score / config.set_size,
        drawn.index0[q, inliers],
        drawn.index1[q, inliers],
        drawn.probability[q, inliers],
        WinningHypothesis(q, j, minimal[q, j], start, len(counts) - 1),
        counts,
    )


def threshold_unit(
    xyz0: Float[Tensor, "*b S 3"], xyz1: Float[Tensor, "*b S 3"], config: SolverConfig
) -> Float[Tensor, "*b 1 1"]:
    """Length in metres that stands for one metre of the thresholds.

    1, or the median depth over ``threshold_depth``. The median is that of both sets of points, of
    those in front of their cameras (1 where there are none). No gradient.
    """
    depth = torch.cat([xyz0[..., 2], xyz1[..., 2]], -1).detach()
    if config.threshold_depth is None:
        return torch.ones_like(depth[..., :1, None])
    median = depth.where(depth > 0, torch.nan).nanmedian(-1, keepdim=True).values
    return (median / config.threshold_depth).nan_to_num(nan=1.0)[..., None]


def fit_minimal_sets(drawn: DrawnMatches, minimal: Int[Tensor, "Q J n"]) -> RigidFit:
    """One pose a minimal set [Q, J], paper Eq. (4)."""
    index = minimal.flatten(1)[..., None].expand(-1, -1, 3)
    shape = (*minimal.shape, 3)
    return kabsch(drawn.xyz0.gather(1, index).reshape(shape), drawn.xyz1.gather(1, index).reshape(shape))


def refine(
    pose: Pose, xyz0: Float[Tensor, "S 3"], xyz1: Float[Tensor, "S 3"], config: SolverConfig
) -> tuple[Pose, tuple[int, ...]]:
    """Refit on the inliers while their number grows, paper Eq. (6).

    Also the numbers of inliers seen. As published, the last refit is returned although it may have
    lost inliers (``keep_best_refit`` returns the pose with the most), and the first count must
    exceed the size of the minimal set. A refit that is degenerate (inliers on a line) is not taken.
    """
    previous = config.minimal_size
    seen: list[tuple[int, Pose]] = []
    while True:
        inlier = residuals(pose, xyz0, xyz1) <= config.inlier_threshold
        count = int(inlier.sum())
        seen.append((count, pose))
        if count <= previous or len(seen) > config.max_refinements:
            break
        fit = kabsch(xyz0, xyz1, inlier.to(xyz0))
        if not bool(fit.rank_ok):
            break
        pose, previous = fit.pose, count
    if config.keep_best_refit:
        pose = max(seen, key=lambda step: step[0])[1]
    return pose, tuple(count for count, _ in seen)


def usable_matches(
    matches: MatchProbabilities, xyz0: Tensor, xyz1: Tensor, minimal_size: int
) -> tuple[Tensor, FailureReason | None]:
    """Match probabilities with 0 for what cannot be used, and why there is no solving, if so."""
    finite0 = torch.isfinite(xyz0[matches.index0]).all(-1)
    finite1 = torch.isfinite(xyz1[matches.index1]).all(-1)
    values = matches.values
    finite = torch.isfinite(values.sum()) and bool(finite0.all()) and bool(finite1.all())
    if not finite:
        keep = torch.isfinite(values) & finite0[:, None] & finite1[None]
        values = torch.where(keep, values, torch.zeros_like(values))
    if not more_positive_than(values, minimal_size - 1):
        return values, "too_few_matches" if finite else "non_finite"
    return values, None
