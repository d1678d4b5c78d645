"""NRE's three solvers against plain versions of the same laws, side by side in one run, with times and peak memory.

    python benchmarks/nre.py [--threads 2] [--points 700] [--samples 5000] [--repeats 3]

Planted problems of the size of the published sample pair (1600x1067 pixels): coarse maps of 100x67 cells, a fine map of
800x534 cells with 288 channels. The plain versions are loops over poses, sums over all stored cells, and dense maps that
are cropped; they call the same libraries and copy nothing needlessly. What both find is printed beside the times.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import functools
import gc
import math
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import poselib
import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.geometry import Camera, J_transform, Pose, so3_exp
from metriloc.methods.nre.initialize import InitializeConfig, draw_triplets, initialize, rank, sampling_weights
from metriloc.methods.nre.maps import GainMaps, from_log_probability, window_gain_maps
from metriloc.methods.nre.refine import refine

COARSE, FINE, CHANNELS, WINDOW = (100, 67), (800, 534), 288, 16


@dataclass(frozen=True)
class Problem:
    """Points, the true pose, and maps with a peak at most true reprojections; the rest of the peaks are anywhere."""

    camera: Camera
    xyz: Tensor
    pose: Pose
    maps: GainMaps


def problem(n: int, width: float, height: float, outliers: float = 0.4) -> Problem:
    """``width``, ``height``: of the peaks, cells and nats; wide and low ones leave many cells a map."""
    generator = torch.Generator().manual_seed(0)
    w, h = COARSE
    camera = Camera.from_fov(COARSE, 1.0).to(torch.float64)
    xyz = (torch.rand(n, 3, generator=generator).double() - 0.5) * torch.tensor([6.0, 4.0, 6.0]).double()
    pose = Pose(so3_exp(torch.tensor([0.1, 0.2, -0.1]).double()), torch.tensor([0.1, 0.2, 7.0]).double())
    uv = camera.project(pose.transform(xyz))[0].float()
    wrong = torch.rand(n, generator=generator) < outliers
    peaks = torch.where(wrong[:, None], torch.rand(n, 2, generator=generator) * torch.tensor([w - 1.0, h - 1.0]), uv)
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    squared = (x - peaks[:, 0, None, None]).square() + (y - peaks[:, 1, None, None]).square()
    logits = height * torch.exp(-squared / (2 * width**2)) + torch.randn(n, h, w, generator=generator)
    maps = from_log_probability(logits.flatten(1).log_softmax(-1).unflatten(-1, (h, w)))
    return Problem(camera, xyz, pose, maps)


# -- plain versions ---------------------------------------------------------------------------------------------------
def plain_p3p(p: Problem, samples: int) -> float:
    """A loop: PoseLib's P3P for each triplet, all maps read at the reprojections of each pose; the best cost."""
    gain, worst = p.maps.gain[:, None], len(p.xyz) * p.maps.max_gain
    rays = p.camera.unproject(p.maps.peak_uv.double())[0]
    rays = (rays / rays.norm(dim=-1, keepdim=True)).numpy()
    points, size = p.xyz.numpy(), torch.tensor(COARSE)
    pool = rank(p.maps)[: len(p.xyz) // 4]
    weights = sampling_weights(p.maps.entropy[pool])
    best = worst
    for triplet in pool[draw_triplets(weights, samples, torch.Generator().manual_seed(0))].numpy():
        for found in poselib.p3p(rays[triplet], points[triplet]):
            pose = Pose(torch.from_numpy(found.R.copy()), torch.from_numpy(found.t.copy()))
            uv, seen = p.camera.project(pose.transform(p.xyz))
            grid = ((2 * uv + 1) / size - 1).float()
            values = F.grid_sample(gain, grid[:, None, None], align_corners=False)[:, 0, 0, 0]
            best = min(best, worst - float((values * seen).sum()))
    return best


def plain_gnc(p: Problem, start: Pose, stored: Tensor, most: int = 10**6) -> tuple[Pose, int]:
    """The published loop: every stored cell of every map at each step, until the damping ends it (or ``most`` steps)."""
    n, y, x = stored.nonzero().unbind(-1)
    cells, gain = torch.stack([x, y], -1).double(), p.maps.gain[n, y, x].double()

    def look(pose: Pose, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        xyz = pose.transform(p.xyz)
        uv = p.camera.project(xyz)[0]
        r = cells - uv[n]
        k = gain * torch.exp(-r.square().sum(-1) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
        m0 = torch.zeros(len(p.xyz), dtype=torch.float64).index_add_(0, n, k)
        m1 = torch.zeros(len(p.xyz), 2, dtype=torch.float64).index_add_(0, n, k[:, None] * r)
        J = p.camera.J_project(xyz)[0] @ J_transform(xyz)
        A = torch.einsum("n,nij,nik->jk", m0, J, J) / sigma**2
        return -m0, A, torch.einsum("nij,ni->j", J, m1) / sigma**2

    sigmas, damping, following, looks = [2.0, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6], 1e-8, 1, 1
    sigma, pose = sigmas[0], start
    cost, A, b = look(pose, sigma)
    while damping < 1e7 and looks < most:
        delta = torch.linalg.solve(A + damping * torch.eye(6, dtype=A.dtype), b)
        trial = Pose.from_tangent(delta) @ pose
        new, new_A, new_b = look(trial, sigma)
        looks += 1
        if float(new.sum()) >= float(cost.sum()):
            damping *= 2
            continue
        change = cost - new
        if float(change.sum() / change.abs().sum()) <= 0.1 or float(change.sum()) < 1e-5:
            sigma, following = sigmas[following], min(following + 1, len(sigmas) - 1)
        else:
            damping = max(damping / 2, 1e-8)
        pose, cost, A, b = trial, new, new_A, new_b
    return pose, looks


def plain_windows(descriptors: Tensor, features: Tensor, centers: Tensor) -> Tensor:
    """Dense maps of chunks of points over the whole feature map, cropped; the cell of each peak."""
    w, h = FINE
    peaks, half = [], WINDOW // 2
    for start in range(0, len(descriptors), 64):
        dense = (descriptors[start : start + 64] @ features.flatten(1)).unflatten(-1, (h, w))
        for one, center in zip(dense, centers[start : start + 64].round().long(), strict=True):
            left, top = (int(center[i].clamp(half, (w, h)[i] - half - 1)) - half for i in (0, 1))
            log_c = one[top : top + WINDOW + 1, left : left + WINDOW + 1].flatten().log_softmax(0)
            best = int(log_c.argmax())
            peaks.append([left + best % (WINDOW + 1), top + best // (WINDOW + 1)])
    return torch.tensor(peaks)


# -- measuring --------------------------------------------------------------------------------------------------------
def _status(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 1024 if found else math.nan


def measure(call: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median seconds, MiB that the call needs beyond what was there (Linux), and what it returned."""
    gc.collect()
    with contextlib.suppress(OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, times, result = _status("VmRSS"), [], None
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2], _status("VmHWM") - before, result


def report(
    name: str, plain: tuple[float, float, Any], ours: tuple[float, float, Any], target: float, found: str
) -> None:
    """One line."""
    print(
        f"{name:28s} plain {1e3 * plain[0]:9.1f} ms {plain[1]:6.0f} MiB   ours {1e3 * ours[0]:8.1f} ms {ours[1]:6.0f} MiB   "
        f"{plain[0] / ours[0]:6.1f}x (target {target:g}x)   {found}"
    )


def degrees(pose: Pose, truth: Pose) -> float:
    """Rotation error."""
    return math.degrees(float(pose.angle_to(truth)))


def bench_p3p(n: int, samples: int, repeats: int) -> None:
    """All triplets, without early exit."""
    p = problem(n, 1.0, 18.0)
    config = InitializeConfig(num_samples=samples, patience=samples, batch=2500)

    def ours() -> float:
        return float(initialize(p.maps, p.xyz, p.camera, torch.Generator().manual_seed(0), config).costs[0])

    ours()
    fast, slow = measure(ours, repeats), measure(lambda: plain_p3p(p, samples), 1)
    report(f"P3P, {samples} samples", slow, fast, 15, f"best cost {slow[2]:.1f} / {fast[2]:.1f}")


def bench_gnc(n: int, repeats: int) -> None:
    """Peaky and broad maps, one start pose; plain with the stored cells only, and (extrapolated) with all cells."""
    for name, width, height in (("peaky", 1.0, 18.0), ("broad", 5.0, 9.0)):
        p = problem(n, width, height)
        stored = p.maps.gain > 0
        start = Pose.from_tangent(torch.tensor([0.1, -0.1, 0.1, 0.01, -0.01, 0.01]).double()) @ p.pose
        refine(p.maps, p.xyz, p.camera, start)
        fast = measure(functools.partial(refine, p.maps, p.xyz, p.camera, start), repeats)
        sparse = measure(functools.partial(plain_gnc, p, start, stored), 1)
        pose, looks = sparse[2]
        found = f"{degrees(pose, p.pose):.3f} / {degrees(fast[2].pose, p.pose):.3f} deg, {looks} / {fast[2].evaluations} steps"
        report(f"GNC, {name}, {float(stored.sum()) / n:.0f} cells a map", sparse, fast, 10, found)
        few = measure(functools.partial(plain_gnc, p, start, torch.ones_like(stored), 3), 1)
        report(f"GNC, {name}, all cells", (few[0] * looks / 3, few[1], None), fast, 10, "plain: 3 steps, extrapolated")


def bench_windows(n: int, repeats: int) -> None:
    """Maps of the fine stage."""
    generator = torch.Generator().manual_seed(0)
    w, h = FINE
    features = F.normalize(torch.randn(CHANNELS, h, w, generator=generator), dim=0)
    cells = (torch.rand(n, 2, generator=generator) * torch.tensor([w - 1.0, h - 1.0])).round()
    x, y = cells.long().unbind(-1)
    descriptors = features[:, y, x].T.contiguous() * 20
    centers = cells + torch.randint(-5, 6, (n, 2), generator=generator)

    def ours() -> Tensor:
        return window_gain_maps(descriptors, features, centers, WINDOW).peak_uv

    ours()
    fast, slow = measure(ours, repeats), measure(lambda: plain_windows(descriptors, features, centers), 1)
    right = [float((result == cells).all(-1).float().mean()) for result in (slow[2], fast[2])]
    report("fine maps", slow, fast, 10, f"right cells {right[0]:.3f} / {right[1]:.3f}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--points", type=int, default=700)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = (
        re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if Path("/proc/cpuinfo").exists()
        else None
    )
    print(
        f"{datetime.date.today()}, {model.group(1) if model else platform.processor()}, {arguments.threads} threads, "
        f"torch {torch.__version__}, {arguments.points} points, median of {arguments.repeats} (plain: once)"
    )
    bench_p3p(arguments.points, arguments.samples, arguments.repeats)
    bench_gnc(arguments.points, arguments.repeats)
    bench_windows(arguments.points, arguments.repeats)


if __name__ == "__main__":
    main()
