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


def test_files_are_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 400_000


def test_lifting_and_projecting_meets_the_same_colours() -> None:
    reference = load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    query = load_view(EXAMPLE / "query.jpg")
    pose = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert pose is not None and reference.depth is not None
    width, height = reference.size
    v, u = torch.meshgrid(torch.arange(0, height, 4), torch.arange(0, width, 4), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).float()
    ray, _ = reference.camera.unproject(uv)
    seen, visible = query.camera.project(pose.to(torch.float32).transform(ray * reference.depth[v, u].reshape(-1, 1)))
    assert float(visible.float().mean()) > 0.5
    there = sample(query.image, seen, pad=0).values
    here = reference.image[:, v, u].reshape(3, -1).T
    difference = (there - here).abs().mean(-1)[visible]
    # occluded pixels differ; a wrong pose or depth would make all of them differ
    assert float(difference.median()) < 0.03
    shuffled = (there.roll(5, 0) - here).abs().mean(-1)[visible]
    assert float(shuffled.median()) > 3 * float(difference.median())


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
