"""The part of a live view that tells of one camera: what is known of it, its photo, and its matches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from metriloc.page import escaped
from metriloc.viz.pictures import Picture
from metriloc.viz.scene import Frustum
from metriloc.viz.seen_photos import missing

_HINT = "Click a camera for its photo and matches."


class CameraPanel:
    """The panel of a camera. It has facts as text, pictures below, and a button to stand where the camera stood."""

    def __init__(self, server: Any) -> None:
        self._server, self._lock = server, threading.Lock()
        self._told: Frustum | None = None
        self._pictures: list[Any] = []
        gui = server.gui
        self._folder = gui.add_folder("Camera", visible=False)
        with self._folder:
            self._facts = gui.add_html(small_text(_HINT))
            self._stand = gui.add_button("Stand there", visible=False)
        self._stand.on_click(lambda event: self._go(event.client))

    @property
    def visible(self) -> bool:
        """Whether it is seen; not before there are cameras."""
        return bool(self._folder.visible)

    @visible.setter
    def visible(self, visible: bool) -> None:
        self._folder.visible = visible

    def tell(self, frustum: Frustum) -> None:
        """What is known of a camera, and what its ``look`` makes."""
        with self._lock:
            self._told = frustum
            rows = [("", frustum.label), *frustum.facts]
            self._facts.content = _block("".join(_row(name, text) for name, text in rows))
            self._stand.visible = True
        self.show(_looked(frustum))

    def show(self, pictures: Sequence[Picture]) -> None:
        """Pictures in place of those that are there."""
        with self._lock:
            for handle in self._pictures:
                handle.remove()
            with self._folder:
                self._pictures = [handle for picture in pictures for handle in self._added(picture)]

    def _added(self, picture: Picture) -> list[Any]:
        shown = [self._server.gui.add_image(picture.rgb, label=picture.title, jpeg_quality=85)]
        if picture.note:
            shown.append(self._server.gui.add_html(small_text(picture.note)))
        return shown

    def _go(self, client: Any) -> None:
        """Put the browser that asks behind the camera."""
        if self._told is None or client is None:
            return
        frustum = self._told
        forward = frustum.corners.mean(0)
        with client.atomic():
            client.camera.position = frustum.center - 0.02 * forward
            client.camera.look_at = frustum.center + forward


def _looked(frustum: Frustum) -> Sequence[Picture]:
    """The pictures of a camera; its small photo where nothing makes others."""
    if frustum.look is not None:
        try:
            return frustum.look()
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            # a photo that has gone since must not end what others look at
            return (missing(str(error)),)
    return () if frustum.thumbnail is None else (Picture(frustum.label, frustum.thumbnail),)


def small_text(text: str) -> str:
    """Text for the panel, escaped, which breaks anywhere."""
    return _block(escaped(text))


def _block(html: str) -> str:
    return f'<div style="font-size:0.85em;line-height:1.4;padding:0 0.7em;overflow-wrap:anywhere">{html}</div>'


def _row(name: str, text: str) -> str:
    head = f"<b>{escaped(text)}</b>" if not name else f"{escaped(name)}: {escaped(text)}"
    return f"<div>{head}</div>"
