"""A whole MicKey pair against its bare network, and a second query against the same reference.

    python benchmarks/mickey_pair.py [--size small|large] [--device cpu|cuda] [--repeats 3]

720x540 photos of noise, random weights (times do not depend on them). ``large`` is the official ViT-L configuration.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections.abc import Callable

import torch

from metriloc.backbones import VIT_L, VIT_S
from metriloc.geometry import Camera
from metriloc.methods.mickey import MicKey, MicKeyConfig, MicKeyNetwork
from metriloc.types import View


def photo(seed: int) -> View:
    """540x720 pixels (width x height) of noise."""
    image = torch.rand(3, 720, 540, generator=torch.Generator().manual_seed(seed))
    return View(image, Camera.from_fov((540, 720), 0.9))


def seconds(call: Callable[[], object], repeats: int, device: str) -> float:
    """Median wall time."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["small", "large"], default="large")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = MicKey(MicKeyNetwork(MicKeyConfig(backbone=VIT_L if arguments.size == "large" else VIT_S)))
    model.to(arguments.device)
    view0, view1 = photo(0), photo(1)
    images = [view.image[None].to(arguments.device) for view in (view0, view1)]

    @torch.no_grad()
    def bare() -> None:
        for image in images:
            model.network(image)

    features0 = model.extract(view0)
    network = seconds(bare, arguments.repeats, arguments.device)
    pair = seconds(lambda: model.relative_pose(view0, view1), arguments.repeats, arguments.device)
    cached = seconds(lambda: model.relative_pose(features0, view1), arguments.repeats, arguments.device)
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else platform.processor() or "CPU"
    print(
        f"{datetime.date.today()}, {where}, torch {torch.__version__}, {arguments.size}, median of {arguments.repeats}"
    )
    print(f"bare network, two photos   {1000 * network:9.1f} ms")
    print(f"whole pair                 {1000 * pair:9.1f} ms   {pair / network:.3f} x the bare network")
    print(f"second query, same ref     {1000 * cached:9.1f} ms   {cached / pair:.3f} x a pair")


if __name__ == "__main__":
    main()
