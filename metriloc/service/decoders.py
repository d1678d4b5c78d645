"""Uploads to files of plain numbers: each is decoded in a process of its own that holds nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from metriloc.io import InputError
from metriloc.service.children import Children, Done, JobEndedError, JobFailedError
from metriloc.service.config import ServiceConfig
from metriloc.service.decoding import Decoder, Encoded
from metriloc.service.metrics import Metrics
from metriloc.service.poses import PhotoFile
from metriloc.service.problems import Problem

Upload: TypeAlias = tuple[str, Callable[[], Awaitable[bytes]]]
"""The name of a file and what reads it, which lies on the disk until then."""


@dataclass(frozen=True)
class Known:
    """What a request says of the cameras of its photos. k: fx, fy, cx, cy in pixels; fov: degrees."""

    k: tuple[float, float, float, float] | None = None
    fov: float | None = None


@contextmanager
def passing_files() -> Iterator[list[Path]]:
    """Files that live as long as a request."""
    files: list[Path] = []
    try:
        yield files
    finally:
        for file in files:
            file.unlink(missing_ok=True)


class Decoders:
    """The processes that decode. spool: folder of what they make."""

    def __init__(self, spool: Path, config: ServiceConfig, metrics: Metrics) -> None:
        self._seconds, self._metrics = config.decode_seconds, metrics
        # one for who leaves an anchor: it does not wait behind photos of others
        self.children = Children("decoding", Decoder(spool, config.megapixels), config.workers + 1)
        self._many = asyncio.Semaphore(config.workers)

    async def photos(self, photos: Sequence[Upload], known: Known, files: list[Path]) -> tuple[PhotoFile, ...]:
        """Photos of a request; one that cannot be used has an ``error``. Raises Problem for anything else."""

        async def decoded(photo: Upload) -> PhotoFile:
            async with self._many:
                return await self.photo(photo, known, files)

        return tuple(await asyncio.gather(*map(decoded, photos)))

    async def photo(self, photo: Upload, known: Known, files: list[Path]) -> PhotoFile:
        """One of them."""
        name, read = photo
        made = PhotoFile(name, k=known.k, fov=known.fov)
        try:
            return replace(made, path=await self.file(Encoded("photo", name, await read()), files))
        except Problem as problem:
            if problem.status_code != 422:
                raise
            return replace(made, error=str(problem.detail))

    async def file(self, file: Encoded, files: list[Path]) -> Path:
        """The file of numbers, which is among ``files`` then. Raises Problem."""
        try:
            done = await self._asked(file)
        except InputError as error:
            raise Problem(422, str(error)) from None
        except JobEndedError as ended:
            if "shutting down" in str(ended):
                raise Problem(503, str(ended), retry_after="5") from None
            raise Problem(422, f"'{file.name}' could not be decoded: {ended}") from None
        except JobFailedError:
            raise Problem(422, f"'{file.name}' could not be decoded") from None
        self._metrics.took("decode", done.worked)
        path: Path = done.answer
        files.append(path)
        return path

    async def _asked(self, file: Encoded) -> Done:
        """Twice, where a process ends that may not have ended because of this file."""
        try:
            return await asyncio.wrap_future(self.children.submit(file, self._seconds))
        except JobEndedError as ended:
            if ended.late:
                raise
            return await asyncio.wrap_future(self.children.submit(file, self._seconds))
