"""What ``metriloc relpose`` leaves behind: pose.json, TUM and Map-free lines, pictures and the HTML report.

Every file is written under a temporary name and renamed, the pose.json of a query last, so that whatever stands in the
folder is whole and a run that was stopped can go on (``--resume``): a query whose pose.json carries the same
fingerprint (photos, settings, weights, version) is not computed again.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from metriloc.calibration import Calibration
from metriloc.cli.saved import RunFolder, saved_entry
from metriloc.cli.terminal import printable
from metriloc.geometry import Camera, Pose
from metriloc.io import listed_name, pose_as_dict, prepare_output_folder, submission_line, tum_line, write_atomically
from metriloc.types import FAILED, RELIABLE, RELIABLE_METRES, PhotoFeatures, PoseEstimate, View
from metriloc.version import __version__
from metriloc.viz import (
    Picture,
    QueryReport,
    RelposeReport,
    SoftwareFacts,
    depth_overlay,
    depth_picture,
    encode_jpeg,
    match_picture,
    reasons_for_doubt,
    relpose_report,
    score_overlay,
    verdict,
)

FORMAT = "metriloc-relpose-1"


@dataclass(frozen=True, eq=False)
class QueryResult:
    """One query: its entry for pose.json, or the error that stopped it; estimate and features if computed just now."""

    path: str
    entry: Mapping[str, Any]
    estimate: PoseEstimate | None = None
    features: PhotoFeatures | None = None

    @classmethod
    def computed(cls, path: Path, estimate: PoseEstimate, features: PhotoFeatures) -> QueryResult:
        """What a method said of one query."""
        return cls(str(path), _entry(path, features.view, estimate), estimate, features)

    @classmethod
    def unreadable(cls, path: Path, error: str) -> QueryResult:
        """A photo that could not be used."""
        return cls(str(path), {"query": str(path), "success": False, "error": error})

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
        """query_from_reference of a success."""
        return Pose.from_matrix(torch.tensor(self.entry["query_from_reference"]["matrix"], dtype=torch.float64))


@dataclass(eq=False)
class Run:
    """One reference, one method, many queries. calibrations: of the method's confidence, as far as it has any."""

    reference: View
    method: str
    weights_id: str
    settings: Mapping[str, Any]
    results: list[QueryResult] = field(default_factory=list)
    calibrations: Sequence[Calibration] = ()

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
        return {**self.header(), "queries": [dict(result.entry) for result in self.results]}

    def fingerprint(self, query: Path) -> str:
        """Equal exactly when the same photos would be treated in the same way again."""
        digest = hashlib.sha256(json.dumps(self.header(), sort_keys=True).encode())
        for path in (Path(self.reference.name), query):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def _entry(path: Path, view: View, estimate: PoseEstimate) -> dict[str, Any]:
    detail = estimate.details[0]
    success = bool(estimate.success)
    entry: dict[str, Any] = {
        "query": str(path),
        "success": success,
        "reason": estimate.reasons[0],
        "confidence": float(estimate.confidence),
        "verdict": estimate.verdict,
        "doubts": reasons_for_doubt(estimate),
        "messages": list(detail.messages),
        "confidence_is_probability_of": estimate.probability_of or None,
        "score": detail.score,
        "num_inliers": len(detail.inliers),
        "metric": detail.metric,
        "scale_source": detail.scale_source,
        "metres_sources": [dataclasses.asdict(source) for source in detail.metres_sources],
        **_view_entry(view),
        "timings_s": {stage: round(seconds, 6) for stage, seconds in detail.timings.items()},
    }
    if success:
        entry["query_from_reference"] = pose_as_dict(
            estimate.pose,
            to_frame="query camera",
            from_frame="reference camera",
            unit="metre" if detail.metric else "unknown scale",
        )
        entry["camera_center_in_reference"] = estimate.pose.center().tolist()
        entry["distance"] = float(estimate.pose.distance())
        low_high = estimate.distance_interval
        entry["distance_interval_90"] = None if low_high is None else list(low_high)
        entry["rotation_angle_deg"] = math.degrees(float(estimate.pose.angle()))
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
    return {"photo": view.name, "camera": _camera_entry(view.camera), "intrinsics_source": view.intrinsics_source}


def _camera_entry(camera: Camera) -> dict[str, Any]:
    return {
        "size": camera.size.tolist(),
        "K": camera.K.tolist(),
        "model": camera.model,
        "distortion": camera.distortion.tolist(),
    }


