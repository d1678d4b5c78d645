"""What the service costs beyond the library, and what asking in batches saves, in one run.

    OMP_NUM_THREADS=1 python benchmarks/service_overhead.py [--method xfeat] [--repeats 20]

Overhead: a photo placed at an anchor, by HTTP on this machine, less what the process with the models worked on it and what
decoding took, as the service's own numbers tell it. One by one and in batches: the same photos in requests of one,
and in one request.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from service.running import Running

EXAMPLE = Path(__file__).resolve().parents[1] / "metriloc" / "data" / "example"
_SUM = re.compile(r'metriloc_stage_seconds_sum\{stage="([^"]+)"\} (\S+)')


def stages(running: Running) -> dict[str, float]:
    """Seconds of each stage so far."""
    return {name: float(value) for name, value in _SUM.findall(running.http.get("/metrics").text)}


def processor(running: Running) -> float:
    """Seconds of the processor that the server took, without its other processes: what no load of others changes."""
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print a few lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="xfeat")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    query = ("photo", ("query.jpg", (EXAMPLE / "query.jpg").read_bytes()))
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder) / "data", "--threads", "1", method=args.method).wait()
        try:
            made = running.anchor((EXAMPLE / "reference.jpg").read_bytes()).json()
            at = f"/v1/anchors/{made['id']}/poses"
            running.http.post(at, files=[query]).raise_for_status()
            print(f"an anchor of 640x480 takes {made['bytes'] / 1e6:.1f} MB")
            beyond, decoding, models, whole = [], [], [], []
            for _ in range(args.repeats):
                before, begun = stages(running), time.perf_counter()
                running.http.post(at, files=[query]).raise_for_status()
                whole.append(time.perf_counter() - begun)
                took = {name: value - before.get(name, 0.0) for name, value in stages(running).items()}
                models.append(took["models"])
                decoding.append(took["decode"])
                beyond.append(whole[-1] - models[-1] - decoding[-1])
            begun = processor(running)
            for _ in range(args.repeats):
                running.http.post(at, files=[query]).raise_for_status()
            own = (processor(running) - begun) / args.repeats
            print(f"processor of the server itself: {1000 * own:.1f} ms a request")
            for name, found in (("request", whole), ("models", models), ("decoding", decoding), ("beyond", beyond)):
                print(f"{name}: median {1000 * np.median(found):.1f} ms, best {1000 * min(found):.1f} ms")
            begun = time.perf_counter()
            for _ in range(8):
                running.http.post(at, files=[query]).raise_for_status()
            single = time.perf_counter() - begun
            begun = time.perf_counter()
            running.http.post(at, files=8 * [query]).raise_for_status()
            batch = time.perf_counter() - begun
            print(
                f"8 photos: one by one {8 / single:.1f}, in one request {8 / batch:.1f} a second ({single / batch:.2f}x)"
            )
        finally:
            running.close()


if __name__ == "__main__":
    main()
