"""A scene in the browser, live: what is found is seen as it is found, and any camera can be asked for its photo.

The server runs beside the work (viser, extra ``view``); whoever opens its address sees the same, at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.io import InputError, write_atomically
from metriloc.viz.eye import Eye, first_eye
from metriloc.viz.live_panel import CameraPanel, small_text
from metriloc.viz.live_stream import LiveStream
from metriloc.viz.scene import Frustum, Scene
from metriloc.viz.viser_nodes import (
    add_camera,
    add_grid,
    add_label,
    add_links,
    add_points,
    add_spreads,
    add_way,
    camera_scale,
    look_first,
)
from metriloc.viz.viser_server import require_viser, start_server, stop_server

SAVED = (".viser", ".html")
"""What a scene can be saved as: a recording of viser, and a page that holds it."""
_NAMED = 3  # cameras that have their names beside them; of more, names would hide each other
_SAVED_STEP = 0.1  # seconds a frame of a stream is seen in a recording


class LiveView:
    """A 3D scene that a browser shows, while it changes.

    - host, port: where it is served; by default for this machine alone, at 8080 or the next port that is free. 0 is any.
    - title: above the panel.

    Raises ImportError without viser, and InputError for a port that is in use and for a host that is none.

    >>> with LiveView() as live:  # doctest: +SKIP
    ...     live.show(build_scene(estimate, reference, query))
    ...     live.wait()
    """

    def __init__(self, host: str = "127.0.0.1", port: int | None = None, title: str = "metriloc") -> None:
        self.server: Any = start_server(host, port, title)
        self.host, self.port = host, int(self.server.get_port())
        self._lock = threading.RLock()
        self._scene: Scene | None = None
        self._eye: Eye | None = None
        self._cameras: dict[int, tuple[Frustum, list[Any]]] = {}
        self._lines: list[Any] = []
        self._drawn_lines = (0, 0)
        self._drawn_points: tuple[np.ndarray, str, float, float] | None = None
        self._spreads: list[Any] = []
        gui = self.server.gui
        self._said = gui.add_html("")
        self._folder = gui.add_folder("Shown", visible=False)
        with self._folder:
            self._color = gui.add_dropdown("Points", ("photo", "confidence", "height"), initial_value="photo")
            self._point_size = gui.add_slider("Point size", 0.2, 5.0, 0.1, 1.0)
            self._camera_size = gui.add_slider("Camera size", 0.2, 5.0, 0.1, 1.0)
            self._photos = gui.add_checkbox("Photos", True)
            self._tied = gui.add_checkbox("Lines", True)
            self._sure = gui.add_checkbox("How sure", True)
            self._legend = gui.add_html("")
        self.stream = LiveStream(self.server, self._lock)
        self.panel = CameraPanel(self.server)
        self.stream.on_pick(self.panel.tell)
        for handle in (self._color, self._point_size):
            handle.on_update(lambda _: self._draw_points())
        self._camera_size.on_update(lambda _: self._resize())
        self._photos.on_update(lambda _: self._show_photos())
        self._tied.on_update(lambda _: self._show_lines())
        self._sure.on_update(lambda _: self._show_spreads())

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its address, as a browser on this machine finds it."""
        host = "127.0.0.1" if self.host in ("localhost", "0.0.0.0", "") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    # -- what is shown --------------------------------------------------------------------------------------------------
    def show(self, scene: Scene) -> None:
        """Show a scene in place of what is shown. Cameras that were there before are not sent again."""
        with self._lock, self.server.atomic():
            new = self._scene is None or not self._scene.frusta
            self._scene, self._eye = scene, first_eye(scene)
            self._folder.visible = self.panel.visible = True
            look_first(self.server, self._eye, scene.is_pair)
            step = add_grid(self.server, self._eye)
            self._legend.content = small_text(_legend(scene, step))
            self._draw_points()
            self._draw_lines(scene)
            still = [f for f in scene.frusta if f.time is None]
            self._draw_cameras(still, scene.is_pair and len(still) <= _NAMED)
            self.stream.resize(self._depth)
            self.stream.show([f for f in scene.frusta if f.time is not None])
        if new:
            self._take_clients()

    def add_frame(self, frustum: Frustum) -> None:
        """One more camera of a stream: it has a ``time``. Without a scene before it, the view is set on it."""
        if frustum.time is None:
            raise ValueError(f"a frame of a stream has a time, {frustum.label!r} has none")
        with self._lock:
            if self._scene is None:
                self.show(Scene((frustum,), np.zeros((0, 3)), np.zeros((0, 3), np.uint8), 0.0, True))
                return
            with self.server.atomic():
                self.stream.add(frustum)

    def say(self, text: str) -> None:
        """A line at the top of the panel."""
        self._said.content = small_text(text)

    # -- the end --------------------------------------------------------------------------------------------------------
    def save(self, path: Path) -> None:
        """Save what is shown as a file. It is a recording (``.viser``) or one page for any browser (``.html``).

        Raises InputError for another ending and a file that cannot be written.
        """
        require_saved(path)
        with self._lock:
            serializer = self.server.get_scene_serializer()
            for number in self.stream.some():
                self.stream.pick(number)
                serializer.insert_sleep(_SAVED_STEP)
            data = serializer.serialize() if path.suffix.lower() == ".viser" else serializer.as_html()
        write_atomically(path, data)

    def wait(self) -> None:
        """Until Ctrl+C."""
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return

    def close(self) -> None:
        """End the server."""
        stop_server(self.server)

    # -- drawing --------------------------------------------------------------------------------------------------------
    @property
    def _depth(self) -> float:
        return 0.1 if self._eye is None else self._eye.frustum * float(self._camera_size.value)

    def _draw_points(self) -> None:
        """Sent again only where something has changed: there may be many."""
        with self._lock:
            if self._scene is None or self._eye is None:
                return
            points, color, larger = self._scene.points, self._color.value, float(self._point_size.value)
            before, self._drawn_points = self._drawn_points, (points, color, larger, self._eye.extent)
            same = before is not None and before[0] is points and before[1:3] == (color, larger)
            if before is not None and same and 0.8 < before[3] / self._eye.extent < 1.25:
                self._drawn_points = before
                return
            dense = max(0.4, min(1.0, 60 / max(1, len(points)) ** 0.5))
            add_points(self.server, self._scene, color, 0.008 * self._eye.extent * dense * larger)

    def _draw_lines(self, scene: Scene) -> None:
        if self._drawn_lines == (id(scene.links), id(scene.ways)):
            return
        self._drawn_lines = (id(scene.links), id(scene.ways))
        self._lines = [*self._gone(self._lines), *add_links(self.server, "/lines", scene.links)]
        for number, way in enumerate(scene.ways):
            drawn = add_way(self.server, f"/ways/{number}", way)
            self._lines += [] if drawn is None else [drawn]
        self._show_lines()

    @staticmethod
    def _gone(handles: Sequence[Any]) -> list[Any]:
        """Nothing, after what was drawn is taken away."""
        for handle in handles:
            handle.remove()
        return []

    def _show_lines(self) -> None:
        for handle in self._lines:
            handle.visible = bool(self._tied.value)

    def _show_spreads(self) -> None:
        with self._lock:
            for handle in self._spreads:
                handle.visible = bool(self._sure.value)
            self.stream.show_spread(bool(self._sure.value))

    def _draw_cameras(self, frusta: Sequence[Frustum], named: bool) -> None:
        kept = {id(f) for f in frusta}
        for key in [key for key in self._cameras if key not in kept]:
            self._gone(self._cameras.pop(key)[1][::-1])
        for frustum, handles in () if named else self._cameras.values():
            self._cameras[id(frustum)] = (frustum, [handles[0], *self._gone(handles[1:])])
        for frustum in frusta:
            if id(frustum) not in self._cameras:
                self._cameras[id(frustum)] = (frustum, self._camera(frustum, named))
        sure = [f for f in frusta if f.spread is not None]
        self._spreads = [
            *self._gone(self._spreads),
            *([add_spreads(self.server, "/spreads", sure, 0.0)] if sure else []),
        ]
        self._resize()

    def _camera(self, frustum: Frustum, named: bool) -> list[Any]:
        name = f"/cameras/{frustum.role}/{_node_name(frustum.label)} {id(frustum):x}"
        handle = add_camera(self.server, name, frustum, self._depth, bool(self._photos.value))
        handle.on_click(lambda _: self.panel.tell(frustum))
        return [handle, add_label(self.server, f"{name}/name", frustum.label, np.zeros(3))] if named else [handle]

    def _resize(self) -> None:
        with self._lock:
            for frustum, handles in self._cameras.values():
                handles[0].scale = camera_scale(frustum, self._depth)
            self.stream.resize(self._depth)

    def _show_photos(self) -> None:
        with self._lock:
            for frustum, handles in self._cameras.values():
                handles[0].image = frustum.thumbnail if self._photos.value else None

    def _take_clients(self) -> None:
        """Browsers that came before there was anything look at it now."""
        for client in self.server.get_clients().values():
            camera, first = client.camera, self.server.initial_camera
            camera.position, camera.look_at = first.position, first.look_at


def require_saved(path: Path) -> None:
    """Refuse a file name that no scene can be saved under. Raises InputError for it, and ImportError without viser."""
    if path.suffix.lower() not in SAVED:
        raise InputError(
            f"'{path}' ends in none of {', '.join(SAVED)}: a recording of viser, or a page for any browser"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"'{path}' cannot be written: {'it is a folder' if path.is_dir() else 'its folder is missing'}"
        )
    require_viser()


def save_scene(scene: Scene, path: Path) -> None:
    """A scene as a file, without anybody looking. For a moment viser listens at a free port of this machine."""
    require_saved(path)
    with LiveView(port=0) as live:
        live.show(scene)
        live.save(path)


def _legend(scene: Scene, step: float) -> str:
    words = [f"Grid: {step:g} {scene.length_unit}."]
    if scene.probability is not None:
        words.append(f"Confidence: {scene.meaning}.")
    if scene.is_pair:
        words.append(f"Baseline: {scene.baseline:.3g} {'m' if scene.metric else '(no metres)'}.")
    return " ".join(words)


def _node_name(label: str) -> str:
    """A label as a part of viser's paths."""
    return "".join(c if c.isalnum() or c in " ._-" else "_" for c in label)[:80] or "camera"
