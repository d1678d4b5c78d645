"""Whatever a photo comes as -> a ``View``: file, encoded bytes, Pillow image, numpy array, torch
tensor.

Pixels are checked as strictly as files are: what a method would misread without a word is refused
in one sentence that names shape, type or value.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io.arguments import require_pose
from metriloc.io.depth import check_depth_covers
from metriloc.io.exif import ExifData
from metriloc.io.files import InputError
from metriloc.io.images import DEFAULT_MAX_MEGAPIXELS, LoadedImage, check_size, decode_image, image_of_pillow
from metriloc.io.intrinsics import resolve_intrinsics
from metriloc.io.view import load_view, pixels_of, view_of_pixels, warn_if_guessed
from metriloc.types import View

if TYPE_CHECKING:
    from PIL.Image import Image

Photo: TypeAlias = Union[View, str, "os.PathLike[str]", bytes, np.ndarray, Tensor, "Image", LoadedImage]
"""What stands for a photo wherever one is asked for; see ``as_view``."""


def as_view(
    photo: Photo,
    *,
    K: Sequence[Any] | np.ndarray | Tensor | None = None,
    fov: float | None = None,
    depth: str | os.PathLike[str] | None = None,
    depth_scale: float | None = None,
    name: str = "photo",
    warn_of_guess: bool = True,
) -> View:
    """A photo in any form, with what is known of its camera.

    - photo: a path; the bytes of a JPEG, PNG, ... file; a Pillow image (upright by its EXIF
      orientation, as a file is); a numpy array [H, W, 3] or a torch tensor [3, H, W], RGB, uint8
      or floating point in 0..1; what ``read_image`` returns; or a ``View``, which comes back as it
      is. Pixels are copied, to the CPU and without gradient.
    - K: 3x3, or fx, fy, cx, cy; pixels of this upright photo, first pixel's center at (0, 0).
    - fov: horizontal field of view, degrees, instead of ``K``.
    - depth, depth_scale: file of a depth map and its units a metre, as in ``load_view``.
    - name: how a photo that is no file is called in reports and errors.
    - warn_of_guess: whether to warn where the focal length is only a guess.

    Without ``K`` and ``fov`` the focal length is that of EXIF, or a guess with a ``UserWarning``.
    Raises InputError (a ``ValueError``), one sentence, for pixels of another shape, type or range,
    for NaN, for both ``K`` and ``fov``, for either beside a ``View``, which has its camera, and for
    a ``View`` whose camera or depth map is of another size or shape.

    >>> as_view(np.zeros((480, 640, 3), np.uint8), fov=60).camera.f
    tensor([554.2563, 554.2563])
    """
    _check_given(photo, name, K=K, fov=fov, depth=depth, depth_scale=depth_scale)
    if isinstance(photo, View):
        _check_view(photo)
        return photo
    if isinstance(photo, (str, os.PathLike)):
        return load_view(photo, K=K, fov=fov, depth=depth, depth_scale=depth_scale, warn_of_guess=warn_of_guess)  # type: ignore[arg-type]
    image, exif, path = _pixels(photo, name)
    size = (image.shape[2], image.shape[1])
    known = resolve_intrinsics(size, path=path, K=K, exif=exif, fov_deg=fov)  # type: ignore[arg-type]
    view = view_of_pixels(image, known, name if path is None else str(path), depth, depth_scale)
    if warn_of_guess:
        warn_if_guessed(view, stacklevel=3)
    return view


def check_shared_K(K: object, reference: View, query: View) -> None:
    """Raises InputError for one ``K`` and two photos of different sizes.

    It can only be right for one of them.
    """
    if K is None or reference.size == query.size:
        return
    (w0, h0), (w1, h1) = reference.size, query.size
    raise InputError(
        f"K is for photos of one size, but {reference.name!r} has {w0}x{h0} pixels and {query.name!r} {w1}x{h1}: "
        "give each photo its own with as_view(photo, K=...)"
    )


def _check_given(photo: object, name: str, **given: Any) -> None:
    said = {key: value for key, value in given.items() if value is not None}
    if isinstance(photo, View) and said:
        key, value = next(iter(said.items()))
        value = repr(str(value)) if key == "depth" else "" if key == "K" else f"{value:g}"
        raise InputError(
            f"{key} {value}".rstrip() + f" was given for a {name} that is a View already: load it with the View"
        )
    if "K" in said and "fov" in said:
        raise InputError("K and fov are both given: which of the two is meant?")
    fov = said.get("fov", 60)
    if isinstance(fov, bool) or not isinstance(fov, Real):
        raise InputError(f"fov must be a number of degrees, got {fov!r}")


def _check_view(view: View) -> None:
    """Raises InputError for a camera or a depth map that cannot be of this photo."""
    camera, (width, height), name = view.camera, view.size, view.name or "photo"
    numbers = torch.cat([camera.size, camera.f, camera.c, camera.distortion]).detach().cpu()
    if not bool(torch.isfinite(numbers).all()) or not bool((numbers[:4] > 0).all()):
        raise InputError(
            f"the camera of {name!r} needs finite numbers, sizes and focal lengths above 0: {numbers.tolist()}"
        )
    w, h = numbers[:2].tolist()
    if max(abs(w - width), abs(h - height)) >= 1:
        raise InputError(
            f"the camera of {name!r} is for {w:g}x{h:g} pixels, but the photo has {width}x{height}: "
            "resize or cut both (resize_view, crop_view)"
        )
    if not view.image.is_meta and not bool(torch.isfinite(view.image.detach().sum(dtype=torch.float64))):
        raise InputError(f"{name!r} has pixels that are not finite (NaN or infinite)")
    require_pose(f"cam_from_world of {name!r}", view.cam_from_world)
    if view.depth is not None:
        check_depth_covers(view.depth, view.size, f"depth of {name}")


def _pixels(photo: object, name: str) -> tuple[Float[Tensor, "3 H W"], ExifData, Path | None]:
    """The upright pixels in 0..1, what is known from EXIF, and the file they are of."""
    if isinstance(photo, np.ndarray):
        return _of_array(photo, name), ExifData(), None
    if isinstance(photo, Tensor):
        return _of_tensor(photo, name), ExifData(), None
    path = None
    if isinstance(photo, LoadedImage):
        loaded = photo
    elif isinstance(photo, (bytes, bytearray, memoryview)):
        loaded = decode_image(bytes(photo), name=name)
    elif _is_pillow(photo):
        # an image that Pillow opened is as good as its file: a list of intrinsics beside it counts
        file = getattr(photo, "filename", "")
        path = Path(file) if isinstance(file, str) and file else None
        loaded = image_of_pillow(photo, name=str(path or name))  # type: ignore[arg-type]
    else:
        raise InputError(
            f"{name} must be a path, bytes of an image file, a Pillow image, a numpy array [H, W, 3], "
            f"a torch tensor [3, H, W] or a View, got {type(photo).__name__}"
        )
    image = pixels_of(loaded.rgb)
    return image, loaded.exif, path


def _is_pillow(photo: object) -> bool:
    # whoever has an image has imported Pillow
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(photo, module.Image)


def _of_array(photo: np.ndarray, name: str) -> Float[Tensor, "3 H W"]:
    if photo.ndim != 3 or photo.shape[2] != 3:
        raise InputError(
            f"{name} must be an array of shape (H, W, 3), got {photo.shape}{_shape_hint(photo.shape, photo.ndim)}"
        )
    if photo.dtype != np.uint8 and photo.dtype.kind != "f":
        raise InputError(f"{name} must be uint8 or floating point in 0..1, got an array of {photo.dtype}")
    check_size(name, (photo.shape[1], photo.shape[0]), DEFAULT_MAX_MEGAPIXELS)
    whole = photo.dtype == np.uint8
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite then, and refused
        rgb = torch.from_numpy(np.array(photo, dtype=np.uint8 if whole else np.float32, order="C"))
    return _in_range(rgb.permute(2, 0, 1), name)


def _shape_hint(shape: tuple[int, ...], ndim: int) -> str:
    if ndim == 3 and shape[0] == 3:
        return ": put the channels last (transpose(1, 2, 0))"
    if ndim == 2 or (ndim == 3 and shape[2] == 1):
        return ": a grey photo needs its values three times (numpy.repeat)"
    if ndim == 3 and shape[2] == 4:
        return ": leave out the fourth channel"
    return ": one photo at a time" if ndim == 4 else ""


def _of_tensor(photo: Tensor, name: str) -> Float[Tensor, "3 H W"]:
    shape = tuple(photo.shape)
    if photo.ndim != 3 or shape[0] != 3:
        hint = ": put the channels first (permute(2, 0, 1))" if photo.ndim == 3 and shape[2] == 3 else ""
        hint = ": one photo at a time" if photo.ndim == 4 else hint
        raise InputError(f"{name} must be a tensor of shape [3, H, W], got {list(shape)}{hint}")
    if photo.dtype != torch.uint8 and not photo.is_floating_point():
        raise InputError(f"{name} must be uint8 or floating point in 0..1, got a tensor of {photo.dtype}")
    check_size(name, (shape[2], shape[1]), DEFAULT_MAX_MEGAPIXELS)
    return _in_range(photo.detach().cpu().clone(), name)


def _in_range(image: Tensor, name: str) -> Float[Tensor, "3 H W"]:
    """Values in 0..1, float32, of an own copy."""
    if image.dtype == torch.uint8:
        return image.float().div_(255).contiguous()
    image = image.float().contiguous()
    low, high = (float(end) for end in torch.aminmax(image))
    if not np.isfinite(low + high):  # both are NaN where any value is
        raise InputError(f"{name} has values that are not finite (NaN or infinite)")
    if low < 0 or high > 1:
        hint = ": divide by 255" if 1 < high <= 255 and low >= 0 else ": undo the normalization" if low < 0 else ""
        raise InputError(f"{name} must be in 0..1, got values from {low:.3g} to {high:.3g}{hint}")
    return image
