"""``metriloc relpose REF QUERY...``: where the cameras of the queries stood, in metres, relative to the reference."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.calibration import calibrations_of
from metriloc.choose import MethodChoice, choice_beside, choose_method
from metriloc.cli.live import LiveOptions, shown_pairs, titled
from metriloc.cli.options import MethodArgument
from metriloc.cli.relpose_options import PairOutputOptions, ReferencesOptions
from metriloc.cli.terminal import complain, counted, exit_code, print_lines, printable, working
from metriloc.io import read_true_poses
from metriloc.methods.matching.hub_models import licenses_of
from metriloc.runs.options import MethodSettings, PhotoOptions
from metriloc.runs.relpose import run_relpose
from metriloc.runs.relpose_export import export_paths
from metriloc.runs.relpose_results import QueryResult, RelposeRun, relpose_summary
from metriloc.types import RelativePoseMethod, View
from metriloc.wording import short_names, without_folders


def relpose(
    reference: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="REF")] = None,
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")] = (),
    several: Annotated[ReferencesOptions, tyro.conf.arg(name="several")] = ReferencesOptions(),  # noqa: B008 - frozen
    photos: Annotated[PhotoOptions, tyro.conf.arg(name="photo")] = PhotoOptions(),
    method: MethodArgument = "auto",
    how: Annotated[MethodSettings, tyro.conf.arg(name="settings")] = MethodSettings(),
    truth: Path | None = None,
    compare: Annotated[tuple[str, ...], tyro.conf.arg(metavar="METHOD ...")] = (),
    output: Annotated[PairOutputOptions, tyro.conf.arg(name="output")] = PairOutputOptions(),  # noqa: B008
    live: Annotated[LiveOptions, tyro.conf.arg(name="live")] = LiveOptions(),
) -> int:
    """Where the second camera stood, in metres, relative to the first.

    Args:
        reference: The photo whose camera is the origin.
        query: One photo or many; the reference is looked at once.
        several: More than one reference.
        photos: What is known about the photos.
        method: auto is the best matcher that is here (ALIKED or XFeat, with LightGlue), metres from a depth map or a
            distance, else predicted by metriloc-depth; with --weights it is MicKey. hub:OWNER/NAME: a matcher
            of the hub (extra hub).
        how: How the pose is found.
        truth: The true query_from_reference, to be drawn and compared with: lines 'photo qw qx qy qz tx ty tz' as of
            Map-free, or for one query the 4 x 4 numbers of its matrix.
        compare: Other methods to ask, too: their matches and cameras in one view, with the true camera of --truth in green.
        output: What is written.
        live: What is seen while it is found.
    """
    reference, query, further = several.sorted_out(reference, query)
    several.check(len(further) + 1, photos, how)
    output.check()
    live.check()
    single, names = len(query) == 1, short_names([reference, *further, *query])
    exported = None if output.export is None else export_paths(output.export, single=single)
    choice = dataclasses.replace(how.choice(method), depth_map=photos.depth is not None)
    chosen, others = _methods(choice, compare)
    view0 = photos.load(reference)
    chosen, reference_from_world = several.asking_all(chosen, photos, [reference, *further])
    # a bad photo must be found before anything is written
    loaded = {query[0]: photos.load(query[0], reference=reference)} if single else {}
    settings: dict[str, Any] = {**dataclasses.asdict(photos), "method": method, **dataclasses.asdict(how)}
    settings |= {"compare": {name: other.weights_id for name, other in others.items()}} if others else {}
    if further:
        settings |= {"references": [str(path) for path in further], "reference_poses": several.reference_poses}
    truths = read_true_poses(truth, reference, query) if truth is not None else {}
    known: dict[str, Any] = {"truths": truths, "others": further, "reference_from_world": reference_from_world}
    run = RelposeRun(view0, chosen.name, chosen.weights_id, settings, calibrations=calibrations_of(chosen), **known)
    folder = output.prepared(single)

    def load(path: Path) -> View:
        return loaded.get(path) or photos.load(path, reference=Path(view0.name))

    def work(told: Callable[[QueryResult], None]) -> None:
        also: dict[str, Any] = {"others": others, "export": exported, "counted": partial(counted, "queries")}
        with working("looking at both photos") if single else nullcontext():
            run_relpose(run, chosen, query, load, folder=folder, resume=output.resume, told=told, **also)

    with live.opened(titled(names[str(reference)], len(query))) as view:
        _work_and_tell(run, work, names, shown_pairs(view, run, folder), output.json)
        if folder is not None and not output.json:
            print(f"written to {printable(folder.path)}")
    return exit_code(run.results)


def _work_and_tell(
    run: RelposeRun,
    work: Callable[[Callable[[QueryResult], None]], None],
    names: Mapping[str, str],
    shown: Callable[[QueryResult], None],
    as_json: bool,
) -> None:
    """Say what the reference is, each query as soon as it is known, and what is left to be said after them."""
    said = run.reference.intrinsics_source
    if not as_json:
        source = without_folders(said, names)
        print_lines([f"{names[run.reference.name]}: the reference; intrinsics: {source}"])

    def told(result: QueryResult) -> None:
        _tell(result, run, names, as_json)
        shown(result)

    work(told)
    if as_json:
        print(json.dumps(run.as_dict(), indent=2))
        return
    if run.reference.intrinsics_source != said:
        print(f"intrinsics of the reference: {printable(run.reference.intrinsics_source)}")
    if run.kept:
        print(f"kept {len(run.kept)} {'pose' if len(run.kept) == 1 else 'poses'} of earlier queries")


def _tell(result: QueryResult, run: RelposeRun, names: Mapping[str, str], as_json: bool) -> None:
    """One query, as soon as it is known."""
    if result.unusable:
        complain("relpose", result.entry["error"])
    if not as_json:
        print_lines(relpose_summary(result, names[result.name], run.truths.get(result.name)))


def _methods(choice: MethodChoice, compare: Sequence[str]) -> tuple[RelativePoseMethod, dict[str, RelativePoseMethod]]:
    """The method and those it is compared with, by name, after a word on the licences of those that are not ours."""
    compared = list(dict.fromkeys(compare))
    choices = [choice, *(choice_beside(choice, name) for name in compared)]
    chosen, *rivals = [choose_method(one) for one in choices]
    for line in dict.fromkeys(line for one in choices for line in licenses_of(one.name, one.depth)):
        complain("relpose", line)
    return chosen, dict(zip(compared, rivals, strict=True))
