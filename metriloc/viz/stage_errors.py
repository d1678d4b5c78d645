"""How far each stage of a localization puts the points of the map from where they belong, as box plots."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.page.charts import box_chart
from metriloc.viz.localized import LocalizedQuery
from metriloc.viz.marks import Mark, marks_of, project


def stage_errors(entry: LocalizedQuery) -> str:
    """A chart of the errors of the stages. It has a box a stage, in pixels of the photo, to the truth where it is
    known, else to the last stage; HTML, or nothing."""
    marks = marks_of(entry.details.stages, entry.truth)
    goal = next((mark for mark in marks if mark.label == "truth"), marks[-1] if marks else None)
    xyz = _points(entry)
    if goal is None or not len(xyz):
        return ""
    there = project(entry.query.camera, goal.cam_from_world, xyz)
    errors = {mark.label: _errors(entry, mark, xyz, there) for mark in marks if mark is not goal}
    return box_chart(
        f"Points, from {goal.label}", "pixels", {name: found for name, found in errors.items() if found.size}
    )


def _errors(
    entry: LocalizedQuery, mark: Mark, xyz: Float[Tensor, "n 3"], there: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, " k"]:
    apart = np.linalg.norm(project(entry.query.camera, mark.cam_from_world, xyz) - there, axis=-1)
    return apart[np.isfinite(apart)]


def _points(entry: LocalizedQuery) -> Float[Tensor, "n 3"]:
    """All those the maps are of, else those that the references see."""
    if entry.trace.maps:
        return entry.trace.maps[-1].xyz
    scene = entry.scene
    known = [scene.index(name) for name in entry.details.references if name in scene.names]
    return scene.xyz[scene.points_seen_by(known)] if known else torch.zeros(0, 3)
