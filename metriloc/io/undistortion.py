"""Photos of cameras whose distortion is none of ours, as undistorted pinhole copies, by pycolmap's own projection."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, ColmapCamera
from metriloc.io.files import InputError
from metriloc.io.intrinsics import resized_camera, same_aspect

MISSING_PYCOLMAP = 'reading maps needs pycolmap: pip install "metriloc[maps]"'


def pinhole_copy(camera: ColmapCamera) -> Camera:
    """The camera of the undistorted copy, float64.

    As large as COLMAP's undistorter makes it, at most twice the photo. Raises InputError where no
    pinhole camera sees what this one does (panoramas).
    """
    import pycolmap

    try:
        copy = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), _theirs(camera))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{camera.model} has no undistorted copy") from error
    return Camera.from_colmap(copy.model.name, copy.width, copy.height, [float(p) for p in copy.params])


def undistorted_pixels(camera: ColmapCamera, copy: Camera, uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Pixels of the photo -> pixels of the copy, float64.

    NaN where they have no ray or fall outside of the copy.
    """
    rays = _theirs(camera).cam_from_img(uv.detach().cpu().double().numpy() + 0.5)
    found = torch.from_numpy(np.asarray(rays, dtype=np.float64)).reshape(-1, 2) * copy.f + copy.c
    return torch.where(copy.in_image(found)[:, None], found, torch.nan)


def undistorted_photo(
    image: Float[Tensor, "3 H W"], camera: ColmapCamera, copy: Camera
) -> tuple[Float[Tensor, "3 h w"], Camera]:
    """The copy of a photo without distortion, and its camera. The copy is black where the photo does not reach; the
    camera is ``copy``, scaled as the photo is.

    Raises InputError for a photo of another aspect than the camera.
    """
    height, width = image.shape[1:]
    if not same_aspect((camera.width, camera.height), (width, height)):
        raise InputError(
            f"the intrinsics are for {camera.width}x{camera.height} pixels but the photo has {width}x{height}"
        )
    scale = width / camera.width
    w, h = (max(1, round(float(side) * scale)) for side in copy.size)
    scaled = resized_camera(copy, (w, h))
    v, u = torch.meshgrid(torch.arange(h, dtype=torch.float64), torch.arange(w, dtype=torch.float64), indexing="ij")
    rays = (torch.stack([u, v], -1).reshape(-1, 2) - scaled.c) / scaled.f
    points = torch.cat([rays, torch.ones(len(rays), 1, dtype=torch.float64)], -1)
    uv = torch.from_numpy(np.asarray(_theirs(camera).img_from_cam(points.numpy()), dtype=np.float64))
    grid = 2 * uv / torch.tensor([camera.width, camera.height], dtype=torch.float64) - 1
    grid = torch.where(torch.isfinite(grid).all(-1, keepdim=True), grid, 2.0).clamp(-2, 2).float().reshape(1, h, w, 2)
    return F.grid_sample(image[None], grid, "bilinear", "zeros", align_corners=False)[0], scaled


def _theirs(camera: ColmapCamera) -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise ImportError(MISSING_PYCOLMAP) from error
    return pycolmap.Camera(model=camera.model, width=camera.width, height=camera.height, params=list(camera.params))
