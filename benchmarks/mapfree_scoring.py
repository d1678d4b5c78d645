"""How long scoring a full-size Map-free submission takes: 65 scenes, 7,215 evaluated frames, synthetic poses.

    python benchmarks/mapfree_scoring.py [--threads 2]

The archive and the ground truth are written first; what is timed is ``score_mapfree`` from the files to the metrics.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import tempfile
import time
from pathlib import Path

import torch

from metriloc.evaluation.mapfree import Mode, score_mapfree
from metriloc.evaluation.submission import write_submission
from metriloc.geometry import Pose, so3_exp

SCENES, FRAMES = 65, 555


def pose_lines(names: list[str], poses: Pose) -> list[str]:
    """Of ``poses.txt``, all at once."""
    values = torch.cat([poses.quaternion(), poses.t], -1).tolist()
    return [" ".join([name, *(f"{x:.6f}" for x in row)]) for name, row in zip(names, values, strict=True)]


def write_dataset(root: Path) -> None:
    """Random poses a metre around the reference, estimates a few centimetres and degrees off."""
    generator = torch.Generator().manual_seed(0)
    scenes = {}
    for s in range(SCENES):
        folder = root / "val" / f"s{460 + s:05d}"
        folder.mkdir(parents=True)
        names = [f"seq1/frame_{i:05d}.jpg" for i in range(FRAMES)]
        w, t, dw, dt = torch.randn(4, FRAMES, 3, dtype=torch.float64, generator=generator)
        truth, estimate = Pose(so3_exp(0.3 * w), t), Pose(so3_exp(0.3 * w + 0.05 * dw), t + 0.1 * dt)
        reference = "seq0/frame_00000.jpg"
        lines = [f"{reference} 1 0 0 0 0 0 0", *pose_lines(names, truth)]
        (folder / "poses.txt").write_text("\n".join(lines) + "\n")
        (folder / "intrinsics.txt").write_text(
            "".join(f"{name} 590.5 590.5 269.5 359.5 540 720\n" for name in [reference, *names])
        )
        rows = [f"{line} {i}.0" for i, line in enumerate(pose_lines(names, estimate))]
        scenes[folder.name] = "\n".join(rows) + "\n"
    write_submission(root / "submission.zip", scenes)


def main() -> None:
    """Time both modes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, ", end=""
    )
    print(f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root)
        modes: tuple[Mode, ...] = ("official", "clean")
        for mode in modes:
            start = time.perf_counter()
            score = score_mapfree(root / "val", root / "submission.zip", mode=mode)
            seconds = time.perf_counter() - start
            print(f"{mode:<9} {seconds:6.2f} s for {score.total} frames of {len(score.scenes)} scenes")


if __name__ == "__main__":
    main()
