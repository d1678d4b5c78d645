"""The types that travel between folders: photos, pairs and pose estimates.

All are frozen dataclasses without behaviour beyond small conversions. Poses are metric (metres) and named
``b_from_a``; cameras live in :mod:`metriloc.geometry`. ``PoseEstimate`` is what *every* method of the library returns,
also when it fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.bounds import require_image_range
from metriloc.geometry import Camera, ColmapCamera, Pose
from metriloc.wording import finite_or_none, rounded, words_of_batch, words_of_motion, words_of_place

FailureReason = Literal[
    "too_few_matches",
    "degenerate",
    "non_finite",
    "too_few_points",
    "no_reference",
    "flat_maps",
    "diverged",
    "unsupported",
]
"""Why a pose could not be found: fewer usable correspondences than the solver needs; a configuration that does not fix
the pose (collinear, coincident, no parallax where parallax is needed); NaN or infinite values in the inputs; fewer
points of the map in view than the solver needs; no usable reference image; nothing in the photo tells one place from
another; the optimisation left the scene; a pose came out, but so little speaks for it that it is no answer."""


GUESSED_FOCAL = 0.1
"""Relative standard deviation from which on a focal length counts as a guess."""


@dataclass(frozen=True, eq=False)
class View:
    """One photo and what is known about its camera.

    image: RGB in 0..1, float32. camera: intrinsics of *this* image, pixels, first pixel centre at (0, 0).
    cam_from_world: pose of the camera, if known. name: how reports call the photo (usually its path).
    intrinsics_source: one sentence that says where ``camera`` came from.
    focal_sigma: relative standard deviation of the focal length; 0 when it is known, ``GUESSED_FOCAL`` and more when it
    is only a guess.
    depth: metres along z, 0 where unknown; any resolution, covering the same field of view as the image.
    """

    image: Float[Tensor, "3 H W"]
    camera: Camera
    cam_from_world: Pose | None = None
    name: str = ""
    intrinsics_source: str = "given"
    depth: Float[Tensor, "h w"] | None = None
    focal_sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[0] != 3:
            raise ValueError(f"View.image must have shape [3, H, W], got {list(self.image.shape)} ({self.name!r})")
        require_image_range(self.image, self.name)
        if self.camera.shape != ():
            raise ValueError(f"View.camera must be a single camera, got batch shape {tuple(self.camera.shape)}")
        if self.depth is not None and self.depth.ndim != 2:
            raise ValueError(f"View.depth must have shape [h, w], got {list(self.depth.shape)} ({self.name!r})")
        if not 0 <= self.focal_sigma < 10:
            raise ValueError(f"View.focal_sigma must be in 0..10, got {self.focal_sigma} ({self.name!r})")

    def detach(self) -> View:
        """Without gradients."""
        pose, depth = self.cam_from_world, self.depth
        return replace(
            self,
            image=self.image.detach(),
            camera=self.camera.detach(),
            cam_from_world=None if pose is None else pose.detach(),
            depth=None if depth is None else depth.detach(),
        )

    @property
    def focal_is_guessed(self) -> bool:
        """Whether nothing but habit speaks for the focal length: no answer that rests on it is reliable."""
        return self.focal_sigma >= GUESSED_FOCAL

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


@dataclass(frozen=True)
class MetresSource:
    """What one source of metres says. metres: the distance of the cameras by this source alone; sigma: standard deviation
    of its logarithm; share: of this source in the answer, 0..1."""

    name: str
    metres: float
    sigma: float
    share: float


@dataclass(frozen=True, eq=False)
class PairDetails:
    """How one relative pose came about.

    score: the solver's own support, unnormalised (for MicKey the soft-inlier sum, 0..S). metric: whether the
    translation is in metres; scale_source says why or why not; scale_sigma: standard deviation of the logarithm of the
    distance that comes from this source alone, NaN when it is not known. setup: what made the pose besides the weights
    (solver, source of depth), as calibrations name it. timings: seconds by stage. statistics: numbers that only grow with
    what speaks for the pose, by name; what confidence calibration may read. messages: what is to be known of the way.
    metres_sources: what each source says of the distance, where the metres have sources that can be named. matches: all
    that were looked at, agreeing or not, where a method keeps them.
    """

    score: float
    inliers: Correspondences
    metric: bool = True
    scale_source: str = ""
    scale_sigma: float = float("nan")
    setup: str = ""
    hypothesis: WinningHypothesis | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    metres_sources: tuple[MetresSource, ...] = ()
    matches: Correspondences | None = None

    def to_dict(self) -> dict[str, Any]:
        """Its part of ``PoseEstimate.to_dict``."""
        return {
            "messages": list(self.messages),
            "score": finite_or_none(self.score),
            "num_inliers": len(self.inliers),
            "metric": self.metric,
            "scale_source": self.scale_source,
            "metres_sources": [asdict(source) for source in self.metres_sources],
            "timings_s": rounded(self.timings),
        }


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of a localisation. cam_from_world: its pose; cost: its objective there (lower is better, comparable
    within one stage only); support: mean evidence a point gives, 0..1, 1 is best."""

    name: str
    cam_from_world: Pose
    cost: float
    support: float = 0.0


