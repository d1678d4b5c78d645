"""ScanNet: the published list of 1500 test pairs, map-free-reloc's training index, and the folders of the scans.

The list has 38 fields a line and holds poses and intrinsics, so only photos need a download. Pose files of the scans
are camera to world; the list is cam0 to cam1. Rotations, which have five decimals there, are
projected on the rotations.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.datasets.matrices import read_camera_pose, rigid_pose, stack_poses
from metriloc.datasets.overlap_table import read_arrays
from metriloc.datasets.sources import FramePair, PairList, PosedFrame, PosedScene, depth_beside
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_image, read_text
from metriloc.io.files import parse_numbers, without_comment

COLOR_SIZE = (1296, 968)
"""Size of ScanNet's colour images, which the intrinsics of the list belong to."""
EVALUATION_SIZE = (640, 480)
TRAINING_SCORE = 0.4
FIELDS = 38
_SCAN = re.compile(r"scene\d{4}_\d{2}")
_FORM = "'name0 name1 turns0 turns1 K0(9) K1(9) T_0to1(16)'"


@dataclass(frozen=True, eq=False)
class ScannetPair:
    """One line of the list. turns: quarter turns the photo needs to be upright (all 0 in the published list);
    K: float64, pixels of the 1296x968 photo; cam1_from_cam0: float64, metres."""

    name0: str
    name1: str
    turns0: int
    turns1: int
    K0: Float[Tensor, "3 3"]
    K1: Float[Tensor, "3 3"]
    cam1_from_cam0: Pose

    @property
    def scene(self) -> str:
        """The scan, ``scene0707_00``. The folder of the first photo when its path names none."""
        found = _SCAN.search(self.name0)
        return found[0] if found else self.name0.rsplit("/", 1)[0]


def parse_scannet_pairs(text: str, file: str = "pairs") -> list[ScannetPair]:
    """The lines of a SuperGlue pair list with ground truth, in file order.

    Raises InputError ``file:line`` for another number of fields, numbers that are not finite, turns that are not
    0 to 3, a K without the form of a calibration matrix, and a T that is no rigid motion.
    """
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        fields = without_comment(line).split()
        if not fields:
            continue
        place = f"{file}:{number}"
        if len(fields) != FIELDS:
            raise InputError(f"{place}: {len(fields)} fields instead of {FIELDS}, {_FORM}")
        values = torch.tensor(parse_numbers(fields[2:], place), dtype=torch.float64)
        turns = values[:2].tolist()
        if any(turn not in (0.0, 1.0, 2.0, 3.0) for turn in turns):
            raise InputError(f"{place}: quarter turns must be 0 to 3, got {' '.join(fields[2:4])}")
        K0, K1 = (_calibration(values[a : a + 9].reshape(3, 3), place) for a in (2, 11))
        pose = rigid_pose(values[20:].reshape(4, 4), place)
        if pose is None:
            raise InputError(f"{place}: the pose is not finite")
        pairs.append(ScannetPair(fields[0], fields[1], int(turns[0]), int(turns[1]), K0, K1, pose))
    return pairs


def _calibration(K: Tensor, place: str) -> Tensor:
    zeros = torch.stack([K[0, 1], K[1, 0], K[2, 0], K[2, 1]])
    if not (K[0, 0] > 0 and K[1, 1] > 0 and float(K[2, 2]) == 1 and not zeros.any()):
        raise InputError(f"{place}: {K.tolist()} is not a calibration matrix without skew")
    return K


def read_scannet_pairs(
    path: str | os.PathLike[str], root: str | os.PathLike[str], *, size: tuple[int, int] = COLOR_SIZE
) -> list[FramePair]:
    """The test pairs with the photos below a folder.

    They come pair by pair, and the first camera is the world. Depth maps (millimetres) are used as if registered to the
    photos, as published. Load them with ``EVALUATION_SIZE``, as the published results did.

    - path: the published list.
    - root: folder of the photos.
    - size: of the photos that K belongs to.

    Raises InputError for a malformed list and for turned photos, which the published list does not have.
    """
    found = []
    for pair in parse_scannet_pairs(read_text(path), str(path)):
        if pair.turns0 or pair.turns1:
            raise InputError(f"'{path}': {pair.name0} {pair.name1}: turned photos are not supported; turn them first")
        poses = (Pose.identity((), torch.float64), pair.cam1_from_cam0)
        frames = [
            PosedFrame(
                *(pair.scene, name, Path(root) / name, Camera.from_K(K, size), pose, depth_of(Path(root) / name)),
                intrinsics_source=str(path),
            )
            for name, K, pose in zip((pair.name0, pair.name1), (pair.K0, pair.K1), poses, strict=True)
        ]
        found.append(FramePair(frames[0], frames[1]))
    return found


def depth_of(photo: Path) -> Path | None:
    """The sensor's depth map of a photo.

    ``frame-000000.depth.pgm`` beside ``frame-000000.color.jpg``, or ``depth/0.png`` for
    ``color/0.jpg``, as the two published readers of the scans write them; None where it is not
    there.
    """
    beside = depth_beside(photo, "depth")
    if beside is not None or photo.parent.name != "color":
        return beside
    other = photo.parent.with_name("depth") / f"{photo.stem}.png"
    return other if other.is_file() else None


# -- training index ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class ScannetIndex:
    """Pairs of one or more scans. rows: scene, scan, frame0, frame1 [N, 4] int64; score: overlap [N]."""

    rows: np.ndarray
    score: np.ndarray

    def scans(self) -> list[str]:
        """Names of the scans, sorted."""
        return [f"scene{scene:04d}_{scan:02d}" for scene, scan in np.unique(self.rows[:, :2], axis=0).tolist()]


