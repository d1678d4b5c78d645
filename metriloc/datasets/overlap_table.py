"""``overlaps.npz``: which pairs of a scene's photos share how much, as Map-free has it and as ``write_overlaps`` makes it.

``idxs`` [N, 4] are seqA, frameA, seqB, frameB and ``overlaps`` [N] lie in 0..1. A scene whose photos are not named
``seqS/frame_NNNNN.jpg`` also has ``names``; then the rows are 0, place in ``names``, 0, place in ``names``.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metriloc.datasets.sources import PairList, PosedScene
from metriloc.io import InputError, write_atomically
from metriloc.io.archives import open_zip
from metriloc.io.files import require_file

OVERLAPS_FILE = "overlaps.npz"
MAX_ARCHIVE_BYTES = 512 * 2**20
MAX_ROWS = 10_000_000
"""Of a table of overlaps: all pairs of 4,400 photos."""
_FRAME = re.compile(r"seq(\d{1,6})/frame_(\d{1,9})\.[A-Za-z0-9]+")
_SEQUENCE = 10**9
_NPZ_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    IndexError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RuntimeError,
    AttributeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise on damaged archives."""


def read_arrays(path: str | os.PathLike[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names that an ``.npz`` has; nothing is unpickled.

    Raises InputError for a file that is no such archive, is damaged, or would unpack to more than 512 MiB.
    """
    path = require_file(path)
    try:
        with open_zip(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MAX_ARCHIVE_BYTES:
            raise InputError(f"'{path}' would unpack to {size} bytes; more than {MAX_ARCHIVE_BYTES} are not read")
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in names if name in archive}
    except InputError:
        raise
    except _NPZ_ERRORS as error:
        raise InputError(f"'{path}' is not a usable .npz file: {' '.join(str(error).split())[:150]}") from error
    broken = next((name for name, value in found.items() if not isinstance(value, np.ndarray)), None)
    if broken is not None:
        raise InputError(f"'{path}': {broken} is not an array")
    return found


def read_overlaps(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]:
    """The rows of an overlap file.

    They are (seqA, frameA, seqB, frameB) int64 [N, 4], overlaps [N] in the file's precision, and
    ``names`` or None.

    Raises InputError for a file that is not that: other arrays, shapes or types, numbers out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"'{path}' does not exist: metriloc overlaps makes it from depth or a reconstruction; training can do without, "
            "on uniform pairs"
        )
    arrays = read_arrays(path, ("idxs", "overlaps", "names"))
    if "idxs" not in arrays or "overlaps" not in arrays:
        raise InputError(f"'{path}' has no arrays idxs and overlaps")
    frames, overlap, names = arrays["idxs"], arrays["overlaps"], arrays.get("names")
    if frames.ndim != 2 or frames.shape[1] != 4 or frames.dtype.kind not in "iu":
        raise InputError(f"'{path}': idxs must be whole numbers [N, 4], got {frames.dtype} {list(frames.shape)}")
    if len(frames) > MAX_ROWS:
        raise InputError(f"'{path}' has {len(frames)} pairs; at most {MAX_ROWS} are read")
    if overlap.shape != frames.shape[:1] or overlap.dtype.kind != "f":
        raise InputError(
            f"'{path}': overlaps must be numbers [{len(frames)}], got {overlap.dtype} {list(overlap.shape)}"
        )
    if frames.size and (frames.min() < 0 or frames.max() >= _SEQUENCE):
        raise InputError(f"'{path}': idxs has numbers outside 0 to {_SEQUENCE - 1}")
    if not ((overlap >= 0) & (overlap <= 1)).all():
        raise InputError(f"'{path}': overlaps must be between 0 and 1")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U" or len(names) > MAX_ROWS):
        raise InputError(f"'{path}': names must be text [n], got {names.dtype} {list(names.shape)}")
    return frames.astype(np.int64), overlap, None if names is None else tuple(names.tolist())


def overlapping_pairs(scene: PosedScene, path: str | os.PathLike[str], low: float = 0.0, high: float = 1.0) -> PairList:
    """The pairs of a scene with ``low < overlap < high``. Both are strict; in file order.

    - scene: whose photos the file names.
    - path: ``overlaps.npz``.
    - low, high: 0..1.

    Raises InputError for a file that is missing, malformed, or names photos that the scene does not have.
    """
    if not low < high:
        raise ValueError(f"no overlap is above {low} and below {high}")
    path = Path(path)
    frames, overlap, names = read_overlaps(path)
    index = _rows_to_indices(frames, scene, path, names)
    keep = (overlap > low) & (overlap < high)
    index = index[keep].astype(np.int32)  # hundreds of scenes have millions of pairs
    return PairList(scene, index[:, 0], index[:, 1], overlap[keep])


def save_overlaps(path: str | os.PathLike[str], scene: PosedScene, index: np.ndarray, overlap: np.ndarray) -> None:
    """Write the file whole or not at all. index: places in the scene [N, 2]; overlap: 0..1 [N], kept as float32."""
    keys = _frame_keys(scene)
    arrays: dict[str, np.ndarray] = {}
    if keys is None:
        rows = np.stack([np.zeros_like(index[:, 0]), index[:, 0], np.zeros_like(index[:, 0]), index[:, 1]], -1)
        arrays["names"] = np.array(scene.names)
    else:
        wanted = keys[index]
        rows = np.stack([wanted // _SEQUENCE, wanted % _SEQUENCE], -1).reshape(-1, 4)
    narrow = not rows.size or rows.max() < 2**16
    arrays["idxs"] = rows.astype(np.uint16 if narrow else np.int64)
    arrays["overlaps"] = overlap.astype(np.float32)
    write_atomically(path, npz_bytes(arrays))


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """A compressed ``.npz`` in memory."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type] # numpy's stub confuses keywords and its flag
    return buffer.getvalue()


def _frame_keys(scene: PosedScene) -> np.ndarray | None:
    """One number for sequence and frame of each photo [n], or None when a name is of another form or two are alike."""
    found = [_FRAME.fullmatch(name) for name in scene.names]
    keys = [int(m[1]) * _SEQUENCE + int(m[2]) for m in found if m is not None]
    return np.array(keys, dtype=np.int64) if len(set(keys)) == len(found) else None


def _rows_to_indices(frames: np.ndarray, scene: PosedScene, path: Path, names: tuple[str, ...] | None) -> np.ndarray:
    """(seqA, frameA, seqB, frameB) rows -> places in the scene [N, 2]."""
    keys = _frame_keys(scene)
    if names is not None:
        place = {name: at for at, name in enumerate(scene.names)}
        table = np.array([place.get(name, -1) for name in names], dtype=np.int64)
        wanted = frames[:, 1::2]
        if wanted.size and wanted.max() >= len(names):
            raise InputError(f"'{path}' names photo {wanted.max()} of {len(names)}")
        index = table[wanted] if len(table) else wanted
    elif keys is None:
        raise InputError(f"'{path}' counts frames of sequences, but '{scene.folder}' has no names seqS/frame_N")
    else:
        order = np.argsort(keys, kind="stable")
        wanted = frames[:, 0::2] * _SEQUENCE + frames[:, 1::2]
        at = np.searchsorted(keys[order], wanted)
        inside = at < len(keys)
        index = np.where(inside, order[at.clip(max=len(keys) - 1)], -1) if len(keys) else np.full(at.shape, -1)
        index[inside & (keys[index] != wanted)] = -1
    if (index < 0).any():
        row, side = np.argwhere(index < 0)[0]
        missing = f"frame {frames[row, 2 * side + 1]} of seq{frames[row, 2 * side]}"
        if names is not None:
            missing = repr(names[frames[row, 2 * side + 1]])
        raise InputError(f"'{path}', row {row}: '{scene.folder}' has no {missing}")
    return index
