"""The frames of a stream in a live view: the way of the camera, how sure its places are, and a slider through time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from metriloc.viz.live_panel import small_text
from metriloc.viz.scene import Frustum, Way
from metriloc.viz.viser_nodes import (
    COLORS,
    add_spreads,
    add_way,
    camera_scale,
    camera_shape,
    outlines,
    small,
)

CHUNK = 50
"""Frames that are sent together; only the last, unfinished part is sent again."""
KEPT_PHOTOS = 400
"""Of the newest frames, whose photos are kept in memory."""
SAVED_FRAMES = 300
"""Of a recording; of more, an even selection."""
_PLAYED = 12.0  # frames a second
_NOWHERE = np.full(3, np.nan)


class LiveStream:
    """What a live view shows of frames with times.

    Nothing, not even a slider, before the first comes.
    """

    def __init__(self, server: Any, lock: Any) -> None:
        self._server, self._lock = server, lock
        self._frames: list[Frustum] = []
        self._depth, self._current = 0.1, -1
        self._camera: Any = None
        self._sure = True
        self._told: Callable[[Frustum], None] = lambda frustum: None
        self._playing = threading.Event()
        gui = server.gui
        self._folder = gui.add_folder("Time", visible=False)
        with self._folder:
            self._slider = gui.add_slider("Frame", 0, 1, 1, 0)
            self._follow = gui.add_checkbox("Newest", True)
            self._button = gui.add_button("Play")
            self._when = gui.add_html("")
        self._slider.on_update(lambda event: self._slid(event.client is not None))
        self._button.on_click(lambda _: self._play())

    def on_pick(self, told: Callable[[Frustum], None]) -> None:
        """Who hears of a frame that somebody clicks."""
        self._told = told

    def show(self, frames: Sequence[Frustum]) -> None:
        """These frames in place of all."""
        if [id(f) for f in frames] == [id(f) for f in self._frames]:
            return
        for start in range(0, len(self._frames), CHUNK):
            self._remove(start // CHUNK)
        self._frames = list(frames)
        for start in range(0, len(frames), CHUNK):
            self._draw(start // CHUNK)
        self._arrived()

    def add(self, frame: Frustum) -> None:
        """One more."""
        self._frames.append(frame)
        old = len(self._frames) - 1 - KEPT_PHOTOS
        if old >= 0:
            self._frames[old] = replace(self._frames[old], thumbnail=None)
        self._draw((len(self._frames) - 1) // CHUNK)
        self._arrived()

    def resize(self, depth: float) -> None:
        """How deep cameras are drawn from now on."""
        if depth == self._depth:
            return
        self._depth = depth
        for start in range(0, len(self._frames), CHUNK):
            self._draw(start // CHUNK)
        if self._camera is not None:
            self.pick(self._current)

    def show_spread(self, shown: bool) -> None:
        """Whether ellipsoids are drawn, or dots."""
        self._sure = shown
        for start in range(0, len(self._frames), CHUNK):
            self._draw(start // CHUNK)

    def some(self) -> list[int]:
        """Numbers of frames for a recording, the last one last."""
        count = len(self._frames)
        return np.linspace(0, count - 1, min(count, SAVED_FRAMES)).round().astype(int).tolist()

    def pick(self, number: int) -> None:
        """Show the camera of one frame, with its photo."""
        with self._lock:
            if not 0 <= number < len(self._frames):
                return
            frame, self._current = self._frames[number], number
            wxyz, fov, aspect = camera_shape(frame)
            shown = {"scale": camera_scale(frame, 2.5 * self._depth), "fov": fov, "aspect": aspect}
            if self._camera is None:
                self._camera = self._server.scene.add_camera_frustum(
                    "/stream/now", color=COLORS["query"], thickness=4.0, thickness_units="screen", **shown
                )
                self._camera.on_click(lambda _: self._told(self._frames[self._current]))
            for name, value in shown.items():
                setattr(self._camera, name, value)
            self._camera.wxyz, self._camera.position = wxyz, frame.center
            self._camera.color = frame.color or COLORS[frame.role]
            self._camera.image = small(frame.thumbnail)
            when = "" if frame.time is None else f"{frame.time:.3f} s"
            facts = "; ".join(f"{name} {text}" for name, text in frame.facts)
            self._when.content = small_text(f"{frame.label}, {when}. {facts}")

    # -- drawing --------------------------------------------------------------------------------------------------------
    def _draw(self, chunk: int) -> None:
        start = CHUNK * chunk
        frames = self._frames[start : start + CHUNK]
        before = self._frames[max(0, start - 1) : start]  # the way goes on from the part before
        places = [place for f in (*before, *frames) for place in ((_NOWHERE, f.center) if f.after_gap else (f.center,))]
        name = f"/stream/{chunk:04d}"
        add_way(self._server, f"{name}/way", Way("way", np.stack(places), COLORS["query"]))
        self._server.scene.add_line_segments(
            f"{name}/cameras",
            outlines(frames, 0.6 * self._depth),
            np.repeat(np.array([[f.color or COLORS[f.role]] * 2 for f in frames], np.uint8), 8, 0),
            thickness=1.2,
            thickness_units="screen",
        )
        shown = frames if self._sure else [replace(f, spread=None) for f in frames]
        dots = add_spreads(self._server, f"{name}/places", shown, 0.12 * self._depth)
        dots.on_click(lambda event: self._clicked(start + (event.instance_index or 0)))

    def _remove(self, chunk: int) -> None:
        self._server.scene.remove_by_name(f"/stream/{chunk:04d}")

    def _arrived(self) -> None:
        count = len(self._frames)
        self._folder.visible = count > 1
        self._slider.max = max(1, count - 1)
        if count and self._follow.value:
            self._slider.value = count - 1
            self.pick(count - 1)

    # -- hands on it ----------------------------------------------------------------------------------------------------
    def _clicked(self, number: int) -> None:
        if number < len(self._frames):
            self._follow.value = False
            self._slider.value = number
            self.pick(number)
            self._told(self._frames[number])

    def _slid(self, by_hand: bool) -> None:
        if by_hand:  # else whoever moved it has picked the frame
            self._follow.value = False
            self.pick(int(self._slider.value))

    def _play(self) -> None:
        """From the frame of the slider on, or from the start at the end; a second click stops."""
        if self._playing.is_set():
            self._playing.clear()
            return
        self._playing.set()
        self._follow.value, self._button.label = False, "Stop"
        number = self._current if self._current + 1 < len(self._frames) else -1
        while self._playing.is_set() and number + 1 < len(self._frames):
            number += 1
            self._slider.value = number
            self.pick(number)
            time.sleep(1 / _PLAYED)
        self._playing.clear()
        self._button.label = "Play"
