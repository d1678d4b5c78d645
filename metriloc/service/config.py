"""Settings of the service; the command line makes its options of them."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from metriloc.io import InputError
from metriloc.io.arguments import require_number
from metriloc.io.images import DEFAULT_MAX_MEGAPIXELS

MEBIBYTE = 2**20
_POSITIVE = (
    "decode_seconds",
    "solve_seconds",
    "header_seconds",
    "body_seconds",
    "shutdown_seconds",
    "keep_days",
    "megapixels",
)


def default_folder() -> Path:
    """Where a service keeps its data unless it is told: the user's folder for data of programs."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "metriloc" / "service"


@dataclass(frozen=True)
class ServiceConfig:
    """Where the service listens, what it keeps, and how far it goes for whom."""

    data: Path = field(default_factory=default_folder)
    """Folder of what is stored: service.db, blobs, audit.jsonl."""
    host: str = "127.0.0.1"
    """Address to listen at; any but one of this machine needs a token (metriloc serve token add NAME)."""
    port: int = 8000
    """Port to listen at."""
    database: str | None = field(default_factory=lambda: os.environ.get("METRILOC_DATABASE"))
    """Where rows are kept: postgresql://USER:PASSWORD@HOST/NAME (extra postgres), better said by METRILOC_DATABASE, which
    nobody sees; by default SQLite in --data."""
    blobs: str | None = None
    """Where features are kept: a URL that fsspec knows, such as s3://BUCKET/FOLDER (then also s3fs); by default --data."""
    method: str = "auto"
    """For two photos, as of metriloc relpose."""
    localizer: str | None = None
    """For maps, as of metriloc localize --method."""
    device: str = "cpu"
    """Where models run: cpu, cuda, cuda:1, ..."""
    runtime: str = "torch"
    """What runs the networks: torch, onnx, or onnx:FOLDER (files of metriloc export)."""
    threads: int | None = None
    """Of each process with models; by default as many as there are processors, as of other commands."""
    workers: int = 1
    """Processes that place photos; one more makes anchors and looks at maps. Each needs the memory of the models."""
    queue: int | None = None
    """Requests that may wait for a worker, however long that takes; more are told when to come again (503). By default
    as many as are answered within twice the time that they take alone."""
    batch: int = 8
    """Most requests that a worker takes from the queue at a time."""
    decode_seconds: float = 20
    """After which a process that decodes a file is killed."""
    solve_seconds: float = 120
    """After which a process that works on a photo is killed."""
    body_mebibytes: int = 64
    """Largest body of a request, but for maps."""
    map_mebibytes: int = 2048
    """Largest map."""
    body_seconds: float = 60
    """Longest time that a body may take to arrive; maps have ten times as long."""
    header_seconds: float = 10
    """Longest time that the first lines of a request may take to arrive."""
    megapixels: float = DEFAULT_MAX_MEGAPIXELS
    """Largest photo."""
    photos: int = 16
    """Most photos of a request."""
    connections: int = 512
    """Open at a time."""
    uploads: int = 32
    """Requests with a body that may be open at a time."""
    rate: str = "600/minute"
    """Requests of a token (or of an address, where none is needed): NUMBER/second, minute or hour."""
    keep_days: float | None = None
    """Anchors and maps are forgotten after so many days; by default never."""
    quota_mebibytes: int = 10240
    """Of all that is stored."""
    require_token: bool = False
    """Ask for a token on this machine, too."""
    hosts: tuple[str, ...] = ()
    """Names by which the service is reached (of a proxy, say); others than these and --host are refused."""
    shutdown_seconds: float = 30
    """How long requests may take to finish when the service is stopped."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("workers", self.workers, 1),
            ("threads", self.threads, 1),
            ("queue", self.queue, 0),
            ("batch", self.batch, 1),
            ("photos", self.photos, 1),
            ("connections", self.connections, 1),
            ("uploads", self.uploads, 1),
        ):
            require_number(f"--{name}", value, least, 100_000, whole=True)
        require_number("--port", self.port, 0, 65535, whole=True)
        for name in _POSITIVE:
            value = getattr(self, name)
            require_number(f"--{name.replace('_', '-')}", value, most=1e6)
            if value is not None and value <= 0:
                raise InputError(f"--{name.replace('_', '-')} must be positive, got {value:g}")
        for name in ("body_mebibytes", "map_mebibytes", "quota_mebibytes"):
            require_number(f"--{name.replace('_', '-')}", getattr(self, name), 1, 2**30, whole=True)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def needs_token(self) -> bool:
        """Whether requests must bring a token."""
        return self.require_token or not self.is_local
