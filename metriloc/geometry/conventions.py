"""How others write camera poses: one table of axes and direction, and the matrix of axes that
follows.

Told for readers in ``docs/conventions.md``. ``Pose.to("opengl")`` and ``Pose.from_convention``
apply it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Direction = Literal["right", "left", "up", "down", "forward", "back"]
_IN_OPENCV: dict[Direction, tuple[float, float, float]] = {
    "right": (1, 0, 0),
    "left": (-1, 0, 0),
    "down": (0, 1, 0),
    "up": (0, -1, 0),
    "forward": (0, 0, 1),
    "back": (0, 0, -1),
}


@dataclass(frozen=True)
class Convention:
    """How one program or file writes a camera pose.

    - axes: where x, y and z of a camera point, for who looks through it.
    - camera_to_world: whether the pose maps points of the camera to the world, and so holds the
      camera's place.
    - note: what it is called there.

    >>> CONVENTIONS["opengl"].axes, CONVENTIONS["opengl"].camera_to_world
    (('right', 'up', 'back'), False)
    """

    axes: tuple[Direction, Direction, Direction]
    camera_to_world: bool
    note: str

    def matrix(self) -> Float[Tensor, "3 3"]:
        """``x_theirs = matrix @ x_opencv``, float64.

        A rotation, or a mirror where the axes are left-handed.
        """
        return torch.tensor([_IN_OPENCV[direction] for direction in self.axes], dtype=torch.float64)


CONVENTIONS: dict[str, Convention] = {
    "opencv": Convention(("right", "down", "forward"), False, "extrinsics [R | t] of cv2.projectPoints"),
    "colmap": Convention(("right", "down", "forward"), False, "cam_from_world of images.txt"),
    "opengl": Convention(("right", "up", "back"), False, "view matrix, world to eye"),
    "nerfstudio": Convention(("right", "up", "back"), True, "transform_matrix of transforms.json"),
    "arkit": Convention(("right", "up", "back"), True, "ARCamera.transform, photo in the sensor's orientation"),
    "unity": Convention(("right", "up", "forward"), True, "Transform of a camera, left-handed"),
    "ros": Convention(("forward", "left", "up"), True, "pose of a body frame (REP 103); optical frames are opencv"),
}
"""By the name that ``Pose.to`` takes."""


def convention_named(name: str) -> Convention:
    """The convention of that name.

    Raises ValueError with the list for an unknown one.

    >>> convention_named("unity").axes
    ('right', 'up', 'forward')
    """
    try:
        return CONVENTIONS[name]
    except KeyError:
        raise ValueError(f"there is no convention {name!r}: one of {', '.join(CONVENTIONS)}") from None
