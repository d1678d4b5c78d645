"""Views resized, cut, turned by quarters and mirrored: camera, pose and depth follow the pixels.

The camera follows a resize by the half-pixel rule ``c' = s (c + 0.5) - 0.5``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metriloc.geometry import Pose, sample_depth
from metriloc.io.arguments import require_kind
from metriloc.io.files import InputError
from metriloc.io.images import DEFAULT_MAX_MEGAPIXELS, check_size
from metriloc.io.intrinsics import resized_camera
from metriloc.types import View


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

    >>> view = metriloc.load_view("reference.jpg")
    >>> view.size, view.camera.c.tolist()
    ((640, 480), [319.5, 239.5])
    >>> resize_view(view, (320, 240)).camera.c.tolist()
    [159.5, 119.5]
    """
    width, height = size = checked_size(size)
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
    """A window of the photo, with camera and depth.

    - view: the photo; a depth map of another resolution is looked up at the window's pixels.
    - corner: (left, top) of the window's first pixel.
    - size: (width, height) of the window.

    Raises InputError when the window is not inside the photo.

    >>> crop_view(metriloc.load_view("reference.jpg"), (100, 50), (320, 240)).camera.c.tolist()
    [219.5, 189.5]
    """
    (left, top), (width, height) = corner, checked_size(size)
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

    >>> turned, turned_from_view = turn_view(metriloc.load_view("reference.jpg"), 1)
    >>> turned.size
    (480, 640)
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
    """The photo flipped left to right. Its camera, pose and depth are those that belong to the mirrored scene."""
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
    """The pose in the mirrored scene. It is ``R' = M R M``, ``t' = M t`` with ``M = diag(-1, 1, 1)``."""
    if pose is None:
        return None
    m = pose.t.new_tensor([-1.0, 1.0, 1.0])
    return Pose(m[:, None] * pose.R * m, m * pose.t)


def quarter_turn(quarters: int, dtype: torch.dtype = torch.float64) -> Pose:
    """``Rz(-90 degrees k)``, exactly.

    How camera axes move when the photo is turned against the clock.
    """
    c, s = ((1, 0), (0, -1), (-1, 0), (0, 1))[quarters % 4]
    return Pose(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=dtype), torch.zeros(3, dtype=dtype))


def reduced_view(view: View, max_side: int | None) -> View:
    """The photo reduced to this longest side, antialiased, where it is longer.

    None leaves it as it is.
    """
    longest = max(view.size)
    if max_side is None or longest <= max_side:
        return view
    width, height = (max(1, round(side * max_side / longest)) for side in view.size)
    return resize_view(view, (width, height), antialias=True)


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height). Raises InputError for what is no size."""
    require_kind("a size", size, (Sequence, Tensor, np.ndarray), "two positive whole numbers (width, height)")
    if len(size) != 2 or not all(_is_side(side) for side in size):
        raise InputError(f"a size is two positive whole numbers (width, height), got {size!r}")
    return int(size[0]), int(size[1])


def _is_side(side: object) -> bool:
    return not isinstance(side, (str, bool)) and 1 <= side < math.inf and side == int(side)  # type: ignore[operator,call-overload]
