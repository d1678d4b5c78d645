"""Synthetic pairs kept on disk: a scene costs a second to build, its pictures a few milliseconds to read again.

One ``scene_<seed>.npz`` holds all pairs of a scene (photos as bytes, depths in half precision, cameras and poses in
double), so a file that was read is what would be rendered up to that rounding. Files are made when they are first asked
for, by whichever process asks, and are safe to make by several at once.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from metriloc.datasets.overlap_table import read_arrays
from metriloc.datasets.synthetic.config import SyntheticConfig
from metriloc.datasets.synthetic.pairs import SyntheticPairs
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.types import Pair, View

SOURCE = "exact: a rendered camera"


class CachedSyntheticPairs(Dataset[Pair]):
    """As ``SyntheticPairs``, with the pairs of every scene kept in ``folder``.

    ``data[i]`` is pair i, ``data[i, seed]`` is augmented by ``seed`` alone. Pinhole pairs of one size each.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        num_scenes: int,
        pairs_per_scene: int,
        config: SyntheticConfig | None = None,
        *,
        first_seed: int = 0,
        augment: Callable[[Pair, torch.Generator], Pair] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.source = SyntheticPairs(num_scenes, pairs_per_scene, config, first_seed=first_seed, keep=1)
        self.augment = augment
        self.lengths = self.source.lengths

    def __len__(self) -> int:
        return len(self.source)

    def path(self, seed: int) -> Path:
        """The file of a scene."""
        return self.folder / f"scene_{seed:06d}.npz"

    def prepare(self, seed: int) -> Path:
        """Render a scene's pairs unless its file is there; returns the file.

        Raises InputError for a file that was made with other settings, or is damaged.
        """
        path = self.path(seed)
        settings = self._settings()
        if path.is_file():
            if (found := str(_read(path, "settings")[0])) != settings:
                raise InputError(f"'{path}' was made with other settings ({found}): use another folder, or delete it")
            return path
        first = (seed - self.source.first_seed) * self.source.pairs_per_scene
        arrays: dict[str, np.ndarray] = {"settings": np.array(settings)}
        for place in range(self.source.pairs_per_scene):
            arrays |= {f"{name}_{place}": value for name, value in _packed(self.source[first + place]).items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _settings(self) -> str:
        values = {**asdict(self.source.config), "pairs_per_scene": self.source.pairs_per_scene}
        return ", ".join(f"{key}={value}" for key, value in values.items())

    def __getitem__(self, index: int | tuple[int, int]) -> Pair:
        index, augmentation = index if isinstance(index, tuple) else (index, None)
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        scene, place = divmod(index, self.source.pairs_per_scene)
        path = self.prepare(self.source.first_seed + scene)
        pair = _unpacked(dict(zip(_FIELDS, _read(path, *(f"{name}_{place}" for name in _FIELDS)), strict=True)))
        if self.augment is None or augmentation is None:
            return pair
        return self.augment(pair, torch.Generator().manual_seed(augmentation))


_FIELDS = ("image0", "image1", "depth0", "depth1", "camera0", "camera1", "pose0", "pose1", "names")


def _packed(pair: Pair) -> dict[str, np.ndarray]:
    """A pair as arrays. camera: (w, h, fx, fy, cx, cy); pose: of the camera in the world, [3, 4]."""
    arrays: dict[str, np.ndarray] = {"names": np.array([pair.view0.name, pair.view1.name])}
    for side, view in enumerate((pair.view0, pair.view1)):
        if view.depth is None or view.cam_from_world is None:
            raise ValueError(f"a synthetic pair needs depth and poses, {view.name!r} has not both")
        camera, pose = view.camera, view.cam_from_world
        arrays[f"image{side}"] = (view.image * 255).round().to(torch.uint8).numpy()
        arrays[f"depth{side}"] = view.depth.half().numpy()
        arrays[f"camera{side}"] = torch.cat([camera.size, camera.f, camera.c]).double().numpy()
        arrays[f"pose{side}"] = torch.cat([pose.R, pose.t[:, None]], 1).double().numpy()
    return arrays


def _unpacked(arrays: dict[str, np.ndarray]) -> Pair:
    views, poses = [], []
    for side in (0, 1):
        camera = torch.from_numpy(arrays[f"camera{side}"]).float()
        pose = torch.from_numpy(arrays[f"pose{side}"])
        image = torch.from_numpy(arrays[f"image{side}"]).float() / 255
        depth = torch.from_numpy(arrays[f"depth{side}"].astype(np.float32))
        placed = Pose(pose[:, :3], pose[:, 3])
        poses.append(placed)
        name = str(arrays["names"][side])
        views.append(View(image, Camera(camera[:2], camera[2:4], camera[4:]), placed, name, SOURCE, depth))
    return Pair(views[0], views[1], (poses[1] @ poses[0].inverse()).to(torch.float32))


def _read(path: Path, *names: str) -> list[np.ndarray]:
    try:
        found = read_arrays(path, names)
        return [found[name] for name in names]
    except (KeyError, InputError) as error:
        raise InputError(f"'{path}' cannot be read: {error}; delete it to have it made again") from error
