"""Options of ``metriloc localize``: how the pose is found, PixLoc's choices, what is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from metriloc.adjust import Adjustable
from metriloc.cli.made import options_from
from metriloc.cli.options import FormatArgument, check_formats, check_resume
from metriloc.io import InputError
from metriloc.io.poses import Naming
from metriloc.io.yaml_file import read_yaml
from metriloc.methods.nre.published import assignments_of
from metriloc.methods.pixloc import LocalizeConfig, ResizeConfig
from metriloc.methods.pixloc.settings import METHOD as PIXLOC
from metriloc.methods.pixloc.settings import QuerySettings
from metriloc.runs.localize_files import LocalizeFolder
from metriloc.runs.options import DrawnOptions, LocalizerSettings
from metriloc.runs.references import ReferenceOptions
from metriloc.types import AbsolutePoseMethod, needs_of
from metriloc.viz.video import find_ffmpeg


def assignments_for(how: LocalizerSettings, given: Sequence[Sequence[str]]) -> list[str]:
    """What the configuration file and then ``--set`` say. Raises InputError for a file that is not NRE's."""
    found = [one for several in given for one in several]
    if how.config is None:
        return found
    if not how.name.startswith("nre"):
        raise InputError(f"--config {how.config} is of nre; {how.name} is set by --set FIELD=VALUE")
    return [*assignments_of(read_yaml(how.config), str(how.config)), *found]


@options_from(LocalizeConfig, without=("num_references", "use_confidences", "normalize_features"))
class PixLocOptions:
    """Of --method pixloc alone. What is not given is as stored with the weights."""

    feature_side: int | None = None
    """Longest side that photos are reduced to before features are made."""
    iterations: int | None = None
    """At most, a level."""

    def given(self) -> dict[str, object]:
        """Name and value of what was given."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    def configure(self, method: AbsolutePoseMethod, where: ReferenceOptions) -> AbsolutePoseMethod:
        """The method with these choices. Raises InputError for choices that are not the method's, and impossible ones."""
        given = self.given()
        if method.name != PIXLOC or not isinstance(method, Adjustable):
            if given:
                name = next(iter(given)).replace("_", "-")
                raise InputError(f"--{name} is an option of pixloc; {method.name} has none of that name")
            return method
        settings: QuerySettings = method.settings
        changes: dict[str, Any] = {}
        if where.from_poses:
            changes = {"points": "inliers", "rank_by_inliers": True, "image_scales": (1,)}
        if where.num_references is not None:
            changes["num_references"] = where.num_references
        elif where.references is not None:
            changes["num_references"] = max(settings.config.num_references, len(where.references))
        changes |= {name: value for name, value in given.items() if name not in ("feature_side", "iterations")}
        try:
            align, resize = settings.align, settings.resize
            if self.iterations is not None:
                align = replace(align, num_iters=self.iterations)
            if self.feature_side is not None:
                resize = replace(resize or ResizeConfig(), size=self.feature_side)
            settings = QuerySettings(replace(settings.config, **changes), align, resize)
            configured: AbsolutePoseMethod = method.with_settings(settings)
        except ValueError as error:
            raise InputError(f"an option of pixloc cannot be used: {error}") from error
        return configured


def check_matches(method: AbsolutePoseMethod, where: ReferenceOptions) -> None:
    """Raises InputError for a method that looks at matches which nothing gives."""
    if where.hloc_logs is not None or not needs_of(method).matches or not isinstance(method, Adjustable):
        return
    config: LocalizeConfig = method.settings.config
    if config.points != "all":
        raise InputError(f"--points {config.points} needs matches of the query: give --hloc-logs FILE")
    raise InputError("--rank-by-inliers needs matches of the query: give --hloc-logs FILE")


@dataclass(frozen=True)
class OutputOptions:
    """What is written."""

    out: Path | None = None
    """Folder for poses.json, poses.txt (visuallocalization.net), files of poses, pictures and HTML reports."""
    formats: FormatArgument = None
    """Files of poses in --out; by default tum. docs/conventions.md says what each holds."""
    names: Naming = "file"
    """How poses.txt calls a query: file, or folder/file (RobotCar, 7-Scenes, Cambridge)."""
    html: bool = True
    """Draw pictures and write report.html; of pixloc also alignment.gif, alignment.json (every
    iteration) and viewer/ (for the published viewer)."""
    viewer_up: Literal["none", "cmu", "7scenes"] = "none"
    """Turn of the world that makes up point up in viewer/."""
    video: bool = False
    """Of pixloc: write alignment.mp4 (H.264, by ffmpeg)."""
    video_seconds: float | None = None
    """How long the video lasts; 4 by default."""
    video_fps: float | None = None
    """Frames a second of the video, in place of --video-seconds."""
    resume: bool = False
    """Keep the queries that an earlier run with the same photos, map and settings left in --out."""
    json: bool = False
    """Print the result as JSON on standard output."""

    def check(self, method: str) -> None:
        """Raises InputError for options that contradict, and for a video that cannot be made."""
        check_resume(self.resume, self.out)
        check_formats(self.formats, self.out)
        if not self.video:
            if self.video_seconds is not None or self.video_fps is not None:
                raise InputError("--video-seconds and --video-fps are about a video: give --video too")
            return
        if method != "pixloc":
            raise InputError(f"--video shows the alignment of pixloc; {method} has none")
        if self.out is None:
            raise InputError("--video is written to --out: give a folder")
        if self.video_seconds is not None and self.video_fps is not None:
            raise InputError("--video-seconds and --video-fps contradict: give one")
        for name, value in (("seconds", self.video_seconds), ("fps", self.video_fps)):
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"--video-{name} must be positive, got {value}")
        find_ffmpeg()

    def prepared(self, single: bool) -> LocalizeFolder | None:
        """The folder of the run, made where one is wanted."""
        return None if self.out is None else LocalizeFolder.prepare(self.out, single=single, formats=self.formats)

    def drawn(self) -> dict[str, object]:
        """What decides on the files of a query."""
        video = (self.video_seconds, self.video_fps) if self.video else None
        return dataclasses.asdict(DrawnOptions(self.html, self.viewer_up, video))
