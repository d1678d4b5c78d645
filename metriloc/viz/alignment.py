"""An alignment as it went: a GIF or video of the points moving in the photo, and the folder of the published PixLoc viewer.

Few of many steps are worth showing: the first, the last, and those between which the points moved enough to be seen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.types import View
from metriloc.viz.localized import LocalizedQuery, reference_points, shown_points
from metriloc.viz.marks import Drawing, project, sized_photo
from metriloc.viz.pictures import Rgb, encode_jpeg, rgb_from_image
from metriloc.viz.video import encode_gif, encode_video

_SEEN_MOTION = 0.005
"""Median motion of the points, as a share of the photo's smaller side, that a new frame is worth."""
_TRAIL = 6
_MAX_FRAMES = 30
_VIDEO_SIDE, _VIDEO_FRAMES, _VIDEO_SECONDS = 960, 240, 4.0
_VIEWER_POINTS = 500
_VIEWER_STEPS = 60
Y_UP: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "cmu": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "7scenes": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
}
"""Turns of the world of known data sets that make +y point up in the viewer."""


def shown_steps(camera: Camera, poses: Sequence[Pose], xyz: Float[Tensor, "N 3"]) -> list[int]:
    """Places of the poses worth a frame.

    The first, the last, and whenever the points moved enough since the one before. Differs from the
    published code, which never keeps the very last pose.
    """
    if not poses:
        return []
    least = _SEEN_MOTION * float(camera.size.min())
    kept, moved = [0], 0.0
    before = project(camera, poses[0], xyz)
    for place in range(1, len(poses)):
        now = project(camera, poses[place], xyz)
        both = np.isfinite(now).all(-1) & np.isfinite(before).all(-1)
        moved += float(np.median(np.linalg.norm(now[both] - before[both], axis=-1))) if both.any() else 0.0
        before = now
        if moved >= least:
            kept.append(place)
            moved = 0.0
    return kept if kept[-1] == len(poses) - 1 else [*kept, len(poses) - 1]


def alignment_frames(
    view: View, poses: Sequence[Pose], xyz: Float[Tensor, "N 3"], side: int = 480, most: int = _MAX_FRAMES
) -> list[Rgb]:
    """Pictures of the points under each pose. They have a short trail and one size. Raises ValueError without poses."""
    if not poses:
        raise ValueError("an alignment of no step cannot be shown")
    photo, scale = sized_photo(view, side, dim=0.7)
    steps = shown_steps(view.camera, poses, xyz)
    chosen = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    places = [(project(view.camera, poses[steps[k]], xyz) + 0.5) * scale - 0.5 for k in chosen.tolist()]
    frames = []
    for number, uv in enumerate(places):
        with Drawing(photo) as drawing:
            for k in range(max(1, number - _TRAIL + 1), number + 1):
                for a, b in zip(places[k - 1], places[k], strict=True):
                    drawing.line(a, b, (255, 225, 60, 160))
            for place in uv:
                drawing.mark(place, "dot", (255, 60, 60), 5.0)
        frames.append(drawing.picture)
    return frames


def alignment_gif(
    view: View, poses: Sequence[Pose], xyz: Float[Tensor, "N 3"], side: int = 480, seconds: float = 4.0
) -> bytes:
    """A GIF of ``alignment_frames``, 30 at most.

    The last stays a second longer. Raises ValueError without poses.
    """
    frames = alignment_frames(view, poses, xyz, side)
    each = max(20, round(1000 * seconds / len(frames)))
    return encode_gif(frames, fps=1000 / each, last_ms=each + 1000)


def alignment_video(entry: LocalizedQuery, fps: float | None = None, seconds: float | None = None) -> bytes | None:
    """An MP4 file of the alignment. It shows every step that shows, lasts 4 seconds without a rate, and is None where
    there is nothing to show.

    Raises InputError without ffmpeg and when it fails.
    """
    poses, xyz = _steps_of(entry), shown_points(entry)
    if len(poses) < 2 or len(xyz) == 0:
        return None
    frames = alignment_frames(entry.query, poses, xyz, _VIDEO_SIDE, _VIDEO_FRAMES)
    if fps is None and seconds is None:
        seconds = _VIDEO_SECONDS
    return encode_video(frames, fps=fps, seconds=seconds)


def _steps_of(entry: LocalizedQuery) -> list[Pose]:
    """Where the alignment began and where each step led; fewer than two where no steps are known."""
    start = [stage.cam_from_world for stage in entry.details.stages[:1]]
    return [*start, *(pose for course in entry.trace.courses for pose in course.poses)]


