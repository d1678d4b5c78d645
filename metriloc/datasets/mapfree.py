"""Map-free relocalisation folders: ``<split>/sNNNNN/{intrinsics,poses}.txt, seq0/, seq1/``, and any folder of that form.

Evaluation pairs are the reference ``seq0/frame_00000.jpg`` with every fifth query *by position in poses.txt* (frame
numbers have gaps), multi-frame blocks the positions 9, 19, 29 ... with the eight before each, training pairs the rows
of ``overlaps.npz`` strictly between two limits, or uniform draws from the poses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from metriloc.datasets.matrices import stack_poses
from metriloc.datasets.overlap_table import OVERLAPS_FILE, overlapping_pairs, read_arrays
from metriloc.datasets.sources import FramePair, PairList, PosedFrame, PosedScene
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, parse_intrinsics, read_mapfree_poses, read_text

SPLITS = ("train", "val", "test")
REFERENCE = "seq0/frame_00000.jpg"
MAPFREE_STEP = 5
BLOCK = 9
BLOCK_STEP = 10


@dataclass(frozen=True, eq=False)
class FrameBlock:
    """A reference and nine consecutive queries. The last one is scored (multi-frame track).

    cam_from_last: the phone's own tracking of the nine, relative to the last of them, batch (9,), NaN where it is
    missing; None without a ``poses_device.txt``. overlap: of the reference and the last query, NaN when unknown.
    """

    reference: PosedFrame
    queries: tuple[PosedFrame, ...]
    cam_from_last: Pose | None = None
    overlap: float = float("nan")

    @property
    def pair(self) -> FramePair:
        """The reference and the query that is scored."""
        return FramePair(self.reference, self.queries[-1], self.overlap)


@dataclass(frozen=True, eq=False)
class MapfreeScene:
    """One scene folder. posed: its photos in the order of ``poses.txt``; poses that are withheld are NaN there."""

    posed: PosedScene

    @property
    def name(self) -> str:
        """Name of the folder, ``s00460``."""
        return self.posed.name

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self.posed.folder

    def __len__(self) -> int:
        return len(self.posed)

    def queries(self) -> list[int]:
        """Positions of the photos that are not of ``seq0``.

        They are those in ``posed``, in file order.
        """
        return [index for index, name in enumerate(self.posed.names) if not name.startswith("seq0/")]

    def evaluation_pairs(self, step: int = MAPFREE_STEP, overlaps: bool = False) -> list[FramePair]:
        """The reference with every ``step``-th query by position.

        None for a scene that has no ``seq1``. step: 5 for Map-free, 1 for sets of which every line
        counts. The relative pose is None where it is withheld. overlaps: look up in
        ``overlaps.npz`` how much each pair shares, 0 for one that it does not list; InputError
        without the file. Else it is NaN.
        """
        if step < 1:
            raise ValueError(f"step must be at least 1, got {step}")
        queries = self.queries()[::step]
        reference = self.posed.index(REFERENCE) if queries else 0
        if not (overlaps and queries):
            return [self.posed.pair(reference, query) for query in queries]
        known = self.training_pairs(-1.0, 2.0)
        mine = known.index0 == reference
        shared = dict(zip(known.index1[mine].tolist(), known.overlap[mine].tolist(), strict=True))
        return [self.posed.pair(reference, query, float(shared.get(query, 0.0))) for query in queries]

    def evaluation_blocks(self) -> list[FrameBlock]:
        """The multi-frame track: queries at positions 9, 19, 29 ... with the eight before; no incomplete block."""
        queries = self.queries()
        device = read_device_poses(self.folder)
        blocks = []
        for last in range(BLOCK_STEP - 1, len(queries), BLOCK_STEP):
            frames = tuple(self.posed.frame(i) for i in queries[last - BLOCK + 1 : last + 1])
            tracked = None if device is None else _tracked(device, frames)
            blocks.append(FrameBlock(self.posed.frame(self.posed.index(REFERENCE)), frames, tracked))
        return blocks

    def correspondences(self, name: str) -> list[np.ndarray]:
        """Stored matches ``correspondences_<name>.npz``.

        For each query, in file order, x0 y0 x1 y1 [M, 4] in pixels of the stored photos. Raises
        InputError when the file is missing, malformed, or of another number of queries.
        """
        path = self.folder / f"correspondences_{name}.npz"
        table = read_arrays(path, ("correspondences",)).get("correspondences")
        if table is None or table.ndim != 3 or table.shape[2] != 4 or table.dtype.kind != "f":
            raise InputError(f"'{path}' has no numbers 'correspondences' [queries, matches, 4]")
        if len(table) != len(self.queries()):
            raise InputError(f"'{path}' has {len(table)} rows for {len(self.queries())} queries")
        return [row[np.isfinite(row).all(-1)] for row in table]

    def training_pairs(self, low: float = 0.0, high: float = 1.0) -> PairList:
        """The rows of ``overlaps.npz`` with ``low < overlap < high``.

        Both are strict; in file order. Published limits: 0.4-0.8 for MicKey with overlaps, 0-1 for
        its curriculum, 0.2-0.7 for the benchmark's models. Raises InputError without that file, and
        for one that names photos that ``poses.txt`` does not.
        """
        return overlapping_pairs(self.posed, self.folder / OVERLAPS_FILE, low, high)

    def training_blocks(self, low: float = 0.0, high: float = 1.0) -> list[FrameBlock]:
        """The training pairs with the eight photos before each query.

        They come in its own sequence. Left out: queries with fewer than eight photos before them,
        and blocks that contain the reference.
        """
        pairs = self.training_pairs(low, high)
        sequences: dict[str, list[int]] = {}
        for index, name in enumerate(self.posed.names):
            sequences.setdefault(name.split("/")[0], []).append(index)
        before = {index: seq[at - BLOCK + 1 : at + 1] for seq in sequences.values() for at, index in enumerate(seq)}
        found = []
        for row, (reference, query) in enumerate(zip(pairs.index0.tolist(), pairs.index1.tolist(), strict=True)):
            block = before[query]
            if len(block) == BLOCK and reference not in block:
                frames = tuple(self.posed.frame(i) for i in block)
                found.append(FrameBlock(self.posed.frame(reference), frames, overlap=float(pairs.overlap[row])))
        return found

    def uniform_pairs(self, count: int, generator: torch.Generator) -> PairList:
        """``count`` ordered pairs of different photos with known poses, drawn uniformly.

        Training without any overlap information (MicKey paper, Sec. 3.1.4).
        """
        return uniform_pairs(self.posed, count, generator)


def uniform_pairs(scene: PosedScene, count: int, generator: torch.Generator) -> PairList:
    """``count`` ordered pairs of different photos with known poses.

    - scene, count: whose photos, and how many pairs.
    - generator: they are drawn uniformly and with replacement.

    Raises InputError when fewer than two photos have a pose.
    """
    usable = scene.cam_from_world.is_finite().nonzero().squeeze(-1).numpy()
    if len(usable) < 2:
        raise InputError(f"'{scene.folder}' has {len(usable)} photos with a pose; a pair needs two")
    first = torch.randint(len(usable), (count,), generator=generator).numpy()
    shift = torch.randint(1, len(usable), (count,), generator=generator).numpy()
    second = (first + shift) % len(usable)
    return PairList(scene, usable[first], usable[second], np.full(count, np.nan))


def read_mapfree(
    root: str | os.PathLike[str], split: str | None = None, *, depth: str | None = "depth"
) -> list[MapfreeScene]:
    """The scenes below a folder, sorted by name.

    - root: the data set (with ``split`` train, val or test), the folder of the scenes, or one
      scene.
    - depth: suffix of depth maps beside the photos (``frame_00000.<depth>.png``; Map-free's
      estimates are ``dptkitti`` and ``dptnyu``), None for no depth. A scene is a folder with a
      ``poses.txt``.

    Raises InputError when there is none or one is damaged.
    """
    root = Path(root)
    if split is not None and Path(split).name != split:
        raise InputError(f"{split!r} is not the name of a split")
    folder = root if split is None else root / split
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder")
    if (folder / "poses.txt").is_file():
        return [read_mapfree_scene(folder, depth=depth)]
    try:
        scenes = sorted(path for path in folder.iterdir() if (path / "poses.txt").is_file())
    except OSError as error:
        raise InputError(f"'{folder}' cannot be read: {error.strerror or error}") from error
    if not scenes:
        inside = [name for name in SPLITS if (folder / name).is_dir()]
        hint = f"; it has the splits {', '.join(inside)}: name one" if inside else ""
        raise InputError(f"'{folder}' holds no scene (a folder with poses.txt and intrinsics.txt){hint}")
    return [read_mapfree_scene(scene, depth=depth) for scene in scenes]


def read_mapfree_scene(folder: str | os.PathLike[str], *, depth: str | None = "depth") -> MapfreeScene:
    """One scene from its ``intrinsics.txt`` and ``poses.txt``; photos are not looked at.

    Raises InputError, with file and line where there is one, for a malformed file, for a photo without intrinsics or
    with two different ones, and for a name that leaves the folder.
    """
    folder = Path(folder)
    poses = read_mapfree_poses(folder / "poses.txt")
    for name in poses:
        if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
            raise InputError(f"'{folder / 'poses.txt'}' names {name!r}, which is not inside the scene")
    intrinsics_file = folder / "intrinsics.txt"
    cameras = _cameras(intrinsics_file, list(poses))
    scene = PosedScene(
        name=folder.resolve().name,
        folder=folder,
        names=tuple(poses),
        cameras=cameras,
        cam_from_world=stack_poses(list(poses.values())),
        depth_suffix=depth,
        intrinsics_source=str(intrinsics_file),
    )
    return MapfreeScene(scene)


def _cameras(file: Path, names: list[str]) -> Camera:
    """One pinhole camera a name, float64, batch (n,)."""
    entries: dict[str, tuple[float, ...]] = {}
    for entry in parse_intrinsics(read_text(file), str(file)):
        values = (*entry.size, *entry.fxfycxcy)
        if entries.setdefault(entry.name, values) != values:
            raise InputError(f"{file}:{entry.line}: {entry.name!r} has other intrinsics already")
    missing = next((name for name in names if name not in entries), None)
    if missing is not None:
        raise InputError(f"'{file}' has no intrinsics of {missing!r}, which poses.txt lists")
    table = torch.tensor([entries[name] for name in names], dtype=torch.float64).reshape(-1, 6)
    return Camera(table[:, :2], table[:, 2:4], table[:, 4:])


def read_device_poses(folder: Path) -> dict[str, Pose | None] | None:
    """``poses_device.txt`` of a scene, or None without one.

    Each block of nine is relative to its last frame.
    """
    path = folder / "poses_device.txt"
    return read_mapfree_poses(path) if path.is_file() else None


def _tracked(device: dict[str, Pose | None], frames: tuple[PosedFrame, ...]) -> Pose:
    return stack_poses([device.get(frame.name) for frame in frames])
