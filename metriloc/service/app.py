"""The API: one function a route. ``Desk`` does the work."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi import Path as PathPart
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from metriloc.io.arguments import FARTHEST, LARGEST_SEED
from metriloc.service.audit import Audit
from metriloc.service.config import ServiceConfig
from metriloc.service.decoding import Encoded
from metriloc.service.desk import Asked, Desk, Known
from metriloc.service.guards import Caller, Guard
from metriloc.service.metrics import CONTENT_TYPE
from metriloc.service.pages import add_pages
from metriloc.service.problems import (
    MEDIA_TYPE,
    Problem,
    on_defect,
    on_http_error,
    on_wrong_request,
    problem_response,
)
from metriloc.service.tokens import Scope
from metriloc.version import __version__

_LOG = logging.getLogger("metriloc.service")
SWEEP_SECONDS = 600
"""Between looks for what has expired."""
ID = Annotated[str, PathPart(pattern="^[0-9a-f]{32}$", description="as it was returned")]
K = Annotated[str | None, Form(max_length=200, description="fx fy cx cy, pixels; of all photos of the request")]
FOV = Annotated[float | None, Form(gt=0, lt=180, description="horizontal field of view, degrees, instead of k")]
SEED = Annotated[int, Form(ge=0, le=LARGEST_SEED, description="same seed, same answer")]
DISTANCE = Annotated[float | None, Form(gt=0, le=FARTHEST, description="metres between the two cameras, if known")]
PHOTOS = Annotated[list[UploadFile], File(description="one photo or several, JPEG, PNG, WebP, HEIC, ...")]
REPORT = Annotated[bool, Form(description="HTML reports in `reports`, too, one a photo")]
_bearer = HTTPBearer(auto_error=False, description="needed unless the service is for its own machine only")


class ProblemBody(BaseModel):
    """RFC 9457: what went wrong, in one sentence."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class AnchorBody(BaseModel):
    """An anchor. expires, created: seconds since 1970."""

    id: str
    photo: str
    size: list[int]
    focal_px: list[float]
    intrinsics_source: str
    method: str
    weights_id: str
    distance: float | None = None
    bytes: int
    created: float
    expires: float | None = None


class MapBody(BaseModel):
    """A map. unit: of its lengths."""

    id: str
    name: str
    photos: int
    points: int
    unit: str
    methods: list[str]
    method: str
    weights_id: str
    bytes: int
    created: float
    expires: float | None = None


_PROBLEM: dict[int | str, dict[str, Any]] = {
    code: {"model": ProblemBody, "description": "a problem", "content": {MEDIA_TYPE: {}}} for code in ("4XX", "5XX")
}
_FOUND = {**_PROBLEM, 200: {"description": "as `metriloc relpose --json` or `metriloc localize --json` prints it"}}