def alignment_files(entry: LocalizedQuery, up: str = "none") -> dict[str, bytes]:
    """File name -> content: ``alignment.gif`` and the viewer's folder.

    Nothing where no poses of steps are known, or no reference can be read. up: a key of ``Y_UP``.
    """
    poses, xyz = _steps_of(entry), shown_points(entry)
    if len(poses) < 2 or len(xyz) == 0:
        return {}
    files = {"alignment.gif": alignment_gif(entry.query, poses, xyz)}
    seen = reference_points(entry)
    if seen.views:
        chosen = np.linspace(0, len(seen.xyz) - 1, min(_VIEWER_POINTS, len(seen.xyz))).round().astype(int)
        points = torch.from_numpy(seen.xyz[chosen])
        steps = shown_steps(entry.query.camera, poses, points)
        few = np.linspace(0, len(steps) - 1, min(_VIEWER_STEPS, len(steps))).round().astype(int)
        shown = [poses[steps[k]] for k in few.tolist()]
        dump = viewer_dump(entry.query, shown, seen.views, points, seen.colors[chosen], up)
        files |= {f"viewer/{name}": content for name, content in dump.items()}
    return files


def viewer_dump(
    query: View,
    poses: Sequence[Pose],
    references: Sequence[View],
    xyz: Float[Tensor, "N 3"],
    colors: np.ndarray,
    up: str = "none",
) -> dict[str, bytes]:
    """File name -> content of a folder for the published viewer.

    ``dump.json``, ``dump_p2d.json``, ``query.jpg``, ``ref0.jpg`` and so on. poses: of the query,
    one a step; references: photos with poses; colours: RGB of the points, 0..255; up: a key of
    ``Y_UP``. Raises ValueError for an unknown one, without poses, and for a reference without a
    pose.
    """
    if up not in Y_UP:
        raise ValueError(f"there is no turn {up!r} of the world: one of {', '.join(Y_UP)}")
    if not poses:
        raise ValueError("a dump needs at least one pose of the query")
    known = [view.cam_from_world for view in references if view.cam_from_world is not None]
    if len(known) != len(references):
        raise ValueError("a dump needs the pose of every reference")
    turn = torch.tensor(Y_UP[up], dtype=torch.float64)
    steps = [_normalized(query, pose, xyz) for pose in poses]
    masks = [_inside(places) for places in steps]
    ever = np.any(masks, axis=0) if len(xyz) else np.zeros(0, bool)
    seen = []
    for view, pose in zip(references, known, strict=True):
        places = _normalized(view, pose, xyz)
        seen.append(places[_inside(places) & ever])
    files = {f"ref{n}.jpg": _jpeg(view) for n, view in enumerate(references)} | {"query.jpg": _jpeg(query)}
    content = {
        "p3d": {"colors": colors.tolist(), "xyz": _rounded(xyz.double().cpu() @ turn.mT)},
        "T": {"refs": [_transform(p, turn) for p in known], "query": [_transform(p, turn) for p in poses]},
        "camera": {"refs": [_frustum(view.camera) for view in references], "query": _frustum(query.camera)},
        "image": {"refs": [f"ref{n}.jpg" for n in range(len(references))], "query": "query.jpg"},
        "p2d": {"refs": [_rounded(p) for p in seen], "query": _rounded(steps[-1][masks[-1]])},
    }
    moving = {
        "query": [_rounded(places[mask]) for places, mask in zip(steps, masks, strict=True)],
        "masks": [mask.astype(int).tolist() for mask in masks],
    }
    return {**files, "dump.json": _json(content), "dump_p2d.json": _json(moving)}


def _normalized(view: View, pose: Pose, xyz: Tensor) -> Float[np.ndarray, "N 2"]:
    """Places in the photo as shares of its sides; NaN where not seen. As published, from the first pixel's centre: half a
    pixel from the photo's corner."""
    return project(view.camera, pose, xyz) / np.array(view.size)


def _inside(places: np.ndarray) -> np.ndarray:
    return np.isfinite(places).all(-1) & (places >= 0).all(-1) & (places <= 1).all(-1)


def _transform(pose: Pose, turn: Tensor) -> list[Any]:
    pose = pose.to("cpu", torch.float64)
    turned = Pose(pose.R @ turn.mT, pose.t)
    # three decimals would turn a camera by a tenth of a degree
    return [turned.quaternion().tolist(), _rounded(turned.t)]


def _frustum(camera: Camera) -> list[Any]:
    """The outline of the image and a roof over its upper side, at depth 1."""
    w, h = (float(v) for v in camera.size)
    outline = torch.tensor([[0, 0], [w, 0], [w, h], [0, h], [0, 0], [w / 2, -h / 5], [w, 0]], dtype=torch.float64)
    return _rounded((outline - camera.c.cpu().double()) / camera.f.cpu().double())


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=np.float64), 3).tolist()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _jpeg(view: View) -> bytes:
    return encode_jpeg(rgb_from_image(view.image), 50)
