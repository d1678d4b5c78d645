"""A service of ``metriloc serve``, asked from Python (needs httpx, of the extra ``serve``)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from metriloc.io.files import InputError, require_file

MISSING_HTTPX = 'the client needs httpx: pip install "metriloc[serve]"'
PhotoFile = str | os.PathLike[str] | bytes
"""A file, or the bytes of one."""


class ServiceError(RuntimeError):
    """What a service said instead of an answer, one sentence. status: of HTTP; retry_after: seconds, where it told."""

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(f"{detail} ({status})")
        self.status, self.detail, self.retry_after = status, detail, retry_after


class Client:
    """A service that says where photos were taken. It keeps anchors and maps.

    - url: its address.
    - token: of ``metriloc serve token add``; none is needed on the service's own machine.
    - timeout: seconds that an answer may take.
    - patience: seconds to go on asking while the service is busy (503), each time after the time that it tells.
    - http: an ``httpx.Client`` to use, with certificates or a proxy of your own.

    Methods raise ServiceError with the sentence of the service, InputError for files that are not there, and
    ``httpx.TransportError`` where nobody answers.

    >>> client = metriloc.Client("https://anchors.example.org", token="metriloc_...")  # doctest: +SKIP
    >>> anchor = client.add_anchor("door.jpg", fov=67)  # doctest: +SKIP
    >>> (found,) = client.poses_at(anchor, "phone.jpg")["queries"]  # doctest: +SKIP
    >>> found["verdict"]  # doctest: +SKIP
    'reliable'
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout: float = 120,
        patience: float = 60,
        http: Any = None,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ImportError(MISSING_HTTPX) from error
        self._http = http or httpx.Client(timeout=timeout)
        self._url, self._patience = url.rstrip("/"), patience
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- anchors ------------------------------------------------------------------------------------------------------
    def add_anchor(
        self,
        photo: PhotoFile,
        *,
        K: Sequence[float] | None = None,
        fov: float | None = None,
        depth: PhotoFile | None = None,
        depth_scale: float | None = None,
        distance: float | None = None,
    ) -> str:
        """Leave a reference photo; the id of its anchor. All is as in ``metriloc.relative_pose``.

        - photo: a file, or its bytes.
        - K, fov: fx, fy, cx, cy in pixels, or degrees across.
        - depth, depth_scale: its depth map, and the units of that a metre.
        - distance: metres between anchor and queries, if known.
        """
        told = {"k": _numbers(K), "fov": fov, "depth_scale": depth_scale, "distance": distance}
        files = [("photo", photo)] if depth is None else [("photo", photo), ("depth", depth)]
        return str(self._posted("/v1/anchors", told, files)["id"])

    def anchors(self) -> list[dict[str, Any]]:
        """All anchors."""
        return self._listed("/v1/anchors")

    def poses_at(
        self,
        anchor: str,
        photos: PhotoFile | Sequence[PhotoFile],
        *,
        K: Sequence[float] | None = None,
        fov: float | None = None,
        distance: float | None = None,
        seed: int = 0,
        report: bool = False,
        device_poses: Sequence[Any] | None = None,
        device_convention: str = "arkit",
    ) -> dict[str, Any]:
        """Where photos were taken, relative to an anchor, as ``metriloc relpose --json``.

        - anchor: its id.
        - photos: one, or several of one request.
        - K, fov, distance, seed: as in ``metriloc.relative_pose``, for all of them.
        - report: HTML, too, in ``reports``.
        - device_poses, device_convention: a 4x4 matrix a photo, lists of numbers as the device has them; each entry then
          says in ``anchor_in_device`` where the anchor's camera is for the device.

        ``metriloc.io.pose_from_dict(entry["query_from_reference"])`` is a Pose.
        """
        told = {"k": _numbers(K), "fov": fov, "distance": distance, "seed": seed, "report": report}
        if device_poses is not None:
            told |= {"device_poses": json.dumps(device_poses), "device_convention": device_convention}
        return self._posted(f"/v1/anchors/{anchor}/poses", told, _many(photos))

    def delete_anchor(self, anchor: str) -> None:
        """Forget an anchor."""
        self._asked("DELETE", f"/v1/anchors/{anchor}")

    # -- maps ---------------------------------------------------------------------------------------------------------
    def add_map(self, bundle: str | os.PathLike[str]) -> str:
        """Leave a file of ``metriloc map bundle``; the id of the map."""
        return str(self._posted("/v1/maps", {}, [("bundle", bundle)])["id"])

    def maps(self) -> list[dict[str, Any]]:
        """All maps."""
        return self._listed("/v1/maps")

    def poses_in(
        self,
        map: str,
        photos: PhotoFile | Sequence[PhotoFile],
        *,
        K: Sequence[float] | None = None,
        fov: float | None = None,
        seed: int = 0,
        report: bool = False,
    ) -> dict[str, Any]:
        """Where in a map photos were taken, as ``metriloc localize --json``.

        - map: its id.
        - photos, K, fov, seed, report: as in ``poses_at``.
        """
        told = {"k": _numbers(K), "fov": fov, "seed": seed, "report": report}
        return self._posted(f"/v1/maps/{map}/poses", told, _many(photos))

    def delete_map(self, map: str) -> None:
        """Forget a map."""
        self._asked("DELETE", f"/v1/maps/{map}")

    # -- HTTP ---------------------------------------------------------------------------------------------------------
    def _posted(self, path: str, told: dict[str, Any], files: Sequence[tuple[str, PhotoFile]]) -> Any:
        fields = {name: str(value).lower() for name, value in told.items() if value is not None}
        with ExitStack() as opened:
            sent = []
            for name, file in files:
                if isinstance(file, bytes):
                    sent.append((name, (name, file)))
                else:
                    source = opened.enter_context(open(require_file(file), "rb"))
                    sent.append((name, (Path(file).name, source)))  # type: ignore[arg-type]
            return self._asked("POST", path, data=fields, files=sent).json()

    def _listed(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while page := self._asked("GET", path, params={"after": found[-1]["id"] if found else ""}).json():
            found += page
        return found

    def _asked(self, method: str, path: str, **content: Any) -> Any:
        end = time.monotonic() + self._patience
        while True:
            response = self._http.request(method, self._url + path, headers=self._headers, **content)
            if response.is_success:
                return response
            error = _error_of(response)
            wait = error.retry_after
            if error.status != 503 or wait is None or time.monotonic() + wait > end:
                raise error
            time.sleep(wait)
            for _, (_, source) in content.get("files", ()):
                if not isinstance(source, bytes):
                    source.seek(0)


def _many(photos: PhotoFile | Sequence[PhotoFile]) -> list[tuple[str, PhotoFile]]:
    several = [photos] if isinstance(photos, str | bytes | os.PathLike) else list(photos)
    if not several:
        raise InputError("no photo was given")
    return [("photo", photo) for photo in several]


def _numbers(K: Sequence[float] | None) -> str | None:
    return None if K is None else " ".join(repr(float(number)) for number in K)


def _error_of(response: Any) -> ServiceError:
    try:
        detail = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"{response.url} answered {response.reason_phrase or 'with an error'}"
    told = response.headers.get("retry-after", "")
    return ServiceError(response.status_code, detail, float(told) if told.isdigit() else None)
