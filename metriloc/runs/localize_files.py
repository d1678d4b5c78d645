"""What ``metriloc localize`` leaves behind: poses.json, files of poses, pictures, HTML reports.

As with ``metriloc relpose`` every file is written under a temporary name and renamed, the pose.json of a query last, and
a query whose pose.json carries the same fingerprint (photo, map, settings, weights, version) is not computed again.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path

from metriloc.evaluation.submission import write_visloc
from metriloc.io import listed_name, prepare_output_folder, write_atomically
from metriloc.runs.folder import RunFolder, saved_entry
from metriloc.runs.localize_results import LocalizeRun, QueryOutcome
from metriloc.runs.outcome import Outcome
from metriloc.runs.pose_files import posed_photos, write_pose_files
from metriloc.runs.queries import QueryPhoto
from metriloc.version import __version__
from metriloc.viz import Picture, SoftwareFacts, encode_jpeg
from metriloc.viz.alignment import alignment_files, alignment_video
from metriloc.viz.localize_report import PICTURES, localization_pictures, localization_report
from metriloc.viz.localized import LocalizedQuery


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
    if localized.trace.table:
        files["alignment.json"] = json.dumps(localized.trace.table, allow_nan=False).encode()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_atomically(folder / name, data)
    write_atomically(folder / "report.html", query_page(run, localized, pictures, files.get("alignment.gif")))


def query_page(
    run: LocalizeRun, localized: LocalizedQuery, pictures: Mapping[str, Picture], animation: bytes | None = None
) -> str:
    """The HTML report of one query. pictures: of ``localization_pictures``; animation: a GIF."""
    today = datetime.date.today().isoformat()
    facts = SoftwareFacts(__version__, run.method, run.weights_id, int(run.settings["seed"]), today)
    where = "/".join(Path(run.map_path).parts[-2:])
    return localization_report(localized, where, facts, tuple(pictures.values()), animation)


class LocalizeFolder(RunFolder):
    """Where ``metriloc localize`` writes."""

    USUAL = ("tum",)

    def saved(self, index: int, photo: QueryPhoto, run: LocalizeRun) -> QueryOutcome | None:
        """The result of an earlier run of the same kind, if its pose.json is here."""
        entry = saved_entry(self.query_folder(index, photo.path), photo.path, lambda: run.fingerprint(photo))
        return Outcome.saved(photo.name, entry)

    def write_query(self, run: LocalizeRun, index: int, photo: QueryPhoto, outcome: QueryOutcome) -> None:
        """Pictures, report and, last, pose.json of a query that was computed just now."""
        if outcome.found is None:
            return
        folder = self.query_folder(index, photo.path)
        prepare_output_folder(folder)
        _remove_pictures(folder)
        if run.settings["html"]:
            _write_pages(folder, run, outcome.found)
        if run.settings["video"] is not None:
            seconds, fps = run.settings["video"]
            video = alignment_video(outcome.found, fps, seconds)
            if video is not None:
                write_atomically(folder / "alignment.mp4", video)
        content = {**run.header(), "fingerprint": run.fingerprint(photo), "queries": [dict(outcome.entry)]}
        write_atomically(folder / "pose.json", json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_run(self, run: LocalizeRun) -> None:
        """The files over all queries."""
        write_atomically(self.path / "poses.json", json.dumps(run.as_dict(), indent=2) + "\n")
        poses = [(listed_name(result.name), result.pose) for result in run.results if result.success]
        write_visloc(self.path / "poses.txt", poses, run.names)
        write_pose_files(self.path, self.formats, posed_photos(run.results))
