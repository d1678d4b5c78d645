"""From the pixels of a frame and what is known of their camera to a ``View``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from metriloc.geometry import Camera
from metriloc.io import InputError, load_view
from metriloc.io.changed_views import resize_view
from metriloc.io.exif import ExifData
from metriloc.io.images import DEFAULT_MAX_MEGAPIXELS, check_size, decode_image
from metriloc.io.intrinsics import camera_from_K, resolve_intrinsics
from metriloc.io.view import view_of_pixels
from metriloc.types import View


@dataclass(frozen=True)
class CameraOptions:
    """What is known of the camera of a stream."""

    k: tuple[float, float, float, float] | None = None
    """FX FY CX CY of the frames, pixels, first pixel centre at 0, as they are held upright."""
    k_size: tuple[int, int] | None = None
    """WIDTH HEIGHT of the frames that the numbers of --k are for; other sizes of the same aspect are scaled."""
    intrinsics: Path | None = None
    """An intrinsics.txt with the photos of a folder: lines 'image fx fy cx cy width height'."""
    fov: float | None = None
    """Horizontal field of view of the frames in degrees."""
    max_side: int | None = None
    """Longest side in pixels; larger frames are reduced, intrinsics follow."""

    def check(self) -> None:
        """Raises InputError for options that contradict or cannot be."""
        given = [name for name in ("k", "intrinsics", "fov") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"--{given[0]} and --{given[1]} contradict: give one")
        if self.k_size is not None and self.k is None:
            raise InputError(f"--k-size {self.k_size[0]} {self.k_size[1]} says nothing without --k")
        if self.max_side is not None and self.max_side < 16:
            raise InputError(f"--max-side {self.max_side} leaves too few pixels: at least 16")
        if self.k is not None:
            camera_from_K(self.k, self.k_size or (1, 1))

    @property
    def said(self) -> bool:
        """Whether the user tells the camera, which wins over what the stream says."""
        return self.k is not None or self.intrinsics is not None or self.fov is not None


def view_of_file(
    path: Path, name: str, options: CameraOptions, camera: Camera | None = None, source: str = "", upright: bool = True
) -> View:
    """A photo of a folder. camera: what the stream knows of it, told in ``source``; upright: as in ``load_view``."""
    own = None if options.said else camera
    view = load_view(
        path,
        K=None if options.k_size else options.k,
        camera=camera_from_K(options.k, options.k_size) if options.k and options.k_size else own,
        intrinsics=options.intrinsics,
        fov=options.fov,
        max_side=options.max_side,
        upright=upright,
        warn_of_guess=False,
    )
    return _named(view, name, source if own is not None else "")


def view_of_jpeg(
    data: bytes, name: str, options: CameraOptions, camera: Camera | None = None, source: str = ""
) -> View:
    """An encoded photo in memory, as ``view_of_file``."""
    loaded = decode_image(data, name=name)
    return view_of_rgb(loaded.rgb, name, options, camera, source, loaded.exif)


def view_of_rgb(
    rgb: np.ndarray,
    name: str,
    options: CameraOptions,
    camera: Camera | None = None,
    source: str = "",
    exif: ExifData | None = None,
) -> View:
    """Pixels uint8 [H, W, 3], as ``view_of_file``. Raises InputError for more megapixels than are read, and as
    ``resolve_intrinsics`` does."""
    size = (rgb.shape[1], rgb.shape[0])
    check_size(name, size, DEFAULT_MAX_MEGAPIXELS)
    own = None if options.said else camera
    if options.intrinsics is not None:
        raise InputError(
            f"--intrinsics {options.intrinsics} lists photos of a folder, and {name!r} is no file: use --k"
        )
    known = resolve_intrinsics(
        size,
        K=None if options.k_size else options.k,
        camera=camera_from_K(options.k, options.k_size) if options.k and options.k_size else own,
        exif=exif,
        fov_deg=options.fov,
    )
    image = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float().div_(255).contiguous()
    view = view_of_pixels(image, known, name)
    longest = max(size)
    if options.max_side is not None and longest > options.max_side:
        width, height = (max(1, round(side * options.max_side / longest)) for side in size)
        view = resize_view(view, (width, height), antialias=True)
    return _named(view, name, source if own is not None else "")


def _named(view: View, name: str, source: str) -> View:
    told = view.intrinsics_source.replace("camera, as given", source) if source else view.intrinsics_source
    return dataclasses.replace(view, name=name, camera=view.camera.to(torch.float32), intrinsics_source=told)
