"""The matches of two photos, and what is asked of every pose that may explain them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, sample_depth
from metriloc.methods.matching.stated_focal import pair_contradiction
from metriloc.solvers.joint import DepthError
from metriloc.solvers.shared_focal import shared_focal_factor
from metriloc.solvers.support import RIVAL, has_rival, support_statistics
from metriloc.solvers.two_view import sampson_errors
from metriloc.types import Correspondences, FailureReason, MetresSource, PairDetails, View

Solver = Literal["auto", "essential", "pnp", "rigid"]
"""auto: essential matrix, and with depths one fit of pose and length together, also from PnP where that is needed;
essential: the same without PnP; pnp: points lifted by the reference's depth; rigid: points lifted in both (3D-3D)."""


CameraHeight = float | Literal["handheld"]
"""Metres of both cameras above the ground; handheld: what is usual of cameras in hands, see ``height.HANDHELD``."""
DEPTH_MAP = "depth map"
"""What results call depths that came with a photo."""


@dataclass(frozen=True)
class SolvingConfig:
    """Settings of a fit to matches."""

    solver: Solver = "auto"
    """See ``Solver``."""
    max_error_px: float = 1.5
    """Inlier threshold in pixels of the photos."""
    distance: float | None = None
    """Metres between the cameras, if known."""
    camera_height: CameraHeight | None = None
    """See ``CameraHeight``."""
    rigid_error: float = 0.1
    """Relative error of depths up to which the rigid solver counts a match."""
    depth_name: str = DEPTH_MAP
    """What the depths of a photo are called where the result says where its metres come from."""
    depth_error: DepthError | None = None
    """How they err, None for what is known of depths of that name."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A candidate pose (1_from_0) and the matches it explains.

    What its length means is as in ``PairDetails``. misfit: a depth map behind the length does not
    fit the matches.
    """

    pose: Pose | None
    inliers: Bool[Tensor, " N"]
    reason: FailureReason | None
    metric: bool = False
    scale_source: str = ""
    scale_sigma: float = float("nan")
    sources: tuple[MetresSource, ...] = ()
    doubts: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    misfit: bool = False


@dataclass(frozen=True, eq=False)
class MatchedPair:
    """The matches of two photos, pixels of each."""

    uv0: Float[Tensor, "N 2"]
    uv1: Float[Tensor, "N 2"]
    similarity: Float[Tensor, " N"]
    view0: View
    view1: View

    @property
    def cameras(self) -> tuple[Camera, Camera]:
        """Of reference and query."""
        return self.view0.camera, self.view1.camera

    @property
    def has_depth(self) -> bool:
        """Whether either photo comes with depths."""
        return self.view0.depth is not None or self.view1.depth is not None

    def depth(self, k: int) -> Float[Tensor, " N"] | None:
        """Of photo ``k`` at the matches, metres, 0 where unknown.

        None when the photo has no depths.
        """
        view, uv = ((self.view0, self.uv0), (self.view1, self.uv1))[k]
        return None if view.depth is None else sample_depth(view.depth, uv, view.size)[0]

    def judged(self, pose: Pose | None, max_error: float, depth0: Tensor | None = None) -> Fit:
        """The same inlier test for every candidate of a kind.

        A match counts when its epipolar error is small and its point in front of both cameras; with depth also when its
        reprojection error is small, because without parallax the epipolar lines mean nothing.

        - pose: the candidate.
        - max_error: pixels.
        - depth0: of the matches in the reference, metres, where it is known.
        """
        if pose is None:
            return Fit(None, torch.zeros(len(self.uv0), dtype=torch.bool), "degenerate")
        squared, in_front = sampson_errors(pose, self.uv0, self.uv1, self.cameras)
        inliers = in_front & (squared <= max_error**2)
        if depth0 is not None:
            seen, in_view = self.view1.camera.project(pose.transform(self.view0.camera.lift(self.uv0, depth0)))
            close = (seen - self.uv1).norm(dim=-1) <= 2 * max_error
            inliers = inliers | (in_view & close & (depth0 > 0))
        return Fit(pose, inliers, None)

    def details(self, fit: Fit | None, timings: dict[str, float], setup: str = "") -> PairDetails:
        """What the result carries besides the pose.

        - fit: None where there is none.
        - timings: seconds by stage.
        - setup: what calibrations call the way it was found.
        """
        chosen = torch.zeros(len(self.uv0), dtype=torch.bool) if fit is None else fit.inliers
        order = chosen.nonzero().squeeze(-1)
        order = order[self.similarity[order].argsort(descending=True, stable=True)]
        found = Fit(None, chosen, None, scale_source="no pose was found") if fit is None else fit
        statistics: dict[str, float] = {}
        if found.pose is not None:
            statistics = support_statistics(found.pose, self.uv0, self.uv1, chosen, self.cameras)
        return PairDetails(
            float(len(order)),
            self._matches(order),
            found.metric,
            found.scale_source,
            found.scale_sigma,
            setup,
            timings=timings,
            statistics=statistics,
            messages=found.messages,
            metres_sources=found.sources,
            matches=self._matches(torch.arange(len(self.uv0))),
        )

    def _matches(self, order: Tensor) -> Correspondences:
        """Those of the given numbers, with their depths, NaN where unknown."""
        nan = torch.full((len(order),), torch.nan)
        depths = []
        for k in (0, 1):
            depth = self.depth(k)
            depths.append(nan if depth is None else torch.where(depth[order] > 0, depth[order], nan))
        return Correspondences(self.uv0[order], self.uv1[order], depths[0], depths[1], self.similarity[order])

    def doubts(self, fit: Fit, max_error: float, seed: int) -> tuple[str, ...]:
        """What speaks against a fit.

        Its own doubts, and a second pose that explains the photos nearly as well; without either, focal lengths that explain
        them better.

        - fit: what was found.
        - max_error: pixels.
        - seed: of the looking.
        """
        if fit.pose is None:
            return ()
        if has_rival(fit.pose, self.uv0, self.uv1, fit.inliers, self.cameras, max_error, seed):
            return (*fit.doubts, RIVAL)
        if fit.doubts:
            return fit.doubts
        focal = shared_focal_factor(fit.pose, self.uv0, self.uv1, self.cameras, max_error, seed)
        against = pair_contradiction((self.view0, self.view1), focal)
        return () if against is None else (against,)
