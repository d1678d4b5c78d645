"""What the library knows of a method: protocols for pairs, for maps, and for the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.types.estimate import PoseEstimate
from metriloc.types.photos import View
from metriloc.types.sfm_map import SfmMap


class PhotoFeatures(Protocol):
    """What a relative-pose method keeps of one photo.

    As far as pictures and reports need to know.

    >>> from metriloc.evaluation.identity import IdentityPose
    >>> features: PhotoFeatures = IdentityPose().extract(metriloc.load_view("reference.jpg"))
    >>> features.view.size, features.depth_map() is None
    ((640, 480), True)
    """

    @property
    def view(self) -> View:
        """The photo."""
        ...

    @property
    def cell(self) -> tuple[float, float]:
        """Pixels of the photo that a cell is wide and high.

        Cells are those of the maps; the first one is at the top left corner.
        """
        ...

    def score_map(self) -> Float[Tensor, "h w"]:
        """How much each cell counts as a keypoint; larger is more."""
        ...

    def depth_map(self) -> Float[Tensor, "h w"] | None:
        """Predicted depth in metres, or None when the method predicts none."""
        ...

    @property
    def depth_origin(self) -> str:
        """Where the depth that is used comes from, for captions.

        They say ``given``, ``predicted by NAME``.
        """
        ...


class RelativePoseMethod(Protocol):
    """Two photos in, the pose of the second camera out. It is relative to the first.

    ``extract`` does the work that belongs to one photo; ``relative_pose`` takes photos or what ``extract`` made of
    them, so that one reference serves many queries for the price of one extraction.

    >>> method: metriloc.RelativePoseMethod = metriloc.load("xfeat")
    >>> reference = method.extract(metriloc.load_view("reference.jpg"))  # once, for many queries
    >>> bool(method.relative_pose(reference, metriloc.load_view("query.jpg")).success)
    True
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
        """``query_from_reference`` of two photos, batch shape ().

        - reference, query: Views, or what ``extract`` made of them.
        - seed: same seed, same answer.
        """
        ...


@dataclass(frozen=True)
class QueryNeeds:
    """What a localizer wants to be handed with a query.

    references: how many photos of the map it compares; None leaves it to the caller. whole_lists: it ranks and cuts
    lists of references itself. hints: ``localize`` takes ``hints`` (what hloc knows of the query). matches: it looks at
    the matches in them. start: it can begin at a first pose. focal_checked: it asks itself whether the points of the map
    speak against the focal length. truth: ``localize`` takes ``truth``, the true pose, and tells what its stages cost there
    (``LocalizationDetails.costs_at_truth``); the answer does not depend on it.

    >>> QueryNeeds(references=5).references  # the five best ones are enough
    5
    """

    references: int | None = None
    whole_lists: bool = False
    hints: bool = False
    matches: bool = False
    start: bool = True
    focal_checked: bool = False
    truth: bool = False


def needs_of(method: object) -> QueryNeeds:
    """What a localizer says of itself in its attribute ``needs``.

    The usual where it says nothing.

    >>> needs_of("nothing that says what it needs").start
    True
    """
    needs = getattr(method, "needs", None)
    return needs if isinstance(needs, QueryNeeds) else QueryNeeds()


class AbsolutePoseMethod(Protocol):
    """A photo and a map in, a pose out. It is that of the photo's camera in the map.

    May say in an attribute ``needs`` what it wants beside that (``QueryNeeds``).

    >>> method: metriloc.AbsolutePoseMethod = metriloc.load("nre-xfeat")
    >>> query, scene = metriloc.load_view("query.jpg"), metriloc.read_map("map")
    >>> bool(method.localize(query, scene, ["reference.jpg"]).success)
    True
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
        """``cam_from_world`` of the query, batch shape ().

        - query, scene: the photo and the map.
        - references: names of images of the map that probably see the same, the best first.
        - init: a first guess of ``cam_from_world``.
        - seed: same seed, same answer.
        - trace: keep in ``trace`` of the estimate how it came about.
        """
        ...


@dataclass(frozen=True, eq=False)
class StepOutput:
    """What a method gives the trainer for one batch. loss: to minimise, a scalar; metrics: numbers for the log.

    >>> StepOutput(torch.tensor(0.5), {"inliers": 12.0}).metrics["inliers"]
    12.0
    """

    loss: Float[Tensor, ""]
    metrics: Mapping[str, float] = field(default_factory=dict)


class Trainable(Protocol):
    """What the trainer knows of a method. It must also be an ``nn.Module``.

    >>> class Method(torch.nn.Linear):
    ...     def training_step(self, batch: Any, step: int, generator: torch.Generator) -> StepOutput:
    ...         return StepOutput(self(batch).square().mean())
    >>> method: Trainable = Method(2, 1)
    >>> method.training_step(torch.zeros(4, 2), 0, torch.Generator()).loss.ndim
    0
    """

    def training_step(self, batch: Any, step: int, generator: torch.Generator) -> StepOutput:
        """The loss of one batch, with gradients.

        - batch: what the source of batches gives.
        - step: optimiser steps done so far (for schedules).
        - generator: the only source of chance, on the CPU.
        """
        ...
