"""What a synthetic scene is made of: materials, patches in arrays, and the objects that were placed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """How a patch looks. texture: index in the atlas; tile: (width, height) in metres of one repetition, None to stretch the
    texture over the patch; tint: factor on its colour; glow: light it gives off, as a factor on its colour."""

    texture: int
    tile: tuple[float, float] | None = (2.0, 2.0)
    tint: Vector = (1.0, 1.0, 1.0)
    glow: float = 0.0

    def tinted(self, r: float, g: float, b: float) -> Material:
        """The same in another colour."""
        return Material(self.texture, self.tile, (self.tint[0] * r, self.tint[1] * g, self.tint[2] * b), self.glow)


@dataclass(frozen=True)
class PlacedObject:
    """A named thing in the scene. center: of its bounding box, world; size: (width, depth, height) along its own axes; yaw:
    radians about the vertical. Metres."""

    name: str
    center: Vector
    size: Vector
    yaw: float


@dataclass(frozen=True, eq=False)
class Mesh:
    """The finished solids as arrays.

    P patches, Q quads, O blockers (boxes turned about the vertical). origin, right, down, normal
    [P,3]; texture [P]; repeats [P,4] (scale and offset of the texture coordinates); tint [P,3];
    glow [P]; owner [P] blocker a patch belongs to, -1 for none; axis, axis_point [P,3] axis of a
    round solid (zeros: flat); quads [Q,4,3]; patch_of [Q]; block_center, block_half [O,3];
    block_yaw [O].
    """

    origin: np.ndarray
    right: np.ndarray
    down: np.ndarray
    normal: np.ndarray
    texture: np.ndarray
    repeats: np.ndarray
    tint: np.ndarray
    glow: np.ndarray
    owner: np.ndarray
    axis: np.ndarray
    axis_point: np.ndarray
    quads: np.ndarray
    patch_of: np.ndarray
    block_center: np.ndarray
    block_half: np.ndarray
    block_yaw: np.ndarray
