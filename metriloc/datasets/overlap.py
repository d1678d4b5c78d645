"""How much two photos share: from depth maps or from the points of a reconstruction; and ``overlaps.npz`` of a scene.

A surface seen in A counts as shared when it falls inside photo B, in front of it, and B's depth agrees. The overlap of
a pair is the smaller of the two directions; from a reconstruction it is shared points / max(points of A, points of B),
as for Map-free. Both are symmetric and lie in 0..1.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.datasets.overlap_table import npz_bytes, read_arrays, save_overlaps
from metriloc.datasets.sources import PosedScene
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, write_atomically
from metriloc.types import SfmMap, View

TOLERANCE = 0.05
"""Relative difference of depths up to which two photos see the same surface."""
LOOKUP_CELLS = 20_000
"""Depth maps are reduced to about so many cells (160x120): coarser ones miss slanted and thin surfaces."""
MAX_PHOTOS = 20_000
"""The table of a scene is dense while it is made."""


def overlap_of_views(view0: View, view1: View, *, points: int = 1024, tolerance: float = TOLERANCE) -> float:
    """The overlap of two views with poses and depth, 0..1. It is the smaller of the two directions.

    - view0, view1: with depth and ``cam_from_world``.
    - points: how many of each photo are looked up.
    - tolerance: relative difference of depths up to which both see the same surface.

    Raises ValueError for a view without pose or depth.
    """
    depths = [_Depths.of([_reduced(view)], points) for view in (view0, view1)]
    shares = [_share_seen(a, 0, b, tolerance)[0] for a, b in (depths, depths[::-1])]
    return float(min(shares))


@dataclass(frozen=True, eq=False)
class _Reduced:
    """A depth map of at most about ``LOOKUP_CELLS`` cells, the camera of that map, and the pose; all on the CPU."""

    depth: Float[Tensor, "h w"]
    camera: Camera
    pose: Pose


def _reduced(view: View) -> _Reduced:
    """Every k-th cell in both directions: nothing is averaged, since a mean of two surfaces lies on neither."""
    depth, pose = view.depth, view.cam_from_world
    if depth is None or pose is None:
        raise ValueError(f"the overlap of {view.name!r} needs its depth and pose")
    h, w = depth.shape
    k = max(1, round((h * w / LOOKUP_CELLS) ** 0.5))
    first = (k - 1) // 2
    sub = depth[first::k, first::k].to("cpu", torch.float32).clone()
    full = view.camera.to("cpu", torch.float64)
    full = full.scale(torch.tensor([w, h]).to(full.size) / full.size)
    size = torch.tensor([sub.shape[1], sub.shape[0]], dtype=torch.float64)
    # cell i of the reduced map is cell first + k i of the full one
    camera = Camera(size, full.f / k, (full.c - first) / k, full.distortion, full.model)
    return _Reduced(sub, camera, pose.to("cpu", torch.float64))


@dataclass(frozen=True, eq=False)
class _Depths:
    """Depth maps of n photos for looking up, and about ``points`` points of each on a lattice.

    xyz [n, G, 3] in the world, NaN where unknown; depth [n, h, w], 0 where unknown; camera (n,) of those maps.
    """

    xyz: Float[Tensor, "n G 3"]
    depth: Float[Tensor, "n h w"]
    camera: Camera
    pose: Pose

    @classmethod
    def of(cls, maps: list[_Reduced], points: int) -> _Depths:
        h, w = (max(m.depth.shape[axis] for m in maps) for axis in (0, 1))
        depth = torch.zeros(len(maps), h, w)
        for at, m in enumerate(maps):
            depth[at, : m.depth.shape[0], : m.depth.shape[1]] = m.depth
        camera, pose = Camera.stack([m.camera for m in maps]), Pose.stack([m.pose for m in maps])
        k = max(1, int((h * w / points) ** 0.5))
        v, u = torch.meshgrid(torch.arange(k // 2, h, k), torch.arange(k // 2, w, k), indexing="ij")
        uv = torch.stack([u, v], -1).reshape(1, -1, 2).to(torch.float64).expand(len(maps), -1, -1)
        z = depth[:, v, u].flatten(1).to(torch.float64)
        xyz = pose.inverse().transform(camera.lift(uv, z.where(z > 0, torch.nan)))
        return cls(xyz, depth, camera, pose)


def _share_seen(a: _Depths, index: int, b: _Depths, tolerance: float) -> Float[Tensor, " n"]:
    """Which share of what photo ``index`` of ``a`` sees is also seen by each photo of ``b``; 0 where nothing counts.

    Points that fall where b knows no depth count neither way.
    """
    xyz = a.xyz[index]
    xyz = xyz[torch.isfinite(xyz[:, 0])]
    n, (h, w) = len(b.depth), b.depth.shape[1:]
    if not len(xyz):
        return torch.zeros(n)
    in_b = b.pose.transform(xyz.expand(n, -1, -1))
    uv, _ = b.camera.project(in_b)
    # half a cell beyond the outermost centres belongs to the photo
    inside = ((uv > -0.5) & (uv < b.camera.size[:, None] - 0.5)).all(-1) & (in_b[..., 2] > 1e-3)
    x, y = uv.round().clamp(0, max(h, w)).long().unbind(-1)
    cell = y.clamp(max=h - 1) * w + x.clamp(max=w - 1)
    there = b.depth.flatten(1).gather(1, cell).to(in_b.dtype)
    unknown = inside & (there <= 0)
    agrees = inside & ~unknown & ((in_b[..., 2] - there).abs() <= tolerance * there)
    counted = len(xyz) - unknown.sum(-1)
    return torch.where(counted > 0, agrees.sum(-1) / counted.clamp(min=1), torch.zeros(n, dtype=torch.float64)).float()


# -- whole scenes -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class OverlapRows:
    """One row of directed overlaps after another. kind: how they are made, for resuming; row(i): [n] float32."""

    kind: str
    row: Callable[[int], np.ndarray]


def depth_overlap(scene: PosedScene, *, points: int = 512, tolerance: float = TOLERANCE) -> OverlapRows:
    """From the depth maps of a scene, all read once.

    - scene: with photos that have all depth and pose.
    - points: how many of each photo are looked up in the others.
    - tolerance: relative difference of depths up to which two photos see the same surface.

    Raises InputError for a scene with a photo that has no depth map or no pose.
    """
    _check_count(scene)
    maps = []
    for frame in scene:
        if frame.depth is None or frame.cam_from_world is None:
            raise InputError(f"'{frame.path}' has no {'depth map' if frame.depth is None else 'pose'}")
        depth = frame.depth_format.read(frame.depth, frame.camera)
        image = torch.zeros(3, 1, 1).expand(3, int(frame.camera.size[1]), int(frame.camera.size[0]))
        full = View(image, frame.camera, frame.cam_from_world, frame.name, depth=depth)
        maps.append(_reduced(full))
    depths = _Depths.of(maps, points)
    return OverlapRows(
        f"depth {points} {tolerance:g}", lambda index: _share_seen(depths, index, depths, tolerance).numpy()
    )


def sfm_overlap(scene: PosedScene, sfm: SfmMap) -> OverlapRows:
    """Overlap from shared points of a reconstruction. It has all photos of the scene.

    Raises InputError when it lacks one.
    """
    _check_count(scene)
    place = {name: at for at, name in enumerate(sfm.names)}
    missing = next((name for name in scene.names if name not in place), None)
    if missing is not None:
        raise InputError(f"the reconstruction has no image {missing!r}")
    images = np.array([place[name] for name in scene.names], dtype=np.int64)
    # a point that one image observes twice counts once
    pairs = torch.unique(torch.stack([sfm.image_index, sfm.point_index]), dim=1)
    image_index, point_index = pairs[0].contiguous(), pairs[1].contiguous()
    counts = torch.bincount(image_index, minlength=len(sfm)).numpy()[images]

    def row(index: int) -> np.ndarray:
        seen = torch.zeros(len(sfm.xyz), dtype=torch.bool)
        low, high = torch.searchsorted(image_index, torch.tensor([images[index], images[index] + 1])).tolist()
        seen[point_index[low:high]] = True
        shared = torch.bincount(image_index[seen[point_index]], minlength=len(sfm)).numpy()[images]
        return (shared / np.maximum(np.maximum(counts, counts[index]), 1)).astype(np.float32)

    return OverlapRows("sfm", row)


def write_overlaps(
    scene: PosedScene,
    rows: OverlapRows,
    path: str | os.PathLike[str] | None = None,
    *,
    save_every: float = 30.0,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make ``overlaps.npz`` (by default in the scene's folder).

    It has every ordered pair of different photos that share. A run that is stopped continues where it last saved, as long as
    photos and kind are the same; the result appears whole or not at all.

    - scene, rows: the photos, and how their overlaps are made (``depth_overlap``, ``sfm_overlap``).
    - path: of the file.
    - save_every: seconds of work that a kill costs at most.
    - progress: called with rows done and rows in all.
    """
    path = scene.folder / "overlaps.npz" if path is None else Path(path)
    partial = path.with_name(f".{path.name}.partial.npz")
    n = len(scene)
    table, done = _resume(partial, _fingerprint(scene, rows), n)
    saved = time.monotonic()
    while done < n:
        table[done] = rows.row(done)
        done += 1
        if progress is not None:
            progress(done, n)
        if done < n and time.monotonic() - saved >= save_every:
            _save_partial(partial, table[:done], _fingerprint(scene, rows))
            saved = time.monotonic()
    overlap = np.minimum(table, table.T)
    np.fill_diagonal(overlap, 0)
    index = np.argwhere(overlap > 0)
    save_overlaps(path, scene, index, overlap[index[:, 0], index[:, 1]])
    partial.unlink(missing_ok=True)
    return path


