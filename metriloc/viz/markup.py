"""Pieces of HTML that the reports share: escaped text, tables, pictures as data, and small print."""

from __future__ import annotations

import base64
import html
import json
import math
import unicodedata
from dataclasses import dataclass
from typing import Any

from metriloc.types import View
from metriloc.viz.pictures import Rgb, encode_jpeg, shrink

PICTURE_SIDE = 1000


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of the report: a title, the pixels, and perhaps a sentence that explains them."""

    title: str
    rgb: Rgb
    note: str = ""


@dataclass(frozen=True)
class SoftwareFacts:
    """What would be needed to get the same answer again; date as text, e.g. ISO 8601."""

    version: str
    method: str
    weights: str = ""
    seed: int = 0
    date: str = ""
    warnings: tuple[str, ...] = ()


def escaped(value: object) -> str:
    """Escaped for HTML text and quoted attributes; what cannot be shown or written as UTF-8 becomes visible."""
    shown = "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in str(value)
    )
    return html.escape(shown, quote=True)


def embedded_json(value: Any) -> str:
    """JSON that is safe inside <script>: ASCII only, no <, > or &; ValueError for NaN and infinity."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_uri(rgb: Rgb, quality: int = 82) -> str:
    """A picture as the address of itself."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(rgb, quality)).decode("ascii")


def rows_table(rows: list[tuple[str, str]]) -> str:
    """A two-column table; the second column is HTML already."""
    return "<table>" + "".join(f'<tr><th scope="row">{escaped(k)}</th><td>{v}</td></tr>' for k, v in rows) + "</table>"


def confidence_bar(value: float) -> str:
    """0..1 as a bar and a number."""
    return f'<meter min="0" max="1" value="{value:.3f}"></meter> {value:.2f}'


def figure(picture: Picture) -> str:
    """A picture with its caption, made smaller than ``PICTURE_SIDE``."""
    rgb = shrink(picture.rgb, PICTURE_SIDE)
    note = f" {escaped(picture.note)}" if picture.note else ""
    return (
        f'<figure><img src="{data_uri(rgb)}" width="{rgb.shape[1]}" height="{rgb.shape[0]}" '
        f'alt="{escaped(picture.title)}"><figcaption><b>{escaped(picture.title)}.</b>{note}</figcaption></figure>'
    )


def intrinsics_note(reference: View, query: View) -> str:
    """The cameras of both photos, and where their intrinsics came from."""
    rows = []
    for role, view in (("reference", reference), ("query", query)):
        camera = view.camera
        f, c, size = ([float(v) for v in values] for values in (camera.f, camera.c, camera.size))
        field = f", {math.degrees(2 * math.atan(size[0] / 2 / f[0])):.0f}° wide" if camera.model != "fisheye" else ""
        lens = "" if not camera.distortion.numel() else " " + " ".join(f"{float(v):.4g}" for v in camera.distortion)
        numbers = f"{size[0]:.0f}×{size[1]:.0f} px, f {f[0]:.1f} {f[1]:.1f}, c {c[0]:.1f} {c[1]:.1f}{field}; "
        rows.append((role, f"{numbers}{camera.model}{lens}<br>source: {escaped(view.intrinsics_source)}"))
    return "<h3>Intrinsics</h3>" + rows_table(rows)


def software_note(facts: SoftwareFacts) -> str:
    """What made the report."""
    rows = [("metriloc", facts.version), ("method", facts.method), ("weights", facts.weights), ("seed", facts.seed)]
    rows.append(("date", facts.date))
    return rows_table([(name, escaped(value)) for name, value in rows if value != ""])
