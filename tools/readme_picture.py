"""The picture of the README: the matches of the bundled example beside a 3D view of what they say.

    python tools/readme_picture.py [docs/assets/two_photos.webp]

Photos and depth are renderings of our own (``tools/render_example.py``); the view is the scene of the report's 3D view,
drawn once from above and behind the two cameras.
"""

from __future__ import annotations

import argparse
import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import metriloc
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.viz.matches import match_picture
from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, font
from metriloc.viz.scene import Scene, build_scene

HEIGHT = 360
MOST_BYTES = 150_000
SUPERSAMPLING = 3
REACH = 0.45
"""Metres in front of a camera at which its frustum ends."""
COLORS = {"reference": (90, 170, 255), "query": (255, 150, 40)}


def viewpoint(scene: Scene, size: tuple[int, int]) -> tuple[Camera, Pose]:
    """A camera above and behind the two, as near as shows all of them and nearly all points."""
    cameras = np.concatenate([np.stack([f.center, *(f.center + REACH * f.corners)]) for f in scene.frusta])
    low, high = np.quantile(scene.points, (0.02, 0.98), axis=0)
    inner = scene.points[((scene.points >= low) & (scene.points <= high)).all(1)]
    shown = torch.from_numpy(np.concatenate([cameras, inner])).double()
    middle = (shown.amin(0) + shown.amax(0)) / 2
    down, aside = (math.radians(angle) for angle in (30.0, 35.0))
    turn = so3_exp(torch.tensor([down, 0.0, 0.0]).double()) @ so3_exp(torch.tensor([0.0, aside, 0.0]).double())
    camera = Camera.from_fov(size, math.radians(50.0)).to(torch.float64)
    margin = 0.06 * min(size)
    for away in np.arange(1.0, 40.0, 0.1).tolist():
        view_from_world = Pose(turn, torch.tensor([0.0, 0.0, away]).double() - turn @ middle)
        uv, valid = camera.project(view_from_world.transform(shown))
        if bool(valid.all()) and bool(((uv >= margin) & (uv <= torch.tensor(size) - margin)).all()):
            return camera, view_from_world
    raise ValueError("the scene is too large to be shown")


def scene_picture(scene: Scene, size: tuple[int, int]) -> Rgb:
    """Points with the colours of the photo, the far ones first, and both cameras with their lines of sight."""
    camera, view_from_world = viewpoint(scene, size)
    canvas = Image.new("RGB", (SUPERSAMPLING * size[0], SUPERSAMPLING * size[1]), BACKGROUND)
    draw = ImageDraw.Draw(canvas)

    def place(xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = view_from_world.transform(torch.from_numpy(xyz).double())
        uv, _ = camera.project(seen)
        return SUPERSAMPLING * (uv.numpy() + 0.5), seen[:, 2].numpy()

    uv, depth = place(scene.points)
    for number in np.argsort(-depth):
        (x, y), radius = uv[number], SUPERSAMPLING * 11.0 / depth[number]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(scene.colors[number].tolist()))
    for frustum in scene.frusta:
        color = COLORS[frustum.role]
        corners, _ = place(frustum.center + REACH * frustum.corners)
        (center,), _ = place(frustum.center[None])
        ring = [tuple(corner) for corner in (*corners, corners[0])]
        draw.line(ring, fill=color, width=2 * SUPERSAMPLING)
        for corner in corners:
            draw.line((*center, *corner), fill=color, width=2 * SUPERSAMPLING)
        draw.text(
            (center[0], center[1] + 14 * SUPERSAMPLING), frustum.label, color, font(14 * SUPERSAMPLING), anchor="mm"
        )
    words = f"{scene.baseline:.2f} m apart"
    draw.text((10 * SUPERSAMPLING, 16 * SUPERSAMPLING), words, TEXT, font(15 * SUPERSAMPLING), anchor="lm")
    return np.asarray(canvas.resize(size, Image.Resampling.LANCZOS))


def readme_picture() -> Rgb:
    """Matches on the left, the scene on the right."""
    photos = files("metriloc") / "data" / "example"
    reference = metriloc.load_view(photos / "reference.jpg", depth=photos / "reference.depth.png")
    query = metriloc.load_view(photos / "query.jpg")
    estimate = metriloc.relative_pose(reference, query)
    scene = build_scene(estimate, reference, query)
    if scene is None:
        raise SystemExit(f"the example has no pose: {estimate.reasons[0]}")
    matches = match_picture(reference.image, query.image, estimate.details[0].inliers, max_lines=400, height=HEIGHT)
    right = scene_picture(scene, (round(1.2 * matches.shape[0]), matches.shape[0]))
    gap = np.full((matches.shape[0], 8, 3), BACKGROUND, np.uint8)
    return np.concatenate([matches, gap, right], 1)


def main() -> None:
    """Write the picture, as good as fits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Path(__file__).resolve().parents[1] / "docs" / "assets" / "two_photos.webp"
    parser.add_argument("out", type=Path, nargs="?", default=default)
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(readme_picture())
    for quality in (90, 80, 70, 60, 50):
        picture.save(out, quality=quality)
        if out.stat().st_size <= MOST_BYTES:
            break
    print(f"{out}: {picture.width} x {picture.height}, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
