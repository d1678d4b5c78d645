"""Options of ``metriloc localize``: how the pose is found, PixLoc's choices, what is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from metriloc.adjust import Adjustable
from metriloc.choose import LocalizerChoice
from metriloc.cli.made import options_from
from metriloc.cli.options import FormatArgument, check_formats, check_resume
from metriloc.io import InputError
from metriloc.io.arguments import LARGEST_SEED, require_number
from metriloc.io.download import cache_folder
from metriloc.io.poses import Naming
from metriloc.io.yaml_file import read_yaml
from metriloc.methods.nre.published import assignments_of
from metriloc.methods.pixloc import LocalizeConfig, ResizeConfig
from metriloc.methods.pixloc.settings import METHOD as PIXLOC
from metriloc.methods.pixloc.settings import QuerySettings
from metriloc.runs.references import ReferenceOptions
from metriloc.types import AbsolutePoseMethod, needs_of
from metriloc.viz.video import find_ffmpeg


@dataclass(frozen=True)
class LocalizerSettings:
    """How the pose is found."""

    method: str | None = None
    """nre by default, in a bundle the first of its methods whose weights are here; or nre-xfeat, nre-xfeat+aliked,
    nre-xfeat+disk, pixloc, or matching and PnP: xfeat-pnp, aliked-pnp, disk-pnp."""
    features: str | None = None
    """Of nre: coarse features, and fine ones after the plus; by default xfeat+aliked where ALIKED's weights are, else xfeat;
    nre for the published networks."""
    weights: str | None = None
    """Of pixloc: folder, file or hub name, pixloc-small by default. Of others: files for their features, with a comma
    between two; of nre's networks the coarse one alone leaves the fine stage out."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ...; of nre also two with a comma between, of its coarse and its fine stage: cuda,cpu."""
    config: Path | None = None
    """Of nre: its published configuration file, config.yml; --set goes beyond it."""
    cache: Path | None = None
    """Folder for what is kept of the map's photos from run to run; by default where metriloc keeps weights."""
    calibration: str | None = None
    """File that turns the confidence into a probability, or none; by default the one that comes with the method."""
    runtime: str = "torch"
    """What runs the networks: torch, onnx (sizes are exported when first met), onnx:FOLDER (files of metriloc export)."""
    seed: int = 0
    """Same seed, same answer (on one machine, with as many threads)."""

    @property
    def name(self) -> str:
        """Of the method."""
        return self.method or "nre"

    def choice(self) -> LocalizerChoice:
        """The localiser with these settings; the seed is not of it."""
        require_number("--seed", self.seed, 0, LARGEST_SEED, whole=True)
        cache = str(self.cache_folder / "pixloc")
        return LocalizerChoice(
            self.name, self.weights, self.device, self.features, cache, self.calibration, self.runtime
        )

    def assignments(self, given: Sequence[Sequence[str]]) -> list[str]:
        """What the configuration file and then ``--set`` say. Raises InputError for a file that is not NRE's."""
        found = [one for several in given for one in several]
        if self.config is None:
            return found
        if not self.name.startswith("nre"):
            raise InputError(f"--config {self.config} is of nre; {self.name} is set by --set FIELD=VALUE")
        return [*assignments_of(read_yaml(self.config), str(self.config)), *found]

    @property
    def cache_folder(self) -> Path:
        """Where things are kept."""
        return cache_folder() if self.cache is None else self.cache


@options_from(LocalizeConfig, without=("num_references", "use_confidences", "normalize_features"))
class PixLocOptions:
    """Of --method pixloc alone; what is not given is as stored with the weights."""

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

    def drawn(self) -> dict[str, object]:
        """What decides on the files of a query."""
        video = (self.video_seconds, self.video_fps) if self.video else None
        return {"html": self.html, "viewer_up": self.viewer_up, "video": video}
