"""Matching, and a rival where matching finds too little support: wide turns, hardly any overlap.

Feature matching has by far the more exact poses as long as enough matches agree. Where few do, a method that learned
whole poses (MicKey) may still know how the cameras stood: it is asked then, and only then, and the pose that explains
both photos best is the answer. The result is wholly that of the method it came from, with its metres, its ``setup`` and
so its own calibration, and says in its ``messages`` whose it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metriloc.backbones.fixed import Swap
from metriloc.calibration import Calibrations, calibrations_of
from metriloc.solvers.relative import marginal_score
from metriloc.types import FAILED, PhotoFeatures, PoseEstimate, RelativePoseMethod, View

ENOUGH = 60
"""Agreeing matches with which nobody else is asked."""
_AS_GOOD = 0.7  # share of the score of a pose that was fitted to the matches, for one that never saw them


class WithRival:
    """A matching method that asks a rival where it finds too little.

    Itself a ``RelativePoseMethod``.

    - matching, rival: each with its calibration. The rival takes photos; it is asked for no features in advance.
    - called: what results call the rival.

    Name and weights are those of matching.
    """

    def __init__(self, matching: RelativePoseMethod, rival: RelativePoseMethod, called: str) -> None:
        self.matching, self.rival, self.called = matching, rival, called
        self.name, self.weights_id = matching.name, matching.weights_id

    def with_networks(self, swap: Swap) -> WithRival:
        """The same two methods, with other networks. They are what ``swap`` gives in place of theirs, as far as they
        let it."""
        matching, rival = (
            method.with_networks(swap) if hasattr(method, "with_networks") else method
            for method in (self.matching, self.rival)
        )
        return WithRival(matching, rival, self.called)

    @property
    def calibrations(self) -> Calibrations:
        """Of both, for reports."""
        return (*calibrations_of(self.matching), *calibrations_of(self.rival))

    def extract(self, view: Any) -> Any:
        """What matching needs of one photo."""
        return self.matching.extract(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """``query_from_reference`` of matching or of the rival, batch shape ().

        A failure where neither finds one.
        """
        features0, features1 = (
            self.extract(value) if isinstance(value, View) else value for value in (reference, query)
        )
        first = self.matching.relative_pose(features0, features1, seed=seed)
        return self.better(first, features0, features1, seed=seed)

    def better(
        self, first: PoseEstimate, features0: PhotoFeatures, features1: PhotoFeatures, *, seed: int = 0
    ) -> PoseEstimate:
        """The answer of matching or that of the rival. It is ``first``, the answer of matching; where little speaks for
        that, the rival's, if it explains more."""
        if enough_agree(first):
            return first
        second = self.rival.relative_pose(features0.view, features1.view, seed=seed)
        if not explains_more(second, first, features0, features1):
            return first
        (details,), agreeing = second.details, len(first.details[0].inliers) if bool(first.success) else 0
        few = f"only {agreeing} matches agreed" if agreeing else "matching found no pose"
        said = f"{few}: this pose is that of {self.called}"
        timings = {**details.timings, "matching": sum(first.details[0].timings.values())}
        return replace(second, details=(replace(details, timings=timings, messages=(*details.messages, said)),))


def enough_agree(estimate: PoseEstimate) -> bool:
    """Whether matching has a pose that enough matches agree with. Then nothing else needs to be asked."""
    return bool(estimate.success) and len(estimate.details[0].inliers) >= ENOUGH


def explains_more(
    second: PoseEstimate, first: PoseEstimate, features0: PhotoFeatures, features1: PhotoFeatures
) -> bool:
    """Whether to believe a rival's pose rather than that of matching.

    It must hold by its own calibration, which calls what is probably wrong a failure. Where matching has a pose, too, both
    are measured by all its matches: the one was fitted to them, so that some agree by chance, and the other never saw them.
    """
    if not bool(second.success) or float(second.confidence) < FAILED:
        return False
    matches = first.details[0].matches
    if not bool(first.success) or matches is None:
        return True
    cameras = features0.view.camera, features1.view.camera
    max_error_px = 1.5 * max(*features0.view.size, *features1.view.size) / 640
    scores = [marginal_score(e.pose, matches.uv0, matches.uv1, cameras, max_error_px) for e in (second, first)]
    return scores[0] >= _AS_GOOD * scores[1]
