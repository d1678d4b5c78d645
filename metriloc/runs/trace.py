"""A query localised, with what pictures and reports need to know of the way: maps, steps, features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from metriloc.calibrated import CalibratedLocalizer
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.maps import load_map_view
from metriloc.methods.nre.model import NRE
from metriloc.methods.pixloc import Hints, PixLoc, Tracker
from metriloc.types import AbsolutePoseMethod, SfmMap, View
from metriloc.viz.curves import Course, gnc_courses
from metriloc.viz.features import DenseFeatures
from metriloc.viz.localized import LocalizedQuery


@dataclass(frozen=True, eq=False)
class Start:
    """References of a query, a first pose where there is one, and hints for PixLoc."""

    references: tuple[str, ...]
    init: Pose | None = None
    hints: Hints | None = None


def traced(
    method: AbsolutePoseMethod, asked: LocalizedQuery, start: Start, seed: int = 0, *, pictures: bool = True
) -> LocalizedQuery:
    """The query with its estimate. pictures: and with what they need: maps of its stages (NRE), the course of the
    optimisation (NRE, PixLoc), features (PixLoc)."""
    view, scene, references, init = asked.query, asked.scene, start.references, start.init
    if isinstance(method, CalibratedLocalizer):
        found = traced(method.method, asked, start, seed, pictures=pictures)
        return replace(found, estimate=method.judge(found.estimate, view))
    if isinstance(method, PixLoc):
        return _aligned(method, asked, start, seed, pictures)
    if pictures and isinstance(method, NRE):
        estimate, maps = method.trace(view, scene, references, init, seed=seed)
        coarse, fine = method.config.coarse_gnc, method.config.windows.gnc
        stages = estimate.localization[0].stages
        refined = [stage.name for stage in stages if stage.name in ("coarse", "fine")]
        configs = [fine if name == "fine" else coarse for name in refined]
        courses = tuple(gnc_courses(maps, stages, configs))
        return replace(asked, estimate=estimate, maps=tuple(maps), courses=courses)
    return replace(asked, estimate=method.localize(view, scene, references, init, seed=seed))


def _aligned(method: PixLoc, asked: LocalizedQuery, start: Start, seed: int, pictures: bool) -> LocalizedQuery:
    track = Tracker() if pictures else None
    estimate = method.localize(
        asked.query, asked.scene, start.references, start.init, seed=seed, hints=start.hints, log=track
    )
    if track is None:
        return replace(asked, estimate=estimate)
    features = _features(method, asked.query, asked.scene, estimate.localization[0].references)
    return replace(asked, estimate=estimate, courses=tuple(_courses(track)), features=features, track=track)


def _features(method: PixLoc, view: View, scene: SfmMap, references: Sequence[str]) -> DenseFeatures | None:
    """Of the query and the first reference, in full size; None where a photo is too small or cannot be read."""
    try:
        photos = [view, *(load_map_view(scene, scene.index(name)) for name in references[:1])]
    except InputError:
        return None
    found = [method.extractor(photo, 1) for photo in photos]
    pyramids = [extraction.pyramid for extraction in found if extraction is not None]
    if len(pyramids) < len(photos):
        return None
    levels = tuple(tuple(features[0].cpu() for features in pyramid.features) for pyramid in pyramids)
    confidences = pyramids[0].confidences
    return DenseFeatures(levels, () if confidences is None else tuple(c[0, 0].cpu() for c in confidences))


def _courses(track: Tracker) -> Iterator[Course]:
    """PixLoc's stages are called "scale 4, level 2": a course a scale, a phase a level."""
    for scale in dict.fromkeys(step.stage.partition(", ")[0] for step in track.steps):
        mine = [step for step in track.steps if step.stage.partition(", ")[0] == scale]
        phases = tuple(step.stage.partition(", ")[2] for step in mine)
        values, poses = tuple(step.cost for step in mine), tuple(step.pose for step in mine)
        yield Course(scale, values, phases, "mean cost of a point", poses)
