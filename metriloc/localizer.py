"""A map that is opened once, and asked for the poses of many photos."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from metriloc.answers import Answer, Asked, answer_turned_back, doubted, of_map, with_timings
from metriloc.calibration import Target
from metriloc.choose import LocalizerChoice, LocalizerName, choose_localizer
from metriloc.choose.for_maps import method_of_bundle, require_features, suited
from metriloc.geometry import Pose
from metriloc.io import InputError, Photo, as_view
from metriloc.io.arguments import LARGEST_SEED, require_kind, require_method, require_number, require_path, require_pose
from metriloc.io.reference_features import ReferenceFeatures
from metriloc.io.view import warn_if_guessed
from metriloc.keepers import map_features, with_kept
from metriloc.methods.matching import MapRetrieval
from metriloc.methods.matching.focal import focal_contradiction, with_estimated_focal
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.matching.mirrored import looks_mirrored_in_map
from metriloc.methods.matching.rig import RigCamera, localize_rig, rig_views
from metriloc.methods.nre.model import NRE
from metriloc.opened_map import OpenedMap, check_references, open_map
from metriloc.turns import by_quarter_turns
from metriloc.types import AbsolutePoseMethod, LocalizationDetails, MapUnit, PoseEstimate, SfmMap, View, needs_of
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


class Localizer:
    """Where in one map, which is opened once, photos were taken.

    - scene: a map, a folder with a COLMAP model, a bundle of ``metriloc map bundle``, or what else ``open_map`` takes.
    - images: the folder of the map's photos, where that is not beside it.
    - method: a loaded localizer or its name; by default NRE on the best features that are here, of a bundle without
      photos the first of its methods whose weights are here.
    - references: how many images of the map a photo is compared with.
    - device: where networks run, of a method that is given by its name or not at all.

    What networks see in the photos of the map is looked at when it is first needed, and kept (float16, up to 1 GiB).
    Raises InputError for a map that cannot be used, and for a bundle without photos that has no features for the method.

    >>> localizer = metriloc.Localizer("map")
    >>> bool(localizer.localize("query.jpg").success)
    True
    """

    def __init__(
        self,
        scene: SfmMap | str | Path,
        *,
        images: str | Path | None = None,
        method: AbsolutePoseMethod | LocalizerName | None = None,
        references: int = REFERENCES,
        device: str = "cpu",
    ) -> None:
        require_path("scene", scene, SfmMap)
        require_kind("images", images, (str, PathLike), "a folder")
        require_method(method, "localize")
        require_number("references", references, 1, 1000, whole=True)
        if isinstance(scene, SfmMap) and images is not None:
            raise InputError(f"images {str(images)!r} was given for a map that is read already: read it with them")
        opened = OpenedMap(scene) if isinstance(scene, SfmMap) else open_map(scene, images)
        self._open(opened, method, references, device)

    @classmethod
    def of(cls, opened: OpenedMap, method: AbsolutePoseMethod) -> Localizer:
        """For a map that is open already; references are the caller's business."""
        localizer = cls.__new__(cls)
        localizer._open(opened, method, REFERENCES, "cpu")
        return localizer

    def _open(self, opened: OpenedMap, method: AbsolutePoseMethod | str | None, references: int, device: str) -> None:
        self.scene, self.bundle, self.references = opened.scene, opened.bundle, references
        self._opened = opened
        self._kept = ReferenceFeatures(None if self.bundle is None else self.bundle.features)
        if isinstance(method, str):
            method = choose_localizer(LocalizerChoice(method, device=device))
        if method is None:
            method = NRE.from_features(device=device) if self.bundle is None else method_of_bundle(self.bundle, device)
        if self.bundle is not None:
            require_features(method, self.bundle)
            method = with_kept(method, self._kept)
        self.method = method
        self._retrieval: MapRetrieval | None = None
        self._points: MatchingLocalizer | None = None
        self._rigs: MatchingLocalizer | None = None

    @property
    def retrieval(self) -> MapRetrieval:
        """What looks for references, loaded when it is first needed. Raises InputError where its weights are missing."""
        if self._retrieval is None:
            self._retrieval = MapRetrieval.from_pretrained(source=self._kept.source)
        return self._retrieval

    @property
    def points(self) -> MatchingLocalizer | None:
        """What focal lengths and mirror images are looked at with. None without XFeat's weights."""
        if self._points is None:
            try:
                self._points = MatchingLocalizer(*map_features(), kept=self._kept)
            except (InputError, ImportError):
                return None
        return self._points

    # -- photos -------------------------------------------------------------------------------------------------------
    def localize(
        self,
        photo: Photo,
        *,
        K: Sequence[Any] | None = None,
        fov: float | None = None,
        references: Sequence[str] | None = None,
        init: Pose | None = None,
        seed: int = 0,
        trace: bool = False,
    ) -> PoseEstimate:
        """``cam_from_world`` of a photo.

        - photo, K, fov, references, init, seed, trace: as in ``metriloc.localize``, with the photo as its query.
        """
        require_kind("init", init, Pose, "a Pose")
        require_pose("init", init)
        require_number("seed", seed, 0, LARGEST_SEED, whole=True)
        start = time.perf_counter()
        view = as_view(photo, K=K, fov=fov, name="query", warn_of_guess=False)
        if references is not None:
            check_references(self.scene, references)
        read = time.perf_counter() - start

        def ask(turned: View, turned_from_view: Pose) -> Asked:
            start = None if init is None else turned_from_view.to(init.dtype) @ init
            return Asked(self.look_for(turned) if references is None else references, start)

        answer = self.answer(view, ask, seed=seed, trace=trace)
        estimate = with_timings(answer.estimate, {"photo": read})
        if not isinstance(photo, View) and ESTIMATED_FOCAL not in estimate.doubts:
            warn_if_guessed(view, stacklevel=3)
        return with_map_page(estimate, view, self.scene, self.method.name, self.method.weights_id, seed)

    def localize_many(
        self,
        photos: Iterable[Photo],
        *,
        K: Sequence[Any] | None = None,
        fov: float | None = None,
        seed: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> list[PoseEstimate]:
        """An estimate for each photo, in order, each as ``localize`` finds it. A photo that cannot be read costs itself only:
        its estimate has the reason ``no_photo`` and says in ``localization[0].messages`` what is wrong with it.

        - photos, K, fov, seed: as in ``localize``; K and fov are of all photos. progress: told how many are done.
        """
        if isinstance(photos, str | bytes | PathLike):
            raise InputError(f"photos must be a list of photos, got {photos!r}: say [{photos!r}]")
        found = []
        for photo in photos:
            try:
                found.append(self.localize(photo, K=K, fov=fov, seed=seed))
            except InputError as error:
                found.append(PoseEstimate.failure("no_photo", LocalizationDetails(messages=(str(error),))))
            if progress is not None:
                progress(len(found))
        return found

    def localize_rig(
        self,
        photos: Sequence[Photo],
        cam_from_rig: Sequence[Pose],
        *,
        K: Sequence[Any] | None = None,
        fov: float | None = None,
        references: Sequence[str] | None = None,
        seed: int = 0,
    ) -> PoseEstimate:
        """``rig_from_world`` of photos that cameras of one rig took at once.

        - photos: one of each camera. K, fov: of all photos, as in ``localize``; a View brings its own camera.
        - cam_from_rig: where each camera is on the rig, lengths in units of the map.
        - references: names of images that all are compared with; by default each with its own.

        Points are matched (XFeat, or the method where it is one of matching), whatever else the method is. A camera that
        shows too little costs nothing. Returns an estimate as ``localize`` does; its covariance is in the axes of the rig.
        Raises InputError for lists of different lengths, and for a photo whose focal length is only a guess.

        >>> estimate = localizer.localize_rig(["a.jpg", "b.jpg"], [a_from_rig, b_from_rig])  # doctest: +SKIP
        """
        views = rig_views(photos, cam_from_rig, K, fov)
        require_number("seed", seed, 0, LARGEST_SEED, whole=True)
        if references is not None:
            check_references(self.scene, references)
        cameras = [
            RigCamera(view, pose, references or self.look_for(view))
            for view, pose in zip(views, cam_from_rig, strict=True)
        ]
        return of_map(localize_rig(suited(self._matching, self.scene), cameras, self.scene, seed), self._opened)

    @property
    def _matching(self) -> MatchingLocalizer:
        if isinstance(self.method, MatchingLocalizer):
            return self.method
        if self._rigs is None:
            self._rigs = MatchingLocalizer.from_features().with_kept(self._kept)
        return self._rigs

    def look_for(self, view: View, *, scene: SfmMap | None = None) -> tuple[str, ...]:
        """Images of the map that share the most with a photo. scene: the map without some."""
        return self.retrieval.rank(view, self.scene if scene is None else scene, self.references).names

    def follow(self, view: View, references: Sequence[str], init: Pose | None = None, *, seed: int = 0) -> PoseEstimate:
        """``cam_from_world`` of a stream's next frame. No quarter turns, no second looks.

        - references: images of the map that see the same. init: where to begin; a method that cannot do so begins anew.
        """
        estimate = suited(self.method, self.scene).localize(view, self.scene, references, init, seed=seed)
        return of_map(estimate, self._opened)

    @property
    def unit(self) -> MapUnit:
        """What lengths in the map are in."""
        return self._opened.unit

    def answer(
        self,
        view: View,
        ask: Callable[[View, Pose], Asked],
        *,
        scene: SfmMap | None = None,
        seed: int = 0,
        trace: bool = False,
    ) -> Answer:
        """The whole way of one photo. Unknown focal length, quarter turns, second looks, calibration.

        - ask: what a (turned) photo is compared with, from it and ``turned_from_view``. scene: the map without some images.
        """
        scene = self.scene if scene is None else scene
        method = suited(self.method, scene)

        def attempt(turned: View, turned_from_view: Pose) -> Answer:
            start = time.perf_counter()
            asked = ask(turned, turned_from_view)
            clock = {"retrieval": time.perf_counter() - start}
            if asked.failed is not None:
                return Answer(asked.failed, turned, asked)
            known, doubt = self._with_known_focal(turned, scene, asked.references, seed)
            clock["focal length"] = time.perf_counter() - start - clock["retrieval"]
            more = {**asked.more, "trace": True} if trace else asked.more
            found = method.localize(known, scene, asked.references, asked.init, seed=seed, **more)
            estimate = found if doubt is None else doubted(found, doubt)
            start = time.perf_counter()
            estimate = self._looked_at_again(estimate, known, scene, asked.references, seed)
            clock["second look"] = time.perf_counter() - start
            return Answer(with_timings(estimate, clock), known, asked)

        found, quarters = by_quarter_turns(view, attempt, lambda answer: answer.estimate)
        found = found if quarters == 0 else answer_turned_back(found, view, quarters)
        return replace(found, estimate=of_map(found.estimate, self._opened))

    def _with_known_focal(
        self, view: View, scene: SfmMap, references: Sequence[str], seed: int
    ) -> tuple[View, str | None]:
        """The photo with the focal length that the map tells, where its own is only a guess and the map can tell; and what
        makes a pose doubtful that rests on it: that it was estimated."""
        if not view.focal_is_guessed or self.points is None:
            return view, None
        known = with_estimated_focal(view, scene, references, self.points, seed)
        return known, None if known is view else ESTIMATED_FOCAL

    def _looked_at_again(
        self, estimate: PoseEstimate, view: View, scene: SfmMap, references: Sequence[str], seed: int
    ) -> PoseEstimate:
        """The estimate, doubtful where the map speaks against the focal length that it rests on (unless the method has
        looked at that itself), or where it is only just reliable and the mirrored photo fits nearly as well."""
        if not bool(estimate.success) or self.points is None:
            return estimate
        looked = needs_of(self.method).focal_checked
        if not looked and not view.focal_is_guessed and ESTIMATED_FOCAL not in estimate.doubts:
            estimate = doubted(estimate, focal_contradiction(view, scene, references, self.points, seed))
        if estimate.verdict != "reliable" or float(estimate.confidence) >= SURE:
            return estimate
        mirrored = looks_mirrored_in_map(
            view, scene, references, self.points, partial(self.look_for, scene=scene), seed
        )
        return doubted(estimate, MIRRORED_IN_MAP if mirrored else None)
