"""Relative poses as a scene: of a run in progress, and of the folder that one has left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metriloc.datasets.overlap_table import npz_bytes, read_arrays
from metriloc.geometry import Pose
from metriloc.io import InputError, read_json
from metriloc.io.intrinsics import camera_from_dict
from metriloc.runs.outcome import Outcome
from metriloc.runs.relpose_results import PairFound, QueryResult
from metriloc.types import View
from metriloc.viz.matches import match_picture
from metriloc.viz.pictures import Picture, Rgb, rgb_from_image
from metriloc.viz.scene import Frustum, Scene, build_scene, frustum_at, frustum_of
from metriloc.viz.seen_photos import photo_at, picture_at, small_photo_at
from metriloc.wording import interval, metres

POINTS_FILE = "points.npz"
"""Of a query: the inlier points in the frame of the reference camera, their colors, and how probable each match is."""
MAX_POINTS = 1_000_000


def points_file(scene: Scene) -> bytes:
    """What stands in ``points.npz``."""
    probability = np.ones(len(scene.points)) if scene.probability is None else scene.probability
    return npz_bytes({"xyz": scene.points, "rgb": scene.colors, "probability": probability})


def pair_facts(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What pose.json says of a query, in words."""
    facts = []
    if entry.get("metric") and "distance" in entry:
        low_high = entry.get("distance_interval_90")
        facts.append(
            ("distance", f"{metres(float(entry['distance']))}{interval(tuple(low_high) if low_high else None)}")
        )
        facts.append(("scale", str(entry.get("scale_source", ""))))
    else:
        facts.append(("distance", "not known, only the direction"))
    facts.append(("confidence", f"{float(entry['confidence']):.2f} ({entry['verdict']})"))
    facts += [("doubt", str(doubt)) for doubt in entry.get("doubts", ())]
    return (*facts, ("inliers", str(entry.get("num_inliers", ""))))


@dataclass
class PairsSeen:
    """The scene of a reference and its queries, as they come. reference: as the method looked at it; folder: that the run
    writes to, for queries that it kept."""

    reference: View
    folder: Path | None = None
    scenes: list[Scene] = field(default_factory=list)

    def add(self, result: QueryResult, truth: Pose | None = None) -> bool:
        """One more query; False where there is nothing to see of it."""
        scene = self._kept(result) if result.found is None else self._found(result, result.found, truth)
        if scene is not None:
            self.scenes.append(scene)
        return scene is not None

    def _found(self, result: QueryResult, found: PairFound, truth: Pose | None) -> Scene | None:
        estimate, query = found.estimate, found.features.view
        scene = build_scene(estimate, self.reference, query, truth)
        if scene is None:
            return None

        def look() -> Sequence[Picture]:
            drawn = match_picture(self.reference.image, query.image, estimate.details[0].inliers, height=400)
            return Picture(Path(result.name).name, rgb_from_image(query.image)), Picture("Inlier matches", drawn)

        own = replace(scene.frusta[1], label=Path(result.name).name, facts=pair_facts(result.entry), look=look)
        return replace(scene, frusta=(self._first, own, *scene.frusta[2:]))

    def _kept(self, result: QueryResult) -> Scene | None:
        if self.folder is None or not result.success:
            return None
        return _saved_scene(self._first, result, query_folders(self.folder).get(result.name, self.folder))

    @cached_property
    def _first(self) -> Frustum:
        bare = frustum_of(
            "reference", Path(self.reference.name).name, Pose.identity(dtype=torch.float64), self.reference
        )
        photo = Picture(bare.label, rgb_from_image(self.reference.image))
        return replace(bare, look=lambda: (photo,))

    @property
    def scene(self) -> Scene | None:
        """All queries around one reference; None before the first."""
        return joined(self.scenes) if self.scenes else None


