"""Fields of the requests, and how they are read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

from fastapi import File, Form, Header, Request, UploadFile
from fastapi import Path as PathPart
from fastapi.routing import APIRoute

from metriloc.io import InputError
from metriloc.io.arguments import FARTHEST, LARGEST_SEED
from metriloc.service.decoders import Known, Upload
from metriloc.service.devices import DevicePoses, parse_device_poses
from metriloc.service.problems import Problem

ID = Annotated[str, PathPart(pattern="^[0-9a-f]{32}$", description="as it was returned")]
K = Annotated[str | None, Form(max_length=200, description="fx fy cx cy, pixels; of all photos of the request")]
FOV = Annotated[float | None, Form(gt=0, lt=180, description="horizontal field of view, degrees, instead of k")]
SEED = Annotated[int, Form(ge=0, le=LARGEST_SEED, description="same seed, same answer")]
DISTANCE = Annotated[float | None, Form(gt=0, le=FARTHEST, description="metres between the two cameras, if known")]
PHOTOS = Annotated[list[UploadFile], File(description="one photo or several, JPEG, PNG, WebP, HEIC, ...")]
REPORT = Annotated[bool, Form(description="`reports` (HTML) and `summaries` (lines for people), too, one a photo")]
DEVICE_POSES = Annotated[
    str | None,
    Form(description="JSON, 16 numbers a photo: the device's own pose of its camera; adds `anchor_in_device` to each"),
]
DEVICE_CONVENTION = Annotated[str, Form(max_length=20, description="of device_poses: arkit, unity, ros, opengl, ...")]
PREFER = Annotated[str | None, Header(description="respond-async: keep the photos, answer later at /v1/jobs/ID")]


async def require_known_fields(request: Request) -> None:
    """A dependency of all routes: a field that the route does not have is no silent default, but a Problem."""
    route = request.scope.get("route")
    known = sorted(param.alias for param in route.dependant.body_params) if isinstance(route, APIRoute) else []
    if not known:
        return
    strange = next((name for name in await request.form() if name not in known), None)  # read before, and kept
    if strange is not None:
        raise Problem(422, f"there is no field {strange[:40]!r}: the fields are {', '.join(known)}")


def known_of(k: str | None, fov: float | None) -> Known:
    """Raises Problem for a k that is none, or both."""
    if k is None:
        return Known(None, fov)
    if fov is not None:
        raise Problem(422, "k and fov are both given: which of the two is meant?")
    try:
        fx, fy, cx, cy = (float(part) for part in re.split(r"[\s,]+", k.strip()))
    except ValueError:
        raise Problem(422, f"k is four numbers, fx fy cx cy, got {k[:80]!r}") from None
    return Known((fx, fy, cx, cy))


def devices_of(text: str | None, convention: str, photos: int) -> DevicePoses | None:
    """Raises Problem for poses that are none."""
    if text is None:
        return None
    try:
        return parse_device_poses(text, convention, photos)
    except InputError as error:
        raise Problem(422, str(error)) from None


def name_of(file: UploadFile, otherwise: str) -> str:
    """What a file is called: its name without folders, and without what could steer a terminal."""
    name = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c for c in name if c.isprintable())[:200].strip(". ") or otherwise


def upload_of(file: UploadFile, otherwise: str = "photo") -> Upload:
    """Its name, and what reads it."""
    return name_of(file, otherwise), file.read


def uploads_of(files: list[UploadFile], most: int) -> list[Upload]:
    """Each with a name of its own. Raises Problem for more files than ``most``."""
    if len(files) > most:
        raise Problem(413, f"a request has at most {most} photos, got {len(files)}")
    found: dict[str, Upload] = {}
    for number, file in enumerate(files, 1):
        name = name_of(file, "photo")
        name = name if name not in found else f"{number}-{name}"
        found[name] = name, file.read
    return list(found.values())


def copy_to(source: UploadFile, target: Path) -> None:
    """Write an upload to a file."""
    with open(target, "wb") as file:
        shutil.copyfileobj(source.file, file, 2**20)
