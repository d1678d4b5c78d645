"""Photos that were localized, in the map where they were: of a run in progress, and of the folder that one has left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.runs.localize_results import QueryOutcome
from metriloc.runs.outcome import Outcome
from metriloc.runs.viewed_pairs import query_folders
from metriloc.types import MapUnit
from metriloc.viz.localized import shown_points
from metriloc.viz.marks import marked_photo, marks_of
from metriloc.viz.pictures import Picture, Rgb, rgb_from_image, shrink
from metriloc.viz.scene import THUMBNAIL_SIDE, Frustum, Scene, frustum_at
from metriloc.viz.seen_photos import photo_at, picture_at, small_photo_at
from metriloc.viz.upright import upright_from_world
from metriloc.viz.whole_map import ShownMap, center_spread

PICTURES_OF_QUERIES = 300
"""Queries whose photos are in their cameras; of further ones there are outlines."""
_AROUND = 0.5  # how large cameras of the map are drawn around queries
_DRAWN = (("points.jpg", "Points of the map"), ("evidence.jpg", "Evidence over the photo"))


def receding(frusta: Sequence[Frustum]) -> tuple[Frustum, ...]:
    """Cameras of a map around what was found in it: smaller."""
    return tuple(replace(frustum, size=_AROUND) for frustum in frusta)


def located_facts(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What poses.json says of a query, in words."""
    x, y, z = (float(v) for v in entry["camera_center"])
    facts = [("stands at", f"{x:.3f} {y:.3f} {z:.3f}")]
    facts.append(("confidence", f"{float(entry['confidence']):.2f} ({entry['verdict']})"))
    facts += [("doubt", str(doubt)) for doubt in entry.get("doubts", ())]
    facts.append(("points", str(entry.get("num_points", ""))))
    return (*facts, ("compared with", ", ".join(str(name) for name in entry.get("references", ()))))


def located_frustum(
    outcome: Outcome[Any],
    upright: Pose,
    photo: Rgb | None,
    facts: tuple[tuple[str, str], ...],
    look: Callable[[], Sequence[Picture]] | None,
) -> Frustum:
    """The camera of a query at its pose, with how sure the place is. upright: from the world of the pose to the scene."""
    pose, entry = outcome.pose, outcome.entry
    bare = frustum_at("query", Path(outcome.name).name, pose @ upright.inverse(), outcome.camera, photo)
    spread, given = None, entry.get("covariance")
    if given is not None:
        covariance = torch.tensor(given, dtype=torch.float64)
        if covariance.shape != (6, 6):
            raise InputError(f"a covariance of {outcome.name!r} has shape {list(covariance.shape)}, not [6, 6]")
        spread = center_spread(pose, covariance, upright) if bool(covariance.isfinite().all()) else None
    return replace(bare, facts=facts, look=look, spread=spread)


@dataclass
class LocatedSeen:
    """The scene of a map and the photos that were found in it, as they come. upright: from the map to the scene."""

    upright: Pose
    shown: ShownMap | None
    frusta: list[Frustum] = field(default_factory=list)
    unit: MapUnit = "unit of the map"

    @classmethod
    def of(cls, shown: ShownMap, unit: MapUnit) -> LocatedSeen:
        """In a map that is shown."""
        return cls(shown.upright, shown, unit=unit)

    def add(self, outcome: QueryOutcome, folder: Path | None = None) -> bool:
        """One more query; False where there is nothing to see of it. folder: that the run writes to, for queries that it
        kept."""
        if not outcome.success:
            return False
        few, found = len(self.frusta) < PICTURES_OF_QUERIES, outcome.found
        if found is None:
            path = Path(str(outcome.entry["photo"]))
            self.place(outcome, small_photo_at(path) if few else None, _look_at(path, folder))
            return True

        def look() -> Sequence[Picture]:
            marks, xyz = marks_of(found.details.stages, found.truth), shown_points(found)
            photo = marked_photo(found.query, marks, xyz) if marks and len(xyz) else rgb_from_image(found.query.image)
            return (Picture(Path(outcome.name).name, shrink(photo, 1000)),)

        photo = shrink(rgb_from_image(found.query.image), THUMBNAIL_SIDE) if few else None
        self.place(outcome, photo, look)
        return True

    def place(self, outcome: Outcome[Any], photo: Rgb | None, look: Callable[[], Sequence[Picture]]) -> None:
        """A query at its pose, with how sure the place is."""
        self.frusta.append(located_frustum(outcome, self.upright, photo, located_facts(outcome.entry), look))

    @cached_property
    def _around(self) -> tuple[Frustum, ...]:
        return () if self.shown is None else receding(self.shown.scene.frusta)

    @property
    def scene(self) -> Scene:
        """The map with all queries so far."""
        if self.shown is not None:
            return replace(self.shown.scene, frusta=(*self._around, *self.frusta))
        none, unit = np.zeros((0, 3)), "" if self.unit == "metre" else "map units"
        return Scene(tuple(self.frusta), none, none.astype(np.uint8), 0.0, self.unit == "metre", unit=unit)


def located_of_folder(
    folder: Path, content: Mapping[str, Any], open_shown: Callable[[Path, str | None], ShownMap]
) -> Scene:
    """The scene that a folder of ``metriloc localize`` holds. content: of its poses.json, or the pose.json of one query.

    open_shown: shows the map, given its path and the folder of its photos; where the map is no more, its photos alone are
    shown. Raises InputError where no query has a pose.
    """
    outcomes = []
    for entry in content["queries"]:
        outcome: Outcome[Any] | None = None if "error" in entry else Outcome.saved(str(entry["query"]), entry)
        if outcome is not None and outcome.success:
            outcomes.append(outcome)
    if not outcomes:
        count = len(content["queries"])
        raise InputError(f"'{folder}' holds no pose: of {count} quer{'y' if count == 1 else 'ies'} none was found")
    seen = _in_its_map(content, outcomes, open_shown)
    folders = query_folders(folder)
    for outcome in outcomes:
        seen.add(outcome, folders.get(outcome.name, folder))
    return seen.scene


def _look_at(path: Path, folder: Path | None) -> Callable[[], Sequence[Picture]]:
    drawn = () if folder is None else tuple((folder / name, title) for name, title in _DRAWN)
    return lambda: [*photo_at(path), *(picture for file, title in drawn for picture in picture_at(file, title))]


def _in_its_map(
    content: Mapping[str, Any], outcomes: Sequence[Outcome[Any]], open_shown: Callable[[Path, str | None], ShownMap]
) -> LocatedSeen:
    unit: MapUnit = "metre" if content["conventions"]["lengths"] == "metres" else "unit of the map"
    path, images = Path(str(content["map"]["path"])), content["settings"].get("images")
    try:
        return LocatedSeen.of(open_shown(path, images), unit)
    except InputError:
        poses = Pose.stack([outcome.pose for outcome in outcomes])
        return LocatedSeen(upright_from_world(poses), None, unit=unit)
