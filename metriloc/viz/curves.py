"""How a localisation converged: cost by step, stage by stage, as a picture (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from metriloc.geometry import Pose
from metriloc.methods.nre.model import StageMaps
from metriloc.methods.nre.refine import RefineConfig, refine
from metriloc.types import Stage
from metriloc.viz.pictures import Rgb

MISSING_MATPLOTLIB = 'plots need matplotlib: pip install "metriloc[viz]"'


@dataclass(frozen=True, eq=False)
class Course:
    """What one stage did. values: its objective after each step; phases: name of what each step belongs to, within which
    alone values compare (a sigma, a level); poses: after each step, where they are known."""

    stage: str
    values: tuple[float, ...]
    phases: tuple[str, ...]
    label: str = "cost"
    poses: tuple[Pose, ...] = field(default=())


def gnc_courses(maps: Sequence[StageMaps], stages: Sequence[Stage], configs: Sequence[RefineConfig]) -> list[Course]:
    """GNC-IRLS of each stage of NRE, gone through once more from where the stage began: the share of the evidence that
    was not gathered, step by step.

    stages: of the estimate; each with maps comes after the one it started from. configs: one for each of ``maps``.
    """
    refined = [place for place, stage in enumerate(stages) if stage.name in ("coarse", "fine") and place > 0]
    courses: list[Course] = []
    for kept, place, config in zip(maps, refined, configs, strict=False):
        name = stages[place].name
        # a coarse stage that is done again begins where the first one did
        again = name == "coarse" and stages[place - 1].name == "coarse"
        start = stages[0 if again else place - 1]
        found = refine(kept.maps, kept.xyz, kept.camera, start.cam_from_world, config)
        usable = max(1, int(kept.maps.informative().sum())) * kept.maps.max_gain
        values = tuple(1 + float(step.costs.min()) / usable for step in found.steps)
        phases = tuple(f"sigma {step.sigma:g}" for step in found.steps)
        seen = any(course.stage.startswith(name) for course in courses)
        courses.append(Course(f"{name}, again" if seen else name, values, phases, "share of evidence not gathered"))
    return courses


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
