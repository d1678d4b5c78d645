"""From matched pixels to a metric pose: which solvers a matching baseline may use, and which answer wins.

Photos alone fix rotation and direction (essential matrix). Metres come from depth maps or a known distance; without
either the result says ``metric=False`` and why.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, sample_depth
from metriloc.solvers.relative import essential_pose, pnp_from_depth, rigid_from_depths
from metriloc.solvers.reprojection import PolishConfig, polish
from metriloc.solvers.support import RIVAL, has_rival, support_statistics
from metriloc.solvers.two_view import sampson_errors, scale_from_depth
from metriloc.types import Correspondences, FailureReason, PairDetails, View

_DEPTH_SIGMA = 0.05  # of the logarithm of a measured depth

Solver = Literal["auto", "essential", "pnp", "rigid"]
"""auto: essential matrix and PnP, the one that explains more matches; essential: with the scale from depths; pnp: points
lifted by the reference's depth; rigid: points lifted in both photos (3D-3D)."""


@dataclass(frozen=True)
class SolvingConfig:
    """solver: see ``Solver``. max_error_px: inlier threshold in pixels of the photos. distance: metres between the
    cameras, if known. depth_error: relative error of depths up to which the rigid solver counts a match. depth_name: what
    the depths of a photo are called where the result says where its metres come from."""

    solver: Solver = "auto"
    max_error_px: float = 1.5
    distance: float | None = None
    depth_error: float = 0.1
    depth_name: str = "depth map"


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

    def fit(self, config: SolvingConfig, seed: int) -> Fit:
        """The best pose that the matches and what is known of the scale allow."""
        max_error = config.max_error_px
        if config.solver in ("pnp", "rigid"):
            return self._from_depth_alone(config, seed)
        found = essential_pose(self.uv0, self.uv1, self.cameras, max_error, seed)
        essential = self._judged(found.pose, max_error)
        missing = "no depth map of the reference and no distance was given"
        if self.view0.depth is not None:
            metric = self._metric_fit(essential, self.view0.depth, config, seed)
            if metric is not None:
                return metric
            missing = f"the {config.depth_name} of the reference knows no depth at the matched points"
        if essential.pose is None:
            return essential
        if not found.t_observable:
            return dataclasses.replace(essential, reason="degenerate")
        if config.distance is None:
            return dataclasses.replace(essential, scale_source=missing)
        pose = Pose(essential.pose.R, essential.pose.t * config.distance)
        source = f"the distance of {config.distance:g} m that was given"
        return dataclasses.replace(essential, pose=pose, metric=True, scale_source=source, scale_sigma=0.0)

    def _from_depth_alone(self, config: SolvingConfig, seed: int) -> Fit:
        """PnP or 3D-3D; ValueError when a photo that the solver needs has no depth map."""
        depth0, depth1 = self._depth(self.view0, self.uv0), self._depth(self.view1, self.uv1)
        if depth0 is None or (config.solver == "rigid" and depth1 is None):
            missing = self.view0 if depth0 is None else self.view1
            raise ValueError(
                f"the solver {config.solver!r} needs a depth map of {missing.name!r}: choose a depth source"
            )
        if config.solver == "pnp" or depth1 is None:
            found = pnp_from_depth(self.uv0, depth0, self.uv1, self.cameras, 2 * config.max_error_px, seed)
            start = self._judged(found.pose, config.max_error_px, depth0)
            polished = self._polished(start, depth0, config.max_error_px)
            best = polished if int(polished.inliers.sum()) >= int(start.inliers.sum()) else start
            return dataclasses.replace(best, metric=True, scale_source=f"the {config.depth_name} of the reference")
        found = rigid_from_depths(self.uv0, depth0, self.uv1, depth1, self.cameras, config.depth_error, seed)
        return Fit(found.pose, found.inliers, found.reason, True, f"the {config.depth_name}s of both photos")

    @staticmethod
    def _depth(view: View, uv: Tensor) -> Tensor | None:
        return None if view.depth is None else sample_depth(view.depth, uv, view.size)[0]

    def _metric_fit(self, essential: Fit, depth_map: Tensor, config: SolvingConfig, seed: int) -> Fit | None:
        """Two ways to metres, each polished: PnP on lifted points, and the essential matrix scaled by the depths.

        PnP is the exacter one where the depth is good, the essential matrix where it is not; the pose that explains
        more matches wins. None where the depth map gives neither.
        """
        max_error = config.max_error_px
        depth0, _ = sample_depth(depth_map, self.uv0, self.view0.size)
        starts: list[Pose | None] = []
        if config.solver == "auto":
            starts.append(pnp_from_depth(self.uv0, depth0, self.uv1, self.cameras, 2 * max_error, seed).pose)
        if essential.pose is not None:
            inlier = essential.inliers
            depth1 = self._depth(self.view1, self.uv1[inlier])
            scale = scale_from_depth(
                essential.pose, self.uv0[inlier], depth0[inlier], self.uv1[inlier], self.cameras, depth1
            )
            if scale is not None:
                starts.append(Pose(essential.pose.R, essential.pose.t * scale.scale))
        fits = []
        for start in starts:
            fit = self._judged(start, max_error, depth0)
            fits += [fit, self._polished(fit, depth0, max_error)]
        fits = [fit for fit in fits if fit.pose is not None]
        if not fits:
            return None
        best = max(fits, key=lambda fit: (int(fit.inliers.sum()), fits.index(fit)))
        return dataclasses.replace(best, metric=True, scale_source=f"the {config.depth_name} of the reference")

    def _judged(self, pose: Pose | None, max_error: float, depth0: Tensor | None = None) -> Fit:
        """The same inlier test for every candidate of a kind.

        A match counts when its epipolar error is small and its point in front of both cameras; with depth also when
        its reprojection error is small, because without parallax the epipolar lines mean nothing.
        """
        if pose is None:
            return Fit(None, torch.zeros(len(self.uv0), dtype=torch.bool), "degenerate")
        squared, in_front = sampson_errors(pose, self.uv0, self.uv1, self.cameras)
        inliers = in_front & (squared <= max_error**2)
        if depth0 is not None:
            xyz = self.view0.camera.lift(self.uv0, depth0)
            seen, in_view = self.view1.camera.project(pose.transform(xyz))
            close = (seen - self.uv1).norm(dim=-1) <= 2 * max_error
            inliers = inliers | (in_view & close & (depth0 > 0))
        return Fit(pose, inliers, None)

    def _polished(self, fit: Fit, depth0: Tensor, max_error: float) -> Fit:
        if fit.pose is None:
            return fit
        i = fit.inliers
        unknown = torch.zeros(int(i.sum()))
        config = PolishConfig(pixel_sigma=max_error / 2, log_depth_sigma=_DEPTH_SIGMA)
        refined = polish(fit.pose, self.uv0[i], depth0[i], self.uv1[i], unknown, self.cameras, config)
        return self._judged(refined.pose, max_error, depth0)

    def details(self, fit: Fit | None, timings: dict[str, float], setup: str = "") -> PairDetails:
        """What the result carries besides the pose."""
        chosen = torch.zeros(len(self.uv0), dtype=torch.bool) if fit is None else fit.inliers
        order = chosen.nonzero().squeeze(-1)
        order = order[self.similarity[order].argsort(descending=True, stable=True)]
        nan = torch.full((len(order),), torch.nan)
        depth0 = nan
        if self.view0.depth is not None:
            value, known = sample_depth(self.view0.depth, self.uv0[order], self.view0.size)
            depth0 = torch.where(known, value, nan)
        inliers = Correspondences(self.uv0[order], self.uv1[order], depth0, nan, self.similarity[order])
        found = Fit(None, chosen, None, scale_source="no pose was found") if fit is None else fit
        statistics: dict[str, float] = {}
        if found.pose is not None:
            statistics = support_statistics(found.pose, self.uv0, self.uv1, chosen, self.cameras)
        return PairDetails(
            float(len(order)),
            inliers,
            found.metric,
            found.scale_source,
            found.scale_sigma,
            setup,
            timings=timings,
            statistics=statistics,
        )

    def doubts(self, fit: Fit, max_error: float, seed: int) -> tuple[str, ...]:
        """One sentence when a second pose explains the photos nearly as well."""
        if fit.pose is None:
            return ()
        rival = has_rival(fit.pose, self.uv0, self.uv1, fit.inliers, self.cameras, max_error, seed)
        return (RIVAL,) if rival else ()


@dataclass(frozen=True, eq=False)
class Fit:
    """A candidate pose (1_from_0), the matches it explains, and what its length means."""

    pose: Pose | None
    inliers: Bool[Tensor, " N"]
    reason: FailureReason | None
    metric: bool = False
    scale_source: str = ""
    scale_sigma: float = float("nan")
