"""COLMAP models onto the disk, whole: COLMAP's own writer does not notice that a disk is full."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_model(model: Any, folder: Path, *, text: bool = False) -> None:
    """A ``pycolmap.Reconstruction`` into a folder, read once more. Raises OSError where it did not arrive whole."""
    import pycolmap

    again = pycolmap.Reconstruction()
    try:
        if text:
            model.write_text(str(folder))
            again.read_text(str(folder))
        else:
            model.write_binary(str(folder))
            again.read_binary(str(folder))
        whole = _counts(again) == _counts(model) and all(_ends(file) for file in folder.glob("*.txt"))
    except (RuntimeError, ValueError, IndexError):
        whole = False
    if not whole:
        raise OSError(f"the model in '{folder}' did not arrive whole (is the disk full?)")


def _counts(model: Any) -> tuple[int, ...]:
    counts = (model.num_cameras(), model.num_images(), model.num_reg_images(), model.num_points3D())
    return (*counts, model.compute_num_observations())


def _ends(file: Path) -> bool:
    """Whether a text ends with a line."""
    with open(file, "rb") as lines:
        return lines.seek(0, 2) > 0 and lines.seek(-1, 2) >= 0 and lines.read(1) == b"\n"
