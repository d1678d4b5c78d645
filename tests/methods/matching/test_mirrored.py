"""Whether a photo fits better mirrored: what is caught, and what looking for it may cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Camera, Pose
from metriloc.methods.matching.matchers import Matches
from metriloc.methods.matching.mirrored import looks_mirrored
from metriloc.types import View

CAMERA = Camera(torch.tensor([640.0, 480.0]), torch.tensor([520.0, 520.0]), torch.tensor([309.5, 239.5]))
VIEW = View(torch.zeros(3, 480, 640), CAMERA)
TURNED = Pose.from_tangent(torch.tensor([0.8, 0.0, 0.1, 0.0, -0.4, 0.0]))


class Counting:
    """Matches that agree with ``TURNED`` between the photos it is given, ``share`` of the keypoints of each; the rest is
    chance. Counts the pixels and keypoints that it is asked for."""

    name = weights_id = "counting"

    def __init__(self, share: float, small_share: float | None = None) -> None:
        self.share, self.small_share = share, share if small_share is None else small_share
        self.pixels: list[int] = []
        self.keypoints: list[int] = []

    def extract(self, view: View) -> LocalFeatures:
        width, height = view.size
        self.pixels.append(width * height)
        uv = torch.rand(2048, 2) * torch.tensor([width - 1.0, height - 1.0])
        return LocalFeatures(uv, torch.zeros(2048, 4), torch.rand(2048))

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        self.keypoints.append(len(local1))
        share = self.share if view1.size == VIEW.size else self.small_share
        uv0, uv1 = local0.uv.clone(), local1.uv.clone()
        right = int(share * len(uv0))
        depth = 3 + 3 * torch.rand(right, generator=torch.Generator().manual_seed(0))
        uv1[:right] = view1.camera.project(TURNED.transform(view0.camera.lift(uv0[:right], depth)))[0]
        return Matches(uv0, uv1, torch.ones(len(uv0)))

    def to(self, device: Any) -> Counting:
        return self


def look(matcher: Counting, agreeing: int, pose: Pose = TURNED) -> bool:
    torch.manual_seed(0)
    local: tuple[LocalFeatures, LocalFeatures] = matcher.extract(VIEW), matcher.extract(VIEW)
    matcher.pixels.clear()
    return looks_mirrored(matcher, (VIEW, local[0]), (VIEW, local[1]), (pose, agreeing), 1.5)


def test_what_fits_clearly_better_mirrored_is_caught() -> None:
    assert look(Counting(0.4), agreeing=300)
    assert not look(Counting(0.4), agreeing=700)


def test_a_photo_that_does_not_fit_mirrored_costs_two_small_copies() -> None:
    matcher = Counting(0.0)
    assert not look(matcher, agreeing=300)
    assert matcher.pixels == [320 * 240] * 2 and matcher.keypoints == [512]


def test_small_copies_alone_prove_nothing() -> None:
    assert not look(Counting(0.0, small_share=0.5), agreeing=300)


@pytest.mark.parametrize(
    ("agreeing", "degrees"), [(20, 23), (1200, 23), (300, 10)], ids=["few agree", "most agree", "hardly turned"]
)
def test_nothing_is_looked_at_where_it_would_change_nothing(agreeing: int, degrees: float) -> None:
    turn = Pose.from_tangent(torch.tensor([0.8, 0.0, 0.1, 0.0, -degrees * torch.pi / 180, 0.0]))
    matcher = Counting(0.4)
    assert not look(matcher, agreeing, turn)
    assert matcher.pixels == [] and matcher.keypoints == []


def test_no_keypoints_at_all() -> None:
    nothing = LocalFeatures(Tensor(0, 2), Tensor(0, 4), Tensor(0))
    assert not looks_mirrored(Counting(0.4), (VIEW, nothing), (VIEW, nothing), (TURNED, 300), 1.5)
