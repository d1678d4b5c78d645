"""Options that several commands share: what is known about photos, and how a method finds the pose."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metriloc.baselines.solving import Solver
from metriloc.io import InputError, load_view
from metriloc.relpose import MethodChoice, MethodName
from metriloc.types import View


@dataclass(frozen=True)
class PhotoOptions:
    """What is known about the photos."""

    k: tuple[float, float, float, float] | None = None
    """FX FY CX CY of both photos, pixels, first pixel centre at 0, after EXIF rotation."""
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
    resize: tuple[int, int] | None = None
    """WIDTH HEIGHT the photos are resized to first; intrinsics follow."""
    max_side: int | None = None
    """Longest side in pixels; larger photos are reduced, intrinsics follow."""

    def load(self, path: Path, *, reference: bool) -> View:
        """One photo with its intrinsics (and the reference with its depth)."""
        own = self.k_ref if reference else self.k_query
        if own is not None and self.k is not None:
            raise InputError(f"--k {self.k} and --k-{'ref' if reference else 'query'} {own} contradict: give one")
        return load_view(
            path,
            K=own or self.k,
            intrinsics=self.intrinsics,
            fov_deg=self.fov,
            depth=self.depth if reference else None,
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
    solver: Solver = "auto"
    """Of matching: essential matrix, pnp, rigid (3D-3D), or auto."""
    depth_source: str = "file"
    """Metres of matching: file (the depth map given), none, constant:METRES or mickey:WEIGHTS."""
    polish: bool = False
    """MicKey: refine the pose by the reprojection error of its inliers (metriloc-small always does)."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of MicKey's backbone; auto: half on CUDA, single on CPU."""
    calibration: str | None = None
    """File of metriloc eval calibrate that turns the confidence into a probability, or none."""
    seed: int = 0
    """Same seed, same answer."""

    def choice(self, method: MethodName) -> MethodChoice:
        """The method of that name with these settings; the seed is not of the method."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "seed"}
        # without the flag it is as the weights say
        values["polish"] = values["polish"] or None
        return MethodChoice(method, depth=values.pop("depth_source"), **values)
