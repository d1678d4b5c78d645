"""One query, from its references to a pose: choose, look up, align coarse to fine at each image scale, check.

What went wrong is collected in messages and a reason; only wrong use raises, before anything starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.io.files import InputError
from metriloc.methods.pixloc.align import Iteration, align, evaluate
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import AlignmentProblem, Linearization
from metriloc.methods.pixloc.extractor import Extraction, FeatureExtractor
from metriloc.methods.pixloc.lookup import FeatureTable
from metriloc.methods.pixloc.reference import Observations, ReferenceStore, by_point, combine
from metriloc.methods.pixloc.selection import (
    Hints,
    largest_covisible,
    rank_by_inliers,
    select_points,
    similarity_weights,
    weighted_pose,
)
from metriloc.methods.pixloc.settings import LocalizeConfig, setup_of
from metriloc.methods.pixloc.support import pixloc_covariance, pixloc_support
from metriloc.stopwatch import timed
from metriloc.types import FailureReason, LocalizationDetails, PoseEstimate, SfmMap, Stage, View

Log = Callable[[str, Iteration], None]
"""Told the name of the stage and what happened, every iteration."""

_FLAT = 1e-8  # squared change of unit-length features a cell, below which a map is flat
_WORSE = 1e-3  # relative increase of the cost that counts as one
_NOISE = 1e-5  # cost of unit-length features that sampling may add; it must not fail a start that was right already


@dataclass(frozen=True, eq=False)
class Tools:
    """What all queries share. levels: of the pyramid that are used, finest first."""

    extractor: FeatureExtractor
    store: ReferenceStore
    align: AlignConfig
    config: LocalizeConfig
    levels: tuple[int, ...]


class Localization:
    """One query on its way through the stages. ``run`` never raises for what the data hold."""

    def __init__(
        self,
        tools: Tools,
        query: View,
        scene: SfmMap,
        hints: Hints | None = None,
        log: Log | None = None,
        seed: int = 0,
    ) -> None:
        self.tools, self.query, self.scene, self.log, self.seed = tools, query, scene, log, seed
        self.hints = hints or Hints()
        self.matches = self.hints.matches
        self.config = tools.config
        self.messages: list[str] = []
        self.stages: list[Stage] = []
        self.timings: dict[str, float] = {}
        self.statistics: dict[str, float] = {}
        self.used: tuple[str, ...] = ()
        self.num_points = 0

    def run(self, references: Sequence[str], init: Pose | None) -> PoseEstimate:
        """The estimate; references and init as in ``PixLoc.localize``."""
        if self.matches is None and self.config.points != "all":
            self.messages.append("the points are to be chosen by matches, and there are none")
            return self._failure("too_few_matches", init)
        if self.matches is not None and init is not None and self.matches.num_inliers < self.config.min_inliers:
            self.messages.append(
                f"the matches have {self.matches.num_inliers} inliers, {self.config.min_inliers} are needed"
            )
            return self._failure("too_few_matches", init)
        images = self._references(references, init)
        if not images:
            self.messages.append("no usable reference image was given")
            return self._failure("no_reference", init)
        if init is None:
            init = self._first_pose(images)
        init = init.to("cpu", torch.float64)
        if not bool(init.is_finite()):
            self.messages.append("the first pose is not finite")
            return self._failure("non_finite", None)
        if not bool(torch.isfinite(self.query.image).all()):
            self.messages.append("the photo holds values that are not finite")
            return self._failure("non_finite", init)
        points = {image: self._points(image) for image in images}
        distinct = len(torch.cat(list(points.values())).unique())
        if distinct < self.config.min_points:
            self.messages.append(f"the references see {distinct} points, {self.config.min_points} are needed")
            return self._failure("too_few_points", init)
        return self._refine(points, init)

    # -- choices ----------------------------------------------------------------------------------------------------
    def _references(self, names: Sequence[str], init: Pose | None) -> list[int]:
        known = {name: index for index, name in enumerate(self.scene.names)}
        missing = [name for name in names if name not in known]
        if missing:
            self.messages.append(f"{len(missing)} references are not in the map, the first is {missing[0]!r}")
        images = list(dict.fromkeys(known[name] for name in names if name in known))
        config = self.config
        if config.rank_by_inliers and self.matches is None:
            self.messages.append("there are no matches to rank the references by: they stay in their order")
        elif config.rank_by_inliers and self.matches is not None:
            images = rank_by_inliers(images, self.matches, config.min_reference_inliers)
        images = images[: config.num_references]
        if config.covisible_only or (config.approximate_pose and init is None):
            images = largest_covisible(self.scene, images)
        return images

    def _first_pose(self, images: list[int]) -> Pose:
        poses = self.scene.cam_from_world[torch.tensor(images)]
        if not self.config.approximate_pose:
            return poses[0]
        known = self.hints.similarity or {}
        likeness = torch.tensor([known.get(self.scene.names[image], 1.0) for image in images])
        return weighted_pose(poses, similarity_weights(likeness.double()))

    def _points(self, image: int) -> Tensor:
        matches = None if self.config.points == "all" else self.matches
        return select_points(self.scene, image, self.config.min_track, matches, self.config.points == "inliers")

    # -- alignment --------------------------------------------------------------------------------------------------
    def _refine(self, points: dict[int, Tensor], init: Pose) -> PoseEstimate:
        pose, problems = init, list[AlignmentProblem]()
        for image_scale in self.config.image_scales:
            with timed(self.timings, "extract"):
                extraction = self.tools.extractor(self.query, image_scale)
            if extraction is None:
                self.messages.append(f"the photo is too small at image scale {image_scale}, which is left out")
                continue
            with timed(self.timings, "references"):
                parts = self._observations(points, image_scale)
            if not parts:
                return self._failure("no_reference", init)
            self.used = tuple(self.scene.names[image] for image in parts)
            seen = combine(
                [(part, points[image]) for image, part in parts.items()], self.tools.levels, self.config.average
            )
            self.num_points = len(seen.point_index.unique())
            if self.num_points == 0:
                self.messages.append(f"no point lies inside all reference maps at image scale {image_scale}")
                continue
            with timed(self.timings, "align"):
                problems = []
                for place in reversed(range(len(self.tools.levels))):
                    problems.append(self._problem(extraction, seen, place))
                    name = f"scale {image_scale}, level {self.tools.levels[place]}"
                    pose, reason = self._align(problems[-1], pose, name)
                    if reason is not None:
                        return self._failure(reason, init)
        if not problems:
            return self._failure("too_few_points", init)
        return self._finish(problems, init, pose)

    def _observations(self, points: dict[int, Tensor], image_scale: int) -> dict[int, Observations]:
        parts = {}
        for image in points:
            try:
                parts[image] = self.tools.store.get(self.scene, image, image_scale)
            except InputError as error:
                if str(error) not in self.messages:
                    self.messages.append(str(error))
        return parts

    def _problem(self, extraction: Extraction, seen: Observations, place: int) -> AlignmentProblem:
        level, config = self.tools.levels[place], self.config
        fmap = extraction.pyramid.features[level]
        points, rows = by_point(seen)
        rows = rows.to(fmap.device)
        features, trust, trust_map = seen.features[place].to(fmap), None, None
        if config.use_confidences and seen.confidences is not None and extraction.pyramid.confidences is not None:
            trust, trust_map = seen.confidences[place].to(fmap)[rows], extraction.pyramid.confidences[level]
        if config.normalize_features:
            features = F.normalize(features, dim=-1)
        return AlignmentProblem(
            xyz=self.scene.xyz[points].to(fmap.device)[None],
            features=features[rows][None],
            table=FeatureTable.from_maps(fmap, trust_map, config.normalize_features),
            camera=self.query.camera.to(fmap.device, torch.float64).scale(extraction.scales[level])[None],
            confidence=None if trust is None else trust[None],
            mask=(rows >= 0)[None],
        )

    def _align(self, problem: AlignmentProblem, pose: Pose, name: str) -> tuple[Pose, FailureReason | None]:
        settings, log = self.tools.align, self.log
        level = int(name.rsplit(" ", 1)[1])
        damping = self.tools.extractor.damping(level) if settings.damping == "learned" else None
        device = problem.features.device
        observations = int(problem.mask.sum()) if problem.mask is not None else 0
        start = evaluate(problem, pose[None].to(device), settings.cost)
        if not self.stages:
            self.stages.append(_stage("start", pose, start, observations))
        reason = _why_not(start, settings)
        if reason is not None:
            self.messages.append(f"{name}: {_WORDS[reason]}")
            return pose, reason
        found = align(
            problem,
            pose[None].to(device),
            settings,
            damping,
            log=None if log is None else lambda iteration: log(name, iteration),
        )
        after = found.pose[0].to("cpu")
        if bool(found.failed) or not bool(after.is_finite()):
            early = int(found.failed_at) == 0
            self.messages.append(f"{name}: the alignment failed in iteration {int(found.failed_at)}")
            return pose, "non_finite" if early else "diverged"
        self.stages.append(_stage(name, after, evaluate(problem, after[None].to(device), settings.cost), observations))
        return after, None

    def _finish(self, problems: list[AlignmentProblem], init: Pose, pose: Pose) -> PoseEstimate:
        problem, cost = problems[-1], self.tools.align.cost
        device = problem.features.device
        first, end = (evaluate(problem, p[None].to(device), cost) for p in (init, pose))
        both = first.valid & end.valid
        before, after = _level(first, both), _level(end, both)
        enough = int(both.sum()) >= self.tools.align.min_points
        self.statistics = {
            "support": self.stages[-1].support,
            "visible": float(end.valid.sum()) / max(1, int((problem.mask if problem.mask is not None else both).sum())),
            "points": float(self.num_points),
        }
        with timed(self.timings, "support"):
            self.statistics |= pixloc_support(problems, pose, end, cost, self.seed)
        if self.config.check and enough and after > before * (1 + _WORSE) + _NOISE:
            self.messages.append(f"the result costs more than the start: {after:.4g} against {before:.4g}")
            return self._failure("diverged", init)
        confidence = torch.tensor(self.stages[-1].support)
        spread = pixloc_covariance(problem, end)
        return PoseEstimate(
            pose, torch.tensor(True), confidence, (None,), localization=(self._details(),), covariance=spread
        )

    # -- results ----------------------------------------------------------------------------------------------------
    def _failure(self, reason: FailureReason, start: Pose | None) -> PoseEstimate:
        if not self.stages and start is not None:
            self.stages.append(Stage("start", start, float("nan")))
        return PoseEstimate.failure(reason, self._details())

    def _details(self) -> LocalizationDetails:
        return LocalizationDetails(
            self.used,
            self.num_points,
            tuple(self.stages),
            dict(self.timings),
            tuple(self.messages),
            dict(self.statistics),
            setup_of(self.config, self.tools.align, self.tools.extractor.identity),
        )


_WORDS: dict[str, str] = {
    "too_few_points": "too few points of the references are in view",
    "non_finite": "the features are not finite",
    "flat_maps": "the features do not change from place to place",
}


def _why_not(start: Linearization, settings: AlignConfig) -> FailureReason | None:
    """Why an alignment cannot begin here, if it cannot."""
    valid = start.valid
    if int(valid.sum()) < settings.min_points:
        return "too_few_points"
    slopes = start.slopes.diagonal(dim1=-2, dim2=-1).sum(-1)[valid.any(-1)]
    if not bool(torch.isfinite(start.cost[valid]).all() & torch.isfinite(slopes).all()):
        return "non_finite"
    return "flat_maps" if float(slopes.mean()) < _FLAT else None


def _stage(name: str, pose: Pose, at: Linearization, observations: int) -> Stage:
    support = torch.where(at.valid, at.irls, torch.zeros_like(at.irls)).sum() / max(1, observations)
    return Stage(name, pose, float(at.mean_cost()), min(1.0, float(torch.nan_to_num(support))))


def _level(at: Linearization, points: Tensor) -> float:
    """Cost by confidence, which must not look better for having moved to where nothing is trusted."""
    weight = torch.ones_like(at.cost) if at.confidence is None else at.confidence
    weight = torch.where(points, weight, torch.zeros_like(weight))
    cost = torch.where(points, at.cost, torch.zeros_like(at.cost))
    return float((weight * cost).sum() / weight.sum().clamp(min=1e-12))
