"""PixLoc against a plain version of itself, side by side in one run.

    python benchmarks/pixloc.py [--repeats 15] [--threads 2] [--size 1024] [--skip-query]

Two parts. (1) One iteration of the alignment loop, 1,000 and 3,000 points, 128 and 32 channels: the plain version samples
channels-first maps by five dense lookups and builds an N x C x 6 Jacobian. (2) One query with three references at image
scales 4 and 1 with the network of pixloc_megadepth (random weights, so only the time means anything): the library with
references kept against its own two network passes, and the plain version, which encodes the references again. Calls of
the versions alternate, so that other load meets both; on a busy machine trust the best of many runs, not the median.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.geometry import Camera, J_transform, Pose, sample, so3_exp
from metriloc.methods.pixloc.align import align
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import AlignmentProblem, CostConfig
from metriloc.methods.pixloc.extractor import NetworkExtractor, ResizeConfig
from metriloc.methods.pixloc.lookup import FeatureTable
from metriloc.methods.pixloc.model import LocalizeConfig, PixLoc
from metriloc.methods.pixloc.network import PixLocNetwork
from metriloc.solvers.least_squares import damped_step
from metriloc.solvers.robust import scaled_barron
from metriloc.types import SfmMap, View

ITERATIONS = 20
LAMBDA = torch.full((6,), 10.0**-0.5)


# -- (1) the loop -------------------------------------------------------------------------------------------------------
def make_problem(points: int, channels: int, size: tuple[int, int]) -> dict[str, Tensor | Pose | Camera]:
    """A smooth feature map, points in front of the camera, and reference features read under the true pose."""
    generator = torch.Generator().manual_seed(0)
    width, height = size
    coarse = torch.randn(1, channels, height // 6, width // 6, generator=generator)
    fmap = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    f = 0.8 * width
    camera = Camera(
        torch.tensor([[float(width), float(height)]]),
        torch.tensor([[f, f]]),
        torch.tensor([[(width - 1) / 2, (height - 1) / 2]]),
        torch.tensor([[-0.05, 0.01, 1e-3, -1e-3, 0.0]]),
        "radtan",
    )
    uv = torch.rand(1, points, 2, generator=generator) * torch.tensor([width * 0.8, height * 0.8])
    uv = uv + torch.tensor([width * 0.1, height * 0.1])
    depth = 2 + 6 * torch.rand(1, points, 1, generator=generator)
    xyz = camera.unproject(uv)[0] * depth
    features = sample(F.normalize(fmap, dim=1), uv).values
    trust = torch.sigmoid(torch.randn(1, 1, height, width, generator=generator))
    moved = Pose(so3_exp(torch.tensor([[0.01, -0.02, 0.01]])), torch.tensor([[0.05, -0.03, 0.04]]))
    weights = torch.rand(1, points, generator=generator)
    return {
        "fmap": fmap,
        "trust": trust,
        "xyz": xyz,
        "features": features,
        "weights": weights,
        "init": moved,
        "camera": camera,
    }


def plain_loop(problem: dict, normalized: Tensor) -> Pose:  # type: ignore[type-arg]
    """The alignment written plainly: dense lookups, a Jacobian of every channel of every point."""
    camera, pose, xyz = problem["camera"], problem["init"], problem["xyz"]
    for _ in range(ITERATIONS):
        p = pose.transform(xyz)
        uv, visible = camera.project(p)
        found = sample(normalized, uv, pad=2, gradients=True)
        trust = sample(problem["trust"], uv, pad=2).values[..., 0]
        residual = found.values - problem["features"]
        J = found.gradients @ (camera.J_project(p)[0] @ J_transform(p))
        loss = scaled_barron(residual.square().sum(-1), 0.0, 0.1)
        weight = loss.weight * (found.valid & visible) * trust * problem["weights"]
        g = torch.einsum("bncj,bnc,bn->bj", J, residual, weight)
        H = torch.einsum("bnij,bnik,bn->bjk", J, J, weight)
        pose = Pose.from_tangent(damped_step(H, g, LAMBDA).delta) @ pose
    return pose


def our_loop(problem: dict, table: FeatureTable) -> Pose:  # type: ignore[type-arg]
    """The library's loop, without stopping early."""
    level = AlignmentProblem(problem["xyz"], problem["features"], table, problem["camera"], problem["weights"])
    return align(level, problem["init"], AlignConfig(num_iters=ITERATIONS), LAMBDA, early_stop=False).pose


