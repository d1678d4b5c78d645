"""``metriloc relpose REF QUERY...``: where the cameras of the queries stood, in metres, relative to the reference."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.calibration import calibrations_of
from metriloc.choose import MethodChoice, choice_beside, choose_method
from metriloc.cli.options import (
    FormatArgument,
    MethodArgument,
    check_formats,
    check_resume,
)
from metriloc.cli.terminal import complain, counted, exit_code, print_lines, printable
from metriloc.io import InputError, prepare_output_folder, read_true_poses
from metriloc.methods.matching.hub_models import licenses_of
from metriloc.runs.options import MethodSettings, PhotoOptions
from metriloc.runs.relpose import run_relpose
from metriloc.runs.relpose_export import export_paths
from metriloc.runs.relpose_files import RelposeFolder
from metriloc.runs.relpose_results import QueryResult, RelposeRun, relpose_summary
from metriloc.types import RelativePoseMethod, View
from metriloc.wording import short_names, without_folders


def relpose(
    reference: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REF")],
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")],
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
) -> int:
    """Where the second camera stood, in metres, relative to the first.

    Args:
        reference: The photo whose camera is the origin.
        query: One photo or many; the reference is looked at once.
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
    """
    if not query:
        raise InputError("no query photo given: metriloc relpose REF QUERY...")
    check_formats(formats, out)
    check_resume(resume, out)
    single, names = len(query) == 1, short_names([reference, *query])
    exported = None if export is None else export_paths(export, single=single)
    choice = dataclasses.replace(how.choice(method), depth_map=photos.depth is not None)
    chosen, *rivals = _loaded([choice, *(choice_beside(choice, name) for name in dict.fromkeys(compare))])
    others = dict(zip(dict.fromkeys(compare), rivals, strict=True))
    view0 = photos.load(reference)
    # a bad photo must be found before anything is written
    loaded = {query[0]: photos.load(query[0], reference=reference)} if single else {}
    settings: dict[str, Any] = {**dataclasses.asdict(photos), "method": method, **dataclasses.asdict(how)}
    settings |= {"compare": {name: other.weights_id for name, other in others.items()}} if others else {}
    truths = read_true_poses(truth, reference, query) if truth is not None else {}
    run = RelposeRun(
        view0, chosen.name, chosen.weights_id, settings, calibrations=calibrations_of(chosen), truths=truths
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

    also: dict[str, Any] = {"others": others, "export": exported, "counted": partial(counted, "queries")}
    run_relpose(run, chosen, query, load, folder=folder, resume=resume, told=told, **also)
    if not json_ and run.reference.intrinsics_source != view0.intrinsics_source:
        print(f"intrinsics of the reference: {printable(run.reference.intrinsics_source)}")
    if run.kept and not json_:
        print(f"kept {len(run.kept)} {'pose' if len(run.kept) == 1 else 'poses'} of earlier queries")
    if json_:
        print(json.dumps(run.as_dict(), indent=2))
    elif folder is not None:
        print(f"written to {printable(folder.path)}")
    return exit_code(run.results)


def _loaded(choices: Sequence[MethodChoice]) -> list[RelativePoseMethod]:
    """The methods, after a word on the licences of those that are not ours."""
    methods = [choose_method(choice) for choice in choices]
    for line in dict.fromkeys(line for choice in choices for line in licenses_of(choice.name, choice.depth)):
        complain("relpose", line)
    return methods
