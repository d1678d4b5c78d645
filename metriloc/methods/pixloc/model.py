"""PixLoc, whole: a photo, a map and references in, the pose of the camera out.

Reference features are computed once and kept; a query costs its own passes through the network and some milliseconds of
alignment. Nothing about a query raises: what went wrong is in the estimate.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from metriloc.backbones.fixed import Swap
from metriloc.calibration import CALIBRATION_FILE, Calibration, calibrations_for, judged, that_fit
from metriloc.geometry import Pose
from metriloc.io.files import InputError
from metriloc.io.reference_features import ReferenceFeatures
from metriloc.io.weights import load_state_dict_strictly, load_weights, resolve_weights
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.extractor import FeatureExtractor, NetworkExtractor, ResizeConfig
from metriloc.methods.pixloc.localization import Localization, Log, Tools
from metriloc.methods.pixloc.network import PixLocNetwork
from metriloc.methods.pixloc.reference import ReferenceStore
from metriloc.methods.pixloc.selection import Hints
from metriloc.methods.pixloc.settings import METHOD, PUBLISHED_NAMES, LocalizeConfig, QuerySettings, read_settings
from metriloc.methods.pixloc.trace import trace_of
from metriloc.methods.pixloc.tracker import Tracker
from metriloc.types import PoseEstimate, QueryNeeds, SfmMap, View

DEFAULT_WEIGHTS = "pixloc-small"
"""Bundled with metriloc."""


class PixLoc:
    """A localiser: features, alignment and a store of reference features.

    - extractor: of features.
    - align: settings of the loop.
    - config: choices about references and points.
    - cache: folder for reference features; None keeps them in memory only.
    - calibrations: of these weights; what they were fitted for has a probability as its confidence,
      and a verdict.
    - kept: reference features of a bundle.

    Raises InputError for a calibration of other weights.

    >>> pixloc = metriloc.PixLoc.from_pretrained("pixloc-small")  # which comes with metriloc
    >>> start = metriloc.read_map("map").cam_from_world[0]
    >>> estimate = metriloc.localize("query.jpg", "map", method=pixloc, init=start)
    >>> f"{float(estimate.pose.center_distance(start)):.2f}"
    '0.00'
    """

    name = METHOD

    def __init__(
        self,
        extractor: FeatureExtractor,
        align: AlignConfig | None = None,
        config: LocalizeConfig | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        weights_id: str = "pixloc-unsaved",
        calibrations: Sequence[Calibration] = (),
        kept: ReferenceFeatures | None = None,
    ) -> None:
        self.extractor, self.align = extractor, align or AlignConfig()
        self.config = config or LocalizeConfig()
        self.weights_id = weights_id
        self.calibrations = that_fit(self.name, weights_id, calibrations)
        # a bundle holds features in float16 only
        half = self.config.half_references or kept is not None
        self.store = ReferenceStore(extractor, self.align.cost, cache, half, kept=kept)
        self.levels = self.config.levels or tuple(range(extractor.num_levels))
        if max(self.levels) >= extractor.num_levels:
            raise ValueError(f"levels {self.levels} are not among the {extractor.num_levels} of the network")

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = DEFAULT_WEIGHTS,
        *,
        align: AlignConfig | None = None,
        config: LocalizeConfig | None = None,
        resize: ResizeConfig | None = None,
        cache: str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
        calibrations: Sequence[Calibration] | None = None,
        offline: bool | None = None,
    ) -> PixLoc:
        """Load the bundled weights, or a folder, a file, a hub name.

        - source: a folder, a file, a hub name.
        - align, config, resize: settings; those that are not given are stored with the weights.
        - cache: folder for what is seen in photos of maps; None keeps it in memory.
        - device: of the network.
        - calibrations: None for what lies beside the weights or comes with them, ``()`` for bare confidences.
        - offline: never ask a network (default: METRILOC_OFFLINE).

        Raises InputError for weights that are missing, damaged or of something else.
        """
        path = resolve_weights(source, offline=offline)
        weights = load_weights(path, method=cls.name)
        stored = read_settings(weights.config, str(weights.path))
        with torch.device("meta"):
            network = PixLocNetwork(stored.network)
        load_state_dict_strictly(network, weights.tensors, source=str(weights.path))
        extractor = NetworkExtractor(network, weights.weights_id, resize or stored.resize).to(device)
        if calibrations is None:
            calibrations = calibrations_for(cls.name, weights.weights_id, path / CALIBRATION_FILE)
        return cls(
            extractor,
            align or stored.align,
            config or stored.config,
            cache=cache,
            weights_id=weights.weights_id,
            calibrations=calibrations,
        )

    def adjusted(
        self,
        *,
        config: LocalizeConfig | None = None,
        align: AlignConfig | None = None,
        resize: ResizeConfig | None = None,
    ) -> PixLoc:
        """The same network with other settings; those that are not given stay.

        - config, align, resize: of localization, alignment and photos.

        Raises ValueError for levels that the network does not have, and for a size when the features are not a network's.
        """
        stored = self.settings
        if resize is not None and stored.resize is not None:
            resize = replace(stored.resize, size=resize.size)
        return self.with_settings(QuerySettings(config or self.config, align or self.align, resize or stored.resize))

    published_names = PUBLISHED_NAMES

    @property
    def settings(self) -> QuerySettings:
        """All that can be set about a query."""
        extractor = self.extractor
        return QuerySettings(
            self.config, self.align, extractor.resize if isinstance(extractor, NetworkExtractor) else None
        )

    def with_settings(self, settings: QuerySettings) -> PixLoc:
        """The same network with other settings. Raises ValueError as ``adjusted``."""
        extractor = self.extractor
        if settings.resize is not None and settings.resize != self.settings.resize:
            if not isinstance(extractor, NetworkExtractor):
                raise ValueError(f"photos for {extractor.identity!r} cannot be brought to another size")
            extractor = extractor.resized(settings.resize)
        return PixLoc(
            extractor,
            settings.align,
            settings.config,
            cache=self.store.folder,
            weights_id=self.weights_id,
            calibrations=self.calibrations,
            kept=self.store.kept,
        )

    def with_kept(self, kept: ReferenceFeatures) -> PixLoc:
        """The same localizer with reference features in float16.

        They are from a bundle where that has them.
        """
        return PixLoc(
            self.extractor,
            self.align,
            self.config,
            weights_id=self.weights_id,
            calibrations=self.calibrations,
            kept=kept,
        )

    def with_networks(self, swap: Swap) -> PixLoc:
        """The same localizer with what ``swap`` gives in place of its network."""
        return PixLoc(
            swap(self.extractor),
            self.align,
            self.config,
            cache=self.store.folder,
            weights_id=self.weights_id,
            calibrations=self.calibrations,
            kept=self.store.kept,
        )

    def describe(self, scene: SfmMap, image: int) -> None:
        """Look at a photo of a map as queries ask for it. Raises InputError for one that cannot be read."""
        for problem in self.store.build(scene, self.config.image_scales, [image]):
            raise InputError(problem)

    @property
    def needs(self) -> QueryNeeds:
        """What it wants beside a query and a map.

        Lists of references as they are, which it may rank by matches, and hints.
        """
        config = self.config
        matches = config.points != "all" or config.rank_by_inliers
        return QueryNeeds(config.num_references, whole_lists=True, hints=True, matches=matches)

    def localize(
        self,
        query: View,
        scene: SfmMap,
        references: Sequence[str],
        init: Pose | None = None,
        *,
        seed: int = 0,
        trace: bool = False,
        hints: Hints | None = None,
        log: Log | None = None,
    ) -> PoseEstimate:
        """``cam_from_world`` of the query (float64), batch shape ().

        - query, scene: the photo, and the map.
        - references: names of images of the map, the best first; names that it does not have are passed over.
        - init: a first guess; by default the pose of the first reference, or an average.
        - seed: of the places that the pose is compared with to tell its support.
        - trace: keep every iteration, and features.
        - hints: matches, for ranking and for point selections other than ``all`` (a query without them keeps its order, or
          fails); similarities, for averaged poses.
        - log: called with the stage's name every iteration.

        Raises ValueError for an ``init`` that is no single pose.
        """
        if init is not None and init.shape != ():
            raise ValueError(f"init must be a single pose, got batch shape {tuple(init.shape)}")
        tools = Tools(self.extractor, self.store, self.align, self.config, self.levels)
        query, scene, init = query.detach(), scene.detach(), None if init is None else init.detach()
        track = Tracker()
        estimate = Localization(tools, query, scene, hints, track.beside(log) if trace else log, seed).run(
            references, init
        )
        estimate = judged(estimate, self.calibrations, [query])
        return replace(estimate, trace=trace_of(estimate, track, self.extractor, query, scene)) if trace else estimate

    def localize_batch(
        self,
        queries: Sequence[View],
        scene: SfmMap,
        references: Sequence[Sequence[str]],
        inits: Sequence[Pose | None] | None = None,
        *,
        hints: Sequence[Hints | None] | None = None,
    ) -> PoseEstimate:
        """Several queries, batch shape (n,). Each by itself, so that none depends on the others.

        - queries, scene, references, inits, hints: one of each a query, as in ``localize``, in one map.
        """
        count = len(queries)
        inits = [None] * count if inits is None else inits
        hints = [None] * count if hints is None else hints
        if not len(references) == len(inits) == len(hints) == count:
            raise ValueError(f"{count} queries, {len(references)} lists of references, {len(inits)} first poses")
        rows = zip(queries, references, inits, hints, strict=True)
        return PoseEstimate.stack([self.localize(q, scene, r, i, hints=h) for q, r, i, h in rows])
