"""A record of an alignment: handed to ``PixLoc.localize`` as ``log``, it keeps every iteration in a form to plot or store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from metriloc.geometry import Pose
from metriloc.methods.pixloc.align import Iteration


@dataclass(frozen=True, eq=False)
class TrackedStep:
    """One iteration. stage: image scale and level, as in the estimate's stages; index: from 0 in the stage.

    pose: ``cam_from_world`` after it; cost: mean over the observations in view, before it, by confidence (what is
    minimised); unweighted_cost: without (what the published tracker keeps); observations: so many are in view; translation
    (units of the map), rotation (radians): length of the update, also when it was rejected.
    """

    stage: str
    index: int
    pose: Pose
    cost: float
    unweighted_cost: float
    observations: int
    translation: float
    rotation: float
    accepted: bool


@dataclass
class Tracker:
    """Collects the iterations of one query, in order.

    Of a batch (training) it takes the first element.
    """

    steps: list[TrackedStep] = field(default_factory=list)

    def __call__(self, stage: str, iteration: Iteration) -> None:
        """What ``PixLoc.localize`` calls every iteration."""
        self.steps.append(
            TrackedStep(
                stage,
                iteration.index,
                iteration.pose[0].to("cpu", torch.float64),
                float(iteration.at.mean_cost()[0]),
                float(iteration.at.mean_cost(weighted=False)[0]),
                int(iteration.at.valid[0].sum()),
                float(iteration.delta.distance()[0]),
                float(iteration.delta.angle()[0]),
                iteration.accepted is None or bool(iteration.accepted[0]),
            )
        )

    def beside(self, other: Callable[[str, Iteration], None] | None) -> Callable[[str, Iteration], None]:
        """Tells this record and another listener."""
        if other is None:
            return self

        def both(stage: str, iteration: Iteration) -> None:
            self(stage, iteration)
            other(stage, iteration)

        return both

    def stages(self) -> dict[str, list[TrackedStep]]:
        """Steps by stage, in order."""
        found: dict[str, list[TrackedStep]] = {}
        for step in self.steps:
            found.setdefault(step.stage, []).append(step)
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON: a list for each number, an entry an iteration.

        Quaternions are w x y z, NaN is null.
        """
        steps = self.steps
        return {
            "stage": [step.stage for step in steps],
            "index": [step.index for step in steps],
            "cost": [_plain(step.cost) for step in steps],
            "unweighted_cost": [_plain(step.unweighted_cost) for step in steps],
            "observations": [step.observations for step in steps],
            "translation": [_plain(step.translation) for step in steps],
            "rotation_deg": [_plain(math.degrees(step.rotation)) for step in steps],
            "accepted": [step.accepted for step in steps],
            "quaternion_wxyz": [[_plain(v) for v in step.pose.quaternion().tolist()] for step in steps],
            "translation_cam_from_world": [[_plain(v) for v in step.pose.t.tolist()] for step in steps],
        }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
