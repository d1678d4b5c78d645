"""The API: one function a route. ``Desk`` does the work."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from metriloc.service.audit import Audit
from metriloc.service.blobs import UnreachableError
from metriloc.service.bodies import AnchorBody, JobBody, MapBody, ProblemBody, anchor_body, map_body
from metriloc.service.config import ServiceConfig
from metriloc.service.desk import Asked, Desk
from metriloc.service.forms import (
    DEVICE_CONVENTION,
    DEVICE_POSES,
    DISTANCE,
    FOV,
    ID,
    PHOTOS,
    PREFER,
    REPORT,
    SEED,
    K,
    copy_to,
    devices_of,
    known_of,
    name_of,
    require_known_fields,
    upload_of,
    uploads_of,
)
from metriloc.service.guards import Caller, Guard
from metriloc.service.jobs import Jobs
from metriloc.service.metrics import CONTENT_TYPE
from metriloc.service.pages import add_pages
from metriloc.service.problems import (
    MEDIA_TYPE,
    NO_DATABASE,
    Problem,
    on_defect,
    on_http_error,
    on_wrong_request,
    problem_response,
)
from metriloc.service.records import Kind
from metriloc.service.tokens import Scope
from metriloc.version import __version__

_LOG = logging.getLogger("metriloc.service")
SWEEP_SECONDS = 600
"""Between looks for what has expired."""
_bearer = HTTPBearer(auto_error=False, description="needed unless the service is for its own machine only")


_PROBLEM: dict[int | str, dict[str, Any]] = {
    code: {"model": ProblemBody, "description": "a problem", "content": {MEDIA_TYPE: {}}} for code in ("4XX", "5XX")
}
_FOUND: dict[int | str, dict[str, Any]] = {
    **_PROBLEM,
    200: {"description": "as `metriloc relpose --json` or `metriloc localize --json` prints it"},
    202: {"model": JobBody, "description": "a job, where that was preferred"},
}


def create_app(config: ServiceConfig) -> FastAPI:
    """The service as an ASGI application; its processes run from its start to its end."""
    desk, audit = Desk(config), Audit(config.data / "audit.jsonl")
    jobs = Jobs(desk)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.start()
        tasks = [asyncio.create_task(_sweep(desk)), asyncio.create_task(jobs.work())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(desk.close)
        audit.close()

    app = FastAPI(
        title="metriloc",
        version=__version__,
        description="Anchors and maps that phones ask for poses.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(require_known_fields)],
    )
    app.state.desk = desk
    for kind, handler in (
        (HTTPException, on_http_error),
        (RequestValidationError, on_wrong_request),
        (sa.exc.OperationalError, _on_database),
        (UnreachableError, _on_files),
        (Exception, on_defect),
    ):
        app.add_exception_handler(kind, handler)
    app.add_middleware(Guard, config=config, records=desk.records, metrics=desk.metrics, audit=audit)
    _add_anchors(app, desk)
    _add_anchor_poses(app, desk, jobs)
    _add_maps(app, desk, jobs)
    _add_jobs(app, jobs)
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
    return problem_response(503, NO_DATABASE, {"Retry-After": "5"})


async def _on_files(request: Request, error: Exception) -> Response:
    return problem_response(503, str(error), {"Retry-After": "5"})


def _needs(scope: Scope) -> Any:
    """A dependency: the caller's token has the scope, where tokens are needed."""

    async def check(request: Request, _: Annotated[Any, Depends(_bearer)] = None) -> None:
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
        depth_file = None if depth is None else upload_of(depth, "depth")
        row = await desk.make_anchor(upload_of(photo), known_of(k, fov), depth_file, depth_scale, distance)
        response.headers["Location"] = f"/v1/anchors/{row['id']}"
        return anchor_body(row)

    @app.get("/v1/anchors", tags=["anchors"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def list_anchors(
        after: Annotated[str, Query(max_length=32)] = "", count: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[AnchorBody]:
        """Anchors in the order of their ids, those after one."""
        return [anchor_body(row) for row in await asyncio.to_thread(desk.records.list, "anchors", after, count)]

    @app.get("/v1/anchors/{id}", tags=["anchors"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def get_anchor(id: ID) -> AnchorBody:
        """What is known of an anchor."""
        return anchor_body(await desk.find("anchors", id))

    @app.delete(
        "/v1/anchors/{id}", status_code=204, tags=["anchors"], responses=_PROBLEM, dependencies=[_needs("write")]
    )
    async def delete_anchor(id: ID) -> None:
        """Forget an anchor with all that is kept of it."""
        await desk.remove("anchors", id)


def _add_anchor_poses(app: FastAPI, desk: Desk, jobs: Jobs) -> None:
    @app.post("/v1/anchors/{id}/poses", tags=["anchors"], responses=_FOUND, dependencies=[_needs("read")])
    async def place_at_anchor(
        id: ID,
        photo: PHOTOS,
        k: K = None,
        fov: FOV = None,
        distance: DISTANCE = None,
        seed: SEED = 0,
        report: REPORT = False,
        device_poses: DEVICE_POSES = None,
        device_convention: DEVICE_CONVENTION = "arkit",
        prefer: PREFER = None,
    ) -> Response:
        """Where the cameras of photos stood, relative to that of the anchor. Of several photos, one that cannot be used
        costs itself only, and says so in `error`."""
        devices = devices_of(device_poses, device_convention, len(photo))
        asked = Asked(known_of(k, fov), seed, distance, report, devices)
        return await _placed(desk, jobs, "anchors", id, photo, asked, prefer)


def _add_maps(app: FastAPI, desk: Desk, jobs: Jobs) -> None:
    @app.post("/v1/maps", status_code=201, tags=["maps"], responses=_PROBLEM, dependencies=[_needs("write")])
    async def make_map(
        response: Response, bundle: Annotated[UploadFile, File(description="a file of `metriloc map bundle`")]
    ) -> MapBody:
        """Leave a map."""
        file = desk.spool / f"{secrets.token_hex(16)}.metriloc"
        await asyncio.to_thread(copy_to, bundle, file)
        row = await desk.make_map(name_of(bundle, "map.metriloc"), file)
        response.headers["Location"] = f"/v1/maps/{row['id']}"
        return map_body(row)

    @app.get("/v1/maps", tags=["maps"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def list_maps(
        after: Annotated[str, Query(max_length=32)] = "", count: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[MapBody]:
        """Maps in the order of their ids, those after one."""
        return [map_body(row) for row in await asyncio.to_thread(desk.records.list, "maps", after, count)]

    @app.get("/v1/maps/{id}", tags=["maps"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def get_map(id: ID) -> MapBody:
        """What is known of a map."""
        return map_body(await desk.find("maps", id))

    @app.delete("/v1/maps/{id}", status_code=204, tags=["maps"], responses=_PROBLEM, dependencies=[_needs("write")])
    async def delete_map(id: ID) -> None:
        """Forget a map."""
        await desk.remove("maps", id)

    @app.post("/v1/maps/{id}/poses", tags=["maps"], responses=_FOUND, dependencies=[_needs("read")])
    async def place_in_map(
        id: ID,
        photo: PHOTOS,
        k: K = None,
        fov: FOV = None,
        seed: SEED = 0,
        report: REPORT = False,
        prefer: PREFER = None,
    ) -> Response:
        """Where in a map the cameras of photos stood."""
        asked = Asked(known_of(k, fov), seed, report=report)
        return await _placed(desk, jobs, "maps", id, photo, asked, prefer)


def _add_jobs(app: FastAPI, jobs: Jobs) -> None:
    @app.get("/v1/jobs/{id}", tags=["jobs"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def get_job(id: ID) -> JobBody:
        """What became of a job; done ones are kept for a day."""
        return JobBody(**await asyncio.to_thread(jobs.find, id))

    @app.delete("/v1/jobs/{id}", status_code=204, tags=["jobs"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def delete_job(id: ID) -> None:
        """Forget a job."""
        await asyncio.to_thread(jobs.remove, id)


async def _placed(
    desk: Desk, jobs: Jobs, kind: Kind, id: str, photos: list[UploadFile], asked: Asked, prefer: str | None
) -> Response:
    """The answer now, or a job."""
    read = uploads_of(photos, desk.config.photos)
    if "respond-async" not in (prefer or "").lower():
        return Response(await desk.place(kind, id, read, asked), media_type="application/json")
    row = await jobs.accept(kind, id, read, asked)
    headers = {"Location": f"/v1/jobs/{row['id']}", "Preference-Applied": "respond-async"}
    return Response(JobBody(**row).model_dump_json(), 202, headers, "application/json")


def _add_facts(app: FastAPI, desk: Desk) -> None:
    @app.get("/healthz", tags=["service"])
    async def healthz() -> dict[str, str]:
        """Whether the service answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"], responses=_PROBLEM)
    async def readyz() -> dict[str, str]:
        """Whether its models are in memory."""
        if not desk.ready:
            raise Problem(503, desk.broken or "the models are being loaded", retry_after="2")
        return {"status": "ready"}

    @app.get("/metrics", tags=["service"], responses=_PROBLEM, dependencies=[_needs("read")])
    async def metrics() -> Response:
        """For Prometheus."""
        for pool in desk.pools:
            desk.metrics.waiting.labels(pool.name).set(pool.waiting)
            desk.metrics.busy.labels(pool.name).set(pool.busy)
        for what, number in (await asyncio.to_thread(desk.records.counts)).items():
            desk.metrics.stored.labels(what).set(number)
        return Response(desk.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
