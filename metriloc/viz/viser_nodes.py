"""Things of a ``Scene`` as nodes of viser: cameras with their photos, points, lines, ways, and how sure places are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8

from metriloc.geometry import quaternion_from_matrix
from metriloc.viz.eye import Eye
from metriloc.viz.pictures import Rgb
from metriloc.viz.scene import Frustum, Link, Scene, Way
from metriloc.viz.scene_picture import height_colors, sureness_colors

PointColor = Literal["photo", "confidence", "height"]
COLORS: dict[str, tuple[int, int, int]] = {
    "reference": (31, 102, 208),
    "query": (217, 72, 15),
    "truth": (29, 127, 78),
    "map": (31, 102, 208),
    "weak": (200, 38, 30),
    "tie": (138, 143, 152),
    "off": (200, 38, 30),
}
SIGMAS = 2.7955
"""Of an ellipsoid that holds 95 % of a normal distribution in space."""
_FAR, _NEAR = 2.0, 1.7  # extents between the first eye and its target, and where it is about two cameras
_CORNERS = ((0, 1), (1, 2), (2, 3), (3, 0))


def look_first(server: Any, eye: Eye, pair: bool) -> None:
    """From where a browser looks when it comes, and after Reset View. Y is down."""
    server.scene.set_up_direction((0.0, -1.0, 0.0))
    camera = server.initial_camera
    camera.position, camera.look_at = eye.place(_NEAR if pair else _FAR), eye.target
    camera.fov, camera.near, camera.far = 0.9, 0.005 * eye.extent, 200 * eye.extent


def add_grid(server: Any, eye: Eye) -> float:
    """Lines on the ground; returns the side of a square."""
    step = 10.0 ** round(math.log10(_FAR * eye.extent / 9))
    size = 4 * math.ceil(2 * eye.extent / step) * step
    server.scene.add_grid(
        "/grid",
        width=size,
        height=size,
        plane="xz",
        cell_size=step,
        section_size=10 * step,
        cell_color=(215, 217, 221),
        section_color=(185, 188, 194),
        position=(float(eye.target[0]), eye.ground, float(eye.target[2])),
        fade_distance=6 * eye.extent,
        shadow_opacity=0.0,
    )
    return step


def camera_shape(frustum: Frustum) -> tuple[Float[np.ndarray, "4"], float, float]:
    """The shape of a camera as viser wants it. It is the quaternion (w, x, y, z) of scene_from_camera, the vertical
    field of view, and width over height."""
    right, down = frustum.corners[1] - frustum.corners[0], frustum.corners[3] - frustum.corners[0]
    width, height = float(np.linalg.norm(right)), float(np.linalg.norm(down))
    x = right / width
    y = down - (down @ x) * x
    y /= np.linalg.norm(y)
    R = np.stack([x, y, np.cross(x, y)], -1)
    return quaternion_from_matrix(torch.from_numpy(R)).numpy(), 2 * math.atan(height / 2), width / height


def camera_scale(frustum: Frustum, depth: float) -> float:
    """The scale of a camera whose photo stands at a depth. Viser must be told it; the photo stands further where the
    camera is drawn larger."""
    _, fov, aspect = camera_shape(frustum)
    return depth * frustum.size * (math.tan(fov / 2) ** 2 * aspect / 3) ** (1 / 3)


def add_camera(server: Any, name: str, frustum: Frustum, depth: float, photo: bool = True) -> Any:
    """Add a camera with its photo at a depth. A true one has no photo there, but an outline."""
    wxyz, fov, aspect = camera_shape(frustum)
    return server.scene.add_camera_frustum(
        name,
        fov,
        aspect,
        scale=camera_scale(frustum, depth),
        thickness=2.0 if frustum.role == "map" else 3.0,
        thickness_units="screen",
        color=frustum.color or COLORS[frustum.role],
        image=frustum.thumbnail if photo else None,
        jpeg_quality=80,
        wxyz=wxyz,
        position=frustum.center,
        cast_shadow=False,
        receive_shadow=False,
    )


def add_label(server: Any, name: str, text: str, place: Float[np.ndarray, "3"]) -> Any:
    """A word beside a place."""
    return server.scene.add_label(name, text, position=place, anchor="bottom-center")


def add_points(server: Any, scene: Scene, color: PointColor, size: float) -> Any:
    """The points, as large as ``size`` in the unit of the scene."""
    return server.scene.add_point_cloud(
        "/points",
        scene.points.astype(np.float32),
        point_colors(scene, color),
        point_size=size,
        point_shape="circle",
        point_shading="flat",
        precision="float32",
    )


def point_colors(scene: Scene, color: PointColor) -> UInt8[np.ndarray, "P 3"]:
    """The colors of the points of a scene. They are those of the photos, red to green by what the scene knows of each,
    or blue to yellow by height."""
    if color == "confidence" and scene.probability is not None:
        return sureness_colors(scene.probability)
    if color == "height":
        return height_colors(scene.points)
    return scene.colors


def add_links(server: Any, name: str, links: Sequence[Link]) -> list[Any]:
    """Lines, those of a kind together."""
    found = []
    for kind in dict.fromkeys(link.kind for link in links):
        ends = np.stack([link.ends for link in links if link.kind == kind]).astype(np.float32)
        wide = 1.5 if kind == "tie" else 2.5
        found.append(
            server.scene.add_line_segments(
                f"{name}/{kind}", ends, COLORS[kind], thickness=wide, thickness_units="screen"
            )
        )
    return found


def add_way(server: Any, name: str, way: Way) -> Any | None:
    """A line through the places that are known one after the other."""
    ends = np.stack([way.places[:-1], way.places[1:]], 1)
    ends = ends[np.isfinite(ends).all((1, 2))]
    if not len(ends):
        return None
    return server.scene.add_line_segments(
        name, ends.astype(np.float32), way.color, thickness=3.0, thickness_units="screen"
    )


def add_spreads(server: Any, name: str, frusta: Sequence[Frustum], dot: float) -> Any:
    """A ball at each place.

    Where the covariance is known the ellipsoid that holds it with 95 %, if that is larger.
    """
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=2, radius=1.0)
    turns, radii = zip(*(_ellipsoid(f, dot) for f in frusta), strict=True)
    return server.scene.add_batched_meshes_simple(
        name,
        np.asarray(ball.vertices),
        np.asarray(ball.faces),
        np.stack(turns),
        np.stack([f.center for f in frusta]),
        batched_scales=np.stack(radii).astype(np.float32),
        batched_colors=np.array([f.color or COLORS[f.role] for f in frusta], np.uint8),
        batched_opacities=np.array([0.9 if f.spread is None else 0.25 for f in frusta], np.float32),
        lod="off",
        cast_shadow=False,
        receive_shadow=False,
    )


def _ellipsoid(frustum: Frustum, dot: float) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "3"]]:
    if frustum.spread is None or not np.isfinite(frustum.spread).all():
        return np.array([1.0, 0.0, 0.0, 0.0]), np.full(3, dot)
    shares, axes = np.linalg.eigh((frustum.spread + frustum.spread.T) / 2)
    axes = axes * np.sign(np.linalg.det(axes))
    turn = quaternion_from_matrix(torch.from_numpy(np.ascontiguousarray(axes))).numpy()
    return turn, np.maximum(SIGMAS * np.sqrt(np.maximum(shares, 0)), dot)


def outlines(frusta: Sequence[Frustum], depth: float) -> Float[np.ndarray, "n 2 3"]:
    """The lines of many cameras."""
    ends = []
    for f in frusta:
        corners = f.center + depth * f.corners
        ends += [(corners[a], corners[b]) for a, b in _CORNERS] + [(f.center, corner) for corner in corners]
    return np.array(ends, np.float32).reshape(-1, 2, 3)


def small(photo: Rgb | None) -> Rgb:
    """The photo, or a gray one."""
    return np.full((60, 80, 3), 90, np.uint8) if photo is None else photo
