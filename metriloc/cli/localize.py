"""``metriloc localize MAP QUERY...``: where in a map the cameras of photos stood."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.cli.localize_outputs import LocalizeFolder, LocalizeRun, QueryOutcome, localize_summary
from metriloc.cli.localize_queries import QueryOptions, QueryPhoto, QuerySource
from metriloc.evaluation.submission import Naming
from metriloc.geometry import Pose
from metriloc.io import InputError, read_text
from metriloc.io.download import cache_folder
from metriloc.io.maps import load_map_view
from metriloc.io.retrieval import parse_pairs
from metriloc.localize import REFERENCES, LocalizerChoice, check_references, choose_localizer, suited
from metriloc.mapping import MapRetrieval
from metriloc.methods.nre.model import NRE
from metriloc.methods.pixloc import Iteration, PixLoc
from metriloc.relpose import require_device
from metriloc.types import AbsolutePoseMethod, PoseEstimate, SfmMap, View
from metriloc.viz.curves import Course, gnc_courses
from metriloc.viz.features import DenseFeatures
from metriloc.viz.localized import LocalizedQuery

EXIT_NO_POSE = 1
EXIT_BAD_PHOTO = 2
FEW_KEYPOINTS = 20
"""Photos of one place share more, of other places mostly fewer (of 512; measured on four places)."""
_NOTHING = PoseEstimate.failure("no_reference")


@dataclass(frozen=True)
class ReferenceOptions:
    """Which photos of the map a query is compared with; by default those that share the most with it."""

    pairs: Path | None = None
    """List of lines 'query reference', the best first (hloc's)."""
    references: tuple[str, ...] | None = None
    """Names of photos of the map, the best first, for every query."""
    num_references: int = REFERENCES
    """How many are used of a list, or looked for."""


@dataclass(frozen=True)
class LocalizerSettings:
    """How the pose is found."""

    method: str = "nre"
    """nre, nre-xfeat, nre-xfeat+aliked, nre-xfeat+disk, pixloc, or matching and PnP: xfeat-pnp, aliked-pnp, disk-pnp."""
    features: str | None = None
    """Of nre: coarse features, and fine ones after the plus; xfeat+aliked by default, nre for the published networks."""
    weights: str | None = None
    """Of pixloc: folder, file or hub name. Of others: files for their features, with a comma between two."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    cache: Path | None = None
    """Folder for what is kept of the map's photos from run to run; by default where metriloc keeps weights."""
    seed: int = 0
    """Same seed, same answer."""

    def choice(self) -> LocalizerChoice:
        """The localiser with these settings; the seed is not of it."""
        cache = str(self.cache_folder / "pixloc")
        return LocalizerChoice(self.method, self.weights, self.device, self.features, cache)

    @property
    def cache_folder(self) -> Path:
        """Where things are kept."""
        return cache_folder() if self.cache is None else self.cache


@dataclass(frozen=True)
class OutputOptions:
    """What is written."""

    out: Path | None = None
    """Folder for poses.json, poses.txt (visuallocalization.net), TUM lines, pictures and HTML reports."""
    names: Naming = "file"
    """How poses.txt calls a query: file, or folder/file (RobotCar, 7-Scenes, Cambridge)."""
    html: bool = True
    """Draw pictures and write report.html."""
    resume: bool = False
    """Keep the queries that an earlier run with the same photos, map and settings left in --out."""
    json: bool = False
    """Print the result as JSON on standard output."""


def localize(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")] = (),
    photos: Annotated[QueryOptions, tyro.conf.arg(name="photo")] = QueryOptions(),  # noqa: B008 - frozen
    where: Annotated[ReferenceOptions, tyro.conf.arg(name="where")] = ReferenceOptions(),
    how: Annotated[LocalizerSettings, tyro.conf.arg(name="settings")] = LocalizerSettings(),
    output: Annotated[OutputOptions, tyro.conf.arg(name="output")] = OutputOptions(),
) -> int:
    """Where in a map the camera of a photo stood.

    Args:
        scene: Folder of a COLMAP model (with --images), or an npz file of the kind of NRE's sample.
        query: Photos; none for all of --queries, or for the one that an npz file brings along.
        photos: What is known about the photos.
        where: Photos of the map that a query is compared with.
        how: How the pose is found.
        output: What is written.
    """
    if output.resume and output.out is None:
        raise InputError("--resume goes on with an earlier run: give its --out")
    source = QuerySource.open(scene, query, photos)
    finder = _ReferenceFinder.of(where, how, source.scene)
    require_device(how.device)
    chosen = choose_localizer(how.choice())
    if photos.init is not None and how.method.endswith("-pnp"):
        raise InputError(f"--init {photos.init}: {how.method} starts from no pose")
    single = len(source.queries) == 1
    # a bad photo must be found before anything is written
    loaded = {source.queries[0].path: source.load(source.queries[0])} if single else {}
    settings: dict[str, Any] = {**asdict(photos), **asdict(where), **asdict(how), "html": output.html}
    run = LocalizeRun(str(scene), source.scene, chosen.name, chosen.weights_id, settings, output.names)
    run.check_names([photo.name for photo in source.queries])
    folder = None if output.out is None else LocalizeFolder.prepare(output.out, single=single)
    try:
        for index, photo in _progress(source.queries):
            outcome = folder.saved(index, photo, run) if folder is not None and output.resume else None
            if outcome is None:
                outcome = _solve(chosen, finder, source, photo, loaded, _Wanted(folder is not None, how.seed))
                if folder is not None:
                    folder.write_query(run, index, photo, outcome)
            run.results.append(outcome)
            if not output.json:
                print(localize_summary(outcome))
    finally:
        # also after Ctrl+C: what was found is in the files
        if folder is not None and run.results:
            folder.write_run(run)
    if output.json:
        print(json.dumps(run.as_dict(), indent=2))
    elif folder is not None:
        print(f"written to {folder.path}")
    return _exit_code(run.results)


@dataclass(frozen=True)
class _Wanted:
    """pictures: whether what they need is to be kept."""

    pictures: bool
    seed: int


def _solve(
    method: AbsolutePoseMethod,
    finder: _ReferenceFinder,
    source: QuerySource,
    photo: QueryPhoto,
    loaded: dict[Path, View],
    wanted: _Wanted,
) -> QueryOutcome:
    try:
        view = loaded.get(photo.path) or source.load(photo)
        scene = source.scene_for(photo)
        references, messages = finder.find(photo, view, scene)
    except InputError as error:
        # one bad photo among many must not cost the others their poses; the exit code tells
        print(f"metriloc localize: {error}", file=sys.stderr)
        return QueryOutcome.unreadable(photo, error)
    asked = LocalizedQuery(view, _NOTHING, scene, truth=photo.truth, notes=messages)
    return QueryOutcome.computed(photo, traced(suited(method, scene), asked, references, photo.init, wanted))


def traced(
    method: AbsolutePoseMethod, asked: LocalizedQuery, references: Sequence[str], init: Pose | None, wanted: _Wanted
) -> LocalizedQuery:
    """The query with its estimate and, for pictures, the maps of its stages (NRE), the course of the optimisation (NRE,
    PixLoc) and features (PixLoc)."""
    view, scene = asked.query, asked.scene
    if wanted.pictures and isinstance(method, NRE):
        estimate, maps = method.trace(view, scene, references, init, seed=wanted.seed)
        coarse, fine = method.config.coarse_gnc, method.config.windows.gnc
        stages = estimate.localization[0].stages
        refined = [stage.name for stage in stages if stage.name in ("coarse", "fine")]
        configs = [fine if name == "fine" else coarse for name in refined]
        courses = tuple(gnc_courses(maps, stages, configs))
        return replace(asked, estimate=estimate, maps=tuple(maps), courses=courses)
    if wanted.pictures and isinstance(method, PixLoc):
        steps: list[tuple[str, float, Pose]] = []

        def note(name: str, iteration: Iteration) -> None:
            steps.append((name, float(iteration.at.mean_cost()[0]), iteration.pose[0].to("cpu")))

        estimate = method.localize(view, scene, references, init, seed=wanted.seed, log=note)
        features = _features(method, view, scene, estimate.localization[0].references)
        return replace(asked, estimate=estimate, courses=tuple(_alignment_courses(steps)), features=features)
    return replace(asked, estimate=method.localize(view, scene, references, init, seed=wanted.seed))


def _features(method: PixLoc, view: View, scene: SfmMap, references: Sequence[str]) -> DenseFeatures | None:
    """Of the query and the first reference, in full size; None where a photo is too small or cannot be read."""
    try:
        photos = [view, *(load_map_view(scene, scene.index(name)) for name in references[:1])]
    except InputError:
        return None
    found = [method.extractor(photo, 1) for photo in photos]
    pyramids = [extraction.pyramid for extraction in found if extraction is not None]
    if len(pyramids) < len(photos):
        return None
    levels = tuple(tuple(features[0].cpu() for features in pyramid.features) for pyramid in pyramids)
    confidences = pyramids[0].confidences
    return DenseFeatures(levels, () if confidences is None else tuple(c[0, 0].cpu() for c in confidences))


def _alignment_courses(steps: Sequence[tuple[str, float, Pose]]) -> Iterator[Course]:
    """PixLoc's stages are called "scale 4, level 2": a course a scale, a phase a level."""
    scales = dict.fromkeys(name.partition(", ")[0] for name, _, _ in steps)
    for scale in scales:
        mine = [step for step in steps if step[0].partition(", ")[0] == scale]
        phases = tuple(name.partition(", ")[2] for name, _, _ in mine)
        values, poses = tuple(value for _, value, _ in mine), tuple(pose for _, _, pose in mine)
        yield Course(scale, values, phases, "mean cost of a point", poses)


@dataclass
class _ReferenceFinder:
    """Photos of the map for each query: from a list, given, or looked for."""

    options: ReferenceOptions
    pairs: dict[str, tuple[str, ...]] | None
    retrieval: MapRetrieval | None

    @classmethod
    def of(cls, options: ReferenceOptions, how: LocalizerSettings, scene: SfmMap) -> _ReferenceFinder:
        """Raises InputError for options that contradict and names that the map does not have."""
        if options.pairs is not None and options.references is not None:
            raise InputError(f"--pairs {options.pairs} and --references contradict: give one")
        if options.num_references < 1:
            raise InputError(f"--num-references must be positive, got {options.num_references}")
        if options.references is not None:
            check_references(scene, options.references)
            return cls(options, None, None)
        if options.pairs is not None:
            return cls(options, parse_pairs(read_text(options.pairs), str(options.pairs)), None)
        return cls(options, None, MapRetrieval.from_pretrained(cache=how.cache_folder / "retrieval"))

    def find(self, photo: QueryPhoto, view: View, scene: SfmMap) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names, the best first, and what went wrong. Raises InputError for a query that the list does not have."""
        count = self.options.num_references
        if self.options.references is not None:
            return tuple(name for name in self.options.references if name in scene.names), ()
        if self.pairs is not None:
            listed = next((self.pairs[name] for name in photo.names if name in self.pairs), None)
            if listed is None:
                raise InputError(f"'{self.options.pairs}' lists no reference for {photo.name!r}")
            # retrieval may name images that the reconstruction left out
            known = set(scene.names)
            return tuple(name for name in listed if name in known)[:count], ()
        if self.retrieval is None or (len(scene) == 1 and scene.folder is not None):
            return scene.names, ()
        with _bar("photos of the map") as progress:
            ranking = self.retrieval.rank(view, scene, count, progress=progress)
        best = ranking.matches[0] if ranking.matches else 0
        doubt = f"no photo of the map shares many keypoints with it (at most {best}): it may show another place"
        return ranking.names, ranking.messages + ((doubt,) if best < FEW_KEYPOINTS else ())


def _bar(what: str) -> Any:
    if not sys.stderr.isatty():
        return nullcontext(None)
    from metriloc.cli.progress import progress_bar

    return progress_bar(what)


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
