"""How a localizer came to its answer, step by step, for pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.types.details import Stage


@dataclass(frozen=True, eq=False)
class Course:
    """What one optimisation did.

    values: its objective after each step. phases: name of what each step belongs to (a sigma, a level), within which
    alone values compare. label: what the values are. poses: ``cam_from_world`` after each step, where they are known.

    >>> course = Course("fine", values=(3.0, 1.5, 1.4), phases=("level 1",) * 3)
    >>> f"{course.label} {course.values[0]} to {course.values[-1]}"
    'cost 3.0 to 1.4'
    """

    stage: str
    values: tuple[float, ...]
    phases: tuple[str, ...]
    label: str = "cost"
    poses: tuple[Pose, ...] = ()


@dataclass(frozen=True, eq=False)
class PointMaps:
    """How much each place in a photo speaks for some points. They are points of a map.

    values: 0 where nothing does, over the whole grid of ``size`` (w, h) cells or in a window of it for each point.
    origin: (x, y) of the first cell of each window. most: the value of a certain, right map. camera: the photo's, with
    cells for pixels. index, xyz: the points, in the map and in the world. gain: what each gives at the pose of the stage.

    >>> import torch
    >>> camera, one = Camera.from_fov((4, 3), 1.0), torch.zeros(1, dtype=torch.long)
    >>> values, xyz = torch.zeros(1, 3, 4), torch.tensor([[0.0, 0.0, 2.0]])
    >>> maps = PointMaps("coarse", values, torch.zeros(1, 2), (4, 3), 2.0, camera, one, xyz, torch.tensor([1.0]))
    >>> maps.whole, maps.support().tolist()
    (True, [0.5])
    """

    stage: str
    values: Float[Tensor, "N rows columns"]
    origin: Int[Tensor, "N 2"]
    size: tuple[int, int]
    most: float
    camera: Camera
    index: Int[Tensor, " N"]
    xyz: Float[Tensor, "N 3"]
    gain: Float[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def whole(self) -> bool:
        """Whether every map covers the whole photo."""
        return tuple(self.values.shape[:0:-1]) == self.size

    def support(self) -> Float[Tensor, " N"]:
        """The gains as a share of what a perfect map would give.

        Such a map is certain and right.
        """
        return self.gain / self.most


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """What a network made of one photo. levels: features, finest first; confidences: of each level, 0..1, or none.

    >>> import torch
    >>> seen = DenseFeatures("query.jpg", levels=(torch.zeros(32, 120, 160), torch.zeros(64, 30, 40)))
    >>> [tuple(level.shape[1:]) for level in seen.levels]  # finest first
    [(120, 160), (30, 40)]
    """

    photo: str
    levels: tuple[Float[Tensor, "C h w"], ...]
    confidences: tuple[Float[Tensor, "h w"], ...] = ()


@dataclass(frozen=True, eq=False)
class Trace:
    """How a localizer came to its answer, for pictures.

    ``localize(..., trace=True)`` puts it into the estimate. stages: as in ``LocalizationDetails``.
    courses: the optimisations, in order. maps: of the stages that have them. features: of the
    query, and of the first reference. table: every step as columns of plain numbers, for JSON. All
    but the stages may be empty.

    >>> trace = Trace(stages=(Stage("p3p", Pose.identity(), cost=1.0), Stage("fine", Pose.identity(), cost=0.2)))
    >>> [stage.name for stage in trace.stages]
    ['p3p', 'fine']
    """

    stages: tuple[Stage, ...] = ()
    courses: tuple[Course, ...] = ()
    maps: tuple[PointMaps, ...] = ()
    features: tuple[DenseFeatures, ...] = ()
    table: Mapping[str, Sequence[Any]] = field(default_factory=dict)
