"""The types that travel between folders: photos, pairs and pose estimates.

All are frozen dataclasses without behaviour beyond small conversions. Poses are metric (metres) and named
``b_from_a``; cameras live in :mod:`metriloc.geometry`. ``PoseEstimate`` is what *every* method of the library returns,
also when it fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Camera, Pose

FailureReason = Literal["too_few_matches", "degenerate", "non_finite"]
"""Why a pose could not be found: fewer usable correspondences than the solver needs; a configuration that does not fix
the pose (collinear, coincident, no parallax where parallax is needed); NaN or infinite values in the inputs."""


@dataclass(frozen=True, eq=False)
class View:
    """One photo and what is known about its camera.

    image: RGB in 0..1, float32. camera: intrinsics of *this* image, pixels, first pixel centre at (0, 0).
    cam_from_world: pose of the camera, if known. name: how reports call the photo (usually its path).
    intrinsics_source: one sentence that says where ``camera`` came from.
    depth: metres along z, 0 where unknown; any resolution, covering the same field of view as the image.
    """

    image: Float[Tensor, "3 H W"]
    camera: Camera
    cam_from_world: Pose | None = None
    name: str = ""
    intrinsics_source: str = "given"
    depth: Float[Tensor, "h w"] | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[0] != 3:
            raise ValueError(f"View.image must have shape [3, H, W], got {list(self.image.shape)} ({self.name!r})")
        if self.camera.shape != ():
            raise ValueError(f"View.camera must be a single camera, got batch shape {tuple(self.camera.shape)}")
        if self.depth is not None and self.depth.ndim != 2:
            raise ValueError(f"View.depth must have shape [h, w], got {list(self.depth.shape)} ({self.name!r})")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.shape[2], self.image.shape[1]


@dataclass(frozen=True, eq=False)
class Pair:
    """One training or evaluation sample: view0 is the reference, view1 the query; the true pose is None if unknown."""

    view0: View
    view1: View
    cam1_from_cam0: Pose | None = None


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Points seen in both images of a pair. uv: pixels; depth: metres, NaN where unknown; probability: of the match."""

    uv0: Float[Tensor, "M 2"]
    uv1: Float[Tensor, "M 2"]
    depth0: Float[Tensor, " M"]
    depth1: Float[Tensor, " M"]
    probability: Float[Tensor, " M"]

    def __len__(self) -> int:
        return self.uv0.shape[0]

    @classmethod
    def empty(cls) -> Correspondences:
        """No correspondences at all (what a failure carries)."""
        none = torch.zeros(0)
        return cls(torch.zeros(0, 2), torch.zeros(0, 2), none, none, none)


@dataclass(frozen=True, eq=False)
class WinningHypothesis:
    """The minimal solution a consensus solver chose, before refinement.

    correspondence_set: which sampled set it came from; index: its place in that set; minimal: indices into the set;
    query_from_reference: the pose of the minimal solution; refits: refinements that followed.
    """

    correspondence_set: int
    index: int
    minimal: Int[Tensor, " n"]
    query_from_reference: Pose
    refits: int


@dataclass(frozen=True, eq=False)
class PairDetails:
    """How one relative pose came about.

    score: the solver's own support, unnormalised (for MicKey the soft-inlier sum, 0..S). metric: whether the
    translation is in metres; scale_source says why or why not. timings: seconds by stage.
    """

    score: float
    inliers: Correspondences
    metric: bool = True
    scale_source: str = ""
    hypothesis: WinningHypothesis | None = None
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """What every method returns, also on failure.

    pose: ``query_from_reference`` for relative methods, ``cam_from_world`` for absolute ones; NaN where it failed.
    success: whether ``pose`` may be used. confidence: 0..1, 0 on failure. reasons: one entry an element (batch axes
    flattened), None on success. details: one entry an element, or empty.
    """

    pose: Pose
    success: Bool[Tensor, "*b"]
    confidence: Float[Tensor, "*b"]
    reasons: tuple[FailureReason | None, ...]
    details: tuple[PairDetails, ...] = ()

    def __post_init__(self) -> None:
        if not (self.pose.shape == self.success.shape == self.confidence.shape):
            raise ValueError(
                f"PoseEstimate: batch shapes differ: pose {tuple(self.pose.shape)}, "
                f"success {tuple(self.success.shape)}, confidence {tuple(self.confidence.shape)}"
            )
        if len(self.reasons) != self.success.numel():
            raise ValueError(f"PoseEstimate: {len(self.reasons)} reasons for {self.success.numel()} poses")

    @classmethod
    def failure(cls, reason: FailureReason, details: PairDetails | None = None) -> PoseEstimate:
        """One failed estimate, batch shape (): NaN pose, confidence 0."""
        nan = Pose(torch.full((3, 3), torch.nan), torch.full((3,), torch.nan))
        details = details or PairDetails(score=0.0, inliers=Correspondences.empty())
        return cls(nan, torch.tensor(False), torch.tensor(0.0), (reason,), (details,))

    @classmethod
    def stack(cls, estimates: Sequence[PoseEstimate]) -> PoseEstimate:
        """Single estimates (batch shape ()) -> one of batch shape (n,)."""
        return cls(
            Pose.stack([e.pose for e in estimates]),
            torch.stack([e.success for e in estimates]),
            torch.stack([e.confidence for e in estimates]),
            tuple(r for e in estimates for r in e.reasons),
            tuple(d for e in estimates for d in e.details),
        )


class PhotoFeatures(Protocol):
    """What a relative-pose method keeps of one photo, as far as pictures and reports need to know."""

    @property
    def view(self) -> View:
        """The photo."""
        ...

    @property
    def stride(self) -> int:
        """Pixels a cell of the maps is wide and high, from the top left corner of the photo."""
        ...

    def score_map(self) -> Float[Tensor, "h w"]:
        """How much each cell counts as a keypoint; larger is more."""
        ...

    def depth_map(self) -> Float[Tensor, "h w"] | None:
        """Predicted depth in metres, or None when the method predicts none."""
        ...


class RelativePoseMethod(Protocol):
    """Two photos in, the pose of the second camera relative to the first out.

    ``extract`` does the work that belongs to one photo; ``relative_pose`` takes photos or what ``extract`` made of
    them, so that one reference serves many queries for the price of one extraction.
    """

    @property
    def name(self) -> str:
        """How the command line calls the method."""
        ...

    @property
    def weights_id(self) -> str:
        """Which weights these are; equal only for equal numbers."""
        ...

    def extract(self, view: View) -> Any:
        """Everything the method needs of one photo (a ``PhotoFeatures``)."""
        ...

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """``query_from_reference`` of two Views (or their extracted features), batch shape ()."""
        ...
