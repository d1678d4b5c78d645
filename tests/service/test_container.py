"""Dockerfile and compose.yaml: their steps, run here in an environment of their own, since tests have no builder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import site
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("fastapi", reason="the service needs the extra serve")
pytest.importorskip("httpx", reason="the service needs the extra serve")

from service.running import free_port

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.extras, pytest.mark.slow]


def steps() -> list[tuple[str, str]]:
    """(instruction, what follows) of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def said(instruction: str) -> list[str]:
    return [rest for name, rest in steps() if name == instruction]


def test_compose_locks_the_service_up() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    service = services["service"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["tmpfs"] == ["/tmp"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert "METRILOC_DATABASE" in service["environment"] and "command" not in service
    assert services["database"]["image"].startswith("postgres:")
    assert said("USER") == ["metriloc"] and json.loads(said("CMD")[0])[0] == "serve"


def test_the_steps_make_a_service(tmp_path: Path) -> None:
    source, environment = tmp_path / "src", tmp_path / "environment"
    source.mkdir()
    for copied in said("COPY"):
        *files, target = copied.split()
        for name in files:
            place = source / target if (ROOT / name).is_dir() else source / target / name
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, place)
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    (packages,) = environment.glob("lib/*/site-packages")
    # what the steps would download, this environment has already
    (packages / "here.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    python = environment / "bin" / "python"
    for command in said("RUN"):
        for one in command.split(" && "):
            words = shlex.split(re.sub(r"--extra-index-url \S+", "", one))  # of torch, which is here
            if words[0] == "pip":
                subprocess.run([python, "-m", *words, "-q"], cwd=source, check=True)
    run(environment / "bin" / "metriloc", python, tmp_path)


def run(metriloc: Path, python: Path, folder: Path) -> None:
    """As the container starts it, told how long to wait by its own check."""
    data, port = folder / "data", free_port()
    words = [word if word != "/data" else str(data) for word in json.loads(said("CMD")[0])]
    plain = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "METRILOC_DATABASE")}
    started: dict[str, Any] = {"env": {**plain, "XDG_CACHE_HOME": str(data), "OMP_NUM_THREADS": "1"}, "cwd": folder}
    refused = subprocess.run([metriloc, *words, "--port", str(port)], capture_output=True, text=True, **started)
    assert refused.returncode == 2 and "there is no token" in refused.stderr, refused.stderr
    add = [metriloc, "serve", "token", "add", "phone", "--data", str(data)]
    token = subprocess.run(add, capture_output=True, text=True, check=True, **started).stdout.strip()
    service = [metriloc, *words, "--port", str(port), "--method", "identity"]
    with subprocess.Popen(service, stderr=subprocess.PIPE, text=True, **started) as process:
        try:
            check = json.loads(said("HEALTHCHECK")[0].split("CMD ", 1)[1])
            check = [part.replace("8000", str(port)) for part in check]
            end = time.monotonic() + 120
            while subprocess.run([python, *check[1:]], capture_output=True).returncode != 0:
                assert process.poll() is None and time.monotonic() < end, process.stderr
                time.sleep(0.2)
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/anchors")
            request.add_header("Authorization", f"Bearer {token}")
            assert json.load(urllib.request.urlopen(request)) == []
        finally:
            process.terminate()
