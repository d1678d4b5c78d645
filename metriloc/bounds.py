"""Bounds on numbers from outside: of configurations, which may come from files of strangers, and of images."""

from __future__ import annotations

import math
from dataclasses import fields

from torch import Tensor

_BRIGHTEST = 1.5  # images in 0..1 that were resized or sharpened overshoot by less; those in 0..255 do not stay below
_SAMPLES = 64


def require_within(owner: object, **limits: tuple[float, float]) -> None:
    """Refuse a field that is no number within its limits. Raises ValueError when a field of ``owner`` is no number from
    the first to the second of its limits.

    Two whole limits ask for a whole number, others for any finite one; None is let through where the field's type has it.
    """
    for name, (low, high) in limits.items():
        if getattr(owner, name) is not None or not _may_be_none(owner, name):
            _check(f"{type(owner).__name__}.{name}", getattr(owner, name), low, high)


def _may_be_none(owner: object, name: str) -> bool:
    """Whether the type of a dataclass's field, as written, has None."""
    return any(field.name == name and "None" in str(field.type) for field in fields(owner))  # type: ignore[arg-type]


def _check(name: str, value: object, low: float, high: float) -> None:
    whole = isinstance(low, int) and isinstance(high, int)
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high or math.isnan(value):
        rule = f"must not be below {low:g}"
        if 0 < low <= 1:
            rule = "must be positive"
        elif low == 0:
            rule = "must not be negative"
        what = "whole numbers" if whole else "numbers"
        raise ValueError(f"{name} {rule}, got {_shown(value)} ({what} up to {high:g} are taken)")


def _shown(value: object) -> str:
    # a number of thousands of digits cannot be written at all
    return "a huge number" if isinstance(value, int) and abs(value) > 10**40 else str(value)[:40]


def require_all_within(owner: object, low: float, high: float, *names: str, most: int = 100) -> None:
    """Refuse a field that is no tuple of numbers within limits. Raises ValueError for one with others (see
    ``require_within``), or with more than ``most``."""
    for name in names:
        values = getattr(owner, name)
        if values is None and _may_be_none(owner, name):
            continue
        if not isinstance(values, tuple) or len(values) > most:
            raise ValueError(f"{type(owner).__name__}.{name} must be at most {most} numbers, got {_shown(values)}")
        for index, value in enumerate(values):
            _check(f"{type(owner).__name__}.{name}[{index}]", value, low, high)


def require_flags(owner: object, *names: str) -> None:
    """Raises ValueError when a field is neither True nor False."""
    for name in names:
        value = getattr(owner, name)
        if not isinstance(value, bool):
            raise ValueError(f"{type(owner).__name__}.{name} must be true or false, got {_shown(value)}")


def require_image_range(image: Tensor, name: str) -> None:
    """Refuse an image that is not in 0..1. Raises ValueError; looks at no more than 64 x 64 of its pixels, since this
    must cost nothing."""
    if not image.is_floating_point():
        raise ValueError(
            f"View.image must be floating point in 0..1, got {image.dtype} ({name!r}): divide by its maximum"
        )
    if image.is_meta:
        return
    rows, columns = (1 + (side - 1) // _SAMPLES for side in image.shape[1:])
    seen = image.detach()[:, rows // 2 :: max(rows, 1), columns // 2 :: max(columns, 1)]
    if seen.numel() and bool((seen.abs() > _BRIGHTEST).any()):
        low, high = float(seen.min()), float(seen.max())
        raise ValueError(
            f"View.image must be in 0..1, got values from {low:.3g} to {high:.3g} ({name!r}): divide by 255?"
        )
