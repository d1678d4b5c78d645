"""From a photo file and a map to the pose of the photo in one call."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, cast

from metriloc.backbones.local import DenseExtractor
from metriloc.calibration import Target
from metriloc.choose import LocalizerChoice, LocalizerName, choose_localizer
from metriloc.datasets.nre_sample import read_nre_sample
from metriloc.geometry import Pose
from metriloc.io import InputError, Photo, as_view
from metriloc.io.arguments import LARGEST_SEED, require_kind, require_method, require_number, require_path
from metriloc.io.local_features import load_extractor
from metriloc.io.map_folders import photos_are_lost
from metriloc.io.maps import read_map
from metriloc.io.view import warn_if_guessed
from metriloc.methods.matching import MapRetrieval
from metriloc.methods.matching.focal import focal_contradiction, with_estimated_focal
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.matching.mirrored import looks_mirrored_in_map
from metriloc.methods.nre.model import NRE
from metriloc.methods.pixloc.model import PixLoc
from metriloc.turns import by_quarter_turns, turned_back
from metriloc.types import AbsolutePoseMethod, PoseEstimate, SfmMap, View, needs_of
from metriloc.viz.notebook import with_map_page

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
    method: AbsolutePoseMethod | LocalizerName | None = None,
    seed: int = 0,
    trace: bool = False,
) -> PoseEstimate:
    """Where in a map the camera of a photo stood.

    - query: a file, or what else ``as_view`` takes: bytes, a Pillow image, an array, a tensor, a View.
    - scene: a map, or what ``read_scene`` reads, with ``images``.
    - K, fov: intrinsics of the query, as in ``as_view``.
    - references: names of images of the map that show the same, the best first; by default they are looked for.
    - init: a first guess of ``cam_from_world``.
    - method: a loaded localizer or its name; by default ``NRE.from_features()``, on the best features that are here.
    - seed: same seed, same answer (on one machine, with as many threads).
    - trace: keep in ``trace`` of the estimate how the method came to it, step by step.

    A focal length that is only a guess is estimated with the pose where the map has 30 points or more to say. A photo of
    which nothing is found is turned by quarters, in case that it lies on its side.

    Returns ``cam_from_world``, batch shape (), with its stages in ``localization[0]``; ``success=False`` with a reason
    where the photo does not fix a pose. Raises InputError (a ValueError) for files and names that cannot be used.
    """
    require_path("scene", scene, SfmMap)
    require_kind("images", images, (str, PathLike), "a folder")
    require_kind("init", init, Pose, "a Pose")
    require_method(method, "localize")
    require_number("seed", seed, 0, LARGEST_SEED, whole=True)
    if isinstance(scene, SfmMap):
        if images is not None:
            raise InputError(f"images {str(images)!r} was given for a map that is read already: read it with them")
    else:
        scene = read_scene(scene, images)
    is_file = not isinstance(query, View)
    query = as_view(query, K=K, fov=fov, name="query", warn_of_guess=False)
    if references is not None:
        check_references(scene, references)
    if isinstance(method, str):
        method = choose_localizer(LocalizerChoice(method))
    asked = {"trace": True} if trace else {}  # a localizer of somebody's own need not know of it
    chosen = suited(method or NRE.from_features(), scene)
    retrieval = MapRetrieval.from_pretrained() if references is None else None

    def attempt(view: View, view_from_query: Pose) -> PoseEstimate:
        names = references if retrieval is None else retrieval.rank(view, scene, REFERENCES).names
        start = None if init is None else view_from_query.to(init.dtype) @ init
        known, doubt = with_known_focal(view, scene, names or (), seed)
        found = with_doubt(chosen.localize(known, scene, names or (), start, seed=seed, **asked), doubt)
        return looked_at_again(found, known, scene, names or (), seed, chosen)

    estimate, quarters = by_quarter_turns(query, attempt, lambda found: found)
    if is_file and ESTIMATED_FOCAL not in estimate.doubts:
        warn_if_guessed(query, stacklevel=3)
    estimate = turned_back(estimate, quarters, query.size)
    return with_map_page(estimate, query, scene, chosen.name, chosen.weights_id, seed)


def with_known_focal(view: View, scene: SfmMap, references: Sequence[str], seed: int = 0) -> tuple[View, str | None]:
    """The photo with the focal length that the map tells, where its own is only a guess and the map can tell; and what
    makes a pose doubtful that rests on it: that it was estimated."""
    if not view.focal_is_guessed:
        return view, None
    try:
        features = _map_features()
    except (InputError, ImportError):
        return view, None
    known = with_estimated_focal(view, scene, references, features, seed)
    return known, None if known is view else ESTIMATED_FOCAL


def with_doubt(estimate: PoseEstimate, doubt: str | None) -> PoseEstimate:
    """The estimate, doubtful at best where there is a doubt."""
    return estimate if doubt is None else replace(estimate, doubts=(*estimate.doubts, doubt))


def looked_at_again(
    estimate: PoseEstimate,
    view: View,
    scene: SfmMap,
    references: Sequence[str],
    seed: int = 0,
    method: AbsolutePoseMethod | None = None,
) -> PoseEstimate:
    """The estimate, doubtful where the map speaks against the focal length that it rests on (matching, the ``method``, has
    looked at that itself), or where it is only just reliable and the mirrored photo fits nearly as well."""
    if not bool(estimate.success):
        return estimate
    try:
        features = _map_features()
    except (InputError, ImportError):
        return estimate
    looked = method is not None and needs_of(method).focal_checked
    if not looked and not view.focal_is_guessed and ESTIMATED_FOCAL not in estimate.doubts:
        estimate = with_doubt(estimate, focal_contradiction(view, scene, references, features, seed))
    if estimate.verdict != "reliable" or float(estimate.confidence) >= SURE:
        return estimate
    mirrored = looks_mirrored_in_map(view, scene, references, features, seed)
    return with_doubt(estimate, MIRRORED_IN_MAP if mirrored else None)


@cache
def _map_features() -> DenseExtractor:
    return cast(DenseExtractor, load_extractor("xfeat")[0])


def suited(method: AbsolutePoseMethod, scene: SfmMap) -> AbsolutePoseMethod:
    """The method, for a map whose points are all seen by fewer photos than its ``min_track`` wants (a map of one photo,
    say) with a ``min_track`` that the best of them have."""
    longest = max(1, int(scene.track_lengths().max())) if len(scene.point_index) else 1
    if not isinstance(method, NRE | PixLoc | MatchingLocalizer) or method.config.min_track <= longest:
        return method
    other = copy(method)
    other.config = replace(method.config, min_track=longest)
    return other


def read_scene(path: str | Path, images: str | Path | None = None) -> SfmMap:
    """A map from a folder with a COLMAP model, or from an npz file of the kind of NRE's sample (its photos lie beside it).

    images: the folder that the names of a COLMAP model are relative to. Raises InputError for what is neither, and for a
    map whose photos are nowhere.
    """
    if Path(path).suffix.lower() != ".npz":
        scene = read_map(path, images)
        if scene.folder is None and len(scene):
            raise InputError(photos_are_lost(path, scene.names))
        return scene
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
