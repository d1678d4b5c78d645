"""Samples to train alignment with: two posed photos, points that the reference sees, and a pose to start from.

The points come from a depth map (any posed set that has one, synthetic scenes) or from the map of a reconstruction.
Samples are made of loaded ``Pair``s, so whatever augments pairs works here too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.datasets.pixloc_starts import Start, draw_start
from metriloc.geometry import sample_depth
from metriloc.geometry.pose import Pose
from metriloc.types import Pair, SfmMap, View

NOWHERE = (0.0, 0.0, -1.0)
"""A point behind the reference camera: fills up samples with too few points, and no camera counts it."""


@dataclass(frozen=True, eq=False)
class PointPair:
    """One training sample. pair: view0 is the reference, with a relative pose. xyz: points, in the reference's camera
    frame, metres. init: ``query_from_reference`` where the alignment starts."""

    pair: Pair
    xyz: Float[Tensor, "N 3"]
    init: Pose

    def __post_init__(self) -> None:
        true_pose(self.pair)
        if self.xyz.ndim != 2 or self.xyz.shape[1] != 3:
            raise ValueError(f"PointPair.xyz must have shape [N, 3], got {list(self.xyz.shape)}")

    @property
    def query_from_reference(self) -> Pose:
        """The truth."""
        return true_pose(self.pair)


def true_pose(pair: Pair) -> Pose:
    """``query_from_reference`` of a pair; ValueError when it is unknown."""
    if pair.cam1_from_cam0 is None:
        raise ValueError(f"a training sample needs the true pose, {pair.view1.name!r} has none")
    return pair.cam1_from_cam0


@dataclass(frozen=True)
class SampleConfig:
    """How samples are drawn from a pair of photos."""

    points: int = 512
    """Of each sample, filled up with points nobody sees."""
    texture: float = 0.7
    """Share of them that are drawn where the photo changes most, as reconstructions have them; the
    rest lie anywhere."""
    start: Start = field(default_factory=Start)
    """See ``Start``."""

    def __post_init__(self) -> None:
        if self.points < 1 or not 0 <= self.texture <= 1:
            raise ValueError(f"SampleConfig needs points >= 1 and texture in 0..1, got {self.points}, {self.texture}")


def points_from_depth(
    view: View, count: int, generator: torch.Generator, texture: float = 0.7
) -> Float[Tensor, "count 3"]:
    """Points that a view with a depth map sees, in its camera frame, metres; see ``SampleConfig.texture``.

    Raises ValueError for a view without depth.
    """
    if view.depth is None:
        raise ValueError(f"points from depth need a depth map, {view.name!r} has none")
    width = view.size[0]
    change = _change(view.image)
    weight = texture * change / change.sum().clamp(min=1e-12) + (1 - texture) / change.numel()
    drawn = torch.multinomial(weight.flatten(), min(3 * count, change.numel()), generator=generator)
    uv = torch.stack([drawn % width, drawn // width], -1).to(view.camera.c)
    depth, known = sample_depth(view.depth, uv.to(view.depth), view.size)
    rays, possible = view.camera.unproject(uv)
    keep = (known & possible).nonzero().squeeze(-1)[:count]
    return filled(rays[keep].float() * depth[keep, None].float(), count)


def _change(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
    """Length of the grey value's gradient, from differences with the next pixels."""
    gray = image.mean(0)
    dx, dy = torch.zeros_like(gray), torch.zeros_like(gray)
    dx[:, :-1], dy[:-1] = gray.diff(dim=1), gray.diff(dim=0)
    return (dx.square() + dy.square()).sqrt()


def points_from_map(
    scene: SfmMap, image: int, count: int, generator: torch.Generator, among: Int[Tensor, " n"] | None = None
) -> Float[Tensor, "count 3"]:
    """Points that an image of a map observes, in its camera frame.

    Without repetition. among: draw from these only.
    """
    points = scene.point_index[scene.observations_of(image)].unique() if among is None else among
    chosen = points[torch.randperm(len(points), generator=generator)[:count]]
    return filled(scene.cam_from_world[image].transform(scene.xyz[chosen]).float(), count)


def filled(xyz: Float[Tensor, "n 3"], count: int) -> Float[Tensor, "count 3"]:
    """``count`` points: those given, then points that no camera sees."""
    missing = max(0, count - len(xyz))
    return torch.cat([xyz[:count], xyz.new_tensor(NOWHERE).expand(missing, 3)])


def sample_from_pair(pair: Pair, config: SampleConfig, generator: torch.Generator) -> PointPair:
    """A sample of a pair whose reference has depth. Raises ValueError for a pair without depth or pose."""
    xyz = points_from_depth(pair.view0, config.points, generator, config.texture)
    truth, camera = true_pose(pair).to(torch.float64), pair.view1.camera.to(torch.float64)
    init = draw_start(config.start, truth, xyz.double(), camera, generator)
    return PointPair(pair, xyz, init.to(torch.float32))


class Pairs(Protocol):
    """Training pairs by number; with a seed, augmented by it (``PairDataset``, ``SyntheticPairs``)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: tuple[int, int], /) -> Pair: ...


@dataclass(frozen=True, eq=False)
class DepthSamples:
    """Samples of any pairs whose references have depth. ``samples[i, seed]``: pair i; the seed decides everything else."""

    pairs: Pairs
    config: SampleConfig = field(default_factory=SampleConfig)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: tuple[int, int]) -> PointPair:
        number, seed = index
        generator = torch.Generator().manual_seed(int(seed))
        own = int(torch.randint(2**62, (), generator=generator))
        return sample_from_pair(self.pairs[int(number), own], self.config, generator)


def covisible_pairs(
    scene: SfmMap, low: float = 0.3, high: float = 1.0, min_shared: int = 50
) -> tuple[Int[Tensor, "n 2"], Float[Tensor, " n"]]:
    """(reference, query) pairs of a map and their overlaps, ``low < overlap <= high``.

    Overlap, of the reference, is the share of its points that the query observes too; pairs with fewer than
    ``min_shared`` common points do not count, as published.
    """
    common = shared_points(scene)
    own = common.diagonal().clone()
    overlap = common.double() / own.clamp(min=1)[:, None]
    overlap[common < min_shared] = -1
    overlap.fill_diagonal_(-1)
    index = ((overlap > low) & (overlap <= high)).nonzero()
    return index, overlap[index[:, 0], index[:, 1]].float()


def shared_points(scene: SfmMap) -> Int[Tensor, "I I"]:
    """How many points each two images observe in common. The diagonal: how many each observes."""
    count = len(scene)
    seen = torch.unique(scene.image_index * max(1, len(scene.xyz)) + scene.point_index)
    image, point = seen // max(1, len(scene.xyz)), seen % max(1, len(scene.xyz))
    starts = torch.searchsorted(image, torch.arange(count + 1)).tolist()
    common = torch.zeros(count, count, dtype=torch.long)
    for row in range(count):
        own = torch.zeros(len(scene.xyz), dtype=torch.bool)
        own[point[starts[row] : starts[row + 1]]] = True
        common[row] = torch.bincount(image[own[point]], minlength=count)
    return common
