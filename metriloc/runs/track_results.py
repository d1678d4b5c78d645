"""A stream against a photo or in a map: what was found of each frame, as its line tells it and as a person reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metriloc.io.intrinsics import camera_as_dict
from metriloc.runs.folder import files_of_map, fingerprint_of, stamps_of_files
from metriloc.runs.relpose_results import position_in_words
from metriloc.streams.frames import StreamFrame
from metriloc.streams.notes import Notes
from metriloc.types import PoseEstimate, View
from metriloc.version import __version__
from metriloc.wording import finite_or_none

FORMAT = "metriloc-track-1"
_LISTS = ("device_poses", "device_mount", "intrinsics", "depth")


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """One frame that was worked on. estimate and view: None for one that could not be used."""

    entry: Mapping[str, Any]
    estimate: PoseEstimate | None = None
    view: View | None = None


@dataclass(eq=False)
class TrackRun:
    """One stream against one target.

    - target: path of the reference photo or of the map. reference: the photo, None for a map.
    - source: where frames come from. method, weights_id: what finds poses. settings: as the command was given them.
    - counts: frames by state, and of all. notes: what was wrong and survived, of stream, device poses and tracker.
    """

    target: str
    source: str
    method: str
    weights_id: str
    settings: Mapping[str, Any]
    reference: View | None = None
    unit: str = "metre"
    counts: Counter[str] = field(default_factory=Counter)
    notes: Notes = field(default_factory=Notes)

    def header(self) -> dict[str, Any]:
        """What is common to all frames: the content of run.json."""
        name = "cam_from_world" if self.reference is None else "query_from_reference"
        world = "map" if self.reference is None else "reference"
        return {
            "format": FORMAT,
            "metriloc_version": __version__,
            "method": self.method,
            "weights_id": self.weights_id,
            "target": self.target,
            "source": self.source,
            "settings": {k: _plain(v) for k, v in self.settings.items() if v is not None},
            "conventions": {
                name: f"X_query = R X_{world} + t, points in the camera's and the {world}'s frame",
                "device_pose": "cam_from_world in the device's own world, metres",
                "camera_axes": "x right, y down, z forward (OpenCV)",
                "pixels": "the centre of the first pixel is (0, 0)",
                "lengths": "metres" if self.unit == "metre" else "units of the map",
            },
            "reference": None if self.reference is None else _view_entry(self.reference),
        }

    def fingerprint(self) -> str:
        """Equal exactly when the same frames would be treated in the same way again."""
        given = [Path(value) for key in _LISTS if (value := self.settings.get(key))]
        photo = [] if self.reference is None else [Path(self.target)]
        parts = stamps_of_files(files_of_map(Path(self.target)) if self.reference is None else [])
        files = [file for file in (*photo, *given) if file.is_file()]
        return fingerprint_of(self.header(), parts, files)

    def summary(self) -> dict[str, Any]:
        """How it went: the content of summary.json."""
        return {"frames": dict(sorted(self.counts.items())), "notes": self.notes.sentences()}

    def count(self, entry: Mapping[str, Any]) -> None:
        """Take one frame into the counts."""
        self.counts["all"] += 1
        self.counts[str(entry.get("state", "lost"))] += 1
        self.counts["with a pose"] += bool(entry["success"])
        self.counts["unusable"] += "error" in entry
        self.counts["without metres"] += bool(entry["success"] and not entry.get("metric", True))


def frame_entry(
    frame: StreamFrame, photo: str, estimate: PoseEstimate, view: View | None, error: str, seconds: float
) -> dict[str, Any]:
    """The line of one frame.

    - photo: its file, or where in the source it is.
    - error: why it could not be used; "" where it could.
    - seconds: that it took.
    """
    entry: dict[str, Any] = {
        "index": frame.index,
        "query": frame.name,
        "photo": photo,
        "time": None if frame.time is None else finite_or_none(frame.time),
        "state": "lost" if estimate.track is None else estimate.track.state.value,
        **estimate.to_dict(),
    }
    if estimate.covariance is not None and entry["success"]:
        entry["covariance"] = estimate.covariance.detach().cpu().tolist()
    if frame.device_pose is not None and bool(frame.device_pose.is_finite()):
        told = frame.device_pose.to_dict(to_frame="query camera", from_frame="device world")
        entry["device_pose"] = told["matrix"]
    if view is not None:
        entry |= _view_entry(view)
    if error:
        entry["error"] = error
    return {**entry, "seconds": round(seconds, 4)}


def frame_in_words(entry: Mapping[str, Any], estimate: PoseEstimate | None, count: int | None) -> str:
    """One line for a person."""
    of = "" if count is None else f" of {count}"
    when = "" if entry["time"] is None else f", {entry['time']:.3f} s"
    begin = f"{entry['query']} ({entry['index'] + 1}{of}{when}): {entry['state']}"
    if "error" in entry:
        return f"{begin}, not used"
    if estimate is None or not entry["success"]:
        return f"{begin} ({entry['reason']})"
    sure = f"{entry['verdict']} {entry['confidence']:.2f}"
    if estimate.localization:
        x, y, z = estimate.pose.center().tolist()
        return f"{begin}, at {x:.3f} {y:.3f} {z:.3f}, {sure}"
    metric = bool(entry.get("metric", True))
    where = position_in_words(estimate.pose) if metric else "direction only"
    source = f"; {entry['scale_source']}" if metric and "scale_source" in entry else ""
    return f"{begin}, {where}, {sure}{source}"


def _view_entry(view: View) -> dict[str, Any]:
    return {"camera": camera_as_dict(view.camera), "intrinsics_source": view.intrinsics_source}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
