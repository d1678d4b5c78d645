"""What runs are told of photos and methods: options of the command line, and what the service is asked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metriloc.choose import LocalizerChoice, MethodChoice, Solver
from metriloc.io import InputError, load_view
from metriloc.io.arguments import LARGEST_SEED, require_number
from metriloc.io.download import cache_folder
from metriloc.io.images import require_one_size
from metriloc.io.intrinsics import camera_from_K
from metriloc.polish import PolishName
from metriloc.types import View


@dataclass(frozen=True)
class PhotoOptions:
    """What is known about the photos."""

    k: tuple[float, float, float, float] | None = None
    """FX FY CX CY of both photos, pixels, first pixel centre at 0, after EXIF rotation."""
    k_size: tuple[int, int] | None = None
    """WIDTH HEIGHT of the photos that the numbers of --k are for; other sizes of the same aspect are scaled."""
    k_ref: tuple[float, float, float, float] | None = None
    """FX FY CX CY of the reference alone."""
    k_query: tuple[float, float, float, float] | None = None
    """FX FY CX CY of the queries alone."""
    intrinsics: Path | None = None
    """An intrinsics.txt: lines 'image fx fy cx cy width height'."""
    fov: float | None = None
    """Horizontal field of view of both photos in degrees."""
    depth: Path | None = None
    """Depth map of the reference: 16-bit PNG (mm), float TIFF or .npy (m)."""
    depth_scale: float | None = None
    """Units a metre of --depth: 5000 for TUM; by default 1000 for whole numbers, 1 for floating point."""
    resize: tuple[int, int] | None = None
    """WIDTH HEIGHT the photos are resized to first; intrinsics follow."""
    max_side: int | None = None
    """Longest side in pixels; larger photos are reduced, intrinsics follow."""

    def load(self, path: Path, *, reference: Path | None = None) -> View:
        """One photo with its intrinsics. reference: None for the reference itself, which gets its depth map.

        Raises InputError for one --k and photos of two sizes, because it can only be right for one of them.
        """
        is_reference = reference is None
        own = self.k_ref if is_reference else self.k_query
        if own is not None and self.k is not None:
            raise InputError(f"--k {self.k} and --k-{'ref' if is_reference else 'query'} {own} contradict: give one")
        if self.k_size is not None and self.k is None:
            raise InputError(f"--k-size {self.k_size} says nothing without --k")
        if self.k is not None and self.k_size is None and reference is not None:
            require_one_size((reference, path), "--k")
        if own is not None and None not in (self.k_ref, self.k_query) and self.fov is not None:
            raise InputError(f"--k-ref and --k-query leave no photo for --fov {self.fov:g}: leave one of them out")
        known = self.k is not None and self.k_size is not None
        return load_view(
            path,
            K=None if known else own or self.k,
            camera=camera_from_K(self.k, self.k_size) if known else None,  # type: ignore[arg-type]
            intrinsics=None if own else self.intrinsics,
            fov=None if own else self.fov,
            depth=self.depth if is_reference else None,
            depth_scale=self.depth_scale if is_reference else None,
            resize=self.resize,
            max_side=self.max_side,
        )


@dataclass(frozen=True)
class MethodSettings:
    """How the pose is found."""

    weights: str | None = None
    """Folder, file, published name or hub name 'owner/name' of the weights."""
    distance: float | None = None
    """Metres between the two cameras, if known (matching without a depth map)."""
    camera_height: float | Literal["handheld"] | None = None
    """Metres of both cameras above the ground, if known and upright: robots, tripods (matching); handheld: the usual height
    in a hand, weighed with predicted depth where a ground is seen."""
    solver: Solver = "auto"
    """Of matching: essential matrix, pnp, rigid (3D-3D), or auto."""
    depth_source: str = "file"
    """Metres of matching: file (the depth map given), none, constant:METRES, mickey:WEIGHTS or hub:OWNER/NAME; in eval
    also file:NAME for the data set's maps frame.NAME.png, such as file:dptkitti."""
    polish: PolishName | None = None
    """Make poses more exact: matches, of MicKey, by the reprojection error of its inliers (metriloc-small always does);
    nre or pixloc, of any method, by a localizer on the pair. Wins with a depth map; see docs/howto/two-photos.md."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of MicKey's backbone; auto: half on CUDA, single on CPU."""
    runtime: str = "torch"
    """What runs the networks: torch, onnx (sizes are exported when first met), onnx:FOLDER (files of metriloc export)."""
    calibration: str | None = None
    """File of metriloc eval calibrate that turns the confidence into a probability, or none."""
    seed: int = 0
    """Same seed, same answer (on one machine, with as many threads)."""

    @property
    def depth_files(self) -> str | None:
        """NAME of ``file:NAME``: the data set's depth maps that are to be used instead of its own; None for no such."""
        return self.depth_source.removeprefix("file:") if self.depth_source.startswith("file:") else None

    def choice(self, method: str, of_data: bool = False) -> MethodChoice:
        """The method of that name with these settings; the seed is not of the method.

        of_data: photos are of a data set, which may have depth maps of several names.
        """
        require_number("--seed", self.seed, 0, LARGEST_SEED, whole=True)
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "seed"}
        return MethodChoice(method, depth=values.pop("depth_source"), of_data=of_data, **values)


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

    @property
    def cache_folder(self) -> Path:
        """Where things are kept."""
        return cache_folder() if self.cache is None else self.cache


@dataclass(frozen=True)
class DrawnOptions:
    """What decides on the files of a localized photo."""

    html: bool = True
    """Draw pictures and write report.html."""
    viewer_up: Literal["none", "cmu", "7scenes"] = "none"
    """Turn of the world that makes up point up in viewer/."""
    video: tuple[float | None, float | None] | None = None
    """Seconds and frames a second of the film."""
