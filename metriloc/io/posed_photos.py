"""Photos with their poses as other programs read them: COLMAP's text model, ``transforms.json``, view matrices."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.geometry.colmap_models import colmap_fields
from metriloc.io.poses import (
    LengthUnit,
    kitti_line,
    listed_name,
    pose_as_dict,
    ros_pose_stamped,
    submission_line,
    tum_line,
)

_DISTORTION = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")


@dataclass(frozen=True, eq=False)
class PosedPhoto:
    """A photo whose pose is known. name: as lists call it; stamp: its place among the queries, the time in formats that
    have one; camera: of the photo as it was looked at (upright, resized); covariance: [6, 6] of ``delta = [t, w]`` in
    ``Pose.from_tangent(delta) @ cam_from_world``, None where nothing tells it."""

    name: str
    path: Path
    camera: Camera
    cam_from_world: Pose
    stamp: float = 0.0
    confidence: float = 1.0
    covariance: Tensor | None = None


@dataclass(frozen=True, eq=False)
class PosedPhotos:
    """Photos in one world. reference: the photo whose camera is the world; None in a map, which keeps its own axes."""

    photos: tuple[PosedPhoto, ...]
    reference: PosedPhoto | None = None
    unit: LengthUnit = "metre"

    @property
    def world(self) -> str:
        """What the world is called."""
        return "map" if self.reference is None else "reference"

    @property
    def note(self) -> str:
        """A comment for lists whose lengths are no metres.

        Nothing where they are, or where there is no list.
        """
        return "" if self.unit == "metre" or not self.photos else f"# lengths: {self.unit}\n"

    def in_world(self, reference_from_world: Pose) -> PosedPhotos:
        """The same photos in a world of its own. In it the camera of the reference is known."""
        moved = (replace(p, cam_from_world=p.cam_from_world @ reference_from_world) for p in self.photos)
        return PosedPhotos(tuple(moved), None, self.unit)

    @property
    def all(self) -> tuple[PosedPhoto, ...]:
        """With the reference."""
        return self.photos if self.reference is None else (self.reference, *self.photos)


# -- a line a photo ---------------------------------------------------------------------------------------------------
def tum_text(found: PosedPhotos) -> str:
    """``stamp tx ty tz qx qy qz qw``, camera to world."""
    return found.note + "".join(f"{tum_line(photo.stamp, photo.cam_from_world)}\n" for photo in found.photos)


def mapfree_text(found: PosedPhotos) -> str:
    """``name qw qx qy qz tx ty tz confidence``, world to camera."""
    lines = (submission_line(listed_name(p.name), p.cam_from_world, p.confidence) for p in found.photos)
    return found.note + "\n".join(lines)


def kitti_text(found: PosedPhotos) -> str:
    """The 12 numbers of camera to world a line.

    Nothing else, since KITTI's own reader takes numbers only.
    """
    return "".join(f"{kitti_line(photo.cam_from_world)}\n" for photo in found.photos)


def names_text(found: PosedPhotos) -> str:
    """Which photo each line of ``kitti_text`` is about."""
    return found.note + "".join(f"{listed_name(photo.name)}\n" for photo in found.photos)


def ros_text(found: PosedPhotos) -> str:
    """The poses as PoseStamped messages, one a line. Each is JSON, with the photo and the unit beside its fields."""
    lines = []
    for photo in found.photos:
        message = ros_pose_stamped(
            photo.cam_from_world, stamp=photo.stamp, frame_id=found.world, keep_world=found.reference is None
        )
        lines.append(json.dumps({**message, "photo": photo.name, "unit": found.unit}, allow_nan=False))
    return "".join(f"{line}\n" for line in lines)


def opengl_text(found: PosedPhotos) -> str:
    """View matrices as JSON. World to eye, x right, y up, z back; rows as lists."""
    keep = found.reference is None
    views = [
        {
            "photo": photo.name,
            "confidence": photo.confidence,
            "view_matrix": _view_matrix(photo.cam_from_world.to("opengl", keep_world=keep), found),
        }
        for photo in found.photos
    ]
    return json.dumps({"world": found.world, "unit": found.unit, "views": views}, indent=1, allow_nan=False) + "\n"


def _view_matrix(theirs: Pose, found: PosedPhotos) -> Any:
    return pose_as_dict(theirs, to_frame="eye", from_frame=found.world, unit=found.unit)["matrix"]


# -- whole models -----------------------------------------------------------------------------------------------------
def colmap_cameras_text(found: PosedPhotos) -> str:
    """``cameras.txt``: a camera for each photo, numbered as the images are."""
    lines = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"]
    for number, photo in enumerate(found.all, 1):
        camera = photo.camera.to_colmap()
        params = " ".join(map(repr, camera.params))
        lines.append(f"{number} {camera.model} {camera.width} {camera.height} {params}")
    return "\n".join(lines) + "\n"


def colmap_images_text(found: PosedPhotos) -> str:
    """``images.txt``: the reference first, no observations. Two photos of one name get a number behind it."""
    lines = [f"{found.note}# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and a line of observations (none)"]
    taken: set[str] = set()
    for number, photo in enumerate(found.all, 1):
        name = listed_name(photo.name)
        name = name if name not in taken else f"{name}.{number}"
        taken.add(name)
        entry = pose_as_dict(photo.cam_from_world, to_frame="camera", from_frame=found.world)
        numbers = " ".join(map(repr, [*entry["quaternion_wxyz"], *entry["translation"]]))
        lines += [f"{number} {numbers} {number} {name}", ""]
    return "\n".join(lines) + "\n"


def colmap_points_text(found: PosedPhotos) -> str:
    """``points3D.txt``: none, which COLMAP wants to be said."""
    return "# POINT3D_ID X Y Z R G B ERROR TRACK[], none\n"


def nerfstudio_text(found: PosedPhotos, folder: Path) -> str:
    """``transforms.json``: camera to world, OpenGL axes, the reference first. folder: where it will be, which its photos
    are named from."""
    keep = found.reference is None
    frames = [
        {
            "file_path": Path(os.path.relpath(photo.path.resolve(), folder.resolve())).as_posix(),
            **nerfstudio_camera(photo.camera.to_colmap()),
            "transform_matrix": _view_matrix(photo.cam_from_world.to("nerfstudio", keep_world=keep), found),
        }
        for photo in found.all
    ]
    return json.dumps({"world": found.world, "unit": found.unit, "frames": frames}, indent=1, allow_nan=False) + "\n"


def nerfstudio_camera(camera: Any) -> Mapping[str, Any]:
    """The intrinsics of a frame of ``transforms.json``. They are those of a camera of COLMAP's, principal point from
    the corner.

    Raises ValueError for a camera that nerfstudio does not have.
    """
    name, width, height, given = colmap_fields(camera)
    params = [float(value) for value in given]
    if name not in _DISTORTION or (name == "FULL_OPENCV" and any(params[9:])):
        raise ValueError(f"nerfstudio has no camera as COLMAP's {name}; undistort the photos first")
    focal = 1 if name in _ONE_FOCAL else 2
    terms = params[focal + 2 : focal + 2 + len(_DISTORTION[name])]
    return {
        "camera_model": "OPENCV_FISHEYE" if name == "OPENCV_FISHEYE" else "OPENCV",
        "fl_x": params[0],
        "fl_y": params[focal - 1],
        "cx": params[focal],
        "cy": params[focal + 1],
        "w": width,
        "h": height,
        **dict(zip(_DISTORTION[name], terms, strict=True)),
    }
