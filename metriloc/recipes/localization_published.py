"""The published localisation runs of PixLoc: 7-Scenes, Cambridge, Aachen, Extended CMU and RobotCar.

Each of them two ways: from the pose of a retrieved image, and from poses and matches that hloc found before. Trainings
are listed in ``metriloc.recipes.__all__``; these are what ``metriloc eval pixloc BENCHMARK --as-published`` runs. The
loss (scaled Barron with alpha 0 and scale 0.1), damping, stop tests and the filter of reduced photos are the
checkpoint's: ``with_checkpoint``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import get_args

from metriloc.datasets.visloc_files import VislocName
from metriloc.methods.pixloc import AlignConfig, CostConfig, LocalizeConfig, ResizeConfig

MEGADEPTH, CMU = "pixloc_megadepth", "pixloc_cmu"
"""Names of the released checkpoints."""


@dataclass(frozen=True)
class LocalizationRun:
    """Settings of PixLoc on one benchmark. checkpoint: which of the released ones was used."""

    checkpoint: str
    config: LocalizeConfig
    align: AlignConfig
    resize: ResizeConfig = field(default_factory=lambda: ResizeConfig(1024))

    def with_checkpoint(self, align: AlignConfig, resize: ResizeConfig) -> LocalizationRun:
        """With the loop and the resizing stored beside weights, but this run's iterations, margin and size of photos."""
        cost = replace(align.cost, pad=self.align.cost.pad)
        align = replace(align, cost=cost, num_iters=self.align.num_iters)
        return replace(self, align=align, resize=replace(resize, size=self.resize.size))


def _loop(num_iters: int, pad: int) -> AlignConfig:
    return AlignConfig(CostConfig(pad=pad), num_iters=num_iters)


# the published code does not ask whether a result costs more than its start
_RETRIEVED = LocalizeConfig(num_references=5, image_scales=(4, 1), check=False)
_POSED = LocalizeConfig(
    num_references=5,
    image_scales=(1,),
    min_points=100,
    points="inliers",
    average=True,
    levels=(0, 1),
    rank_by_inliers=True,
    check=False,
)
_INDOORS = LocalizationRun(MEGADEPTH, _RETRIEVED, _loop(100, 2))
_INDOORS_POSED = LocalizationRun(MEGADEPTH, _POSED, _loop(100, 2))
_DRIVING = LocalizationRun(CMU, replace(_RETRIEVED, num_references=2, image_scales=(1,)), _loop(100, 2))
_DRIVING_POSED = LocalizationRun(CMU, replace(_POSED, average=False), _loop(100, 2))

FROM_RETRIEVAL: Mapping[VislocName, LocalizationRun] = MappingProxyType(
    {
        "7scenes": _INDOORS,
        "cambridge": replace(_INDOORS, config=replace(_RETRIEVED, average=True)),
        "aachen": LocalizationRun(
            MEGADEPTH, replace(_RETRIEVED, num_references=3, approximate_pose=True), _loop(150, 1)
        ),
        "cmu": _DRIVING,
        "robotcar": _DRIVING,
    }
)
"""Started from the pose of the best retrieved image, or an average of several."""
FROM_POSES: Mapping[VislocName, LocalizationRun] = MappingProxyType(
    {
        "7scenes": _INDOORS_POSED,
        "cambridge": _INDOORS_POSED,
        "aachen": LocalizationRun(MEGADEPTH, _POSED, _loop(50, 1), ResizeConfig(1600)),
        "cmu": _DRIVING_POSED,
        "robotcar": _DRIVING_POSED,
    }
)
"""Started from the poses of an hloc log, with the points that its inliers matched."""


def published_localization(benchmark: VislocName, *, from_poses: bool = False) -> LocalizationRun:
    """The settings that were published for a benchmark. Raises ValueError for an unknown one."""
    table = FROM_POSES if from_poses else FROM_RETRIEVAL
    if benchmark not in table:
        raise ValueError(f"there are no published settings for {benchmark!r}: {', '.join(get_args(VislocName))}")
    return table[benchmark]