def _fingerprint(scene: PosedScene, rows: OverlapRows) -> str:
    digest = hashlib.sha256("\0".join([rows.kind, *scene.names]).encode("utf-8", "surrogateescape"))
    digest.update(scene.cam_from_world.matrix().numpy().tobytes())
    return digest.hexdigest()


def _save_partial(path: Path, table: np.ndarray, fingerprint: str) -> None:
    write_atomically(path, npz_bytes({"table": table, "fingerprint": np.array([fingerprint])}))


def _resume(path: Path, fingerprint: str, n: int) -> tuple[np.ndarray, int]:
    """The table and how many rows of it are there; a file of another run, or a damaged one, is passed over."""
    table = np.zeros((n, n), dtype=np.float32)
    if not path.is_file():
        return table, 0
    try:
        arrays = read_arrays(path, ("table", "fingerprint"))
    except InputError:
        return table, 0
    rows, mark = arrays.get("table"), arrays.get("fingerprint")
    if rows is None or mark is None or mark.tolist() != [fingerprint]:
        return table, 0
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != n or len(rows) > n:
        return table, 0
    table[: len(rows)] = rows
    return table, len(rows)


def _check_count(scene: PosedScene) -> None:
    if len(scene) > MAX_PHOTOS:
        raise InputError(f"'{scene.folder}' has {len(scene)} photos; overlaps are made for at most {MAX_PHOTOS}")
