"""How a localisation converged, cost by step, and how errors are spread: plots as pictures (matplotlib)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metriloc.types import Course
from metriloc.viz.pictures import Rgb

MISSING_MATPLOTLIB = 'plots need matplotlib: pip install "metriloc[viz]"'


def course_picture(courses: Sequence[Course]) -> Rgb:
    """One plot a stage, a line a phase. Raises ImportError, with the pip command, without matplotlib."""
    columns = min(3, max(1, len(courses)))
    rows = max(1, -(-len(courses) // columns))
    figure = _figure(4.6 * columns, 3.1 * rows)
    from matplotlib.ticker import MaxNLocator

    for number, course in enumerate(courses):
        axes = figure.add_subplot(rows, columns, number + 1)
        phases = np.array(course.phases)
        for phase in dict.fromkeys(course.phases):
            steps = np.flatnonzero(phases == phase)
            axes.plot(steps + 1, np.array(course.values)[steps], marker="o", markersize=3, label=phase)
        axes.set(title=course.stage, xlabel="step", ylabel=course.label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if course.phases:
            axes.legend(fontsize="small")
    return _drawn(figure)


def histogram_picture(values: Mapping[str, Sequence[float]], label: str, most: float, bins: int = 25) -> Rgb:
    """How often each value comes, a color a name. What lies beyond ``most`` counts in the last bar.

    Raises ImportError, with the pip command, without matplotlib.
    """
    figure = _figure(5.6, 3.4)
    axes = figure.add_subplot()
    edges = np.linspace(0, most, bins + 1)
    for name, found in values.items():
        finite = np.nan_to_num(np.asarray(found, float), nan=most, posinf=most)
        axes.hist(np.clip(finite, 0, most), edges, alpha=0.55, label=f"{name} (median {np.median(finite):.3g})")
    axes.set(xlabel=f"{label} (last bar: {most:g} and more)", ylabel="how many")
    axes.legend(fontsize="small")
    return _drawn(figure)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING_MATPLOTLIB) from error
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _drawn(figure: Any) -> Rgb:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
