"""One reference photo and many queries: what was found of each, as pose.json tells it and as a person reads it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

from metriloc.calibration import Calibration
from metriloc.geometry import Pose
from metriloc.io.intrinsics import camera_as_dict
from metriloc.runs.folder import fingerprint_of
from metriloc.runs.outcome import Outcome
from metriloc.types import FAILED, RELIABLE, RELIABLE_METRES, PhotoFeatures, PoseEstimate, View
from metriloc.version import __version__
from metriloc.viz import verdict
from metriloc.viz.compared import Answer, answer_in_words
from metriloc.wording import without_folders

FORMAT = "metriloc-relpose-1"


@dataclass(frozen=True, eq=False)
class PairFound:
    """What a method said of a query, what it made of the photo, and what others said that were asked, too."""

    estimate: PoseEstimate
    features: PhotoFeatures
    others: tuple[Answer, ...] = ()


QueryResult: TypeAlias = Outcome[PairFound]


def pair_result(
    path: Path,
    estimate: PoseEstimate,
    features: PhotoFeatures,
    truth: Pose | None = None,
    others: Sequence[Answer] = (),
    world: Pose | None = None,
) -> QueryResult:
    """The outcome of one query. truth: the true query_from_reference, if it is known; others: of methods to compare with;
    world: reference_from_world, where that is known."""
    entry = {"query": str(path), **_told(estimate, truth), **_view_entry(features.view)}
    if world is not None and entry["success"] and entry["metric"]:
        pose = estimate.pose.to("cpu", torch.float64) @ world
        entry["cam_from_world"] = pose.to_dict(to_frame="query camera", from_frame="world of the reference poses")
    if others:
        entry["compared"] = [{"method": other.method, **_told(other.estimate, truth)} for other in others]
    return Outcome(str(path), entry, PairFound(estimate, features, tuple(others)))


@dataclass(eq=False)
class RelposeRun:
    """One reference, one method, many queries. calibrations: of the method's confidence, as far as it has any; truths:
    the true query_from_reference by the query's path, as far as they are known; kept: of an earlier run with the same
    settings and other queries. others: files of further references. reference_from_world: of the world that their known
    poses are in, None where that is the reference."""

    reference: View
    method: str
    weights_id: str
    settings: Mapping[str, Any]
    results: list[QueryResult] = field(default_factory=list)
    calibrations: Sequence[Calibration] = ()
    truths: Mapping[str, Pose] = field(default_factory=dict)
    kept: Sequence[QueryResult] = ()
    others: Sequence[Path] = ()
    reference_from_world: Pose | None = None

    @property
    def seed(self) -> int:
        """The seed of every pair."""
        return int(self.settings["seed"])

    def header(self) -> dict[str, Any]:
        """What is common to all queries."""
        return {
            "format": FORMAT,
            "metriloc_version": __version__,
            "method": self.method,
            "weights_id": self.weights_id,
            "seed": self.seed,
            "settings": {k: str(v) if isinstance(v, Path) else v for k, v in self.settings.items() if v is not None},
            "conventions": {
                "query_from_reference": "X_query = R X_reference + t, points in camera frames",
                "camera_axes": "x right, y down, z forward (OpenCV)",
                "pixels": "the centre of the first pixel is (0, 0)",
            },
            "confidence": _confidence_entry(self.calibrations),
            "reference": _view_entry(self.reference),
        }

    def as_dict(self) -> dict[str, Any]:
        """The content of pose.json."""
        return {**self.header(), "queries": [dict(result.entry) for result in (*self.kept, *self.results)]}

    def fingerprint(self, query: Path) -> str:
        """Equal exactly when the same photos would be treated in the same way again."""
        truth = self.truths.get(str(query))
        poses = [pose for pose in (truth, self.reference_from_world) if pose is not None]
        known = [str(pose.matrix().tolist()).encode() for pose in poses]
        return fingerprint_of(self.header(), known, (Path(self.reference.name), *self.others, query))


def _told(estimate: PoseEstimate, truth: Pose | None) -> dict[str, Any]:
    entry = estimate.to_dict()
    if truth is not None and entry["success"]:
        pose = estimate.pose.to("cpu", torch.float64)
        apart = float(pose.center_distance(truth)) if entry["metric"] else None
        entry["from_truth"] = {"rotation_deg": math.degrees(float(pose.angle_to(truth))), "center_m": apart}
    return entry


def _confidence_entry(calibrations: Sequence[Calibration]) -> dict[str, Any]:
    """What the confidences of a run mean."""
    if not calibrations:
        return {"calibrated": False}
    return {
        "calibrated": True,
        "calibrations": [dataclasses.asdict(calibration) for calibration in calibrations],
        "verdicts": {
            "reliable": f">= {RELIABLE}, no doubts, metres within {RELIABLE_METRES:.0%}",
            "failed": f"< {FAILED}, or no pose",
            "doubtful": "between",
        },
    }


def _view_entry(view: View) -> dict[str, Any]:
    return {"photo": view.name, "camera": camera_as_dict(view.camera), "intrinsics_source": view.intrinsics_source}


def relpose_summary(result: QueryResult, name: str | None = None, truth: Pose | None = None) -> list[str]:
    """The answer for a person, line by line.

    A verdict and the numbers behind it. name: a short one for the query; truth: for what other
    methods said.
    """
    name, found = name or Path(result.name).name, result.found
    if result.unusable:
        return [f"{name}: not used"]
    if found is None:
        return [f"{name}: kept from the earlier run"]
    lines = [f"{name}: {verdict(found.estimate)}"]
    if result.success:
        pose, detail = found.estimate.pose, found.estimate.details[0]
        w, qx, qy, qz = pose.quaternion().tolist()
        tx, ty, tz = pose.t.tolist()
        where = "camera position (m)" if detail.metric else "camera direction"
        lines += [
            f"  {where}: {position_in_words(pose)}",
            f"  query_from_reference: q wxyz {w:.6f} {qx:.6f} {qy:.6f} {qz:.6f},",
            f"                        t {tx:.6f} {ty:.6f} {tz:.6f}",
            f"  inliers: {len(detail.inliers)}; scale: {detail.scale_source}",
        ]
        meaning = result.entry["confidence_is_probability_of"]
        if meaning is not None:
            levels = f"reliable from {RELIABLE}, failed below {FAILED}"
            lines.append(f"  confidence: the probability of {meaning}; {levels}")
        if "from_truth" in result.entry:
            lines.append(f"  {_error_in_words(result.entry['from_truth'])}")
        lines += [f"  note: {message}" for message in detail.messages]
    lines += [f"  {answer_in_words(other, truth)}" for other in found.others]
    source = without_folders(found.features.view.intrinsics_source, [result.name])
    lines.append(f"  intrinsics of the query: {source}")
    return lines


def position_in_words(query_from_reference: Pose) -> str:
    """Where the query camera stood, along the axes of the reference camera."""
    x, y, z = query_from_reference.center().tolist()
    return f"x {x:+.3f} (right), y {y:+.3f} (down), z {z:+.3f} (forward)"


def _error_in_words(error: Mapping[str, float | None]) -> str:
    apart = error["center_m"]
    position = f", {100 * apart:.1f} cm in position" if apart is not None else " (no metres)"
    return f"error: {error['rotation_deg']:.2f} degrees in rotation{position}"
