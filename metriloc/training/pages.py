"""One HTML page a validation: its numbers, the history of the run, and its pictures; a single file, no network.

All text is escaped and a content security policy forbids every request, and every script but that of its figures.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from metriloc.page import data_uri, document, escaped, figure, figures, scrolled, spark_line
from metriloc.training.validation import Picture, Validation

LONGEST_SIDE = 1200
"""Larger pictures are reduced to this, pixels."""


def validation_page(
    title: str, step: int, validation: Validation, history: Mapping[str, Sequence[tuple[int, float]]]
) -> str:
    """The page. history: for each metric the (step, value) of all validations so far, this one included."""
    rows = "".join(
        f"<tr><td>{escaped(name)}</td><td>{value:.5g}</td><td>{spark_line(history.get(name, ()))}</td></tr>"
        for name, value in validation.metrics.items()
    )
    shown = scrolled(f'<table class="numbers"><tr><th>metric</th><th>value</th><th>so far</th></tr>{rows}</table>')
    heading = f"{title}: step {step}"
    pictures = figures([_figure(picture) for picture in validation.pictures])
    parts = (f"<h1>{escaped(heading)}</h1>", shown, *validation.figures, pictures)
    return document(heading, "\n".join(parts), script=validation.script)


def encode_png(rgb: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A picture as a PNG file in memory. Its longer side is reduced to ``LONGEST_SIDE``."""
    from PIL import Image

    image = Image.fromarray(rgb)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _figure(picture: Picture) -> str:
    return figure(data_uri(encode_png(picture.rgb), "png"), picture.title, picture.note)