def summary(result: QueryResult) -> str:
    """The answer for a person: a verdict and the numbers behind it."""
    if result.unusable:
        return f"{printable(result.path)}: not used"
    if result.estimate is None or result.features is None:
        return f"{printable(result.path)}: kept from the earlier run"
    lines = [f"{result.path}: {verdict(result.estimate)}"]
    if result.success:
        pose, detail = result.estimate.pose, result.estimate.details[0]
        x, y, z = pose.center().tolist()
        unit = "m" if detail.metric else "baseline = 1"
        w, qx, qy, qz = pose.quaternion().tolist()
        tx, ty, tz = pose.t.tolist()
        lines += [
            f"  camera position in the reference frame ({unit}): x {x:+.3f} (right), y {y:+.3f} (down), "
            f"z {z:+.3f} (forward)",
            f"  query_from_reference: q wxyz {w:.6f} {qx:.6f} {qy:.6f} {qz:.6f}, t {tx:.6f} {ty:.6f} {tz:.6f}",
            f"  inliers: {len(detail.inliers)}; scale: {detail.scale_source}",
        ]
        meaning = result.entry["confidence_is_probability_of"]
        if meaning is not None:
            levels = f"reliable from {RELIABLE}, failed below {FAILED}"
            lines.append(f"  confidence: the probability of {meaning}; {levels}")
        lines += [f"  note: {message}" for message in detail.messages]
    lines.append(f"  intrinsics of the query: {result.features.view.intrinsics_source}")
    return "\n".join(printable(line) for line in lines)


class OutputFolder(RunFolder):
    """Where ``metriloc relpose`` writes."""

    def saved(self, index: int, query: Path, run: Run) -> QueryResult | None:
        """The result of an earlier run of the same photos and settings, if its pose.json is here."""
        entry = saved_entry(self.query_folder(index, query), query, lambda: run.fingerprint(query))
        return None if entry is None else QueryResult(str(query), entry)

    def write_query(
        self, run: Run, index: int, result: QueryResult, reference: PhotoFeatures, truth: Pose | None = None
    ) -> None:
        """Pictures, report and, last, pose.json of a query that was computed just now."""
        if result.estimate is None or result.features is None:
            return
        folder = self.query_folder(index, Path(result.path))
        prepare_output_folder(folder)
        pictures = draw_pictures(result.estimate, reference, result.features)
        for name, picture in pictures.items():
            write_atomically(folder / f"{name}.jpg", encode_jpeg(picture.rgb))
        today = datetime.date.today().isoformat()
        report = RelposeReport(
            title=f"{Path(run.reference.name).name} and {Path(result.path).name}",
            reference=run.reference,
            queries=(
                QueryReport(
                    result.features.view,
                    result.estimate,
                    tuple(pictures.values()),
                    truth,
                ),
            ),
            software=SoftwareFacts(__version__, run.method, run.weights_id, run.seed, today),
        )
        write_atomically(folder / "report.html", relpose_report(report))
        content = {**run.header(), "fingerprint": run.fingerprint(Path(result.path)), "queries": [dict(result.entry)]}
        write_atomically(folder / "pose.json", json.dumps(content, indent=2) + "\n")

    def write_run(self, run: Run) -> None:
        """The files over all queries."""
        if not self.single:
            write_atomically(self.path / "pose.json", json.dumps(run.as_dict(), indent=2) + "\n")
        solved = [(i, r) for i, r in enumerate(run.results) if r.success and r.entry["metric"]]
        tum = [tum_line(float(i), r.pose) for i, r in solved]
        names = [listed_name(r.path) for _, r in solved]
        # the confidence of pose.json and of the submissions of metriloc eval, not a method's own score
        mapfree = [
            submission_line(name, r.pose, float(r.entry["confidence"]))
            for name, (_, r) in zip(names, solved, strict=True)
        ]
        # poses without metres would be read as metres by whoever opens these formats: they stay in pose.json
        write_atomically(self.path / "poses.tum.txt", "".join(f"{line}\n" for line in tum))
        write_atomically(self.path / "poses.mapfree.txt", "\n".join(mapfree))


def draw_pictures(estimate: PoseEstimate, reference: PhotoFeatures, query: PhotoFeatures) -> dict[str, Picture]:
    """File name -> picture: inlier matches, then scores and depths as far as there are any."""
    lines = match_picture(reference.view.image, query.view.image, estimate.details[0].inliers)
    pictures = {"matches": Picture("Inlier matches", lines)}
    for role, features in (("reference", reference), ("query", query)):
        view, predicted = features.view, features.depth_map()
        scores = score_overlay(view.image, features.score_map(), features.cell)
        pictures[f"{role}.score"] = Picture(f"Keypoint scores, {role}", scores)
        if predicted is not None:
            overlay = depth_overlay(predicted, features.cell, view.size)
            pictures[f"{role}.depth"] = Picture(f"Predicted depth, {role}", overlay)
        elif view.depth is not None:
            pictures[f"{role}.depth"] = Picture(f"Depth map given, {role}", depth_picture(view.depth))
    return pictures
