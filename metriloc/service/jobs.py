"""Photos that are placed when there is time: kept with what was asked, done after a restart, too, the answer kept a day."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metriloc.service.blobs import UnreachableError, digest_of
from metriloc.service.decoders import Known, Upload, passing_files
from metriloc.service.desk import Asked, Desk, cost_of
from metriloc.service.devices import DevicePoses
from metriloc.service.poses import PhotoFile
from metriloc.service.problems import Problem
from metriloc.service.records import JOB_BLOBS, JOBS, Kind

_LOG = logging.getLogger("metriloc.service")
MOST_WAITING = 10_000
ATTEMPTS = 3
"""After so many processes that ended with a job, it is given up."""
_PAUSE_S, _MARGIN_S = 0.2, 60.0


class Jobs:
    """The jobs of a service; ``work`` does them, one after the other, whenever a process with models is free."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._accepting = desk, asyncio.Semaphore(1)  # one body at a time is in memory

    async def accept(self, kind: Kind, id: str, photos: Sequence[Upload], asked: Asked) -> dict[str, Any]:
        """A new job. Raises Problem."""
        await self._desk.find(kind, id)
        async with self._accepting:
            with passing_files() as files:
                decoded = await self._desk.decoders.photos(photos, asked.known, files)
                return await asyncio.to_thread(self._keep, kind, id, decoded, asked)

    def _keep(self, kind: Kind, id: str, photos: Sequence[PhotoFile], asked: Asked) -> dict[str, Any]:
        digests = [None if photo.path is None else digest_of(photo.path) for photo in photos]
        size = sum(photo.path.stat().st_size for photo in photos if photo.path is not None)
        told = {
            "kind": kind,
            "id": id,
            "photos": [
                {"name": photo.name, "error": photo.error, "blob": digest}
                for photo, digest in zip(photos, digests, strict=True)
            ],
            **asdict(asked),
        }
        now = time.time()
        row = {"id": secrets.token_hex(16), "state": "waiting", "created": now, "changed": now}
        with self._desk.records.writing() as rows:
            waiting = rows.scalar(sa.select(sa.func.count()).select_from(JOBS).where(JOBS.c.state != "done")) or 0
            if waiting >= MOST_WAITING:
                raise Problem(503, f"{waiting} jobs wait: come again in 60 s", retry_after="60")
            self._desk.check_quota(rows, size)
            rows.execute(JOBS.insert().values(**row, asked=json.dumps(told), attempts=0, bytes=size))
            for digest, photo in {d: p for d, p in zip(digests, photos, strict=True) if d is not None}.items():
                assert photo.path is not None
                self._desk.blobs.put(photo.path, digest)
                rows.execute(JOB_BLOBS.insert().values(job=row["id"], blob=digest))
        return {**row, "status": None, "answer": None}

    def find(self, id: str) -> dict[str, Any]:
        """What became of a job, with its answer when it is done. Raises Problem where there is none."""
        with self._desk.records.reading() as rows:
            row = rows.execute(sa.select(JOBS).where(JOBS.c.id == id)).mappings().first()
        if row is None:
            raise Problem(404, "there is no such job: it never was, was deleted, or is done for more than a day")
        found = {name: row[name] for name in ("id", "state", "created", "changed", "status")}
        return {**found, "answer": None if row["answer"] is None else json.loads(row["answer"])}

    def remove(self, id: str) -> None:
        """Forget a job. Raises Problem where there is none."""
        with self._desk.records.writing(alone=True) as rows:
            blobs = list(rows.scalars(sa.select(JOB_BLOBS.c.blob).where(JOB_BLOBS.c.job == id)))
            rows.execute(JOB_BLOBS.delete().where(JOB_BLOBS.c.job == id))
            if not rows.execute(JOBS.delete().where(JOBS.c.id == id)).rowcount:
                raise Problem(404, "there is no such job: it never was, was deleted, or is done for more than a day")
            for blob in blobs:
                if not self._desk.records.is_used(rows, blob):
                    self._desk.blobs.delete(blob)

    # -- doing them ---------------------------------------------------------------------------------------------------
    async def work(self) -> None:
        """For ever."""
        while True:
            if not self._desk.idle:  # requests that somebody waits for come first
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                row = await asyncio.to_thread(self._next)
                if row is None:
                    await asyncio.sleep(_PAUSE_S)
                else:
                    await self._do(row)
            except Exception:
                _LOG.exception("jobs: tried again")
                await asyncio.sleep(1)

    async def _do(self, row: dict[str, Any]) -> None:
        try:
            status, answer = 200, await self._answered(row["asked"])
        except Problem as problem:
            if problem.status_code == 503 and row["attempts"] + 1 < ATTEMPTS:
                await asyncio.to_thread(self._give_back, row, row["attempts"] + 1)
                return
            status, answer = problem.status_code, json.dumps({"detail": problem.detail})
        except BaseException:  # the service ends
            with suppress(Exception):
                self._give_back(row, row["attempts"])
            raise
        await asyncio.to_thread(self._done, row["id"], status, answer)

    def _done(self, id: str, status: int, answer: str) -> None:
        changes = {"state": "done", "status": status, "answer": answer, "changed": time.time(), "bytes": len(answer)}
        with self._desk.records.writing() as rows:
            rows.execute(JOBS.update().where(JOBS.c.id == id).values(**changes))
            rows.execute(JOB_BLOBS.delete().where(JOB_BLOBS.c.job == id))  # files are swept away

    async def _answered(self, asked: dict[str, Any]) -> str:
        known = Known(None if asked["known"]["k"] is None else tuple(asked["known"]["k"]), asked["known"]["fov"])
        row = await self._desk.find(asked["kind"], asked["id"])
        photos = []
        for photo in asked["photos"]:
            path = None if photo["blob"] is None else await asyncio.to_thread(self._path, photo["blob"])
            photos.append(PhotoFile(photo["name"], path, known.k, known.fov, photo["error"]))
        listed = asked["devices"]
        devices = None if listed is None else DevicePoses(listed["convention"], tuple(map(tuple, listed["matrices"])))
        told = Asked(known, asked["seed"], asked["distance"], asked["report"], devices)
        with self._desk.placing.entered(cost_of(asked["kind"], told), len(photos), bounded=False):
            return await self._desk.answer(asked["kind"], row, tuple(photos), told)

    def _path(self, blob: str) -> Path:
        try:
            return self._desk.blobs.path(blob)
        except KeyError:
            raise Problem(404, "a photo of the job is gone") from None
        except UnreachableError as error:
            raise Problem(503, str(error), retry_after="5") from None

    def _next(self) -> dict[str, Any] | None:
        """The job that waits longest, which is this service's now; also one whose service is gone."""
        with self._desk.records.writing(alone=True) as rows:
            unfinished = sa.select(JOBS).where(JOBS.c.state != "done").order_by(JOBS.c.created).limit(100)
            for found in rows.execute(unfinished).mappings():
                row = {**found, "asked": json.loads(found["asked"])}
                if row["state"] == "running" and self._is_done_by_another(row):
                    continue
                owner = self._desk.spool.name
                changes = {"state": "running", "owner": owner, "changed": time.time()}
                rows.execute(JOBS.update().where(JOBS.c.id == row["id"]).values(**changes))
                return row
        return None

    def _is_done_by_another(self, row: dict[str, Any]) -> bool:
        seconds = self._desk.config.solve_seconds * len(row["asked"]["photos"]) + _MARGIN_S
        same_folder = self._desk.spool.parent / str(row["owner"])
        return time.time() - row["changed"] < seconds and (
            same_folder.exists() or self._desk.config.database is not None
        )

    def _give_back(self, row: dict[str, Any], attempts: int) -> None:
        changes = {"state": "waiting", "owner": None, "attempts": attempts, "changed": time.time()}
        with self._desk.records.writing() as rows:
            rows.execute(JOBS.update().where(JOBS.c.id == row["id"]).values(**changes))
