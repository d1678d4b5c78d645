"""What the routes do: files are decoded in one kind of process, models asked in another, the results kept and told."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metriloc.service.blobs import digest_of
from metriloc.service.config import MEBIBYTE, ServiceConfig
from metriloc.service.decoders import Decoders, Known, Upload, passing_files
from metriloc.service.decoding import Encoded
from metriloc.service.devices import DevicePoses
from metriloc.service.line import Line
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
_GONE = {"anchors": "there is no such anchor", "maps": "there is no such map"}


@dataclass(frozen=True)
class Asked:
    """What a request asks of photos. distance: metres to the anchor; report: HTML, too; devices: where the
    device says that its camera was."""

    known: Known = field(default_factory=Known)
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
        self.decoders = Decoders(self.spool, config, self.metrics)
        models = Models(
            self.spool, self.blobs, config.method, config.localizer, config.device, config.runtime, config.threads
        )
        self.placing = Line("poses", models, config.workers, config, self.metrics)
        # what takes a moment does not wait behind what takes long
        self.leaving = Line("anchors", models, 1, config, self.metrics)
        self.pools = (self.decoders.children, self.placing.children, self.leaving.children)

    @property
    def spool(self) -> Path:
        """Folder of files on their way."""
        return self._spool.path

    @property
    def ready(self) -> bool:
        """Whether all processes can work."""
        return all(pool.ready for pool in self.pools)

    @property
    def broken(self) -> str | None:
        """Why processes cannot start; None where they can."""
        return next((pool.broken for pool in self.pools if pool.broken is not None), None)

    @property
    def idle(self) -> bool:
        """Whether a process that places photos has nothing to do."""
        return self.ready and self.placing.room.is_idle

    def start(self) -> None:
        """Start all processes, unless they are."""
        for pool in self.pools:
            pool.start()

    def wait(self) -> None:
        """Until all processes can work. Raises InputError when they never will."""
        for pool in reversed(self.pools):
            pool.wait()

    def close(self) -> None:
        """End all processes; nobody waits for them any more."""
        for pool in self.pools:
            pool.stop()
        for pool in self.pools:
            pool.close(1)
        self.records.close()
        self._spool.close()

    # -- anchors ------------------------------------------------------------------------------------------------------
    async def make_anchor(
        self, photo: Upload, known: Known, depth: Upload | None, depth_scale: float | None, distance: float | None
    ) -> dict[str, Any]:
        """A row of a new anchor. Raises Problem."""
        with self.leaving.entered("anchors"), passing_files() as files:
            photo_file = await self.decoders.photo(photo, known, files)
            if photo_file.path is None:
                raise Problem(422, photo_file.error)
            depth_path, depth_name = None, ""
            if depth is not None:
                depth_name = depth[0]
                depth_file = Encoded("depth", depth_name, await depth[1](), depth_scale)
                depth_path = await self.decoders.file(depth_file, files)
            job = NewAnchor(photo_file, depth_path, depth_name, distance)
            made = await self.leaving.ask(job)
            files.append(made.path)
            told: dict[str, Any] = {"k": known.k, "fov": known.fov, "distance": distance}
            if depth is not None:
                told |= {"depth": depth_name, "depth_scale": depth_scale}
            return await asyncio.to_thread(self._keep, "anchors", made.path, {**made.facts, "told": told})

    async def place(self, kind: Kind, id: str, photos: Sequence[Upload], asked: Asked) -> str:
        """The JSON of photos at an anchor or in a map. Raises Problem."""
        row = await self.find(kind, id)
        with self.placing.entered(cost_of(kind, asked), len(photos)), passing_files() as files:
            return await self.answer(kind, row, await self.decoders.photos(photos, asked.known, files), asked)

    async def answer(self, kind: Kind, row: dict[str, Any], photos: tuple[PhotoFile, ...], asked: Asked) -> str:
        """The same of photos that are decoded, at the anchor or in the map of a row."""
        job = placing_at(row, photos, asked) if kind == "anchors" else placing_in(row, photos, asked)
        try:
            answer: Answer = await self.placing.ask(job, len(photos))
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
        with passing_files() as files:
            files.append(bundle)  # gone, too, where there is no room for it
            with self.leaving.entered("maps"):
                facts = await self.leaving.ask(NewMap(bundle, name))
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


def cost_of(kind: Kind, asked: Asked) -> str:
    """What takes about as long a photo."""
    return f"{kind} with reports" if asked.report else kind


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
