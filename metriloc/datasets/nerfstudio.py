"""``transforms.json`` of nerfstudio and of the first NeRFs: photos with camera-to-world matrices in OpenGL axes.

OpenGL cameras look along -z with y up; here x is right, y down and z forward, so the camera's y and z axes change sign.
Principal points there are COLMAP's (the corner of the first pixel is (0, 0)), so half a pixel is taken off. Poses keep
the file's unit of length: give ``scale`` when that is not a metre.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metriloc.datasets.matrices import rigid_pose, stack_poses
from metriloc.datasets.sources import DepthFormat, PosedScene
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_image, read_json

FILE_NAME = "transforms.json"
PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE")
RADTAN_MODELS = ("OPENCV", "SIMPLE_RADIAL", "RADIAL")
FISHEYE_MODELS = ("OPENCV_FISHEYE",)
RADTAN_TERMS, FISHEYE_TERMS = ("k1", "k2", "p1", "p2", "k3"), ("k1", "k2", "k3", "k4")
DISTORTION_TERMS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "p3", "p4", "s1", "s2", "s3", "s4")
LISTED_TERMS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""Order of nerfstudio's ``distortion_params``."""
OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular", "spherical")
"""What instant-ngp says of lenses that are no perspective ones."""
MILLIMETRE = 0.001
PHOTO_ENDINGS = ("", ".png", ".jpg", ".jpeg", ".JPG", ".PNG")
"""NeRF's synthetic scenes leave the ending of the file away."""


def read_nerfstudio(path: str | os.PathLike[str], *, scale: float = 1.0) -> PosedScene:
    """The frames of a ``transforms.json``, in file order.

    It may be given by the folder that holds it. scale: metres a unit of length of the poses.
    ``applied_transform`` only changes the world and is left in. Depth files are read where they are
    named (``depth_file_path``, ``depth_unit_scale_factor``, millimetres by default). Raises
    InputError naming the file and the frame for anything that is missing or malformed.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive metres a unit, got {scale}")
    top = _load(path)
    frames = top.get("frames")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"'{path}' has no list of frames")
    names, poses, cameras, depths = [], [], [], []
    for number, frame in enumerate(frames):
        place = f"'{path}', frame {number}"
        if not isinstance(frame, dict):
            raise InputError(f"{place}: {str(frame)[:60]!r} is not an object")
        names.append(_photo(path.parent, frame.get("file_path"), place))
        poses.append(parse_opengl_pose(frame.get("transform_matrix"), place, scale))
        cameras.append(_camera({**top, **frame}, path.parent / names[-1], place))
        depth = frame.get("depth_file_path")
        depths.append(path.parent / _path(depth, "depth_file_path", place) if depth is not None else None)
    if len(set(names)) != len(names):
        raise InputError(f"'{path}' names a photo twice")
    unit = _number(top, "depth_unit_scale_factor", f"'{path}'", MILLIMETRE)
    return PosedScene(
        name=path.parent.resolve().name,
        folder=path.parent,
        names=tuple(names),
        cameras=tuple(cameras),
        cam_from_world=stack_poses(list(poses)),
        depths=tuple(depths),
        depth_format=DepthFormat(scale=unit),
        intrinsics_source=str(path),
        upright=False,
    )


def parse_opengl_pose(matrix: Any, place: str = "transform_matrix", scale: float = 1.0) -> Pose:
    """``cam_from_world`` in OpenCV axes of a camera-to-world matrix (4x4 or 3x4, nested lists) in OpenGL axes.

    Raises InputError when it is not finite or no rigid motion.
    """
    try:
        values = torch.tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{place}: transform_matrix must be 4x4 numbers, got {str(matrix)[:60]!r}") from error
    if values.ndim != 2:
        raise InputError(f"{place}: transform_matrix must be 4x4 numbers, got shape {list(values.shape)}")
    pose = rigid_pose(values, place)
    if pose is None:
        raise InputError(f"{place}: transform_matrix is not finite")
    axes = values.new_tensor([1.0, -1.0, -1.0])
    return Pose(pose.R * axes, scale * pose.t).inverse()


def _camera(values: Mapping[str, Any], photo: Path, place: str) -> Camera:
    """The camera of a frame; what a frame does not say is taken from the top of the file."""
    kind = _kind(values, place)
    if "w" in values and "h" in values:
        width, height = _number(values, "w", place), _number(values, "h", place)
    else:
        width, height = (float(side) for side in read_image(photo).size)
    if min(width, height) < 1 or max(width, height) > 1e6 or width != int(width) or height != int(height):
        raise InputError(f"{place}: {width:g}x{height:g} is not an image size in pixels")
    fx = _focal(values, "fl_x", "camera_angle_x", width, place)
    fy = _focal(values, "fl_y", "camera_angle_y", height, place, fx)
    if fx is None or fy is None:
        raise InputError(f"{place}: there is neither fl_x nor camera_angle_x")
    cx = _number(values, "cx", place, width / 2) - 0.5
    cy = _number(values, "cy", place, height / 2) - 0.5
    terms = _distortion(values, kind, place)
    size, f, c, distortion = (
        torch.tensor(numbers, dtype=torch.float64) for numbers in ([width, height], [fx, fy], [cx, cy], terms)
    )
    if kind in FISHEYE_MODELS:
        return Camera(size, f, c, distortion, "fisheye")
    return Camera(size, f, c, distortion, "radtan") if any(terms) else Camera(size, f, c)


def _kind(values: Mapping[str, Any], place: str) -> str:
    """The camera model: ``camera_model``, or a fisheye where instant-ngp's ``is_fisheye`` says so."""
    other = next((name for name in OTHER_LENSES if values.get(name, False) is not False), None)
    if other is not None:
        raise InputError(f"{place}: a lens described by {other!r} is not supported")
    fisheye = values.get("is_fisheye", False)
    if not isinstance(fisheye, bool):
        raise InputError(f"{place}: is_fisheye must be true or false, got {str(fisheye)[:40]!r}")
    kind = values.get("camera_model", FISHEYE_MODELS[0] if fisheye else "OPENCV")
    if kind not in (*PINHOLE_MODELS, *RADTAN_MODELS, *FISHEYE_MODELS):
        raise InputError(f"{place}: camera_model {str(kind)[:40]!r} is not supported")
    if fisheye and kind not in FISHEYE_MODELS:
        raise InputError(f"{place}: is_fisheye and camera_model {kind!r} contradict")
    return str(kind)


