"""The example of two photos as a map."""

from __future__ import annotations

from pathlib import Path

import torch

import metriloc
from metriloc.geometry import sample_depth
from metriloc.io import read_mapfree_poses

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


def write_model(folder: Path) -> None:
    """The example as COLMAP writes a map, as text: points are pixels of the reference with depth, seen by both photos."""
    photo = metriloc.load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    assert photo.depth is not None
    v, u = torch.meshgrid(torch.arange(6.0, 480, 12), torch.arange(6.0, 640, 12), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).double()
    depth, known = sample_depth(photo.depth.double(), uv, photo.size)
    uv = uv[known]
    xyz = photo.camera.to(torch.float64).unproject(uv)[0] * depth[known, None]
    poses = read_mapfree_poses(EXAMPLE / "poses.txt")
    query = metriloc.load_view(EXAMPLE / "query.jpg").camera.to(torch.float64)
    truth = poses["query.jpg"]
    assert truth is not None
    there, inside = query.project(truth.transform(xyz))
    folder.mkdir()
    (folder / "cameras.txt").write_text("1 PINHOLE 640 480 520 520 320 240\n2 PINHOLE 640 480 560 560 320 240\n")
    images = []
    for n, (name, pose, at, seen) in enumerate(
        [
            ("reference.jpg", poses["reference.jpg"], uv, torch.ones(len(uv), dtype=torch.bool)),
            ("query.jpg", truth, there, inside),
        ],
        1,
    ):
        assert pose is not None
        values = [*pose.quaternion().tolist(), *pose.t.tolist()]
        images.append(" ".join([str(n), *map(repr, values), str(n), name]))
        rows = [
            (x + 0.5, y + 0.5, p if s else -1)
            for p, ((x, y), s) in enumerate(zip(at.tolist(), seen.tolist(), strict=True), 1)
        ]
        images.append(" ".join(f"{x:.4f} {y:.4f} {p}" for x, y, p in rows))
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    points = []
    for p, (place, s) in enumerate(zip(xyz.tolist(), inside.tolist(), strict=True)):
        track = f"1 {p} 2 {p}" if s else f"1 {p}"
        points.append(" ".join([str(p + 1), *map(repr, place), f"9 9 9 0.1 {track}"]))
    (folder / "points3D.txt").write_text("\n".join(points) + "\n")
