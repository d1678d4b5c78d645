"""What an evaluation keeps of each estimate: one JSON line a task, appended as it comes, read back after any stop.

A run folder holds ``run.json`` (what is run, so that a resumed run cannot mix two methods) and ``records-*.jsonl``, one
file for each process that ever worked on it. A line that was cut off by a kill is dropped and its task done again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO, get_args

import torch

from metriloc.geometry import Pose
from metriloc.io import InputError, read_json, write_atomically
from metriloc.types import FailureReason, LocalizationDetails, PairDetails, PoseEstimate

RUN_FILE = "run.json"
MAX_LINE = 1 << 20


@dataclass(frozen=True)
class Record:
    """One estimate. q: w x y z and t: metres (or no unit, if not ``metric``), None without a pose; reason: why there is
    none (a ``FailureReason``, or a sentence about a file); seconds: wall time of the task; statistics, setup: of its
    details; matching_seconds: until the correspondences of a new query and their depths are known, None where that is not
    told."""

    key: str
    success: bool
    confidence: float
    q: tuple[float, ...] | None = None
    t: tuple[float, ...] | None = None
    metric: bool = True
    reason: str | None = None
    seconds: float = 0.0
    statistics: Mapping[str, float] = field(default_factory=dict)
    setup: str = ""
    matching_seconds: float | None = None

    @property
    def is_unreadable(self) -> bool:
        """Whether the files of the task could not be used; the reason is a sentence then."""
        return self.reason is not None and self.reason not in get_args(FailureReason)

    @property
    def pose(self) -> Pose | None:
        """float64."""
        if self.q is None or self.t is None:
            return None
        return Pose.from_quaternion(
            torch.tensor(self.q, dtype=torch.float64), torch.tensor(self.t, dtype=torch.float64)
        )


def record_of(key: str, estimate: PoseEstimate, seconds: float) -> Record:
    """What is kept of an estimate of batch shape ()."""
    both: tuple[PairDetails | LocalizationDetails, ...] = (*estimate.details, *estimate.localization)
    details = both[0] if both else None
    statistics = {} if details is None else dict(details.statistics)
    setup = "" if details is None else details.setup
    metric = details.metric if isinstance(details, PairDetails) else True
    timings = {} if details is None else details.timings
    steps = [timings[name] for name in ("extract_query", "match") if name in timings]
    matching = sum(steps) if len(steps) == 2 else None
    if not bool(estimate.success):
        return Record(key, False, 0.0, None, None, metric, estimate.reasons[0], seconds, statistics, setup, matching)
    pose = estimate.pose.detach().to("cpu", torch.float64)
    q, t = tuple(pose.quaternion().tolist()), tuple(pose.t.tolist())
    return Record(key, True, float(estimate.confidence), q, t, metric, None, seconds, statistics, setup, matching)


def unreadable(key: str, error: Exception) -> Record:
    """A task whose files cannot be used: a failure with the sentence."""
    return Record(key, False, 0.0, reason=str(error))


# -- the run folder ---------------------------------------------------------------------------------------------------
def fingerprint(keys: Sequence[str]) -> str:
    """Of the list of tasks, in order."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def open_run(folder: Path, description: Mapping[str, Any]) -> None:
    """Write ``run.json``, or check that the folder's is the same run. Raises InputError naming what differs."""
    path = folder / RUN_FILE
    wanted = json.loads(json.dumps(description))
    if not path.exists():
        write_atomically(path, json.dumps(wanted, indent=2) + "\n")
        return
    require_same_run(folder, wanted, set(wanted) | set(read_run(folder)))


def require_same_run(folder: Path, wanted: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises InputError for a folder whose run differs in one of the names of its description."""
    found = read_run(folder)
    for name in sorted(names):
        if wanted.get(name) != found.get(name):
            raise InputError(
                f"'{folder}' holds another run ({name}: {found.get(name)!r}, now {wanted.get(name)!r}): "
                "give another --out, or delete it"
            )


def read_run(folder: Path) -> dict[str, Any]:
    """The description of a run; InputError when it is not one."""
    content = read_json(folder / RUN_FILE)
    if not isinstance(content, dict) or not {"method", "weights_id"} <= set(content):
        raise InputError(f"'{folder / RUN_FILE}' describes no run (method and weights_id)")
    for name in ("method", "weights_id"):
        value = content[name]
        if not isinstance(value, str) or not value.isprintable() or len(value) > 300:
            raise InputError(f"'{folder / RUN_FILE}': {name} must be a short printable text, got {str(value)[:60]!r}")
    return content


@contextmanager
def open_records(folder: Path, worker: str) -> Iterator[TextIO]:
    """The file a worker appends to; a line that was cut off is ended first, so that the next one is whole."""
    path = folder / f"records-{worker}.jsonl"
    cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8") as file:
        if cut:
            file.write("\n")
        yield file


def append_record(file: TextIO, record: Record) -> None:
    """One line, on disk when this returns, so that a kill loses nothing that was reported."""
    file.write(json.dumps(asdict(record), allow_nan=False) + "\n")
    file.flush()
    os.fsync(file.fileno())


def read_records(folder: Path, keys: Iterable[str] | None = None) -> dict[str, Record]:
    """The records of all workers by key, each key once (the first worker's by name); others than ``keys`` left out.

    Lines that are not whole records are skipped: their tasks are simply not done yet.
    """
    wanted = None if keys is None else set(keys)
    records: dict[str, Record] = {}
    for path in sorted(folder.glob("records-*.jsonl")):
        with open(path, encoding="utf-8", errors="replace") as file:
            while line := file.readline(MAX_LINE):
                record = parse_record(line)
                if record is not None and record.key not in records and (wanted is None or record.key in wanted):
                    records[record.key] = record
    return records


def parse_record(line: str) -> Record | None:
    """The record of a line, or None when it is not one."""
    try:
        entry = json.loads(line)
        q, t = entry["q"], entry["t"]
        record = Record(
            key=str(entry["key"]),
            success=bool(entry["success"]),
            confidence=float(entry["confidence"]),
            q=None if q is None else tuple(float(x) for x in q),
            t=None if t is None else tuple(float(x) for x in t),
            metric=bool(entry["metric"]),
            reason=None if entry["reason"] is None else str(entry["reason"]),
            seconds=float(entry["seconds"]),
            statistics={str(k): float(v) for k, v in entry["statistics"].items()},
            setup=str(entry.get("setup", "")),
            matching_seconds=_optional(entry.get("matching_seconds")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    numbers = [
        record.confidence,
        record.seconds,
        record.matching_seconds or 0.0,
        *(record.q or ()),
        *(record.t or ()),
        *record.statistics.values(),
    ]
    complete = not record.success or (record.q is not None and record.t is not None)
    shapes = (record.q is None or len(record.q) == 4) and (record.t is None or len(record.t) == 3)
    return record if complete and shapes and all(math.isfinite(x) for x in numbers) else None


def _optional(value: object) -> float | None:
    return None if value is None else float(str(value))
