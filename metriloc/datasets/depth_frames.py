"""Photos with true depth, of any form: to compare predicted depth with.

| found in the folder | true depth |
|---|---|
| a scene of posed photos, or folders of them (Map-free form, ScanNet scan, 7-Scenes, TUM, RGB-D) | as that form has it |
| ``rgb/`` and ``depth/``, with or without poses (NYUv2-like) | the file of the same name |
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from metriloc.datasets.depth_photos import load_rgbd, rgbd_files
from metriloc.datasets.posed import is_scene, read_posed_scenes
from metriloc.datasets.scannet import read_scannet_pairs
from metriloc.datasets.sources import DepthFormat, PosedFrame, depth_beside
from metriloc.io import InputError, check_depth_covers, read_depth
from metriloc.types import View


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """A photo with true depth on disk. load: reads both; path: of the photo."""

    name: str
    path: Path
    load: Callable[[], View]

    def estimate(self, suffix: str, size: tuple[int, int]) -> Float[Tensor, "h w"] | None:
        """An estimated depth map of the data set, ``frame.SUFFIX.png``, metres.

        None where the photo has none. size: (width, height) of the photo. Raises InputError for a
        file that cannot be used.
        """
        file = depth_beside(self.path, suffix)
        if file is None:
            return None
        depth = read_depth(file, doubt=False)
        check_depth_covers(depth, size, file)
        return depth


def read_depth_frames(
    root: str | os.PathLike[str], *, scans: str | os.PathLike[str] | None = None, depth: str | None = None
) -> list[DepthFrame]:
    """The photos below ``root`` that have a true depth map, in the order of their folders.

    scans: ``root`` is ScanNet's list of pairs, and the photos are below ``scans``. depth: suffix of the true maps beside
    the photos, ``frame.SUFFIX.png``, where it is not the form's own. Raises InputError when there is none.
    """
    if scans is not None:
        listed = [frame for pair in read_scannet_pairs(root, scans) for frame in (pair.frame0, pair.frame1)]
        frames = list({frame.path: frame for frame in listed}.values())
    else:
        loose = (Path(root) / "rgb").is_dir() and not is_scene(Path(root))
        frames = [] if loose else [frame for scene in read_posed_scenes(root) for frame in scene]
    if depth is not None:
        frames = [with_depth_named(frame, depth) for frame in frames]
    found = [
        DepthFrame(f"{frame.scene}/{frame.name}", frame.path, frame.load) for frame in frames if frame.depth is not None
    ]
    if not found and depth is None and scans is None and (Path(root) / "rgb").is_dir():
        return [DepthFrame(f"{Path(root).name}/{p.name}", p, _rgbd(p, d)) for p, d in rgbd_files(Path(root))]
    if not found:
        raise InputError(f"none of the {len(frames)} photos of '{root}' has a depth map to compare with")
    return found


def _rgbd(path: Path, depth: Path) -> Callable[[], View]:
    return lambda: load_rgbd(path, depth)


def with_depth_named(frame: PosedFrame, suffix: str) -> PosedFrame:
    """The photo with the map ``frame.SUFFIX.png`` beside it as its depth, None where there is none."""
    return dataclasses.replace(frame, depth=depth_beside(frame.path, suffix), depth_format=DepthFormat())
