"""The bundled example comes from our renderer, and its pose, depth and intrinsics belong together."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.geometry import sample
from metriloc.io import load_view, read_mapfree_poses

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "metriloc" / "data" / "example"


@pytest.fixture(scope="module")
def renderer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("render_example", ROOT / "tools" / "render_example.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["render_example"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> dict[str, list[float]]:
    """The numbers of each line by its first word, read without the package's own parsers."""
    lines = [line.split() for line in (EXAMPLE / name).read_text().splitlines() if not line.startswith("#")]
    return {line[0]: [float(value) for value in line[1:]] for line in lines}


def test_files_are_complete_and_small() -> None:
    limits = {"reference.jpg": 120_000, "query.jpg": 120_000, "reference.depth.png": 150_000}
    limits |= {"intrinsics.txt": 1_000, "poses.txt": 1_000, "README.txt": 1_000}
    assert {path.name for path in EXAMPLE.iterdir()} == set(limits)
    for name, limit in limits.items():
        assert 0 < (EXAMPLE / name).stat().st_size <= limit, name


def test_intrinsics_and_poses_are_those_of_two_different_cameras() -> None:
    intrinsics, poses = rows("intrinsics.txt"), rows("poses.txt")
    assert set(intrinsics) == set(poses) == {"reference.jpg", "query.jpg"}
    for name, (fx, fy, cx, cy, width, height) in intrinsics.items():
        assert Image.open(EXAMPLE / name).size == (width, height)
        assert fx == fy
        assert (cx, cy) == ((width - 1) / 2, (height - 1) / 2)  # pixel centres at integers
    assert intrinsics["reference.jpg"][0] != intrinsics["query.jpg"][0]
    assert poses["reference.jpg"] == [1, 0, 0, 0, 0, 0, 0]
    quaternion, translation = np.array(poses["query.jpg"][:4]), np.array(poses["query.jpg"][4:])
    assert abs(np.linalg.norm(quaternion) - 1) < 1e-9
    assert 20 < np.degrees(2 * np.arccos(quaternion[0])) < 25
    assert 0.5 < np.linalg.norm(translation) < 0.7


def test_depth_is_exact_at_pixel_centers(renderer: ModuleType) -> None:
    stored = np.asarray(Image.open(EXAMPLE / "reference.depth.png")).astype(float)
    exact = 1000 * renderer.cast("reference", 1.0, [(0.0, 0.0)])[1]
    # half a millimetre of rounding; a ray along an edge may fall to either side on another processor
    assert (np.abs(stored - exact) <= 0.5 + 1e-6).mean() > 0.9999


def test_lifting_and_projecting_meets_the_same_colors(renderer: ModuleType) -> None:
    reference = load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    query = load_view(EXAMPLE / "query.jpg")
    pose = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert pose is not None and reference.depth is not None
    width, height = reference.size
    v, u = torch.meshgrid(torch.arange(0, height, 4), torch.arange(0, width, 4), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).float()
    ray, _ = reference.camera.unproject(uv)
    xyz = pose.to(torch.float32).transform(ray * reference.depth[v, u].reshape(-1, 1))
    seen, visible = query.camera.project(xyz)
    column, row = (seen[:, k].round().long().clamp(0, limit - 1) for k, limit in enumerate((width, height)))
    surface = torch.from_numpy(renderer.cast("query", 1.0, [(0.0, 0.0)])[1])[row, column]
    visible = visible & ((xyz[:, 2] - surface).abs() < 0.02 * surface)  # nothing stands in front of it
    assert float(visible.float().mean()) > 0.5
    there = sample(query.image, seen, pad=0).values
    here = reference.image[:, v, u].reshape(3, -1).T
    difference = (there - here).abs().mean(-1)[visible]
    assert float(difference.median()) < 0.02
    shuffled = (there.roll(5, 0) - here).abs().mean(-1)[visible]
    assert float(shuffled.median()) > 3 * float(difference.median())


@pytest.mark.slow
def test_the_committed_files_come_from_the_renderer(renderer: ModuleType, tmp_path: Path) -> None:
    renderer.write_example(tmp_path / "a", scale=0.125)
    renderer.write_example(tmp_path / "b", scale=0.125)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert (tmp_path / "a" / "poses.txt").read_text() == (EXAMPLE / "poses.txt").read_text()
    small = np.asarray(Image.open(tmp_path / "a" / "reference.depth.png")).astype(float)
    full = np.asarray(Image.open(EXAMPLE / "reference.depth.png")).astype(float)
    # a small pixel's centre lies between the four middle pixels of its 8x8 block
    nearest = np.stack([full[3 + i :: 8, 3 + j :: 8] for i in (0, 1) for j in (0, 1)])
    assert np.median(np.abs(nearest - small).min(0)) < 5
    picture = np.asarray(Image.open(EXAMPLE / "reference.jpg").resize((80, 60), Image.Resampling.BOX)).astype(float)
    rendered = np.asarray(Image.open(tmp_path / "a" / "reference.jpg")).astype(float)
    assert np.median(np.abs(picture - rendered)) < 12