@dataclass(frozen=True, eq=False)
class LocalizationDetails:
    """How one absolute pose came about.

    references: names of the images that were used; num_points: points of the map the last stage used; stages: in order,
    from the start to the result; timings: seconds by stage; messages: what went wrong on the way, one sentence each;
    statistics, setup: as in ``PairDetails``.
    """

    references: tuple[str, ...] = ()
    num_points: int = 0
    stages: tuple[Stage, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)
    setup: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Its part of ``PoseEstimate.to_dict``."""
        return {
            "messages": list(self.messages),
            "references": list(self.references),
            "num_points": self.num_points,
            "timings_s": rounded(self.timings),
        }


# -- how an estimate came about, step by step --------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Course:
    """What one optimisation did.

    values: its objective after each step. phases: name of what each step belongs to (a sigma, a level), within which
    alone values compare. label: what the values are. poses: ``cam_from_world`` after each step, where they are known.
    """

    stage: str
    values: tuple[float, ...]
    phases: tuple[str, ...]
    label: str = "cost"
    poses: tuple[Pose, ...] = ()


@dataclass(frozen=True, eq=False)
class PointMaps:
    """How much each place in a photo speaks for each of some points of a map.

    values: 0 where nothing does, over the whole grid of ``size`` (w, h) cells or in a window of it for each point.
    origin: (x, y) of the first cell of each window. most: the value of a certain, right map. camera: the photo's, with
    cells for pixels. index, xyz: the points, in the map and in the world. gain: what each gives at the pose of the stage.
    """

    stage: str
    values: Float[Tensor, "N rows columns"]
    origin: Int[Tensor, "N 2"]
    size: tuple[int, int]
    most: float
    camera: Camera
    index: Int[Tensor, " N"]
    xyz: Float[Tensor, "N 3"]
    gain: Float[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def whole(self) -> bool:
        """Whether every map covers the whole photo."""
        return tuple(self.values.shape[:0:-1]) == self.size

    def support(self) -> Float[Tensor, " N"]:
        """The gains as a share of what a certain, right map would give."""
        return self.gain / self.most


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """What a network made of one photo. levels: features, finest first; confidences: of each level, 0..1, or none."""

    photo: str
    levels: tuple[Float[Tensor, "C h w"], ...]
    confidences: tuple[Float[Tensor, "h w"], ...] = ()


@dataclass(frozen=True, eq=False)
class Trace:
    """How a localizer came to its answer, for pictures: what ``localize(..., trace=True)`` puts into the estimate.

    stages: as in ``LocalizationDetails``. courses: the optimisations, in order. maps: of the stages that have them.
    features: of the query, and of the first reference. table: every step as columns of plain numbers, for JSON. All but
    the stages may be empty.
    """

    stages: tuple[Stage, ...] = ()
    courses: tuple[Course, ...] = ()
    maps: tuple[PointMaps, ...] = ()
    features: tuple[DenseFeatures, ...] = ()
    table: Mapping[str, Sequence[Any]] = field(default_factory=dict)


Verdict = Literal["reliable", "doubtful", "failed", "uncalibrated"]
RELIABLE, FAILED = 0.9, 0.2
"""Calibrated confidences from which, and below which, an estimate is called so."""
RELIABLE_METRES = 0.25
"""Half the width of a distance interval over its middle, above which metres are doubtful."""


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """What every method returns, also on failure.

    pose: ``query_from_reference`` for relative methods, ``cam_from_world`` for absolute ones; NaN where it failed.
    success: whether ``pose`` may be used. confidence: 0..1, 0 on failure. reasons: one entry an element (batch axes
    flattened), None on success. details (relative methods) and localization (absolute ones): one entry an element, or
    empty. probability_of: what the confidence is the probability of, "" when no calibration makes it one.
    distance_interval (relative methods, batch shape ()): metres between which the distance of the two cameras lies with
    a probability of 90 %, None when nothing says so. doubts: one sentence each on what makes a single estimate doubtful
    at best, whatever its confidence (a guessed focal length, a second pose that explains the photos nearly as well);
    ``reasons_for_doubt`` has these and the rest. page: draws a single estimate as HTML, for notebooks; ``relative_pose``
    and ``localize`` put one here.

    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg")  # doctest: +SKIP
    >>> estimate.pose.center(), estimate.verdict, estimate.detail.scale_source  # doctest: +SKIP
    """

    pose: Pose
    success: Bool[Tensor, "*b"]
    confidence: Float[Tensor, "*b"]
    reasons: tuple[FailureReason | None, ...]
    details: tuple[PairDetails, ...] = ()
    localization: tuple[LocalizationDetails, ...] = ()
    probability_of: str = ""
    distance_interval: tuple[float, float] | None = None
    doubts: tuple[str, ...] = ()
    page: Callable[[PoseEstimate], str] | None = None
    trace: Trace | None = None

    def __post_init__(self) -> None:
        if not (self.pose.shape == self.success.shape == self.confidence.shape):
            raise ValueError(
                f"PoseEstimate: batch shapes differ: pose {tuple(self.pose.shape)}, "
                f"success {tuple(self.success.shape)}, confidence {tuple(self.confidence.shape)}"
            )
        if len(self.reasons) != self.success.numel():
            raise ValueError(f"PoseEstimate: {len(self.reasons)} reasons for {self.success.numel()} poses")

    @property
    def verdict(self) -> Verdict:
        """How far to trust a single estimate (batch shape ()): the worse of its geometry and its metres.

        No pose, or one that is probably wrong, has failed; a confidence that is no probability says nothing. Metres are
        doubtful unless an interval within ``RELIABLE_METRES`` stands behind them, and so is what has ``doubts``. Raises
        ValueError for a batch.
        """
        self._require_single("a verdict")
        if not bool(self.success):
            return "failed"
        if not self.probability_of:
            return "uncalibrated"
        confidence = float(self.confidence)
        if confidence < FAILED:
            return "failed"
        sure = confidence >= RELIABLE and not self.doubts and not self.metres_are_doubtful
        return "reliable" if sure else "doubtful"

    @property
    def reasons_for_doubt(self) -> tuple[str, ...]:
        """Why a single estimate is doubtful, a phrase each, as the command line says it; none for a sure one or a failure.

        Of a pose that nothing was measured for (``uncalibrated``), only ``doubts``.
        """
        if self.verdict != "doubtful":
            return self.doubts if self.verdict == "uncalibrated" else ()
        few = () if float(self.confidence) >= RELIABLE else ("not enough speaks for this pose to rely on it",)
        metres = ("its distance may be off by more than a quarter",) if self.metres_are_doubtful else ()
        return (*self.doubts, *few, *metres)

    @property
    def metres_are_doubtful(self) -> bool:
        """Whether a single estimate tells metres without an interval of at most ``RELIABLE_METRES`` behind them."""
        if not self.details or not self.details[0].metric:
            return False
        if self.distance_interval is None:
            return True
        low, high = self.distance_interval
        return high - low > RELIABLE_METRES * (high + low)

    @property
    def reason(self) -> FailureReason | None:
        """Why a single estimate failed, None on success."""
        self._require_single("a reason")
        return self.reasons[0]

    @property
    def detail(self) -> PairDetails | LocalizationDetails | None:
        """How a single estimate came about: of a pair or of a localization, None where a method
        tells nothing."""
        self._require_single("a detail")
        if self.details:
            return self.details[0]
        return self.localization[0] if self.localization else None

    def matrix(self) -> Float[np.ndarray, "*b 4 4"]:
        """The pose as homogeneous matrices, float64 numpy; NaN where it failed."""
        return self.pose.detach().to("cpu", torch.float64).matrix().numpy()

    def to_dict(self) -> dict[str, Any]:
        """A single estimate as numbers and words for JSON: its entry of ``metriloc relpose
        --json``, without photos.

        A failed one has no pose in it. Raises ValueError for a batch.
        """
        self._require_single("a dictionary")
        entry: dict[str, Any] = {
            "success": bool(self.success),
            "reason": self.reason,
            "confidence": float(self.confidence),
            "verdict": self.verdict,
            "doubts": list(self.reasons_for_doubt),
            "confidence_is_probability_of": self.probability_of or None,
        }
        entry.update({} if self.detail is None else self.detail.to_dict())
        if not (entry["success"] and bool(self.pose.is_finite())):
            return entry
        found = self.pose.detach()
        center = found.center().tolist()
        if self.localization:
            pose = found.to_dict(to_frame="query camera", from_frame="map", unit="unit of the map")
            return {**entry, "cam_from_world": pose, "camera_center": center}
        unit = "metre" if entry.get("metric", True) else "unknown scale"
        low_high = self.distance_interval
        return {
            **entry,
            "query_from_reference": found.to_dict(to_frame="query camera", from_frame="reference camera", unit=unit),
            "camera_center_in_reference": center,
            "distance": float(found.distance()),
            "distance_interval_90": None if low_high is None else list(low_high),
            "rotation_angle_deg": math.degrees(float(found.angle())),
        }

    def __repr__(self) -> str:
        """At most three lines: the answer, how sure it is, and where the metres come from."""
        lines = self._batch_lines() if self.success.ndim else self._lines()
        return "PoseEstimate: " + "\n  ".join(lines)

    def _lines(self) -> list[str]:
        sure = f"confidence {float(self.confidence):.2f}, {self.verdict}"
        if not (bool(self.success) and bool(self.pose.is_finite())):
            return [f"no pose ({self.reason or 'no reason given'})", sure]
        sure = f"{sure}: {'; '.join(self.reasons_for_doubt)}" if self.reasons_for_doubt else sure
        pose, detail = self.pose.detach(), self.detail
        if isinstance(detail, LocalizationDetails):
            answer = words_of_place(pose.center().tolist(), detail.num_points, len(detail.references))
        else:
            metric, source = (True, "") if detail is None else (detail.metric, detail.scale_source)
            center, turned = pose.center().tolist(), math.degrees(float(pose.angle()))
            answer = words_of_motion(center, turned, metric, source, self.distance_interval)
        return [answer[0], sure, *answer[1:]]

    def _batch_lines(self) -> list[str]:
        found = self.success.flatten().tolist()
        distances = self.pose.detach().distance().flatten().tolist()
        sources = [d.scale_source for d in self.details if d.metric]
        return words_of_batch(found, self.reasons, distances, self.confidence.flatten().tolist(), sources)

    def _repr_html_(self) -> str | None:
        """What a notebook shows, where the photos are known."""
        return None if self.page is None or self.success.ndim else self.page(self)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without its page, which holds the photos and perhaps a map."""
        return {**self.__dict__, "page": None}

    def _require_single(self, what: str) -> None:
        if self.success.ndim:
            raise ValueError(f"{what} is of a single estimate, got batch shape {tuple(self.success.shape)}")

    @classmethod
    def failure(cls, reason: FailureReason, details: PairDetails | LocalizationDetails | None = None) -> PoseEstimate:
        """One failed estimate, batch shape (): NaN pose, confidence 0."""
        nan = Pose(torch.full((3, 3), torch.nan), torch.full((3,), torch.nan))
        no, zero = torch.tensor(False), torch.tensor(0.0)
        if isinstance(details, LocalizationDetails):
            return cls(nan, no, zero, (reason,), localization=(details,))
        details = details or PairDetails(score=0.0, inliers=Correspondences.empty())
        return cls(nan, no, zero, (reason,), (details,))

    @classmethod
    def stack(cls, estimates: Sequence[PoseEstimate]) -> PoseEstimate:
        """Single estimates (batch shape ()) -> one of batch shape (n,)."""
        return cls(
            Pose.stack([e.pose for e in estimates]),
            torch.stack([e.success for e in estimates]),
            torch.stack([e.confidence for e in estimates]),
            tuple(r for e in estimates for r in e.reasons),
            tuple(d for e in estimates for d in e.details),
            tuple(d for e in estimates for d in e.localization),
            estimates[0].probability_of if len({e.probability_of for e in estimates}) == 1 else "",
        )


