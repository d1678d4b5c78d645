"""``metriloc relpose REF QUERY...``: where the cameras of the queries stood, in metres, relative to the reference."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.calibration import calibrations_of
from metriloc.choose import MethodChoice, choice_beside, choose_method
from metriloc.cli.live import LiveOptions, shown_pairs
from metriloc.cli.options import (
    FormatArgument,
    MethodArgument,
    check_formats,
    check_resume,
)
from metriloc.cli.terminal import complain, counted, exit_code, print_lines, printable, working
from metriloc.fusion import FromMany
from metriloc.geometry import Pose
from metriloc.io import InputError, prepare_output_folder, read_reference_poses, read_true_poses
from metriloc.methods.matching.hub_models import licenses_of
from metriloc.runs.options import MethodSettings, PhotoOptions
from metriloc.runs.relpose import run_relpose
from metriloc.runs.relpose_export import export_paths
from metriloc.runs.relpose_files import RelposeFolder
from metriloc.runs.relpose_results import QueryResult, RelposeRun, relpose_summary
from metriloc.types import RelativePoseMethod, View
from metriloc.wording import short_names, without_folders


def relpose(
    reference: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="REF")] = None,
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")] = (),
    references: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="REF ...")] = (),
    reference_poses: Path | None = None,
    photos: Annotated[PhotoOptions, tyro.conf.arg(name="photo")] = PhotoOptions(),
    method: MethodArgument = "auto",
    how: Annotated[MethodSettings, tyro.conf.arg(name="settings")] = MethodSettings(),
    truth: Path | None = None,
    compare: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD ...")] = (),
    out: Path | None = None,
    formats: FormatArgument = None,
    export: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None,
    resume: bool = False,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
    live: Annotated[LiveOptions, tyro.conf.arg(name="live")] = LiveOptions(),
) -> int:
    """Where the second camera stood, in metres, relative to the first.

    Args:
        reference: The photo whose camera is the origin.
        query: One photo or many; the reference is looked at once.
        references: Several references, the first is the origin: relpose QUERY... --references A B C, or with the one query
            as the last of them. Their poses are brought together, and one that contradicts the others is left out.
        reference_poses: Known poses of --references: lines 'photo qw qx qy qz tx ty tz', world to camera, metres. Files of
            poses are in their world then. Without them, they are estimated, too.
        photos: What is known about the photos.
        method: auto is the best matcher that is here (ALIKED or XFeat, with LightGlue), metres from a depth map or a
            distance, else predicted by metriloc-depth; with --weights it is MicKey. hub:OWNER/NAME: a matcher
            of the hub (extra hub).
        how: How the pose is found.
        truth: The true query_from_reference, to be drawn and compared with: lines 'photo qw qx qy qz tx ty tz' as of
            Map-free, or for one query the 4 x 4 numbers of its matrix.
        compare: Other methods to ask, too: their matches and cameras in one view, with the true camera of --truth in green.
        out: Folder for pose.json, files of poses, pictures and an HTML report.
        formats: Files of poses in --out; by default tum and mapfree. docs/conventions.md says what each holds.
        export: File for matches, their 3D points and depth maps; of many queries each has its own, numbered.
        resume: Keep the queries that an earlier run with the same photos and settings left in --out.
        json_: Print the result as JSON on standard output.
        live: What is seen while it is found.
    """
    reference, query, others_given = _photos(reference, query, references)
    _check_references(len(others_given) + 1, photos, how, reference_poses)
    check_formats(formats, out)
    check_resume(resume, out)
    live.check()
    single, names = len(query) == 1, short_names([reference, *others_given, *query])
    exported = None if export is None else export_paths(export, single=single)
    choice = dataclasses.replace(how.choice(method), depth_map=photos.depth is not None)
    chosen, *rivals = _loaded([choice, *(choice_beside(choice, name) for name in dict.fromkeys(compare))])
    others = dict(zip(dict.fromkeys(compare), rivals, strict=True))
    view0 = photos.load(reference)
    known = None
    if others_given:
        known, chosen = _with_references(chosen, photos, [reference, *others_given], reference_poses)
    # a bad photo must be found before anything is written
    loaded = {query[0]: photos.load(query[0], reference=reference)} if single else {}
    settings: dict[str, Any] = {**dataclasses.asdict(photos), "method": method, **dataclasses.asdict(how)}
    settings |= {"compare": {name: other.weights_id for name, other in others.items()}} if others else {}
    if others_given:
        settings |= {"references": [str(path) for path in others_given], "reference_poses": reference_poses}
    truths = read_true_poses(truth, reference, query) if truth is not None else {}
    run = RelposeRun(
        view0,
        chosen.name,
        chosen.weights_id,
        settings,
        calibrations=calibrations_of(chosen),
        truths=truths,
        others=others_given,
        reference_from_world=None if known is None else known[0],
    )
    if export is not None:
        prepare_output_folder(export.parent)
    folder = RelposeFolder.prepare(out, single=single, formats=formats) if out is not None else None

    if not json_:
        source = without_folders(view0.intrinsics_source, [reference, *query])
        print_lines([f"{names[str(reference)]}: the reference; intrinsics: {source}"])

    def load(path: Path) -> View:
        return loaded.get(path) or photos.load(path, reference=Path(view0.name))

    def told(result: QueryResult) -> None:
        if result.unusable:
            complain("relpose", result.entry["error"])
        if not json_:
            print_lines(relpose_summary(result, names[result.name], truths.get(result.name)))
        shown(result)

    also: dict[str, Any] = {"others": others, "export": exported, "counted": partial(counted, "queries")}
    with live.opened(f"{names[str(reference)]} and {len(query)} {'query' if single else 'queries'}") as view:
        shown = shown_pairs(view, run, folder)
        with working("looking at both photos") if single else nullcontext():
            run_relpose(run, chosen, query, load, folder=folder, resume=resume, told=told, **also)
        if json_:
            print(json.dumps(run.as_dict(), indent=2))
        else:
            _tell_the_end(run, view0, folder)
    return exit_code(run.results)


def _tell_the_end(run: RelposeRun, view0: View, folder: RelposeFolder | None) -> None:
    """What is left to be said after the queries. view0: the reference as it was read."""
    if run.reference.intrinsics_source != view0.intrinsics_source:
        print(f"intrinsics of the reference: {printable(run.reference.intrinsics_source)}")
    if run.kept:
        print(f"kept {len(run.kept)} {'pose' if len(run.kept) == 1 else 'poses'} of earlier queries")
    if folder is not None:
        print(f"written to {printable(folder.path)}")


def _photos(
    reference: Path | None, query: tuple[Path, ...], references: tuple[Path, ...]
) -> tuple[Path, tuple[Path, ...], tuple[Path, ...]]:
    """The reference, the queries, and further references. Raises InputError where something is missing."""
    if not references:
        if reference is None or not query:
            raise InputError("no query photo given: metriloc relpose REF QUERY...")
        return reference, query, ()
    asked = () if reference is None else (reference, *query)
    if not asked:  # relpose --references A B C QUERY
        references, asked = references[:-1], references[-1:]
    if len(references) < 2:
        raise InputError(
            "--references are two photos and more: metriloc relpose --references A B C QUERY; "
            "for one reference say metriloc relpose REF QUERY"
        )
    repeated = next((path for i, path in enumerate(references) if path in references[:i]), None)
    if repeated is not None:
        raise InputError(f"--references names '{repeated}' twice: each reference has one say")
    return references[0], asked, references[1:]


def _check_references(count: int, photos: PhotoOptions, how: MethodSettings, poses: Path | None) -> None:
    """Raises InputError for what is of one reference, or of several."""
    if count == 1 and poses is not None:
        raise InputError(f"--reference-poses {poses} are of --references: give these")
    if count > 1 and photos.depth is not None:
        raise InputError(f"--depth {photos.depth} is of one reference, and --references are {count}")
    if count > 1 and how.distance is not None:
        raise InputError(f"--distance {how.distance:g} is from one reference, and --references are {count}")


def _with_references(
    method: RelativePoseMethod,
    photos: PhotoOptions,
    references: Sequence[Path],
    file: Path | None,
) -> tuple[list[Pose] | None, FromMany]:
    """Known poses of all references, and the method that asks them all."""
    known = None if file is None else read_reference_poses(file, references)
    views = [photos.load(path, reference=references[0]) for path in references[1:]]
    return known, FromMany(method, views, known)


def _loaded(choices: Sequence[MethodChoice]) -> list[RelativePoseMethod]:
    """The methods, after a word on the licences of those that are not ours."""
    methods = [choose_method(choice) for choice in choices]
    for line in dict.fromkeys(line for choice in choices for line in licenses_of(choice.name, choice.depth)):
        complain("relpose", line)
    return methods
