"""A training run as it is watched: the numbers and the last pictures of its folder, while another process may write it."""

from __future__ import annotations

import base64
import binascii
import html
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metriloc.io import InputError, read_text
from metriloc.io.images import decode_image
from metriloc.training.record import CONFIG, METRICS, PAGES
from metriloc.viz.live import LiveView
from metriloc.viz.live_training import Curves, TrainingView
from metriloc.viz.pictures import Picture

MAX_PICTURES = 12
"""Of a validation page, that are shown."""
_SECONDS = 2.0  # between two looks
_PICTURE = re.compile(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)"[^>]*? alt="([^"]*)"')


def is_training_run(path: Path) -> bool:
    """Whether ``metriloc train`` has written to a folder."""
    return (path / METRICS).is_file() and (path / CONFIG).is_file()


@dataclass
class TrainingSeen:
    """The folder of a run, and what was seen of it."""

    folder: Path
    _size: int = -1
    _page: str = ""

    def curves(self) -> Curves | None:
        """All numbers so far, losses and validations first. None where nothing is new."""
        file = self.folder / METRICS
        size = file.stat().st_size if file.is_file() else 0
        if size in (self._size, 0):
            return None
        self._size = size
        found: dict[str, tuple[list[float], list[float]]] = {}
        for line in read_text(file).splitlines():
            for name, step, value in _numbers(line):
                steps, values = found.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
        return dict(sorted(found.items(), key=lambda item: (item[0] != "train loss", not item[0].startswith("val"))))

    def pictures(self) -> tuple[str, list[Picture]] | None:
        """The newest validation page's heading and pictures.

        None where none is new, or it has none.
        """
        pages = sorted((self.folder / PAGES).glob("step_*.html"))
        if not pages or pages[-1].name == self._page:
            return None
        self._page = pages[-1].name
        found = []
        for data, title in _PICTURE.findall(read_text(pages[-1]))[:MAX_PICTURES]:
            try:
                rgb = decode_image(base64.b64decode(data, validate=True), name=pages[-1].name).rgb
            except (InputError, binascii.Error):
                continue  # of a page that somebody changed
            found.append(Picture(html.unescape(title), rgb))
        step = re.sub(r"\D", "", pages[-1].stem).lstrip("0") or "0"
        return (f"validation at step {step}", found) if found else None


def _numbers(line: str) -> list[tuple[str, float, float]]:
    """Name, step and value of a line of metrics.jsonl; nothing of one that is cut off."""
    try:
        entry = json.loads(line)
        kind, step = str(entry["kind"]), float(entry["step"])
        rest = {key: value for key, value in entry.items() if key not in ("kind", "step")}
        return [(f"{kind} {key}", step, math.nan if value is None else float(value)) for key, value in rest.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


@contextmanager
def watched(live: LiveView, folder: Path) -> Iterator[None]:
    """Show a run's folder in a view, and what comes to it, every two seconds until the block ends."""
    seen, view, done = TrainingSeen(folder), TrainingView(live), threading.Event()

    def look() -> None:
        try:
            if (curves := seen.curves()) is not None:
                view.curves(curves)
            if (found := seen.pictures()) is not None:
                view.gallery(found[1], found[0])
        except InputError as error:
            live.say(str(error))  # what is written just now can be read the next time

    def keep_looking() -> None:
        while not done.wait(_SECONDS):
            look()

    look()
    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        look()