class PhotoFeatures(Protocol):
    """What a relative-pose method keeps of one photo, as far as pictures and reports need to know."""

    @property
    def view(self) -> View:
        """The photo."""
        ...

    @property
    def cell(self) -> tuple[float, float]:
        """Pixels of the photo that a cell of the maps is wide and high; the first cell is at the top left corner."""
        ...

    def score_map(self) -> Float[Tensor, "h w"]:
        """How much each cell counts as a keypoint; larger is more."""
        ...

    def depth_map(self) -> Float[Tensor, "h w"] | None:
        """Predicted depth in metres, or None when the method predicts none."""
        ...

    @property
    def depth_origin(self) -> str:
        """Where the depth that is used of the photo comes from, as captions say it: ``given``, ``predicted by NAME``."""
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


@dataclass(frozen=True, eq=False)
class SfmMap:
    """A reconstruction to localise in: images with known cameras and poses, and the 3D points they see.

    names: of the images, as in the reconstruction. cameras: one an image, pixels with the first centre at (0, 0).
    cam_from_world: float64. xyz: the points, float64, world. image_index, point_index, uv: the observations as parallel
    arrays, sorted by image; uv in pixels of that image. folder: where the image files are, if they are at hand.
    originals: by name, cameras of photos whose distortion is none of ours; for them, the map is about undistorted
    copies, which ``load_map_view`` makes.
    """

    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    cam_from_world: Pose
    xyz: Float[Tensor, "P 3"]
    image_index: Int[Tensor, " O"]
    point_index: Int[Tensor, " O"]
    uv: Float[Tensor, "O 2"]
    folder: Path | None = None
    originals: Mapping[str, ColmapCamera] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images, observations = len(self.names), len(self.image_index)
        if len(self.cameras) != images or self.cam_from_world.shape != (images,):
            raise ValueError(
                f"SfmMap: {images} names, {len(self.cameras)} cameras, poses {tuple(self.cam_from_world.shape)}"
            )
        if len(set(self.names)) != images:
            raise ValueError("SfmMap: two images have the same name")
        if len(self.point_index) != observations or self.uv.shape != (observations, 2):
            raise ValueError(f"SfmMap: {observations} image indices, {len(self.point_index)} point indices")
        for what, index, count in (("image", self.image_index, images), ("point", self.point_index, len(self.xyz))):
            if observations and not 0 <= int(index.min()) <= int(index.max()) < count:
                raise ValueError(f"SfmMap: an observation names {what} {int(index.max())} of {count}")
        if bool((self.image_index.diff() < 0).any()):
            raise ValueError("SfmMap: observations must be sorted by image")

    def __len__(self) -> int:
        return len(self.names)

    def detach(self) -> SfmMap:
        """Without gradients; the map itself where there are none."""
        tensors = (self.xyz, self.uv, self.cam_from_world.R, self.cam_from_world.t)
        own = any(tensor.requires_grad for tensor in tensors)
        if not own and not any(camera.f.requires_grad or camera.c.requires_grad for camera in self.cameras):
            return self
        return replace(
            self,
            cameras=tuple(camera.detach() for camera in self.cameras),
            cam_from_world=self.cam_from_world.detach(),
            xyz=self.xyz.detach(),
            uv=self.uv.detach(),
        )

    def index(self, name: str) -> int:
        """Which image has this name; ValueError when none has."""
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(f"the map has no image {name!r} (it has {len(self)})") from None

    def observations_of(self, image: int) -> slice:
        """Where the observations of an image stand in ``image_index``, ``point_index`` and ``uv``."""
        low, high = torch.searchsorted(self.image_index, torch.tensor([image, image + 1])).tolist()
        return slice(low, high)

    def track_lengths(self) -> Int[Tensor, " P"]:
        """How many observations each point has."""
        return torch.bincount(self.point_index, minlength=len(self.xyz))

    def points_seen_by(self, images: Sequence[int], min_track: int = 1) -> Int[Tensor, " n"]:
        """Sorted indices of the points that any of the images observes and at least ``min_track`` images in all do."""
        seen = torch.zeros(len(self.xyz), dtype=torch.bool)
        for image in images:
            seen[self.point_index[self.observations_of(image)]] = True
        return (seen & (self.track_lengths() >= min_track)).nonzero().squeeze(-1)

    def assign_points(self, images: Sequence[int], min_track: int = 1) -> list[tuple[int, Int[Tensor, " n"]]]:
        """(image, its observations that are used), in the order given: each point goes to the first image that sees it.

        Only points that at least ``min_track`` images observe. Images that are left with no point are not listed.
        """
        free = self.track_lengths() >= min_track
        found = []
        for image in images:
            seen = self.observations_of(image)
            chosen = free[self.point_index[seen]].nonzero().squeeze(-1) + seen.start
            free[self.point_index[chosen]] = False
            if len(chosen):
                found.append((image, chosen))
        return found

    def covisible(self, image: int, min_shared: int = 1) -> list[tuple[int, int]]:
        """(image, shared points) of the others that share points with this one, the most first (ties by index)."""
        seen = torch.zeros(len(self.xyz), dtype=torch.bool)
        seen[self.point_index[self.observations_of(image)]] = True
        shared = torch.bincount(self.image_index[seen[self.point_index]], minlength=len(self))
        found = [(i, n) for i, n in enumerate(shared.tolist()) if n >= min_shared and i != image]
        return sorted(found, key=lambda entry: -entry[1])

    def without(self, images: Sequence[int]) -> SfmMap:
        """The map as if these images had never been taken: they and their observations are gone, points stay."""
        gone = set(images)
        kept = [i for i in range(len(self)) if i not in gone]
        place = torch.full((len(self),), -1)
        place[kept] = torch.arange(len(kept))
        observed = place[self.image_index] >= 0
        return SfmMap(
            tuple(self.names[i] for i in kept),
            tuple(self.cameras[i] for i in kept),
            self.cam_from_world[torch.tensor(kept, dtype=torch.long)],
            self.xyz,
            place[self.image_index[observed]],
            self.point_index[observed],
            self.uv[observed],
            self.folder,
            self.originals,
        )


