"""How a localisation converged: cost by step, stage by stage, as a picture (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from metriloc.types import Course
from metriloc.viz.pictures import Rgb

MISSING_MATPLOTLIB = 'plots need matplotlib: pip install "metriloc[viz]"'


def course_picture(courses: Sequence[Course]) -> Rgb:
    """One plot a stage, a line a phase. Raises ImportError, with the pip command, without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(MISSING_MATPLOTLIB) from error
    columns = min(3, max(1, len(courses)))
    rows = max(1, -(-len(courses) // columns))
    figure = Figure(figsize=(4.6 * columns, 3.1 * rows), dpi=110, layout="constrained")
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
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
