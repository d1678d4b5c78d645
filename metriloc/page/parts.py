"""Tables that scroll in their own box, pictures that shrink with the page, and bars."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Literal

from metriloc.page.document import escaped


def table(rows: Sequence[Sequence[str]]) -> str:
    """Cells of text, the head first.

    Names are at the left, numbers at the right. Escaped; nothing for no rows.

    >>> table([["name", "inliers"], ["query.jpg", "12"]]).count("<tr")
    2
    """
    if not rows:
        return ""
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return scrolled(f'<table class="numbers"><tr>{head}</tr>{body}</table>')


def rows_table(rows: Iterable[tuple[str, str]]) -> str:
    """A name and what it is, row by row. The second column is HTML already.

    >>> "<td>12</td>" in rows_table([("inliers", "12")])
    True
    """
    body = "".join(f'<tr><th scope="row">{escaped(name)}</th><td>{cell}</td></tr>' for name, cell in rows)
    return scrolled(f"<table>{body}</table>")


def scrolled(table: str) -> str:
    """A table in a box of its own. It scrolls where the screen is narrower than the table.

    >>> scrolled(table([["name"], ["query.jpg"]])).startswith("<div")
    True
    """
    return f'<div class="scroll">{table}</div>'


def meter(value: float) -> str:
    """0..1 as a bar and a number.

    >>> "0.93" in meter(0.93)
    True
    """
    return f'<meter min="0" max="1" value="{value:.3f}"></meter> {value:.2f}'


def data_uri(data: bytes, kind: Literal["jpeg", "png", "gif"]) -> str:
    """An encoded picture as the address of itself.

    >>> data_uri(b"abc", "png")
    'data:image/png;base64,YWJj'
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def figure(
    address: str, title: str = "", note: str = "", *, size: tuple[int, int] | None = None, plot: bool = False
) -> str:
    """A picture with its caption.

    - address: a ``data_uri``, or "" for the caption alone.
    - title, note: text, escaped here; the title is bold and what a reader without pictures is told.
    - size: width and height in pixels, so that the page does not jump.
    - plot: drawn dark on white, and turned round where the page is dark.

    >>> figure(data_uri(b"abc", "png"), "Query", size=(4, 3)).startswith("<figure")
    True
    """
    shape = f' width="{size[0]}" height="{size[1]}"' if size is not None else ""
    image = f'<img src="{address}"{shape} alt="{escaped(title)}">' if address else ""
    words = " ".join(part for part in (f"<b>{escaped(title)}.</b>" if title else "", escaped(note)) if part)
    kind = ' class="plot"' if plot else ""
    return f"<figure{kind}>{image}<figcaption>{words}</figcaption></figure>"


def figures(parts: Sequence[str]) -> str:
    """Small figures side by side, as many as fit.

    >>> parts = [figure("", "Reference"), figure("", "Query")]
    >>> figures(parts).count("<figure")
    2
    """
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""
