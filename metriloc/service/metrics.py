"""What ``/metrics`` tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Numbers of one service."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._stages = Histogram(
            "metriloc_stage_seconds", "Time by stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._requests = Counter("metriloc_requests", "Requests.", ["route", "status"], registry=registry)
        self._verdicts = Counter("metriloc_verdicts", "Photos by verdict.", ["what", "verdict"], registry=registry)
        self._refused = Counter("metriloc_busy", "Requests that were told to come again.", registry=registry)
        self.waiting = Gauge("metriloc_queue_jobs", "Jobs that wait for a process.", ["pool"], registry=registry)
        self.busy = Gauge("metriloc_busy_processes", "Processes at work.", ["pool"], registry=registry)
        self.stored = Gauge("metriloc_stored", "Anchors, maps, and their bytes.", ["what"], registry=registry)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time of a stage."""
        begun = perf_counter()
        try:
            yield
        finally:
            self.took(stage, perf_counter() - begun)

    def took(self, stage: str, seconds: float) -> None:
        """Count the seconds of a stage."""
        self._stages.labels(stage).observe(seconds)

    def answered(self, what: str, verdicts: tuple[str, ...], stages: Mapping[str, float]) -> None:
        """Count what was said of photos. what: ``anchor`` or ``map``."""
        for verdict in verdicts:
            self._verdicts.labels(what, verdict).inc()
        for stage, seconds in stages.items():
            self.took(f"method: {stage}", seconds)

    def requested(self, route: str, status: int) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()

    def refused(self) -> None:
        """Count a request that came while too many waited."""
        self._refused.inc()

    def text(self) -> bytes:
        """As Prometheus reads them."""
        return generate_latest(self.registry)
