"""``metriloc localize MAP QUERY...``: where in a map the cameras of photos stood."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.adjust import adjusted, shown_settings
from metriloc.choose import choose_localizer, note_on_features, require_device
from metriloc.choose.for_maps import method_of_bundle
from metriloc.cli.live import LiveOptions, shown_queries, titled
from metriloc.cli.localize_options import OutputOptions, PixLocOptions, assignments_for, check_matches
from metriloc.cli.made import Assignments
from metriloc.cli.terminal import complain, exit_code, hearing_sigterm, numbered, print_lines, printable, progress_bar
from metriloc.export.runtime import on_runtime
from metriloc.io import InputError
from metriloc.io.bundles import Bundle
from metriloc.localizer import REFERENCES, Localizer
from metriloc.runs.localize import QueryLocalizer, run_localize
from metriloc.runs.localize_files import LocalizeFolder
from metriloc.runs.localize_results import LocalizeRun, QueryOutcome, check_names, localize_summary
from metriloc.runs.options import LocalizerSettings
from metriloc.runs.queries import QueryOptions, QueryPhoto, QuerySource
from metriloc.runs.references import ReferenceFinder, ReferenceOptions
from metriloc.types import AbsolutePoseMethod, View, needs_of
from metriloc.wording import short_names


@hearing_sigterm()
def localize(
    scene: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="MAP")] = None,
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")] = (),
    photos: Annotated[QueryOptions, tyro.conf.arg(name="photo")] = QueryOptions(),  # noqa: B008 - frozen
    where: Annotated[ReferenceOptions, tyro.conf.arg(name="where")] = ReferenceOptions(),  # noqa: B008
    how: Annotated[LocalizerSettings, tyro.conf.arg(name="settings")] = LocalizerSettings(),  # noqa: B008
    pixloc: Annotated[PixLocOptions, tyro.conf.arg(name="pixloc")] = PixLocOptions(),  # noqa: B008
    output: Annotated[OutputOptions, tyro.conf.arg(name="output")] = OutputOptions(),  # noqa: B008
    set: Assignments = (),
    shown: Annotated[bool, tyro.conf.arg(name="show")] = False,
    live: Annotated[LiveOptions, tyro.conf.arg(name="live")] = LiveOptions(),
) -> int:
    """Where in a map the camera of a photo stood.

    Args:
        scene: Folder of a COLMAP model (with --images), or an npz file of the kind of NRE's sample.
        query: Photos; none for all of --queries, or for the one that an npz file brings along.
        photos: What is known about the photos.
        where: Photos of the map that a query is compared with.
        how: How the pose is found.
        pixloc: Of --method pixloc alone; what is not given is as stored with its weights.
        output: What is written.
        set: Set settings of the method, by our names or those of published config files, e.g. --set fine.longest_side=640.
        shown: Only print the settings that --set can set, their values and what they mean.
        live: What is seen while it is found.
    """
    assignments = assignments_for(how, set)
    if shown:
        method = adjusted(pixloc.configure(choose_localizer(how.choice()), where), assignments)
        print(*shown_settings(method), sep="\n")
        return 0
    if scene is None:
        raise InputError("say in which map: metriloc localize MAP QUERY...")
    output.check(how.name)
    live.check()
    source = QuerySource.open(scene, query, photos)
    _check_starts(photos, where, how, source)
    require_device(how.device)
    single = len(source.queries) == 1
    # what is wrong with the arguments or a photo must be found before weights are asked for or anything is written
    check_names([photo.name for photo in source.queries], output.names)
    loaded = {source.queries[0].path: source.load(source.queries[0])} if single else {}
    chosen = adjusted(pixloc.configure(_method(how, source.opened.bundle), where), assignments)
    check_matches(chosen, where)
    finder = _finder(where, source, how, chosen)
    options: dict[str, Any] = {**asdict(photos), **asdict(where), **asdict(how), **pixloc.given(), **output.drawn()}
    options |= {"set": assignments} if assignments else {}
    run = LocalizeRun(
        str(scene), source.scene, chosen.name, chosen.weights_id, options, output.names, source.opened.unit
    )
    if (note := note_on_features(how.choice())) and not output.json:
        print(note, file=sys.stderr)
    folder = output.prepared(single)
    pictures = folder is not None and (output.html or output.video)

    def load(photo: QueryPhoto) -> View:
        return loaded.get(photo.path) or source.load(photo)

    localizer = QueryLocalizer(Localizer.of(source.opened, chosen), finder, source, load, how.seed, pictures)
    _localize_all(run, localizer, folder, output, live)
    return exit_code(run.results)


def _localize_all(
    run: LocalizeRun,
    localizer: QueryLocalizer,
    folder: LocalizeFolder | None,
    output: OutputOptions,
    live: LiveOptions,
) -> None:
    """Each query, told and shown as soon as it is known; then where it is written."""
    source = localizer.source
    names = {**short_names(source.scene.names), **short_names(photo.name for photo in source.queries)}
    with live.opened(titled(Path(run.map_path).name, len(source.queries))) as view:
        show = shown_queries(view, source.opened, folder)

        def told(outcome: QueryOutcome) -> None:
            _tell(outcome, names, output.json)
            show(outcome)

        run_localize(run, localizer, numbered("query", source.queries), folder=folder, resume=output.resume, told=told)
        if output.json:
            print(json.dumps(run.as_dict(), indent=2))
        elif folder is not None:
            print(f"written to {printable(folder.path)}")


def _finder(
    where: ReferenceOptions, source: QuerySource, how: LocalizerSettings, method: AbsolutePoseMethod
) -> ReferenceFinder:
    """What finds so many references of each query as the method wants."""
    needs = needs_of(method)
    count = needs.references or where.num_references or REFERENCES
    return ReferenceFinder.open(where, source, how.cache_folder, count, whole_lists=needs.whole_lists, bar=progress_bar)


def _method(how: LocalizerSettings, bundle: Bundle | None) -> AbsolutePoseMethod:
    """The method that is asked for; where nothing is, and the map is a bundle, the bundle's own."""
    if bundle is None or (how.method, how.features, how.weights, how.config) != (None, None, None, None):
        return choose_localizer(how.choice())
    return on_runtime(method_of_bundle(bundle, how.device), how.runtime)


def _tell(outcome: QueryOutcome, names: Mapping[str, str], as_json: bool) -> None:
    """One query, as soon as it is known."""
    if outcome.unusable:
        complain("localize", outcome.entry["error"])
    if not as_json:
        print_lines(localize_summary(outcome, names))


def _check_starts(photos: QueryOptions, where: ReferenceOptions, how: LocalizerSettings, source: QuerySource) -> None:
    where.check(source.scene)
    if photos.init is not None and where.from_poses:
        raise InputError(f"--init {photos.init} and --from-poses contradict: give one")
    if how.name.endswith("-pnp") and (photos.init is not None or where.from_poses):
        given = f"--init {photos.init}" if photos.init is not None else "--from-poses"
        raise InputError(f"{given}: {how.name} starts from no pose")
