"""``metriloc relpose REF QUERY...``: where the cameras of the queries stood, in metres, relative to the reference."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.calibration import calibrations_of
from metriloc.cli.options import MethodSettings, PhotoOptions
from metriloc.cli.outputs import OutputFolder, QueryResult, Run, summary
from metriloc.cli.terminal import complain, printable, unusable
from metriloc.io import InputError
from metriloc.relpose import MethodName, choose_method, relative_pose_by_turns
from metriloc.types import PhotoFeatures, RelativePoseMethod, View

EXIT_NO_POSE = 1
EXIT_BAD_PHOTO = 2


def relpose(
    reference: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REF")],
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")],
    photos: Annotated[PhotoOptions, tyro.conf.arg(name="photo")] = PhotoOptions(),
    method: MethodName = "auto",
    how: Annotated[MethodSettings, tyro.conf.arg(name="settings")] = MethodSettings(),
    out: Path | None = None,
    resume: bool = False,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Where the second camera stood, in metres, relative to the first.

    Args:
        reference: The photo whose camera is the origin.
        query: One photo or many; the reference is looked at once.
        photos: What is known about the photos.
        method: auto is the best matcher that is here (ALIKED or XFeat, with LightGlue), metres from a depth map or a
            distance, else predicted by metriloc-small; with --weights it is MicKey.
        how: How the pose is found.
        out: Folder for pose.json, TUM and Map-free lines, pictures and an HTML report.
        resume: Keep the queries that an earlier run with the same photos and settings left in --out.
        json_: Print the result as JSON on standard output.
    """
    if not query:
        raise InputError("no query photo given: metriloc relpose REF QUERY...")
    choice = dataclasses.replace(how.choice(method), depth_map=photos.depth is not None)
    chosen = choose_method(choice)
    view0 = photos.load(reference)
    single = len(query) == 1
    # a bad photo must be found before anything is written
    loaded = {query[0]: photos.load(query[0], reference=reference)} if single else {}
    settings: dict[str, Any] = {**dataclasses.asdict(photos), "method": method, **dataclasses.asdict(how)}
    run = Run(view0, chosen.name, chosen.weights_id, settings, calibrations=calibrations_of(chosen))
    folder = OutputFolder.prepare(out, single=single) if out is not None else None

    if not json_:
        print(f"{printable(reference)}: the reference; intrinsics: {view0.intrinsics_source}")
    features0 = chosen.extract(view0)
    try:
        for index, path in enumerate(_progress(query)):
            result = folder.saved(index, path, run) if folder is not None and resume else None
            if result is None:
                result = _localise(chosen, features0, path, photos, loaded, how.seed)
                if folder is not None and result.features is not None:
                    result = _written(folder, run, index, result, features0)
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
        print(f"written to {printable(folder.path)}")
    return _exit_code(run.results)


def _localise(
    method: RelativePoseMethod,
    features0: PhotoFeatures,
    path: Path,
    photos: PhotoOptions,
    loaded: Mapping[Path, View],
    seed: int,
) -> QueryResult:
    # one bad photo among many must not cost the others their poses; the exit code tells
    try:
        view = loaded.get(path) or photos.load(path, reference=Path(features0.view.name))
        features1 = method.extract(view)
        estimate = relative_pose_by_turns(method, features0, features1, seed=seed)
        return QueryResult.computed(path, estimate, features1)
    except (ValueError, RuntimeError) as error:
        said = str(error) if isinstance(error, InputError) else unusable(path, error)
        complain("relpose", said)
        return QueryResult.unreadable(path, said)


def _written(folder: OutputFolder, run: Run, index: int, result: QueryResult, reference: PhotoFeatures) -> QueryResult:
    """The result, once its files are there; what cannot be drawn or written of it costs only itself."""
    try:
        folder.write_query(run, index, result, reference)
        return result
    except (ValueError, RuntimeError) as error:
        said = str(error) if isinstance(error, InputError) else unusable(result.path, error)
        complain("relpose", said)
        return QueryResult.unreadable(Path(result.path), said)


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
