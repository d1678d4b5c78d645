"""Processes that do jobs: killed at their time limit, replaced when they die, bounded by nothing they do."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metriloc.io import InputError
from metriloc.service.children import Children, JobEndedError, JobFailedError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a service needs forkserver")


def make() -> Callable[[Any], Any]:
    return work


def work(job: Any) -> Any:
    if job == "refuse":
        raise InputError("no photo")
    if job == "fail":
        raise ZeroDivisionError("a defect")
    if job == "sleep":
        time.sleep(60)
    if job == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    return os.getpid() if job == "pid" else job


def never() -> Callable[[Any], Any]:
    raise InputError("there are no weights")


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    made = Children("tests", make, 1).start()
    yield made
    made.close()


def answer(children: Children, job: Any, seconds: float = 60) -> Any:
    return children.submit(job, seconds).result(120).answer


@pytest.mark.slow
def test_one_process_does_job_after_job(children: Children) -> None:
    pid = answer(children, "pid")
    assert pid == answer(children, "pid") != os.getpid()
    futures = [children.submit(number, 60) for number in range(20)]
    assert [future.result(60).answer for future in futures] == list(range(20))
    with pytest.raises(InputError, match="no photo"):
        answer(children, "refuse")
    with pytest.raises(JobFailedError, match="a defect"):
        answer(children, "fail")
    assert answer(children, "pid") == pid


def test_what_dies_or_takes_too_long_costs_itself(children: Children) -> None:
    pid = answer(children, "pid")
    with pytest.raises(JobEndedError, match="ended by SIGSEGV"):
        answer(children, "die")
    with pytest.raises(JobEndedError, match=r"longer than 0\.2 s") as late:
        answer(children, "sleep", 0.2)
    assert late.value.late and answer(children, "pid") != pid


@pytest.mark.slow
def test_jobs_that_are_taken_together_cost_themselves_only() -> None:
    made = Children("batches", make, 1, batch=8).start()
    answer(made, "pid")
    first = made.submit("sleep", 0.5)
    while not first.running():
        time.sleep(0.01)
    jobs = ["a", "refuse", "b", "die", "c", "sleep", "d", "fail", "e"]  # which wait together
    futures = {job: made.submit(job, 60 if job != "sleep" else 0.5) for job in jobs}
    with pytest.raises(JobEndedError):
        first.result(60)
    assert [futures[job].result(120).answer for job in "abcde"] == list("abcde")
    for job, error, words in (
        ("refuse", InputError, "no photo"),
        ("die", JobEndedError, "ended by SIGSEGV"),
        ("sleep", JobEndedError, "it took longer"),
        ("fail", JobFailedError, "a defect"),
    ):
        with pytest.raises(error, match=words):
            futures[job].result(60)
    assert isinstance(answer(made, "pid"), int) and made.busy == made.waiting == 0
    made.close()


def test_jobs_of_who_has_left_are_not_begun(children: Children) -> None:
    long, gone, last = (children.submit(job, 1) for job in ("sleep", "pid", "pid"))
    assert gone.cancel()
    with pytest.raises(JobEndedError):
        long.result(60)
    assert isinstance(last.result(60).answer, int)


def test_what_cannot_start_is_said() -> None:
    broken = Children("broken", never, 1).start()
    future = broken.submit("pid", 1)
    with pytest.raises(JobEndedError, match="no process for broken can start: there are no weights"):
        future.result(120)
    assert broken.broken is not None and not broken.ready
    broken.close()


def test_closing_gives_back_what_waits() -> None:
    made = Children("closing", make, 1).start()
    answer(made, "pid")
    begun, waits = made.submit("sleep", 60), made.submit("pid", 60)
    while not begun.running():
        time.sleep(0.01)
    made.close(0.2)
    with pytest.raises(JobEndedError, match="shutting down"):
        waits.result(10)
    with pytest.raises(JobEndedError):
        begun.result(10)
