"""Which way is up in a map that nobody turned: from how its photos were held."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose

_LEVEL = 0.5
"""How much smaller than the next one the share of the x axes along up must be, to be believed."""


def upright_from_world(cam_from_world: Pose, down: Float[Tensor, "3"] | None = None) -> Pose:
    """Axes in which y is down and z forward. y is as it was for most of the photos, z where they look on the whole;
    they start in their middle.

    People hold cameras level: across all photos their x axes have the least share along up, also where they look down. Of
    few photos, or of photos that all look one way, up is the mean of theirs. Poses: batch shape (N,), float64; the identity
    for none. down: where that is known.
    """
    if not cam_from_world.shape[0]:
        return Pose.identity(dtype=torch.float64)
    forward = cam_from_world.R[:, 2]
    y = _down(cam_from_world) if down is None else down
    look = forward.mean(0)
    z = _unit(look - (look @ y) * y, forward[0] - (forward[0] @ y) * y)
    R = torch.stack([torch.linalg.cross(y, z), y, z])
    return Pose(R, -R @ cam_from_world.center().median(0).values)


def _down(cam_from_world: Pose) -> Float[Tensor, "3"]:
    right, down = cam_from_world.R[:, 0], cam_from_world.R[:, 1]  # the axes of the cameras in the world
    mean = down.mean(0)
    shares, axes = torch.linalg.eigh(right.mT @ right / len(right))
    level = axes[:, 0] * torch.sign(axes[:, 0] @ mean)
    known = shares[0] < _LEVEL * shares[1] and shares[1] > 0.02 and abs(float(level @ mean)) > 0.3
    return _unit(level if known else mean, down[0])


def _unit(vector: Float[Tensor, "3"], other: Float[Tensor, "3"]) -> Float[Tensor, "3"]:
    """The direction of a vector; of another one where it has none, and any where neither has."""
    for one in (vector, other):
        if float(one.norm()) > 1e-6:
            return one / one.norm()
    return torch.tensor([0.0, 0.0, 1.0], dtype=vector.dtype)
