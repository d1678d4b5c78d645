"""Processor seconds of networks in torch and in ONNX Runtime, side by side in one run.

    OMP_NUM_THREADS=1 python benchmarks/runtimes.py [--size 640 480] [--repeats 5] [--models xfeat metriloc-small ...]

Each at the first size that its model looks at such a photo in, as torch runs it by default (batch norms folded,
channels-last) and as ``--runtime onnx`` does, with one thread. Calls alternate; medians.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time

import torch

from metriloc.backbones.folding import fold_batch_norms
from metriloc.export import load_network
from metriloc.export.runtime import OnnxRunner
from metriloc.io.download import cache_folder

MODELS = ("metriloc-small", "metriloc-depth", "pixloc-small", "xfeat", "aliked")


@torch.no_grad()
def main() -> None:
    """Print one row of a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, torch {torch.__version__}, one thread"
    )
    print("| model | image | torch, s | ONNX Runtime, s | ratio |\n|---|---|--:|--:|--:|")
    for name in arguments.models:
        network = load_network(name)
        size = network.sizes_for(*arguments.size)[0]
        fold_batch_norms(network.fixed.module)
        module = network.fixed.module.to(memory_format=torch.channels_last)
        runner = OnnxRunner(network.fixed, cache_folder() / "onnx")
        image = torch.rand(1, 3, size[1], size[0])
        like_torch = image.contiguous(memory_format=torch.channels_last)
        times: dict[str, list[float]] = {"torch": [], "onnx": []}
        for number in range(-1, arguments.repeats):
            for key, call in (("torch", lambda m=module, x=like_torch: m(x)), ("onnx", lambda r=runner, x=image: r(x))):
                start = time.process_time()
                call()
                if number >= 0:
                    times[key].append(time.process_time() - start)
        ours, other = statistics.median(times["torch"]), statistics.median(times["onnx"])
        print(f"| `{name}` | {size[0]}x{size[1]} | {ours:.3f} | {other:.3f} | {ours / other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
