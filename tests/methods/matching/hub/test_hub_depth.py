"""Depth of hub models in metres: each architecture against its formula, on tiny random checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.io import InputError
from metriloc.methods.matching.depth import constant_depth, with_depth
from metriloc.methods.matching.hub_depth import COMPLETED, FOCAL_SIGMA, PREDICTED, HubDepth
from metriloc.methods.matching.hub_models import find_hub_model
from metriloc.methods.matching.metres import DEPTH_ERRORS
from metriloc.types import View

pytestmark = pytest.mark.hub
Write = Callable[..., Path]


def source_of(folder: Path) -> HubDepth:
    return HubDepth(find_hub_model(str(folder)))


def enlarged(cells: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(cells[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


@torch.no_grad()
def test_metric_depth_anything_is_in_metres_of_its_range(checkpoint: Write, photo: View) -> None:
    source = source_of(checkpoint("depth_anything", max_depth=20))
    depth = source(photo)
    inputs = source.processor(images=(photo.image.permute(1, 2, 0) * 255).round().byte().numpy(), return_tensors="pt")
    cells = source.network(**inputs).predicted_depth[0]
    assert depth is not None and depth.shape == (96, 128) and source.name == PREDICTED
    assert float(depth.std()) > 0.1 and float(depth.min()) > 0 and float(depth.max()) <= 20
    torch.testing.assert_close(depth, enlarged(cells, (96, 128)), rtol=1e-4, atol=1e-4)
    assert source.seen(photo).camera is photo.camera, "nothing is told of the focal length"


def test_relative_depth_is_refused_by_name(checkpoint: Write) -> None:
    with pytest.raises(InputError, match="predicts relative depth, which has no metres") as caught:
        source_of(checkpoint("depth_anything", kind="relative"))
    assert "depth_anything" in str(caught.value) and "\n" not in str(caught.value)


@torch.no_grad()
def test_zoe_depth_is_cut_out_of_its_border(checkpoint: Write, photo: View) -> None:
    # the border is about 3 sqrt(side / 2) pixels: 20 of 96, 24 of 128
    source = source_of(checkpoint("zoedepth"))
    depth = source(photo)
    inputs = source.processor(images=(photo.image.permute(1, 2, 0) * 255).round().byte().numpy(), return_tensors="pt")
    padded = enlarged(source.network(**inputs).predicted_depth[0], (96 + 2 * 20, 128 + 2 * 24))
    assert depth is not None and depth.shape == (96, 128)
    torch.testing.assert_close(depth, padded[20:-20, 24:-24], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_depth_pro_tells_metres_and_the_focal_length(checkpoint: Write, photo: View) -> None:
    source = source_of(checkpoint("depth_pro", field_of_view=60.0))
    seen = source.seen(photo)
    focal = 64 / math.tan(math.radians(30))
    torch.testing.assert_close(seen.camera.f, torch.tensor([focal, focal]), rtol=1e-4, atol=0)
    assert torch.equal(seen.camera.c, photo.camera.c)
    assert "hub:" in seen.intrinsics_source and "111 px" in seen.intrinsics_source and seen.focal_sigma == FOCAL_SIGMA
    assert seen.focal_is_guessed
    values = F.interpolate((photo.image[None] - 0.5) / 0.5, size=(64, 64), mode="bilinear", align_corners=False)
    raw = source.network(pixel_values=values).predicted_depth[0]
    metres = 1 / enlarged(raw * 128 / focal, (96, 128)).clamp(1e-4, 1e4)
    assert seen.depth is not None
    torch.testing.assert_close(seen.depth, metres, rtol=1e-3, atol=1e-5)


def test_depth_pro_takes_a_focal_length_that_is_known(checkpoint: Write, photo: View) -> None:
    source = source_of(checkpoint("depth_pro", field_of_view=60.0))
    known = replace(photo, focal_sigma=0.0, intrinsics_source="exif")
    seen, guessed = source.seen(known), source.seen(photo)
    assert seen.camera is known.camera and seen.intrinsics_source == "exif" and seen.focal_sigma == 0
    assert seen.depth is not None and guessed.depth is not None
    inner = (guessed.depth > 1e-3) & (guessed.depth < 1e3)
    ratio = (seen.depth / guessed.depth)[inner]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 100 / (64 / math.tan(math.radians(30)))))


def test_depth_pro_without_its_head_keeps_the_guess(checkpoint: Write, photo: View) -> None:
    seen = source_of(checkpoint("depth_pro", field_of_view=None)).seen(photo)
    assert seen.camera is photo.camera and seen.intrinsics_source == "a guess" and seen.depth is not None


def test_a_coarse_map_is_made_fine_in_its_range(checkpoint: Write, photo: View) -> None:
    source = source_of(checkpoint("prompt_depth_anything"))
    assert source(photo) is None, "without a depth map it knows no metres"
    coarse = torch.linspace(1.0, 3.0, 12)[:, None].expand(12, 16).clone()
    whole, holes = source(replace(photo, depth=coarse)), coarse.clone()
    holes[2:4, 5:9] = 0
    filled = source(replace(photo, depth=holes))
    assert whole is not None and filled is not None and whole.shape == (96, 128)
    # metres are those of the map from its least on: a hole that counted as zero would be that
    assert float(whole.min()) == pytest.approx(1.0, abs=1e-4) and float(whole.max()) > 1.1
    assert float(filled.min()) == pytest.approx(1.0, abs=1e-4)
    fine = source(replace(photo, depth=coarse.repeat_interleave(60, 0).repeat_interleave(60, 1)))
    assert fine is not None and float(fine.min()) == pytest.approx(1.0, abs=1e-4)
    for known in (slice(None), slice(1)):  # of one value; known at the upper left alone
        flat = torch.zeros(96, 128)
        flat[known, known] = 2.0
        found = source(replace(photo, depth=flat))
        assert found is not None
        torch.testing.assert_close(found, torch.full((96, 128), 2.0))
    assert source.name == COMPLETED and COMPLETED in DEPTH_ERRORS and PREDICTED in DEPTH_ERRORS


def test_what_is_not_finite_or_behind_is_unknown(checkpoint: Write, photo: View) -> None:
    source = source_of(checkpoint("depth_anything"))
    source.network.head.max_depth = float("nan")
    depth = source(photo)
    assert depth is not None and bool((depth == 0).all())


def test_plain_sources_leave_the_camera(photo: View) -> None:
    seen = with_depth(constant_depth(2.0), photo)
    assert seen.camera is photo.camera and seen.depth is not None and bool((seen.depth == 2).all())
    assert with_depth(lambda view: None, photo) is photo
