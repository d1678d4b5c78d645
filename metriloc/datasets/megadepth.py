"""MegaDepth as PixLoc was trained on: undistorted reconstructions, photos turned upright, pairs by shared points.

``root/<scene>/`` holds a COLMAP model (there, or in ``sparse``) and ``images/``. Lists of scenes, upright turns, overlaps
and pairs are those of PixLoc's training; poses are up to the unknown scale of each scene. (Li and Snavely, CVPR 2018.)
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.datasets.pixloc_pairs import covisible_pairs
from metriloc.datasets.posed import find_model
from metriloc.datasets.sfm_pairs import RefinerScene, read_stored_pairs, turned_map, write_pairs
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.maps import read_map
from metriloc.types import SfmMap

PAIRS_FILE = "pixloc_pairs.npz"
MIN_SIDE = 480
UPRIGHT_DEG = 60.0
"""Photos that lean less than this stay as they are."""


def _listed(text: str) -> tuple[str, ...]:
    found: list[str] = []
    for part in text.split():
        first, _, last = part.partition("-")
        found += [f"{number:04d}" for number in range(int(first), int(last or first) + 1)]
    return tuple(found)


TRAIN_SCENES = _listed(
    "0000-0005 0007 0008 0011-0013 0015 0017 0019-0027 0032 0035-0037 0039 0042 0043 0046 0048 0050 0056 0057 0060 0061 "
    "0063 0065 0070 0080 0083 0086 0087 0092 0095 0098 0100 0101 0103-0105 0107 0115 0117 0122 0130 0137 0143 0147-0150 "
    "0156 0160 0176 0183 0189 0190 0200 0214 0224 0235 0237 0240 0243 0258 0265 0269 0299 0312 0326 0327 0331 0335 0341 "
    "0348 0366 0377 0380 0394 0407 0411 0430 0446 0455 0472 0474 0476 0478 0493 0494 0496 0505 0559 0733 0860 1017 1589 "
    "4541 5004-5007 5009 5010 5012 5013 5017"
)
VALIDATION_SCENES = _listed(
    "0016 0033 0034 0041 0044 0047 0049 0058 0062 0064 0067 0071 0076 0078 0090 0094 0099 0102 0121 0129 0133 0141 0151 "
    "0162 0168 0175 0177 0178 0181 0185 0186 0197 0204 0205 0209 0212 0217 0223 0229 0231 0238 0252 0257 0271 0275 0277 "
    "0281 0285 0286 0290 0294 0303 0306 0307 0323 0349 0360 0387 0389 0402 0406 0412 0443 0482 0768 1001 3346 5000-5003 "
    "5008 5011 5014-5016 5018"
)


def upright_turns(cam_from_world: Pose) -> Int[Tensor, " n"]:
    """Quarter turns against the clock, 0..3, that bring each photo of a scene upright.

    Down is the median over the photos of their own y axes; a photo is turned by the nearest quarter when its y axis is
    more than 60 degrees from down in the image.
    """
    down = cam_from_world.inverse().R[..., 1].median(0).values
    in_camera = (cam_from_world.R @ down).to(torch.float64)
    angle = torch.atan2(in_camera[..., 0], in_camera[..., 1]) * (180 / math.pi)
    quarters = (-angle / 90).round().long() % 4
    # -90 degrees are turned by 1, +90 by 3; just beyond 60 the nearest quarter may still be none
    nearest = torch.where(quarters == 0, torch.where(angle < 0, 1, 3), quarters)
    return torch.where(angle.abs() > UPRIGHT_DEG, nearest, torch.zeros_like(nearest))


def megadepth_scene(
    folder: str | os.PathLike[str],
    low: float = 0.4,
    high: float = 1.0,
    *,
    min_common: int = 50,
    store: str | os.PathLike[str] | None = None,
) -> RefinerScene:
    """One scene. Its map turned upright, and pairs with ``low < overlap <= high``.

    store: folder for the pairs of all overlaps, which are expensive; made when it has none (None: nothing is kept).
    Photos with a side below 480 pixels make no pairs. Raises InputError when there is no model, no ``images`` folder, or a
    stored file is of other photos.
    """
    folder = Path(folder)
    model = find_model(folder)
    if model is None:
        raise InputError(f"'{folder}' holds no COLMAP model")
    images = next((base / "images" for base in (folder, model, model.parent) if (base / "images").is_dir()), None)
    if images is None:
        raise InputError(f"'{folder}' holds no folder of images")
    scene = read_map(model, images)
    index, overlap = _pairs(scene, min_common, None if store is None else Path(store) / f"{folder.name}_{PAIRS_FILE}")
    return scene_of_map(scene, folder.name, index, overlap, (low, high))


def scene_of_map(
    scene: SfmMap, name: str, index: Int[Tensor, "n 2"], overlap: Float[Tensor, " n"], limits: tuple[float, float]
) -> RefinerScene:
    """A map of any photos as MegaDepth's are used.

    Turned upright, small photos and other overlaps left out.
    """
    turns = upright_turns(scene.cam_from_world) if len(scene) else torch.zeros(0, dtype=torch.long)
    sides = torch.stack([camera.size.min() for camera in scene.cameras]) if len(scene) else torch.zeros(0)
    large = sides >= MIN_SIDE
    kept = (overlap > limits[0]) & (overlap <= limits[1]) & large[index].all(-1)
    return RefinerScene(name, turned_map(scene, turns), index[kept], overlap[kept], turns=turns)


def read_megadepth(
    root: str | os.PathLike[str],
    scenes: Sequence[str] = TRAIN_SCENES,
    low: float = 0.4,
    high: float = 1.0,
    *,
    store: str | os.PathLike[str] | None = None,
) -> tuple[RefinerScene, ...]:
    """The scenes that are there, in the order of the list. Raises InputError when none is."""
    root = Path(root)
    found = [root / name for name in scenes if (root / name).is_dir()]
    if not found:
        raise InputError(f"'{root}' holds none of the {len(scenes)} scenes of MegaDepth that were asked for")
    return tuple(megadepth_scene(folder, low, high, store=store) for folder in found)


def _pairs(scene: SfmMap, min_common: int, path: Path | None) -> tuple[Tensor, Tensor]:
    if path is not None and path.is_file():
        return read_stored_pairs(path, scene.names)
    index, overlap = covisible_pairs(scene, 0.0, 1.0, min_common)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pairs(path, scene.names, index, overlap)
    return index, overlap
