"""What a page or a docstring tells, against what is printed."""

from __future__ import annotations

import re


def alike(printed: str, told: str) -> bool:
    """The same words, and numbers within a unit of the last digit told: another processor rounds otherwise."""
    number = re.compile(r"-?\d+(?:\.\d+)?")
    if number.sub("#", printed) != number.sub("#", told):
        return False
    both = zip(number.findall(printed), number.findall(told), strict=True)
    return all(abs(float(a) - float(b)) <= 1.01 * 10 ** -len(b.partition(".")[2]) for a, b in both)