def compare_loops(repeats: int) -> None:
    print("\n(1) one iteration of the loop, ms: median and best of", repeats, "runs of", ITERATIONS, "iterations\n")
    print(
        "| map | channels | points | plain | library | ratio | plain, best | library, best | ratio | pose differs by |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size, channels in (((256, 192), 128), ((64, 48), 128), ((1024, 768), 32)):
        for points in (1000, 3000):
            problem = make_problem(points, channels, size)
            normalized = F.normalize(problem["fmap"], dim=1)  # type: ignore[arg-type]
            rows_last = problem["fmap"].to(memory_format=torch.channels_last)  # type: ignore[union-attr]
            table = FeatureTable.from_maps(rows_last, problem["trust"])  # type: ignore[arg-type]
            versions = {
                "plain": lambda p=problem, m=normalized: plain_loop(p, m),
                "ours": lambda p=problem, t=table: our_loop(p, t),
            }
            times, results = alternate(versions, repeats)
            plain, ours = (statistics.median(times[k]) * 1e3 / ITERATIONS for k in ("plain", "ours"))
            best_plain, best = (min(times[k]) * 1e3 / ITERATIONS for k in ("plain", "ours"))
            gap = (results["plain"].t - results["ours"].t).abs().max().item()
            print(
                f"| {size[0]}x{size[1]} | {channels} | {points} | {plain:.2f} | {ours:.2f} | {plain / ours:.1f}x "
                f"| {best_plain:.2f} | {best:.2f} | {best_plain / best:.1f}x | {gap:.1e} |"
            )


def alternate(versions: dict[str, Callable[[], object]], repeats: int) -> tuple[dict[str, list[float]], dict]:  # type: ignore[type-arg]
    """Seconds of each call, the versions taking turns; and what each returned."""
    results = {name: run() for name, run in versions.items()}
    times: dict[str, list[float]] = {name: [] for name in versions}
    for _ in range(repeats):
        for name, run in versions.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times, results


# -- (2) a query --------------------------------------------------------------------------------------------------------
def make_scene(folder: Path, size: int, points: int) -> tuple[SfmMap, View]:
    """Four photos of one textured plane, 3 of them in the map; written as images."""
    from PIL import Image

    generator = torch.Generator().manual_seed(1)
    width, height = size, size * 3 // 4
    canvas = torch.rand(1, 3, height // 8 + 40, width // 8 + 40, generator=generator)
    canvas = F.interpolate(canvas, scale_factor=8, mode="bicubic", align_corners=False).clamp(0, 1)
    f = float(width)
    camera = Camera(
        torch.tensor([float(width), float(height)]).double(),
        torch.tensor([f, f]).double(),
        torch.tensor([(width - 1) / 2, (height - 1) / 2]).double(),
    )
    depth, names, images, poses = 4.0, [], [], []
    for number in range(4):
        shift = 16 * number
        images.append(canvas[0, :, 40 : 40 + height, 40 + shift : 40 + shift + width])
        poses.append(Pose(torch.eye(3).double(), torch.tensor([-shift * depth / f, 0.0, 0.0]).double()))
        names.append(f"{number}.png")
        Image.fromarray((images[-1].permute(1, 2, 0) * 255).round().byte().numpy()).save(folder / names[-1])
    uv = torch.rand(1, points, 2, generator=generator).double() * torch.tensor([width * 0.8, height * 0.9])
    xyz = camera[None].unproject(uv + torch.tensor([width * 0.15, height * 0.05]))[0][0] * depth
    index = torch.arange(3).repeat_interleave(points)
    scene = SfmMap(
        tuple(names[:3]),
        (camera,) * 3,
        Pose.stack(poses[:3]),
        xyz,
        index,
        torch.arange(points).repeat(3),
        torch.zeros(3 * points, 2).double(),
        folder,
    )
    return scene, View(images[3], camera, name=names[3])


def compare_queries(repeats: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        scene, query = make_scene(Path(name), size, 1500)
        torch.manual_seed(0)
        network = PixLocNetwork().eval()
        extractor = NetworkExtractor(network, "random", ResizeConfig(size))
        settings = AlignConfig(cost=CostConfig(pad=1))
        config = LocalizeConfig(num_references=3, image_scales=(4, 1), check=False)
        kept = PixLoc(extractor, settings, config, cache=Path(name) / "cache")
        kept.store.build(scene, (4, 1))

        def fresh() -> object:
            return PixLoc(extractor, settings, config).localize(query, scene, scene.names)

        def passes() -> object:
            return [extractor(query, image_scale) for image_scale in (4, 1)]

        def cached() -> object:
            return kept.localize(query, scene, scene.names)

        times, results = alternate({"passes": passes, "cached": cached}, repeats)
        again, _ = alternate({"fresh": fresh}, 1)
        base, ours = statistics.median(times["passes"]), statistics.median(times["cached"])
        best = min(times["cached"]) / min(times["passes"])
        details = results["cached"].localization[0]
        print(f"\n(2) one query of {size}x{size * 3 // 4}, three references, scales 4 and 1, s\n")
        print("| two network passes | query, references kept | ratio of medians | of the best | references anew |")
        print("|---|---|---|---|---|")
        print(f"| {base:.2f} | {ours:.2f} | {ours / base:.3f} | {best:.3f} | {statistics.median(again['fresh']):.2f} |")
        seconds = ", ".join(f"{k} {v:.3f}" for k, v in details.timings.items())
        print(f"\nlast query by stage: {seconds}; {details.num_points} points; {details.messages or 'no messages'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--query-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--skip-query", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{datetime.date.today()}, {platform.processor() or platform.machine()}, torch {torch.__version__}, ", end="")
    print(f"{arguments.threads} threads, load before {os.getloadavg()[0]:.2f}")
    with torch.no_grad():
        compare_loops(arguments.repeats)
        if not arguments.skip_query:
            compare_queries(arguments.query_repeats, arguments.size)
    print(f"\nload after {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
