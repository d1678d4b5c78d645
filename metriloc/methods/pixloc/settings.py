"""Settings of the localiser, and how they are stored beside the weights (``config.json``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from metriloc.bounds import require_all_within, require_flags, require_within
from metriloc.io.files import InputError
from metriloc.io.settings import differing_settings
from metriloc.io.weights import save_weights
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import CostConfig, RobustCost
from metriloc.methods.pixloc.extractor import ResizeConfig
from metriloc.methods.pixloc.network import NetworkConfig, PixLocNetwork
from metriloc.methods.pixloc.pyramid import with_tuples

METHOD = "pixloc"


@dataclass(frozen=True)
class LocalizeConfig:
    """How references and points are chosen; defaults are those published for 7-Scenes."""

    num_references: int = 5
    """So many at most."""
    image_scales: tuple[int, ...] = (4, 1)
    """Photos are reduced by these, one after the other, such as 4 1."""
    min_track: int = 3
    """Photos of the map that must observe a point."""
    min_points: int = 10
    """Fewer points fail."""
    points: Literal["all", "matched", "inliers"] = "all"
    """Points of the map: all that the references observe, or those matched by hloc's log, or its inliers."""
    average: bool = False
    """One residual a point (features of its observations averaged) in place of one an observation."""
    levels: tuple[int, ...] | None = None
    """Of the feature pyramid, 0 is the finest, such as 0 1; none for all."""
    covisible_only: bool = False
    """Of the references, use the largest group that shares points."""
    approximate_pose: bool = False
    """Start from an average of the references' poses, weighted by global descriptors where there are any."""
    rank_by_inliers: bool = False
    """Order references by their inliers in hloc's log."""
    min_reference_inliers: int = 10
    """References with so many inliers or fewer are dropped from that order."""
    min_inliers: int = 10
    """A start from hloc's pose with fewer inliers fails."""
    use_confidences: bool = True
    """Weight residuals by how far the features are trusted, as trained."""
    normalize_features: bool = True
    """Features of unit length, as trained."""
    half_references: bool = False
    """Keep features of the map in float16, in half the space."""
    check: bool = True
    """Fail when the result costs more than the start."""

    def __post_init__(self) -> None:
        if self.points not in ("all", "matched", "inliers"):
            raise ValueError(f"LocalizeConfig.points must be 'all', 'matched' or 'inliers', got {self.points!r}")
        require_all_within(self, 1, 1000, "image_scales")
        require_all_within(self, 0, 10, "levels")
        require_within(self, num_references=(1, 10_000), min_track=(0, 10_000), min_points=(1, 1_000_000))
        require_within(self, min_reference_inliers=(0, 1_000_000), min_inliers=(0, 1_000_000))
        require_flags(self, "average", "covisible_only", "approximate_pose", "rank_by_inliers", "use_confidences")
        require_flags(self, "normalize_features", "half_references", "check")
        if not self.image_scales:
            raise ValueError("LocalizeConfig.image_scales must not be empty")
        if self.levels is not None and (not self.levels or list(self.levels) != sorted(set(self.levels))):
            raise ValueError(f"LocalizeConfig.levels must increase from 0 on, got {self.levels}")


PUBLISHED_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "num_dbs": "config.num_references",
        "multiscale": "config.image_scales",
        "min_track_length": "config.min_track",
        "min_points_opt": "config.min_points",
        "point_selection": "config.points",
        "average_observations": "config.average",
        "layer_indices": "config.levels",
        "filter_covisibility": "config.covisible_only",
        "do_pose_approximation": "config.approximate_pose",
        "do_inlier_ranking": "config.rank_by_inliers",
        "min_matches_db": "config.min_reference_inliers",
        "min_matches_total": "config.min_inliers",
        "compute_uncertainty": "config.use_confidences",
        "normalize_descriptors": "config.normalize_features",
        "num_iters": "align.num_iters",
        "lambda_": "align.initial_damping",
        "jacobi_scaling": "align.jacobi_scaling",
        "grad_stop_criteria": "align.stop_gradient",
        "dt_stop_criteria": "align.stop_translation",
        "dR_stop_criteria": "align.stop_rotation_deg",
        "pad": "align.cost.pad",
        "interpolation.pad": "align.cost.pad",
        "interpolation.mode": "align.cost.mode",
        "preprocessing.resize": "resize.size",
    }
)
"""Names of the published configurations -> fields of ``QuerySettings``."""


@dataclass(frozen=True)
class QuerySettings:
    """Everything about a query that can be set."""

    config: LocalizeConfig
    """References and points."""
    align: AlignConfig
    """The loop."""
    resize: ResizeConfig | None = None
    """How photos are brought to a size; none where the features are not a network's."""


@dataclass(frozen=True)
class Settings:
    """Everything that a weights folder says besides the tensors."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    config: LocalizeConfig = field(default_factory=LocalizeConfig)
    resize: ResizeConfig = field(default_factory=ResizeConfig)


def save_pretrained(network: PixLocNetwork, folder: str | Path, settings: Settings | None = None) -> str:
    """Write ``config.json`` and ``model.safetensors`` of a network; returns the weights id.

    - network, folder: what is written, and where.
    - settings: that are stored with it.

    Raises InputError for a folder that cannot be written, and for a cost or damping of one's own, which no file can hold.
    """
    settings = dataclasses.replace(settings or Settings(), network=network.config)
    align = settings.align
    if callable(align.damping) or type(align.cost) is not CostConfig or type(align.cost.loss) is not RobustCost:
        raise InputError(
            f"'{folder}' is not written: it cannot hold a cost or damping of one's own; save with the usual ones, and "
            "set yours when the weights are loaded (PixLoc.adjusted)"
        )
    return save_weights(folder, METHOD, dataclasses.asdict(settings), network.state_dict())


def read_settings(values: Mapping[str, Any], source: str) -> Settings:
    """Settings as ``save_pretrained`` stores them. Raises InputError for what does not belong there."""
    try:
        loop = dict(values.get("align", {}))
        if "cost" in loop:
            loop["cost"] = CostConfig(**{**loop["cost"], "loss": RobustCost(**loop["cost"]["loss"])})
        choices = with_tuples(values.get("config", {}))
        network = NetworkConfig.from_dict(values["network"])
        resize = ResizeConfig(**values.get("resize", {}))
        return Settings(network, AlignConfig(**loop), LocalizeConfig(**choices), resize)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"'{source}' holds a wrong PixLoc configuration: {error}") from error


_NO_SETUP = ("num_references", "min_track", "min_points", "min_reference_inliers", "min_inliers", "half_references")


def setup_of(config: LocalizeConfig, loop: AlignConfig, identity: str) -> str:
    """What makes estimates besides the weights, as calibrations name it.

    How many references there are is not of it. identity: of the extractor: the weights, and after a
    blank the preprocessing.
    """
    settings = differing_settings(config, LocalizeConfig(), _NO_SETUP)
    parts = settings, differing_settings(loop, AlignConfig(), ("min_points",)), identity.partition(" ")[2]
    return "; ".join(part for part in parts if part)
