"""The live view: what a browser draws of it, who may look, and what is saved. Needs viser."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError
from metriloc.viz.live import LiveView, save_scene
from metriloc.viz.live_training import TrainingView
from metriloc.viz.pictures import Picture
from metriloc.viz.scene import Frustum, Scene, frustum_at
from metriloc.viz.viser_nodes import SIGMAS, _ellipsoid, camera_shape, point_colors

pytestmark = pytest.mark.extras
if importlib.util.find_spec("viser") is None:
    pytest.skip("viser is not here: pip install viser", allow_module_level=True)

DOUBLE = torch.float64
CAMERA = Camera.from_colmap("PINHOLE", 160, 120, (120.0, 120.0, 80.0, 60.0))
GREEN = (20, 200, 60)


def camera(label: str, x: float, role: Any = "map", time: float | None = None, **more: Any) -> Frustum:
    pose = Pose(so3_exp(torch.tensor([0.1, 0.2 * x, 0.0], dtype=DOUBLE)), torch.tensor([-x, 0.0, 0.0], dtype=DOUBLE))
    photo = np.full((120, 160, 3), GREEN, np.uint8)
    return replace(frustum_at(role, label, pose, CAMERA, photo), time=time, **more)


def scene(*frusta: Frustum) -> Scene:
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-0.5, 0.5, 20), [3.0]), -1).reshape(-1, 3)
    share = np.linspace(0, 1, len(grid))
    colors = np.full((len(grid), 3), (150, 20, 150), np.uint8)
    return Scene(frusta or (camera("a.jpg", 0), camera("b.jpg", 0.5)), grid, colors, 0.0, True, probability=share)


def seen(browser: Any, address: str, ready: Callable[[np.ndarray], bool]) -> tuple[Any, np.ndarray]:
    """A tab that shows an address, and its pixels once they are as they should be (or a minute has passed)."""
    import io

    from PIL import Image

    tab = browser.new_page(viewport={"width": 900, "height": 500})
    tab.set_default_timeout(180_000)  # without a GPU, and perhaps beside other work
    tab.goto(address)
    tab.wait_for_selector("canvas")
    pixels = np.zeros((1, 1, 3), int)
    for _ in range(120):
        tab.wait_for_timeout(500)
        pixels = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")).astype(int)
        if ready(pixels):
            break
    return tab, pixels


def drawn(pixels: np.ndarray) -> bool:
    """Photos in their cameras, blue outlines, and points."""
    photo = np.abs(pixels - GREEN).max(-1) < 40
    blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 90) & (pixels[..., 1] < 140)
    points = np.abs(pixels - (150, 20, 150)).max(-1) < 40
    return bool(photo.sum() > 500 and blue.sum() > 100 and points.sum() > 500)


def test_shapes_are_those_of_the_cameras() -> None:
    pose = Pose(so3_exp(torch.tensor([0.3, -0.5, 0.1], dtype=DOUBLE)), torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE))
    wxyz, fov, aspect = camera_shape(frustum_at("map", "a", pose, CAMERA))
    assert abs(float(np.dot(wxyz, pose.inverse().quaternion().numpy()))) == pytest.approx(1.0)
    assert fov == pytest.approx(2 * np.arctan(60 / 120)) and aspect == pytest.approx(4 / 3)


def test_ellipsoids_hold_95_percent_and_are_no_smaller_than_a_dot() -> None:
    generator = np.random.default_rng(0)
    root = generator.normal(size=(3, 3))
    turn, radii = _ellipsoid(camera("a", 0, spread=root @ root.T), 0.0)
    R = Pose.from_quaternion(torch.from_numpy(turn), torch.zeros(3, dtype=DOUBLE)).R.numpy()
    places = generator.normal(size=(20_000, 3)) @ root.T
    assert ((((places @ R) / radii) ** 2).sum(1) < 1).mean() == pytest.approx(0.95, abs=0.01) and SIGMAS > 2.7
    assert _ellipsoid(camera("a", 0), 0.5)[1].tolist() == [0.5] * 3
    assert _ellipsoid(camera("a", 0, spread=np.eye(3) * 1e-8), 0.5)[1].tolist() == [0.5] * 3


def test_colors_of_points_by_what_is_asked() -> None:
    shown = scene()
    assert (point_colors(shown, "photo") == shown.colors).all()
    by_confidence = point_colors(shown, "confidence").astype(int)
    assert by_confidence[0, 0] > by_confidence[0, 1] and by_confidence[-1, 1] > by_confidence[-1, 0]
    by_height = point_colors(shown, "height").astype(int)
    assert by_height[shown.points[:, 1].argmin(), 0] > 200 > by_height[shown.points[:, 1].argmax(), 0]


@pytest.mark.slow
def test_a_browser_draws_it_and_a_click_tells_of_a_camera(browser: Any) -> None:
    note = Picture("Its matches", np.zeros((20, 40, 3), np.uint8), "a <b> note")
    frusta = (camera("a.jpg", 0), camera("b <i>.jpg", 0.5, facts=(("points", "<u>7"),), look=lambda: (note,)))
    with LiveView(port=0) as live:
        live.show(scene(*frusta))
        tab, pixels = seen(browser, live.url, drawn)
        assert drawn(pixels)
        green = np.abs(pixels - GREEN).max(-1) < 40
        rows, columns = green.nonzero()
        right = columns > (columns.min() + columns.max()) / 2
        text = ""
        for _ in range(40):  # a click may come before viser listens
            tab.mouse.click(int(np.median(columns[right])), int(np.median(rows[right])))
            tab.wait_for_timeout(500)
            text = tab.inner_text("body")
            if "a <b> note" in text:
                break
        assert "b <i>.jpg" in text and "points: <u>7" in text and "Its matches" in text and "a <b> note" in text
        tab.close()


@pytest.mark.slow
def test_a_stream_grows_and_is_gone_through(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metriloc.viz.live_stream.CHUNK", 5)
    with LiveView(port=0) as live:
        live.show(scene())
        for n in range(12):
            live.add_frame(camera(f"f{n}.jpg", 0.05 * n, "query", time=0.1 * n, spread=np.eye(3) * 1e-4))
        assert live.stream.some() == list(range(12))
        tab, _ = seen(
            browser, live.url, lambda pixels: bool(((pixels[..., 0] > 180) & (pixels[..., 2] < 60)).sum() > 200)
        )
        assert "f11.jpg, 1.100 s." in tab.inner_text("body")
        live.stream.pick(7)
        tab.wait_for_function("document.body.innerText.includes('f7.jpg, 0.700 s.')")
        tab.close()


@pytest.mark.slow
def test_a_training_run_has_curves_and_pictures(browser: Any) -> None:
    with LiveView(port=0) as live:
        view = TrainingView(live)
        view.curves({"train loss": ([1, 2, 3], [3.0, 2.0, 1.0]), "validation auc": ([1, 2], [np.nan, 0.5])})
        view.gallery([Picture(f"pair {n}", np.full((60, 80, 3), GREEN, np.uint8)) for n in range(3)], "step 3")
        view.curves({"train loss": ([1, 2, 3, 4], [3.0, 2.0, 1.0, 0.5])})
        tab, pixels = seen(browser, live.url, lambda p: bool((np.abs(p - GREEN).max(-1) < 40).sum() > 5000))
        assert (np.abs(pixels - GREEN).max(-1) < 40).sum() > 5000
        text = tab.inner_text("body")
        assert "train loss" in text and "validation auc" in text and tab.locator("canvas").count() >= 3
        tab.close()


def test_what_stays_is_not_sent_again_and_what_goes_is_taken_away() -> None:
    first, second, third = camera("a", 0), camera("b", 0.5), camera("c", 1.0)
    with LiveView(port=0) as live:
        live.show(scene(first, second))
        kept = live._cameras[id(second)][1][0]
        sent: list[str] = []
        queue = live.server._websock_server.queue_message
        live.server._websock_server.queue_message = lambda message: (
            sent.append(type(message).__name__),
            queue(message),
        )
        live.show(replace(scene(second, third), points=live._scene.points, colors=live._scene.colors))  # type: ignore[union-attr]
        assert sent.count("CameraFrustumMessage") == 1 and "PointCloudMessage" not in sent
        assert set(live._cameras) == {id(second), id(third)} and live._cameras[id(second)][1][0] is kept
        with pytest.raises(ValueError, match="has a time"):
            live.add_frame(first)


def test_names_stand_beside_cameras_where_they_are_few() -> None:
    pair = camera("a", 0, "reference"), camera("b", 0.5, "query")
    more = camera("c", 1.0, "query"), camera("d", 1.5, "query")
    with LiveView(port=0) as live, warnings.catch_warnings():
        warnings.simplefilter("error")
        live.show(scene(*pair))
        assert [len(handles) for _, handles in live._cameras.values()] == [2, 2]
        live.show(scene(*pair, *more))
        assert [len(handles) for _, handles in live._cameras.values()] == [1] * 4
        live.show(scene(*pair))
        live.show(scene(camera("e", 0, "reference"), camera("f", 0.5, "query")))
        assert [len(handles) for _, handles in live._cameras.values()] == [2, 2]


def test_photos_of_a_long_stream_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metriloc.viz.live_stream.KEPT_PHOTOS", 5)
    with LiveView(port=0) as live:
        for n in range(12):
            live.add_frame(camera(f"f{n}", 0.1 * n, "query", time=float(n)))
        assert [f.thumbnail is not None for f in live.stream._frames] == [False] * 7 + [True] * 5


# -- files ------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_saved_files_are_drawn_by_a_browser(browser: Any, tmp_path: Path, serve: Callable[[Path], str]) -> None:
    import viser

    save_scene(scene(), tmp_path / "scene.html")
    save_scene(scene(), tmp_path / "scene.viser")
    tab, pixels = seen(browser, (tmp_path / "scene.html").as_uri(), drawn)
    assert drawn(pixels)
    tab.close()
    page = tmp_path / "page"
    page.mkdir()
    shutil.copy(Path(viser.__file__).parent / "client" / "build" / "index.html", page)
    shutil.copy(tmp_path / "scene.viser", page)
    tab, pixels = seen(browser, f"{serve(page)}/index.html?playbackPath=scene.viser", drawn)
    assert drawn(pixels)
    tab.close()


def test_a_saved_stream_is_a_recording(tmp_path: Path) -> None:
    frames = [camera(f"f{n}", 0.1 * n, "query", time=float(n)) for n in range(5)]
    save_scene(scene(camera("a", 0), *frames), tmp_path / "stream.viser")
    save_scene(scene(camera("a", 0)), tmp_path / "still.viser")
    assert (tmp_path / "stream.viser").stat().st_size > 0
    assert recorded_seconds(tmp_path / "stream.viser") == pytest.approx(0.5)
    assert recorded_seconds(tmp_path / "still.viser") == 0


def recorded_seconds(path: Path) -> float:
    import msgspec
    import zstandard

    data = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()[8:])
    length = int.from_bytes(data[:8], "little")
    return float(msgspec.msgpack.decode(data[8 : 8 + length])["durationSeconds"])


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in none of .viser, .html"):
        save_scene(scene(), tmp_path / "scene.ply")
    with pytest.raises(InputError, match="its folder is missing"):
        save_scene(scene(), tmp_path / "no" / "scene.viser")


# -- who may look -----------------------------------------------------------------------------------------------------
def test_a_port_in_use_and_hosts_that_are_none_are_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is in use: give another"):
            LiveView(port=port)
    with pytest.raises(InputError, match="no address of this machine"):
        LiveView(host="192.0.2.1")
    with pytest.raises(InputError, match="there is no host"):
        LiveView(host="no such host")


def test_pages_of_other_addresses_may_not_look_and_nobody_can_publish_the_view() -> None:
    import viser
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    def first_message(origin: str | None) -> Any:
        address = f"ws://127.0.0.1:{live.port}"
        with connect(address, origin=origin, subprotocols=[f"viser-v{viser.__version__}"]) as client:  # type: ignore[arg-type, list-item]
            return client.recv(10)

    with LiveView(port=0) as live:
        live.show(scene())
        assert live.server.request_share_url() is None
        for own in (None, f"http://127.0.0.1:{live.port}", "http://localhost:9999"):
            assert first_message(own)
        for other in ("https://example.org", "http://127.0.0.1.example.org", "null"):
            with pytest.raises(ConnectionClosed, match="may not look"):
                first_message(other)
