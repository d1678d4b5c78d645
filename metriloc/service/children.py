"""Processes that do one job after the other: kept for the next, killed at the time limit of a job, replaced when they die.

A job that kills its process costs itself only. The processes end with this one, however it ends: each waits at the other
end of a pipe.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from metriloc.children import how_it_ended
from metriloc.io import InputError
from metriloc.service.child import serve_jobs

_LOG = logging.getLogger("metriloc.service")
_STARTS = 5  # so many fail in a row, and who waits is told; it is tried again all the same
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["metriloc.service.poses"])  # imported once for all of them


class JobEndedError(Exception):
    """The process of a job ended or was killed before it was done. late: at its time limit."""

    def __init__(self, said: str, late: bool = False) -> None:
        super().__init__(said)
        self.late = late


class JobFailedError(Exception):
    """Work raised what it should not: a defect, which the log of the service tells more of."""


@dataclass(frozen=True, eq=False)
class Done:
    """answer: of the work. waited, worked: seconds."""

    answer: Any
    waited: float
    worked: float


@dataclass(eq=False)
class _Job:
    content: Any
    seconds: float
    future: Future[Done] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)
    taken: bool = False


class Children:
    """So many processes from ``start`` to ``close``, each with the function of ``make()``, called with what a job holds.

    - name: what the log calls them.
    - make: makes that function, in the process; must be picklable, and may take ``start_seconds``.
    - batch: jobs that a process is given at a time, where so many wait: it goes from one to the next by itself. Each has
      its own time, and costs itself only, all the same.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Callable[[Any], Any]],
        count: int,
        start_seconds: float = 300,
        batch: int = 1,
    ) -> None:
        self.name, self._make, self._start_seconds, self._batch = name, make, start_seconds, batch
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        self._closing, self._ready, self._busy = False, 0, 0
        self._why, self._hopeless = "", False
        self.broken: str | None = None
        self.pids: dict[int, int] = {}
        self._threads = [threading.Thread(target=self._attend, args=(i,), daemon=True) for i in range(count)]

    def start(self) -> Children:
        """Start them, unless they are. Until ``close``, they hold up the end of this process."""
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        return self

    @property
    def ready(self) -> bool:
        """Whether all of them can work."""
        return self._ready == len(self._threads)

    @property
    def waiting(self) -> int:
        """Jobs that nobody works on yet."""
        return len(self._jobs)

    @property
    def busy(self) -> int:
        """Processes at work."""
        return self._busy

    def submit(self, content: Any, seconds: float) -> Future[Done]:
        """Ask for a job. seconds: its time limit, from when it is begun.

        The future raises InputError for what the work refuses, JobEndedError, and JobFailedError.
        """
        job = _Job(content, seconds)
        with self._change:
            if self._closing or self.broken is not None:
                job.future.set_exception(JobEndedError(self.broken or "the service is shutting down"))
                return job.future
            self._jobs.append(job)
            self._change.notify()
        return job.future

    def stop(self) -> None:
        """Take no more jobs; those that wait are given back."""
        with self._change:
            self._closing = True
            given_back = list(self._jobs)
            self._jobs.clear()
            self._change.notify_all()
        for job in given_back:
            job.future.set_exception(JobEndedError("the service is shutting down"))

    def close(self, seconds: float = 5) -> None:
        """End them all; jobs that are begun may take so many seconds, those that wait are given back."""
        self.stop()
        end = time.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        for pid in list(self.pids.values()):
            _kill(pid)

    def wait(self) -> None:
        """Until all of them can work. Raises InputError when they never will."""
        while not self.ready:
            if self.broken is not None:
                raise InputError(self.broken)
            time.sleep(0.05)

    # -- in a thread for each process ---------------------------------------------------------------------------------
    def _attend(self, number: int) -> None:
        failures = 0
        while not self._closing:
            process, connection = self._begin(number)
            failures = 0 if process is not None else failures + 1
            if process is None or connection is None:
                if failures >= _STARTS or self._hopeless:
                    self._give_back()
                if self._hopeless:
                    return
                time.sleep(min(0.2 * 2**failures, 5))
                continue
            self.broken = None
            self._ready += 1
            try:
                while (jobs := self._next(process)) and self._work(process, connection, jobs):
                    pass
            finally:
                self._ready -= 1
                connection.close()
                _end(process)
                self.pids.pop(number, None)

    def _begin(self, number: int) -> tuple[Any, Connection | None]:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=serve_jobs, args=(theirs, self._make), name=f"metriloc-{self.name}", daemon=True
        )
        try:
            _start(process)
        except (OSError, EOFError) as error:  # what starts processes was killed, too; the next time it is there again
            self._why = f"it could not be started ({type(error).__name__})"
            ours.close()
            theirs.close()
            return None, None
        theirs.close()
        self.pids[number] = int(process.pid or 0)
        said: Any = None
        try:
            said = ours.recv() if self._has_said(ours) else ("failed", "it took too long")
        except (EOFError, OSError):
            said = ("failed", "it ended")
        if said == ("ready", ""):
            return process, ours
        if not self._closing:
            _LOG.error("a process for %s could not start: %s", self.name, said[1])
        self._why, self._hopeless = said[1], said[0] == "hopeless"
        ours.close()
        _end(process)
        return None, None

    def _has_said(self, connection: Connection) -> bool:
        """Whether a process that was started says something in time, and while anybody wants to hear it."""
        end = time.monotonic() + self._start_seconds
        while not connection.poll(0.1):
            if self._closing or time.monotonic() > end:
                return False
        return True

    def _give_back(self) -> None:
        """Nobody waits for what cannot start."""
        with self._change:
            self.broken = f"no process for {self.name} can start: {self._why}"
            waiting = list(self._jobs)
            self._jobs.clear()
        for job in waiting:
            job.future.set_exception(JobEndedError(self.broken))

    def _next(self, process: Any) -> deque[_Job]:
        """Jobs that wait longest; none where there will be none, or the process has died meanwhile."""
        with self._change:
            while not self._closing and process.is_alive():
                if taken := self._taken():
                    self._busy += 1
                    return taken
                self._change.wait(1)
        return deque()

    def _taken(self) -> deque[_Job]:
        """One, or a fair part of many."""
        share = max(1, min(self._batch, len(self._jobs) // len(self._threads)))
        taken: deque[_Job] = deque()
        while self._jobs and len(taken) < share:
            job = self._jobs.popleft()
            if job.taken or job.future.set_running_or_notify_cancel():  # not where who asked has gone
                job.taken = True
                taken.append(job)
        return taken

    def _work(self, process: Any, connection: Connection, jobs: deque[_Job]) -> bool:
        """Whether the process can take more jobs."""
        try:
            connection.send([job.content for job in jobs])
            while jobs:
                begun = time.perf_counter()
                if not connection.poll(jobs[0].seconds):
                    process.kill()
                    job = jobs.popleft()
                    job.future.set_exception(JobEndedError(f"it took longer than {job.seconds:g} s", late=True))
                    return False
                said = connection.recv()
                _tell(jobs.popleft(), said, begun)
        except (EOFError, OSError):
            process.join(5)
            jobs.popleft().future.set_exception(JobEndedError(f"its process {how_it_ended(process.exitcode or 0)}"))
            return False
        finally:
            self._busy -= 1
            self._put_back(jobs)
        return True

    def _put_back(self, jobs: deque[_Job]) -> None:
        """What was not begun waits again, before all others."""
        with self._change:
            if not self._closing:
                self._jobs.extendleft(reversed(jobs))
                self._change.notify()
                return
        for job in jobs:
            job.future.set_exception(JobEndedError("the service is shutting down"))


def _tell(job: _Job, said: tuple[str, Any], begun: float) -> None:
    kind, answer = said
    if kind == "done":
        job.future.set_result(Done(answer, begun - job.since, time.perf_counter() - begun))
    else:
        job.future.set_exception({"refused": InputError, "ended": JobEndedError}.get(kind, JobFailedError)(answer))


def _start(process: Any) -> None:
    """So that what is started, and what that starts, is ended by us and never hears Ctrl+C."""
    resource_tracker.ensure_running()  # which lets this thread hear it again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()


def _end(process: Any) -> None:
    process.kill()
    process.join()
    process.close()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
