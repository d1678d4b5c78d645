"""The fine stage: windows of fine maps around a pose, made and refined in once more where the pose moves far."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import Camera, Pose
from metriloc.methods.nre.maps import GainMaps, window_gain_maps
from metriloc.methods.nre.refine import RefineConfig, Refinement, refine


@dataclass(frozen=True)
class WindowConfig:
    """Settings of the fine stage."""

    window: int = 16
    """Cells across, less one."""
    passes: int = 2
    """How often the windows are centered on the pose found so far."""
    still: float = 0.1
    """A pass that moves the points by less than this share of half a window (in the median) is the last."""
    gnc: RefineConfig = RefineConfig()  # noqa: RUF009 - frozen
    """Refinement in the windows."""

    def __post_init__(self) -> None:
        require_within(self, window=(2, 1000), passes=(1, 1000), still=(0.0, 1e9))


@dataclass(frozen=True, eq=False)
class WindowRefinement:
    """What the fine stage found. refinement: of the last pass; index: the points it used, in the order of its maps and
    gains; maps: those maps; passes: how many there were."""

    refinement: Refinement
    index: Int[Tensor, " n"]
    maps: GainMaps
    passes: int


@torch.no_grad()
def refine_in_windows(
    descriptors: Float[Tensor, "N C"],
    features: Float[Tensor, "C h w"],
    xyz: Float[Tensor, "N 3"],
    camera: Camera,
    start: Pose,
    temperature: float = 1.0,
    config: WindowConfig | None = None,
) -> WindowRefinement:
    """The fine stage.

    Loss maps in windows around the reprojections of one pose, GNC-IRLS on them, windows centred
    anew.

    camera: of this feature map (``map_camera``). start: ``cam_from_world``, batch shape (). Points that the pose sees
    outside the map are left out. Descriptors and features may be on another device than the rest; maps come to the rest.
    A failure of the first pass is returned with its reason (as ``refine``); of a later one, the pass before it is. Raises
    ValueError when the arguments do not belong together.
    """
    if start.shape != () or descriptors.shape[:1] != xyz.shape[:1]:
        raise ValueError(
            f"the fine stage takes one start pose and a descriptor for each of {len(xyz)} points, "
            f"got batch shape {tuple(start.shape)} and {len(descriptors)} descriptors"
        )
    config = config or WindowConfig()
    camera, pose = camera.to(torch.float64), start.to(torch.float64)
    xyz, least = xyz.to(torch.float64), config.still * config.window / 2
    result, number = _window_pass(descriptors, features, xyz, camera, pose, temperature, config), 1
    while number < config.passes and result.refinement.reason is None and _moved(result, xyz, camera, pose) >= least:
        pose, number = result.refinement.pose, number + 1
        again = _window_pass(descriptors, features, xyz, camera, pose, temperature, config)
        if again.refinement.reason is not None:
            break
        result = replace(again, passes=number)
    return result


def _window_pass(
    descriptors: Tensor,
    features: Tensor,
    xyz: Tensor,
    camera: Camera,
    pose: Pose,
    temperature: float,
    config: WindowConfig,
) -> WindowRefinement:
    uv, seen = camera.project(pose.transform(xyz))
    index = seen.nonzero().squeeze(-1)
    chosen, centers = descriptors[index.to(descriptors.device)], uv[index].to(features.device)
    maps = window_gain_maps(chosen, features, centers, config.window, temperature).to(xyz.device)
    return WindowRefinement(refine(maps, xyz[index], camera, pose, config.gnc), index, maps, 1)


def _moved(result: WindowRefinement, xyz: Tensor, camera: Camera, before: Pose) -> float:
    """How far the points of a pass moved on the map, cells, in the median."""
    points = xyz[result.index]
    after = result.refinement.pose
    return float(
        (camera.project(after.transform(points))[0] - camera.project(before.transform(points))[0]).norm(dim=-1).median()
    )
