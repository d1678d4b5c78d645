"""Where photos were taken, from a text file: positions, or whole poses as ``poses.txt`` has them.

| line | meaning |
|---|---|
| ``name x y z`` | the camera's center, metres |
| ``name x y z sigma`` | and the standard deviation of each coordinate, metres |
| ``name qw qx qy qz tx ty tz`` | Map-free's: world to camera, of which the center is used |
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from metriloc.io.files import InputError, parse_numbers, read_text, without_comment
from metriloc.io.poses import parse_mapfree_poses

_POSE_FIELDS = 8


def read_positions(path: str | os.PathLike[str], sigma: float) -> dict[str, tuple[Tensor, float]]:
    """Name -> (center [3], float64, metres; standard deviation). sigma: where a line states none.

    Raises InputError, with file and line, for a line of another form, a name that comes twice and a sigma that is not
    positive.
    """
    text = read_text(path)
    lines = [(n, without_comment(line).split()) for n, line in enumerate(text.split("\n"), 1)]
    lines = [(n, fields) for n, fields in lines if fields]
    if lines and all(len(fields) == _POSE_FIELDS for _, fields in lines):
        poses = parse_mapfree_poses(text, str(path))
        return {name: (pose.center(), sigma) for name, pose in poses.items() if pose is not None}
    found: dict[str, tuple[Tensor, float]] = {}
    for number, fields in lines:
        place = f"{path}:{number}"
        if len(fields) not in (4, 5):
            raise InputError(f"{place}: {len(fields)} fields; lines are 'name x y z', 'name x y z sigma' or poses")
        if fields[0] in found:
            raise InputError(f"{place}: {fields[0]!r} has a position already")
        values = parse_numbers(fields[1:], place)
        if len(values) == 4 and values[3] <= 0:
            raise InputError(f"{place}: the standard deviation {fields[4]} must be positive")
        own = values[3] if len(values) == 4 else sigma
        found[fields[0]] = (torch.tensor(values[:3], dtype=torch.float64), own)
    if not found:
        raise InputError(f"'{path}' holds no positions")
    return found
