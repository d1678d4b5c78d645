"""Where the intrinsics of a photo come from: what the user says, else a list beside the photo, else EXIF, else a guess.

Every answer says in one sentence which it was. All numbers refer to the *upright* image (EXIF orientation applied) at
its stored resolution; pixels, first pixel centre at (0, 0).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metriloc.geometry import Camera
from metriloc.io.exif import DIAGONAL_35MM, ExifData, focal_from_exif
from metriloc.io.files import InputError
from metriloc.io.intrinsics_file import discover_entry, read_entry
from metriloc.types import GUESSED_FOCAL

DEFAULT_35MM = 26.0
"""Guessed 35-mm equivalent focal length: what main cameras of phones have (24 to 28 mm). The published intrinsics of
Map-free (550 px for 540x720) are 26.4 mm."""
FOCAL_RANGE = (0.05, 100.0)
"""Plausible focal lengths as a fraction of the longer side."""
CENTER_RANGE = (-0.5, 1.5)
"""Plausible principal points as a fraction of width and height: generous, for photos cut from larger ones."""


FOV_SIGMA, GUESS_SIGMA = 0.02, 0.25
"""Relative standard deviations of focal lengths. A stated field of view is good to a degree or so; the focal lengths that
phones are used with (13 to 77 mm, mostly 24 to 28) scatter about the guess by a quarter and more."""


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """A camera, and one phrase saying where it came from.

    And the relative standard deviation of its focal length.

    >>> found = resolve_intrinsics((640, 480), fov_deg=60)
    >>> round(float(found.camera.f[0])), found.focal_sigma
    (554, 0.0)
    """

    camera: Camera
    source: str
    focal_sigma: float = 0.0

    @property
    def guessed(self) -> bool:
        """Whether nothing but habit speaks for it."""
        return self.focal_sigma >= GUESSED_FOCAL


def resolve_intrinsics(
    size: tuple[int, int],
    *,
    path: str | os.PathLike[str] | None = None,
    K: Sequence[Any] | Tensor | None = None,
    camera: Camera | None = None,
    intrinsics: str | os.PathLike[str] | None = None,
    exif: ExifData | None = None,
    fov_deg: float | None = None,
) -> Intrinsics:
    """The camera of an upright image, by the best that is known.

    It is float32 unless ``camera`` is given. What the user says wins over what is found; in this order:

    - size: (width, height) of the image, pixels.
    - K, camera: 3x3, or fx fy cx cy; or a camera.
    - path, intrinsics: the entry of the photo ``path`` in the file ``intrinsics``.
    - fov_deg: the horizontal field of view in degrees.
    - path: an ``intrinsics.txt`` beside the photo or one folder up that lists it.
    - exif: what the file says of its camera.

    Without any of these it is a guess of 26 mm equivalent. A camera or an entry of another resolution and the same aspect
    ratio is scaled by the half-pixel rule.

    Raises InputError, naming the value, for intrinsics that are malformed, contradictory or implausible.

    >>> resolve_intrinsics((640, 480), K=[520, 520, 319.5, 239.5]).camera.f.tolist()
    [520.0, 520.0]
    """
    if K is not None and camera is not None:
        raise InputError("K and camera are both given: which of the two is meant?")
    if fov_deg is not None and not 0 < fov_deg < 180:
        raise InputError(f"the field of view must be between 0 and 180 degrees, got {fov_deg:g}")
    if K is not None:
        return Intrinsics(_checked(camera_from_K(K, size), "K"), "K, as given")
    if camera is not None:
        return _fit_to_image(camera, size, "camera, as given")
    found = focal_from_exif(exif or ExifData(), size)
    if fov_deg is not None and intrinsics is None:
        camera = _checked(Camera.from_fov(size, math.radians(fov_deg)), f"a field of view of {fov_deg:g} degrees")
        source = f"horizontal field of view of {fov_deg:g} degrees, as stated ({float(camera.f[0]):.1f} px)"
        if found.pixels is not None:
            source += f"; the {found.note} ({found.pixels:.1f} px) was not asked"
        elif found.note:
            source += f"; {found.note}"
        return Intrinsics(camera, source, FOV_SIGMA)
    listed = _listed(Path(path) if path is not None else None, intrinsics)
    if listed is not None:
        return _fit_to_image(listed[0], size, listed[1])
    if found.pixels is not None:
        return Intrinsics(_centered(found.pixels, size), f"{found.note} ({found.pixels:.1f} px)", found.sigma)
    aside = f"; {found.note}" if found.note else ""
    pixels = DEFAULT_35MM / DIAGONAL_35MM * math.hypot(*size)
    source = f"a guess: {DEFAULT_35MM:g} mm equivalent focal length ({pixels:.1f} px), usual for phones{aside}"
    return Intrinsics(_centered(pixels, size), source, GUESS_SIGMA)


def camera_from_K(K: Sequence[Any] | Tensor, size: tuple[int, int]) -> Camera:
    """A pinhole camera (float32) of an image of ``size``.

    It is made of a 3x3 matrix or of fx, fy, cx, cy. Raises InputError for another shape, values
    that are not finite, skew, or a last row that is not 0 0 1.

    >>> camera_from_K([520, 520, 319.5, 239.5], (640, 480)).f.tolist()
    [520.0, 520.0]
    """
    try:
        values = torch.as_tensor(K, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"K must be a 3x3 matrix or four numbers fx fy cx cy, got {K!r}") from error
    if values.shape == (4,):
        fx, fy, cx, cy = values.tolist()
        values = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
    if values.shape != (3, 3):
        raise InputError(f"K must be a 3x3 matrix or four numbers fx fy cx cy, got shape {list(values.shape)}")
    if not torch.isfinite(values).all():
        raise InputError(f"K has values that are not finite: {values.tolist()}")
    if not torch.allclose(values[2], values.new_tensor([0.0, 0.0, 1.0]), rtol=0, atol=1e-6):
        raise InputError(f"the last row of K must be 0 0 1, got {values[2].tolist()} (is K transposed?)")
    skew = max(abs(float(values[0, 1])), abs(float(values[1, 0])))
    if skew > 1e-3 * abs(float(values[0, 0])):
        raise InputError(f"K has skew {skew:g}, which is not supported")
    exact = values.float()  # whoever asks says what is plausible, and calls the camera by its name
    return Camera(exact.new_tensor(size), exact.diagonal()[:2], exact[:2, 2])


def resized_camera(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of the same photo, resized. The photo has exactly ``size`` (width, height) then; by the half-pixel
    rule."""
    target = camera.size.new_tensor(size)
    return dataclasses.replace(camera.scale(target / camera.size), size=target)


