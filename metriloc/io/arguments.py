"""Arguments of public functions: one of the wrong kind is named, with its value, before anything else happens."""

from __future__ import annotations

import math
import os
from numbers import Real

from metriloc.geometry import Pose
from metriloc.geometry.checks import require_rotation
from metriloc.io.files import InputError

_SHOWN = 80
FARTHEST = 1e6
"""Metres: no two photos of one place are farther apart."""
LARGEST_SEED = 2**63 - 1
"""What random generators take."""


def require_kind(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Refuse a value of another kind. Raises InputError when a value, other than None, is not of one of these kinds;
    ``what`` says which, in words."""
    if value is not None and not isinstance(value, kinds):
        raise InputError(f"{name} must be {what}, got {_shown(value)}")


def require_path(name: str, value: object, other: type | None = None) -> None:
    """Raises InputError when a value is not a path.

    ``other``: a type that may stand for what is there.
    """
    if isinstance(value, (str, os.PathLike)) or (other is not None and isinstance(value, other)):
        return
    raise InputError(f"{name} must be a path{'' if other is None else f' or a {other.__name__}'}, got {_shown(value)}")


def require_method(value: object, verb: str) -> None:
    """Refuse what is no method. Raises InputError when a value, other than None, is neither a name nor has the method
    ``verb``."""
    if value is not None and not isinstance(value, str) and not hasattr(value, verb):
        raise InputError(f"method must be a name or have {verb}, got {_shown(value)}")


def require_number(
    name: str, value: object, least: float | None = None, most: float | None = None, *, whole: bool = False
) -> None:
    """Refuse what is no finite number. Raises InputError when a value, other than None, is not one, from ``least`` (0
    or 1) to ``most``."""
    if value is None:
        return
    kind = "whole number" if whole else "number"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} must be a {kind}, got {_shown(value)}")
    number = float(value)
    if not math.isfinite(number) or (whole and number != int(number)):
        raise InputError(f"{name} must be a finite {kind}, got {number:g}")
    if least is not None and number < least:
        raise InputError(f"{name} must {'not be negative' if least == 0 else 'be positive'}, got {number:g}")
    if most is not None and number > most:
        raise InputError(f"{name} must be at most {most:g}, got {number:g}")


def require_seed(value: object) -> None:
    """Refuse what is no seed. Raises InputError when it is no whole number that random generators take."""
    if value is None:
        raise InputError("seed must be a whole number, got None: the same seed gives the same answer")
    require_number("seed", value, 0, LARGEST_SEED, whole=True)


def require_pose(name: str, value: Pose | None) -> None:
    """Refuse a pose that is no rigid motion. Raises InputError when a pose, other than None, is not finite, or scales,
    shears or mirrors."""
    if value is None:
        return
    if not bool(value.is_finite().all()):
        raise InputError(f"{name} must be a pose of finite numbers, got {_shown(value.matrix().tolist())}")
    try:
        require_rotation(value.R)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def require_metres(name: str, value: float | str | None) -> None:
    """Refuse what is no distance between photos. Raises InputError when a value, other than None, is no positive length
    between photos of one place."""
    if isinstance(value, str):
        raise InputError(f"{name} must be a positive number of metres, got {_shown(value)}")
    if value is not None and not 0 < value <= FARTHEST:
        raise InputError(f"{name} must be a positive number of metres, at most {FARTHEST:,.0f}, got {value:g}")


def require_camera_height(value: object) -> None:
    """Refuse what is no camera height. Raises InputError when a value, other than None, is neither a number nor
    ``handheld``."""
    if isinstance(value, str) and value != "handheld":
        raise InputError(f"camera_height must be metres or 'handheld', got {_shown(value)}")
    if not isinstance(value, str):
        require_number("camera_height", value)


def _shown(value: object) -> str:
    text = f"{value!r}"
    return f"{text[:_SHOWN]} ({type(value).__name__})"
