"""Settings of the localiser, and how they are stored beside the weights (``config.json``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metriloc.bounds import require_all_within, require_flags, require_within
from metriloc.io.files import InputError
from metriloc.io.settings import differing_settings
from metriloc.io.weights import save_weights
from metriloc.methods.pixloc.align import AlignConfig
from metriloc.methods.pixloc.cost import CostConfig, RobustCost
from metriloc.methods.pixloc.extractor import ResizeConfig
from metriloc.methods.pixloc.network import NetworkConfig, PixLocNetwork, with_tuples

METHOD = "pixloc"


@dataclass(frozen=True)
class LocalizeConfig:
    """How references and points are chosen; defaults are those published for 7-Scenes.

    num_references: at most. image_scales: photos are reduced by these, one after the other. min_track: observations
    that a point must have. min_points: distinct points needed to start. points: ``all`` that the references observe, or
    those ``matched`` or ``inliers`` of the matches handed in. average: one residual a point in place of one an
    observation. levels: of the pyramid, None for all. covisible_only: keep the largest covisible group of references.
    approximate_pose: start from an average of the references' poses. rank_by_inliers: order references by the inliers of
    the matches, and drop those with ``min_reference_inliers`` or fewer. min_inliers: matches with a given start need so
    many. use_confidences, normalize_features: as trained. half_references: keep their features
    in float16. check: fail when the result costs more than the start.
    """

    num_references: int = 5
    image_scales: tuple[int, ...] = (4, 1)
    min_track: int = 3
    min_points: int = 10
    points: Literal["all", "matched", "inliers"] = "all"
    average: bool = False
    levels: tuple[int, ...] | None = None
    covisible_only: bool = False
    approximate_pose: bool = False
    rank_by_inliers: bool = False
    min_reference_inliers: int = 10
    min_inliers: int = 10
    use_confidences: bool = True
    normalize_features: bool = True
    half_references: bool = False
    check: bool = True

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


@dataclass(frozen=True)
class Settings:
    """Everything that a weights folder says besides the tensors."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    config: LocalizeConfig = field(default_factory=LocalizeConfig)
    resize: ResizeConfig = field(default_factory=ResizeConfig)


def save_pretrained(network: PixLocNetwork, folder: str | Path, settings: Settings | None = None) -> str:
    """Write ``config.json`` and ``model.safetensors`` of a network; returns the weights id."""
    settings = dataclasses.replace(settings or Settings(), network=network.config)
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
    """What makes estimates besides the weights, as calibrations name it; how many references there are is not of it.

    identity: of the extractor: the weights, and after a blank the preprocessing.
    """
    settings = differing_settings(config, LocalizeConfig(), _NO_SETUP)
    parts = settings, differing_settings(loop, AlignConfig(), ("min_points",)), identity.partition(" ")[2]
    return "; ".join(part for part in parts if part)
