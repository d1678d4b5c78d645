"""A service of its own process group, as ``metriloc serve`` starts it, to be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

import metriloc

ROOT = Path(metriloc.__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Running:
    """``metriloc serve`` with a folder of data, and what it is asked with."""

    def __init__(self, data: Path, *options: str, method: str = "identity") -> None:
        self.data, self.port = data, free_port()
        command = [sys.executable, "-m", "metriloc", "serve", "--data", str(data), "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.log = open(data.parent / f"{data.name}.log", "ab")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            [*command, "--method", method, "--rate", "1000000/hour", *options],
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def wait(self, seconds: float = 300) -> Running:
        """Until it answers."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.http.get("/readyz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            if time.monotonic() > end or self.process.poll() is not None:
                self.close()
                raise RuntimeError(f"the service did not start: {Path(self.log.name).read_text()[-2000:]}")
            time.sleep(0.02)

    def children(self) -> list[int]:
        """Its processes, and theirs."""
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            try:
                tasks = Path(f"/proc/{pid}/task").iterdir()
                below = [int(c) for task in tasks for c in (task / "children").read_text().split()]
            except OSError:
                continue
            found += below
            waiting += below
        return found

    def kill(self) -> None:
        """The server alone; its other processes must notice."""
        self.process.kill()
        self.process.wait()

    def stop(self, seconds: float = 60) -> int:
        """As Ctrl+C, docker and systemd do it; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        """Whatever is left of it ends."""
        self.http.close()
        self.log.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def anchor(self, data: bytes, **told: Any) -> httpx.Response:
        """A new anchor."""
        return self.http.post("/v1/anchors", data={"fov": "60", **told}, files=[("photo", ("photo.jpg", data))])