def read_scannet_index(folder: str | os.PathLike[str], min_score: float | None = TRAINING_SCORE) -> ScannetIndex:
    """All ``.npz`` files of a folder of map-free-reloc's ``scene_data``.

    They come in the order of their names. min_score: keep rows with a greater score, as published
    for training; None keeps all (validation and test). Raises InputError when there is no such file
    or one is malformed.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.npz")) if folder.is_dir() else []
    if not files:
        raise InputError(f"'{folder}' is not a folder with .npz files of pairs")
    parts = [_read_index_file(file) for file in files]
    rows, score = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    keep = np.ones(len(rows), dtype=bool) if min_score is None else score > min_score
    return ScannetIndex(rows[keep], score[keep])


def _read_index_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = read_arrays(path, ("name", "score"))
    if "name" not in arrays:
        raise InputError(f"'{path}' is no index of pairs: it has no array 'name'")
    rows = arrays["name"]
    score = arrays.get("score", np.full(len(rows) if rows.ndim else 0, np.nan))
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iu":
        raise InputError(f"'{path}': name must be whole numbers [N, 4], got {rows.dtype} {list(rows.shape)}")
    if score.shape != rows.shape[:1] or score.dtype.kind != "f":
        raise InputError(f"'{path}': score must be [N] for {len(rows)} rows, got {score.dtype} {list(score.shape)}")
    if rows.size and (rows.min() < 0 or rows.max() > 9_999_999):
        raise InputError(f"'{path}': name has numbers outside 0 to 9999999")
    return rows.astype(np.int64), score.astype(np.float64)


def scannet_training_pairs(root: str | os.PathLike[str], index: ScannetIndex) -> list[PairList]:
    """The indexed pairs, one list a scan.

    The scans are in ``root/<scan>``; pairs without a pose are left out.
    """
    lists = []
    for scene, scan in np.unique(index.rows[:, :2], axis=0).tolist():
        mine = (index.rows[:, 0] == scene) & (index.rows[:, 1] == scan)
        frames, score = index.rows[mine, 2:], index.score[mine]
        numbers, inverse = np.unique(frames, return_inverse=True)
        posed = read_scannet_scan(Path(root) / f"scene{scene:04d}_{scan:02d}", numbers.tolist())
        at = inverse.reshape(-1, 2)
        known = posed.cam_from_world.is_finite().numpy()[at].all(-1)
        lists.append(PairList(posed, at[known, 0], at[known, 1], score[known]))
    return lists


# -- scans ------------------------------------------------------------------------------------------------------------
def read_scannet_scan(folder: str | os.PathLike[str], frames: Iterable[int] | None = None) -> PosedScene:
    """Photos, poses and depth of a scan's ``sensor_data``. frames: their numbers, all by default.

    Depth (millimetres) is used as if registered to the colour image, as published. A pose that is not finite is
    unknown. Raises InputError for a missing or malformed file.
    """
    folder = Path(folder)
    data = folder / "sensor_data" if (folder / "sensor_data").is_dir() else folder
    numbers = sorted(frames) if frames is not None else _frame_numbers(data)
    if not numbers:
        raise InputError(f"'{data}' holds no frame-000000.pose.txt")
    prefix = f"{data.relative_to(folder).as_posix()}/" if data != folder else ""
    names = tuple(f"{prefix}frame-{number:06d}.color.jpg" for number in numbers)
    depths = [data / f"frame-{number:06d}.depth.pgm" for number in numbers]
    camera = _scan_camera(data / "_info.txt", folder / names[0])
    return PosedScene(
        name=folder.resolve().name,
        folder=folder,
        names=names,
        cameras=(camera,) * len(names),
        cam_from_world=stack_poses([read_camera_pose(data / f"frame-{number:06d}.pose.txt") for number in numbers]),
        depths=tuple(depth if depth.is_file() else None for depth in depths),
        intrinsics_source=str(data / "_info.txt"),
    )


def _frame_numbers(data: Path) -> list[int]:
    found = (re.fullmatch(r"frame-(\d{6})\.pose\.txt", path.name) for path in data.glob("frame-*.pose.txt"))
    return sorted(int(match[1]) for match in found if match is not None)


def _scan_camera(info: Path, photo: Path) -> Camera:
    values: dict[str, tuple[str, Sequence[str]]] = {}
    for number, line in enumerate(read_text(info).split("\n"), 1):
        key, _, rest = line.partition("=")
        values[key.strip()] = (f"{info}:{number}", rest.split())
    if "m_calibrationColorIntrinsic" not in values:
        raise InputError(f"'{info}' has no m_calibrationColorIntrinsic")
    place, fields = values["m_calibrationColorIntrinsic"]
    if len(fields) != 16:
        raise InputError(f"{place}: m_calibrationColorIntrinsic must be 16 numbers, got {len(fields)}")
    matrix = torch.tensor(parse_numbers(list(fields), place), dtype=torch.float64).reshape(4, 4)
    K = _calibration(matrix[:3, :3], place)
    if "m_colorWidth" not in values or "m_colorHeight" not in values:
        return Camera.from_K(K, read_image(photo).size)
    size = []
    for key in ("m_colorWidth", "m_colorHeight"):
        place, fields = values[key]
        (side,) = parse_numbers(list(fields), place) if len(fields) == 1 else (0.0,)
        if side < 1 or side != int(side):
            raise InputError(f"{place}: {key} is not a size in pixels")
        size.append(int(side))
    return Camera.from_K(K, (size[0], size[1]))
