"""Photos that were localized, in the map where they were: of a run in progress, and of the folder that one has left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
_DRAWN = (("points.jpg", "Points of the map"), ("evidence.jpg", "Evidence over the photo"))


def located_facts(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What poses.json says of a query, in words."""
    x, y, z = (float(v) for v in entry["camera_center"])
    facts = [("stands at", f"{x:.3f} {y:.3f} {z:.3f}")]
    facts.append(("confidence", f"{float(entry['confidence']):.2f} ({entry['verdict']})"))
    facts += [("doubt", str(doubt)) for doubt in entry.get("doubts", ())]
    facts.append(("points", str(entry.get("num_points", ""))))
    return (*facts, ("compared with", ", ".join(str(name) for name in entry.get("references", ()))))


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

    def add(self, outcome: QueryOutcome) -> bool:
        """A query that was just computed; False where there is nothing to see of it."""
        if outcome.found is None or not outcome.success:
            return False
        found = outcome.found

        def look() -> Sequence[Picture]:
            marks, xyz = marks_of(found.details.stages, found.truth), shown_points(found)
            photo = marked_photo(found.query, marks, xyz) if marks and len(xyz) else rgb_from_image(found.query.image)
            return (Picture(Path(outcome.name).name, shrink(photo, 1000)),)

        few = len(self.frusta) < PICTURES_OF_QUERIES
        photo = shrink(rgb_from_image(found.query.image), THUMBNAIL_SIDE) if few else None
        self.place(outcome, photo, look)
        return True

    def place(self, outcome: Outcome[Any], photo: Rgb | None, look: Callable[[], Sequence[Picture]]) -> None:
        """A query at its pose, with how sure the place is."""
        pose, entry = outcome.pose, outcome.entry
        turned = pose @ self.upright.inverse()
        frustum = frustum_at("query", Path(outcome.name).name, turned, outcome.camera, photo)
        spread = None
        if entry.get("covariance") is not None:
            spread = center_spread(pose, torch.tensor(entry["covariance"], dtype=torch.float64), self.upright)
        self.frusta.append(replace(frustum, facts=located_facts(entry), look=look, spread=spread))

    @property
    def scene(self) -> Scene:
        """The map with all queries so far."""
        if self.shown is not None:
            return replace(self.shown.scene, frusta=(*self.shown.scene.frusta, *self.frusta))
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
    for number, outcome in enumerate(outcomes):
        path = Path(str(outcome.entry["photo"]))
        photo = small_photo_at(path) if number < PICTURES_OF_QUERIES else None
        seen.place(outcome, photo, _look_at(path, folders.get(outcome.name, folder)))
    return seen.scene


def _look_at(path: Path, folder: Path) -> Callable[[], Sequence[Picture]]:
    return lambda: [*photo_at(path), *(p for name, title in _DRAWN for p in picture_at(folder / name, title))]


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
