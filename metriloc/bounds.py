"""Bounds on the numbers of configurations, which may come from files of strangers."""

from __future__ import annotations

import math


def require_within(owner: object, **limits: tuple[float, float]) -> None:
    """Raises ValueError when a field of ``owner`` is no number from the first to the second of its limits.

    Two whole limits ask for a whole number, others for any finite one; None is let through.
    """
    for name, (low, high) in limits.items():
        value = getattr(owner, name)
        if value is None:
            continue
        whole = isinstance(low, int) and isinstance(high, int)
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high or math.isnan(value):
            rule = f"must not be below {low:g}"
            if 0 < low <= 1:
                rule = "must be positive"
            elif low == 0:
                rule = "must not be negative"
            what = "whole numbers" if whole else "numbers"
            shown = str(value)[:40]
            raise ValueError(f"{type(owner).__name__}.{name} {rule}, got {shown} ({what} up to {high:g} are taken)")
