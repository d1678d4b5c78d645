"""``metriloc localize MAP QUERY...``: where in a map the cameras of photos stood."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.cli.localize_outputs import LocalizeFolder, LocalizeRun, QueryOutcome, check_names, localize_summary
from metriloc.cli.localize_queries import QueryOptions, QueryPhoto, QuerySource
from metriloc.cli.localize_references import FoundReferences, ReferenceFinder
from metriloc.cli.localize_settings import (
    LocalizerSettings,
    OutputOptions,
    PixLocOptions,
    ReferenceOptions,
    count_of_references,
)
from metriloc.cli.localize_trace import Start, traced
from metriloc.cli.terminal import complain, printable, unusable
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.view import warn_if_guessed
from metriloc.localize import (
    ESTIMATED_FOCAL,
    bare,
    choose_localizer,
    looked_at_again,
    note_on_features,
    suited,
    with_doubt,
    with_known_focal,
)
from metriloc.methods.pixloc import PixLoc
from metriloc.relpose import require_device
from metriloc.turns import by_quarter_turns, turned_back
from metriloc.types import AbsolutePoseMethod, LocalizationDetails, PoseEstimate, View
from metriloc.viz.localized import LocalizedQuery

EXIT_NO_POSE = 1
EXIT_BAD_PHOTO = 2
_NOTHING = PoseEstimate.failure("no_reference")
_NO_POSE = LocalizationDetails(messages=("hloc found no pose of it that one could start from",))


def localize(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")] = (),
    photos: Annotated[QueryOptions, tyro.conf.arg(name="photo")] = QueryOptions(),  # noqa: B008 - frozen
    where: Annotated[ReferenceOptions, tyro.conf.arg(name="where")] = ReferenceOptions(),  # noqa: B008
    how: Annotated[LocalizerSettings, tyro.conf.arg(name="settings")] = LocalizerSettings(),  # noqa: B008
    pixloc: Annotated[PixLocOptions, tyro.conf.arg(name="pixloc")] = PixLocOptions(),  # noqa: B008
    output: Annotated[OutputOptions, tyro.conf.arg(name="output")] = OutputOptions(),  # noqa: B008
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
    """
    output.check(how.method)
    source = QuerySource.open(scene, query, photos)
    _check_starts(photos, where, how, source)
    require_device(how.device)
    single = len(source.queries) == 1
    # what is wrong with the arguments or a photo must be found before weights are asked for or anything is written
    check_names([photo.name for photo in source.queries], output.names)
    loaded = {source.queries[0].path: source.load(source.queries[0])} if single else {}
    choice = how.choice()
    chosen = pixloc.configure(choose_localizer(choice), where)
    count, whole = count_of_references(bare(chosen), where), isinstance(bare(chosen), PixLoc)
    finder = ReferenceFinder.open(where, source, how.cache_folder, count, whole_lists=whole)
    options: dict[str, Any] = {**asdict(photos), **asdict(where), **asdict(how), **asdict(pixloc), **output.drawn()}
    run = LocalizeRun(str(scene), source.scene, chosen.name, chosen.weights_id, options, output.names)
    if (note := note_on_features(choice)) and not output.json:
        print(note, file=sys.stderr)
    folder = None if output.out is None else LocalizeFolder.prepare(output.out, single=single)
    pictures = folder is not None and (output.html or output.video)
    _solve_all(run, _Solver(chosen, finder, source, loaded, how.seed, pictures), folder, output)
    if output.json:
        print(json.dumps(run.as_dict(), indent=2))
    elif folder is not None:
        print(f"written to {printable(folder.path)}")
    return _exit_code(run.results)


def _solve_all(run: LocalizeRun, solver: _Solver, folder: LocalizeFolder | None, output: OutputOptions) -> None:
    try:
        for index, photo in _progress(solver.source.queries):
            outcome = folder.saved(index, photo, run) if folder is not None and output.resume else None
            if outcome is None:
                outcome = solver.solve(photo)
                if folder is not None:
                    outcome = _written(folder, run, index, photo, outcome)
            run.results.append(outcome)
            if not output.json:
                print(localize_summary(outcome))
    finally:
        # also after Ctrl+C: what was found is in the files
        if folder is not None and run.results:
            folder.write_run(run)


def _written(
    folder: LocalizeFolder, run: LocalizeRun, index: int, photo: QueryPhoto, outcome: QueryOutcome
) -> QueryOutcome:
    """The outcome, once its files are there; what cannot be drawn or written of it costs only itself."""
    try:
        folder.write_query(run, index, photo, outcome)
        return outcome
    except (ValueError, RuntimeError) as error:
        return _lost(photo, error)


