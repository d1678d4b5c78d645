"""``metriloc relpose REF QUERY...``: where the cameras of the queries stood, in metres, relative to the reference."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metriloc.cli.outputs import OutputFolder, QueryResult, Run, summary
from metriloc.io import InputError, load_view
from metriloc.relpose import MethodName, choose_method
from metriloc.types import PhotoFeatures, RelativePoseMethod, View

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
    photos: Annotated[PhotoOptions, tyro.conf.arg(name="photo")] = PhotoOptions(),
    how: Annotated[MethodOptions, tyro.conf.arg(name="method")] = MethodOptions(),
    out: Path | None = None,
    resume: bool = False,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Where the second camera stood, in metres, relative to the first.

    Args:
        reference: The photo whose camera is the origin.
        query: One photo or many; the reference is looked at once.
        photos: What is known about the photos.
        how: How the pose is found.
        out: Folder for pose.json, TUM and Map-free lines, pictures and an HTML report.
        resume: Keep the queries that an earlier run with the same photos and settings left in --out.
        json_: Print the result as JSON on standard output.
    """
    if not query:
        raise InputError("no query photo given: metriloc relpose REF QUERY...")
    choice = {f.name: getattr(how, f.name) for f in dataclasses.fields(how) if f.name not in ("method", "seed")}
    method = choose_method(how.method, **choice)
    view0 = photos.load(reference, reference=True)
    single = len(query) == 1
    # a bad photo must be found before anything is written
    loaded = {query[0]: photos.load(query[0], reference=False)} if single else {}
    settings: dict[str, Any] = {**dataclasses.asdict(photos), **dataclasses.asdict(how)}
    run = Run(view0, method.name, method.weights_id, settings)
    folder = OutputFolder.prepare(out, single=single) if out is not None else None

    features0 = method.extract(view0)
    try:
        for index, path in enumerate(_progress(query)):
            result = folder.saved(index, path, run) if folder is not None and resume else None
            if result is None:
                result = _localise(method, features0, path, photos, loaded, how.seed)
                if folder is not None and result.features is not None:
                    folder.write_query(run, index, result, features0)
            run.results.append(result)
            if not json_:
                print(summary(result))
    finally:
        # also after Ctrl+C: what was found is in the files
        if folder is not None and run.results:
            folder.write_run(run)
    if json_:
        print(json.dumps(run.as_dict(), indent=2))
    elif folder is not None:
        print(f"written to {folder.path}")
    return _exit_code(run.results)


def _localise(
    method: RelativePoseMethod,
    features0: PhotoFeatures,
    path: Path,
    photos: PhotoOptions,
    loaded: Mapping[Path, View],
    seed: int,
) -> QueryResult:
    try:
        view = loaded.get(path) or photos.load(path, reference=False)
    except InputError as error:
        # one bad photo among many must not cost the others their poses; the exit code tells
        print(f"metriloc relpose: {error}", file=sys.stderr)
        return QueryResult.unreadable(path, error)
    features1 = method.extract(view)
    return QueryResult.computed(path, method.relative_pose(features0, features1, seed=seed), features1)


def _progress(paths: Sequence[Path]) -> Iterable[Path]:
    if len(paths) == 1 or not sys.stderr.isatty():
        return paths
    from rich.console import Console
    from rich.progress import track

    return track(paths, description="queries", console=Console(stderr=True))


def _exit_code(results: Sequence[QueryResult]) -> int:
    if any(result.unusable for result in results):
        return EXIT_BAD_PHOTO
    return 0 if all(result.success for result in results) else EXIT_NO_POSE
