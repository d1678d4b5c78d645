"""MicKey's training objective: the expected loss of the probabilistic Procrustes, and its gradient as one scalar.

Paper Sec. 3.1, Eqs. (6) and (8)-(11). The same draws, fits, residuals and soft inliers as at test time, but every
hypothesis is refined, scored and compared with the true pose. What the draws depend on (descriptors, keypoint scores)
learns by REINFORCE; points and depths learn directly through Kabsch, scores and losses. Both gradients come from one
``backward`` of one scalar whose value is the expected loss.

Axes: B pairs, Q sets of matches a pair, S matches a set, J hypotheses a set, n matches a minimal set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.methods.mickey.curriculum import select_pairs
from metriloc.methods.mickey.hypotheses import Hypotheses, RefinementSet, make_hypotheses
from metriloc.methods.mickey.keypoint_maps import Keypoints
from metriloc.methods.mickey.log_probability import log_match_probability
from metriloc.methods.mickey.loss import PoseLossConfig, hypothesis_loss, rotation_error, translation_error
from metriloc.methods.mickey.matching import scored_match_probabilities
from metriloc.methods.mickey.solver import SolverConfig, usable_matches
from metriloc.solvers.draws import draw_minimal_sets, draw_without_replacement

ReinforceScale = Literal["sum", "mean"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """Settings of the objective; defaults are the published code's."""

    solver: SolverConfig = SolverConfig(num_hypotheses=20, set_size=512, minimal_size=8)  # noqa: RUF009 - frozen
    """Numbers and thresholds (20 sets of 512 matches, 20 hypotheses of 8 matches)."""
    loss: PoseLossConfig = PoseLossConfig()  # noqa: RUF009 - frozen
    """Of a pose."""
    null_hypothesis: bool = True
    """Add one of the fixed loss ``loss.worst`` and the fixed score ``null_score`` times S."""
    null_score: float = 0.35
    """Score of the null hypothesis, as a share of the matches of a set."""
    score_temperature: float = 20.0
    """Of the softmax over hypotheses."""
    refinement_set: RefinementSet = "lagging"
    """Matches of the last fit: ``lagging``, whose fit gave the most inliers, or ``last``, these."""
    reinforce: ReinforceScale = "sum"
    """Gradient of the draws summed over pairs, or their ``mean`` as the direct gradient is."""
    baseline: bool = True
    """Subtract the pair's mean loss (Eq. (11)), else none (Eq. (10))."""

    def __post_init__(self) -> None:
        for name, known in (("refinement_set", RefinementSet), ("reinforce", ReinforceScale)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"ObjectiveConfig.{name} must be one of {', '.join(get_args(known))}")
        for name in ("null_score", "score_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ObjectiveConfig.{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Truth:
    """What the hypotheses are compared with: true poses, and the cameras whose pixels the VCRE is measured in."""

    cam1_from_cam0: Pose
    camera0: Camera
    camera1: Camera


@dataclass(frozen=True, eq=False)
class Draws:
    """What was drawn. index0, index1: keypoints of the matches; present: False where fewer than S were possible;
    minimal: places in the set; usable: False for a pair with fewer matches than a minimal set (all else arbitrary)."""

    index0: Int[Tensor, "B Q S"]
    index1: Int[Tensor, "B Q S"]
    present: Bool[Tensor, "B Q S"]
    minimal: Int[Tensor, "B Q J n"]
    usable: Bool[Tensor, " B"]


@dataclass(frozen=True, eq=False)
class Objective:
    """loss: the scalar to differentiate, its value the mean ``pair_loss`` of the ``chosen`` pairs. set_loss: expected
    loss of each set; weight: of each hypothesis in its set (the rest to 1 is the null hypothesis). rotation_error (radians),
    translation_error (L1, metres): expected errors over all pairs, without the null hypothesis, for the log. draws: what
    all of it is about."""

    loss: Float[Tensor, ""]
    pair_loss: Float[Tensor, " B"]
    chosen: Bool[Tensor, " B"]
    set_loss: Float[Tensor, "B Q"]
    hypothesis_loss: Float[Tensor, "B Q J"]
    weight: Float[Tensor, "B Q J"]
    rotation_error: Float[Tensor, ""]
    translation_error: Float[Tensor, ""]
    hypotheses: Hypotheses
    draws: Draws


@dataclass(frozen=True, eq=False)
class PairFeatures:
    """What the network says of B pairs: keypoints, their points in camera frames (metres), and the matcher's settings."""

    first: Keypoints
    second: Keypoints
    xyz0: Float[Tensor, "B N0 3"]
    xyz1: Float[Tensor, "B N1 3"]
    temperature: float
    dustbin: Float[Tensor, ""] | None

    @classmethod
    def lifted(
        cls,
        first: Keypoints,
        second: Keypoints,
        cameras: tuple[Camera, Camera],
        temperature: float,
        dustbin: Tensor | None,
    ) -> PairFeatures:
        """From keypoints and the cameras [B] of the photos they were found in.

        A keypoint that is not finite becomes a NaN point without gradient (0 times NaN would reach all others).
        """
        xyz = []
        for side, camera in ((first, cameras[0]), (second, cameras[1])):
            finite = torch.isfinite(side.depth) & torch.isfinite(side.uv).all(-1)
            points = camera.lift(side.uv.where(finite[..., None], 0.0), side.depth.where(finite, 0.0))
            xyz.append(points.where(finite[..., None], torch.nan))
        xyz0, xyz1 = xyz
        return cls(first, second, xyz0, xyz1, temperature, dustbin)


def objective(
    features: PairFeatures,
    truth: Truth,
    config: ObjectiveConfig,
    generator: torch.Generator,
    percent: float | None = None,
) -> Objective:
    """Draw, then everything else. percent: of the pairs to learn from (the easiest), None for all.

    generator: on the device of the features. A pair from which nothing can be drawn, or whose network output is not
    finite, is left out; when that leaves none the loss is zero with zero gradient.
    """
    draws = draw_sets(features, config.solver, generator)
    log_p = log_match_probability(
        features.first,
        features.second,
        draws.index0.flatten(1),
        draws.index1.flatten(1),
        features.temperature,
        features.dustbin,
    ).reshape(draws.index0.shape)
    return objective_given_draws((features.xyz0, features.xyz1), log_p, draws, truth, config, percent)


@torch.no_grad()
def draw_sets(features: PairFeatures, config: SolverConfig, generator: torch.Generator) -> Draws:
    """Q sets of matches a pair, and J minimal sets of each: as the solver draws at test time."""
    Q, S, J, n = config.num_sets, config.set_size, config.num_hypotheses, config.minimal_size
    first, second = features.first, features.second
    B = len(first.uv)
    index = torch.zeros(2, B, Q, S, dtype=torch.long, device=first.uv.device)
    minimal = index.new_zeros(B, Q, J, n)
    present = torch.zeros(B, Q, S, dtype=torch.bool, device=index.device)
    for b in range(B):
        matches = scored_match_probabilities(
            first.descriptor[b],
            second.descriptor[b],
            first.score[b],
            second.score[b],
            features.temperature,
            features.dustbin,
        )
        values, reason = usable_matches(matches, features.xyz0[b], features.xyz1[b], n)
        if reason is not None:
            continue
        flat = draw_without_replacement(values.flatten(), S, Q, generator)
        row = torch.div(flat, values.shape[1], rounding_mode="floor")
        count = flat.shape[1]
        index[0, b, :, :count], index[1, b, :, :count] = (
            matches.index0[row],
            matches.index1[flat - row * values.shape[1]],
        )
        present[b, :, :count] = True
        minimal[b] = draw_minimal_sets(values.flatten()[flat], J, n, generator)
    return Draws(index[0], index[1], present, minimal, present[:, 0, 0])


def objective_given_draws(
    xyz: tuple[Float[Tensor, "B N0 3"], Float[Tensor, "B N1 3"]],
    log_p: Float[Tensor, "B Q S"],
    draws: Draws,
    truth: Truth,
    config: ObjectiveConfig,
    percent: float | None = None,
) -> Objective:
    """Everything after the draws; deterministic. ``log_p``: log probabilities of the matches drawn, with gradient.

    Raises ValueError for log probabilities that do not belong to the draws.
    """
    if log_p.shape != draws.index0.shape:
        raise ValueError(f"log_p must have the shape of the draws {list(draws.index0.shape)}, got {list(log_p.shape)}")
    hypotheses = make_hypotheses(
        _drawn(xyz[0], draws.index0, draws.present),
        _drawn(xyz[1], draws.index1, draws.present),
        draws.present,
        draws.minimal,
        config.solver,
        config.refinement_set,
    )
    true, cameras = truth.cam1_from_cam0[:, None, None], (truth.camera0[:, None, None], truth.camera1[:, None, None])
    losses = hypothesis_loss(hypotheses.pose, true, *cameras, config.loss)
    set_loss, weight = expected_loss(losses, hypotheses, draws, config)
    pair_loss = set_loss.mean(1)  # Eq. (9), and the baseline of Eq. (11)
    chosen = select_pairs(pair_loss.detach(), percent if len(pair_loss) > 1 else None, draws.usable)
    loss = single_scalar(set_loss, log_p.where(draws.present, 0.0).sum(-1), chosen, config)
    pose = hypotheses.pose.detach()
    errors = [expected_error(error(pose, true), weight.detach()) for error in (rotation_error, translation_error)]
    return Objective(loss, pair_loss, chosen, set_loss, losses, weight, errors[0], errors[1], hypotheses, draws)


def expected_error(errors: Float[Tensor, "B Q J"], weight: Float[Tensor, "B Q J"]) -> Float[Tensor, ""]:
    """Mean over all sets of the expected error, for the log; Eq. (8) without the null hypothesis."""
    total = weight.sum(-1)
    expected = (weight * errors).sum(-1) / total.clamp(min=torch.finfo(weight.dtype).tiny)
    known = total > 0
    return expected.where(known, 0.0).sum() / known.sum().clamp(min=1)


def _drawn(
    xyz: Float[Tensor, "B N 3"], index: Int[Tensor, "B Q S"], present: Bool[Tensor, "B Q S"]
) -> Float[Tensor, "B Q S 3"]:
    """The points of the matches; zeros where there is none, because the point that stands there may be NaN."""
    flat = xyz.gather(1, index.flatten(1)[..., None].expand(-1, -1, 3))
    return flat.unflatten(1, tuple(index.shape[1:])).where(present[..., None], 0.0)


def expected_loss(
    losses: Float[Tensor, "B Q J"], hypotheses: Hypotheses, draws: Draws, config: ObjectiveConfig
) -> tuple[Float[Tensor, "B Q"], Float[Tensor, "B Q J"]]:
    """Expected loss of each set, and the weight of each hypothesis in it: softmax of the scores, paper Eq. (8).

    Hypotheses that are not usable take no part; a set without any costs ``loss.worst``.
    Differs from the paper: the scores are divided by a temperature of 20.
    """
    S, J = draws.index0.shape[-1], losses.shape[-1]
    logits = (hypotheses.score / config.score_temperature).where(hypotheses.usable, -torch.inf)
    worst = losses.new_full((*losses.shape[:2], 1), config.loss.worst)
    null = torch.full_like(worst, config.null_score * S / config.score_temperature)
    if not config.null_hypothesis:  # it still stands in where there is no other
        null = null.where(~hypotheses.usable.any(-1, keepdim=True), -torch.inf)
    weight = torch.softmax(torch.cat([logits, null], -1), -1)
    losses = torch.cat([losses.where(hypotheses.usable, 0.0), worst], -1)
    return (weight * losses).sum(-1), weight[..., :J]


def single_scalar(
    set_loss: Float[Tensor, "B Q"], log_p: Float[Tensor, "B Q"], chosen: Bool[Tensor, " B"], config: ObjectiveConfig
) -> Float[Tensor, ""]:
    """One scalar with the value of the mean loss of the chosen pairs and the gradient of paper Eq. (11).

    ``log_p``: log probability of each set (sum over its matches). The direct part is the gradient of the mean loss; the
    REINFORCE part is ``(L_q - b) / Q`` times that of ``log_p``, with the pair's mean loss b as baseline (Eq. (10) has
    none). The REINFORCE term is added minus its own value, so that it has a gradient only.
    Differs from the paper: the REINFORCE part is summed, not averaged, over the pairs, and the probabilities are not
    normalised (``reinforce="mean"`` makes the two parts consistent).
    """
    number = chosen.sum().clamp(min=1)
    direct = set_loss.mean(1).where(chosen, 0.0).sum() / number
    advantage = set_advantage(set_loss, config).where(chosen[:, None], 0.0)
    if config.reinforce == "mean":
        advantage = advantage / number
    drawn = (advantage * log_p).sum()
    return direct + drawn - drawn.detach()


def set_advantage(set_loss: Float[Tensor, "B Q"], config: ObjectiveConfig) -> Float[Tensor, "B Q"]:
    """``(L_q - b) / Q``: how much more a set cost than the pair's mean; minus it is the reward of what was drawn."""
    baseline = set_loss.mean(1, keepdim=True) if config.baseline else 0.0
    return ((set_loss - baseline) / set_loss.shape[1]).detach()


def keypoint_rewards(
    found: Objective, counts: tuple[int, int], config: ObjectiveConfig
) -> tuple[Float[Tensor, "B N0"], Float[Tensor, "B N1"]]:
    """What REINFORCE says of each keypoint (Eq. (11)): the sum of ``-(L_q - b) / Q`` over the matches drawn with it.

    counts: keypoints of the two photos. Positive where a keypoint was drawn in sets that did better than the mean.
    """
    draws = found.draws
    reward = -set_advantage(found.set_loss, config)[..., None] * draws.present
    sides = zip((draws.index0, draws.index1), counts, strict=True)
    first, second = (
        reward.new_zeros(len(reward), n).scatter_add_(1, i.flatten(1), reward.flatten(1)) for i, n in sides
    )
    return first, second
