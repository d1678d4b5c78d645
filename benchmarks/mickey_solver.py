"""Matching and solver of MicKey against a plain dense version of the same law, side by side in one run.

    python benchmarks/mickey_solver.py [--repeats 5] [--threads 2]

720x540 defaults: 51 x 38 cells, 1,938 keypoints, 128-dim descriptors, Q = 20, J = 100, S = 2,048. Calls of the two
versions alternate, so that other load meets both; still, trust the ratio only where the load printed before and after
is near zero or near that of this program. Peak extra memory is the growth of the resident set's high-water mark in a
process of its own, one for each version.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from metriloc.geometry import Pose, so3_exp
from metriloc.methods.mickey.matching import scored_match_probabilities
from metriloc.methods.mickey.solver import SolverConfig, solve

GRID, BORDER, CHANNELS = (51, 38), 3, 128
CONFIG = SolverConfig()
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Versions = dict[str, Callable[[Inputs, int], Tensor]]


def make_inputs() -> Inputs:
    """Descriptors of which half match, scores with a border of zeros, and metric points under a known pose."""
    generator = torch.Generator().manual_seed(0)
    count = GRID[0] * GRID[1]
    score = torch.zeros(GRID)
    score[BORDER:-BORDER, BORDER:-BORDER] = torch.rand(GRID, generator=generator)[BORDER:-BORDER, BORDER:-BORDER]
    score = score.flatten() / score.sum()
    descriptor = torch.nn.functional.normalize(torch.randn(count, CHANNELS, generator=generator), dim=-1)
    noisy = descriptor + 0.05 * torch.randn(count, CHANNELS, generator=generator)
    other = torch.randn(count, CHANNELS, generator=generator)
    matched = torch.rand(count, 1, generator=generator) < 0.5
    second = torch.nn.functional.normalize(torch.where(matched, noisy, other), dim=-1)
    pose = Pose(so3_exp(torch.tensor([0.1, 0.3, -0.05])), torch.tensor([0.4, -0.1, 0.3]))
    xyz0 = torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0.0, 4.0])
    xyz1 = pose.transform(xyz0) + 0.03 * torch.randn(count, 3, generator=generator)
    return descriptor, second, score, score, xyz0, xyz1, pose.t


def ours(inputs: Inputs, seed: int) -> Tensor:
    """The library: returns t."""
    desc0, desc1, score0, score1, xyz0, xyz1, _ = inputs
    matches = scored_match_probabilities(desc0, desc1, score0, score1, 0.1, torch.tensor(1.0))
    found = solve(matches, xyz0, xyz1, CONFIG, torch.Generator().manual_seed(seed))
    assert found.pose is not None
    return found.pose.t


def dense(inputs: Inputs, seed: int) -> Tensor:
    """The same law written plainly: full matrices with dustbins, torch.multinomial, everything tiled. Returns t."""
    desc0, desc1, score0, score1, xyz0, xyz1, _ = inputs
    generator = torch.Generator().manual_seed(seed)
    n0, n1 = len(desc0), len(desc1)
    S = torch.full((n0 + 1, n1 + 1), 1.0)
    S[:-1, :-1] = desc0 @ desc1.T / 0.1
    P = (torch.softmax(S, 0) * torch.softmax(S, 1))[:-1, :-1]
    F = P * (score0[:, None] * score1[None])
    Q, J, size, n = CONFIG.num_sets, CONFIG.num_hypotheses, CONFIG.set_size, CONFIG.minimal_size
    flat = torch.multinomial(F.reshape(1, -1).repeat(Q, 1), size, generator=generator)
    probability = F.flatten()[flat]
    X, Y = xyz0[flat // n1], xyz1[flat % n1]
    minimal = torch.multinomial(probability[:, None].repeat(1, J, 1).reshape(Q * J, size), n, generator=generator)
    X_tiled = X[:, None].repeat(1, J, 1, 1).reshape(Q * J, size, 3)
    Y_tiled = Y[:, None].repeat(1, J, 1, 1).reshape(Q * J, size, 3)
    take = minimal[..., None].expand(-1, -1, 3)
    R, t = kabsch_plain(X_tiled.gather(1, take), Y_tiled.gather(1, take))
    r = ((X_tiled @ R.mT + t[:, None] - Y_tiled).square().sum(-1) + 1e-6).sqrt()
    scores = torch.sigmoid(5 / 0.3 * (0.3 - r)).sum(-1)
    best = int(scores.argmax())
    X, Y, R, t = X_tiled[best], Y_tiled[best], R[best], t[best]
    previous = n
    for _ in range(CONFIG.max_refinements):
        inlier = ((X @ R.T + t - Y).square().sum(-1) + 1e-6).sqrt() <= CONFIG.inlier_threshold
        if int(inlier.sum()) <= previous:
            break
        previous = int(inlier.sum())
        R, t = (part[0] for part in kabsch_plain(X[inlier][None], Y[inlier][None]))
    return t


def kabsch_plain(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Unweighted Kabsch."""
    a, b = X.mean(1, keepdim=True), Y.mean(1, keepdim=True)
    U, _, Vt = torch.linalg.svd((X - a).mT @ (Y - b))
    D = torch.eye(3).repeat(len(X), 1, 1)
    D[:, 2, 2] = torch.sign(torch.det(U @ Vt))
    R = Vt.mT @ D @ U.mT
    return R, b[:, 0] - (R @ a.mT)[..., 0]


def seconds(versions: Versions, inputs: Inputs, repeats: int) -> dict[str, float]:
    """Median wall time of a call of each version, calls alternating."""
    times: dict[str, list[float]] = {name: [] for name in versions}
    for seed in range(-1, repeats):
        for name, function in versions.items():
            start = time.perf_counter()
            function(inputs, max(seed, 0))
            if seed >= 0:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: sorted(found)[repeats // 2] for name, found in times.items()}


def peak_megabytes(name: str, threads: int, queue: multiprocessing.Queue[float]) -> None:
    """Growth of the high-water mark over one call, after a small warm-up of the libraries; runs in its own process."""
    torch.set_num_threads(threads)
    inputs = make_inputs()
    torch.linalg.svd(torch.eye(3))
    _ = torch.randn(100, 100) @ torch.randn(100, 100)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark starts again from what is resident now
    before = high_water_kilobytes()
    {"ours": ours, "dense": dense}[name](inputs, 0)
    queue.put((high_water_kilobytes() - before) / 1024)


def high_water_kilobytes() -> int:
    """VmHWM of this process (ru_maxrss would count what the parent had before)."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1])


def measured_peak(name: str, threads: int) -> float:
    """``peak_megabytes`` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_megabytes, args=(name, threads, queue))
    process.start()
    value = queue.get()
    process.join()
    return value


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    inputs = make_inputs()
    print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"{arguments.threads} threads, median of {arguments.repeats}, load {os.getloadavg()[0]:.1f}", end="")
    versions: Versions = {"dense": dense, "ours": ours}
    times = seconds(versions, inputs, arguments.repeats)
    print(f" -> {os.getloadavg()[0]:.1f}")
    peaks = {name: measured_peak(name, arguments.threads) for name in times}
    errors = {name: float((f(inputs, 0) - inputs[6]).norm()) for name, f in versions.items()}
    for name in times:
        print(
            f"{name:<6} {times[name]:8.3f} s   peak extra {peaks[name]:7.0f} MB   error of t {100 * errors[name]:.2f} cm"
        )
    print(f"ratio  {times['dense'] / times['ours']:8.1f} x   {peaks['dense'] / max(peaks['ours'], 1e-9):17.1f} x")


if __name__ == "__main__":
    main()
