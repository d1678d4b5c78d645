"""What the service asks of models, in a process that holds them: anchors made, photos placed at anchors and in maps.

The answers are those of ``metriloc relpose --json`` and ``metriloc localize --json``, made by the same functions.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from metriloc.calibration import calibrations_of
from metriloc.io import InputError, as_view
from metriloc.io.depth import check_depth_covers
from metriloc.runs.localize_results import localize_summary
from metriloc.runs.options import MethodSettings, PhotoOptions
from metriloc.runs.outcome import Outcome
from metriloc.runs.relpose import run_relpose
from metriloc.runs.relpose_files import draw_pictures, query_page
from metriloc.runs.relpose_results import RelposeRun, relpose_summary
from metriloc.service.anchor_files import Anchor, read_anchor, write_anchor
from metriloc.service.blobs import Blobs
from metriloc.service.decoding import read_depth_map, read_photo
from metriloc.service.devices import DevicePoses, with_anchor_in_device
from metriloc.service.maps import Maps
from metriloc.service.resident import ResidentMethods
from metriloc.types import PhotoFeatures, View

_T = TypeVar("_T")
KEPT_ANCHORS = 8
"""Anchors that a process keeps in memory."""


@dataclass(frozen=True)
class PhotoFile:
    """A photo as ``Decoder`` wrote it, and what is known of its camera. error: why it cannot be used; it has no path."""

    name: str
    path: Path | None = None
    k: tuple[float, float, float, float] | None = None
    fov: float | None = None
    error: str = ""

    def view(self, as_stored: bool = False) -> View:
        """Raises InputError where it cannot be used. as_stored: its EXIF must not turn it."""
        if self.path is None:
            raise InputError(self.error)
        loaded = read_photo(self.path)
        if as_stored and loaded.exif.orientation != 1:
            raise InputError(
                f"'{self.name}' is turned by its EXIF, of which the device's pose knows nothing: leave that out"
            )
        return as_view(loaded, K=self.k, fov=self.fov, name=self.name, warn_of_guess=False)


@dataclass(frozen=True)
class NewAnchor:
    """depth: a depth map as ``Decoder`` wrote it, called depth_name; distance: metres to every query, if known."""

    photo: PhotoFile
    depth: Path | None = None
    depth_name: str = ""
    distance: float | None = None


@dataclass(frozen=True)
class MadeAnchor:
    """path: of the file to be kept. facts: what is told of it."""

    path: Path
    facts: dict[str, Any]


@dataclass(frozen=True)
class Placing:
    """Photos to be placed at an anchor. blob: of its file; k, fov, depth, depth_scale, distance: as it was made with, or as
    they are asked for now; report: whether HTML reports are wanted, too; devices: where the device says its camera was."""

    blob: str
    photos: tuple[PhotoFile, ...]
    seed: int = 0
    k: tuple[float, float, float, float] | None = None
    fov: float | None = None
    depth_name: str = ""
    depth_scale: float | None = None
    distance: float | None = None
    report: bool = False
    devices: DevicePoses | None = None


@dataclass(frozen=True)
class MapPlacing:
    """Photos to be placed in a map. blob: of its bundle; called so."""

    blob: str
    name: str
    photos: tuple[PhotoFile, ...]
    seed: int = 0
    report: bool = False


@dataclass(frozen=True)
class NewMap:
    """A bundle that was uploaded."""

    path: Path
    name: str


@dataclass(frozen=True)
class Answer:
    """text: JSON. verdicts: one a photo. stages: seconds by stage, together. error: why the only photo could not be used."""

    text: str
    verdicts: tuple[str, ...]
    stages: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Models:
    """Makes the function that does the jobs of this module, with the models in memory."""

    spool: Path
    blobs: Blobs
    method: str = "auto"
    localizer: str | None = None
    device: str = "cpu"
    runtime: str = "torch"
    threads: int | None = None

    def __call__(self) -> Callable[[Any], Any]:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        return _Room(self).do


class _Room:
    """A process with its models, and what it looked at last."""

    def __init__(self, models: Models) -> None:
        self.spool, self.blobs, self.device = models.spool, models.blobs, models.device
        self.runtime = models.runtime
        self.methods = ResidentMethods(models.method, models.device, models.runtime)
        self.maps = Maps(models.localizer, models.device, models.runtime)
        self.anchors: OrderedDict[str, Anchor] = OrderedDict()

    def do(self, job: Any) -> Any:
        if isinstance(job, NewAnchor):
            return self.make_anchor(job)
        if isinstance(job, Placing):
            return self.place(job)
        if isinstance(job, NewMap):
            return self.maps.check(job.path, job.name)
        if isinstance(job, MapPlacing):
            with _called(self.blobs.path(job.blob), job.name) as path:
                return self._place_in_map(job, path)
        raise TypeError(f"no job: {type(job).__name__}")

    # -- anchors ------------------------------------------------------------------------------------------------------
    def make_anchor(self, job: NewAnchor) -> MadeAnchor:
        view = job.photo.view()
        if job.depth is not None:
            depth = read_depth_map(job.depth)
            check_depth_covers(depth, view.size, job.depth_name)
            view = dataclasses.replace(view, depth=depth)
        resident = self.methods.get(job.distance, job.depth is not None)
        features = resident.method.extract(view)
        path = self.spool / f"{secrets.token_hex(16)}.anchor"
        write_anchor(path, Anchor(view, features, resident.made_by))
        seen = features.view
        facts = {
            "photo": view.name,
            "size": list(view.size),
            "focal_px": [float(f) for f in seen.camera.f],
            "intrinsics_source": seen.intrinsics_source,
            "method": resident.method.name,
            "weights_id": resident.method.weights_id,
        }
        return MadeAnchor(path, facts)

    def place(self, job: Placing) -> Answer:
        anchor = self._anchor(job.blob)
        resident = self.methods.get(job.distance, anchor.view.depth is not None)
        kept = anchor.features if anchor.made_by == resident.made_by else None
        features = resident.method.extract(anchor.view) if kept is None else kept
        method = resident.method
        run = RelposeRun(
            anchor.view, method.name, method.weights_id, self._settings(job), calibrations=calibrations_of(method)
        )
        photos = {Path(photo.name): photo for photo in job.photos}
        run_relpose(
            run, method, list(photos), lambda path: photos[path].view(job.devices is not None), reference=features
        )
        content = run.as_dict()
        if job.devices is not None:
            with_anchor_in_device(content["queries"], job.devices)
        if job.report:
            content["reports"] = [_page(run, result, features) for result in run.results]
            content["summaries"] = [relpose_summary(result) for result in run.results]
        return _answer(content, run.results)

    def _anchor(self, blob: str) -> Anchor:
        if blob not in self.anchors:
            self.anchors[blob] = read_anchor(self.blobs.path(blob), self.device)
            while len(self.anchors) > KEPT_ANCHORS:
                self.anchors.popitem(last=False)
        self.anchors.move_to_end(blob)
        return self.anchors[blob]

    def _settings(self, job: Placing) -> dict[str, Any]:
        """As the command line would have been given them; fields of view that differ, it cannot be given."""
        k, fov = job.photos[0].k, job.photos[0].fov  # of all of them
        same = job.k == k
        known = PhotoOptions(
            k=k if same else None,
            k_ref=None if same else job.k,
            k_query=None if same else k,
            fov=fov if job.fov == fov else None,
            depth=Path(job.depth_name) if job.depth_name else None,
            depth_scale=job.depth_scale,
        )
        how = MethodSettings(distance=job.distance, device=self.device, runtime=self.runtime, seed=job.seed)
        differ = {} if job.fov == fov else {"fov_ref": job.fov, "fov_query": fov}
        return {**dataclasses.asdict(known), **differ, "method": self.methods.name, **dataclasses.asdict(how)}

    # -- maps ---------------------------------------------------------------------------------------------------------
    def _place_in_map(self, job: MapPlacing, path: Path) -> Answer:
        photos = {photo.name: photo for photo in job.photos}
        known = (job.photos[0].k, job.photos[0].fov)
        run, reports = self.maps.place(
            path, job.name, list(photos), lambda name: photos[name].view(), known, job.seed, job.report
        )
        content = run.as_dict()
        if job.report:
            content["reports"] = reports
            content["summaries"] = [localize_summary(result) for result in run.results]
        return _answer(content, run.results)


@contextmanager
def _called(path: Path, name: str) -> Iterator[Path]:
    """A file of the service, which sentences call by the name that its user knows."""
    try:
        yield path
    except InputError as error:
        raise InputError(str(error).replace(str(path), name)) from None


def _page(run: RelposeRun, result: Outcome[Any], reference: PhotoFeatures) -> str | None:
    if result.found is None:
        return None
    pictures = draw_pictures(result.found.estimate, reference, result.found.features)
    return query_page(run, result.name, result.found, pictures)


def _answer(content: dict[str, Any], results: Sequence[Outcome[Any]]) -> Answer:
    stages: dict[str, float] = {}
    for result in results:
        for stage, seconds in result.entry.get("timings_s", {}).items():
            stages[stage] = stages.get(stage, 0.0) + float(seconds)
    verdicts = tuple("unusable" if r.unusable else str(r.entry["verdict"]) for r in results)
    error = str(results[0].entry["error"]) if len(results) == 1 and results[0].unusable else ""
    return Answer(json.dumps(content, indent=2), verdicts, stages, error)
