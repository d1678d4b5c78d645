"""A service under twice the load it can bear: who is let in is answered right and soon, and nothing is lost.

    OMP_NUM_THREADS=1 python benchmarks/service_load.py [--seconds 60] [--method xfeat] [--workers 1] [--photo FILE]

First one client alone, whose answers are what all others must get. Then so many clients that they ask for twice what the
alone one did, a fifth of them leaving anchors, the others placing photos at them. Prints how many were let in and how
many told to come again, how long those waited who were let in, and the memory of the service at the beginning and the
end; ends with exit code 1 for a wrong answer, a status that should not be, or an anchor that was acknowledged and is gone.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from service.running import Running

EXAMPLE = Path(__file__).resolve().parents[1] / "metriloc" / "data" / "example"
_EXPECTED = (200, 201, 503)


def untimed(value: Any) -> Any:
    """JSON without the seconds it took."""
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if key != "timings_s"}
    return [untimed(part) for part in value] if isinstance(value, list) else value


class Load:
    """What the clients share."""

    def __init__(self, running: Running, photo: bytes, query: bytes) -> None:
        self.running, self.photo, self.query = running, photo, query
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.seconds: dict[str, list[float]] = collections.defaultdict(list)
        self.statuses: collections.Counter[int] = collections.Counter()
        self.anchors: list[str] = []
        self.wanted: str | None = None
        self.wrong: list[str] = []

    def leave(self) -> None:
        """An anchor."""
        begun = time.perf_counter()
        made = self.running.anchor(self.photo)
        self._count("anchor", made, begun)
        if made.status_code == 201:
            with self.lock:
                self.anchors.append(made.json()["id"])

    def place(self, id: str) -> None:
        """A photo at an anchor, whose answer must be that of the first."""
        begun = time.perf_counter()
        files = [("photo", ("query.jpg", self.query))]
        found = self.running.http.post(f"/v1/anchors/{id}/poses", data={"fov": "60"}, files=files)
        self._count("pose", found, begun)
        if found.status_code == 200:
            told = json.dumps(untimed(found.json()))
            with self.lock:
                self.wanted = self.wanted or told
                if told != self.wanted:
                    self.wrong.append("an answer that is not that of the first")

    def _count(self, what: str, response: Any, begun: float) -> None:
        with self.lock:
            self.statuses[response.status_code] += 1
            if response.is_success:
                self.seconds[what].append(time.perf_counter() - begun)
            elif response.status_code not in _EXPECTED:
                self.wrong.append(f"{response.status_code}: {response.text[:200]}")

    def client(self, seed: int, pause: float) -> None:
        """One of many, until all are stopped."""
        chance = random.Random(seed)
        while not self.stop.is_set():
            if chance.random() < 0.2:
                self.leave()
            else:
                with self.lock:
                    id = chance.choice(self.anchors)
                self.place(id)
            self.stop.wait(chance.uniform(0, 2 * pause))


def memory(running: Running) -> float:
    """MB that the service and its processes have for themselves."""
    kilobytes = 0
    for pid in [running.process.pid, *running.children()]:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1e3


def alone(load: Load, count: int) -> dict[str, float]:
    """The 99th percentile of each kind of request with nobody else there."""
    load.leave()
    for _ in range(count):
        load.leave()
        load.place(load.anchors[0])
    return {what: float(np.percentile(found, 99)) for what, found in load.seconds.items()}


def main() -> int:
    """Print a few lines; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--method", default="xfeat")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--alone", type=int, default=20, help="requests of each kind of the client that is alone")
    parser.add_argument("--photo", type=Path, default=EXAMPLE / "reference.jpg")
    parser.add_argument("--query", type=Path, default=EXAMPLE / "query.jpg")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = ("--workers", str(args.workers), "--threads", "1")
        running = Running(Path(folder) / "data", *options, method=args.method).wait()
        try:
            load = Load(running, args.photo.read_bytes(), args.query.read_bytes())
            return report(load, alone(load, args.alone), args.seconds, args.workers)
        finally:
            running.close()


def report(load: Load, quiet: dict[str, float], seconds: float, workers: int) -> int:
    """The whole test, beside what a client that is alone waits for."""
    usual = {what: float(np.median(found)) for what, found in load.seconds.items()}
    print("alone: " + ", ".join(f"{what} {1000 * usual[what]:.0f} ms (p99 {1000 * quiet[what]:.0f})" for what in usual))
    # requests as they are mixed below, so that a wait for a long one counts as what it is
    quiet_all = float(np.percentile(load.seconds["anchor"][:5] + load.seconds["pose"], 99))
    load.seconds.clear()
    load.statuses.clear()
    before = memory(load.running)
    # each asks once in so long, when it need not wait: together twice what the workers can do
    mean = 0.2 * usual["anchor"] + 0.8 * usual["pose"]
    clients = 8 * workers
    pause = mean * clients / (2 * workers)
    threads = [threading.Thread(target=load.client, args=(seed, pause)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    load.stop.set()
    for thread in threads:
        thread.join()
    after = memory(load.running)
    quiet["all"] = quiet_all
    load.seconds["all"] = [second for found in load.seconds.values() for second in found]
    for what, found in sorted(load.seconds.items()):
        p99 = float(np.percentile(found, 99))
        print(
            f"{what}: {len(found)} let in, median {1000 * np.median(found):.0f} ms, p99 {1000 * p99:.0f} ms = "
            f"{p99 / quiet[what]:.1f} times that of one alone"
        )
    print(f"statuses: {dict(sorted(load.statuses.items()))}; memory {before:.0f} MB, then {after:.0f} MB")
    for id in load.anchors:
        if load.running.http.get(f"/v1/anchors/{id}").status_code != 200:
            load.wrong.append(f"anchor {id} was acknowledged and is gone")
    print(f"{len(load.anchors)} anchors acknowledged; wrong: {len(load.wrong)} {load.wrong[:3]}")
    return 1 if load.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
