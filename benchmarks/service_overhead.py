"""What the service costs beyond the library, and what taking requests together saves, each in one run.

    OMP_NUM_THREADS=1 python benchmarks/service_overhead.py [--method identity] [--repeats 100] [--rounds 5]

Overhead: a photo placed at an anchor, by HTTP on this machine, and by the library in this process (the same method, the
reference looked at before, from the bytes of the photo to the JSON), one after the other, over and over. Seconds of the
clock, which other work on the machine stretches, and of the processor: of all processes of the service, and of this one.
Upload: the same body to an anchor that is not there, read and refused.

Together: requests of eight clients at a time, to a service whose workers take what waits, and to one whose workers take
one at a time, by turns; all answers must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from service.running import Running
from service_load import untimed

from metriloc.choose import MethodChoice, choose_method
from metriloc.io import as_view
from metriloc.runs.relpose import run_relpose
from metriloc.runs.relpose_results import RelposeRun

EXAMPLE = Path(__file__).resolve().parents[1] / "metriloc" / "data" / "example"
REFERENCE, QUERY = ((EXAMPLE / name).read_bytes() for name in ("reference.jpg", "query.jpg"))
CLIENTS = 8


def processor(pids: list[int]) -> float:
    """Seconds of the processor that these processes took."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def library(method_name: str) -> Callable[[], str]:
    """The library's own call: the bytes of the query in, the JSON out."""
    torch.set_num_threads(1)
    method, name = choose_method(MethodChoice(method_name)), Path("query.jpg")
    reference = as_view(REFERENCE, fov=60, name="reference.jpg")
    features = method.extract(reference)

    def call() -> str:
        run = RelposeRun(reference, method.name, method.weights_id, {"seed": 0})
        run_relpose(run, method, [name], lambda _: as_view(QUERY, fov=60, name="query.jpg"), reference=features)
        return json.dumps(run.as_dict(), indent=2)

    return call


def timed(call: Callable[[], Any], seconds: list[float]) -> Any:
    """What it returns, and how long it took, which is kept."""
    begun = time.perf_counter()
    made = call()
    seconds.append(time.perf_counter() - begun)
    return made


def ask(running: Running, id: str) -> Any:
    """The query at an anchor."""
    files = [("photo", ("query.jpg", QUERY))]
    return running.http.post(f"/v1/anchors/{id}/poses", data={"fov": "60"}, files=files)


def overhead(running: Running, method: str, repeats: int) -> None:
    """Print what a request costs beyond the call of the library."""
    made = running.anchor(REFERENCE).json()
    print(f"an anchor of 640x480 takes {made['bytes'] / 1e6:.1f} MB")
    call, id = library(method), made["id"]
    for _ in range(5):
        call()
        ask(running, id).raise_for_status()
    took: dict[str, list[float]] = {"request": [], "library": [], "upload": []}
    pids = [running.process.pid, *running.children()]
    service, own = 0.0, 0.0
    for _ in range(repeats):
        begun = processor(pids)
        timed(lambda: ask(running, id), took["request"]).raise_for_status()
        service += processor(pids) - begun
        begun = time.process_time()
        timed(call, took["library"])
        own += time.process_time() - begun
        timed(lambda: ask(running, "0" * 32), took["upload"])
    took["beyond the library"] = list(np.subtract(took["request"], took["library"]))
    for name, found in took.items():
        best, low, median = 1000 * np.array([min(found), np.quantile(found, 0.25), np.median(found)])
        print(f"{name}: best {best:.1f} ms, lower quarter {low:.1f} ms, median {median:.1f} ms")
    print(
        f"of the processor: service {1000 * service / repeats:.1f} ms, library {1000 * own / repeats:.1f} ms a request"
    )


def together(services: dict[str, Running], rounds: int, each: int) -> None:
    """Print how many requests a second each service answers."""
    ids = {name: running.anchor(REFERENCE).json()["id"] for name, running in services.items()}
    answers, rates = set[str](), {name: list[float]() for name in services}
    with ThreadPoolExecutor(CLIENTS) as clients:
        for _ in range(rounds):
            for name, running in services.items():
                begun = time.perf_counter()
                found = list(clients.map(lambda _: ask(running, ids[name]), range(each)))  # noqa: B023
                rates[name].append(each / (time.perf_counter() - begun))
                answers |= {json.dumps(untimed(one.raise_for_status().json())) for one in found}
    for name, found in rates.items():
        print(f"{name}: median {np.median(found):.1f}, best {max(found):.1f} requests a second")
    print(f"{len(answers)} answer to all of them" if len(answers) == 1 else f"{len(answers)} answers: they differ")


def main() -> None:
    """Print a few lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="identity")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=80, help="requests of a round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder) / "data", "--threads", "1", method=args.method).wait()
        try:
            overhead(running, args.method, args.repeats)
        finally:
            running.close()
        options = ("--threads", "1", "--queue", "100")
        services = {
            f"{size} at a time": Running(
                Path(folder) / f"data{size}", *options, "--batch", str(size), method=args.method
            )
            for size in (8, 1)
        }
        try:
            for one in services.values():
                one.wait()
            together(services, args.rounds, args.each)
        finally:
            for one in services.values():
                one.close()


if __name__ == "__main__":
    main()
