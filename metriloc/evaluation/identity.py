"""The rival that every method must beat: the query camera stands where the reference camera stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.calibration import Calibration, judged, that_fit
from metriloc.geometry import Pose
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View


@dataclass(frozen=True, eq=False)
class UnseenPhoto:
    """A photo of which nothing is known (a ``PhotoFeatures``)."""

    view: View

    @property
    def cell(self) -> tuple[float, float]:
        """One cell, the whole photo."""
        width, height = self.view.size
        return float(width), float(height)

    def score_map(self) -> Float[Tensor, "1 1"]:
        """Nothing is a keypoint."""
        return torch.zeros(1, 1)

    def depth_map(self) -> None:
        """No depth is known."""
        return None

    @property
    def depth_origin(self) -> str:
        """Of a depth map that came with the photo."""
        return "given"


class IdentityPose:
    """Always the identity pose, with a constant confidence.

    calibrations: of this rival; they make it a probability.
    """

    name = "identity"
    weights_id = "none"

    def __init__(self, calibrations: Sequence[Calibration] = ()) -> None:
        self.calibrations = that_fit(self.name, self.weights_id, calibrations)

    def extract(self, view: View) -> UnseenPhoto:
        """Nothing is looked at."""
        return UnseenPhoto(view.detach())

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """The identity, batch shape (), confidence one half."""
        details = PairDetails(0.0, Correspondences.empty(), True, "no motion is metric")
        estimate = PoseEstimate(Pose.identity(()), torch.tensor(True), torch.tensor(0.5), (None,), (details,))
        views = (getattr(photo, "view", photo) for photo in (reference, query))
        return judged(estimate, self.calibrations, [view for view in views if isinstance(view, View)])
