"""The rival that every method must beat: the query camera stands where the reference camera stood."""

from __future__ import annotations

from typing import Any

import torch

from metriloc.geometry import Pose
from metriloc.types import Correspondences, PairDetails, PoseEstimate


class IdentityPose:
    """Always the identity pose, with a constant confidence."""

    name = "identity"
    weights_id = "none"

    def extract(self, view: Any) -> Any:
        """Nothing is looked at."""
        return view

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """The identity, batch shape (), confidence one half."""
        details = PairDetails(0.0, Correspondences.empty(), True, "no motion is metric")
        return PoseEstimate(Pose.identity(()), torch.tensor(True), torch.tensor(0.5), (None,), (details,))
