"""Pairs of views of synthetic scenes with controlled overlap, baseline and rotation, and a data set of them.

A reference view looks at something in the scene from a free spot; the query's pose is the best of a few random ones for a
wanted overlap, judged by the reference's depth, and is kept if the overlap measured in both rendered depth maps is within
the limits.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from metriloc.datasets.synthetic.config import Exposure, PairLimits, SyntheticConfig, sample_camera
from metriloc.datasets.synthetic.render import Visible
from metriloc.datasets.synthetic.scene import SyntheticScene, make_scene
from metriloc.geometry import Camera, Pose
from metriloc.types import Pair, View

CLEARANCE = 0.3
"""Camera centres keep this far (metres) from every solid."""
CANDIDATES = 16
STEEPEST = 0.5
"""People hold a camera nearly level: the largest slope of the line of sight."""
STRIDE = 4
TOLERANCE = 0.05
"""Two depths agree, so that a point counts as seen in both views, within this share."""


def sample_pair(
    scene: SyntheticScene,
    generator: torch.Generator,
    limits: PairLimits | None = None,
    size: tuple[int, int] | None = None,
) -> Pair:
    """A random pair of views, both with exact depth and pose.

    - scene, generator: what they see, and what draws.
    - limits, size: that it lies within (overlap by ``overlap``), (width, height); by default the scene's configuration's.

    Raises ValueError when no pair within the limits is found in ``limits.attempts`` tries: they then do not suit this scene.
    """
    limits = limits or scene.config.limits
    rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    if size is None:
        size = scene.config.sizes[int(rng.integers(len(scene.config.sizes)))]
    for _ in range(limits.attempts):
        camera0 = sample_camera(rng, scene.config, size)
        pose0 = _reference_pose(scene, rng)
        if pose0 is None:
            continue
        seen0 = scene.look(camera0, pose0)
        if not _worth_seeing(scene, seen0):
            continue
        camera1 = camera0 if rng.random() < 0.5 else sample_camera(rng, scene.config, size)
        for pose1 in _query_poses(scene, rng, limits, (camera0, pose0, seen0.depth), camera1):
            seen1 = scene.look(camera1, pose1)
            shared = _overlap((camera0, pose0, seen0.depth), (camera1, pose1, seen1.depth))
            if _worth_seeing(scene, seen1) and limits.overlap[0] <= shared <= limits.overlap[1]:
                view0, view1 = (
                    _photo(scene, rng, generator, *what)
                    for what in ((seen0, camera0, pose0, "0"), (seen1, camera1, pose1, "1"))
                )
                relative = pose1.to(torch.float64) @ pose0.to(torch.float64).inverse()
                return Pair(view0, view1, relative.to(torch.float32))
    raise ValueError(
        f"no pair within {limits} in {limits.attempts} tries in the {scene.kind} of seed {scene.seed}: widen the limits"
    )


def overlap(view0: View, view1: View) -> float:
    """The share of what two views see in common.

    It is the smaller share of pixels with depth (every fourth) that the other sees, judged by both
    depths; 0 if a view has none. Raises ValueError for views without depth map or pose.
    """
    for view in (view0, view1):
        if view.depth is None or view.cam_from_world is None:
            raise ValueError(f"overlap needs views with depth and pose, {view.name!r} has not both")
    sides = [(v.camera, v.cam_from_world, v.depth.numpy()) for v in (view0, view1)]  # type: ignore[union-attr]
    return _overlap(*sides)  # type: ignore[arg-type]


Side = tuple[Camera, Pose, np.ndarray]


def _overlap(side0: Side, side1: Side) -> float:
    return min(_seen_share(side0, side1), _seen_share(side1, side0))


def _points(side: Side, stride: int = STRIDE) -> np.ndarray:
    """World points [n,3] of every ``stride``-th pixel with depth."""
    camera, pose, depth = side
    part = depth[stride // 2 :: stride, stride // 2 :: stride]
    v, u = np.nonzero(part > 0)
    z = part[v, u].astype(np.float64)
    f, c = camera.f.double().numpy(), camera.c.double().numpy()
    pixels = np.stack([u, v], 1) * stride + stride // 2
    R, t = pose.R.double().numpy(), pose.t.double().numpy()
    return (np.concatenate([(pixels - c) / f, np.ones((len(z), 1))], 1) * z[:, None] - t) @ R


def _project(points: np.ndarray, camera: Camera, pose: Pose) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels [n,2], depth [n] and whether inside the image."""
    xyz = points @ pose.R.double().numpy().T + pose.t.double().numpy()
    uv = xyz[:, :2] / np.maximum(xyz[:, 2:], 1e-6) * camera.f.double().numpy() + camera.c.double().numpy()
    inside = (xyz[:, 2] > 0.05) & (uv >= 0).all(1) & (uv <= camera.size.double().numpy() - 1).all(1)
    return uv, xyz[:, 2], inside


