"""Calibrations as files: small JSON, beside weights or among the data of metriloc."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from functools import lru_cache
from itertools import pairwise
from typing import Any, get_args

from metriloc.calibration.probability import Calibration, Kind, Metres, Target
from metriloc.io import InputError, read_json, write_atomically
from metriloc.io.packaged import own_data

CALIBRATION_FILE = "calibration.json"
"""Of a folder of weights."""


def save_calibration(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """As JSON.

    >>> fitted = Calibration("logistic", Target(), ("confidence",), (2.0, 1.5), "mine", "abc", 100, "rooms")
    >>> save_calibration("own.json", fitted)
    >>> load_calibration("own.json") == fitted
    True
    """
    write_atomically(path, json.dumps(asdict(calibration), indent=2) + "\n")


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Read a calibration.

    Raises InputError for a file that is no calibration, or one that falls when support grows.

    >>> path = own_data("calibration") / "xfeat-pnp.json"
    >>> str(load_calibration(path).target)
    'rotation below 2 degrees, position below 2% of the depth in view'
    """
    try:
        content: dict[str, Any] = read_json(path)
        content["target"] = Target(**content["target"])
        for name in ("statistics", "parameters"):
            content[name] = tuple(content[name])
        content["ranges"] = tuple((low, high) for low, high in content.get("ranges", ()))
        if content.get("metres") is not None:
            content["metres"] = Metres(**content["metres"])
        calibration = Calibration(**content)
        _check(calibration)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"'{path}' is not a calibration: {said}") from error
    return calibration


def _check(calibration: Calibration) -> None:
    """Raises ValueError, naming what is wrong."""
    if calibration.kind not in get_args(Kind):
        raise ValueError(f"its kind is {calibration.kind!r}, not one of {', '.join(get_args(Kind))}")
    texts = [calibration.method, calibration.weights_id, calibration.setup, calibration.source]
    if not all(isinstance(text, str) for text in (*texts, *calibration.statistics)) or not calibration.statistics:
        raise ValueError("its names are not text")
    numbers = [*calibration.parameters, *(value for pair in calibration.ranges for value in pair)]
    for value in (*numbers, calibration.pairs):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{value!r} is not a finite number")
    if calibration.ranges and len(calibration.ranges) != len(calibration.statistics):
        raise ValueError(f"{len(calibration.ranges)} ranges for {len(calibration.statistics)} statistics")
    if any(low > high for low, high in calibration.ranges):
        raise ValueError("a range ends before it begins")
    if calibration.kind == "logistic":
        if len(calibration.parameters) != 1 + len(calibration.statistics):
            raise ValueError(f"{len(calibration.parameters)} parameters for {len(calibration.statistics)} statistics")
        if min(calibration.parameters[1:]) < 0:
            raise ValueError("a weight is negative: more support must never lower the probability")
        return
    knots, values = calibration.parameters[::2], calibration.parameters[1::2]
    if len(calibration.statistics) != 1 or len(knots) != len(values) or not knots:
        raise ValueError("an isotonic calibration needs one statistic and pairs of numbers")
    rising = all(a <= b for row in (knots, values) for a, b in pairwise(row))
    if not rising or not 0 <= values[0] <= values[-1] <= 1:
        raise ValueError("its pairs must rise, with probabilities in 0..1")


def packaged_calibrations(name: str, weights_id: str) -> tuple[Calibration, ...]:
    """The calibrations that come with metriloc. They lie in ``data/calibration`` and are for one method and one set of
    weights, each for one setup."""
    return tuple(c for c in _all_packaged() if (c.method, c.weights_id) == (name, weights_id))


@lru_cache(maxsize=1)
def _all_packaged() -> tuple[Calibration, ...]:
    return tuple(load_calibration(path) for path in sorted(own_data("calibration").glob("*.json")))
