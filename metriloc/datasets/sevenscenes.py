"""7-Scenes: sequences of ``frame-000000.{color.png,depth.png,pose.txt}``, and the lists of the relative-pose protocol.

Pose files are camera to world. The lists of map-free-reloc hold camera centres in the world and world-to-camera
quaternions; pair files hold the reference-to-query pose. Intrinsics are the published nominal
ones: f = 525 px, centre (320, 240), for colour; f = 585 px for depth, which is not registered to colour.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from metriloc.datasets.matrices import pinhole, read_camera_pose, stack_poses
from metriloc.datasets.sources import DepthFormat, PosedScene
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers, without_comment

SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
SIZE = (640, 480)
COLOR_FOCAL, DEPTH_FOCAL = 525.0, 585.0
CENTER = (320.0, 240.0)
FARTHEST = 20.0
"""Raw depth maps hold 65535 where nothing was measured; no Kinect measures beyond this, metres."""
_HEADER_LINES = 3


def nominal_camera(focal: float = COLOR_FOCAL) -> Camera:
    """The camera of every 7-Scenes photo, float64."""
    return pinhole(SIZE, (focal, focal, *CENTER))


def read_sevenscenes(folder: str | os.PathLike[str], split: str | None = None) -> PosedScene:
    """A scene with its sequences, or one sequence folder.

    Sequences (``seq-01``...) come in order of their names. split: "train" or "test", as
    ``TrainSplit.txt`` and ``TestSplit.txt`` list the sequences; None for all. Raises InputError
    when there are no frames, for a malformed pose or split file, and a listed sequence that is
    absent.
    """
    folder = Path(folder)
    if split not in (None, "train", "test"):
        raise ValueError(f"split must be 'train', 'test' or None, got {split!r}")
    if split is not None:
        listed = folder / f"{split.capitalize()}Split.txt"
        sequences = parse_split(read_text(listed), str(listed))
    else:
        sequences = sorted(path.name for path in folder.glob("seq-*") if path.is_dir()) or ["."]
    names: list[str] = []
    for sequence in sequences:
        found = sorted((folder / sequence).glob("frame-*.color.png"))
        if not found:
            raise InputError(f"'{folder / sequence}' holds no frame-000000.color.png")
        names += [path.relative_to(folder).as_posix() for path in found]
    stems = [folder / name[: -len(".color.png")] for name in names]
    depths = [stem.with_name(f"{stem.name}.depth.png") for stem in stems]
    return PosedScene(
        name=folder.resolve().name,
        folder=folder,
        names=tuple(names),
        cameras=(nominal_camera(),) * len(names),
        cam_from_world=stack_poses([read_camera_pose(stem.with_name(f"{stem.name}.pose.txt")) for stem in stems]),
        depths=tuple(depth if depth.is_file() else None for depth in depths),
        depth_format=DepthFormat(limit=FARTHEST, camera=nominal_camera(DEPTH_FOCAL)),
        intrinsics_source="7-Scenes' nominal calibration",
    )


def parse_split(text: str, file: str = "TrainSplit.txt") -> list[str]:
    """Sequence folders of lines ``sequence1``: ``seq-01``. Raises InputError ``file:line`` for other lines."""
    names = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        found = re.fullmatch(r"sequence\s*(\d{1,3})", line.strip())
        if found is None:
            raise InputError(f"{file}:{number}: {line.strip()[:60]!r} is not of the form 'sequence1'")
        names.append(f"seq-{int(found[1]):02d}")
    return names


# -- relative-pose protocol -------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class RetrievedPair:
    """One line of a pair file. similarity: of the retrieval; query_from_reference: the true pose, float64."""

    reference: str
    query: str
    similarity: float
    query_from_reference: Pose


def parse_absolute_list(text: str, file: str = "dataset_test.txt") -> dict[str, Pose]:
    """Image -> ``cam_from_world`` of ``dataset_{train,test}.txt``.

    Three header lines, then ``image x y z w p q r``, the camera centre and a world-to-camera
    quaternion.

    Raises InputError ``file:line`` for a malformed line, a zero quaternion or an image that comes twice.
    """
    found: dict[str, Pose] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if number <= _HEADER_LINES or not line.strip():
            continue
        place, fields = f"{file}:{number}", line.split()
        if len(fields) != 8:
            raise InputError(f"{place}: {len(fields)} fields instead of 8, 'image x y z w p q r'")
        if fields[0] in found:
            raise InputError(f"{place}: {fields[0]!r} is listed already")
        numbers = torch.tensor(parse_numbers(fields[1:], place), dtype=torch.float64)
        rotation = _rotation(numbers[3:], place)
        found[fields[0]] = Pose(rotation, -(rotation @ numbers[:3]))
    return found


def parse_relative_list(text: str, file: str = "test_pairs.txt") -> list[RetrievedPair]:
    """Lines ``reference query similarity w p q r x y z`` and nine numbers of an essential matrix, which are not used.

    Raises InputError ``file:line`` for a malformed line or a zero quaternion.
    """
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        place, fields = f"{file}:{number}", without_comment(line).split()
        if not fields:
            continue
        if len(fields) not in (10, 19):
            raise InputError(
                f"{place}: {len(fields)} fields instead of 10 or 19, 'reference query similarity w p q r x y z'"
            )
        numbers = torch.tensor(parse_numbers(fields[2:], place), dtype=torch.float64)
        pose = Pose(_rotation(numbers[1:5], place), numbers[5:8])
        pairs.append(RetrievedPair(fields[0], fields[1], float(numbers[0]), pose))
    return pairs


def _rotation(quaternion: torch.Tensor, place: str) -> torch.Tensor:
    if not float(quaternion.norm()) > 1e-8:
        raise InputError(f"{place}: the quaternion is zero")
    return Pose.from_quaternion(quaternion, torch.zeros(3, dtype=torch.float64)).R