@dataclass(frozen=True)
class QueryNeeds:
    """What a localizer wants to be handed with a query.

    references: how many photos of the map it compares; None leaves it to the caller. whole_lists: it ranks and cuts
    lists of references itself. hints: ``localize`` takes ``hints`` (what hloc knows of the query). matches: it looks at
    the matches in them. start: it can begin at a first pose. focal_checked: it asks itself whether the points of the map
    speak against the focal length.
    """

    references: int | None = None
    whole_lists: bool = False
    hints: bool = False
    matches: bool = False
    start: bool = True
    focal_checked: bool = False


def needs_of(method: object) -> QueryNeeds:
    """What a localizer says of itself in its attribute ``needs``; the usual where it says nothing."""
    needs = getattr(method, "needs", None)
    return needs if isinstance(needs, QueryNeeds) else QueryNeeds()


class AbsolutePoseMethod(Protocol):
    """A photo and a map in, the pose of the photo's camera in the map out.

    May say in an attribute ``needs`` what it wants beside that (``QueryNeeds``).
    """

    @property
    def name(self) -> str:
        """How the command line calls the method."""
        ...

    @property
    def weights_id(self) -> str:
        """Which weights these are; equal only for equal numbers."""
        ...

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
        """``cam_from_world`` of the query, batch shape (). references: names of images of the map that probably see the
        same, the best first; init: a first guess of ``cam_from_world``; trace: keep in ``trace`` of the estimate how it
        came about."""
        ...


@dataclass(frozen=True, eq=False)
class StepOutput:
    """What a method gives the trainer for one batch. loss: to minimise, a scalar; metrics: numbers for the log."""

    loss: Float[Tensor, ""]
    metrics: Mapping[str, float] = field(default_factory=dict)


class Trainable(Protocol):
    """What the trainer knows of a method; it must also be an ``nn.Module``."""

    def training_step(self, batch: Any, step: int, generator: torch.Generator) -> StepOutput:
        """The loss of one batch, with gradients. step: optimiser steps done so far (for schedules); generator: the only
        source of chance, on the CPU."""
        ...
