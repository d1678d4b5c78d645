"""Curves as SVG in the colors of the page, light and dark; the same data gives the same bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from metriloc.page.document import escaped

_WIDTH, _HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 56, 46
_TICKS = 5

Line = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]
"""x and y of the points of a line."""


def line_chart(
    title: str, x_label: str, y_label: str, lines: Mapping[str, Line], *, markers: Sequence[str] = ()
) -> str:
    """A figure of one or a few lines.

    Points that are not finite are left out, and the line is broken there.

    - lines: by their name in the legend; a single nameless one has no legend.
    - markers: names of the lines whose points are marked.

    >>> chart = line_chart("Loss", "step", "loss", {"": [(0, 2.0), (1, 1.0)]})
    >>> "Loss" in chart
    True
    """
    points = {name: _points(*line) for name, line in lines.items()}
    known = np.concatenate([np.zeros((0, 2)), *(p[np.isfinite(p).all(1)] for p in points.values())])
    parts = [f'<text class="title" x="{_LEFT}" y="20">{escaped(title)}</text>', _legend(list(points))]
    if not len(known):
        parts.append(f'<text x="{_WIDTH / 2:g}" y="{_HEIGHT / 2:g}" text-anchor="middle">nothing to draw</text>')
    else:
        across, up = _Axis.of(known[:, 0], _LEFT, _WIDTH - _RIGHT), _Axis.of(known[:, 1], _HEIGHT - _BOTTOM, _TOP)
        parts += [_frame(across, up, x_label, y_label)]
        for number, (name, line) in enumerate(points.items()):
            places = np.stack([across.place(line[:, 0]), up.place(line[:, 1])], 1)
            parts.append(_drawn(places, number, marked=name in markers))
    label = escaped(f"{title}: {y_label} by {x_label}")
    return (
        f'<figure><svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )


def box_chart(title: str, y_label: str, groups: Mapping[str, Sequence[float] | np.ndarray]) -> str:
    """A box a group, on a logarithmic scale.

    Quartiles, the median, whiskers to the 5th and 95th of a hundred. Values that are not finite are
    left out, those below a thousandth of the largest count as that; "" without values.
    """
    known = {name: np.asarray(values, float) for name, values in groups.items()}
    known = {name: values[np.isfinite(values)] for name, values in known.items()}
    known = {name: values for name, values in known.items() if values.size}
    most = max((float(values.max()) for values in known.values()), default=0.0)
    if not most > 0:
        return ""
    marks = {name: np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)) for name, values in known.items()}
    logs = {name: np.log10(np.maximum(five, most / 1000)) for name, five in marks.items()}
    up = _Axis.of(np.concatenate(list(logs.values())), _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<text class="title" x="{_LEFT}" y="20">{escaped(title)}</text>']
    for tick, y in zip(up.ticks, up.place(np.array(up.ticks)), strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**tick:.3g}</text>')
    step = (_WIDTH - _LEFT - _RIGHT) / len(logs)
    for number, (name, five) in enumerate(logs.items()):
        words = name, f"median {marks[name][2]:.3g}"
        parts.append(_box(_LEFT + (number + 0.5) * step, min(0.3 * step, 34), up.place(five), number, words))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(14 {middle:g}) rotate(-90)" text-anchor="middle">{escaped(y_label)}</text>'
    )
    label = escaped(f"{title}: " + ", ".join(f"{name} median {five[2]:.3g}" for name, five in marks.items()))
    return (
        f'<figure><svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _box(x: float, half: float, five: np.ndarray, number: int, words: Sequence[str]) -> str:
    low, first, median, third, high = five
    lines = [(x, low, x, first), (x, third, x, high)]
    lines += [(x - half / 2, y, x + half / 2, y) for y in (low, high)] + [(x - half, median, x + half, median)]
    drawn = "".join(f'<polyline points="{a:.1f},{b:.1f} {c:.1f},{d:.1f}"/>' for a, b, c, d in lines)
    frame = (x - half, first, x + half, first, x + half, third, x - half, third, x - half, first)
    corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(frame[::2], frame[1::2], strict=True))
    told = "".join(
        f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18 + 15 * row}" text-anchor="middle">{escaped(text)}</text>'
        for row, text in enumerate(words)
    )
    return f'<g class="line{number % 4}">{drawn}<polyline points="{corners}"/></g>{told}'


def spark_line(points: Sequence[tuple[float, float]], width: int = 240, height: int = 40) -> str:
    """The finite points as a small line without axes.

    - points: (x, y); lowest to highest value fill the height.
    - width, height: pixels.

    Returns "" for fewer than two points.

    >>> spark_line([(0.0, 1.0), (1.0, 3.0)])[:4]
    '<svg'
    """
    known = np.array([p for p in points if math.isfinite(p[0]) and math.isfinite(p[1])], float).reshape(-1, 2)
    if len(known) < 2:
        return ""
    low, high = known.min(0), known.max(0)
    span = np.where(high > low, high - low, 1.0)
    share = (known - low) / span
    places = np.stack([4 + (width - 8) * share[:, 0], height - 4 - (height - 8) * share[:, 1]], 1)
    label = f"{low[1]:.4g} to {high[1]:.4g}"
    return (
        f'<svg class="spark" width="{width}" height="{height}" role="img" aria-label="{label}"><title>{label}</title>'
        f"{_drawn(places, 0)}</svg>"
    )


class _Axis:
    """Values to places between two ends, and round numbers to write beside it."""

    def __init__(self, ticks: Sequence[float], decimals: int, begin: float, end: float) -> None:
        self.ticks, self.decimals, self.begin, self.end = ticks, decimals, begin, end

    @classmethod
    def of(cls, values: np.ndarray, begin: float, end: float) -> _Axis:
        """The axis that holds all values between round numbers."""
        low, high = float(values.min()), float(values.max())
        if high <= low:
            margin = 0.5 * abs(low) or 0.5
            low, high = low - margin, high + margin
        rough = (high - low) / _TICKS
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= 0.999 * rough)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return cls([step * k for k in range(first, last + 1)], decimals, begin, end)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where values are drawn."""
        return self.begin + (self.end - self.begin) * (values - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])

    def words(self, tick: float) -> str:
        """A tick in words."""
        return f"{tick:.{self.decimals}f}" if abs(tick) < 1e5 and self.decimals < 6 else f"{tick:.3g}"


