"""From a photo file to a ``View``: pixels in 0..1, intrinsics with their source, depth; and resized or cut Views.

``K``, ``camera`` and ``intrinsics`` always refer to the upright photo at its *stored* resolution: resizing comes after
and the camera follows by the half-pixel rule ``c' = s (c + 0.5) - 0.5``.
"""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, ColmapCamera, Pose, sample_depth
from metriloc.io.arguments import require_kind, require_number, require_path
from metriloc.io.depth import check_depth_covers, read_depth
from metriloc.io.files import InputError
from metriloc.io.images import DEFAULT_MAX_MEGAPIXELS, check_size, read_image
from metriloc.io.intrinsics import Intrinsics, resized_camera, resolve_intrinsics
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

    K, camera, intrinsics, fov: see ``resolve_intrinsics``; without any of them EXIF or a guess is used, the guess
    with a ``UserWarning``. depth: file of a depth map, see ``read_depth``; depth_scale: its units a metre (5000 for TUM),
    by default 1000 for whole numbers and 1 for floating point. resize: (width, height), aspect not kept, bilinear as in
    MicKey's demo. max_side: reduce larger photos to this longest side, antialiased, aspect kept. upright: turn the photo
    as its EXIF orientation says; a camera of COLMAP's belongs to the pixels as they are stored (False). undistort: the
    camera that took the stored pixels; the View is an undistorted copy, and ``camera`` that of the copy. warn_of_guess:
    False where a map may tell the focal length yet; ``warn_if_guessed`` gives the warning later.

    Raises InputError (a ValueError), one sentence naming file and value, for anything that cannot be used.
    """
    require_path("path", path)
    _check_given(K=K, camera=camera, intrinsics=intrinsics, fov=fov)
    _check_reading(depth, depth_scale, max_side, max_megapixels)
    require_kind("undistort", undistort, ColmapCamera, "a ColmapCamera")
    require_kind("upright", upright, bool, "True or False")
    if resize is not None and max_side is not None:
        raise InputError(f"resize {resize!r} and max_side {max_side} contradict: give one")
    size = None if resize is None else _checked_size(resize)
    loaded = read_image(path, max_megapixels, upright=upright and undistort is None)
    image = pixels_of(loaded.rgb)
    if undistort is None:
        known = resolve_intrinsics(
            loaded.size, path=path, K=K, camera=camera, intrinsics=intrinsics, exif=loaded.exif, fov_deg=fov
        )
    elif camera is None or depth is not None:
        raise ValueError("undistort needs the camera of the undistorted copy, and knows of no depth map")
    else:
        image, copied = undistorted_photo(image, undistort, camera)
        known = Intrinsics(copied, f"camera, as given, of an undistorted copy ({undistort.model})")
    view = view_of_pixels(image, known, str(Path(path)), depth, depth_scale, max_megapixels)
    if warn_of_guess:
        warn_if_guessed(view, stacklevel=3)
    if size is not None:
        return resize_view(view, size)
    longest = max(view.size)
    if max_side is not None and longest > max_side:
        width, height = (max(1, round(side * max_side / longest)) for side in view.size)
        return resize_view(view, (width, height), antialias=True)
    return view


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
    """8-bit pixels [H, W, 3] as numbers in 0..1, with no further copy of the photo."""
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
    """A View of pixels in 0..1 with their intrinsics and a depth map. depth, depth_scale: as in ``load_view``."""
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
    """A ``UserWarning`` where the focal length of a photo is only a guess."""
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


def resize_view(view: View, size: tuple[int, int], *, antialias: bool = False) -> View:
    """The photo at another size, with the camera that belongs to it.

    - view: ``image`` [3, H, W] in 0..1, with any depth map.
    - size: (width, height) of the result, positive whole numbers; the aspect need not be kept.
    - antialias: False takes the four pixels around each place (``align_corners=False``), which equals OpenCV's bilinear
      resize (MicKey was trained with it) and skips pixels where the photo shrinks by more than two; True weighs all
      pixels under the enlarged triangle. Use it when reducing strongly.

    Returns a View whose image has shape [3, height, width], clamped to 0..1. With ``sx = width / W``, ``sy = height / H``:

    - the corners of the photo stay its corners, so a pixel at (u, v) goes to ``sx (u + 0.5) - 0.5``,
      ``sy (v + 0.5) - 0.5``, pixel centers at whole numbers;
    - ``K`` follows: ``fx' = sx fx``, ``cx' = sx (cx + 0.5) - 0.5``, and so for y; distortion is of rays and stays, and
      so do pose, name and ``focal_sigma``;
    - ``depth`` stays as it is: it covers the same field of view at any resolution;
    - ``intrinsics_source`` gains the two sizes.

    The view itself comes back where it has this size already. Raises InputError for a size that is none, or too large.

    >>> view = metriloc.load_view("reference.jpg")  # doctest: +SKIP
    >>> view.size, view.camera.c.tolist()  # doctest: +SKIP
    ((640, 480), [319.5, 239.5])
    >>> resize_view(view, (320, 240)).camera.c.tolist()  # doctest: +SKIP
    [159.5, 119.5]
    """
    width, height = size = _checked_size(size)
    if size == view.size:
        return view
    check_size(f"{view.name}, resized", size, DEFAULT_MAX_MEGAPIXELS)
    image = torch.nn.functional.interpolate(
        view.image[None], (height, width), mode="bilinear", align_corners=False, antialias=antialias
    )[0]
    source = f"{view.intrinsics_source}, resized from {view.size[0]}x{view.size[1]} to {width}x{height}"
    return dataclasses.replace(
        view, image=image.clamp(0, 1), camera=resized_camera(view.camera, size), intrinsics_source=source
    )


def crop_view(view: View, corner: tuple[int, int], size: tuple[int, int]) -> View:
    """The window of ``size`` (width, height) whose first pixel is at ``corner`` (left, top), with camera and depth.

    A depth map of another resolution is looked up at the window's pixels. Raises InputError when the window is not
    inside the photo.
    """
    (left, top), (width, height) = corner, _checked_size(size)
    if left < 0 or top < 0 or left + width > view.size[0] or top + height > view.size[1]:
        raise InputError(
            f"the window {width}x{height} at ({left}, {top}) is not inside the {view.size[0]}x{view.size[1]} photo"
        )
    depth = view.depth
    if depth is not None and (depth.shape[1], depth.shape[0]) == view.size:
        depth = depth[top : top + height, left : left + width].clone()
    elif depth is not None:
        v, u = torch.meshgrid(torch.arange(height) + top, torch.arange(width) + left, indexing="ij")
        uv = torch.stack([u, v], -1).reshape(-1, 2).to(depth)
        depth = sample_depth(depth, uv, view.size)[0].reshape(height, width)
    return dataclasses.replace(
        view,
        image=view.image[:, top : top + height, left : left + width].clone(),
        camera=view.camera.crop((left, top), (width, height)),
        intrinsics_source=f"{view.intrinsics_source}, cut to {width}x{height} at ({left}, {top})",
        depth=depth,
    )


def turn_view(view: View, quarter_turns: int) -> tuple[View, Pose]:
    """The photo turned against the clock (``numpy.rot90``), and ``turned_from_view``, exactly.

    Camera with its distortion, pose and depth turn with the photo: a point ``X`` of the view's camera frame is at
    ``turned_from_view.transform(X)`` in that of the turned view, and on the same colour. quarter_turns: also negative.
    """
    quarters = quarter_turns % 4
    pose, turn = view.cam_from_world, quarter_turn(quarters)
    if quarters == 0:
        return view, turn
    turned = dataclasses.replace(
        view,
        image=torch.rot90(view.image, quarters, (1, 2)).contiguous(),
        depth=None if view.depth is None else torch.rot90(view.depth, quarters, (0, 1)).contiguous(),
        camera=view.camera.turn(quarters),
        cam_from_world=None if pose is None else turn.to(pose.dtype) @ pose,
        intrinsics_source=f"{view.intrinsics_source}, turned by {90 * quarters} degrees",
    )
    return turned, turn


def mirror_view(view: View) -> View:
    """The photo flipped left to right, with the camera, pose and depth that belong to the mirrored scene."""
    camera = view.camera
    c = torch.stack([camera.size[..., 0] - 1 - camera.c[..., 0], camera.c[..., 1]], -1)
    distortion = camera.distortion
    if camera.model == "radtan":
        # k1 k2 p1 p2 k3: only p2 is odd in x
        distortion = distortion * distortion.new_tensor([1.0, 1.0, 1.0, -1.0, 1.0])
    return dataclasses.replace(
        view,
        image=view.image.flip(-1),
        camera=dataclasses.replace(camera, c=c, distortion=distortion),
        cam_from_world=mirror_pose(view.cam_from_world),
        depth=None if view.depth is None else view.depth.flip(-1),
        intrinsics_source=f"{view.intrinsics_source}, mirrored",
    )


def mirror_pose(pose: Pose | None) -> Pose | None:
    """``R' = M R M``, ``t' = M t`` with ``M = diag(-1, 1, 1)``."""
    if pose is None:
        return None
    m = pose.t.new_tensor([-1.0, 1.0, 1.0])
    return Pose(m[:, None] * pose.R * m, m * pose.t)


def quarter_turn(quarters: int, dtype: torch.dtype = torch.float64) -> Pose:
    """``Rz(-90 degrees k)``, exactly: how camera axes move when the photo is turned against the clock."""
    c, s = ((1, 0), (0, -1), (-1, 0), (0, 1))[quarters % 4]
    return Pose(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=dtype), torch.zeros(3, dtype=dtype))


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    require_kind("a size", size, (Sequence, Tensor, np.ndarray), "two positive whole numbers (width, height)")
    if len(size) != 2 or not all(_is_side(side) for side in size):
        raise InputError(f"a size is two positive whole numbers (width, height), got {size!r}")
    return int(size[0]), int(size[1])


def _is_side(side: object) -> bool:
    return not isinstance(side, (str, bool)) and 1 <= side < math.inf and side == int(side)  # type: ignore[operator,call-overload]
