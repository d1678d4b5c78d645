"""How many synthetic frames a second one core draws: building scenes, drawing pairs, and both together.

    OMP_NUM_THREADS=1 python benchmarks/synthetic.py [--scenes 4] [--pairs 20] [--size 256 192]

A pair is two finished views (image, depth, noise, exposure) with checked overlap, rejected candidates included. Times are
processor time of this process on one thread, so that other load matters less; it still takes cache and clock away, therefore
the load of the machine is printed before and after.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np
import torch

from metriloc.datasets.synthetic import SyntheticConfig, make_scene, sample_pair

MIXTURES = {"room": (1.0, 0.0, 0.0), "street": (0.0, 1.0, 0.0), "square": (0.0, 0.0, 1.0), "default": (0.6, 0.25, 0.15)}


def measure(weights: tuple[float, float, float], args: argparse.Namespace) -> tuple[float, float]:
    """Seconds to build a scene, and to draw a pair (both means; the first scene warms up and does not count)."""
    config = SyntheticConfig(weights=weights, sizes=(tuple(args.size),))
    built, drawn = [], []
    for seed in range(args.scenes + 1):
        start = time.process_time()
        scene = make_scene(seed, config)
        middle = time.process_time()
        generator = torch.Generator().manual_seed(seed)
        for _ in range(args.pairs):
            sample_pair(scene, generator)
        built.append(middle - start)
        drawn.append((time.process_time() - middle) / args.pairs)
    return float(np.mean(built[1:])), float(np.mean(drawn[1:]))


def main() -> None:
    """Print one row for each kind of scene and for the default mixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192))
    args = parser.parse_args()
    torch.set_num_threads(1)
    width, height = args.size
    print(f"{platform.processor() or platform.machine()}, one thread, {width}x{height}, load {os.getloadavg()[0]:.2f}")
    amortised = f"with building, {args.pairs} pairs a scene"
    print(f"{'scenes':>8} {'build s':>8} {'pair ms':>8} {'frames/s':>9} {amortised:>34}")
    for name, weights in MIXTURES.items():
        build, pair = measure(weights, args)
        both = 2 * args.pairs / (build + args.pairs * pair)
        print(f"{name:>8} {build:8.2f} {pair * 1e3:8.0f} {2 / pair:9.1f} {both:34.1f}")
    print(f"load {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
