"""What stands under the pictures of ``metriloc relpose --out``, and which pictures there are."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from metriloc.backbones.local import LocalFeatures
from metriloc.choose import depth_source
from metriloc.geometry import Camera, Pose
from metriloc.methods.matching.model import FeatureMatching, MatchingConfig
from metriloc.runs.relpose_files import draw_pictures
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View


class Nothing:
    """A matcher that sees two keypoints in every photo."""

    name, weights_id = "nothing", "nothing-1"

    def extract(self, view: View) -> LocalFeatures:
        return LocalFeatures(torch.tensor([[4.0, 4.0], [20.0, 12.0]]), torch.zeros(2, 4), torch.tensor([0.2, 0.7]))


def estimate() -> PoseEstimate:
    details = PairDetails(1.0, Correspondences.empty())
    pose = Pose(torch.eye(3), torch.tensor([0.1, 0.0, 0.0]))
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.5), (None,), (details,))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("file", {"reference": "Depth given, reference"}),
        ("none", {}),
        ("constant:2.5", {role: f"Depth set to 2.5 m, {role}" for role in ("reference", "query")}),
        ("metriloc-small", {role: f"Depth predicted by metriloc-small, {role}" for role in ("reference", "query")}),
    ],
)
def test_only_a_depth_map_from_a_file_is_called_given(source: str, said: dict[str, str]) -> None:
    """The depth that metriloc-small predicts was captioned "Depth map given"."""
    source_of_depth, called = depth_source(source)
    method = FeatureMatching(Nothing(), MatchingConfig(**called), source_of_depth)  # type: ignore[arg-type]
    camera = Camera.from_fov((64, 48), 1.0)
    query = View(torch.rand(3, 48, 64), camera, name="query.jpg")
    reference = dataclasses.replace(query, depth=torch.full((48, 64), 3.0) if source == "file" else None)
    pictures = draw_pictures(estimate(), method.extract(reference), method.extract(query))
    assert {name.split(".")[0]: p.title for name, p in pictures.items() if name.endswith("depth")} == said
