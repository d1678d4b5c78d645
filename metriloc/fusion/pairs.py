"""What several references say of one query, brought together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from metriloc.calibration.probability import QUANTILE_90
from metriloc.evaluation.errors import direction_error_deg
from metriloc.geometry import Pose
from metriloc.solvers.consistency import most_consistent, triangle_misfit
from metriloc.solvers.motion_averaging import Averaged, Motion, average_motions, nearest_to_rays
from metriloc.solvers.pose_uncertainty import relative_covariance
from metriloc.types import Correspondences, PoseEstimate, ReferenceSaid, View

_CONTRADICTION = 100.0
"""Squared standard deviations from which two references contradict each other; 6 are to be expected, right poses of real
photos have up to 60, wrong ones hundreds."""
_SHARED = 0.7  # of the variance of a length: two photos with one depth network err alike, most of it
_UNKNOWN_LENGTH = 0.7  # standard deviation of the logarithm, of metres that nothing was measured for
_NO_METRES = 1.0  # the same of a result that fixes only the direction
_NEAR = 0.05  # metres: a position that sure is known, however near
_SETUP = "several references"
_NO_MATCHES = Correspondences.empty()


def motion_of(estimate: PoseEstimate, first: int, second: int, views: tuple[View, View]) -> Motion | None:
    """What an estimate says, with its uncertainty.

    - estimate: of one pair.
    - first, second: numbers of the two cameras.
    - views: their photos.

    None for a failure, and where no way is seen between the cameras.

    >>> motion_of(PoseEstimate.failure("no_photo"), 0, 1, ()) is None
    True
    """
    if not bool(estimate.success) or not float(estimate.pose.distance()) > 0:
        return None
    details, pose = estimate.details[0], estimate.pose.detach().to("cpu", torch.float64)
    matches = details.inliers
    covariance = relative_covariance(
        pose, matches.uv0.double(), matches.uv1.double(), (views[0].camera, views[1].camera)
    )
    if covariance is None:
        return None
    sigma = _length_sigma(estimate) if details.metric else math.inf
    return Motion(first, second, pose, covariance, sigma, _SHARED if details.metric else 0.0)


def _length_sigma(estimate: PoseEstimate) -> float:
    """Standard deviation of the logarithm of the distance, by its interval or its source."""
    distance, low_high = float(estimate.pose.distance()), estimate.distance_interval
    if low_high is not None:
        widest = max(low_high[1] / distance, distance / max(low_high[0], 1e-3 * distance))
        return max(math.log(max(widest, 1.0)) / QUANTILE_90, 1e-3)
    sigma = estimate.details[0].scale_sigma
    return max(sigma, 1e-3) if math.isfinite(sigma) else _UNKNOWN_LENGTH


@dataclass(frozen=True, eq=False)
class FusedPairs:
    """What each reference says of the query.

    And what is known of the references: their poses, or motions between them.

    >>> views = [metriloc.load_view("reference.jpg")]
    >>> pairs = FusedPairs([PoseEstimate.failure("no_photo")], views, views[0], None, {})
    >>> pairs.fused().reason
    'no_photo'
    """

    found: Sequence[PoseEstimate]
    views: Sequence[View]
    query: View
    poses: tuple[Pose, ...] | None
    among: Mapping[tuple[int, int], Motion]

    @property
    def _query(self) -> int:
        """Its number, after the references."""
        return len(self.found)

    def fused(self) -> PoseEstimate:
        """The answer of all. That of the first alone, or a failure, where no other has a pose."""
        motions = {
            i: motion
            for i, estimate in enumerate(self.found)
            if (motion := motion_of(estimate, i, self._query, (self.views[i], self.query))) is not None
        }
        if not motions:
            return self._said(self.found[0], ())
        order = sorted(motions)
        contradict = torch.zeros(len(order), len(order), dtype=torch.bool)
        for a, i in enumerate(order):
            for b, j in enumerate(order[:a]):
                between = self._between(j, i)
                if between is not None and triangle_misfit(motions[j], motions[i], between) > _CONTRADICTION:
                    contradict[a, b] = contradict[b, a] = True
        trust = [float(self.found[i].confidence) for i in order]
        sets = [tuple(order[k] for k in one) for one in most_consistent(contradict, trust)]
        found = [self._averaged(motions, one) for one in sets[:1]]
        while not bool(found[-1].success) and len(found) < len(sets):  # as good a set may place the query
            found.append(self._averaged(motions, sets[len(found)]))
        best = len(found) - 1 if bool(found[-1].success) else 0
        return self._said(found[best], [sets[best], *sets[:best], *sets[best + 1 :]])

    def _between(self, i: int, j: int) -> Pose | Motion | None:
        """``j_from_i`` of two references: known, measured, or nothing."""
        if self.poses is not None:
            return self.poses[j] @ self.poses[i].inverse()
        return self.among.get((i, j))

    def _averaged(self, motions: Mapping[int, Motion], used: tuple[int, ...]) -> PoseEstimate:
        """What these references say together."""
        if used == (0,):
            return self.found[0]
        start = self._start(motions, used)
        if start is None:
            return PoseEstimate.failure("degenerate", self.found[0].details[0])
        chosen = [motions[i] for i in used]
        fixed = torch.ones(self._query + 1, dtype=torch.bool)
        fixed[self._query] = False
        if self.poses is None:
            chosen += [m for (i, j), m in self.among.items() if {i, j} <= {0, *used}]
            fixed[[i for i in used if i != 0]] = False
        return self._estimate(average_motions(chosen, start, fixed), used)

    def _start(self, motions: Mapping[int, Motion], used: Sequence[int]) -> Pose | None:
        """``cam_from_first`` of all cameras to begin at; None where nothing ties the query to the first reference."""
        best = max(used, key=lambda i: float(self.found[i].confidence))
        eye = Pose.identity(dtype=torch.float64)
        if self.poses is not None:
            poses = [pose @ self.poses[0].inverse() for pose in self.poses]
            return Pose.stack([*poses, _of_length(motions[best], {i: motions[i] for i in used}, poses, best)])
        tied = [j for j in used if (0, j) in self.among]
        if 0 in used:
            query = motions[0].pose
        elif tied:
            query = motions[tied[0]].pose @ self.among[0, tied[0]].pose
        else:
            return None
        starts = [eye if i == 0 or i not in used else motions[i].pose.inverse() @ query for i in range(self._query)]
        return Pose.stack([*starts, query])

    def _estimate(self, averaged: Averaged, used: Sequence[int]) -> PoseEstimate:
        """The pose relative to the first reference, with what it is worth."""
        pose, spread = averaged.cam_from_world[self._query], (averaged.covariance or {}).get(self._query)
        base = self.found[0].details[0] if 0 in used else replace(self.found[0].details[0], inliers=_NO_MATCHES)
        if spread is None or not bool(pose.is_finite()):
            return PoseEstimate.failure("degenerate", base)
        distance = float(pose.distance())
        along = pose.t / distance if distance > 0 else torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        sigma = math.sqrt(max(float(along @ spread[:3, :3] @ along), 0.0))
        metric = sigma < _NO_METRES * distance or sigma < _NEAR
        if not metric:
            if 0 not in used:  # nothing tells where the query is beside the first reference
                return PoseEstimate.failure("degenerate", base)
            pose, spread = Pose(pose.R, along), None
        source = self._source_of_metres(used, metric)
        details = replace(
            base, metric=metric, scale_source=source, scale_sigma=math.nan, setup=_SETUP, metres_sources=()
        )
        sure, meaning = self._confidence(used)
        return PoseEstimate(
            pose,
            torch.tensor(True),
            torch.tensor(sure),
            (None,),
            (details,),
            probability_of=meaning,
            distance_interval=_interval(distance, sigma) if metric else None,
            doubts=self._doubts(used),
            covariance=spread,
        )

    def _source_of_metres(self, used: Sequence[int], metric: bool) -> str:
        own = list(
            dict.fromkeys(self.found[i].details[0].scale_source for i in used if self.found[i].details[0].metric)
        )
        if self.poses is not None and len(used) > 1:
            return " and ".join([f"the known poses of {len(used)} references", *own])
        if own:
            return f"{' and '.join(own)}, over {len(used)} references" if len(used) > 1 else own[0]
        return self.found[used[0]].details[0].scale_source if not metric else "the known poses of the references"

    def _confidence(self, used: Sequence[int]) -> tuple[float, str]:
        """That of the surest of them, and what it is the probability of: references of one place err alike, so that their
        agreement is no independent witness."""
        said = [self.found[i] for i in used]
        meanings = {estimate.probability_of for estimate in said}
        values = [float(estimate.confidence) for estimate in said]
        return max(values), meanings.pop() if len(meanings) == 1 else ""

    def _doubts(self, used: Sequence[int]) -> tuple[str, ...]:
        """Those of the references, unless two that agree have none."""
        if sum(not self.found[i].doubts for i in used) >= 2:
            return ()
        return tuple(dict.fromkeys(doubt for i in used for doubt in self.found[i].doubts))

    def _said(self, estimate: PoseEstimate, sets: Sequence[tuple[int, ...]]) -> PoseEstimate:
        """The estimate with what each reference said, and the doubt that nobody can tell which of them is right."""
        used = sets[0] if sets else ()
        told = tuple(self._reference(i, used, estimate) for i in range(self._query))
        messages = [_sentence(one) for one in told if not one.used]
        doubts = estimate.doubts
        if len(sets) > 1 and bool(estimate.success):
            others = [Path(self.views[i].name).name for i in sorted({i for one in sets[1:] for i in one} - set(used))]
            doubts = (*doubts, f"{', '.join(others)} say otherwise, and as many references do")
        (details,) = estimate.details
        details = replace(details, references=told, messages=(*details.messages, *messages))
        return replace(estimate, details=(details,), doubts=doubts)

    def _reference(self, i: int, used: Sequence[int], estimate: PoseEstimate) -> ReferenceSaid:
        own, turned, aside = self.found[i], math.nan, math.nan
        between = Pose.identity(dtype=torch.float64) if i == 0 else self._between(0, i)
        if bool(own.success) and bool(estimate.success) and between is not None:
            reference = between.pose if isinstance(between, Motion) else between
            wanted = estimate.pose.to("cpu", torch.float64) @ reference.inverse()
            turned = math.degrees(float(own.pose.to("cpu", torch.float64).angle_to(wanted)))
            aside = float(direction_error_deg(own.pose.t.double(), wanted.t))
        return ReferenceSaid(
            self.views[i].name, i in used, own.reasons[0], float(own.confidence), own.verdict, turned, aside
        )


def _of_length(motion: Motion, used: Mapping[int, Motion], poses: Sequence[Pose], own: int) -> Pose:
    """``query_from_first`` by a motion; where it has no length, the position is where the directions of all meet."""
    found = motion.pose.to(torch.float64) @ poses[own]
    if math.isfinite(motion.length_sigma) or len(used) < 2:
        return found
    centers = torch.stack([poses[i].center() for i in used])
    rays = torch.stack([poses[i].R.mT @ m.pose.center().double() for i, m in used.items()])
    met = nearest_to_rays(centers, rays)
    return found if met is None else Pose(found.R, -found.R @ met)


def _interval(distance: float, sigma: float) -> tuple[float, float]:
    """Metres between which the distance lies nine times in ten."""
    reach = QUANTILE_90 * sigma
    if sigma < distance:
        return distance * math.exp(-reach / distance), distance * math.exp(reach / distance)
    return max(0.0, distance - reach), distance + reach


def _sentence(said: ReferenceSaid) -> str:
    """Why a reference has no say."""
    name = Path(said.name).name
    if said.reason is not None:
        return f"reference '{name}' has no pose for the query ({said.reason})"
    if not math.isfinite(said.rotation_deg):
        return f"reference '{name}' is left out: nothing ties it to the others"
    off = f"{said.rotation_deg:.2g} degrees in rotation, {said.direction_deg:.2g} in direction"
    return f"reference '{name}' is left out: it is off by {off}"
