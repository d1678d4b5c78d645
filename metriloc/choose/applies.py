"""Which settings belong to which methods for two photos: one that a method would not use is refused, not ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from metriloc.choose.depth import is_mickey_depth
from metriloc.io import InputError
from metriloc.polish import POLISHERS, PolishName

_OWN_METRES = "MicKey measures the distance itself; only matching needs it"
_OWN_DEPTH = "MicKey predicts depth itself; only matching needs it"


@dataclass(frozen=True)
class _Setting:
    """words: how a sentence calls it; of: kinds of methods that use it; why: what to say to users of MicKey."""

    words: str
    of: tuple[str, ...]
    why: str = ""


_SETTINGS: Mapping[str, _Setting] = {
    "weights": _Setting("weights {!r}", ("mickey", "matching")),
    "distance": _Setting("distance {:g}", ("matching",), _OWN_METRES),
    "camera_height": _Setting("camera height {}", ("matching",), _OWN_METRES),
    "solver": _Setting("solver {}", ("matching",), "MicKey has its own; only matching lets one choose"),
    "depth": _Setting("depth source {}", ("matching",), _OWN_DEPTH),
    "depth_map": _Setting("the depth map of the reference", ("matching",), _OWN_DEPTH),
    "polish": _Setting("polish by {}", ("mickey",)),
    "precision": _Setting("precision {}", ("mickey",)),
}
"""What is not here (device, calibration) every method takes."""
_WHOSE = {"mickey": "MicKey's (method mickey)", "matching": "of feature matching"}


def kind_of(name: str) -> str:
    """``mickey``, ``identity``, or ``matching`` for all matchers."""
    return name if name in ("mickey", "identity") else "matching"


def foreign_settings(name: str) -> tuple[str, ...]:
    """The fields of ``MethodChoice`` that a method does not use. The method is the one of that name."""
    return tuple(field for field, setting in _SETTINGS.items() if kind_of(name) not in setting.of)


def require_used(choice: Any) -> None:
    """Refuse a setting that the chosen method would not use.

    Raises InputError for one that was given.

    >>> from metriloc.choose import MethodChoice
    >>> require_used(MethodChoice("xfeat", distance=0.6))  # used, so that nothing is said
    """
    usual = {field.name: field.default for field in fields(choice)}
    values = {name: getattr(choice, name) for name in _SETTINGS}
    given = {name: value for name, value in values.items() if value != usual[name] and value is not False}
    if choice.polish != "matches":
        _require_polishable(choice)
        given.pop("polish", None)  # all others are of any method
    if choice.polish in POLISHERS:  # and take the depth map
        given.pop("depth_map", None)
    for name in foreign_settings(choice.name):
        if name in given and not (name == "precision" and _has_mickey_depth(choice)):
            setting = _SETTINGS[name]
            whose = " or ".join(_WHOSE[kind] for kind in setting.of)
            why = (
                setting.why if choice.name == "mickey" and setting.why else f"it is {whose}, and {choice.name} has none"
            )
            raise InputError(f"{setting.words.format(given[name])}: {why}")
    if "depth_map" in given and "depth" in given:
        raise InputError(f"a depth map of the reference and depth source {choice.depth} contradict: give one")
    for name in ("distance", "camera_height"):
        if name in given and choice.solver in ("pnp", "rigid"):
            words = _SETTINGS[name].words.format(given[name])
            raise InputError(
                f"{words}: solver {choice.solver} has its metres from depth alone; leave one of the two out"
            )


def _require_polishable(choice: Any) -> None:
    if choice.polish is None:
        return
    if choice.polish not in POLISHERS:
        names = ", ".join(get_args(PolishName))
        raise InputError(f"polish must be one of {names}, got {choice.polish!r}")
    if choice.name == "identity":
        raise InputError(f"polish by {choice.polish}: identity finds no pose that could be polished")
    if choice.depth == "none":
        raise InputError(f"polish by {choice.polish} lifts points by depth: leave out depth source none")


def _has_mickey_depth(choice: Any) -> bool:
    return kind_of(choice.name) == "matching" and is_mickey_depth(choice.depth)
