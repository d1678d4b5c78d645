"""What the alignment of a PixLoc in training looks like: points of two views, where they start, end and belong."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metriloc.datasets.pixloc_pairs import PointPair
from metriloc.geometry import Pose
from metriloc.lessons.pair_pictures import side_by_side
from metriloc.training import Picture
from metriloc.types import DenseFeatures, Stage
from metriloc.viz.curves import histogram_picture
from metriloc.viz.marks import marked_photo, marks_of
from metriloc.viz.two_views import two_view_figure

SHOWN_POINTS = 60
CHOSEN_POINTS = 24
"""So many can be looked at one by one."""
_SIDE = 560


def alignment_figure(
    sample: PointPair, poses: Sequence[Pose], errors: tuple[float, float], seen: tuple[DenseFeatures, DenseFeatures]
) -> str:
    """Both photos to look into, as HTML: where each level put the points, what it aligned and what it trusted.

    poses: of this sample at the end of each level, coarse to fine. errors: medians at the start and the end, pixels.
    seen: features and confidences of reference and query.
    """
    reference, query = sample.pair.view0, sample.pair.view1
    last = len(poses) - 1
    ends = [Stage("result" if n == last else f"level {last - n}", pose, nan) for n, pose in enumerate(poses)]
    title = f"{reference.name} {query.name}: median error {errors[0]:.1f} px, then {errors[1]:.1f} px.".strip()
    stages = [Stage("start", sample.init, nan), *ends]
    points = _some(sample, CHOSEN_POINTS)
    return two_view_figure(reference, query, stages, sample.query_from_reference, points, seen, title)


def alignment_picture(sample: PointPair, end: Pose, start_px: float, end_px: float) -> Picture:
    """Reference and query side by side. end: where the alignment of this sample ended; errors: medians in pixels."""
    xyz = _some(sample, SHOWN_POINTS)
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


def _some(sample: PointPair, count: int) -> Float[Tensor, "N 3"]:
    """Points that the reference sees, at equal steps of its list."""
    xyz = sample.xyz[sample.xyz[:, 2] > 0]
    return xyz[:: max(1, len(xyz) // count)][:count]
