"""A training run in a live view: its numbers as curves in the panel, and the pictures of its last validation before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metriloc.viz.live import LiveView
from metriloc.viz.live_panel import small_text
from metriloc.viz.pictures import Picture

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Steps and values by name; NaN where a value is not known."""
_HEIGHT = 150
_MOST_CURVES = 24
_COLORS = ("#1f66d0", "#d9480f", "#1d7f4e", "#7a3fb0")
_GAP, _WIDTH = 0.12, 2.0


class TrainingView:
    """What a live view shows of a run. The same again where nothing has changed costs nothing."""

    def __init__(self, live: LiveView) -> None:
        self._server: Any = live.server
        self._charts: dict[str, Any] = {}
        self._pictures: list[Any] = []
        self._seen = False

    def curves(self, curves: Curves) -> None:
        """A chart for each name, the first 24. Those of the same name are continued."""
        for number, (name, (steps, values)) in enumerate(list(curves.items())[:_MOST_CURVES]):
            data = (np.asarray(steps, np.float64), np.asarray(values, np.float64))
            if name in self._charts:
                self._charts[name].data = data
                continue
            known = data[1][np.isfinite(data[1])]
            series = ({"label": "step"}, {"label": name, "stroke": _COLORS[number % len(_COLORS)], "width": 2})
            if len(known):
                self._server.gui.add_html(small_text(name))
                self._charts[name] = self._server.gui.add_uplot(
                    data, series, height=_HEIGHT, scales={"x": {"time": False}}, legend={"show": True}
                )

    def gallery(self, pictures: Sequence[Picture], heading: str) -> None:
        """Pictures side by side, in place of those that are there."""
        with self._server.atomic():
            for handle in self._pictures:
                handle.remove()
            self._pictures = []
            columns = max(1, int(np.ceil(np.sqrt(len(pictures)))))
            heights = [_WIDTH * p.rgb.shape[0] / p.rgb.shape[1] for p in pictures]
            top, widest = 0.0, columns * (_WIDTH + _GAP)
            for start in range(0, len(pictures), columns):
                row = max(heights[start : start + columns])
                for n in range(start, min(start + columns, len(pictures))):
                    x = (n - start + 0.5) * (_WIDTH + _GAP) - widest / 2
                    self._hang(f"/pictures/{n}", pictures[n], heights[n], (x, top + heights[n] / 2, 0.0))
                top += row + 3 * _GAP
            self._look_at(widest, top)
            self._pictures.append(
                self._server.scene.add_label(
                    "/pictures/heading", heading, position=(0.0, -0.25, 0.0), anchor="bottom-center"
                )
            )

    def _hang(self, name: str, picture: Picture, height: float, place: tuple[float, float, float]) -> None:
        scene = self._server.scene
        self._pictures.append(
            scene.add_image(name, picture.rgb, _WIDTH, height, position=place, jpeg_quality=85, cast_shadow=False)
        )
        below = (place[0], place[1] + height / 2 + 0.3 * _GAP, 0.0)
        self._pictures.append(
            scene.add_label(f"{name}/title", picture.title, position=np.subtract(below, place), anchor="top-center")
        )

    def _look_at(self, width: float, height: float) -> None:
        """From the front, all in sight."""
        self._server.scene.set_up_direction((0.0, -1.0, 0.0))
        camera = self._server.initial_camera
        distance = 1.1 * max(width, 1.15 * height)
        middle = np.array([0.2 * distance, height / 2, 0.0])  # the panel covers the right
        camera.position, camera.look_at = middle - (0, 0, distance), middle
        camera.fov = 0.9
        if not self._seen:  # browsers that came before there was anything
            self._seen = True
            for client in self._server.get_clients().values():
                client.camera.position, client.camera.look_at = camera.position, camera.look_at
