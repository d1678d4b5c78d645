"""A map as glTF (binary, ``.glb``), which viewers, game engines and modelling programs open: points, and cameras with
their frusta, below one node that turns the map upright."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from metriloc.version import __version__

_FLOAT, _BYTE = 5126, 5121
_POINTS, _LINES = 0, 1
_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_FRUSTUM = 0.04  # its depth, of the extent of the cameras
_LEVEL = 0.5  # mean of the down axes below which photos are held in all directions


def glb_of(model: Any, unit: str, up: npt.NDArray[np.float64] | None = None) -> bytes:
    """The bytes of a ``.glb`` of a ``pycolmap.Reconstruction``.

    Coordinates below the root node are the map's own; the root turns ``up`` (by default what is up in most photos) to y, as
    glTF has it. unit: of its lengths, for whoever reads ``extras``. Lens distortion and off-center principal points are
    left out: glTF has no cameras with them.
    """
    content = _Content()
    poses = {n: _world_from_camera(model.images[n]) for n in sorted(model.reg_image_ids())}
    nodes: list[dict[str, Any]] = [{"name": "map", "matrix": _columns(_upright(poses, up)), "children": []}]
    if model.num_points3D():
        nodes.append({"name": "points", "mesh": content.add_points(model)})
    size = _frustum_depth(poses)
    cameras: list[dict[str, Any]] = []
    frusta: dict[int, tuple[int, int]] = {}
    for number in sorted({model.images[n].camera_id for n in poses}):
        frusta[number] = (len(cameras), content.add_frustum(model.cameras[number], size))
        cameras.append(_camera(model.cameras[number], size))
    for number, pose in poses.items():
        camera, mesh = frusta[model.images[number].camera_id]
        nodes.append(
            {"name": model.images[number].name, "camera": camera, "mesh": mesh, "matrix": _columns(pose @ _TO_OPENGL)}
        )
    nodes[0]["children"] = list(range(1, len(nodes)))
    told: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": f"metriloc {__version__}", "extras": {"unit": unit}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes,
    }
    told.update({key: value for key, value in {"cameras": cameras, **content.told()}.items() if value})
    return _packed(told, content.data)


class _Content:
    """Buffers of meshes as they are put together."""

    def __init__(self) -> None:
        self.data = b""
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._meshes: list[dict[str, Any]] = []

    def add_points(self, model: Any) -> int:
        """The number of the mesh of all points."""
        points = list(model.points3D.values())
        xyz = np.array([point.xyz for point in points], np.float32)
        color = np.array([[*point.color, 255] for point in points], np.uint8)
        return self._mesh("points", _POINTS, {"POSITION": self._positions(xyz), "COLOR_0": self._colors(color)})

    def add_frustum(self, camera: Any, depth: float) -> int:
        """The number of the mesh of a camera's edges, the image plane ``depth`` in front of it."""
        half = depth * np.array(
            [0.5 * camera.width / camera.focal_length_x, 0.5 * camera.height / camera.focal_length_y]
        )
        corners = [np.array([sx * half[0], sy * half[1], -depth]) for sx, sy in ((-1, 1), (1, 1), (1, -1), (-1, -1))]
        lines = []
        for corner, following in zip(corners, corners[1:] + corners[:1], strict=True):
            lines += [np.zeros(3), corner, corner, following]
        return self._mesh("camera", _LINES, {"POSITION": self._positions(np.array(lines, np.float32))})

    def told(self) -> dict[str, Any]:
        """Their parts of the JSON."""
        return {
            "meshes": self._meshes,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self.data)}] if self.data else [],
        }

    def _mesh(self, name: str, mode: int, attributes: dict[str, int]) -> int:
        self._meshes.append({"name": name, "primitives": [{"attributes": attributes, "mode": mode}]})
        return len(self._meshes) - 1

    def _positions(self, values: npt.NDArray[np.float32]) -> int:
        bounds = {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return self._accessor(
            values.tobytes(), {"componentType": _FLOAT, "type": "VEC3", "count": len(values), **bounds}
        )

    def _colors(self, values: npt.NDArray[np.uint8]) -> int:
        shape = {"componentType": _BYTE, "normalized": True, "type": "VEC4", "count": len(values)}
        return self._accessor(values.tobytes(), shape)

    def _accessor(self, data: bytes, shape: dict[str, Any]) -> int:
        # all of it is in pieces of four bytes, as glTF wants them
        self._views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data
        self._accessors.append({"bufferView": len(self._views) - 1, **shape})
        return len(self._accessors) - 1


def _packed(told: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(told, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if data:
        chunks += struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _camera(camera: Any, near: float) -> dict[str, Any]:
    wide, high = camera.width / camera.focal_length_x, camera.height / camera.focal_length_y
    view = {"yfov": 2 * math.atan(0.5 * high), "aspectRatio": wide / high, "znear": 0.1 * near}
    return {"type": "perspective", "perspective": view}


def _world_from_camera(image: Any) -> npt.NDArray[np.float64]:
    return np.linalg.inv(np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]]))


def _frustum_depth(poses: dict[int, npt.NDArray[np.float64]]) -> float:
    centers = np.array([pose[:3, 3] for pose in poses.values()]).reshape(-1, 3)
    extent = float(np.linalg.norm(centers.max(0) - centers.min(0))) if len(centers) else 0.0
    return _FRUSTUM * extent if extent > 0 else 1.0


def _upright(poses: dict[int, npt.NDArray[np.float64]], up: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    """The shortest turn of ``up`` to y, as a 4 x 4 matrix."""
    if up is None:
        mean = -np.mean([pose[:3, 1] for pose in poses.values()], axis=0) if poses else np.zeros(3)
        up = mean if np.linalg.norm(mean) >= _LEVEL else np.array([0.0, -1.0, 0.0])
    a, b = up / np.linalg.norm(up), np.array([0.0, 1.0, 0.0])
    turn = np.eye(4)
    if a @ b < -1 + 1e-9:
        turn[:3, :3] = np.diag([1.0, -1.0, -1.0])
        return turn
    v = np.cross(a, b)
    skew = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    turn[:3, :3] = np.eye(3) + skew + skew @ skew / (1 + a @ b)
    return turn


def _columns(matrix: npt.NDArray[np.float64]) -> list[float]:
    return [float(x) for x in matrix.T.reshape(-1)]
