"""A line before processes with models: room for requests, and what is asked of the processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metriloc.io import InputError
from metriloc.service.admission import FullError, Room
from metriloc.service.children import Children, JobEndedError, JobFailedError
from metriloc.service.config import ServiceConfig
from metriloc.service.metrics import Metrics
from metriloc.service.poses import Models
from metriloc.service.problems import Problem


class Line:
    """name: what logs and metrics call it. workers: its processes."""

    def __init__(self, name: str, models: Models, workers: int, config: ServiceConfig, metrics: Metrics) -> None:
        self._config, self._metrics = config, metrics
        self.children = Children(name, models, workers, batch=config.batch)
        self.room = Room(workers, config.queue)

    @contextmanager
    def entered(self, kind: str, photos: int = 1, bounded: bool = True) -> Iterator[None]:
        """As long as a request is in hand. Raises Problem where there is no room for it."""
        try:
            visit = self.room.enter(kind, photos, bounded)
        except FullError as full:
            self._metrics.refused()
            said = f"too many requests wait: come again in {full.seconds} s"
            raise Problem(503, said, retry_after=str(full.seconds)) from None
        answered = False
        try:
            yield
            answered = True
        finally:
            self.room.leave(visit, answered)

    async def ask(self, job: Any, photos: int = 1) -> Any:
        """What a process makes of a job, within the time for so many photos. Raises Problem."""
        try:
            done = await asyncio.wrap_future(self.children.submit(job, self._config.solve_seconds * photos))
        except InputError as error:
            raise Problem(422, str(error)) from None
        except JobEndedError as ended:
            if ended.late:
                raise Problem(504, f"the photo was given up: {ended}") from None
            raise Problem(503, f"nothing was stored or answered: {ended}; try again", retry_after="2") from None
        except JobFailedError:
            raise Problem(500, "the service failed on this request; its log tells more") from None
        self._metrics.took("queue", done.waited)
        self._metrics.took("models", done.worked)
        return done.answer
