"""``metriloc relpose REF QUERY...``: where the cameras of the queries stood, in metres, relative to the reference."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metriloc.cli.outputs import OutputFolder, QueryResult, Run, summary
from metriloc.io import InputError, load_view
from metriloc.relpose import MethodName, choose_method
from metriloc.types import View

EXIT_NO_POSE = 1
EXIT_BAD_PHOTO = 2


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
class MethodOptions:
    """How the pose is found."""

    method: MethodName = "auto"
    """auto: MicKey if --weights is given, else matching (XFeat, poselib, and a depth map or distance for the metres)."""
    weights: str | None = None
    """Folder, file, published name or hub name 'owner/name' of the weights."""
    distance: float | None = None
    """Metres between the two cameras, if known (matching without a depth map)."""
    polish: bool = False
    """MicKey: refine the pose by the reprojection error of its inliers."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Of MicKey's backbone; auto: half on CUDA, single on CPU."""
    seed: int = 0
    """Same seed, same answer."""


def relpose(
    reference: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REF")],
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")],
    photos: PhotoOptions = PhotoOptions(),  # noqa: B008 - frozen
    how: MethodOptions = MethodOptions(),  # noqa: B008 - frozen
    out: Path | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Where the second camera stood, in metres, relative to the first.

    Args:
        reference: The photo whose camera is the origin.
        query: One photo or many; the reference is looked at once.
        photos: What is known about the photos.
        how: How the pose is found.
        out: Folder for pose.json, TUM and Map-free lines, pictures and an HTML report.
        json_: Print the result as JSON on standard output.
    """
    if not query:
        raise InputError("no query photo given: metriloc relpose REF QUERY...")
    choice = {f.name: getattr(how, f.name) for f in dataclasses.fields(how) if f.name not in ("method", "seed")}
    method = choose_method(how.method, **choice)
    reference_view = photos.load(reference, reference=True)
    settings: dict[str, Any] = {**dataclasses.asdict(photos), **dataclasses.asdict(how)}
    run = Run(reference_view, method.name, method.weights_id, how.seed, settings)
    loaded = {query[0]: photos.load(query[0], reference=False)} if len(query) == 1 else {}
    folder = OutputFolder.prepare(out, single=len(query) == 1) if out is not None else None

    reference_features = method.extract(reference_view)
    for path in _progress(query):
        try:
            view = loaded.get(path) or photos.load(path, reference=False)
        except InputError as error:
            # one bad photo among many must not cost the others their poses; the exit code tells
            print(f"metriloc relpose: {error}", file=sys.stderr)
            run.results.append(QueryResult(str(path), error=str(error)))
            continue
        features = method.extract(view)
        estimate = method.relative_pose(reference_features, features, seed=how.seed)
        run.results.append(QueryResult(str(path), view, estimate))
        if not json_:
            print(summary(run.results[-1], reference_view))
        if folder is not None:
            folder.write_query(run, run.results[-1], reference_features, features)
    if folder is not None:
        folder.write_run(run)
    if json_:
        print(json.dumps(run.as_dict(), indent=2))
    elif folder is not None:
        print(f"report: {folder.path / 'report.html'}")
    return _exit_code(run.results)


def _progress(paths: Sequence[Path]) -> Iterable[Path]:
    if len(paths) == 1 or not sys.stderr.isatty():
        return paths
    from rich.console import Console
    from rich.progress import track

    return track(paths, description="queries", console=Console(stderr=True))


def _exit_code(results: Sequence[QueryResult]) -> int:
    if any(result.error for result in results):
        return EXIT_BAD_PHOTO
    return 0 if all(result.estimate is not None and bool(result.estimate.success) for result in results) else EXIT_NO_POSE
