"""What ``metriloc track`` leaves behind: a line a frame, written as soon as it is found, and files of poses at the end.

``run.json`` says what is run, ``frames.jsonl`` has a line of JSON for each frame, flushed, so that a kill at any moment
leaves every finished frame; a line that it has cut off is dropped when the run goes on. ``summary.json`` and the files of
poses are written at the end, also after Ctrl+C.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from metriloc.evaluation.trajectory_files import FRAMES_FILE, frame_entries
from metriloc.geometry import Pose
from metriloc.io import InputError, prepare_output_folder, read_json, write_atomically
from metriloc.io.posed_photos import PosedPhoto, PosedPhotos
from metriloc.runs.folder import require_same_run
from metriloc.runs.outcome import Outcome
from metriloc.runs.pose_files import checked_formats, write_pose_files
from metriloc.runs.track_results import TrackRun
from metriloc.streams.notes import Notes
from metriloc.types import View
from metriloc.viz import encode_jpeg

USUAL = ("tum",)
"""The formats of a run that is not told any."""
RUN_FILE, SUMMARY_FILE, PHOTOS = "run.json", "summary.json", "photos"


@dataclass(eq=False)
class TrackFolder:
    """Where ``metriloc track`` writes. formats: of the files of poses; photos: whether frames are kept as JPEGs; made: the
    folders that were not there before, the innermost first."""

    path: Path
    formats: tuple[str, ...] = USUAL
    photos: bool = False
    made: tuple[Path, ...] = ()
    _lines: BinaryIO | None = None

    @classmethod
    def prepare(cls, path: Path, formats: Sequence[str] | None = None, photos: bool = False) -> TrackFolder:
        """Make the folder. Raises InputError for one that cannot be written and for an unknown format."""
        wanted = checked_formats(USUAL if formats is None else formats)
        made = tuple(folder for folder in (path, *path.parents) if not folder.exists())
        return cls(prepare_output_folder(path), wanted, photos, made)

    def begin(self, run: TrackRun, resume: bool) -> int:
        """Ready for lines; the number of frames that an equal run has left, counted into ``run``, 0 where it begins anew.

        Raises InputError, naming what differs, where ``resume`` finds a run with other settings, and where a run is there
        without it.
        """
        file, lines = self.path / RUN_FILE, self.path / FRAMES_FILE
        there = file.is_file() and lines.is_file() and lines.stat().st_size > 0
        if there and not resume:
            raise InputError(
                f"'{self.path}' holds a run already: --resume goes on with it; else give another --out, or delete it"
            )
        done = self._kept(run) if there else 0
        if not there:
            header = {**run.header(), "fingerprint": run.fingerprint()}
            write_atomically(file, json.dumps(header, indent=2) + "\n")
        self._lines = open(lines, "ab")  # noqa: SIM115 - finish closes it
        return done

    def _kept(self, run: TrackRun) -> int:
        """The frames of an equal run, counted. Raises InputError for another one."""
        header = json.loads(json.dumps(run.header()))
        found = read_json(self.path / RUN_FILE)
        found = found if isinstance(found, dict) else {}
        require_same_run(self.path, {key: found.get(key, {} if key == "settings" else None) for key in header}, header)
        if found.get("fingerprint") != run.fingerprint():
            raise InputError(
                f"'{self.path}' holds another run (what it was made with has changed: the photo or map, or a file that an "
                "option names): give another --out, or leave out --resume"
            )
        lines, done = self.path / FRAMES_FILE, 0
        _drop_cut_line(lines)
        if lines.stat().st_size:
            for entry in frame_entries(lines, Notes()):
                run.count(entry)
                done = entry["index"] + 1
        return done

    def photo_path(self, name: str) -> Path | None:
        """Where a frame that has no file of its own is kept; None where it is not."""
        return self.path / PHOTOS / f"{Path(name).name}.jpg" if self.photos else None

    def keep_photo(self, path: Path, view: View) -> None:
        """The photo as it was looked at."""
        prepare_output_folder(path.parent)
        rgb = view.image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        write_atomically(path, encode_jpeg(rgb))

    def write(self, entry: Mapping[str, Any]) -> None:
        """One line, whole in the file when this returns."""
        assert self._lines is not None, "begin comes first"
        self._lines.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
        self._lines.flush()

    def finish(self, run: TrackRun) -> None:
        """The summary and the files of poses; of a run without frames nothing is left."""
        if self._lines is None:
            return
        os.fsync(self._lines.fileno())
        self._lines.close()
        self._lines = None
        if not run.counts["all"]:
            self._discard()
            return
        write_atomically(self.path / SUMMARY_FILE, json.dumps(run.summary(), indent=2) + "\n")
        write_pose_files(self.path, self.formats, self._posed(run))

    def _discard(self) -> None:
        for name in (RUN_FILE, FRAMES_FILE):
            (self.path / name).unlink(missing_ok=True)
        for folder in self.made:
            with suppress(OSError):  # something else is in it by now
                folder.rmdir()

    def _posed(self, run: TrackRun) -> PosedPhotos:
        """All frames that have a pose in metres or in units of the map, at their times."""
        lines = self.path / FRAMES_FILE
        entries = frame_entries(lines, Notes()) if lines.stat().st_size else iter(())
        photos = []
        for entry in entries:
            outcome: Outcome[Any] | None = Outcome.saved(str(entry["query"]), entry)
            if outcome is None or not outcome.success or not entry.get("metric", True):
                continue
            stamp = float(entry["index"]) if entry["time"] is None else float(entry["time"])
            path, sure = Path(entry["photo"]), float(entry["confidence"])
            photos.append(PosedPhoto(outcome.name, path, outcome.camera, outcome.pose, stamp, sure, outcome.covariance))
        world = None
        if run.reference is not None:
            identity = Pose.identity(dtype=torch.float64)
            world = PosedPhoto(run.reference.name, Path(run.target), run.reference.camera, identity)
        unit = "metre" if run.unit == "metre" else "unit of the map"
        return PosedPhotos(tuple(photos), world, unit)  # type: ignore[arg-type]


def _drop_cut_line(file: Path) -> None:
    """What stands after the last line break was cut off by a kill."""
    with open(file, "rb+") as lines:
        size = lines.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 4096)
            lines.seek(start)
            found = lines.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            lines.truncate(end)
