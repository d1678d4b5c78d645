"""MicKey's training objective against a plain dense version of the same law, side by side in one run.

    python benchmarks/mickey_objective.py [--repeats 3] [--threads 2] [--device cuda]

The official configuration: B = 8 pairs of 720x540 photos (51 x 38 cells, 1,938 keypoints, 128-dim descriptors),
Q = J = 20, S = 512, n = 8. From given features (descriptors, scores, uv, depth, dustbin) to their gradients: matching,
draws, hypotheses, losses and backward. Calls of the two versions alternate, so that other load meets both; still, trust
the ratio only where the load printed is near that of this program. Peak extra memory is the growth of the resident
set's high-water mark (CUDA: of the allocator's) in a process of its own, one for each version.

The dense version is written as one would first: matrices with dustbins for the whole batch, torch.multinomial over all
pairs of keypoints, every set tiled once a hypothesis, masks for all fits, a gradient matrix [B, N, N] filled set by set,
and two calls of backward.
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

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.methods.mickey.keypoint_maps import Keypoints
from metriloc.methods.mickey.objective import ObjectiveConfig, PairFeatures, Truth, objective

GRID, BORDER, CHANNELS, STRIDE, PAIRS = (51, 38), 3, 128, 14, 8
CONFIG = ObjectiveConfig()
PERCENT = 50.0
NAMES = ("desc0", "desc1", "score0", "score1", "uv0", "uv1", "depth0", "depth1", "dustbin")
Inputs = dict[str, Tensor]
Versions = dict[str, Callable[[Inputs, int], Tensor]]


def make_inputs(device: str) -> Inputs:
    """Photos of one scene of random points: half the keypoints match, with noise; scores have a border of zeros."""
    g = torch.Generator().manual_seed(0)
    N = GRID[0] * GRID[1]
    score = torch.zeros(2, PAIRS, *GRID)
    inner = (slice(None), slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    score[inner] = torch.rand(score[inner].shape, generator=g)
    score = (score / score.sum((-1, -2), keepdim=True)).flatten(2)
    cells = torch.stack(torch.meshgrid(torch.arange(GRID[0]), torch.arange(GRID[1]), indexing="ij")[::-1], -1)
    uv0 = STRIDE * (cells.reshape(N, 2) + torch.rand(PAIRS, N, 2, generator=g))
    depth0 = 2 + 4 * torch.rand(PAIRS, N, generator=g)
    pose = Pose(so3_exp(0.2 * torch.randn(PAIRS, 3, generator=g)), 0.3 * torch.randn(PAIRS, 3, generator=g))
    K = torch.tensor([[590.0, 0, 270], [0, 590, 360], [0, 0, 1]]).expand(PAIRS, 3, 3)
    ray = torch.cat([(uv0 - K[:, None, :2, 2]) / 590, torch.ones(PAIRS, N, 1)], -1)
    xyz1 = pose.transform(depth0[..., None] * ray) + 0.03 * torch.randn(PAIRS, N, 3, generator=g)
    uv1 = xyz1[..., :2] / xyz1[..., 2:] * 590 + K[:, None, :2, 2]
    desc0 = torch.nn.functional.normalize(torch.randn(PAIRS, N, CHANNELS, generator=g), dim=-1)
    noisy = desc0 + 0.05 * torch.randn(PAIRS, N, CHANNELS, generator=g)
    other = torch.randn(PAIRS, N, CHANNELS, generator=g)
    matched = torch.rand(PAIRS, N, 1, generator=g) < 0.5
    desc1 = torch.nn.functional.normalize(torch.where(matched, noisy, other), dim=-1)
    values = (desc0, desc1, score[0], score[1], uv0, uv1, depth0, xyz1[..., 2], torch.tensor(1.0))
    inputs = {name: value.clone().to(device).requires_grad_() for name, value in zip(NAMES, values, strict=True)}
    return inputs | {"K": K.to(device), "R": pose.R.to(device), "t": pose.t.to(device)}


def ours(inputs: Inputs, seed: int) -> Tensor:
    """The library; returns the loss and leaves gradients."""
    camera = Camera.from_K(inputs["K"], (540, 720))
    first, second = (
        Keypoints(inputs[f"uv{i}"], inputs[f"depth{i}"], inputs[f"score{i}"], inputs[f"desc{i}"], GRID) for i in (0, 1)
    )
    features = PairFeatures.lifted(first, second, (camera, camera), 0.1, inputs["dustbin"])
    truth = Truth(Pose(inputs["R"], inputs["t"]), camera, camera)
    generator = torch.Generator(camera.device).manual_seed(seed)
    found = objective(features, truth, CONFIG, generator, PERCENT)
    found.loss.backward()
    return found.loss.detach()


def dense(inputs: Inputs, seed: int) -> Tensor:
    """The same law, written plainly; returns the loss and leaves gradients."""
    generator = torch.Generator(inputs["K"].device).manual_seed(seed)
    F = match_matrix(inputs)
    B, N, _ = F.shape
    solver = CONFIG.solver
    Q, J, S, n = solver.num_sets, solver.num_hypotheses, solver.set_size, solver.minimal_size
    with torch.no_grad():
        tiled = F.detach().reshape(B, 1, N * N).repeat(1, Q, 1).reshape(B * Q, N * N)
        flat = torch.multinomial(tiled, S, generator=generator)
        probability = tiled.gather(1, flat)
        repeated = probability[:, None].repeat(1, J, 1).reshape(B * Q * J, S)
        minimal = torch.multinomial(repeated, n, generator=generator)
        del tiled, repeated
    leaves = {k: inputs[k].detach().clone().requires_grad_() for k in ("uv0", "uv1", "depth0", "depth1")}
    points = [lift(leaves[f"uv{i}"], leaves[f"depth{i}"], inputs["K"]) for i in (0, 1)]
    pair = torch.arange(B, device=flat.device).repeat_interleave(Q)[:, None]
    X, Y = points[0][pair, flat // N], points[1][pair, flat % N]
    X, Y = (x[:, None].repeat(1, J, 1, 1).reshape(B * Q * J, S, 3) for x in (X, Y))
    R, t = kabsch_plain(X, Y, refinement_mask(X.detach(), Y.detach(), minimal).float())
    r = ((X @ R.mT + t[:, None] - Y).square().sum(-1) + 1e-6).sqrt()
    score = torch.sigmoid(5 / 0.3 * (0.3 - r)).sum(-1).reshape(B, Q, J)
    loss = vcre_plain(R, t, inputs, Q * J).reshape(B, Q, J)
    score = torch.cat([score, torch.full_like(score[..., :1], 0.35 * S)], -1)
    loss = torch.cat([loss, torch.full_like(loss[..., :1], 0.8)], -1)
    set_loss = (torch.softmax(score / 20, -1) * loss).sum(-1)
    pair_loss = set_loss.mean(1)
    mask = (pair_loss < pair_loss.sort().values[max(int(B * PERCENT / 100), 1)]).float()
    average = (mask * pair_loss).sum() / mask.sum()
    average.backward()
    gradient = torch.zeros_like(F)
    advantage = ((set_loss - pair_loss[:, None]) / Q).detach() * mask[:, None]
    for b in range(B):
        for q in range(Q):
            one = torch.zeros(N * N, device=F.device)
            one[flat[b * Q + q]] = advantage[b, q]
            gradient[b] += one.reshape(N, N)
    tensors = [torch.log(F + 1e-16), *(inputs[k] for k in leaves)]
    torch.autograd.backward(tensors, [gradient, *(leaf.grad for leaf in leaves.values())])
    return average.detach()


def match_matrix(inputs: Inputs) -> Tensor:
    """Dual softmax with dustbins times the keypoint scores [B, N, N]."""
    m = inputs["desc0"] @ inputs["desc1"].mT / 0.1
    B, N0, N1 = m.shape
    m = torch.cat([m, inputs["dustbin"].expand(B, N0, 1)], 2)
    m = torch.cat([m, inputs["dustbin"].expand(B, 1, N1 + 1)], 1)
    P = (torch.softmax(m, 1) * torch.softmax(m, 2))[:, :-1, :-1]
    return P * (inputs["score0"][:, :, None] * inputs["score1"][:, None])


def lift(uv: Tensor, depth: Tensor, K: Tensor) -> Tensor:
    """``z K^-1 [u v 1]``."""
    return depth[..., None] * (torch.cat([uv, torch.ones_like(uv[..., :1])], -1) @ K.inverse().mT)


def refinement_mask(X: Tensor, Y: Tensor, minimal: Tensor) -> Tensor:
    """The published refinement of all hypotheses, one step behind the best inliers."""
    current = torch.zeros(X.shape[:2], device=X.device).scatter_(1, minimal, 1.0)
    final, count = current.clone(), torch.full_like(current[:, 0], CONFIG.solver.minimal_size)
    active = torch.ones_like(count, dtype=torch.bool)
    for _ in range(CONFIG.solver.max_refinements):
        R, t = kabsch_plain(X, Y, current)
        new = (((X @ R.mT + t[:, None] - Y).square().sum(-1) + 1e-6).sqrt() <= 0.15).float()
        active = active & (new.sum(-1) > count)
        if not bool(active.any()):
            break
        final = torch.where(active[:, None], current, final)
        current = torch.where(active[:, None], new, current)
        count = torch.where(active, new.sum(-1), count)
    return final


def kabsch_plain(X: Tensor, Y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted Kabsch."""
    w = w[..., None]
    a, b = (w * X).sum(1, keepdim=True) / w.sum(1, keepdim=True), (w * Y).sum(1, keepdim=True) / w.sum(1, keepdim=True)
    U, _, Vt = torch.linalg.svd((X - a).mT @ (w * (Y - b)))
    flip = torch.ones_like(a[:, 0])
    flip[:, 2] = torch.det(U @ Vt).sign().detach()
    R = (Vt.mT * flip[:, None]) @ U.mT
    return R, b[:, 0] - (R @ a.mT)[..., 0]


