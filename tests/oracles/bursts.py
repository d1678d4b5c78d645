"""Bursts of a made-up room: frames of a device that drifts, and a reference photo."""

from __future__ import annotations

import math

import torch

from metriloc.geometry import Camera, Pose
from metriloc.solvers.burst import Burst

CAMERA = Camera.from_fov((640, 480), math.radians(62)).to(torch.float64)


def drifting(cam_from_world: Pose, share: float, degrees_a_metre: float, generator: torch.Generator) -> Pose:
    """Poses as a device tells them: each motion errs by a share of its way and by a turn a metre."""
    poses = [cam_from_world[0]]
    scale = 1 + share * float(torch.randn(1, generator=generator))
    turn = math.radians(degrees_a_metre) * torch.randn(3, generator=generator, dtype=torch.float64)
    for k in range(1, len(cam_from_world.t)):
        motion = cam_from_world[k] @ cam_from_world[k - 1].inverse()
        way = float((cam_from_world[k].center() - cam_from_world[k - 1].center()).norm())
        wrong = Pose.from_aa(turn * way, torch.zeros(3, dtype=torch.float64)) @ Pose(motion.R, scale * motion.t)
        poses.append(wrong @ poses[-1])
    return Pose.stack(poses)


def walk(frames: int, way: float, generator: torch.Generator) -> Pose:
    """Poses of a hand that moves sideways by ``way`` metres in all, and turns a little."""
    along = torch.linspace(0, way, frames, dtype=torch.float64)
    center = torch.stack([along, 0.1 * along, 0.2 * along], -1)
    w = 0.02 * torch.randn(frames, 3, generator=generator, dtype=torch.float64)
    turned = Pose.from_aa(w, torch.zeros(frames, 3, dtype=torch.float64))
    return Pose(turned.R, -(turned.R @ center[..., None]).squeeze(-1))


def room(
    frames: int = 5,
    way: float = 0.2,
    *,
    drift: tuple[float, float] = (0.0, 0.0),
    noise: float = 0.5,
    wrong: float = 0.1,
    points: int = 250,
    seed: int = 0,
) -> tuple[Burst, Pose, Pose]:
    """A burst, its true poses (frames, then the reference), and the true ``newest_from_reference``."""
    g = torch.Generator().manual_seed(seed)
    xyz = torch.rand(points, 3, generator=g, dtype=torch.float64) * torch.tensor([4.0, 3.0, 2.5]).double()
    xyz += torch.tensor([-2.0, -1.5, 1.5]).double()
    true = walk(frames, way, g)
    reference = Pose.from_aa(torch.tensor([0.02, -0.12, 0.03]).double(), torch.tensor([0.5, 0.1, 0.3]).double())
    every = Pose(torch.cat([true.R, reference.R[None]]), torch.cat([true.t, reference.t[None]]))
    uv, seen = CAMERA.project(xyz @ every.R.mT + every.t[:, None])
    uv = uv + noise * torch.randn(uv.shape, generator=g, dtype=torch.float64)
    matches = {}
    for a in range(frames + 1):
        for b in range(a + 1, frames + 1):
            index = (seen[a] & seen[b]).nonzero().squeeze(-1)
            other = index.clone()
            bad = torch.rand(len(index), generator=g) < wrong
            other[bad] = index[torch.randint(len(index), (int(bad.sum()),), generator=g)]
            matches[a, b] = uv[a, index], uv[b, other]
    device = drifting(true, *drift, g)
    start = Pose.from_aa(torch.tensor([0.3, 1.0, -0.2]).double(), torch.tensor([2.0, 1.0, 5.0]).double())
    device = device @ start  # a world of its own
    return Burst((CAMERA,) * (frames + 1), device, matches), every, every[frames - 1] @ every[frames].inverse()
