"""Made-up streams: a room whose points a matcher knows by name, and a localizer that tells what it is told to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

import metriloc
from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Camera, Pose
from metriloc.methods.matching.matchers import Matches
from metriloc.methods.matching.model import FeatureMatching
from metriloc.solvers.assignment import mutual_nearest
from metriloc.types import LocalizationDetails, PoseEstimate, QueryNeeds, SfmMap, View

CAMERA = Camera.from_fov((320, 240), math.radians(62))
RIGHT = "a pose within bounds"


def points(count: int = 150, seed: int = 0) -> torch.Tensor:
    """Of a room of four metres."""
    g = torch.Generator().manual_seed(seed)
    size, corner = torch.tensor([4.0, 3.0, 2.5]).double(), torch.tensor([-2.0, -1.5, 1.5]).double()
    return torch.rand(count, 3, generator=g, dtype=torch.float64) * size + corner


def photo(name: str, cam_from_world: Pose | None = None) -> View:
    """A view whose pixels do not matter."""
    return View(torch.zeros(3, 240, 320), CAMERA, cam_from_world, name=name)


class KnownPoints:
    """A matcher that sees the points of the room from the pose of the view, half a pixel off; nothing without a pose."""

    name, weights_id = "known", "known-points"

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(1)
        self.xyz = points()
        self.descriptors = torch.nn.functional.normalize(torch.randn(len(self.xyz), 64, generator=g), dim=-1)
        self._noise = torch.Generator().manual_seed(2)

    def extract(self, view: View) -> LocalFeatures:
        """What it sees."""
        if view.cam_from_world is None:
            return LocalFeatures(torch.zeros(0, 2), torch.zeros(0, 64), torch.zeros(0))
        uv, seen = view.camera.to(torch.float64).project(view.cam_from_world.transform(self.xyz))
        uv = uv + 0.25 * torch.randn(uv.shape, generator=self._noise, dtype=torch.float64)
        return LocalFeatures(uv[seen].float(), self.descriptors[seen], torch.ones(int(seen.sum())))

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """By name."""
        i, j = mutual_nearest(local0.descriptors @ local1.descriptors.mT, 0.9).unbind(-1)
        return Matches(local0.uv[i], local1.uv[j], torch.ones(len(i)))

    def to(self, device: torch.device | str) -> KnownPoints:
        """Nothing to move."""
        return self


def matching() -> FeatureMatching:
    """Feature matching with that matcher and no depth."""
    return FeatureMatching(KnownPoints())


class Told:
    """A localizer that answers with what a table says of a photo: a pose and a confidence, or None."""

    name, weights_id = "told", "told"
    needs = QueryNeeds(focal_checked=True)

    def __init__(self, start: bool = True) -> None:
        self.answers: dict[str, tuple[Pose, float] | None] = {}
        self.asked: list[Pose | None] = []
        self.only_started = False
        self.needs = replace(self.needs, start=start)

    def localize(
        self,
        query: View,
        scene: SfmMap,
        references: Sequence[str],
        init: Pose | None = None,
        *,
        seed: int = 0,
        trace: bool = False,
    ) -> PoseEstimate:
        """By the name of the photo."""
        self.asked.append(init)
        answer = self.answers.get(query.name)
        if answer is None or (self.only_started and init is None):
            return PoseEstimate.failure("too_few_matches", LocalizationDetails())
        pose, confidence = answer
        details = LocalizationDetails(tuple(references), 50)
        right, sure = torch.tensor(True), torch.tensor(confidence)
        return PoseEstimate(pose, right, sure, (None,), localization=(details,), probability_of=RIGHT)


def room_map() -> SfmMap:
    """Three photos of the room, side by side."""
    xyz = points()
    poses = Pose.stack([Pose.identity(dtype=torch.float64), *(_beside(x) for x in (0.5, 1.0))])
    uv, seen = CAMERA.to(torch.float64).project(xyz @ poses.R.mT + poses.t[:, None])
    image, point = seen.nonzero().unbind(-1)
    names = tuple(f"{k}.jpg" for k in range(3))
    return SfmMap(names, (CAMERA,) * 3, poses, xyz, image, point, uv[image, point])


def _beside(x: float) -> Pose:
    return Pose(torch.eye(3, dtype=torch.float64), torch.tensor([-x, 0.0, 0.0]).double())


def localizer(method: Told) -> metriloc.Localizer:
    """Of the room, which looks for nothing."""
    found = metriloc.Localizer(room_map(), method=method)
    found.look_for = lambda view, scene=None: ("0.jpg",)  # type: ignore[method-assign]
    return found
