"""A service that is asked for what nobody should ask: no status 500, no request that hangs, no memory that grows.

    OMP_NUM_THREADS=1 python benchmarks/service_fuzz.py [--requests 10000] [--seed 0]      # needs schemathesis 4

Three quarters of the requests are made by schemathesis from the OpenAPI description; the rest are hostile: damaged
multipart, photos that claim to be huge, zip bombs, chunked bodies of no length. Meanwhile connections are held open that
send a byte now and then (slow loris). Prints statuses, the slowest answer and the memory of the service before and after;
exit code 1 for a 500, an answer that took more than a minute, or a service that is gone.
"""

from __future__ import annotations

import argparse
import collections
import io
import random
import socket
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from service.running import Running
from service_load import memory

HANG = 60.0
_FORM = "multipart/form-data; boundary=frontier"


class Asked:
    """What came of the requests."""

    def __init__(self) -> None:
        self.statuses: collections.Counter[int | str] = collections.Counter()
        self.slowest, self.wrong = 0.0, list[str]()

    def count(self, what: str, send: Callable[[], int | str]) -> None:
        """Send one and keep what it came to."""
        begun = time.monotonic()
        try:
            status = send()
        except (httpx.RemoteProtocolError, httpx.WriteError, httpx.ReadError):
            status = "closed"  # by the service, before all was sent
        except httpx.TimeoutException:
            status = "hung"
        seconds = time.monotonic() - begun
        self.statuses[status] += 1
        self.slowest = max(self.slowest, seconds)
        if status in (500, "hung") or seconds > HANG:
            self.wrong.append(f"{what}: {status} after {seconds:.1f} s")


def by_schema(running: Running, requests: int, asked: Asked) -> None:
    """Requests that the OpenAPI description leads to, good and bad."""
    address = f"http://127.0.0.1:{running.port}"
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        asking(operation, requests // len(operations), asked)()


def asking(operation: Any, count: int, asked: Asked) -> Callable[[], None]:
    """Sends so many requests of one kind."""
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=quiet, phases=[Phase.generate])
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        asked.count(operation.label, lambda: int(case.call(timeout=HANG + 10).status_code))

    return ask  # type: ignore[no-any-return]


# -- hostile ----------------------------------------------------------------------------------------------------------
def jpeg() -> bytes:
    """A good photo."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def png(width: int, height: int, packed: bytes) -> bytes:
    """One that claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """A zip of 20 kB that claims 20 MB, or with an entry that is packed many times over."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("manifest.json", "features.safetensors", "../../evil", "sparse/cameras.bin"):
            archive.writestr(name, bytes(5 * 10**6))
    return file.getvalue()


def multipart(parts: list[tuple[str, bytes]]) -> bytes:
    """A form whose parts have these first lines and contents."""
    return b"".join(b"--frontier\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + (
        b"--frontier--\r\n"
    )


def hostile(chance: random.Random) -> Iterator[tuple[str, str, dict[str, str], Any]]:
    """(what it is, path, headers, body), for ever."""
    photo, zeros, zip_bomb = jpeg(), zlib.compress(bytes(10**7)), bomb()
    disposition = 'Content-Disposition: form-data; name="photo"; filename="a.jpg"'
    good = multipart([(disposition, photo)])
    heads = [
        'Content-Disposition: form-data; name="photo"; filename="' + "A" * 5000 + '"',
        'Content-Disposition: form-data; name="photo"; filename="../../../etc/passwd\x00.jpg"',
        "Content-Disposition: form-data; name=photo; filename*=UTF-8''%ff%fe",
        'Content-Disposition: form-data; name="photo"',
        "Content-Disposition: attachment",
        "X: " + "y" * 20000,
        "",
    ]
    while True:
        kind = chance.randrange(8)
        if kind == 0:  # a few bytes of a good form are others
            data = bytearray(good)
            for _ in range(chance.randrange(1, 30)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            yield "damaged form", "/v1/anchors", {"content-type": _FORM}, bytes(data)
        elif kind == 1:
            yield "cut form", "/v1/anchors", {"content-type": _FORM}, good[: chance.randrange(len(good))]
        elif kind == 2:
            yield "odd part", "/v1/anchors", {"content-type": _FORM}, multipart([(chance.choice(heads), photo)])
        elif kind == 3:
            many = [('Content-Disposition: form-data; name="fov"', b"60")] * chance.choice((2, 900, 5000))
            yield "many parts", "/v1/anchors", {"content-type": _FORM}, multipart([*many, (disposition, photo)])
        elif kind == 4:
            size = chance.choice(((60000, 60000), (2**31 - 1, 1), (7000, 7000), (0, 0), (1, 2**31 - 1)))
            yield "huge PNG", "/v1/anchors", {"content-type": _FORM}, multipart([(disposition, png(*size, zeros))])
        elif kind == 5:
            bundle = 'Content-Disposition: form-data; name="bundle"; filename="a.metriloc"'
            yield "zip bomb", "/v1/maps", {"content-type": _FORM}, multipart([(bundle, zip_bomb)])
        elif kind == 6:
            sizes = [chance.randrange(1, 2**16) for _ in range(chance.randrange(1, 40))]
            yield "chunks", "/v1/anchors", {"content-type": _FORM}, (good[:500] + bytes(size) for size in sizes)
        else:
            head = {"content-type": chance.choice(("multipart/form-data", "text/html", "", "application/json", _FORM))}
            yield "other kinds", "/v1/anchors", head, chance.randbytes(chance.randrange(5000))


def hold(port: int, stop: threading.Event, count: int) -> None:
    """Connections that send a byte now and then, and are made again when they are closed."""
    held: list[socket.socket] = []
    while not stop.wait(0.5):
        while len(held) < count:
            try:
                held.append(socket.create_connection(("127.0.0.1", port), 10))
            except OSError:
                break
            held[-1].sendall(b"POST /v1/anchors HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        for connection in list(held):
            try:
                connection.sendall(b"a")
            except OSError:
                held.remove(connection)
                connection.close()
    for connection in held:
        connection.close()


def main() -> int:
    """Print a few lines; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        running = Running(Path(folder) / "data", "--body-seconds", "10", "--uploads", "1000").wait()
        try:
            return attack(running, args.requests, args.seed)
        finally:
            running.close()


def attack(running: Running, requests: int, seed: int) -> int:
    """The whole test."""
    asked, stop = Asked(), threading.Event()
    running.anchor(jpeg())
    before = memory(running)
    slow = threading.Thread(target=hold, args=(running.port, stop, 100))
    slow.start()
    by_schema(running, 3 * requests // 4, asked)
    print(f"by schema: {dict(asked.statuses)}", flush=True)
    attacks = hostile(random.Random(seed))
    with httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=HANG + 10) as http:
        while sum(asked.statuses.values()) < requests:
            what, path, headers, body = next(attacks)
            asked.count(what, lambda: http.post(path, headers=headers, content=body).status_code)  # noqa: B023
    stop.set()
    slow.join()
    alive = running.process.poll() is None and running.anchor(jpeg()).status_code == 201
    print(
        f"{sum(asked.statuses.values())} requests: {dict(asked.statuses)}; slowest {asked.slowest:.1f} s; memory "
        f"{before:.0f} MB, then {memory(running):.0f} MB; wrong: {len(asked.wrong)} {asked.wrong[:3]}; alive: {alive}"
    )
    return 1 if asked.wrong or not alive else 0


if __name__ == "__main__":
    raise SystemExit(main())
