"""Every real pair of ../shared/data/eval through the command line, rotation and direction against the truth.

    python benchmarks/real_pairs.py ../shared/data/eval > table.md

Runs ``metriloc relpose REF QUERY... --method matching`` once a scene and reads the pose.json it leaves. The sets have no
depth maps, so this measures rotation and direction; nothing here is tuned on them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from metriloc.cli.main import main as metriloc
from metriloc.geometry import Pose, rotation_angle
from metriloc.io import read_mapfree_poses


@dataclass(frozen=True)
class Row:
    """One pair: errors in degrees, infinite without a pose."""

    scene: str
    rotation: float
    direction: float
    confidence: float
    inliers: int


def run_scene(folder: Path) -> list[Row]:
    """All queries of a scene against its reference."""
    truth = {
        k: v for k, v in read_mapfree_poses(folder / "poses.txt").items() if k.startswith("seq1/") and v is not None
    }
    queries = [str(folder / name) for name in truth]
    with tempfile.TemporaryDirectory() as out:
        arguments = ["relpose", str(folder / "seq0" / "frame_00000.jpg"), *queries, "--method", "matching"]
        arguments += ["--intrinsics", str(folder / "intrinsics.txt"), "--out", out]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            metriloc(arguments)
        entries = json.loads((Path(out) / "pose.json").read_text())["queries"]
    return [row(folder.name, entry, pose) for entry, pose in zip(entries, truth.values(), strict=True)]


def row(scene: str, entry: dict, true: Pose) -> Row:
    """Errors of one entry of pose.json."""
    if not entry["success"]:
        return Row(scene, math.inf, math.inf, entry["confidence"], entry["num_inliers"])
    found = Pose.from_matrix(torch.tensor(entry["query_from_reference"]["matrix"], dtype=torch.float64))
    true = true.to(torch.float64)
    rotation = math.degrees(float(rotation_angle(found.R @ true.R.mT)))
    cosine = float(found.t @ true.t / (found.distance() * true.distance()))
    direction = math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return Row(scene, rotation, direction, entry["confidence"], entry["num_inliers"])


def table(title: str, groups: dict[str, list[Row]]) -> None:
    """A Markdown table, one line a group."""
    print(f"\n### {title}\n")
    print("| set | pairs | with a pose | median rotation | median direction | right | confident | of these right |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, rows in groups.items():
        right = np.array([r.rotation < 5 and r.direction < 10 for r in rows])
        sure = np.array([r.confidence > 0.5 for r in rows])
        rotation, direction = np.median([r.rotation for r in rows]), np.median([r.direction for r in rows])
        precision = f"{100 * right[sure].mean():.0f} %" if sure.any() else "–"
        solved = sum(math.isfinite(r.rotation) for r in rows)
        print(
            f"| {name} | {len(rows)} | {solved} | {rotation:.2f}° | {direction:.2f}° "
            f"| {100 * right.mean():.0f} % | {sure.sum()} | {precision} |"
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eval", type=Path, help="the folder shared/data/eval")
    folder = parser.parse_args().eval
    places = dict(line.split(",")[:2] for line in (folder / "pairs.csv").read_text().splitlines()[1:])
    groups: dict[str, list[Row]] = {}
    for scene in sorted((folder / "val").iterdir()):
        groups.setdefault(places[scene.name], []).extend(run_scene(scene))
    table("eval/val", groups)
    hard = {scene.name: run_scene(scene) for scene in sorted((folder / "scannet_pairs" / "val").iterdir())}
    print("\n### eval/scannet_pairs\n\n| pair | rotation | direction | confidence | inliers |\n|---|--:|--:|--:|--:|")
    for name, (r,) in hard.items():
        print(f"| {name} | {r.rotation:.2f}° | {r.direction:.2f}° | {r.confidence:.2f} | {r.inliers} |")


if __name__ == "__main__":
    main()
