"""What ``metriloc localize`` leaves behind: poses.json, visuallocalization.net and TUM lines, pictures, HTML reports.

As with ``metriloc relpose`` every file is written under a temporary name and renamed, the pose.json of a query last, and
a query whose pose.json carries the same fingerprint (photo, map, settings, weights, version) is not computed again.
"""

from __future__ import annotations

import datetime
import glob
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metriloc.cli.localize_queries import QueryPhoto
from metriloc.cli.saved import RunFolder, saved_entry
from metriloc.cli.terminal import printable
from metriloc.evaluation.submission import Naming, visloc_name, write_visloc
from metriloc.geometry import Pose
from metriloc.io import (
    InputError,
    listed_name,
    pose_as_dict,
    pose_from_dict,
    prepare_output_folder,
    tum_line,
    write_atomically,
)
from metriloc.types import FAILED, RELIABLE, SfmMap, Stage
from metriloc.version import __version__
from metriloc.viz import SoftwareFacts, encode_jpeg
from metriloc.viz.alignment import alignment_files, alignment_video
from metriloc.viz.localization import PICTURES, localization_pictures, localization_report, localization_verdict
from metriloc.viz.localized import LocalizedQuery, pose_errors

FORMAT = "metriloc-localize-1"
_LISTS = ("pairs", "init", "truth", "intrinsics", "hloc_logs", "global_descriptors", "calibration")


@dataclass(frozen=True, eq=False)
class QueryOutcome:
    """One query: its entry for poses.json, or the error that stopped it; how it was localised if that was just now."""

    name: str
    entry: Mapping[str, Any]
    localized: LocalizedQuery | None = None

    @classmethod
    def computed(cls, photo: QueryPhoto, localized: LocalizedQuery) -> QueryOutcome:
        """What a method said of one query."""
        return cls(photo.name, _entry(photo, localized), localized)

    @classmethod
    def unreadable(cls, photo: QueryPhoto, error: str) -> QueryOutcome:
        """A photo that could not be used."""
        return cls(photo.name, {"query": photo.name, "success": False, "error": error})

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
        """cam_from_world of a success, float64."""
        return pose_from_dict(self.entry["cam_from_world"])


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
    """One map, one method, many queries. scene: as read, settings: as the command was given them."""

    map_path: str
    scene: SfmMap
    method: str
    weights_id: str
    settings: Mapping[str, Any]
    names: Naming
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
                "lengths": "units of the map",
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
        digest = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode())
        path = Path(self.map_path)
        files = sorted(path.glob("*")) if path.is_dir() else [path]
        for file in [*files, *self._lists()]:
            if file.is_file():
                status = file.stat()
                digest.update(os.fsencode(file.name) + f" {status.st_size} {status.st_mtime_ns}".encode())
        digest.update(hashlib.sha256(photo.path.read_bytes()).digest())
        return digest.hexdigest()

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
    camera = view.camera
    entry: dict[str, Any] = {
        "query": photo.name,
        "photo": str(photo.path),
        "success": bool(estimate.success),
        "reason": estimate.reasons[0],
        "verdict": estimate.verdict,
        "confidence": float(estimate.confidence),
        "probability_of": estimate.probability_of,
        "doubts": list(estimate.reasons_for_doubt),
        "references": list(details.references),
        "num_points": details.num_points,
        "stages": [_stage_entry(stage) for stage in details.stages],
        "statistics": {k: v if math.isfinite(v) else None for k, v in details.statistics.items()},
        "messages": list(localized.messages),
        "camera": {
            "size": camera.size.tolist(),
            "K": camera.K.tolist(),
            "model": camera.model,
            "distortion": camera.distortion.tolist(),
        },
        "intrinsics_source": view.intrinsics_source,
        "timings_s": {stage: round(seconds, 6) for stage, seconds in details.timings.items()},
    }
    if entry["success"]:
        entry["cam_from_world"] = _pose_entry(estimate.pose)
        entry["camera_center"] = estimate.pose.center().tolist()
        if localized.truth is not None:
            turned, apart = pose_errors(estimate.pose, localized.truth)
            entry["from_truth"] = {"rotation_deg": turned, "center": apart}
    return entry


def _stage_entry(stage: Stage) -> dict[str, Any]:
    """NaN has no place in JSON."""
    pose = stage.cam_from_world
    finite = bool(pose.is_finite())
    return {
        "name": stage.name,
        "cost": stage.cost if math.isfinite(stage.cost) else None,
        "support": stage.support if math.isfinite(stage.support) else None,
        "cam_from_world": pose_as_dict(pose, to_frame="query camera", from_frame="map", unit="unit of the map")
        if finite
        else None,
    }


def _pose_entry(pose: Pose) -> dict[str, Any]:
    return pose_as_dict(pose, to_frame="query camera", from_frame="map", unit="unit of the map")


