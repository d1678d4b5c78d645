"""A map as a scene, and its report as a page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.mapping.facts import MapFacts, ScaleFacts
from metriloc.types import SfmMap
from metriloc.viz import SoftwareFacts
from metriloc.viz.eye import first_eye
from metriloc.viz.map_report import map_report
from metriloc.viz.whole_map import center_spread, shown_map

DOUBLE = torch.float64
HOSTILE = "</script><img src=x onerror=alert(1)>.jpg"
COLOR = (200, 60, 20)


def made_map(folder: Path | None = None, names: tuple[str, ...] = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")) -> SfmMap:
    """Four cameras in a row before a wall of 80 points; the last one sees ten of them."""
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(80, 3, generator=generator, dtype=DOUBLE) * torch.tensor([2.0, 1.0, 0.2]) + torch.tensor(
        [-1.0, -0.5, 4.0]
    )
    camera = Camera.from_colmap("PINHOLE", 160, 120, (120.0, 120.0, 80.0, 60.0))
    poses = [Pose(so3_exp(torch.tensor([0.0, 0.05 * n, 0.0], dtype=DOUBLE)), _at(0.3 * n)) for n in range(4)]
    index, point, uv = [], [], []
    for n, pose in enumerate(poses):
        seen = range(80 if n < 3 else 10)
        index += [n] * len(seen)
        point += list(seen)
        uv.append(camera.to(DOUBLE).project(pose.transform(xyz[: len(seen)]))[0])
    if folder is not None:
        for name in names:
            Image.new("RGB", (160, 120), COLOR).save(folder / name)
    return SfmMap(
        names, (camera,) * 4, Pose.stack(poses), xyz, torch.tensor(index), torch.tensor(point), torch.cat(uv), folder
    )


def _at(x: float) -> torch.Tensor:
    return torch.tensor([-x, 0.0, 0.0], dtype=DOUBLE)


def test_cameras_points_and_what_is_weak(tmp_path: Path) -> None:
    content = made_map(tmp_path)
    shown = shown_map(content, "metre")
    scene = shown.scene
    assert [f.role for f in scene.frusta] == ["map", "map", "map", "weak"]
    assert [link.kind for link in scene.links] == ["tie", "tie", "weak"] and not scene.is_pair
    assert scene.length_unit == "m"
    for frustum, center in zip(scene.frusta, content.cam_from_world.center(), strict=True):
        assert frustum.center == pytest.approx(shown.upright.transform(center[None])[0].numpy())
        assert frustum.thumbnail is not None and frustum.thumbnail.shape == (120, 160, 3)
    assert scene.points == pytest.approx(shown.upright.transform(content.xyz).numpy())
    assert np.abs(scene.colors.astype(int) - COLOR).max() < 6
    assert scene.probability is not None and scene.probability == pytest.approx([3 / 7] * 10 + [2 / 7] * 70)
    assert dict(scene.frusta[3].facts)["weak"] == "observes only 10 points"


def test_who_picks_a_camera_sees_its_photo_and_its_best_neighbor(tmp_path: Path) -> None:
    look = shown_map(made_map(tmp_path), "metre").scene.frusta[0].look
    assert look is not None
    photo, matches = look()
    assert photo.title == "a.jpg" and "80 points" in photo.note and photo.rgb.shape == (120, 160, 3)
    assert matches.title == "Shared with b.jpg" and matches.rgb.shape[1] > 2 * 160
    (tmp_path / "a.jpg").unlink()
    (gone,) = look()
    assert "a.jpg" in gone.note


def test_a_map_without_photos_has_outlines_and_points_by_height() -> None:
    scene = shown_map(made_map(), "unit of the map").scene
    assert all(f.thumbnail is None for f in scene.frusta)
    lowest, highest = scene.points[:, 1].argmax(), scene.points[:, 1].argmin()
    assert scene.colors[lowest].tolist() == [50, 70, 160] and scene.colors[highest].tolist() == [250, 200, 60]
    assert scene.length_unit == "map units"


def test_of_many_points_and_photos_an_even_selection_is_shown(tmp_path: Path) -> None:
    scene = shown_map(made_map(tmp_path), "metre", max_points=20, max_photos=2).scene
    assert len(scene.points) == 20 == len(scene.colors)
    assert [f.thumbnail is not None for f in scene.frusta] == [True, False, False, True]


def test_where_a_camera_stands_is_as_sure_as_its_pose() -> None:
    generator = torch.Generator().manual_seed(0)
    upright = Pose(so3_exp(torch.tensor([0.2, 0.1, -0.5], dtype=DOUBLE)), torch.zeros(3, dtype=DOUBLE))
    pose = Pose(so3_exp(torch.tensor([0.5, -1.0, 0.3], dtype=DOUBLE)), torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE))
    root = torch.randn(6, 6, generator=generator, dtype=DOUBLE) * 1e-3
    delta = torch.randn(20_000, 6, generator=generator, dtype=DOUBLE) @ root.mT
    moved = Pose.from_tangent(delta) @ Pose(pose.R.expand(20_000, 3, 3), pose.t.expand(20_000, 3))
    places = upright.transform(moved.center())
    spread = center_spread(pose, root @ root.mT, upright)
    assert spread == pytest.approx(torch.cov(places.mT).numpy(), abs=0.05 * float(np.abs(spread).max()))


def test_the_eye_has_all_of_a_map_in_sight(tmp_path: Path) -> None:
    scene = shown_map(made_map(tmp_path), "metre").scene
    eye = first_eye(scene)
    seen = (np.concatenate([scene.points, [f.center for f in scene.frusta]]) - eye.place(2.0)) @ eye.axes.T
    assert (seen[:, 2] < 0).all() and (np.abs(seen[:, :2] / seen[:, 2:]) < 1).all()
    assert eye.place(1.0)[1] < eye.target[1], "from above"


# -- the page ---------------------------------------------------------------------------------------------------------
FACTS = MapFacts(
    photos="photos",
    given=6,
    registered=4,
    error_px=0.7,
    others=(("x.jpg", "y.jpg"),),
    alone=("z.jpg",),
    left_out=("'n.txt' is no photo",),
    scale=ScaleFacts(0.02, ({"name": "distance", "sigma": 0.02, "share": 1.0, "said": "1.2 m <b>"},), (("a", "b"),)),
)


def page(content: SfmMap, facts: MapFacts | None = FACTS) -> str:
    return map_report(shown_map(content, "metre"), facts, HOSTILE, SoftwareFacts("1.2.3", "sift", seed=None))


def test_the_report_tells_what_is_weak_where_metres_are_from_and_what_is_not_in_the_map(tmp_path: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", page(made_map(tmp_path)))
    for words in (
        "4 of 6 photos in one map; 1 hangs on little",
        "Lengths are in metres, within 2 %",
        "1.2 m &lt;b&gt;",
        "a and b contradict each other about the scale",
        "observes only 10 points",
        "z.jpg: in no map",
        "x.jpg, y.jpg: a map of their own",
        "&#x27;n.txt&#x27; is no photo",
        "0.70 px (mean, of reprojection)",
    ):
        assert words in text, words
    elsewhere = page(made_map(), None)
    assert "made elsewhere" in elsewhere.lower() and "Not in the map" not in elsewhere


def test_the_report_requests_nothing_and_names_stay_text(tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg", "c.jpg", HOSTILE.replace("/", "_"))
    html = page(made_map(None, names))
    assert "onerror=alert(1)>" not in html.replace("&gt;", "") and not re.search(r"https?://|fetch\(|@import", html)
    assert "default-src 'none'" in html and html.count("<script") == 2
    (scene,) = (json.loads(s) for s in re.findall(r'<script type="application/json">(.*?)</script>', html))
    assert len(scene["frusta"]) == 4 and len(scene["points"]) == 80 and len(scene["links"]) == 3
    assert scene["pair"] is False and scene["eye"]["extent"] > 0


@pytest.mark.extras
@pytest.mark.slow
def test_a_browser_draws_the_report(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "map.html").write_text(page(made_map(tmp_path)))
    tab = browser.new_page(viewport={"width": 1000, "height": 900})
    tab.set_default_timeout(180_000)
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((tmp_path / "map.html").as_uri())
    read = "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    photo, blue = 0, 0
    for _ in range(120):  # photos are drawn when they are decoded
        pixels = np.array(tab.eval_on_selector("canvas", read)).reshape(-1, 4)[:, :3].astype(int)
        photo = int((np.abs(pixels - COLOR).max(1) < 25).sum())
        blue = int(((pixels[:, 2] > 150) & (pixels[:, 0] < 80)).sum())
        if photo > 200 and blue > 100:
            break
        tab.wait_for_timeout(500)
    assert photo > 200 and blue > 100 and not errors
    tab.close()


def test_an_infinite_point_is_named() -> None:
    scene = shown_map(made_map(), "metre").scene
    broken = replace(scene, points=scene.points * np.nan)
    with pytest.raises(ValueError, match="finite"):
        broken.to_json([None] * 4)
