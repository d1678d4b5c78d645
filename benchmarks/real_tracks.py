"""Real pairs with true correspondences: SfM tracks seen by both photos of each evaluation pair, and the ScanNet pairs.

Poses are the data set's; points are the triangulated tracks, so ``uv0``/``uv1`` (their exact projections) are *true*
matches with true depth, and ``observed0``/``observed1`` are where a detector found them. Everything is float64, metres,
first pixel centre at (0, 0). Used by tests and by the tables in this folder; needs pycolmap (extra ``test``) and the
folder ``data/eval``, which is never shipped.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, skew


@dataclass(frozen=True, eq=False)
class RealPair:
    """One pair and the points both photos see. uv0, uv1: projections of xyz0 (camera 0, metres); observed0, observed1:
    the detected keypoints, pixels; place: which place it belongs to."""

    name: str
    place: str
    camera0: Camera
    camera1: Camera
    cam1_from_cam0: Pose
    xyz0: Float[Tensor, "N 3"]
    uv0: Float[Tensor, "N 2"]
    uv1: Float[Tensor, "N 2"]
    observed0: Float[Tensor, "N 2"]
    observed1: Float[Tensor, "N 2"]

    def __len__(self) -> int:
        return len(self.xyz0)

    @property
    def xyz1(self) -> Float[Tensor, "N 3"]:
        """The points in camera 1."""
        return self.cam1_from_cam0.transform(self.xyz0)

    @property
    def depth0(self) -> Float[Tensor, " N"]:
        """z in camera 0."""
        return self.xyz0[:, 2]

    @property
    def depth1(self) -> Float[Tensor, " N"]:
        """z in camera 1."""
        return self.xyz1[:, 2]


def load_pairs(
    root: Path, places: Sequence[str] | None = None, min_points: int = 20, all_points: bool = False
) -> list[RealPair]:
    """Every pair of ``root/pairs.csv`` (root is ``data/eval``) with at least ``min_points`` true correspondences.

    places: only these (default: all). all_points: not only tracks that both photos have, but every point of the map
    that projects into both (for pairs that share few tracks; ``observed`` are then projections too).
    """
    with (root / "pairs.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if places is None or row["place"] in places]
    scenes: dict[str, _Place] = {}
    pairs = []
    for row in rows:
        if row["place"] not in scenes:
            scenes[row["place"]] = _Place(root / "places" / row["place"])
        scene, folder = scenes[row["place"]], root / "val" / row["scene"]
        frames = [scene.frame_of(folder / photo) for photo in ("seq0/frame_00000.jpg", row["query_path"])]
        pair = scene.pair(f"{row['scene']}/{row['query_path']}", row["place"], *frames, all_points)
        if len(pair) >= min_points:
            pairs.append(pair)
    return pairs


class _Place:
    """One COLMAP model, read once."""

    def __init__(self, folder: Path) -> None:
        import pycolmap

        model = pycolmap.Reconstruction(str(folder / "sparse"))
        # the benchmark's photos are byte-identical copies of the place's frames: content says which is which
        self.frames = {_digest(folder / image.name): image.name for image in model.images.values()}
        self.xyz = {key: point.xyz for key, point in model.points3D.items()}
        self.images = {image.name: image for image in model.images.values()}
        self.model = model

    def frame_of(self, photo: Path) -> str:
        """Name in the model of the photo with this content."""
        return self.frames[_digest(photo)]

    def pair(self, name: str, place: str, name0: str, name1: str, all_points: bool) -> RealPair:
        (camera0, pose0, seen0), (camera1, pose1, seen1) = (self._view(n) for n in (name0, name1))
        if all_points:
            world = torch.from_numpy(np.array(list(self.xyz.values())))
            projected = [camera.project(p.transform(world))[0] for camera, p in ((camera0, pose0), (camera1, pose1))]
            return _make_pair(
                name, place, (camera0, camera1), pose1 @ pose0.inverse(), pose0.transform(world), projected
            )
        common = sorted(seen0.keys() & seen1.keys())
        world = torch.from_numpy(np.array([self.xyz[key] for key in common]).reshape(-1, 3))
        observed = [torch.from_numpy(np.array([seen[key] for key in common]).reshape(-1, 2)) for seen in (seen0, seen1)]
        return _make_pair(name, place, (camera0, camera1), pose1 @ pose0.inverse(), pose0.transform(world), observed)

    def _view(self, name: str) -> tuple[Camera, Pose, dict[int, Any]]:
        image = self.images[name]
        colmap = self.model.cameras[image.camera_id]
        camera = Camera.from_colmap(colmap.model.name, colmap.width, colmap.height, list(colmap.params))
        matrix = torch.from_numpy(np.array(image.cam_from_world().matrix()))
        seen = {p.point3D_id: p.xy - 0.5 for p in image.points2D if p.has_point3D()}
        return camera, Pose(matrix[:, :3], matrix[:, 3]), seen


def _digest(photo: Path) -> bytes:
    return hashlib.blake2b(photo.read_bytes()).digest()


def load_scannet_pairs(root: Path, max_error_px: float = 3.0, min_parallax_deg: float = 1.0) -> list[RealPair]:
    """The ScanNet pairs of ``root/scannet_pairs``: stored matches (all detectors) that agree with the true pose.

    A match counts when its epipolar (Sampson) error is below ``max_error_px``, its rays open by more than
    ``min_parallax_deg`` and it triangulates in front of both cameras, within 20 m. The points are triangulated.
    """
    pairs = []
    for archive in sorted((root / "scannet_pairs" / "matches").glob("*.npz")):
        folder = root / "scannet_pairs" / "val" / archive.stem
        cameras = [_intrinsics(line) for line in (folder / "intrinsics.txt").read_text().splitlines()]
        numbers = [float(x) for x in (folder / "poses.txt").read_text().splitlines()[1].split()[1:]]
        values = torch.tensor(numbers, dtype=torch.float64)
        pose = Pose.from_quaternion(values[:4], values[4:])
        matches = torch.from_numpy(np.concatenate(list(np.load(archive).values()))).double()
        uv0, uv1 = matches[:, :2], matches[:, 2:]
        xyz0, parallax = _triangulate(pose, cameras[0].unproject(uv0)[0], cameras[1].unproject(uv1)[0])
        depth1 = pose.transform(xyz0)[:, 2]
        good = (xyz0[:, 2] > 0.1) & (xyz0[:, 2] < 20) & (depth1 > 0.1) & (depth1 < 20)
        good &= (parallax > np.deg2rad(min_parallax_deg)) & (_sampson(pose, cameras, uv0, uv1) < max_error_px)
        kept = [uv0[good], uv1[good]]
        pairs.append(_make_pair(archive.stem, "scannet", (cameras[0], cameras[1]), pose, xyz0[good], kept))
    return pairs


def _make_pair(
    name: str, place: str, cameras: tuple[Camera, Camera], pose: Pose, xyz0: Tensor, observed: list[Tensor]
) -> RealPair:
    """Keep the points whose exact projections lie inside both photos."""
    uv0, seen0 = cameras[0].project(xyz0)
    uv1, seen1 = cameras[1].project(pose.transform(xyz0))
    keep = seen0 & seen1
    return RealPair(name, place, *cameras, pose, xyz0[keep], uv0[keep], uv1[keep], observed[0][keep], observed[1][keep])


def _intrinsics(line: str) -> Camera:
    fx, fy, cx, cy, width, height = (float(x) for x in line.split()[1:7])
    values = torch.tensor([[width, height], [fx, fy], [cx, cy]], dtype=torch.float64)
    return Camera(*values)


def _sampson(pose: Pose, cameras: list[Camera], uv0: Tensor, uv1: Tensor) -> Tensor:
    """Sampson distance in pixels (pinhole cameras)."""
    F = torch.linalg.inv(cameras[1].K).mT @ skew(pose.t) @ pose.R @ torch.linalg.inv(cameras[0].K)
    x0, x1 = (torch.cat([uv, torch.ones_like(uv[:, :1])], -1) for uv in (uv0, uv1))
    line1, line0 = x0 @ F.mT, x1 @ F
    gradient = line1[:, :2].square().sum(-1) + line0[:, :2].square().sum(-1)
    return (x1 * line1).sum(-1).abs() / gradient.sqrt()


def _triangulate(pose: Pose, ray0: Tensor, ray1: Tensor) -> tuple[Tensor, Tensor]:
    """Midpoints of the shortest segments between the rays, in camera 0, and the angle between the rays."""
    back = ray1 @ pose.R  # directions of camera 1's rays in camera 0
    center = pose.center()
    A = torch.stack([ray0, -back], -1)
    lengths = torch.linalg.lstsq(A, center.expand(len(ray0), 3)[..., None]).solution.squeeze(-1)
    xyz = 0.5 * (lengths[:, :1] * ray0 + center + lengths[:, 1:] * back)
    angle = torch.atan2(torch.linalg.cross(ray0, back).norm(dim=-1), (ray0 * back).sum(-1))
    return torch.where((lengths > 0).all(-1, keepdim=True), xyz, torch.full_like(xyz, -1.0)), angle