def camera_as_dict(camera: Camera) -> dict[str, Any]:
    """One camera as plain numbers and a word for JSON.

    ``size``, ``K``, ``model``, ``distortion``.
    """
    return {
        "size": camera.size.tolist(),
        "K": camera.K.tolist(),
        "model": camera.model,
        "distortion": camera.distortion.tolist(),
    }


def camera_from_dict(entry: Mapping[str, Any]) -> Camera:
    """The camera of ``camera_as_dict``, float64; InputError when it is none."""
    try:
        numbers = [torch.tensor(entry[name], dtype=torch.float64) for name in ("K", "size", "distortion")]
        K, size, distortion = numbers
        if not all(bool(torch.isfinite(values).all()) for values in numbers):
            raise InputError(f"the numbers of a camera must be finite, got {str(entry)[:80]}")
        return Camera.from_K(K, size, distortion, entry["model"])
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"a camera needs size, K, model and distortion, got {str(entry)[:80]}") from error


def same_aspect(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether one size can be the other one resized. The aspect is kept, each side rounded up or down to whole
    pixels."""
    low = max((a[0] - 1) / b[0], (a[1] - 1) / b[1])
    high = min((a[0] + 1) / b[0], (a[1] + 1) / b[1])
    return low < high


def _listed(path: Path | None, intrinsics: str | os.PathLike[str] | None) -> tuple[Camera, str] | None:
    if path is None:
        if intrinsics is not None:
            raise InputError(f"'{intrinsics}' is looked up by the name of the photo, but no path is given")
        return None
    if intrinsics is not None:
        file = Path(intrinsics)
        entry = read_entry(file, path)
    else:
        discovered = discover_entry(path)
        if discovered is None:
            return None
        file, entry = discovered
    return camera_from_K(entry.fxfycxcy, entry.size), f"{file}:{entry.line} ({entry.name})"


def _fit_to_image(camera: Camera, size: tuple[int, int], source: str) -> Intrinsics:
    if camera.shape != ():
        raise InputError(f"a single camera is needed, got batch shape {tuple(camera.shape)}")
    numbers = torch.cat([camera.size, camera.f, camera.c, camera.distortion])
    if not torch.isfinite(numbers).all() or not (camera.size > 0).all():
        raise InputError(f"the {source} has values that are not finite, or no size: {numbers.tolist()}")
    width, height = camera.size.tolist()
    if (width, height) == size:
        return Intrinsics(_checked(camera, source), source)
    if not same_aspect((width, height), size):
        turned = " (intrinsics must refer to the upright photo)" if same_aspect((height, width), size) else ""
        raise InputError(
            f"{source}: the intrinsics are for {width:g}x{height:g} pixels "
            f"but the photo has {size[0]}x{size[1]}{turned}"
        )
    scaled = resized_camera(_checked(camera, source), size)
    return Intrinsics(scaled, f"{source}, scaled from {width:g}x{height:g} to {size[0]}x{size[1]}")


def _checked(camera: Camera, source: str) -> Camera:
    (width, height), (fx, fy), (cx, cy) = camera.size.tolist(), camera.f.tolist(), camera.c.tolist()
    low, high = (bound * max(width, height) for bound in FOCAL_RANGE)
    if not (low <= fx <= high and low <= fy <= high):
        raise InputError(
            f"{source}: focal lengths {fx:g} {fy:g} px are not plausible for {width:g}x{height:g} pixels "
            f"({low:g} to {high:g} would be)"
        )
    near, far = CENTER_RANGE
    if not (near * width <= cx <= far * width and near * height <= cy <= far * height):
        raise InputError(f"{source}: the principal point {cx:g} {cy:g} is far outside the {width:g}x{height:g} image")
    return camera


def _centered(f: float, size: tuple[int, int]) -> Camera:
    width, height = size
    K = torch.tensor([[f, 0.0, (width - 1) / 2], [0.0, f, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return Camera.from_K(K, size)
