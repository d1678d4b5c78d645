"""The service as a process: on its address, stopped, killed, and with clients that do not behave."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

httpx = pytest.importorskip("httpx", reason="the client needs the extra serve")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

from service.running import Running, free_port  # noqa: E402 - needs httpx

from metriloc.cli.main import main  # noqa: E402

pytestmark = [pytest.mark.extras, pytest.mark.slow]


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("server") / "data", "--header-seconds", "0.5", "--body-seconds", "1").wait()
    yield made
    made.close()


def test_slow_clients_are_let_go(running: Running) -> None:
    address = ("127.0.0.1", running.port)
    with socket.create_connection(address, 30) as silent, socket.create_connection(address, 30) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        begun = time.monotonic()
        assert silent.recv(100) == b"" and slow.recv(100) == b""  # closed
        assert time.monotonic() - begun < 20
    with socket.create_connection(address, 30) as slow:
        slow.sendall(b"POST /v1/anchors HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n")
        slow.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x")
        told = b""
        while part := slow.recv(10000):  # until it is closed
            told += part
        assert told.startswith(b"HTTP/1.1 408") and b"did not arrive within 1 s" in told
    with socket.create_connection(address, 30) as chunked:
        chunked.sendall(b"POST /v1/anchors HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n")
        chunked.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\nzz\r\n")
        assert b"400" in chunked.recv(10000)
    assert running.http.get("/healthz").status_code == 200


def test_two_requests_on_one_connection(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), 30) as client:
        for _ in range(2):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            told = b""
            while not told.endswith(b'{"status":"ok"}'):
                told += client.recv(10000)
            assert told.startswith(b"HTTP/1.1 200")
            time.sleep(0.7)  # longer than the first lines may take: nothing is begun meanwhile


def test_killed_processes_cost_its_requests_only(running: Running) -> None:
    assert running.anchor(jpeg(0)).status_code == 201
    for pid in running.children():  # also what starts them
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 60
    while running.anchor(jpeg(1)).status_code != 201:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_ctrl_c_while_it_starts_says_one_line(tmp_path: Path, seconds: float) -> None:
    starting = Running(tmp_path / "data")
    while not starting.children() and starting.process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(starting.process.pid, signal.SIGINT)  # as a terminal does: all its processes hear it
    assert starting.process.wait(60) == 130
    starting.close()
    assert (tmp_path / "data.log").read_text() == "metriloc serve: interrupted\n"


def kill_after(running: Running, acknowledged: list[str], enough: int, seconds: float) -> None:
    end = time.monotonic() + 120
    while len(acknowledged) < enough and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(seconds)
    running.kill()


def test_acknowledged_anchors_survive_kills(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    chance = random.Random(0)
    for kill in range(2):
        running = Running(tmp_path / "data").wait()
        for id in acknowledged:
            assert running.http.get(f"/v1/anchors/{id}").status_code == 200
        enough, later = len(acknowledged) + 2, chance.uniform(0, 0.3)
        killer = threading.Thread(target=kill_after, args=(running, acknowledged, enough, later))
        killer.start()
        try:
            for number in range(10000):
                made = running.anchor(jpeg(1000 * kill + number))
                if made.status_code == 201:
                    acknowledged.append(made.json()["id"])
        except httpx.TransportError:
            pass
        killer.join()
        running.close()
    running = Running(tmp_path / "data").wait()
    listed = {one["id"] for one in running.http.get("/v1/anchors", params={"count": 1000}).json()}
    assert set(acknowledged) <= listed and len(acknowledged) >= 3
    for id in listed:  # none is half there
        found = running.http.post(f"/v1/anchors/{id}/poses", files=[("photo", ("a.jpg", jpeg(0)))])
        assert found.status_code == 200 and found.json()["queries"][0]["success"]
    children = running.children()
    assert children and running.stop() in (0, -signal.SIGTERM)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < end, "processes of the service are left"
        time.sleep(0.1)
    assert not list((tmp_path / "data" / "spool").iterdir())


def test_no_stranger_gets_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, port = ["--data", str(tmp_path / "data")], ["--port", str(free_port())]
    for options, words in (
        (["--host", "0.0.0.0"], "there is no token: make one first"),
        (["--require-token"], "there is no token: make one first"),
        (["--rate", "much"], "--rate is NUMBER/second"),
        (["--blobs", "nowhere://x"], "--blobs nowhere://x: features at a URL need fsspec"),
        (["--host", "256.1.1.1"], f"--host 256.1.1.1 --port {port[1]}: "),
        (["--port", "70000"], "--port must be at most 65535"),
        (["--workers", "0"], "--workers must be positive"),
        (["--method", "nothing"], "there is no method 'nothing'"),
        (["--localizer", "nothing"], "--localizer nothing is none: one of nre"),
        (["--data", __file__], "is a file, not a folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["serve", *data, *(options if "--port" in options else [*port, *options])])
        told = capsys.readouterr()
        assert ended.value.code == 2 and words in told.err and not told.out


def test_tokens_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["serve", "token", *words, "--data", str(tmp_path / "data")])
        return (int(ended.value.code or 0), *capsys.readouterr())  # type: ignore[return-value]

    code, _, said = run("list")
    assert code == 2 and "is no folder of a service" in said and not (tmp_path / "data").exists()
    code, made, _ = run("add", "phone", "--scope", "read", "--days", "30")
    assert code == 0 and made.startswith("metriloc_")
    code, listed, _ = run("list")
    assert code == 0 and "phone" in listed and "read" in listed and made.strip() not in listed
    assert run("rotate", "phone")[1] != made and run("revoke", "phone")[1].strip() == "2 ended"
    assert run("revoke", "phone")[0] == 2 and run("add")[0] == 2
    assert "ended" in run("list")[1]
