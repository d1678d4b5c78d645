"""From a photo file to a ``View``: pixels in 0..1, intrinsics with their source, depth.

``K``, ``camera`` and ``intrinsics`` always refer to the upright photo at its *stored* resolution: resizing comes after.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, ColmapCamera
from metriloc.io.arguments import require_kind, require_number, require_path
from metriloc.io.changed_views import checked_size, reduced_view, resize_view
from metriloc.io.depth import check_depth_covers, read_depth
from metriloc.io.files import InputError
from metriloc.io.images import DEFAULT_MAX_MEGAPIXELS, LoadedImage, read_image
from metriloc.io.intrinsics import Intrinsics, resolve_intrinsics
from metriloc.io.undistortion import undistorted_photo
from metriloc.types import View


def load_view(
    path: str | os.PathLike[str],
    *,
    K: Sequence[Any] | Tensor | None = None,
    camera: Camera | None = None,
    intrinsics: str | os.PathLike[str] | None = None,
    fov: float | None = None,
    depth: str | os.PathLike[str] | None = None,
    depth_scale: float | None = None,
    resize: tuple[int, int] | None = None,
    max_side: int | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
    upright: bool = True,
    undistort: ColmapCamera | None = None,
    warn_of_guess: bool = True,
) -> View:
    """Read a photo with what is known of its camera.

    - K, camera, intrinsics, fov: see ``resolve_intrinsics``; without any of them EXIF or a guess is
      used, the guess with a ``UserWarning``.
    - depth: file of a depth map, see ``read_depth``.
    - depth_scale: its units a metre (5000 for TUM), by default 1000 for whole numbers and 1 for
      floating point.
    - resize: (width, height), aspect not kept, bilinear as in MicKey's demo.
    - max_side: reduce larger photos to this longest side, antialiased, aspect kept.
    - upright: turn the photo as its EXIF orientation says; a camera of COLMAP's belongs to the
      pixels as they are stored (False).
    - undistort: the camera that took the stored pixels; the View is an undistorted copy, and
      ``camera`` that of the copy.
    - warn_of_guess: False where a map may tell the focal length yet; ``warn_if_guessed`` gives the
      warning later.

    Raises InputError (a ValueError), one sentence naming file and value, for anything that cannot be used.

    >>> view = metriloc.load_view("reference.jpg", depth="reference.depth.png", max_side=320)
    >>> view.size, view.camera.f.tolist()
    ((320, 240), [260.0, 260.0])
    """
    require_path("path", path)
    _check_given(K=K, camera=camera, intrinsics=intrinsics, fov=fov)
    _check_reading(depth, depth_scale, max_side, max_megapixels)
    require_kind("undistort", undistort, ColmapCamera, "a ColmapCamera")
    require_kind("upright", upright, bool, "True or False")
    if resize is not None and max_side is not None:
        raise InputError(f"resize {resize!r} and max_side {max_side} contradict: give one")
    size = None if resize is None else checked_size(resize)
    loaded = read_image(path, max_megapixels, upright=upright and undistort is None)
    if undistort is None:
        image = pixels_of(loaded.rgb)
        known = resolve_intrinsics(
            loaded.size, path=path, K=K, camera=camera, intrinsics=intrinsics, exif=loaded.exif, fov_deg=fov
        )
    else:
        image, known = _undistorted(loaded, undistort, camera, depth)
    view = view_of_pixels(image, known, str(Path(path)), depth, depth_scale, max_megapixels)
    if warn_of_guess:
        warn_if_guessed(view, stacklevel=3)
    return reduced_view(view, max_side) if size is None else resize_view(view, size)


def _undistorted(
    loaded: LoadedImage, taken_by: ColmapCamera, camera: Camera | None, depth: object
) -> tuple[Float[Tensor, "3 H W"], Intrinsics]:
    """The copy that ``camera`` would have taken of the stored pixels, and its intrinsics."""
    if camera is None or depth is not None:
        raise ValueError("undistort needs the camera of the undistorted copy, and knows of no depth map")
    image, copied = undistorted_photo(pixels_of(loaded.rgb), taken_by, camera)
    return image, Intrinsics(copied, f"camera, as given, of an undistorted copy ({taken_by.model})")


def _check_given(**given: Any) -> None:
    """Raises InputError for intrinsics of a wrong kind, and for two that contradict each other."""
    if given["intrinsics"] is not None:
        require_path("intrinsics", given["intrinsics"])
    require_kind("camera", given["camera"], Camera, "a Camera")
    require_number("fov", given["fov"])
    said = [name for name, value in given.items() if value is not None]
    if len(said) > 1:
        raise InputError(f"{said[0]} and {said[1]} are both given: which of the two is meant?")


def _check_reading(depth: object, depth_scale: float | None, max_side: int | None, max_megapixels: float) -> None:
    if depth is not None:
        require_path("depth", depth)
    require_number("depth_scale", depth_scale)
    require_number("max_megapixels", max_megapixels, 0)
    require_number("max_side", max_side, 1, whole=True)
    if depth_scale is not None:
        _check_depth_scale(depth_scale, depth)  # type: ignore[arg-type] # it is a path


def pixels_of(rgb: np.ndarray) -> Float[Tensor, "3 H W"]:
    """The 8-bit pixels [H, W, 3] as numbers in 0..1. There is no further copy of the photo."""
    height, width = rgb.shape[:2]
    image = torch.empty(3, height, width)
    for channel, values in zip(image, torch.from_numpy(rgb).unbind(-1), strict=True):
        channel.copy_(values)
    return image.div_(255)


def view_of_pixels(
    image: Float[Tensor, "3 H W"],
    known: Intrinsics,
    name: str,
    depth: str | os.PathLike[str] | None = None,
    depth_scale: float | None = None,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> View:
    """A View of pixels, with their intrinsics and a depth map.

    - image: the pixels in 0..1.
    - known: their intrinsics.
    - name: what errors and results call the photo.
    - depth, depth_scale, max_megapixels: as in ``load_view``.
    """
    if depth_scale is not None:
        _check_depth_scale(depth_scale, depth)
    depth_map = None
    if depth is not None:
        scale = None if depth_scale is None else 1 / depth_scale
        depth_map = read_depth(depth, scale=scale, max_megapixels=max_megapixels)
        check_depth_covers(depth_map, (image.shape[2], image.shape[1]), depth)
    return View(
        image,
        known.camera,
        name=name,
        intrinsics_source=known.source,
        depth=depth_map,
        focal_sigma=known.focal_sigma,
    )


def warn_if_guessed(view: View, *, stacklevel: int = 2) -> None:
    """Warn where the focal length of a photo is a guess. It is a ``UserWarning``."""
    if view.focal_is_guessed:
        warnings.warn(
            f"{view.name}: the intrinsics are {view.intrinsics_source}; distances and angles are only as good as that, "
            "so give K, an intrinsics.txt or the field of view",
            stacklevel=stacklevel,
        )


def _check_depth_scale(depth_scale: float, depth: str | os.PathLike[str] | None) -> None:
    if not 0 < depth_scale < float("inf"):
        raise InputError(f"the depth scale must be a positive number of units a metre, got {depth_scale:g}")
    if depth is None:
        raise InputError(f"a depth scale of {depth_scale:g} units a metre says nothing without a depth map")
