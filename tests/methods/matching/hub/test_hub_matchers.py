"""Matchers of the hub on tiny random checkpoints: matches at the right pixels, to the half."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import metriloc
from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.methods.matching.hub_matchers import MAX_KEYPOINTS, canvases, load_hub_matcher
from metriloc.methods.matching.matchers import Matches
from metriloc.types import View

pytestmark = pytest.mark.hub
Write = Callable[..., Path]
KINDS = (
    ("superpoint", {}),
    ("lightglue", {}),
    ("lightglue", {"stops_early": False}),
    ("superglue", {}),
    pytest.param("efficientloftr", {}, marks=pytest.mark.slow),
)


def view_of(image: torch.Tensor) -> View:
    size = image.shape[2], image.shape[1]
    return View(image, Camera.from_fov(size, 1.0))


def matches_of(folder: Path, view0: View, view1: View) -> Matches:
    matcher = load_hub_matcher(str(folder))
    return matcher.match(view0, matcher.extract(view0), view1, matcher.extract(view1))


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_photo_of_twice_the_size_is_matched_to_the_half_pixel(
    checkpoint: Write, photo: View, kind: str, options: dict[str, Any]
) -> None:
    # pixel u of the photo became pixels 2 u and 2 u + 1: its centre lies at 2 u + 1/2
    double = view_of(photo.image.repeat_interleave(2, 1).repeat_interleave(2, 2))
    found = matches_of(checkpoint(kind, **options), photo, double)
    assert len(found.uv0) >= 5
    apart = found.uv1 - (2 * found.uv0 + 0.5)
    assert float(apart.median(0).values.abs().max()) < 1e-3
    assert bool((found.score >= 0).all() and (found.score <= 1).all())


@pytest.mark.parametrize("kind", ["superpoint", "lightglue"])
def test_a_shift_is_found_between_photos_of_two_shapes(checkpoint: Write, photo: View, kind: str) -> None:
    wide = view_of(photo.image[:, 8:72])  # 128 x 64, on a canvas of 128 x 96 with its last row repeated
    found = matches_of(checkpoint(kind), photo, wide)
    assert len(found.uv0) >= 10
    assert (found.uv0 - found.uv1).median(0).values.tolist() == pytest.approx([0, 8], abs=1e-3)
    assert bool((found.uv1[:, 1] <= 63.5).all()), "nothing of what was put below the photo"


def test_keypoints_are_limited_and_in_the_photo(
    checkpoint: Write, photo: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint("lightglue")
    matcher: Any = load_hub_matcher(str(folder))
    assert matcher.network.keypoint_detector.config.max_keypoints == MAX_KEYPOINTS
    monkeypatch.setattr("metriloc.methods.matching.hub_matchers.MAX_KEYPOINTS", 20)
    local = load_hub_matcher(str(folder)).extract(photo)
    assert 0 < len(local) <= 20
    torch.testing.assert_close(local.descriptors.norm(dim=-1), torch.ones(len(local)))
    assert bool((local.uv >= 0).all() and (local.uv <= torch.tensor([127, 95])).all())


def test_photos_keep_their_shape_on_the_canvas(photo: View) -> None:
    tall = photo.image.transpose(1, 2)
    both = canvases((photo.image, tall), 64)
    assert [tuple(canvas.image.shape) for canvas in both] == [(3, 64, 64)] * 2
    assert both[0].scale.tolist() == [0.5, 0.5] and both[1].scale.tolist() == [0.5, 0.5]
    corner = both[0].to_photo(torch.tensor([[31.5 / 64, 23.5 / 64]]))
    torch.testing.assert_close(corner, torch.tensor([[63.5, 47.5]]))


def test_a_model_that_matches_nothing_is_refused(checkpoint: Write) -> None:
    with pytest.raises(InputError, match="'zoedepth', which matches no photos here: one of superpoint, lightglue"):
        load_hub_matcher(str(checkpoint("zoedepth")))


def test_a_method_with_a_matcher_and_depth_of_the_hub(checkpoint: Write, photo: View) -> None:
    lightglue, depth_pro = checkpoint("lightglue"), checkpoint("depth_pro")
    method = metriloc.load(f"hub:{lightglue}", depth=f"hub:{depth_pro}")
    assert method.weights_id.startswith("lightglue-") and method.config.depth_id.startswith("depth of depth_pro-")
    features = method.extract(replace(photo, name="a.jpg"))
    assert "hub:" in features.view.intrinsics_source and features.view.depth is not None
    estimate = method.relative_pose(features, method.extract(photo))
    assert estimate.details[0].setup.endswith(method.config.depth_id)
    with pytest.raises(InputError, match="names its weights itself"):
        metriloc.load(f"hub:{lightglue}", weights="other")
