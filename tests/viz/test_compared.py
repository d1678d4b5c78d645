"""Several methods in one view, points by confidence, and the strip of what a network predicts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View
from metriloc.viz import Answer, build_scene, compared_picture, predicted_strip
from metriloc.viz.compared import COLORS, answer_in_words, compared_scene
from metriloc.viz.scene_picture import _COLORS, confidence_colors, scene_picture

GRAY = View(torch.full((3, 90, 120), 0.5), Camera.from_fov((120, 90), 1.0), name="gray.jpg")
TRUE = Pose.from_aa(torch.tensor([0.0, -0.2, 0.0]).double(), torch.tensor([-1.2, 0.0, 0.1]).double())


def estimate(pose: Pose = TRUE, *, metric: bool = True, confidence: float = 0.5, count: int = 40) -> PoseEstimate:
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 + torch.tensor([-1.0, -1.0, 4.0])
    camera = GRAY.camera.to(torch.float64)
    uv0, uv1 = camera.project(xyz)[0], camera.project(TRUE.transform(xyz))[0]
    inliers = Correspondences(uv0, uv1, xyz[:, 2], xyz[:, 2], torch.linspace(0.1, 0.9, count))
    details = PairDetails(1.0, inliers, metric=metric, scale_source="test")
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(confidence), (None,), (details,))


def near(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - np.array(color)).max(-1) < 40).sum())


def test_every_method_has_a_row_and_a_camera_in_its_color_and_the_truth_is_green() -> None:
    aside = Pose(TRUE.R, TRUE.t + torch.tensor([0.0, 0.6, 0.0]).double())
    answers = [Answer("mickey", estimate()), Answer("xfeat", estimate(aside))]
    plain = compared_picture(GRAY, GRAY, answers)
    picture = compared_picture(GRAY, GRAY, answers, Pose(TRUE.R, 1.5 * TRUE.t))
    assert picture.shape == plain.shape and picture.shape[1] == 960 and picture.dtype == np.uint8
    rows, view = picture[:-720], picture[-720:]
    halves = np.array_split(rows, 2)
    for k in (0, 1):
        assert (halves[k][:, :4] == COLORS[k]).all() and (halves[k][:, -4:] == COLORS[k]).all()  # the frame
        assert near(view, COLORS[k]) > 60
    assert near(view, _COLORS["truth"]) > near(plain[-720:], _COLORS["truth"]) + 60


def test_poses_without_metres_stand_at_the_true_distance() -> None:
    direction = estimate(Pose(TRUE.R, TRUE.t / TRUE.distance()), metric=False)
    scene = compared_scene(GRAY, GRAY, [Answer("a", direction)], TRUE)
    assert scene is not None and scene.metric and scene.baseline == pytest.approx(float(TRUE.distance()))
    assert [f.label for f in scene.frusta] == ["reference", "true pose", "a"]
    assert scene.frusta[2].center == pytest.approx(TRUE.center().numpy())
    both = compared_scene(GRAY, GRAY, [Answer("a", direction), Answer("b", estimate(Pose(TRUE.R, 3 * TRUE.t)))])
    assert both is not None and both.metric
    assert np.linalg.norm(both.frusta[1].center) == pytest.approx(3 * float(TRUE.distance()))
    alone = compared_scene(GRAY, GRAY, [Answer("a", direction)])
    assert alone is not None and not alone.metric and alone.baseline == 1.0


def test_who_has_no_pose_says_why() -> None:
    failed = Answer("sift", PoseEstimate.failure("too_few_matches"))
    assert answer_in_words(failed).startswith("sift: no pose, too few matches.")
    broken = Answer("sift", PoseEstimate.failure("degenerate"), "out of memory")
    assert answer_in_words(broken, TRUE) == "sift: no pose, out of memory"
    assert compared_scene(GRAY, GRAY, [failed]) is None
    assert compared_picture(GRAY, GRAY, [failed]).shape[1] == 960
    assert compared_picture(GRAY, GRAY, [dataclasses.replace(failed, note="word " * 200)], TRUE).shape[1] == 960
    with pytest.raises(ValueError, match="one method at least"):
        compared_picture(GRAY, GRAY, [])


def test_errors_are_those_of_the_pose() -> None:
    off = Pose.from_aa(torch.tensor([0.0, 0.0, 0.1]).double(), torch.zeros(3).double()) @ TRUE
    words = answer_in_words(Answer("a", estimate(off)), TRUE)
    assert words == "a: 40 inliers, confidence 0.50 (uncalibrated), off by 5.73° and 0.0 cm"
    assert answer_in_words(Answer("a", estimate(metric=False)), TRUE).endswith("off by 0.00° (no metres)")


def test_confidence_is_a_hue_and_probability_a_brightness() -> None:
    low, high = (confidence_colors(c, np.array([0.2, 0.1, 0.2, 0.9])).astype(int) for c in (0.0, 1.0))
    assert (low[:, 0] > low[:, 1]).all() and (high[:, 1] > high[:, 0]).all()
    assert high[1].sum() < high[0].sum() == high[2].sum() < high[3].sum()
    assert confidence_colors(0.5, np.zeros(0)).shape == (0, 3)
    assert (confidence_colors(0.5, np.ones(3)) == confidence_colors(0.5, np.ones(3))[0]).all()


def test_the_scene_by_confidence_is_another_picture() -> None:
    size = (320, 240)
    red, green = (build_scene(estimate(confidence=c, count=300), GRAY, GRAY) for c in (0.0, 1.0))
    assert red is not None and green is not None
    drawn = [scene_picture(scene, size, "confidence") for scene in (red, green)]
    assert near(drawn[0], (235, 70, 60)) > near(drawn[1], (235, 70, 60)) + 50
    assert (scene_picture(red, size) == scene_picture(red, size, "position")).all()
    with pytest.raises(ValueError, match="color must be 'position', or 'confidence' of a scene that has one"):
        scene_picture(dataclasses.replace(red, confidence=None), size, "confidence")


class Predicted:
    """What a network says of ``GRAY``: depth doubles from left to right, scores from top to bottom."""

    view, cell, depth_origin = GRAY, (30.0, 30.0), "predicted by test"

    def __init__(self, depth: bool = True) -> None:
        self.depth = depth

    def score_map(self) -> torch.Tensor:
        return torch.tensor([[0.1], [0.5], [0.9]]).expand(3, 4)

    def depth_map(self) -> torch.Tensor | None:
        return torch.linspace(1, 2, 4).expand(3, 4) if self.depth else None


def test_photo_depth_and_scores_stand_side_by_side() -> None:
    strip = predicted_strip(Predicted()).astype(int)
    assert strip.shape[0] == 90
    assert np.abs(strip[:, :120] - 128).max() <= 1  # the photo
    depth = strip[45, 126 : 126 + 120].sum(-1)
    assert depth[5] > depth[-5] + 100  # near is bright
    gap = [x for x in range(250, strip.shape[1] - 125) if np.abs(strip[:, x : x + 6] - 24).max() == 0]
    scores = strip[:, gap[-1] + 20 : gap[-1] + 100].sum(-1).mean(-1)
    assert scores[5] + 100 < scores[-5]
    with pytest.raises(ValueError, match="no depth of this photo"):
        predicted_strip(Predicted(depth=False))
