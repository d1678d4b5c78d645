"""The points NRE learns from: positions in two photos that show the same point of the scene.

From a reconstruction: points both photos observe, projected by their poses. From depth: random pixels, lifted, moved into
the other camera and kept where its own depth map agrees. Points that are outside or occluded must not be among them:
their loss would be infinite, or teach that a wall shows what is behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Pose, sample_depth
from metriloc.types import Pair, SfmMap, View

TOLERANCE = 0.05
"""Two depths agree within this share."""


@dataclass(frozen=True, eq=False)
class PointPair:
    """Two photos, RGB in 0..1, and N positions that show the same points, pixels of each."""

    image0: Float[Tensor, "3 H0 W0"]
    image1: Float[Tensor, "3 H1 W1"]
    uv0: Float[Tensor, "N 2"]
    uv1: Float[Tensor, "N 2"]
    name: str = ""

    def __post_init__(self) -> None:
        if self.uv0.shape != self.uv1.shape or self.uv0.shape[1:] != (2,):
            raise ValueError(f"PointPair: uv0 {list(self.uv0.shape)} and uv1 {list(self.uv1.shape)} must be [N, 2]")

    def __len__(self) -> int:
        return len(self.uv0)


def points_from_depth(pair: Pair, count: int, generator: torch.Generator, tolerance: float = TOLERANCE) -> PointPair:
    """Up to ``count`` random points of view 0 that view 1 sees too, by the depth maps and the true relative pose.

    Fewer (perhaps none) when the photos share little. tolerance: largest relative difference of the two depths. Raises
    ValueError for a pair without pose or depth maps.
    """
    first, second, pose = pair.view0, pair.view1, pair.cam1_from_cam0
    if first.depth is None or second.depth is None or pose is None:
        raise ValueError(f"points from depth need two depth maps and a pose, {first.name!r} {second.name!r} lack one")
    # four candidates a point: most pairs share at least a quarter
    uv0 = torch.rand(4 * count, 2, generator=generator) * (torch.tensor(first.size) - 1)
    depth, known = sample_depth(first.depth, uv0, first.size)
    xyz = pose.to(torch.float32).transform(first.camera.to(torch.float32).lift(uv0, depth))
    uv1, seen = _inside(second, xyz)
    there, known1 = sample_depth(second.depth, torch.nan_to_num(uv1), second.size)
    agree = (there - xyz[:, 2]).abs() <= tolerance * xyz[:, 2]
    kept = (known & seen & known1 & agree).nonzero()[:count, 0]
    return PointPair(first.image, second.image, uv0[kept], uv1[kept], f"{first.name} {second.name}")


def points_from_map(
    scene: SfmMap,
    images: tuple[int, int],
    views: tuple[View, View],
    count: int,
    generator: torch.Generator,
    max_error_px: float = 4.0,
) -> PointPair:
    """Up to ``count`` random points that both images of a map observe, where the poses project them.

    views: the photos of ``images``, perhaps resized, cropped or turned, with camera and ``cam_from_world`` of the map's
    world. max_error_px: points that the map projects further from their observations (pixels of its own cameras) are
    left out. Raises ValueError for views without pose.
    """
    common, good = shared_points(scene, images, max_error_px)
    common = common[good]
    common = common[torch.randperm(len(common), generator=generator)]
    uv, seen = [], torch.ones(len(common), dtype=torch.bool)
    for view in views:
        if view.cam_from_world is None:
            raise ValueError(f"points from a map need views with poses, {view.name!r} has none")
        pose = Pose(view.cam_from_world.R.double(), view.cam_from_world.t.double())
        position, inside = _inside(view, pose.transform(scene.xyz[common]))
        uv.append(position.float())
        seen &= inside
    kept = seen.nonzero()[:count, 0]
    name = f"{views[0].name} {views[1].name}"
    return PointPair(views[0].image, views[1].image, uv[0][kept], uv[1][kept], name)


def shared_points(
    scene: SfmMap, images: tuple[int, int], max_error_px: float
) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Points both images observe, and which of them are projected within ``max_error_px`` of both observations."""
    first, second = (scene.observations_of(image) for image in images)
    in0, in1 = scene.point_index[first], scene.point_index[second]
    common = in0[torch.isin(in0, in1)].unique()
    good = torch.ones(len(common), dtype=torch.bool)
    for image, seen in zip(images, (first, second), strict=True):
        index, order = scene.point_index[seen].sort()
        observed = scene.uv[seen][order[torch.searchsorted(index, common)]]
        camera = scene.cameras[image].to(torch.float64)
        uv, valid = camera.project(scene.cam_from_world[image].transform(scene.xyz[common]))
        good &= valid & ((uv - observed.double()).norm(dim=-1) <= max_error_px)
    return common, good


def _inside(view: View, xyz: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N 2"], Bool[Tensor, " N"]]:
    """Pixels of points given in the camera's frame, and which are seen: in front, and between the outer pixel centres."""
    camera = view.camera.to(xyz.dtype)
    uv, valid = camera.project(xyz)
    limit = uv.new_tensor(view.size) - 1
    return uv, valid & (xyz[:, 2] > 0) & (uv >= 0).all(-1) & (uv <= limit).all(-1)