def _seen_share(side: Side, other: Side) -> float:
    points = _points(side)
    if not len(points):
        return 0.0
    uv, z, inside = _project(points, other[0], other[1])
    u, v = np.round(uv[inside]).astype(np.int64).T
    there = other[2][v, u]
    return float((np.abs(there - z[inside]) < TOLERANCE * z[inside]).sum() / len(points))


# -- poses ------------------------------------------------------------------------------------------------------------
def look_at(center: np.ndarray, target: np.ndarray, roll: float = 0.0) -> Pose:
    """The pose of a camera at ``center`` that looks at ``target`` with its x axis level, then rolled (radians)."""
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross(z, [0.0, 0.0, 1.0])
    length = np.linalg.norm(x)
    x = x / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
    y = np.cross(z, x)
    c, s = math.cos(roll), math.sin(roll)
    R = np.stack([c * x + s * y, c * y - s * x, z])
    R32 = torch.from_numpy(R).float()
    return Pose(R32, torch.from_numpy(-R32.double().numpy() @ center).float())


def _clear(scene: SyntheticScene, center: np.ndarray) -> bool:
    """Whether a camera fits there: within the scene's bounds, not in or next to a solid."""
    if (center < scene.stage.low).any() or (center > scene.stage.high).any():
        return False
    mesh = scene.mesh
    p = center - mesh.block_center
    c, s = np.cos(mesh.block_yaw), np.sin(mesh.block_yaw)
    local = np.stack([c * p[:, 0] + s * p[:, 1], c * p[:, 1] - s * p[:, 0], p[:, 2]], 1)
    gap = np.maximum(np.abs(local) - mesh.block_half, 0)
    return bool(((gap**2).sum(1) > CLEARANCE**2).all())


def _reference_pose(scene: SyntheticScene, rng: np.random.Generator) -> Pose | None:
    stage = scene.stage
    center = rng.uniform(stage.low, stage.high)
    if not _clear(scene, center):
        return None
    if len(stage.focus) and rng.random() < 0.75:
        target = stage.focus[int(rng.integers(len(stage.focus)))] + rng.normal(0, 0.3, 3)
    else:
        turn = rng.uniform(0, 2 * math.pi)
        target = center + np.array([math.cos(turn), math.sin(turn), rng.normal(-0.1, 0.15)])
    way = target - center
    if np.linalg.norm(way[:2]) < 0.5:
        return None
    steep = STEEPEST * float(np.linalg.norm(way[:2]))
    return look_at(
        center, center + np.array([way[0], way[1], np.clip(way[2], -steep, steep)]), rng.normal(0, scene.config.roll)
    )


def _worth_seeing(scene: SyntheticScene, seen: Visible) -> bool:
    """Not a wall at the nose, not all sky, not one bare surface."""
    depth = seen.depth[::STRIDE, ::STRIDE]
    solid = depth[depth > 0]
    if len(solid) < 0.5 * depth.size or np.percentile(solid, 5) < 0.35 or np.median(solid) < 0.8:
        return False
    patch = seen.patch[1 :: 2 * STRIDE, 1 :: 2 * STRIDE].ravel()
    counts = np.bincount(scene.mesh.texture[patch[patch >= 0]])
    return bool((counts > 2).sum() >= 4 and counts.max() < 0.65 * depth.size)


