"""Where an anchor is in the world of the device that took photos: what ARKit and the like know of their cameras, joined
with what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from metriloc.geometry import Pose
from metriloc.geometry.conventions import convention_named
from metriloc.io import InputError, pose_from_dict
from metriloc.io.files import parse_json

MAX_TEXT = 65536
"""Of the field of device poses, characters."""


@dataclass(frozen=True)
class DevicePoses:
    """convention: of ``Pose.to``. matrices: 16 numbers a photo, row by row, as the device has them."""

    convention: str
    matrices: tuple[tuple[float, ...], ...]

    def pose(self, number: int) -> Pose:
        """``cam_from_device`` of a photo, OpenCV axes, float64."""
        matrix = torch.tensor(self.matrices[number], dtype=torch.float64).reshape(4, 4)
        theirs = Pose.from_Rt(matrix[:3, :3], matrix[:3, 3])
        return Pose.from_convention(theirs, self.convention)


def parse_device_poses(text: str, convention: str, photos: int) -> DevicePoses:
    """From a JSON list of matrices, one a photo. Raises InputError for anything else."""
    try:
        convention_named(convention)
    except ValueError as error:
        raise InputError(f"device_convention: {error}") from None
    if len(text) > MAX_TEXT:
        raise InputError(f"device_poses has {len(text)} characters, at most {MAX_TEXT}")
    listed = parse_json(text, "device_poses")
    wanted = f"device_poses is a JSON list of 16 numbers for each of the {photos} photos, row by row"
    if not isinstance(listed, list) or len(listed) != photos:
        raise InputError(f"{wanted}, got {text[:80]!r}")
    matrices = []
    for entry in listed:
        numbers = _flat(entry)
        if len(numbers) != 16 or not all(type(n) in (int, float) and abs(n) < 1e9 for n in numbers):
            raise InputError(f"{wanted}, got {str(entry)[:80]}")
        matrices.append(tuple(float(n) for n in numbers))
    found = DevicePoses(convention, tuple(matrices))
    for number in range(photos):
        try:
            found.pose(number)
        except ValueError as error:
            raise InputError(f"device_poses, number {number + 1}: {error}") from None
    return found


def _flat(entry: Any) -> list[Any]:
    if not isinstance(entry, list):
        return []
    return [number for row in entry for number in (row if isinstance(row, list) else [row])]


def with_anchor_in_device(entries: Sequence[dict[str, Any]], devices: DevicePoses) -> None:
    """Tell entries of queries, as ``relpose --json`` has them, where the anchor's camera is for the device: as the device
    tells of its own camera, in metres; null where no pose in metres was found."""
    for number, entry in enumerate(entries):
        entry["anchor_in_device"] = None
        if entry["success"] and entry.get("metric", False):
            query_from_reference = pose_from_dict(entry["query_from_reference"])
            reference_from_device = query_from_reference.inverse() @ devices.pose(number)
            matrix = reference_from_device.to(devices.convention).matrix()
            entry["anchor_in_device"] = {"convention": devices.convention, "matrix": matrix.tolist()}
