"""What the routes do: files are decoded in one kind of process, models asked in another, the results kept and told."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa

from metriloc.io import InputError
from metriloc.service.blobs import digest_of
from metriloc.service.children import Children, Done, JobEndedError, JobFailedError
from metriloc.service.config import MEBIBYTE, ServiceConfig
from metriloc.service.decoding import Decoder, Encoded
from metriloc.service.devices import DevicePoses
from metriloc.service.metrics import Metrics
from metriloc.service.poses import (
    Answer,
    MapPlacing,
    Models,
    NewAnchor,
    NewMap,
    PhotoFile,
    Placing,
)
from metriloc.service.problems import Problem
from metriloc.service.records import Kind
from metriloc.service.spool import Spool
from metriloc.service.storage import open_storage

_DAY = 86400.0
Upload: TypeAlias = tuple[str, Callable[[], Awaitable[bytes]]]
"""The name of a file and what reads it, which lies on the disk until then."""
_GONE = {"anchors": "there is no such anchor", "maps": "there is no such map"}


@dataclass(frozen=True)
class Known:
    """What a request says of the cameras of its photos. k: fx, fy, cx, cy in pixels; fov: degrees."""

    k: tuple[float, float, float, float] | None = None
    fov: float | None = None


@dataclass(frozen=True)
class Asked:
    """What a request asks of photos. distance: metres to the anchor; report: HTML, too; devices: where the
    device says that its camera was."""

    known: Known = Known()
    seed: int = 0
    distance: float | None = None
    report: bool = False
    devices: DevicePoses | None = None


class Desk:
    """The service without HTTP. Raises InputError where its folder or database cannot be used."""

    def __init__(self, config: ServiceConfig) -> None:
        self.config, self.metrics = config, Metrics()
        self.records, self.blobs = open_storage(config)
        self._spool = Spool(config.data / "spool")
        self._in_hand, self._seconds = 0, 1.0
        self.decoders = Children("decoding", Decoder(self.spool, config.megapixels), max(1, config.workers))
        models = Models(
            self.spool, self.blobs, config.method, config.localizer, config.device, config.runtime, config.threads
        )
        self.models = Children("models", models, config.workers)

    @property
    def spool(self) -> Path:
        """Folder of files on their way."""
        return self._spool.path

    @property
    def ready(self) -> bool:
        """Whether all processes can work."""
        return self.models.ready and self.decoders.ready

    @property
    def idle(self) -> bool:
        """Whether a process with models has nothing to do."""
        return self.ready and self.models.busy + self.models.waiting < self.config.workers

    def close(self) -> None:
        """End all processes."""
        self.decoders.close(1)
        self.models.close(self.config.shutdown_seconds)
        self.records.close()
        self._spool.close()

    # -- anchors ------------------------------------------------------------------------------------------------------
    async def make_anchor(
        self, photo: Upload, known: Known, depth: Upload | None, depth_scale: float | None, distance: float | None
    ) -> dict[str, Any]:
        """A row of a new anchor. Raises Problem."""
        with self._room(), self.files() as files:
            photo_file = await self._photo(photo, known, files)
            if photo_file.path is None:
                raise Problem(422, photo_file.error)
            depth_path, depth_name = None, ""
            if depth is not None:
                depth_name = depth[0]
                depth_path = await self._decoded(Encoded("depth", depth_name, await depth[1](), depth_scale), files)
            job = NewAnchor(photo_file, depth_path, depth_name, distance)
            made = (await self._ask_models(job, 1)).answer
            files.append(made.path)
            told: dict[str, Any] = {"k": known.k, "fov": known.fov, "distance": distance}
            if depth is not None:
                told |= {"depth": depth_name, "depth_scale": depth_scale}
            return await asyncio.to_thread(self._keep, "anchors", made.path, {**made.facts, "told": told})

    async def place(self, kind: Kind, id: str, photos: Sequence[Upload], asked: Asked) -> str:
        """The JSON of photos at an anchor or in a map. Raises Problem."""
        row = await self.find(kind, id)
        with self._room(), self.files() as files:
            return await self.answer(kind, row, await self.decode(photos, asked.known, files), asked)

    async def answer(self, kind: Kind, row: dict[str, Any], photos: tuple[PhotoFile, ...], asked: Asked) -> str:
        """The same of photos that are decoded, at the anchor or in the map of a row."""
        job = placing_at(row, photos, asked) if kind == "anchors" else placing_in(row, photos, asked)
        try:
            answer: Answer = (await self._ask_models(job, len(photos))).answer
        except Problem as problem:
            if problem.status_code == 422:
                await self.find(kind, row["id"])  # it may have been deleted meanwhile
            raise
        self.metrics.answered(kind.rstrip("s"), answer.verdicts, answer.stages)
        if answer.error:
            raise Problem(422, answer.error)
        return answer.text

    # -- maps ---------------------------------------------------------------------------------------------------------
    async def make_map(self, name: str, bundle: Path) -> dict[str, Any]:
        """A row of a new map. bundle: its file, which is moved. Raises Problem."""
        with self._room(), self.files() as files:
            files.append(bundle)
            facts = (await self._ask_models(NewMap(bundle, name), 1)).answer
            return await asyncio.to_thread(self._keep, "maps", bundle, {"name": name, **facts})

    # -- rows ---------------------------------------------------------------------------------------------------------
    async def find(self, kind: Kind, id: str) -> dict[str, Any]:
        """A row. Raises Problem where there is none."""
        row = await asyncio.to_thread(self.records.find, kind, id)
        if row is None:
            raise Problem(404, f"{_GONE[kind]}: it never was, was deleted, or has expired")
        return row

    async def remove(self, kind: Kind, id: str) -> None:
        """Delete a row, and its file if no other has it. Raises Problem where there is none."""
        if not await asyncio.to_thread(self._removed, kind, id):
            raise Problem(404, f"{_GONE[kind]}: it never was, was deleted, or has expired")

    def _removed(self, kind: Kind, id: str) -> bool:
        with self.records.writing(alone=True) as rows:
            blob = self.records.remove(rows, kind, id)
            if blob is not None and not self.records.is_used(rows, blob):
                self.blobs.delete(blob)
        return blob is not None

    def sweep(self) -> None:
        """Forget what has expired, and files that no row has."""
        with self.records.writing(alone=True) as rows:
            self.records.expire(rows, time.time(), time.time() - _DAY)
            used = self.records.used_blobs(rows)
            for digest in list(self.blobs.digests()):
                if digest not in used:
                    self.blobs.delete(digest)

    def _keep(self, kind: Kind, file: Path, facts: dict[str, Any]) -> dict[str, Any]:
        """A new row: its file is in its place before anybody is told of it."""
        with self.metrics.timed("store"):
            digest, size, now = digest_of(file), file.stat().st_size, time.time()
            days = self.config.keep_days
            expires = None if days is None else now + days * _DAY
            row = {"id": secrets.token_hex(16), "blob": digest, "bytes": size, "facts": facts}
            row |= {"created": now, "expires": expires}
            try:
                with self.records.writing() as rows:
                    self.check_quota(rows, size)
                    self.blobs.put(file, digest)
                    self.records.add(rows, kind, row)
            except OSError as error:  # a full disk
                raise Problem(507, f"the service cannot store it: {error.strerror or type(error).__name__}") from error
        return row

    def check_quota(self, rows: sa.Connection, size: int) -> None:
        """Raises Problem where so many bytes more are too many."""
        if self.records.total(rows) + size > self.config.quota_mebibytes * MEBIBYTE:
            raise Problem(507, f"the service is full: it keeps at most {self.config.quota_mebibytes} MiB")

    # -- the way of a request -----------------------------------------------------------------------------------------
    @contextmanager
    def _room(self) -> Iterator[None]:
        """As long as a request is in hand. Raises Problem where too many are."""
        if self._in_hand >= self.config.workers + self.config.waiting:
            self.metrics.refused()
            seconds = max(1, math.ceil(self._in_hand * self._seconds / self.config.workers))
            raise Problem(503, f"too many requests wait: come again in {seconds} s", retry_after=str(seconds))
        self._in_hand += 1
        try:
            yield
        finally:
            self._in_hand -= 1

    @contextmanager
    def files(self) -> Iterator[list[Path]]:
        """Files that live as long as a request."""
        files: list[Path] = []
        try:
            yield files
        finally:
            for file in files:
                file.unlink(missing_ok=True)

    async def decode(self, photos: Sequence[Upload], known: Known, files: list[Path]) -> tuple[PhotoFile, ...]:
        return tuple(await asyncio.gather(*(self._photo(photo, known, files) for photo in photos)))

    async def _photo(self, photo: Upload, known: Known, files: list[Path]) -> PhotoFile:
        name, read = photo
        made = PhotoFile(name, k=known.k, fov=known.fov)
        try:
            return replace(made, path=await self._decoded(Encoded("photo", name, await read()), files))
        except Problem as problem:
            if problem.status_code != 422:
                raise
            return replace(made, error=str(problem.detail))

    async def _decoded(self, file: Encoded, files: list[Path]) -> Path:
        try:
            done = await self._ask_decoders(file)
        except InputError as error:
            raise Problem(422, str(error)) from None
        except JobEndedError as ended:
            if "shutting down" in str(ended):
                raise Problem(503, str(ended), retry_after="5") from None
            raise Problem(422, f"'{file.name}' could not be decoded: {ended}") from None
        except JobFailedError:
            raise Problem(422, f"'{file.name}' could not be decoded") from None
        self.metrics.took("decode", done.worked)
        path: Path = done.answer
        files.append(path)
        return path

    async def _ask_decoders(self, file: Encoded) -> Done:
        """Twice, where a process ends that may not have ended because of this file."""
        seconds = self.config.decode_seconds
        try:
            return await asyncio.wrap_future(self.decoders.submit(file, seconds))
        except JobEndedError as ended:
            if ended.late:
                raise
            return await asyncio.wrap_future(self.decoders.submit(file, seconds))

    async def _ask_models(self, job: Any, photos: int) -> Done:
        try:
            done = await asyncio.wrap_future(self.models.submit(job, self.config.solve_seconds * photos))
        except InputError as error:
            raise Problem(422, str(error)) from None
        except JobEndedError as ended:
            if ended.late:
                raise Problem(504, f"the photo was given up: {ended}") from None
            raise Problem(503, f"nothing was stored or answered: {ended}; try again", retry_after="2") from None
        except JobFailedError:
            raise Problem(500, "the service failed on this request; its log tells more") from None
        self._seconds += 0.2 * (done.worked - self._seconds)
        self.metrics.took("queue", done.waited)
        self.metrics.took("models", done.worked)
        return done


def placing_at(anchor: dict[str, Any], photos: tuple[PhotoFile, ...], asked: Asked) -> Placing:
    """The job of placing photos at an anchor (its row)."""
    told = anchor["facts"]["told"]
    return Placing(
        anchor["blob"],
        photos,
        asked.seed,
        k=None if told["k"] is None else tuple(told["k"]),
        fov=told["fov"],
        depth_name=told.get("depth", ""),
        depth_scale=told.get("depth_scale"),
        distance=told["distance"] if asked.distance is None else asked.distance,
        report=asked.report,
        devices=asked.devices,
    )


def placing_in(row: dict[str, Any], photos: tuple[PhotoFile, ...], asked: Asked) -> MapPlacing:
    """The job of placing photos in a map (its row)."""
    return MapPlacing(row["blob"], row["facts"]["name"], photos, asked.seed, asked.report)
