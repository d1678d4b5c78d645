"""With true matches and true depth the solver recovers the true metric pose of every real pair."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from metriloc.geometry import rotation_angle
from metriloc.methods.mickey.matching import MatchProbabilities
from metriloc.methods.mickey.solver import SolverConfig, solve

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def tracks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_tracks", BENCHMARKS / "real_tracks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["real_tracks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loader", "count", "options"),
    [("load_pairs", 229, {"all_points": True, "min_points": 10}), ("load_scannet_pairs", 8, {})],
)
def test_true_matches_and_true_depth_give_the_true_pose(
    loader: str, count: int, options: dict[str, Any], tracks: ModuleType, shared: Callable[[str], Path]
) -> None:
    pairs = getattr(tracks, loader)(shared("data/eval"), **options)
    assert len(pairs) == count
    rotations, distances = [], []
    for pair in pairs[:: 1 + count // 100]:  # neighbors see much the same
        some = slice(None, None, 1 + len(pair) // 200)  # a few hundred points say as much as ten thousand
        xyz0 = pair.camera0.lift(pair.uv0[some], pair.depth0[some]).float()
        xyz1 = pair.camera1.lift(pair.uv1[some], pair.depth1[some]).float()
        index = torch.arange(len(xyz0))
        assert len(index) >= 3, pair.name
        matches = MatchProbabilities(torch.eye(len(xyz0)), index, index)
        found = solve(matches, xyz0, xyz1, SolverConfig(), torch.Generator().manual_seed(0))
        assert found.reason is None and found.pose is not None, pair.name
        pose = found.pose.to(torch.float64)
        rotations.append(math.degrees(float(rotation_angle(pose.R @ pair.cam1_from_cam0.R.mT))))
        distances.append(float((pose.center() - pair.cam1_from_cam0.center()).norm()))
    assert max(rotations) < 0.5
    assert max(distances) < 0.02
