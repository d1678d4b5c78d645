"""What the polish does to a metric pose from noisy depth, on real pairs: rotation and translation before and after.

Correspondences are true ones (SfM tracks, and epipolar-consistent stored matches on ScanNet) with made-up noise: pixels,
log-normal depth (a scale an image, and a value a point), and wrong matches. The start is the robust 3D-3D alignment,
which stands for MicKey's solver. ``python benchmarks/polish_real_pairs.py data/eval [--pixels 1] [--repeats 3]``
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.solvers.relative import rigid_from_depths
from metriloc.solvers.reprojection import PolishConfig, polish


@dataclass(frozen=True)
class Noise:
    """pixels: of each keypoint coordinate. scale, point: of the log-depth, of a whole image and of each point.
    outliers: share of the matches whose second point belongs to another one."""

    pixels: float = 1.0
    scale: float = 0.05
    point: float = 0.15
    outliers: float = 0.2


@dataclass(frozen=True)
class BeforeAfter:
    """Errors of one pair: degrees and metres (of the camera centre), before and after the polish."""

    place: str
    degrees: tuple[float, float]
    metres: tuple[float, float]


def add_noise(pair: Any, noise: Noise, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(uv0, depth0, uv1, depth1) of a ``RealPair``, made worse."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    count = len(pair)
    depths = [d * (noise.scale * normal(1) + noise.point * normal(count)).exp() for d in (pair.depth0, pair.depth1)]
    uvs = [uv + noise.pixels * normal(count, 2) for uv in (pair.uv0, pair.uv1)]
    wrong = torch.randperm(count, generator=generator)[: int(noise.outliers * count)]
    for values in (uvs[1], depths[1]):
        values[wrong] = values[wrong.roll(1)]
    return uvs[0], depths[0], uvs[1], depths[1]


def measure(pair: Any, noise: Noise, seed: int, relative_error: float = 0.25) -> BeforeAfter | None:
    """Align, polish, compare with the truth; None where the alignment finds nothing."""
    matches = add_noise(pair, noise, seed)
    cameras = pair.camera0, pair.camera1
    start = rigid_from_depths(*matches, cameras, relative_error)
    if start.pose is None:
        return None
    kept = [value[start.inliers] for value in matches]
    polished = polish(start.pose, *kept, cameras, PolishConfig(pixel_sigma=noise.pixels))
    errors = [_error(pose, pair.cam1_from_cam0) for pose in (start.pose, polished.pose)]
    return BeforeAfter(pair.place, (errors[0][0], errors[1][0]), (errors[0][1], errors[1][1]))


def _error(pose: Pose, truth: Pose) -> tuple[float, float]:
    return float(torch.rad2deg(pose.angle_to(truth))), float(pose.center_distance(truth))


def _real_tracks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_tracks", Path(__file__).with_name("real_tracks.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Print one line a place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the folder data/eval")
    parser.add_argument("--pixels", type=float, default=1.0, help="keypoint noise (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="draws of the noise for each pair (default: 3)")
    options = parser.parse_args()
    tracks = _real_tracks()
    pairs = tracks.load_pairs(options.root)
    pairs += [pair for pair in tracks.load_scannet_pairs(options.root) if len(pair) >= 20]
    noise = Noise(pixels=options.pixels)
    results = [measure(pair, noise, 1000 * r + i) for r in range(options.repeats) for i, pair in enumerate(pairs)]
    found = [result for result in results if result is not None]
    print(f"{noise}: {len(found)} of {len(results)} aligned; medians before -> after")
    for place in dict.fromkeys(result.place for result in found):
        degrees = torch.tensor([r.degrees for r in found if r.place == place])
        metres = torch.tensor([r.metres for r in found if r.place == place])
        (d0, d1), (m0, m1) = degrees.median(0).values.tolist(), metres.median(0).values.tolist()
        better = float((degrees[:, 1] < degrees[:, 0]).double().mean())
        print(
            f"{place:14s} n={len(degrees):4d}  rotation {d0:6.2f} -> {d1:5.2f} deg  "
            f"translation {m0:6.3f} -> {m1:6.3f} m  rotation better in {better:.0%}"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
