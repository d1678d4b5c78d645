"""What became of one query of a run, and the loop over all: one bad photo costs itself alone, a stop loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, get_args

import torch
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, pose_from_dict
from metriloc.io.intrinsics import camera_from_dict
from metriloc.io.poses import LengthUnit

POSE_KEYS = ("query_from_reference", "cam_from_world")
"""Where entries have their pose."""

Found = TypeVar("Found")
_Query = TypeVar("_Query")
_AnyQuery = TypeVar("_AnyQuery", contravariant=True)


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Found]):
    """One query.

    name: how lists and results call it. entry: its part of pose.json, or the error that stopped it. found: what was
    computed, if that was just now and not in an earlier run.
    """

    name: str
    entry: Mapping[str, Any]
    found: Found | None = None

    @classmethod
    def unreadable(cls, name: str, error: str) -> Outcome[Found]:
        """A photo that could not be used."""
        return cls(name, {"query": name, "success": False, "error": error})

    @classmethod
    def saved(cls, name: str, entry: Mapping[str, Any] | None) -> Outcome[Found] | None:
        """What an earlier run left.

        None where it left nothing, or a success with a pose or camera that is none.
        """
        if entry is None:
            return None
        outcome = cls(name, entry)
        try:
            _ = (outcome.pose, outcome.unit, outcome.camera, outcome.covariance) if outcome.success else None
        except (ValueError, KeyError, TypeError):
            return None
        return outcome

    @property
    def success(self) -> bool:
        """Whether there is a pose."""
        return bool(self.entry["success"])

    @property
    def unusable(self) -> bool:
        """Whether the photo itself could not be used."""
        return "error" in self.entry

    @property
    def pose(self) -> Pose:
        """``query_from_reference`` or ``cam_from_world`` of a success, float64."""
        return pose_from_dict(self._pose_entry)

    @property
    def unit(self) -> LengthUnit:
        """Of the pose's translation. Raises InputError when it is none."""
        unit: LengthUnit = self._pose_entry["translation_unit"]
        if unit not in get_args(LengthUnit):
            raise InputError(f"a length is in one of {', '.join(get_args(LengthUnit))}, got {str(unit)[:40]!r}")
        return unit

    @property
    def camera(self) -> Camera:
        """Of the photo as it was looked at, float64."""
        return camera_from_dict(self.entry["camera"])

    @property
    def covariance(self) -> Tensor | None:
        """Of the pose, [6, 6] float64. None where it was not told, or is none."""
        spread = torch.tensor(self.entry.get("covariance") or [], dtype=torch.float64)
        return spread if spread.shape == (6, 6) and bool(torch.isfinite(spread).all()) else None

    @property
    def _pose_entry(self) -> Mapping[str, Any]:
        entry: Mapping[str, Any] = next(self.entry[key] for key in POSE_KEYS if key in self.entry)
        return entry


class QueryWork(Protocol[_AnyQuery, Found]):
    """What a kind of run does with its queries. ``solve`` and ``write`` may raise what is wrong with one."""

    def name(self, query: _AnyQuery) -> str:
        """How results call it."""
        ...

    def path(self, query: _AnyQuery) -> Path:
        """Its file, as errors name it."""
        ...

    def saved(self, index: int, query: _AnyQuery) -> Outcome[Found] | None:
        """What an earlier run of the same kind has left of it."""
        ...

    def solve(self, query: _AnyQuery) -> Outcome[Found]:
        """What the method says of it."""
        ...

    def write(self, index: int, query: _AnyQuery, outcome: Outcome[Found]) -> None:
        """Its files."""
        ...

    def finish(self) -> None:
        """The files over all queries that are done."""
        ...


def work_through(
    work: QueryWork[_Query, Found],
    queries: Iterable[_Query],
    results: list[Outcome[Found]],
    told: Callable[[Outcome[Found]], None],
) -> None:
    """Append the outcome of each query to ``results``, its files written as soon as it is done.

    told: hears every outcome. What a photo raises costs only that photo. After Ctrl+C, too, ``finish`` is called.
    """
    try:
        for index, query in enumerate(queries):
            outcome = work.saved(index, query)
            if outcome is None:
                try:
                    outcome = work.solve(query)
                    work.write(index, query, outcome)
                except (ValueError, RuntimeError) as error:
                    outcome = Outcome.unreadable(work.name(query), _why_unusable(work.path(query), error))
            results.append(outcome)
            told(outcome)
    finally:
        if results:
            work.finish()


def _why_unusable(path: Path, error: Exception) -> str:
    """The sentence for a photo on which a method failed: one that names it, whatever the method said."""
    if isinstance(error, InputError):
        return str(error)
    return f"'{path}' could not be used: {' '.join(str(error).split())[:200] or type(error).__name__}"
