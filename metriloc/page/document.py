"""A whole HTML page around a body, and text that may stand in it."""

from __future__ import annotations

import html
import json
import unicodedata
from functools import cache
from importlib import resources
from typing import Any

from metriloc.io.pages import policy_tag


def document(title: str, body: str, *, script: str | None = None) -> str:
    """A page that needs no other file.

    - title: text of the tab, escaped here.
    - body: HTML already; what stands between the margins.
    - script: the one script that the page's policy lets run, at the end of the body.

    >>> page = document("Poses", "<p>none yet</p>")
    >>> page.startswith("<!doctype html>"), "<title>Poses</title>" in page
    (True, True)
    """
    head = (
        f'<meta charset="utf-8">{policy_tag() if script is None else policy_tag(script)}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escaped(title)}</title>'
    )
    last = "" if script is None else f"<script>{script}</script>\n"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}\n<style>\n{_style()}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n{last}</body>\n</html>\n"
    )


def escaped(value: object) -> str:
    """Escaped for HTML text and quoted attributes.

    What cannot be shown or written as UTF-8 becomes visible.

    >>> escaped("a < b")
    'a &lt; b'
    """
    shown = "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in str(value)
    )
    return html.escape(shown, quote=True)


def embedded_json(value: Any) -> str:
    """JSON that is safe inside <script>.

    It is ASCII only, without <, > or &; ValueError for NaN and infinity.

    >>> "</script>" in embedded_json({"name": "</script>"})
    False
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _style() -> str:
    return resources.files("metriloc.page").joinpath("style.css").read_text(encoding="utf-8")