def localize_summary(outcome: QueryOutcome) -> str:
    """The answer for a person."""
    if outcome.unusable:
        return f"{printable(outcome.name)}: not used"
    if outcome.localized is None:
        return f"{printable(outcome.name)}: kept from the earlier run"
    localized, details = outcome.localized, outcome.localized.details
    lines = [f"{outcome.name}: {localization_verdict(localized.estimate)}"]
    if outcome.success:
        pose = localized.estimate.pose
        q, t = (" ".join(f"{v:.6f}" for v in values.tolist()) for values in (pose.quaternion(), pose.t))
        lines.append(f"  cam_from_world: q wxyz {q}, t {t}")
    lines.append(f"  references: {', '.join(details.references) or 'none'}; {details.num_points} points")
    words = [f"{stage.name} {stage.support:.2f}" for stage in details.stages if math.isfinite(stage.cost)]
    if words:
        lines.append(f"  support by stage: {', '.join(words)}")
    if "from_truth" in outcome.entry:
        error = outcome.entry["from_truth"]
        lines.append(f"  from the truth: {error['rotation_deg']:.3f} degrees, {error['center']:.4f} (units of the map)")
    lines += [f"  note: {message}" for message in localized.messages]
    lines.append(f"  intrinsics of the query: {localized.query.intrinsics_source}")
    return "\n".join(printable(line) for line in lines)


def _remove_pictures(folder: Path) -> None:
    """Those of an earlier run beside another result would mislead."""
    for name in (
        *(f"{name}.jpg" for name in PICTURES),
        "alignment.gif",
        "alignment.mp4",
        "alignment.json",
        "report.html",
    ):
        (folder / name).unlink(missing_ok=True)
    for file in (folder / "viewer").glob("*"):
        if file.name in ("dump.json", "dump_p2d.json", "query.jpg") or re.fullmatch(r"ref\d+\.jpg", file.name):
            file.unlink()


def _write_pages(folder: Path, run: LocalizeRun, localized: LocalizedQuery) -> None:
    pictures = localization_pictures(localized)
    for name, picture in pictures.items():
        write_atomically(folder / f"{name}.jpg", encode_jpeg(picture.rgb))
    files = alignment_files(localized, run.settings["viewer_up"])
    if localized.track is not None:
        files["alignment.json"] = json.dumps(localized.track.as_dict(), allow_nan=False).encode()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, data)
    today = datetime.date.today().isoformat()
    facts = SoftwareFacts(__version__, run.method, run.weights_id, int(run.settings["seed"]), today)
    where = "/".join(Path(run.map_path).parts[-2:])
    page = localization_report(localized, where, facts, tuple(pictures.values()), files.get("alignment.gif"))
    write_atomically(folder / "report.html", page)


class LocalizeFolder(RunFolder):
    """Where ``metriloc localize`` writes."""

    def saved(self, index: int, photo: QueryPhoto, run: LocalizeRun) -> QueryOutcome | None:
        """The result of an earlier run of the same kind, if its pose.json is here."""
        entry = saved_entry(self.query_folder(index, photo.path), photo.path, lambda: run.fingerprint(photo))
        if entry is None:
            return None
        try:
            outcome = QueryOutcome(photo.name, entry)
            _ = outcome.pose if outcome.success else None
        except (ValueError, KeyError, TypeError):
            return None  # a pose that is none: compute again
        return outcome

    def write_query(self, run: LocalizeRun, index: int, photo: QueryPhoto, outcome: QueryOutcome) -> None:
        """Pictures, report and, last, pose.json of a query that was computed just now."""
        if outcome.localized is None:
            return
        folder = self.query_folder(index, photo.path)
        prepare_output_folder(folder)
        _remove_pictures(folder)
        if run.settings["html"]:
            _write_pages(folder, run, outcome.localized)
        if run.settings["video"] is not None:
            seconds, fps = run.settings["video"]
            video = alignment_video(outcome.localized, fps, seconds)
            if video is not None:
                write_atomically(folder / "alignment.mp4", video)
        content = {**run.header(), "fingerprint": run.fingerprint(photo), "queries": [dict(outcome.entry)]}
        write_atomically(folder / "pose.json", json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_run(self, run: LocalizeRun) -> None:
        """The files over all queries."""
        write_atomically(self.path / "poses.json", json.dumps(run.as_dict(), indent=2) + "\n")
        solved = [(index, result) for index, result in enumerate(run.results) if result.success]
        poses = [(listed_name(result.name), result.pose) for _, result in solved]
        write_visloc(self.path / "poses.txt", poses, run.names)
        tum = [tum_line(float(index), result.pose) for index, result in solved]
        write_atomically(self.path / "poses.tum.txt", "".join(f"{line}\n" for line in tum))
