"""How one pose came about: correspondences, sources of metres, stages; and why there may be none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.wording import finite_or_none, rounded

MapUnit = Literal["metre", "unit of the map"]
"""What lengths in a map are in."""
FailureReason = Literal[
    "too_few_matches",
    "degenerate",
    "non_finite",
    "too_few_points",
    "no_reference",
    "flat_maps",
    "diverged",
    "unsupported",
    "no_photo",
]
"""Why a pose could not be found: fewer usable correspondences than the solver needs; a configuration that does not fix
the pose (collinear, coincident, no parallax where parallax is needed); NaN or infinite values in the inputs; fewer
points of the map in view than the solver needs; no usable reference image; nothing in the photo tells one place from
another; the optimisation left the scene; a pose came out, but so little speaks for it that it is no answer; the photo could
not be read, one of many."""


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Points seen in both images of a pair. uv: pixels; depth: metres, NaN where unknown; probability: of the match.

    >>> one = torch.ones(1)
    >>> found = Correspondences(torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 4.0]]), one, one, one)
    >>> len(found), (found.uv1 - found.uv0).tolist()
    (1, [[2.0, 0.0]])
    """

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

    >>> WinningHypothesis(0, 17, torch.tensor([4, 8, 15]), Pose.identity(), refits=2).minimal.tolist()
    [4, 8, 15]
    """

    correspondence_set: int
    index: int
    minimal: Int[Tensor, " n"]
    query_from_reference: Pose
    refits: int


@dataclass(frozen=True)
class MetresSource:
    """What one source of metres says. metres: the distance of the cameras by this source alone; sigma: standard deviation
    of its logarithm; share: of this source in the answer, 0..1.

    >>> source = MetresSource("the depth map of the reference", metres=0.61, sigma=0.05, share=1.0)
    >>> f"{source.metres} m from {source.name}"
    '0.61 m from the depth map of the reference'
    """

    name: str
    metres: float
    sigma: float
    share: float


@dataclass(frozen=True)
class ReferenceSaid:
    """What one of several references said of the query. used: whether it has a say in the answer. reason: why it has no
    pose, None where it has one; confidence, verdict: its own. rotation_deg, direction_deg: how far its own pose is from
    the answer, NaN where nothing tells.

    >>> said = ReferenceSaid("a.jpg", True, None, 0.97, "reliable", rotation_deg=0.2, direction_deg=0.9)
    >>> said.used, said.verdict
    (True, 'reliable')
    """

    name: str
    used: bool
    reason: FailureReason | None
    confidence: float
    verdict: str
    rotation_deg: float
    direction_deg: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        degrees = {name: finite_or_none(getattr(self, name)) for name in ("rotation_deg", "direction_deg")}
        return {**asdict(self), **degrees}


@dataclass(frozen=True, eq=False)
class PairDetails:
    """How one relative pose came about.

    - score: the solver's own support, unnormalised (for MicKey the soft-inlier sum, 0..S).
    - metric: whether the translation is in metres; scale_source says why or why not.
    - scale_sigma: standard deviation of the logarithm of the distance that comes from this source
      alone, NaN when it is not known.
    - setup: what made the pose besides the weights (solver, source of depth), as calibrations name
      it.
    - timings: seconds by stage.
    - statistics: numbers that only grow with what speaks for the pose, by name; what confidence
      calibration may read.
    - messages: what is to be known of the way.
    - metres_sources: what each source says of the distance, where the metres have sources that can
      be named.
    - matches: all that were looked at, agreeing or not, where a method keeps them.
    - references: what each said, where there are several.

    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", method="xfeat", distance=0.61)
    >>> estimate.detail.metric, estimate.detail.scale_source
    (True, 'the distance of 0.61 m that was given')
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
    references: tuple[ReferenceSaid, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Its part of ``PoseEstimate.to_dict``."""
        several = {"references": [said.to_dict() for said in self.references]} if self.references else {}
        return {
            "messages": list(self.messages),
            "score": finite_or_none(self.score),
            "num_inliers": len(self.inliers),
            "metric": self.metric,
            "scale_source": self.scale_source,
            "metres_sources": [asdict(source) for source in self.metres_sources],
            "timings_s": rounded(self.timings),
            **several,
        }


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage of a localisation. cam_from_world: its pose; cost: its objective there (lower is better, comparable
    within one stage only); support: mean evidence a point gives, 0..1, 1 is best.

    >>> Stage("coarse", Pose.identity(), cost=0.2, support=0.8).support
    0.8
    """

    name: str
    cam_from_world: Pose
    cost: float
    support: float = 0.0


@dataclass(frozen=True, eq=False)
class LocalizationDetails:
    """How one absolute pose came about.

    - references: names of the images that were used.
    - num_points: points of the map the last stage used.
    - stages: in order, from the start to the result.
    - timings: seconds by stage.
    - messages: what went wrong on the way, one sentence each.
    - statistics, setup: as in ``PairDetails``.
    - costs_at_truth: what the objective of each stage, by its name, is at the true pose, where that
      was told.
    - unit: of lengths in the map, "metre" where it knows its metres.

    >>> estimate = metriloc.localize("query.jpg", "map", method="nre-xfeat")
    >>> estimate.detail.references, [stage.name for stage in estimate.detail.stages]
    (('query.jpg',), ['p3p', 'coarse', 'fine'])
    """

    references: tuple[str, ...] = ()
    num_points: int = 0
    stages: tuple[Stage, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)
    setup: str = ""
    costs_at_truth: Mapping[str, float] = field(default_factory=dict)
    unit: MapUnit = "unit of the map"

    def to_dict(self) -> dict[str, Any]:
        """Its part of ``PoseEstimate.to_dict``."""
        return {
            "messages": list(self.messages),
            "references": list(self.references),
            "num_points": self.num_points,
            "timings_s": rounded(self.timings),
        }