def _query_poses(
    scene: SyntheticScene, rng: np.random.Generator, limits: PairLimits, side0: Side, camera1: Camera
) -> list[Pose]:
    """Up to three poses whose overlap, as far as the reference's depth can tell, is nearest to one drawn from the limits."""
    _, pose0, _ = side0
    points = _points(side0, 2 * STRIDE)
    if not len(points):
        return []
    R0, center0 = pose0.R.double().numpy(), pose0.center().double().numpy()
    depth0 = side0[2]
    farthest = max(limits.baseline[1], limits.baseline_share * float(np.median(depth0[depth0 > 0])))
    # what is hidden, and the other direction, lower the share that is found in the end
    wanted = rng.uniform(*limits.overlap) + 0.1
    found: list[tuple[float, Pose]] = []
    for _ in range(CANDIDATES):
        step = rng.normal(0, 1, 3) * np.array([1.0, 1.0, 0.3])
        step *= _baseline(rng, limits, farthest) / np.linalg.norm(step)
        center = center0 + step
        if not _clear(scene, center):
            continue
        target = points[int(rng.integers(len(points)))]
        middle = center0 + R0[2] * max(float((target - center0) @ R0[2]), 0.5)
        target = (
            middle + rng.uniform(0, 1) * (target - middle) + rng.normal(0, 0.25, 3) * np.linalg.norm(middle - center0)
        )
        way = target - center
        steep = STEEPEST * float(np.linalg.norm(way[:2]))
        if abs(way[2]) > steep:
            continue
        pose = look_at(center, target, rng.normal(0, scene.config.roll))
        baseline = float(np.linalg.norm(pose.center().double().numpy() - center0))
        angle = float(pose.angle_to(pose0))
        if not (limits.baseline[0] <= baseline <= farthest and limits.rotation[0] <= angle <= limits.rotation[1]):
            continue
        share = float(_project(points, camera1, pose)[2].mean())
        found.append((abs(share - wanted), pose))
    found.sort(key=lambda entry: entry[0])
    return [pose for _, pose in found[:3]]


def _baseline(rng: np.random.Generator, limits: PairLimits, farthest: float) -> float:
    """Metres; short ones more often, which the larger overlaps need, unless wide pairs are wanted."""
    low, often = limits.baseline[0], 0.8 if limits.baseline_share else 0.5
    return low + (farthest - low) * rng.random() ** (1 if rng.random() < often else 3)


def _photo(
    scene: SyntheticScene,
    rng: np.random.Generator,
    generator: torch.Generator,
    seen: Visible,
    camera: Camera,
    pose: Pose,
    name: str,
) -> View:
    config = scene.config
    balance = np.exp(rng.normal(0, config.balance_change, 3)) if config.balance_change else np.ones(3)
    gain = math.exp(rng.normal(0, config.exposure_change)) if config.exposure_change else 1.0
    exposure = Exposure(gain, (float(balance[0]), float(balance[1]), float(balance[2])), config.noise)
    view = scene.develop(seen, camera, pose, exposure, generator)
    return replace(view, name=f"{view.name}/{name}")


class SyntheticPairs(Dataset[Pair]):
    """Rendered pairs, the same whenever they are asked for.

    There are ``num_scenes * pairs_per_scene``; item i belongs to scene ``first_seed + i //
    pairs_per_scene``, in whatever order it is asked for; ``data[i, seed]`` also augments it, by
    ``seed`` alone.

    Scenes are built when needed and the last ``keep`` are kept, about 15 MB each. A scene takes many times as long to build
    as a pair to draw: walk through one scene's items together, or keep as many scenes as a batch mixes.
    """

    def __init__(
        self,
        num_scenes: int,
        pairs_per_scene: int,
        config: SyntheticConfig | None = None,
        *,
        first_seed: int = 0,
        keep: int = 2,
        augment: Callable[[Pair, torch.Generator], Pair] | None = None,
    ) -> None:
        """Raises ValueError for numbers below 1 and a negative seed."""
        if num_scenes < 1 or pairs_per_scene < 1 or first_seed < 0 or keep < 1:
            raise ValueError(
                f"SyntheticPairs needs num_scenes, pairs_per_scene and keep >= 1 and first_seed >= 0, got {num_scenes}, "
                f"{pairs_per_scene}, {keep} and {first_seed}"
            )
        self.num_scenes, self.pairs_per_scene, self.first_seed = num_scenes, pairs_per_scene, first_seed
        self.config = config or SyntheticConfig()
        self.augment = augment
        self.lengths = (pairs_per_scene,) * num_scenes
        self._keep = keep
        self._scenes: OrderedDict[int, SyntheticScene] = OrderedDict()

    def __len__(self) -> int:
        return self.num_scenes * self.pairs_per_scene

    def scene(self, seed: int) -> SyntheticScene:
        """The scene of a seed, from the few kept or newly built."""
        if seed not in self._scenes:
            self._scenes[seed] = make_scene(seed, self.config)
            while len(self._scenes) > self._keep:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(seed)
        return self._scenes[seed]

    def __getitem__(self, index: int | tuple[int, int]) -> Pair:
        index, augmentation = index if isinstance(index, tuple) else (index, None)
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        seed = self.first_seed + index // self.pairs_per_scene
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index % self.pairs_per_scene)
        pair = sample_pair(self.scene(seed), generator)
        if self.augment is None or augmentation is None:
            return pair
        return self.augment(pair, torch.Generator().manual_seed(augmentation))
