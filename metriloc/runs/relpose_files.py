"""What ``metriloc relpose`` leaves behind: pose.json, files of poses, pictures and the HTML report.

Every file is written under a temporary name and renamed, the pose.json of a query last, so that whatever stands in the
folder is whole and a run that was stopped can go on (``--resume``): a query whose pose.json carries the same
fingerprint (photos, settings, weights, version) is not computed again.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metriloc.geometry import Pose
from metriloc.io import InputError, prepare_output_folder, read_json, write_atomically
from metriloc.io.posed_photos import PosedPhoto
from metriloc.runs.folder import RunFolder, require_same_run, saved_entry
from metriloc.runs.outcome import Outcome
from metriloc.runs.pose_files import posed_photos, write_pose_files
from metriloc.runs.relpose_results import FORMAT, PairFound, QueryResult, RelposeRun
from metriloc.runs.viewed_pairs import POINTS_FILE, points_file
from metriloc.types import PhotoFeatures, PoseEstimate
from metriloc.version import __version__
from metriloc.viz import (
    Answer,
    Picture,
    QueryReport,
    RelposeReport,
    SoftwareFacts,
    build_scene,
    compared_picture,
    encode_jpeg,
    encode_png,
    match_picture,
    predicted_strip,
    relpose_report,
    scene_picture,
)
from metriloc.viz.predicted import drawn_depth, drawn_scores

_SOMETIMES = ("compared.jpg", "reference.predicted.jpg", "query.predicted.jpg")
"""Pictures that not every run has."""
_STRIP = "Photo, depth (near is bright, black is unknown), and scores from the least (violet) to the highest (yellow)."
_SCORES = "From the least score (violet) to the 99th percentile and above (yellow); the photo shows through."


class RelposeFolder(RunFolder):
    """Where ``metriloc relpose`` writes."""

    USUAL = ("tum", "mapfree")

    def saved(self, index: int, query: Path, run: RelposeRun) -> QueryResult | None:
        """The result of an earlier run of the same photos and settings, if its pose.json is here."""
        entry = saved_entry(self.query_folder(index, query), query, lambda: run.fingerprint(query))
        return Outcome.saved(str(query), entry)

    def earlier(self, run: RelposeRun, queries: Sequence[Path]) -> list[QueryResult]:
        """What runs with the same settings left of other queries.

        Raises InputError, naming what differs, where the folder is of a run with other settings, and where another
        query has the place of the only one of this run.
        """
        found: dict[str, QueryResult] = {}
        now, ours = json.loads(json.dumps(run.header())), {query.resolve() for query in queries}
        for file in (*sorted(self.path.glob("[0-9]*_*/pose.json")), self.path / "pose.json"):
            content = _earlier_content(file)
            require_same_run(self.path, {key: content.get(key) for key in now} if content else now, now)
            for entry in content.get("queries", ()):
                outcome: QueryResult | None = None if "error" in entry else Outcome.saved(str(entry["query"]), entry)
                if outcome is not None and Path(outcome.name).resolve() not in ours:
                    found[outcome.name] = outcome
        if found and self.single:
            raise InputError(
                f"'{self.path}' holds the pose of {next(iter(found))!r}, and a folder for a single query has room for one: "
                "give all queries at once, or another --out"
            )
        return list(found.values())

    def write_query(self, run: RelposeRun, index: int, result: QueryResult, reference: PhotoFeatures) -> None:
        """Pictures, report and, last, pose.json of a query that was computed just now."""
        if result.found is None:
            return
        estimate, features = result.found.estimate, result.found.features
        folder = self.query_folder(index, Path(result.name))
        prepare_output_folder(folder)
        truth = run.truths.get(result.name)
        pictures = draw_pictures(estimate, reference, features)
        if result.found.others:
            pictures["compared"] = _compared(run, result.found, truth)
        for name in (*_SOMETIMES, "scene.png", "scene.confidence.png", POINTS_FILE):
            (folder / name).unlink(missing_ok=True)  # of an earlier run, which may have had a pose, or other methods
        for name, picture in pictures.items():
            write_atomically(folder / f"{name}.jpg", encode_jpeg(picture.rgb))
        scene = build_scene(estimate, run.reference, features.view, truth)
        if scene is not None:
            write_atomically(folder / POINTS_FILE, points_file(scene))
            write_atomically(folder / "scene.png", encode_png(scene_picture(scene)))
            write_atomically(folder / "scene.confidence.png", encode_png(scene_picture(scene, color="confidence")))
        write_atomically(folder / "report.html", query_page(run, result.name, result.found, pictures))
        content = {**run.header(), "fingerprint": run.fingerprint(Path(result.name)), "queries": [dict(result.entry)]}
        write_atomically(folder / "pose.json", json.dumps(content, indent=2) + "\n")

    def write_run(self, run: RelposeRun) -> None:
        """The files over all queries."""
        if not self.single:
            write_atomically(self.path / "pose.json", json.dumps(run.as_dict(), indent=2) + "\n")
        name, camera = run.reference.name, run.reference.camera
        world = PosedPhoto(name, Path(name), camera, Pose.identity(dtype=torch.float64))
        found = posed_photos([*run.kept, *run.results], world)
        known = run.reference_from_world
        write_pose_files(self.path, self.formats, found if known is None else found.in_world(known))


def query_page(run: RelposeRun, name: str, found: PairFound, pictures: Mapping[str, Picture]) -> str:
    """The HTML report of one query. name: of the query; pictures: of ``draw_pictures``, and more."""
    shown = tuple(picture for kind, picture in pictures.items() if not _is_in_strip(kind, pictures))
    today = datetime.date.today().isoformat()
    report = RelposeReport(
        title=f"{Path(run.reference.name).name} and {Path(name).name}",
        reference=run.reference,
        queries=(QueryReport(found.features.view, found.estimate, shown, run.truths.get(name)),),
        software=SoftwareFacts(__version__, run.method, run.weights_id, run.seed, today),
    )
    return relpose_report(report)


def _earlier_content(file: Path) -> dict[str, Any]:
    """What a pose.json holds; nothing where there is none of ours, so that the query is computed again."""
    try:
        content = read_json(file) if file.is_file() else {}
        entries = content["queries"] if content else []
        readable = content.get("format") == FORMAT and all("query" in entry for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return content if readable else {}


def _is_in_strip(name: str, pictures: Mapping[str, Picture]) -> bool:
    """Whether the report shows a picture of scores or depth beside the photo already."""
    role, _, kind = name.partition(".")
    return kind in ("score", "depth") and f"{role}.predicted" in pictures


def _compared(run: RelposeRun, found: PairFound, truth: Pose | None) -> Picture:
    answers = (Answer(run.method, found.estimate), *found.others)
    note = "The inliers of each method in a frame of its color, which its camera has, too, in the view below."
    picture = compared_picture(run.reference, found.features.view, answers, truth)
    return Picture("Methods compared", picture, note + (" The true camera is green." if truth is not None else ""))


def draw_pictures(estimate: PoseEstimate, reference: PhotoFeatures, query: PhotoFeatures) -> dict[str, Picture]:
    """File name -> picture.

    Inlier matches, then scores and depths as far as there are any, predicted ones also in a strip
    beside the photo.
    """
    lines = match_picture(reference.view.image, query.view.image, estimate.details[0].inliers)
    pictures = {"matches": Picture("Inlier matches", lines)}
    for role, features in (("reference", reference), ("query", query)):
        depth = drawn_depth(features)
        if depth is not None and features.depth_origin.startswith("predicted"):
            strip = predicted_strip(features)
            pictures[f"{role}.predicted"] = Picture(f"Depth {features.depth_origin} and scores, {role}", strip, _STRIP)
        if features.score_map().numel():  # a photo may be smaller than one cell
            pictures[f"{role}.score"] = Picture(f"Keypoint scores, {role}", drawn_scores(features), _SCORES)
        if depth is not None:
            note = "Near is bright, black is unknown."
            pictures[f"{role}.depth"] = Picture(f"Depth {features.depth_origin}, {role}", depth, note)
    return pictures
