"""Pictures of the pairs on which two runs of a benchmark differ most: ``metriloc eval compare --pictures``.

Runs keep poses, not matches, so the pairs that are drawn are solved again with the seed of the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from metriloc.evaluation.scoring import PairScores
from metriloc.evaluation.tasks import PairSolver, PairTask
from metriloc.io import InputError, listed_name, prepare_output_folder, write_atomically
from metriloc.types import PoseEstimate
from metriloc.viz import Answer, Picture, compared_picture, encode_jpeg


def most_different(a: PairScores, b: PairScores, count: int) -> list[int]:
    """The pairs on which two runs differ most, the most first.

    Those on which they are equal are left out. Measured by VCRE as a share of the diagonal, at most
    1, where both runs have poses in metres, else by the rotation error as a share of 180 degrees.
    No pose, or one without metres, counts as 1.
    """
    metres = bool(a.metric.any() and b.metric.any())
    apart = np.abs(_errors(a, metres) - _errors(b, metres))
    return [int(i) for i in np.argsort(-apart, kind="stable")[:count] if apart[i] > 0]


def _errors(scores: PairScores, metres: bool) -> Float[np.ndarray, " n"]:
    errors = scores.vcre_fraction if metres else scores.rotation_deg / 180
    return np.minimum(np.nan_to_num(errors, nan=1.0), 1.0)


def compared_pictures(
    tasks: Sequence[PairTask], solvers: Mapping[str, tuple[PairSolver, int]], folder: Path
) -> list[Picture]:
    """Draw what several methods say of pairs, with the true camera in green.

    - tasks: the pairs to draw.
    - solvers: by the name that is drawn, with the seed of the run.
    - folder: gets ``00_PAIR.jpg`` and so on, each whole.

    Returns the pictures. Raises InputError for a photo that cannot be read, and for runs at two sizes of photos.
    """
    prepare_output_folder(folder)
    pictures = []
    sizes = {solver.size for solver, _ in solvers.values()}
    if len(sizes) > 1:
        raise InputError(f"one picture cannot show photos of two sizes: the runs had --resize {_listed(sizes)}")
    (size,) = sizes
    for number, task in enumerate(tasks):
        reference, query = (frame.load(size, depth=False) for frame in (task.pair.frame0, task.pair.frame1))
        answers = [_answer(name, solver, task, seed) for name, (solver, seed) in solvers.items()]
        rgb = compared_picture(reference, query, answers, task.pair.cam1_from_cam0)
        write_atomically(folder / f"{number:02d}_{listed_name(task.key).replace('/', '_')[:150]}.jpg", encode_jpeg(rgb))
        pictures.append(Picture(task.key, rgb, "The true camera is green."))
    return pictures


def _answer(name: str, solver: PairSolver, task: PairTask, seed: int) -> Answer:
    try:
        return Answer(name, solver.estimate(task, seed))
    except InputError:
        raise
    except (ValueError, RuntimeError) as error:
        return Answer(name, PoseEstimate.failure("degenerate"), " ".join(str(error).split())[:200])


def _listed(sizes: set[tuple[int, int] | None]) -> str:
    return " and ".join(sorted("none" if size is None else f"{size[0]} {size[1]}" for size in sizes))
