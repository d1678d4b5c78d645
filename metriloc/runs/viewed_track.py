"""A tracked stream as a scene: the reference photo or the map, and the camera on its way, frame after frame."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metriloc.geometry import Pose
from metriloc.io import InputError, read_json, read_text
from metriloc.io.intrinsics import camera_from_dict
from metriloc.runs.outcome import Outcome
from metriloc.runs.viewed_map import located_frustum, receding
from metriloc.types import View
from metriloc.viz.pictures import Picture, Rgb, rgb_from_image, shrink
from metriloc.viz.scene import THUMBNAIL_SIDE, Frustum, Scene, frustum_at, frustum_of
from metriloc.viz.seen_photos import photo_at, small_photo_at
from metriloc.viz.whole_map import ShownMap

RUN_FILE, FRAMES_FILE, FORMAT = "run.json", "frames.jsonl", "metriloc-track-1"
"""What ``metriloc track`` writes, and how it calls it."""
MAX_FRAMES = 100_000
SHOWN_PHOTOS = 400
"""Frames whose photos are read; of more, an even selection."""
_FRESH = (122, 63, 176)
"""Color of frames that were looked for from scratch."""


@dataclass
class TrackPlace:
    """Where a stream is followed, as a scene. upright: from the world of the poses to the scene."""

    scene: Scene
    upright: Pose
    gap: bool = True

    @classmethod
    def in_map(cls, shown: ShownMap) -> TrackPlace:
        """In a map, whose own cameras recede."""
        return cls(replace(shown.scene, frusta=receding(shown.scene.frusta)), shown.upright)

    @classmethod
    def of_photo(cls, view: View) -> TrackPlace:
        """Around the reference photo."""
        photo = Picture(Path(view.name).name or "reference", rgb_from_image(view.image))
        bare = frustum_of("reference", photo.title, Pose.identity(dtype=torch.float64), view)
        return cls._around(replace(bare, look=lambda: (photo,)))

    @classmethod
    def of_saved(cls, path: Path, camera: Mapping[str, Any]) -> TrackPlace:
        """Around a reference photo that a run names."""
        camera_, identity = camera_from_dict(camera), Pose.identity(dtype=torch.float64)
        bare = frustum_at("reference", path.name, identity, camera_, small_photo_at(path))
        return cls._around(replace(bare, look=lambda: photo_at(path)))

    @classmethod
    def _around(cls, frustum: Frustum) -> TrackPlace:
        none = np.zeros((0, 3))
        scene = Scene((frustum,), none, none.astype(np.uint8), 0.0, True)
        return cls(scene, Pose.identity(dtype=torch.float64))

    def frame(self, entry: Mapping[str, Any], view: View | None = None, with_photo: bool = True) -> Frustum | None:
        """The camera of a frame, from its line.

        None for one without a pose in space, which breaks the way. view: the photo, where it is at
        hand; else it is read from where the line says. Raises InputError for a line whose numbers
        are none.
        """
        outcome: Outcome[Any] | None = None if "error" in entry else Outcome.saved(str(entry["query"]), entry)
        if outcome is None and "error" not in entry:
            raise InputError(f"the line of frame {entry['query']!r} is damaged: its pose, camera or covariance is none")
        if outcome is None or not outcome.success or outcome.unit == "unknown scale":
            self.gap = True
            return None
        path = Path(str(entry["photo"]))
        photo = _thumbnail(view, path) if with_photo else None
        bare = located_frustum(
            outcome, self.upright, photo, frame_facts(entry), None if view else lambda: photo_at(path)
        )
        time = entry.get("time")
        gap, self.gap = self.gap, False
        color = None if entry.get("state") == "tracking" else _FRESH
        return replace(bare, time=float(entry["index"] if time is None else time), after_gap=gap, color=color)


def _thumbnail(view: View | None, path: Path) -> Rgb | None:
    return small_photo_at(path) if view is None else shrink(rgb_from_image(view.image), THUMBNAIL_SIDE)


def frame_facts(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a line says of a frame, in words."""
    facts = [
        ("state", str(entry.get("state", ""))),
        ("confidence", f"{float(entry['confidence']):.2f} ({entry['verdict']})"),
    ]
    if "scale_source" in entry:
        facts.append(("metres", str(entry["scale_source"])))
    track = entry.get("track")
    notes = track.get("notes", ()) if isinstance(track, Mapping) else ()
    return (*facts, *(("note", str(note["said"])) for note in notes))


def is_track(folder: Path) -> bool:
    """Whether ``metriloc track`` has written to a folder."""
    return (folder / RUN_FILE).is_file() and (folder / FRAMES_FILE).is_file()


def track_of_folder(folder: Path, place: TrackPlace) -> Scene:
    """The scene that a folder of ``metriloc track`` holds. Raises InputError where no frame has a pose."""
    entries = list(_entries(folder / FRAMES_FILE))
    found = [n for n, entry in enumerate(entries) if entry.get("success")]
    shown = {found[round(k)] for k in np.linspace(0, len(found) - 1, min(SHOWN_PHOTOS, len(found)))} if found else set()
    frames = [place.frame(entry, with_photo=n in shown) for n, entry in enumerate(entries)]
    posed = [frame for frame in frames if frame is not None]
    if not posed:
        raise InputError(f"'{folder}' holds no pose: none of {len(entries)} frames was found in metres")
    return replace(place.scene, frusta=(*place.scene.frusta, *posed), title=f"{len(posed)} of {len(entries)} frames")


def track_header(folder: Path) -> Mapping[str, Any]:
    """What run.json says. Raises InputError for one of another kind."""
    content = read_json(folder / RUN_FILE)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"'{folder / RUN_FILE}' was not written by metriloc track of this version")
    return content


def _entries(file: Path) -> Iterator[Mapping[str, Any]]:
    lines: Sequence[str] = read_text(file).splitlines()
    if len(lines) > MAX_FRAMES:
        raise InputError(f"'{file}' has {len(lines)} frames; more than {MAX_FRAMES} are not shown")
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return  # a run that goes on has not finished it
            raise InputError(f"'{file}', line {number}, is not JSON: {error}") from error
        if not isinstance(entry, dict):
            raise InputError(f"'{file}', line {number}, is no frame")
        yield entry