def create_app(config: ServiceConfig) -> FastAPI:
    """The service as an ASGI application; its processes run from its start to its end."""
    desk, audit = Desk(config), Audit(config.data / "audit.jsonl")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep(desk))
        yield
        sweeper.cancel()
        await asyncio.to_thread(desk.close)
        audit.close()

    app = FastAPI(
        title="metriloc",
        version=__version__,
        description="Anchors and maps that phones ask for poses.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.desk = desk
    for kind, handler in (
        (HTTPException, on_http_error),
        (RequestValidationError, on_wrong_request),
        (sa.exc.OperationalError, _on_database),
        (Exception, on_defect),
    ):
        app.add_exception_handler(kind, handler)
    app.add_middleware(Guard, config=config, records=desk.records, metrics=desk.metrics, audit=audit)
    _add_anchors(app, desk)
    _add_maps(app, desk)
    _add_facts(app, desk)
    add_pages(app)
    return app


async def _sweep(desk: Desk) -> None:
    while True:
        try:
            await asyncio.to_thread(desk.sweep)
        except Exception:
            _LOG.exception("what has expired could not be removed; it is tried again")
        await asyncio.sleep(SWEEP_SECONDS)


async def _on_database(request: Request, error: Exception) -> Response:
    _LOG.error("the database: %s", error)
    return problem_response(503, "the database cannot be reached now", {"Retry-After": "5"})


def _needs(scope: Scope) -> Any:
    """A dependency: the caller's token has the scope, where tokens are needed."""

    def check(request: Request, _: Annotated[Any, Depends(_bearer)] = None) -> None:
        caller: Caller = request.state.caller
        if caller.token is not None and scope not in caller.token.scopes:
            raise Problem(403, f"this token has no scope {scope!r}")

    return Depends(check)


# -- routes -----------------------------------------------------------------------------------------------------------
def _add_anchors(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/anchors", status_code=201, tags=["anchors"], responses=_PROBLEM, dependencies=[_needs("write")])
    async def make_anchor(
        response: Response,
        photo: Annotated[UploadFile, File(description="the reference photo")],
        k: K = None,
        fov: FOV = None,
        depth: Annotated[UploadFile | None, File(description="its depth map: 16-bit PNG, float TIFF, .npy")] = None,
        depth_scale: Annotated[float | None, Form(gt=0, le=1e9, description="units a metre of depth")] = None,
        distance: DISTANCE = None,
    ) -> AnchorBody:
        """Leave a reference photo. Its pixels, camera and features are kept, its EXIF is not."""
        if depth_scale is not None and depth is None:
            raise Problem(422, f"a depth_scale of {depth_scale:g} units a metre says nothing without a depth map")
        depth_file = None if depth is None else Encoded("depth", _name(depth, "depth"), await depth.read(), depth_scale)
        row = await desk.make_anchor(await _read(photo), _known(k, fov), depth_file, distance)
        response.headers["Location"] = f"/v1/anchors/{row['id']}"
        return _anchor(row)

    @app.get("/v1/anchors", tags=["anchors"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def list_anchors(
        after: Annotated[str, Query(max_length=32)] = "", count: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[AnchorBody]:
        """Anchors in the order of their ids, those after one."""
        return [_anchor(row) for row in await asyncio.to_thread(desk.records.list, "anchors", after, count)]

    @app.get("/v1/anchors/{id}", tags=["anchors"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def get_anchor(id: ID) -> AnchorBody:
        """What is known of an anchor."""
        return _anchor(await desk.find("anchors", id))

    @app.delete(
        "/v1/anchors/{id}", status_code=204, tags=["anchors"], responses=_PROBLEM, dependencies=[_needs("write")]
    )
    async def delete_anchor(id: ID) -> None:
        """Forget an anchor with all that is kept of it."""
        await desk.remove("anchors", id)

    @app.post("/v1/anchors/{id}/poses", tags=["anchors"], responses=_FOUND, dependencies=[_needs("read")])
    async def place_at_anchor(
        id: ID,
        photo: PHOTOS,
        k: K = None,
        fov: FOV = None,
        distance: DISTANCE = None,
        seed: SEED = 0,
        report: REPORT = False,
    ) -> Response:
        """Where the cameras of photos stood, relative to that of the anchor. Of several photos, one that cannot be used
        costs itself only, and says so in `error`."""
        asked = Asked(_known(k, fov), seed, distance, report)
        return Response(await desk.place(id, await _read_all(photo, desk), asked), media_type="application/json")


def _add_maps(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/maps", status_code=201, tags=["maps"], responses=_PROBLEM, dependencies=[_needs("write")])
    async def make_map(
        response: Response, bundle: Annotated[UploadFile, File(description="a file of `metriloc map bundle`")]
    ) -> MapBody:
        """Leave a map."""
        file = desk.spool / f"{secrets.token_hex(16)}.metriloc"
        await asyncio.to_thread(_copy, bundle, file)
        row = await desk.make_map(_name(bundle, "map.metriloc"), file)
        response.headers["Location"] = f"/v1/maps/{row['id']}"
        return _map(row)

    @app.get("/v1/maps", tags=["maps"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def list_maps(
        after: Annotated[str, Query(max_length=32)] = "", count: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[MapBody]:
        """Maps in the order of their ids, those after one."""
        return [_map(row) for row in await asyncio.to_thread(desk.records.list, "maps", after, count)]

    @app.get("/v1/maps/{id}", tags=["maps"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def get_map(id: ID) -> MapBody:
        """What is known of a map."""
        return _map(await desk.find("maps", id))

    @app.delete("/v1/maps/{id}", status_code=204, tags=["maps"], responses=_PROBLEM, dependencies=[_needs("write")])
    async def delete_map(id: ID) -> None:
        """Forget a map."""
        await desk.remove("maps", id)

    @app.post("/v1/maps/{id}/poses", tags=["maps"], responses=_FOUND, dependencies=[_needs("read")])
    async def place_in_map(
        id: ID, photo: PHOTOS, k: K = None, fov: FOV = None, seed: SEED = 0, report: REPORT = False
    ) -> Response:
        """Where in a map the cameras of photos stood."""
        asked = Asked(_known(k, fov), seed, report=report)
        text = await desk.place_in_map(id, await _read_all(photo, desk), asked)
        return Response(text, media_type="application/json")


def _add_facts(app: FastAPI, desk: Desk) -> None:
    @app.get("/healthz", tags=["service"])
    async def healthz() -> dict[str, str]:
        """Whether the service answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"], responses=_PROBLEM)
    async def readyz() -> dict[str, str]:
        """Whether its models are in memory."""
        if not desk.ready:
            broken = desk.models.broken or desk.decoders.broken
            raise Problem(503, broken or "the models are being loaded", retry_after="2")
        return {"status": "ready"}

    @app.get("/metrics", tags=["service"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def metrics() -> Response:
        """For Prometheus."""
        for pool, children in (("decoding", desk.decoders), ("models", desk.models)):
            desk.metrics.waiting.labels(pool).set(children.waiting)
            desk.metrics.busy.labels(pool).set(children.busy)
        for what, number in (await asyncio.to_thread(desk.records.counts)).items():
            desk.metrics.stored.labels(what).set(number)
        return Response(desk.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


# -- forms ------------------------------------------------------------------------------------------------------------
def _known(k: str | None, fov: float | None) -> Known:
    if k is None:
        return Known(None, fov)
    if fov is not None:
        raise Problem(422, "k and fov are both given: which of the two is meant?")
    try:
        fx, fy, cx, cy = (float(part) for part in re.split(r"[\s,]+", k.strip()))
    except ValueError:
        raise Problem(422, f"k is four numbers, fx fy cx cy, got {k[:80]!r}") from None
    return Known((fx, fy, cx, cy))


def _name(file: UploadFile, otherwise: str) -> str:
    """What a file is called: its name without folders, and without what could steer a terminal."""
    name = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in name if c.isprintable())[:200].strip(". ") or otherwise


async def _read(file: UploadFile) -> tuple[str, bytes]:
    return _name(file, "photo"), await file.read()


async def _read_all(files: list[UploadFile], desk: Desk) -> list[tuple[str, bytes]]:
    if len(files) > desk.config.photos:
        raise Problem(413, f"a request has at most {desk.config.photos} photos, got {len(files)}")
    photos: dict[str, bytes] = {}
    for number, file in enumerate(files, 1):
        name, data = await _read(file)
        photos[name if name not in photos else f"{number}-{name}"] = data
    return list(photos.items())


def _copy(source: UploadFile, target: Path) -> None:
    with open(target, "wb") as file:
        shutil.copyfileobj(source.file, file, 2**20)


def _anchor(row: dict[str, Any]) -> AnchorBody:
    return AnchorBody(**{**row["facts"], "distance": row["facts"]["told"]["distance"]}, **_common(row))


def _map(row: dict[str, Any]) -> MapBody:
    return MapBody(**row["facts"], **_common(row))


def _common(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "bytes", "created", "expires")}
