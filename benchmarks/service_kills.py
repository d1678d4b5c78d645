"""SIGKILL to a service or its workers while anchors are left: none that was acknowledged is lost, none is half there.

    OMP_NUM_THREADS=1 python benchmarks/service_kills.py [--kills 100] [--method identity]

Three clients leave anchors meanwhile. Half of the kills are of the server, a random moment after a few anchors were
acknowledged; half of all its other processes, which it replaces. After each
kill of the server every anchor that was acknowledged is looked up; at the end each that is listed is asked for a pose.
Exit code 1 for anything lost or half there.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from service.running import Running

WRITERS = 3


def jpeg(seed: int) -> bytes:
    """A small photo of its own."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def leave_anchors(running: Running, acknowledged: list[str], seed: int, stop: threading.Event) -> None:
    """One after the other, until the service is gone or all is done."""
    number = 0
    while not stop.is_set():
        try:
            made = running.anchor(jpeg(1000 * seed + number))
        except httpx.TransportError:
            return
        if made.status_code == 201:
            acknowledged.append(made.json()["id"])
        elif made.status_code != 503:  # 503 is what a killed worker costs
            print(f"{made.status_code}: {made.text}")
        number += 1


def await_more(acknowledged: list[str], chance: random.Random) -> None:
    """Until a few more are acknowledged, and a moment longer, in which others are on their way."""
    enough, end = len(acknowledged) + chance.randrange(1, 5), time.monotonic() + 60
    while len(acknowledged) < enough and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.2))


def all_listed(running: Running) -> set[str]:
    """Ids of all anchors."""
    found: list[str] = []
    while True:
        after = found[-1] if found else ""
        page = running.http.get("/v1/anchors", params={"count": 1000, "after": after}).json()
        if not page:
            return set(found)
        found += [one["id"] for one in page]


def main() -> int:
    """Print one line; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--method", default="identity")
    args = parser.parse_args()
    chance, acknowledged = random.Random(0), list[str]()
    kills = {"server": 0, "workers": 0}
    lost: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        while sum(kills.values()) < args.kills:
            running, stop = Running(data, "--queue", str(WRITERS), method=args.method).wait(), threading.Event()
            lost |= set(acknowledged) - all_listed(running)
            writers = [
                threading.Thread(target=leave_anchors, args=(running, acknowledged, 10 * sum(kills.values()) + k, stop))
                for k in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            await_more(acknowledged, chance)
            if kills["workers"] <= kills["server"] and kills["workers"] < args.kills // 2:
                for pid in running.children():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                kills["workers"] += 1
                await_more(acknowledged, chance)
            running.kill()
            kills["server"] += 1
            stop.set()
            for writer in writers:
                writer.join()
            running.close()
        running = Running(data, method=args.method).wait()
        listed = all_listed(running)
        lost |= set(acknowledged) - listed
        half = [id for id in sorted(listed) if not whole(running, id)]
        blobs = sum(1 for _ in (data / "blobs").glob("*/*"))
        running.close()
    print(
        f"{kills['server']} SIGKILLs of the server, {kills['workers']} of all its other processes: {len(acknowledged)} "
        f"anchors acknowledged, {len(lost)} lost; {len(listed)} listed, {len(half)} half there; {blobs} files"
    )
    return 1 if lost or half else 0


def whole(running: Running, id: str) -> bool:
    """Whether an anchor can be used."""
    found = running.http.post(f"/v1/anchors/{id}/poses", files=[("photo", ("a.jpg", jpeg(0)))])
    return found.status_code == 200 and bool(found.json()["queries"][0]["success"])


if __name__ == "__main__":
    raise SystemExit(main())