def _lost(photo: QueryPhoto, error: Exception) -> QueryOutcome:
    said = str(error) if isinstance(error, InputError) else unusable(photo.path, error)
    complain("localize", said)
    return QueryOutcome.unreadable(photo, said)


def _check_starts(photos: QueryOptions, where: ReferenceOptions, how: LocalizerSettings, source: QuerySource) -> None:
    where.check(source.scene)
    if photos.init is not None and where.from_poses:
        raise InputError(f"--init {photos.init} and --from-poses contradict: give one")
    if how.method.endswith("-pnp") and (photos.init is not None or where.from_poses):
        given = f"--init {photos.init}" if photos.init is not None else "--from-poses"
        raise InputError(f"{given}: {how.method} starts from no pose")


@dataclass(frozen=True, eq=False)
class _Solver:
    """What all queries share. pictures: whether what they need is to be kept."""

    method: AbsolutePoseMethod
    finder: ReferenceFinder
    source: QuerySource
    loaded: dict[Path, View]
    seed: int
    pictures: bool

    def solve(self, photo: QueryPhoto) -> QueryOutcome:
        """One query; a bad photo among many must not cost the others their poses, the exit code tells."""
        try:
            view = self.loaded.get(photo.path) or self.source.load(photo)
            scene = self.source.scene_for(photo)

            def attempt(turned: View, turned_from_view: Pose) -> LocalizedQuery:
                found = self.finder.find(photo, turned, scene)
                known, doubt = with_known_focal(turned, scene, found.names, self.seed)
                asked = LocalizedQuery(known, _NOTHING, scene, truth=photo.truth, notes=found.messages)
                answer = self._estimated(asked, photo, found, turned_from_view)
                estimate = with_doubt(answer.estimate, doubt)
                estimate = looked_at_again(estimate, known, scene, found.names, self.seed, self.method)
                return replace(answer, estimate=estimate)

            answer, quarters = by_quarter_turns(view, attempt, lambda localized: localized.estimate)
            if ESTIMATED_FOCAL not in answer.estimate.doubts:
                warn_if_guessed(view)
            return QueryOutcome.computed(photo, _turned_back(answer, view, quarters))
        except (ValueError, RuntimeError) as error:
            return _lost(photo, error)

    def _estimated(
        self, asked: LocalizedQuery, photo: QueryPhoto, found: FoundReferences, turned_from_view: Pose
    ) -> LocalizedQuery:
        init = photo.init
        if self.finder.options.from_poses:
            init = found.logged_pose
            if init is None:
                return replace(asked, estimate=PoseEstimate.failure("too_few_matches", _NO_POSE))
        hints = found.hints
        if photo.init is not None and hints is not None and not _uses_matches(self.method):
            # hloc's doubts about its own pose are none about the one that was given
            hints = replace(hints, matches=None)
        if init is not None:
            init = turned_from_view.to(init.dtype) @ init
        start = Start(found.names, init, hints)
        return traced(suited(self.method, asked.scene), asked, start, self.seed, pictures=self.pictures)


def _turned_back(found: LocalizedQuery, view: View, quarters: int) -> LocalizedQuery:
    """What was found for the view turned by quarters, for the view; maps and courses are of the turned one alone."""
    if quarters == 0:
        return found
    if found.query.focal_sigma != view.focal_sigma:  # it was estimated
        known = found.query
        camera = known.camera.turn(-quarters)
        view = replace(view, camera=camera, intrinsics_source=known.intrinsics_source, focal_sigma=known.focal_sigma)
    estimate = turned_back(found.estimate, quarters, view.size)
    return LocalizedQuery(view, estimate, found.scene, truth=found.truth, notes=found.notes)


def _uses_matches(method: AbsolutePoseMethod) -> bool:
    method = bare(method)
    return isinstance(method, PixLoc) and (method.config.points != "all" or method.config.rank_by_inliers)


def _progress(photos: Sequence[QueryPhoto]) -> Iterator[tuple[int, QueryPhoto]]:
    """The queries, counted on standard error when there are many; a bar would fight with that of the map's photos."""
    for index, photo in enumerate(photos):
        if len(photos) > 1 and sys.stderr.isatty():
            print(f"query {index + 1} of {len(photos)}", file=sys.stderr)
        yield index, photo


def _exit_code(results: Sequence[QueryOutcome]) -> int:
    if any(result.unusable for result in results):
        return EXIT_BAD_PHOTO
    return 0 if all(result.success for result in results) else EXIT_NO_POSE
