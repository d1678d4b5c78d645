"""``metriloc map build PHOTOS --out MAP``: a map from a folder of photos."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.eval_run import device_of
from metriloc.cli.terminal import EXIT_NO_POSE, hearing_sigterm, print_lines, progress_bar
from metriloc.io import InputError
from metriloc.mapping.config import MapConfig
from metriloc.mapping.facts import MapFacts
from metriloc.mapping.prepare import Sharing
from metriloc.mapping.sharing import PartWorker, ProcessSharing, RaySharing
from metriloc.mapping.sources import ScaleOptions
from metriloc.runs.map_build import build_map, help_build_map, summary
from metriloc.training.processes import Processes, joined_processes


@dataclass(frozen=True)
class ScaleSettings:
    """What tells metres. Several are fused by variance, and the map says how exact it is."""

    distance: tyro.conf.UseAppendAction[tuple[tuple[str, str, float], ...]] = ()
    """PHOTO PHOTO METRES between two cameras; may be given several times."""
    distance_sigma: float = 0.01
    """Standard deviation of --distance, metres."""
    positions: Path | None = None
    """File of camera positions ('name x y z' or 'name x y z sigma', metres) or poses ('name qw qx qy qz tx ty tz')."""
    positions_sigma: float = 0.05
    """Standard deviation of --positions where the file states none, metres."""
    depth_maps: Path | None = None
    """Folder with a depth map for each photo (NAME.depth.png, NAME.png, NAME.npy)."""
    depth: str | None = None
    """Weights that predict depth, such as metriloc-depth: a rough scale."""
    camera_height: float | None = None
    """Metres at which the cameras were held above the floor."""
    gps: bool = True
    """Whether GPS positions in EXIF are used; they also turn the map: x east, y north, z up."""

    def options(self) -> ScaleOptions:
        """Without the network."""
        return ScaleOptions(
            self.distance,
            self.distance_sigma,
            self.positions,
            self.positions_sigma,
            self.depth_maps,
            self.camera_height,
            self.gps,
        )


@dataclass(frozen=True)
class MapPhotoOptions:
    """What is known about the photos."""

    intrinsics: Path | None = None
    """An intrinsics.txt: lines 'image fx fy cx cy width height'; by default one beside the photos, EXIF, or a guess."""
    fov: float | None = None
    """Horizontal field of view of all photos, degrees."""


@hearing_sigterm()
def map_build(
    photos: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="PHOTOS")],
    out: Path,
    ordered: bool = False,
    known: Annotated[MapPhotoOptions, tyro.conf.arg(name="photo")] = MapPhotoOptions(),
    how: Annotated[MapConfig, tyro.conf.arg(name="settings")] = MapConfig(),  # noqa: B008
    scale: Annotated[ScaleSettings, tyro.conf.arg(name="scale")] = ScaleSettings(),
    device: str = "cpu",
    ray_workers: int = 0,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Make a map of a folder of photos, which `metriloc localize MAP QUERY` opens; goes on after an interruption.

    Args:
        photos: Folder of photos; those in folders below it count as well.
        out: Folder of the map.
        ordered: The photos are frames in the order of their names: compare neighbors only (--pairs ordered).
        known: What is known about the photos.
        how: How the map is made.
        scale: What tells metres.
        device: cpu, cuda, cuda:1, ... for features other than sift.
        ray_workers: Share keypoints and matches with so many Ray workers, on the machines Ray knows (torchrun also works).
        json_output: Print what map.json says.
    """
    if ordered and how.pairs not in ("auto", "ordered"):
        raise InputError(f"--ordered and --pairs {how.pairs} contradict: give one")
    config = MapConfig(**{**asdict(how), "pairs": "ordered"}) if ordered else how
    with joined_processes("cpu") as processes:
        device = device_of(device, os.environ)
        share = sharing_of(processes, ray_workers)
        if not processes.is_first and share is not None:
            help_build_map(photos, out, share, config=config, intrinsics=known.intrinsics, fov=known.fov, device=device)
            return 0
        facts = build_map(
            photos,
            out,
            config=config,
            scale=scale.options(),
            depth=scale.depth,
            intrinsics=known.intrinsics,
            fov=known.fov,
            device=device,
            bar=progress_bar,
            share=share,
        )
    if json_output:
        print(json.dumps(asdict(facts), indent=2))
    else:
        print_lines(summary(facts, out))
    return told(facts)


def sharing_of(processes: Processes, ray_workers: int) -> Callable[[PartWorker], Sharing] | None:
    """Who does a part of the work.

    Ray workers, the processes of torchrun, or nobody else. Raises InputError for both.
    """
    if ray_workers < 0 or (ray_workers and processes.world_size > 1):
        raise InputError(f"--ray-workers must be 0 or more, and not within torchrun, got {ray_workers}")
    if ray_workers:
        return partial(RaySharing, workers=ray_workers)
    if processes.world_size > 1:
        return partial(ProcessSharing, rank=processes.rank, count=processes.world_size, wait=processes.wait)
    return None


def told(facts: MapFacts) -> int:
    """The exit code: 1 where photos are missing in the map."""
    if facts.left_out and sys.stderr.isatty():
        print(f"{len(facts.left_out)} photos were left out", file=sys.stderr)
    return 0 if facts.registered == facts.given else EXIT_NO_POSE