def _distortion(values: Mapping[str, Any], kind: str, place: str) -> list[float]:
    """The terms of a model; InputError for one that is not zero and that the model does not have."""
    listed = values.get("distortion_params")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) != len(LISTED_TERMS):
            raise InputError(f"{place}: distortion_params must be the six numbers {' '.join(LISTED_TERMS)}")
        values = {**values, **dict(zip(LISTED_TERMS, listed, strict=True))}
    wanted = () if kind in PINHOLE_MODELS else FISHEYE_TERMS if kind in FISHEYE_MODELS else RADTAN_TERMS
    for name in DISTORTION_TERMS:
        term = _number(values, name, place, 0.0)
        if term and name not in wanted:
            raise InputError(f"{place}: {name} {term:g} is not supported with camera_model {kind!r}")
    return [_number(values, name, place, 0.0) for name in wanted]


def _focal(
    values: Mapping[str, Any], name: str, angle: str, side: float, place: str, otherwise: float | None = None
) -> float | None:
    if name in values:
        focal = _number(values, name, place)
        if focal <= 0:
            raise InputError(f"{place}: {name} {focal:g} must be positive")
        return focal
    if angle in values:
        opening = _number(values, angle, place)
        if not 0 < opening < math.pi:
            raise InputError(f"{place}: {angle} {opening:g} must be between 0 and pi radians")
        return 0.5 * side / math.tan(0.5 * opening)
    return otherwise


def _number(values: Mapping[str, Any], name: str, place: str, otherwise: float | None = None) -> float:
    value = values.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:
        raise InputError(f"{place}: {name} must be a number, got {str(value)[:40]!r}")
    return float(value)


def _path(value: Any, what: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value or len(value) > 1000:
        raise InputError(f"{place}: {what} must be a path, got {str(value)[:40]!r}")
    return value


def _photo(folder: Path, value: Any, place: str) -> str:
    name = _path(value, "file_path", place)
    name = name[2:] if name.startswith("./") else name
    if Path(name).suffix:
        return name
    return next((name + ending for ending in PHOTO_ENDINGS if (folder / (name + ending)).is_file()), name)


def _load(path: Path) -> dict[str, Any]:
    top = read_json(path)
    if not isinstance(top, dict):
        raise InputError(f"'{path}' is not a JSON object")
    return top
