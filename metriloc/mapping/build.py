"""From photos to a model, stage by stage; what a stage made is on disk under the name of what it was made of.

Nothing is ever stale, so a run that was ended at any moment goes on where it was, and ends with the same map.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.io.files import InputError, prepare_output_folder, read_json, write_atomically
from metriloc.mapping.child import NativeJob, run_native
from metriloc.mapping.config import MapConfig
from metriloc.mapping.features import FeatureStore
from metriloc.mapping.matching import Index
from metriloc.mapping.pairs import Pair
from metriloc.mapping.photos import MapPhoto, cameras_of, stored_pixels
from metriloc.mapping.places import Workplace
from metriloc.mapping.prepare import Bar, Sharing, prepare, required
from metriloc.types import GUESSED_FOCAL

MIN_INLIERS = 15
"""Verified matches that two photos need to count as showing the same (COLMAP's own)."""
_ANSWER = "answer.json"
_VERSION = "1"  # of databases
_MODEL_VERSION = "4"


@dataclass(frozen=True)
class Models:
    """What COLMAP made of the photos. entries: of each model, the largest first, with ``folder``, ``names``, ``points`` and
    ``error_px``. messages: one sentence for each photo that was left out."""

    folder: Path
    entries: Sequence[Mapping[str, Any]]
    photos: Sequence[MapPhoto]
    messages: Sequence[str] = ()
    pairs: int = 0

    @property
    def largest(self) -> Path:
        """The folder of the largest model."""
        return self.folder / str(self.entries[0]["folder"])

    @property
    def names(self) -> frozenset[str]:
        """Of the photos in the largest model."""
        return frozenset(self.entries[0]["names"])

    @property
    def others(self) -> tuple[tuple[str, ...], ...]:
        """Photos of the other models that the largest one does not have."""
        rest = (tuple(n for n in entry["names"] if n not in self.names) for entry in self.entries[1:])
        return tuple(names for names in rest if names)

    @property
    def alone(self) -> tuple[str, ...]:
        """Photos in no model."""
        seen = {name for entry in self.entries for name in entry["names"]}
        return tuple(photo.name for photo in self.photos if photo.name not in seen)


def build_models(
    photos: Sequence[MapPhoto],
    folder: Path,
    work: Workplace,
    config: MapConfig,
    *,
    device: str = "cpu",
    bar: Bar,
    sharing: Sharing | None = None,
) -> Models:
    """All stages. folder: that the names of photos are relative to. Raises InputError where no model comes out."""
    ready = prepare(photos, folder, work, config, device=device, bar=bar, sharing=sharing)
    job = _Job(ready.photos, folder, ready.matches, ready.features, config)
    entries = _mapped(job, work, bar)
    if not entries:
        raise InputError(_nothing_fits(ready.photos, folder, ready.matches))
    ready.tidy()
    return Models(work.models / job.name, entries, ready.photos, ready.messages, ready.pairs)


def _nothing_fits(photos: Sequence[MapPhoto], folder: Path, matches: Mapping[Pair, Index]) -> str:
    best = max((len(index) for index in matches.values()), default=0)
    return (
        f"no two of the {len(photos)} photos in '{folder}' could be put together (at most {best} matches of two): they "
        "must show the same things from places apart"
    )


# -- COLMAP's part ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Job:
    photos: Sequence[MapPhoto]
    folder: Path
    matches: Mapping[Pair, Index]
    features: FeatureStore
    config: MapConfig
    kept: list[Pair] = field(default_factory=list)

    def __post_init__(self) -> None:
        enough = (pair for pair, index in self.matches.items() if len(index) >= MIN_INLIERS)
        self.kept.extend(sorted(enough))

    @property
    def database_name(self) -> str:
        """Of all that verification of the matches rests on."""
        parts: list[Any] = [_VERSION, [self.features.key(photo) for photo in self.photos], self._cameras()]
        digest = hashlib.sha256(json.dumps(parts).encode())
        for pair in self.kept:
            digest.update(np.array(pair, np.int32).tobytes() + np.ascontiguousarray(self.matches[pair]).tobytes())
        return digest.hexdigest()[:24]

    @property
    def name(self) -> str:
        """Of all that the models rest on; begins with the name of the database."""
        names = [photo.name for photo in self.photos]
        rest = json.dumps([_MODEL_VERSION, names, self._constant(), self.config.mapper])
        return f"{self.database_name}-{hashlib.sha256(rest.encode()).hexdigest()[:8]}"

    def _cameras(self) -> list[dict[str, Any]]:
        firsts, _ = cameras_of(self.photos)
        return [
            {
                "model": photo.camera.model,
                "width": photo.camera.width,
                "height": photo.camera.height,
                "params": list(photo.camera.params),
                "prior": photo.focal_sigma < GUESSED_FOCAL,
            }
            for photo in firsts
        ]

    def _constant(self) -> list[int]:
        firsts, _ = cameras_of(self.photos)
        if self.config.refine == "auto":
            return [number for number, photo in enumerate(firsts) if photo.known]
        return list(range(len(firsts))) if self.config.refine == "never" else []

    def content(self, arrays: Path, database: Path, out: Path) -> dict[str, Any]:
        """What the process is told."""
        _, of_photo = cameras_of(self.photos)
        return {
            "arrays": str(arrays),
            "database": str(database),
            "out": str(out),
            "photos": str(self.folder.resolve()),
            "cameras": self._cameras(),
            "constant": self._constant(),
            "images": [{"name": p.name, "camera": c} for p, c in zip(self.photos, of_photo, strict=True)],
            "pairs": self.kept,
            "min_inliers": MIN_INLIERS,
            "mapper": self.config.mapper,
            "threads": self.config.threads,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Keypoints with pixel centers at 0.5, as stored, and matches."""
        found: dict[str, np.ndarray] = {}
        for number, photo in enumerate(self.photos):
            uv = required(self.features, photo).uv.numpy()
            stored = stored_pixels(uv, photo.orientation, photo.upright_size)
            found[f"keypoints {number}"] = np.ascontiguousarray(stored + 0.5, dtype=np.float32)
        found.update({f"matches {i} {j}": np.ascontiguousarray(self.matches[i, j]) for i, j in self.kept})
        return found


def _mapped(job: _Job, work: Workplace, bar: Bar) -> list[dict[str, Any]]:
    """The models of a job, made now or before; the largest first."""
    from safetensors.numpy import save

    final = work.models / job.name
    if not (final / _ANSWER).is_file():
        fresh = work.models / f"{job.name}.{os.getpid()}.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        prepare_output_folder(fresh)
        arrays = fresh / "arrays.safetensors"
        try:
            write_atomically(arrays, save(job.arrays()))
            database = work.models / f"{job.database_name}.db"
            with bar("model") as progress:
                answer = run_native(NativeJob("map", job.content(arrays, database, fresh)), progress)
            arrays.unlink()
            write_atomically(fresh / _ANSWER, json.dumps(answer))
            _put(fresh, final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            for half in work.models.glob(f".{job.database_name}.*"):  # of a process that crashed
                half.unlink(missing_ok=True)
    work.tidy(job.database_name)
    models: list[dict[str, Any]] = read_json(final / _ANSWER)["models"]
    return sorted(models, key=lambda model: (-len(model["names"]), -model["points"]))


def _put(fresh: Path, final: Path) -> None:
    try:
        os.rename(fresh, final)
    except OSError as error:
        if not (final / _ANSWER).is_file():
            raise InputError(f"'{final}' cannot be written: {error.strerror or error}") from error