def joined(scenes: Sequence[Scene], title: str = "") -> Scene:
    """Scenes around the same reference as one.

    The first says how long a baseline is, if it is the only one.
    """
    first = scenes[0]
    probability = [s.probability if s.probability is not None else np.ones(len(s.points)) for s in scenes]
    return replace(
        first,
        frusta=(first.frusta[0], *(frustum for scene in scenes for frustum in scene.frusta[1:])),
        points=np.concatenate([scene.points for scene in scenes]),
        colors=np.concatenate([scene.colors for scene in scenes]),
        metric=all(scene.metric for scene in scenes),
        confidence=first.confidence if len(scenes) == 1 else None,
        probability=np.concatenate(probability),
        title=title,
    )


def pairs_of_folder(folder: Path, content: Mapping[str, Any]) -> Scene:
    """The scene that a folder of ``metriloc relpose`` holds. content: of its pose.json.

    Raises InputError where no query has a pose, and where what it says is damaged.
    """
    reference = content["reference"]
    folders = query_folders(folder)
    first = _first(reference)
    scenes = []
    for entry in content["queries"]:
        outcome: Outcome[Any] | None = None if "error" in entry else Outcome.saved(str(entry["query"]), entry)
        if outcome is not None and outcome.success:
            scenes.append(_saved_scene(first, outcome, folders.get(outcome.name, folder)))
    if not scenes:
        count = len(content["queries"])
        raise InputError(f"'{folder}' holds no pose: of {count} quer{'y' if count == 1 else 'ies'} none was found")
    return joined(scenes, f"{Path(reference['photo']).name}: {len(scenes)} of {len(content['queries'])} queries")


def _first(reference: Mapping[str, Any]) -> Frustum:
    camera, path = camera_from_dict(reference["camera"]), Path(str(reference["photo"]))
    thumbnail = small_photo_at(path)
    bare = frustum_at("reference", path.name, Pose.identity(dtype=torch.float64), camera, thumbnail)
    return replace(bare, look=lambda: photo_at(path))


def query_folders(folder: Path) -> dict[str, Path]:
    """Where the pictures of each query are."""
    found = {}
    for file in sorted(folder.glob("[0-9]*_*/pose.json")):
        try:
            found[str(read_json(file)["queries"][0]["query"])] = file.parent
        except (ValueError, KeyError, TypeError, IndexError):
            continue  # of something else
    return found


def _saved_scene(first: Frustum, outcome: Outcome[Any], folder: Path) -> Scene:
    pose, metric = outcome.pose, outcome.unit == "metre"
    path = Path(outcome.name)
    bare = frustum_at("query", path.name, pose, outcome.camera, small_photo_at(path))

    def look() -> Sequence[Picture]:
        return [*photo_at(path), *picture_at(folder / "matches.jpg", "Inlier matches")]

    query = replace(bare, facts=pair_facts(outcome.entry), look=look)
    points, colors, probability = _saved_points(folder / POINTS_FILE)
    baseline = float(pose.distance())
    confidence = float(outcome.entry["confidence"])
    return Scene((first, query), points, colors, baseline, metric, confidence, probability)


def _saved_points(file: Path) -> tuple[np.ndarray, Rgb, np.ndarray]:
    """None where there is no file, as of runs of earlier versions. Raises InputError for one that is damaged."""
    if not file.is_file():
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0)
    arrays = read_arrays(file, ("xyz", "rgb", "probability"))
    shapes = {name: array.shape for name, array in arrays.items()}
    count = shapes.get("xyz", (0,))[0]
    wanted = {"xyz": (count, 3), "rgb": (count, 3), "probability": (count,)}
    kinds = {name: array.dtype.kind for name, array in arrays.items()}
    if shapes != wanted or kinds != {"xyz": "f", "rgb": "u", "probability": "f"} or count > MAX_POINTS:
        raise InputError(f"'{file}' does not hold the points of a pose: run metriloc relpose again")
    if arrays["rgb"].dtype != np.uint8 or not np.isfinite(arrays["xyz"]).all():
        raise InputError(f"'{file}' holds points that are not finite, or colors that are none")
    return arrays["xyz"].astype(float), arrays["rgb"], np.clip(np.nan_to_num(arrays["probability"].astype(float)), 0, 1)
