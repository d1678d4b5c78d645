"""What the alignment of a PixLoc in training looks like: points of two views, where they start, end and belong."""

from __future__ import annotations

from math import nan

import numpy as np

from metriloc.datasets.pixloc_pairs import PointPair
from metriloc.geometry import Pose
from metriloc.lessons.pair_pictures import side_by_side
from metriloc.training import Picture
from metriloc.types import Stage
from metriloc.viz.curves import histogram_picture
from metriloc.viz.marks import marked_photo, marks_of

SHOWN_POINTS = 60
_SIDE = 560


def alignment_picture(sample: PointPair, end: Pose, start_px: float, end_px: float) -> Picture:
    """Reference and query side by side. end: where the alignment of this sample ended; errors: medians in pixels."""
    xyz = sample.xyz[sample.xyz[:, 2] > 0]
    xyz = xyz[:: max(1, len(xyz) // SHOWN_POINTS)][:SHOWN_POINTS]
    reference, query = sample.pair.view0, sample.pair.view1
    points = marks_of([Stage("points of the reference", Pose.identity(), nan)])
    stages = marks_of([Stage("start", sample.init, nan), Stage("result", end, nan)], sample.query_from_reference)
    pictures = [marked_photo(reference, points, xyz, _SIDE), marked_photo(query, stages, xyz, _SIDE)]
    name = f"{reference.name} {query.name}".strip()
    return Picture(f"alignment {name}", side_by_side(pictures), f"median error {start_px:.1f} px, then {end_px:.1f} px")


def errors_picture(start: np.ndarray, end: np.ndarray, most: float) -> Picture:
    """Histograms of the errors of all samples, pixels."""
    drawn = histogram_picture({"start": start.tolist(), "end": end.tolist()}, "median error, pixels", most)
    return Picture("errors", drawn, "of the starts, and of where alignments end")
