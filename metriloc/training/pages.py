"""One HTML page a validation: its numbers, the history of the run, and its pictures; a single file, no network.

All text is escaped and a content security policy forbids every script and request.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from metriloc.io.pages import policy_tag
from metriloc.training.validation import Picture, Validation

LONGEST_SIDE = 1200
"""Larger pictures are reduced to this, pixels."""

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:0 1rem 1rem 0;vertical-align:top}
img{max-width:100%}figcaption{max-width:36rem}small{color:#666}svg{background:#f6f6f6}
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#181818}td,th{border-color:#444}svg{background:#222}}
"""


def validation_page(
    title: str, step: int, validation: Validation, history: Mapping[str, Sequence[tuple[int, float]]]
) -> str:
    """The page. history: for each metric the (step, value) of all validations so far, this one included."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.5g}</td><td>{_curve(history.get(name, ()))}</td></tr>"
        for name, value in validation.metrics.items()
    )
    figures = "".join(_figure(picture) for picture in validation.pictures)
    heading = html.escape(f"{title}: step {step}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'{policy_tag()}<meta name="viewport" content="width=device-width"><title>{heading}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{heading}</h1><table><tr><th>metric</th><th>value</th><th>so far</th></tr>{rows}</table>"
        f"{figures}</body></html>\n"
    )


def encode_png(rgb: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A picture as a PNG file in memory, its longer side reduced to ``LONGEST_SIDE``."""
    from PIL import Image

    image = Image.fromarray(rgb)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _figure(picture: Picture) -> str:
    data = base64.b64encode(encode_png(picture.rgb)).decode()
    title = html.escape(picture.title)
    note = f"<br><small>{html.escape(picture.note)}</small>" if picture.note else ""
    return (
        f'<figure><img alt="{title}" src="data:image/png;base64,{data}"><figcaption>{title}{note}</figcaption></figure>'
    )


def _curve(points: Sequence[tuple[int, float]], width: int = 240, height: int = 40) -> str:
    """The finite points as a small SVG line, lowest to highest value over the height."""
    points = [(step, value) for step, value in points if abs(value) < float("inf")]
    if len(points) < 2:
        return ""
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    across, up = (steps[-1] - steps[0]) or 1, (high - low) or 1
    line = " ".join(
        f"{4 + (width - 8) * (step - steps[0]) / across:.1f},{height - 4 - (height - 8) * (value - low) / up:.1f}"
        for step, value in points
    )
    label = f"{low:.4g} to {high:.4g}"
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="{label}"><title>{label}</title>'
        f'<polyline points="{line}" fill="none" stroke="#2a7de1" stroke-width="1.5"/></svg>'
    )
