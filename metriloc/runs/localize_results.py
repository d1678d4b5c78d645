"""One map and many queries: what was found of each, as poses.json tells it and as a person reads it."""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from metriloc.io import InputError, listed_name
from metriloc.io.intrinsics import camera_as_dict
from metriloc.io.poses import Naming, visloc_name
from metriloc.runs.folder import files_of_map, fingerprint_of, stamps_of_files
from metriloc.runs.outcome import Outcome
from metriloc.runs.queries import QueryPhoto
from metriloc.types import FAILED, RELIABLE, MapUnit, SfmMap, Stage
from metriloc.version import __version__
from metriloc.viz.localize_report import length_unit, localization_verdict
from metriloc.viz.localized import LocalizedQuery, pose_errors
from metriloc.wording import finite_or_none, without_folders

FORMAT = "metriloc-localize-1"
_LISTS = ("pairs", "init", "truth", "intrinsics", "hloc_logs", "global_descriptors", "calibration")


QueryOutcome: TypeAlias = Outcome[LocalizedQuery]


def localized_outcome(photo: QueryPhoto, localized: LocalizedQuery) -> QueryOutcome:
    """The outcome of one query."""
    return Outcome(photo.name, _entry(photo, localized), localized)


def check_names(names: Sequence[str], naming: Naming) -> None:
    """Raises InputError when two queries would be one line in poses.txt."""
    seen: dict[str, str] = {}
    for name in names:
        short = visloc_name(listed_name(name), naming)
        if short in seen:
            other = "give --names folder/file" if naming == "file" else "localise them one by one"
            raise InputError(f"{seen[short]!r} and {name!r} are both {short!r} in poses.txt: {other}")
        seen[short] = name


@dataclass(eq=False)
class LocalizeRun:
    """One map, one method, many queries. scene: as read, settings: as the command was given them. unit: of
    lengths in the map."""

    map_path: str
    scene: SfmMap
    method: str
    weights_id: str
    settings: Mapping[str, Any]
    names: Naming
    unit: MapUnit = "unit of the map"
    results: list[QueryOutcome] = field(default_factory=list)

    def header(self) -> dict[str, Any]:
        """What is common to all queries."""
        return {
            "format": FORMAT,
            "metriloc_version": __version__,
            "method": self.method,
            "weights_id": self.weights_id,
            "settings": {k: _plain(v) for k, v in self.settings.items() if v is not None},
            "conventions": {
                "cam_from_world": "X_query = R X_map + t",
                "camera_axes": "x right, y down, z forward (OpenCV)",
                "pixels": "the centre of the first pixel is (0, 0)",
                "lengths": "metres" if self.unit == "metre" else "units of the map",
            },
            "verdicts": {
                "reliable": f"confidence >= {RELIABLE} and no doubts",
                "doubtful": "anything between",
                "failed": f"confidence < {FAILED}, or no pose",
                "uncalibrated": "the confidence is no probability",
            },
            "map": {"path": self.map_path, "photos": len(self.scene), "points": len(self.scene.xyz)},
        }

    def as_dict(self) -> dict[str, Any]:
        """The content of poses.json."""
        return {**self.header(), "queries": [dict(result.entry) for result in self.results]}

    def fingerprint(self, photo: QueryPhoto) -> str:
        """Equal exactly when the same photo would be treated in the same way again."""
        parts = stamps_of_files([*files_of_map(Path(self.map_path)), *self._lists()])
        return fingerprint_of(self.header(), parts, [photo.path])

    def _lists(self) -> list[Path]:
        """Files that the settings name and that have a say in the result."""
        given = [self.settings.get(key) for key in _LISTS]
        found = [Path(file) for value in given if value for file in (value if isinstance(value, tuple) else (value,))]
        return found + [Path(file) for file in sorted(glob.glob(str(self.settings.get("queries") or "")))]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _entry(photo: QueryPhoto, localized: LocalizedQuery) -> dict[str, Any]:
    estimate, details, view = localized.estimate, localized.details, localized.query
    entry: dict[str, Any] = {
        "query": photo.name,
        "photo": str(photo.path),
        **estimate.to_dict(),
        "stages": [_stage_entry(stage, details.unit) for stage in details.stages],
        "statistics": {k: finite_or_none(v) for k, v in details.statistics.items()},
        "messages": list(localized.messages),
        "camera": camera_as_dict(view.camera),
        "intrinsics_source": view.intrinsics_source,
    }
    if entry["success"] and localized.truth is not None:
        turned, apart = pose_errors(estimate.pose, localized.truth)
        entry["from_truth"] = {"rotation_deg": turned, "center": apart}
    if details.costs_at_truth:
        entry["costs_at_truth"] = {name: finite_or_none(cost) for name, cost in details.costs_at_truth.items()}
    return entry


def _stage_entry(stage: Stage, unit: MapUnit) -> dict[str, Any]:
    """NaN has no place in JSON."""
    pose = stage.cam_from_world
    told = pose.to_dict(to_frame="query camera", from_frame="map", unit=unit) if pose.is_finite() else None
    return {
        "name": stage.name,
        "cost": finite_or_none(stage.cost),
        "support": finite_or_none(stage.support),
        "cam_from_world": told,
    }


def localize_summary(outcome: QueryOutcome, names: Mapping[str, str] | None = None) -> list[str]:
    """The answer for a person, line by line. names: short ones for queries and photos of the map."""
    names = names or {}
    called = names.get(outcome.name, outcome.name)
    if outcome.unusable:
        return [f"{called}: not used"]
    if outcome.found is None:
        return [f"{called}: kept from the earlier run"]
    localized, details = outcome.found, outcome.found.details
    lines = [f"{called}: {localization_verdict(localized.estimate)}"]
    if outcome.success:
        pose = localized.estimate.pose
        q, t = (" ".join(f"{v:.6f}" for v in values.tolist()) for values in (pose.quaternion(), pose.t))
        lines += [f"  cam_from_world: q wxyz {q},", f"                  t {t}"]
    references = ", ".join(names.get(name, name) for name in details.references)
    lines.append(f"  references: {references or 'none'}; {details.num_points} points")
    words = [f"{stage.name} {stage.support:.2f}" for stage in details.stages if math.isfinite(stage.cost)]
    if words:
        lines.append(f"  support by stage: {', '.join(words)}")
    if "from_truth" in outcome.entry:
        error = outcome.entry["from_truth"]
        unit = length_unit(details.unit)
        lines.append(f"  from the truth: {error['rotation_deg']:.3f} degrees, {error['center']:.4f} {unit}")
    found = {stage.name: stage.cost for stage in details.stages}
    lines += [
        f"  cost of {name}: {found[name]:.1f}, at the truth {cost:.1f} (lower is better)"
        for name, cost in details.costs_at_truth.items()
        if name in found
    ]
    lines += [f"  note: {message}" for message in localized.messages]
    source = without_folders(localized.query.intrinsics_source, [outcome.entry["photo"]])
    lines.append(f"  intrinsics of the query: {source}")
    return lines