def _points(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(x, float), np.asarray(y, float)], 1)


def _drawn(places: np.ndarray, number: int, *, marked: bool = False) -> str:
    """A line for every run of finite places; a lone place is a dot."""
    finite = np.isfinite(places).all(1)
    runs = [places[s] for s in np.ma.clump_unmasked(np.ma.masked_array(places[:, 0], ~finite))]
    parts = [
        '<polyline points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in run) + '"/>' for run in runs if len(run) > 1
    ]
    dots = places[finite] if marked else np.concatenate([np.zeros((0, 2)), *(run for run in runs if len(run) == 1)])
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots]
    return f'<g class="line{number % 4}">{"".join(parts)}</g>'


def _frame(across: _Axis, up: _Axis, x_label: str, y_label: str) -> str:
    """Grid, numbers and names of both axes."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick, x in zip(across.ticks, across.place(np.array(across.ticks)), strict=True):
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{across.words(tick)}</text>')
    for tick, y in zip(up.ticks, up.place(np.array(up.ticks)), strict=True):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{up.words(tick)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text x="{(_LEFT + right) / 2:g}" y="{_HEIGHT - 8}" text-anchor="middle">{escaped(x_label)}</text>')
    parts.append(
        f'<text transform="translate(14 {middle:g}) rotate(-90)" text-anchor="middle">{escaped(y_label)}</text>'
    )
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    if not any(names):
        return ""
    parts, x = [], float(_LEFT)
    for number, name in enumerate(names):
        parts.append(f'<g class="line{number % 4}"><polyline points="{x:.0f},38 {x + 18:.0f},38"/></g>')
        parts.append(f'<text x="{x + 24:.0f}" y="42">{escaped(name)}</text>')
        x += 24 + 7 * len(name) + 24
    return "".join(parts)
