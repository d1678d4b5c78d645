"""Bounds on the numbers of configurations, which may come from files of strangers."""

from __future__ import annotations

import math
from dataclasses import fields


def require_within(owner: object, **limits: tuple[float, float]) -> None:
    """Raises ValueError when a field of ``owner`` is no number from the first to the second of its limits.

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
    """Raises ValueError when a field is no tuple of such numbers (see ``require_within``), or of more than ``most``."""
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
