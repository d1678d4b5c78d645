"""Options of ``metriloc track``: the reference or map, the device's poses, how the pose is found, what is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metriloc.choose import LocalizerChoice, MethodChoice, choose_localizer, choose_method, require_device
from metriloc.cli.options import FormatArgument, check_formats, check_resume
from metriloc.io import InputError, load_view
from metriloc.io.arguments import LARGEST_SEED, require_number
from metriloc.streams.bag import BagOptions
from metriloc.streams.device_poses import Axes, MatchConfig
from metriloc.streams.pose_files import MountOptions
from metriloc.streams.source import StreamOptions
from metriloc.streams.views import CameraOptions
from metriloc.types import View


@dataclass(frozen=True)
class TargetOptions:
    """What is known of the reference photo, or of the map."""

    k_ref: tuple[float, float, float, float] | None = None
    """FX FY CX CY of the reference photo, pixels, first pixel centre at 0, after EXIF rotation."""
    depth: Path | None = None
    """Depth map of the reference photo: 16-bit PNG (mm), float TIFF or .npy (m)."""
    depth_scale: float | None = None
    """Units a metre of --depth: 5000 for TUM; by default 1000 for whole numbers, 1 for floating point."""
    images: Path | None = None
    """Of a map: the folder that the names of its photos are relative to."""

    def load(self, path: Path, camera: CameraOptions) -> View:
        """The reference photo. Raises InputError when it cannot be used."""
        if self.images is not None:
            raise InputError(f"--images {self.images} belongs to a map, and '{path}' is a photo")
        return load_view(
            path,
            K=self.k_ref,
            fov=None if self.k_ref is not None else camera.fov,
            intrinsics=None if self.k_ref is not None else camera.intrinsics,
            depth=self.depth,
            depth_scale=self.depth_scale,
            max_side=camera.max_side,
        )

    def check_map(self, path: Path) -> None:
        """Raises InputError for options of a photo beside a map."""
        for name in ("k_ref", "depth", "depth_scale"):
            if getattr(self, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} is about a reference photo, and '{path}' is a map")


@dataclass(frozen=True)
class DeviceOptions:
    """Where the device says that its camera stood, in metres."""

    device_poses: Path | None = None
    """File of device poses in place of those that come with SOURCE: TUM, Map-free, KITTI, EuRoC, Stray Scanner's
    odometry.csv, transforms.json, Record3D."""
    no_device_poses: bool = False
    """Do without device poses, also those that come with SOURCE."""
    device_tolerance: float = 0.02
    """Seconds that a pose may be away from a frame that lies between no two poses."""
    device_gap: float = 0.2
    """Seconds between two poses that are interpolated, at most; 0 takes the nearest pose alone."""
    device_offset: float = 0.0
    """Seconds that are added to the times of poses."""
    device_axes: Axes | None = None
    """Axes of the poses, camera to world: opencv (right, down, forward), arkit (right, up, back), ros (forward, left, up)."""
    device_mount: Path | None = None
    """Where the camera stands in the body that the poses are of: the 4 x 4 numbers of body from camera."""

    def stream(self, camera: CameraOptions, bag: BagOptions, fps: float | None) -> StreamOptions:
        """All that a stream is opened with. Raises InputError for options that contradict."""
        if self.no_device_poses and self.device_poses is not None:
            raise InputError(f"--device-poses {self.device_poses} and --no-device-poses contradict: give one")
        return StreamOptions(
            camera,
            bag,
            MountOptions(self.device_axes, self.device_mount),
            MatchConfig(self.device_tolerance, self.device_gap, self.device_offset),
            fps,
            self.device_poses or not self.no_device_poses,
        )


@dataclass(frozen=True)
class TrackSettings:
    """How poses are found."""

    method: str | None = None
    """Against a photo a matcher (aliked+lightglue, xfeat, ...), the best that is here by default; in a map as of localize."""
    weights: str | None = None
    """Weights of the method: folder, file or hub name."""
    frames: int | None = None
    """Against a photo: how many of the last frames measure together; 5 by default."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    seed: int = 0
    """Same seed, same answer (on one machine, with as many threads)."""

    def check(self) -> None:
        """Raises InputError for numbers that cannot be."""
        require_number("--seed", self.seed, 0, LARGEST_SEED, whole=True)
        if self.frames is not None:
            require_number("--frames", self.frames, 1, 100, whole=True)
        require_device(self.device)

    def check_map(self, path: Path) -> None:
        """Raises InputError for what only a stream against a photo has."""
        if self.frames is not None:
            raise InputError(f"--frames {self.frames} is about a stream against a photo, and '{path}' is a map")

    def for_photo(self) -> Any:
        """The method against a reference photo."""
        return choose_method(MethodChoice(self.method or "auto", weights=self.weights, device=self.device))

    def for_map(self) -> Any:
        """The localizer, None for the usual one."""
        if self.method is None and self.weights is None:
            return None
        return choose_localizer(LocalizerChoice(self.method or "nre", self.weights, self.device))


@dataclass(frozen=True)
class TrackOutput:
    """Which frames are looked at, and what is written."""

    out: Path | None = None
    """Folder for run.json, frames.jsonl (a line a frame, flushed), summary.json and files of poses."""
    formats: FormatArgument = None
    """Files of poses in --out; by default tum. docs/conventions.md says what each holds."""
    photos: bool = False
    """Keep frames of videos, bags and standard input as JPEGs in --out, so that files of poses name them."""
    resume: bool = False
    """Go on where an equal run stopped, also one that was killed."""
    every: int = 1
    """Only each so many-th frame is looked at."""
    fps: float | None = None
    """Frames a second, in place of the times of SOURCE."""
    realtime: bool = False
    """Take frames at their own speed, and drop those that are over before there is time for them."""
    json: bool = False
    """Print a line of JSON for each frame, flushed."""

    def check(self) -> None:
        """Raises InputError for options that contradict."""
        check_resume(self.resume, self.out)
        check_formats(self.formats, self.out)
        require_number("--every", self.every, 1, 1_000_000, whole=True)
        if self.photos and self.out is None:
            raise InputError("--photos keeps photos in --out: give a folder")