def vcre_plain(R: Tensor, t: Tensor, inputs: Inputs, count: int) -> Tensor:
    """Symmetric VCRE with soft clipping."""
    steps = torch.meshgrid(torch.arange(7) - 3.0, torch.arange(4) - 1.5, torch.arange(7) + 6.0, indexing="ij")
    v = 0.3 * torch.stack(steps, -1).reshape(-1, 3).to(R)
    Rt, tt, K = (inputs[k].repeat_interleave(count, 0) for k in ("R", "t", "K"))
    there = (v @ R.mT + t[:, None] - tt[:, None]) @ Rt
    back = ((v - t[:, None]) @ R) @ Rt.mT + tt[:, None]

    def pixels(xyz: Tensor) -> Tensor:
        uvw = xyz @ K.mT
        return (uvw[..., :2] / (uvw[..., 2:] + 1e-16)).clamp(0, 720)

    still = pixels(v.expand(len(R), -1, 3))
    errors = [((pixels(moved) - still).square().sum(-1) + 1e-6).sqrt().mean(-1) for moved in (there, back)]
    return torch.tanh(0.5 * (errors[0] + errors[1]) / 80)


def seconds(versions: Versions, inputs: Inputs, repeats: int) -> dict[str, float]:
    """Median wall time of a step of each version, calls alternating."""
    times: dict[str, list[float]] = {name: [] for name in versions}
    for seed in range(-1, repeats):
        for name, function in versions.items():
            start = time.perf_counter()
            float(function(inputs, max(seed, 0)))
            if inputs["K"].is_cuda:
                torch.cuda.synchronize()
            if seed >= 0:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: sorted(found)[repeats // 2] for name, found in times.items()}


def peak_megabytes(name: str, threads: int, device: str, queue: multiprocessing.Queue[float]) -> None:
    """Growth of the high-water mark over one step, after a small warm-up of the libraries; runs in its own process."""
    torch.set_num_threads(threads)
    inputs = make_inputs(device)
    small = torch.randn(100, 3, 3, device=device, requires_grad=True)
    (torch.linalg.svd(small)[0] @ small).sum().backward()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 1024
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the mark starts again from what is resident now
        before = high_water_kilobytes()
    VERSIONS[name](inputs, 0)
    after = torch.cuda.max_memory_allocated() / 1024 if device == "cuda" else high_water_kilobytes()
    queue.put((after - before) / 1024)


def high_water_kilobytes() -> int:
    """VmHWM of this process (ru_maxrss would count what the parent had before)."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM")]
    return int(line.split()[1])


def measured_peak(name: str, threads: int, device: str) -> float:
    """``peak_megabytes`` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_megabytes, args=(name, threads, device, queue))
    process.start()
    value = queue.get()
    process.join()
    return value


VERSIONS: Versions = {"dense": dense, "ours": ours}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("dense", "ours"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    inputs = make_inputs(arguments.device)
    versions = {name: f for name, f in VERSIONS.items() if arguments.only in (None, name)}
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    print(f"{datetime.date.today()}, {machine}, torch {torch.__version__}, {arguments.threads} threads, ", end="")
    print(f"median of {arguments.repeats}, load {os.getloadavg()[0]:.1f}", end="", flush=True)
    times = seconds(versions, inputs, arguments.repeats)
    print(f" -> {os.getloadavg()[0]:.1f}")
    peaks = {name: measured_peak(name, arguments.threads, arguments.device) for name in times}
    for name in times:
        loss = float(versions[name](inputs, 0))
        print(f"{name:<6} {times[name]:8.3f} s   peak extra {peaks[name]:7.0f} MB   loss {loss:.4f}")
    if len(times) == 2:
        print(f"ratio  {times['dense'] / times['ours']:8.1f} x   {peaks['dense'] / max(peaks['ours'], 1e-9):17.1f} x")


if __name__ == "__main__":
    main()
