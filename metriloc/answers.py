"""One photo in a map: what it is compared with, and the answer with its doubts, unit and timings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from metriloc.geometry import Pose
from metriloc.opened_map import OpenedMap
from metriloc.turns import turned_back
from metriloc.types import PoseEstimate, View


@dataclass(frozen=True, eq=False)
class Asked:
    """What a photo is compared with. references: names of images of the map, the best first. init: a first guess of
    ``cam_from_world``. notes: what is to be known of them. more: what else the method takes. failed: why there is nothing
    to compare it with."""

    references: Sequence[str]
    init: Pose | None = None
    notes: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    failed: PoseEstimate | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """estimate: of the photo as it is held. view: with the camera that the estimate rests on."""

    estimate: PoseEstimate
    view: View
    asked: Asked


def doubted(estimate: PoseEstimate, doubt: str | None) -> PoseEstimate:
    """The estimate, doubtful at best where there is a doubt."""
    return estimate if doubt is None else replace(estimate, doubts=(*estimate.doubts, doubt))


def of_map(estimate: PoseEstimate, opened: OpenedMap) -> PoseEstimate:
    """The estimate with the unit of its map. It says, too, what makes all poses in the map doubtful."""
    unit = opened.unit
    details = tuple(replace(d, unit=unit) for d in estimate.localization)
    return doubted(replace(estimate, localization=details), opened.doubt if bool(estimate.success) else None)


def with_timings(estimate: PoseEstimate, seconds: Mapping[str, float]) -> PoseEstimate:
    """With more stages in its timings."""
    details = tuple(replace(d, timings={**seconds, **d.timings}) for d in estimate.localization)
    return replace(estimate, localization=details)


def answer_turned_back(answer: Answer, view: View, quarters: int) -> Answer:
    """What was found for the photo turned by quarters, for the photo."""
    known = answer.view
    if known.focal_sigma != view.focal_sigma:  # it was estimated
        camera = known.camera.turn(-quarters)
        view = replace(view, camera=camera, intrinsics_source=known.intrinsics_source, focal_sigma=known.focal_sigma)
    return Answer(turned_back(answer.estimate, quarters, view.size), view, answer.asked)
