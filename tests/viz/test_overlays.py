"""Overlays and the match picture: colours where they belong, nothing where there is nothing."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.types import Correspondences
from metriloc.viz import (
    depth_overlay,
    depth_picture,
    encode_jpeg,
    encode_png,
    match_picture,
    score_overlay,
    shrink,
)
from metriloc.viz.color_bars import decimals_of
from metriloc.viz.overlays import _PHOTO, score_range


def correspondences(uv0: list, uv1: list, probability: list | None = None) -> Correspondences:
    nan = torch.full((len(uv0),), torch.nan)
    p = torch.tensor(probability if probability is not None else [0.5] * len(uv0))
    return Correspondences(torch.tensor(uv0).reshape(-1, 2), torch.tensor(uv1).reshape(-1, 2), nan, nan, p)


def test_score_overlay_covers_the_crop_only() -> None:
    image = torch.full((3, 33, 47), 0.5)
    score = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    picture = score_overlay(image, score, (14, 14), bar=False)
    assert picture.shape == (33, 47, 3) and picture.dtype == np.uint8
    assert (picture[28:] == 128).all() and (picture[:, 42:] == 128).all()
    assert (picture[:28, :42] != 128).any(-1).all()
    barred = score_overlay(image, score, (14, 14))
    assert (barred[:, :47] == picture).all() and barred.shape[1] > 47 + 40, "the bar stands beside the photo"


@pytest.mark.parametrize("low, span", [(0.0, 1.0), (0.9, 0.05), (-7.0, 1e-4), (0.0, 1e-9), (1e4, 5e3)])
def test_colors_of_scores_are_fitted_to_the_range_of_the_map(low: float, span: float) -> None:
    """A narrow range far from zero was one plain green field."""
    share = torch.linspace(0, 1, 64).reshape(8, 8).double()
    picture = score_overlay(torch.zeros(3, 40, 40), low + span * share, (5, 5), bar=False)
    centers = picture[2::5, 2::5].reshape(-1, 3).astype(int)
    assert len({tuple(color) for color in centers}) > 40
    brightness = centers @ np.array([0.299, 0.587, 0.114])
    assert brightness[-1] - brightness[0] > 100 and (np.diff(brightness) > -2).all()


def test_a_few_peaks_do_not_leave_all_else_in_one_color() -> None:
    score = torch.linspace(0, 0.01, 400).reshape(20, 20)
    score[3, 3] = 1.0
    assert score_range(score.flatten())[1] < 0.011
    alone = torch.zeros(20, 20)
    alone[3, 3] = 1.0
    assert score_range(alone.flatten()) == (0.0, 1.0)


@pytest.mark.parametrize(
    "low, high, ticks, decimals",
    [(0, 1, 5, 2), (0.90, 0.95, 5, 3), (2.0, 9.0, 7, 1), (0, 1500, 5, 0), (3.0, 3.0, 2, 3)],
)
def test_numbers_of_a_bar_tell_its_ticks_apart(low: float, high: float, ticks: int, decimals: int) -> None:
    assert decimals_of(low, high, ticks) == decimals
    words = {f"{v:.{decimals}f}" for v in np.linspace(low, high, ticks)}
    assert len(words) == (ticks if high > low else 1)


def test_a_bar_has_the_colors_of_the_picture() -> None:
    score = torch.tensor([[0.0, 0.25, 1.0]])
    picture = score_overlay(torch.zeros(3, 100, 300), score, (100, 100))
    bar = picture[:, 300:].reshape(-1, 3).astype(float)
    for x in (50, 150, 250):
        color = picture[50, x] / (1 - _PHOTO)
        assert np.abs(bar - color).max(1).min() < 6


@pytest.mark.parametrize("value", [0.3, float("nan"), float("inf")])
def test_a_constant_map_has_one_color_and_a_broken_one_leaves_the_photo(value: float) -> None:
    picture = score_overlay(torch.full((3, 10, 10), 0.2), torch.full((2, 2), value), (5, 5), bar=False)
    assert (picture == picture[0, 0]).all() and (picture == 51).all() == (value != 0.3)
    assert score_overlay(torch.full((3, 40, 40), 0.2), torch.full((2, 2), value), (20, 20)).shape[1] > 80


def test_score_overlay_rejects_a_map_larger_than_the_photo() -> None:
    with pytest.raises(ValueError, match="42x28 pixels, more than the photo's 40x40"):
        score_overlay(torch.zeros(3, 40, 40), torch.zeros(2, 3), (14, 14))
    with pytest.raises(ValueError, match=r"score must have shape \[h, w\]"):
        score_overlay(torch.zeros(3, 40, 40), torch.zeros(1, 2, 3), (14, 14))
    with pytest.raises(ValueError, match="a cell must be at least 1 pixel wide and high"):
        score_overlay(torch.zeros(3, 40, 40), torch.zeros(2, 3), (0, 0))


def test_depth_overlay_near_is_brighter_than_far_and_unknown_is_black() -> None:
    depth = torch.linspace(1.0, 9.0, 10).expand(4, 10).clone()
    depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = 0.0, torch.nan, torch.inf, -2.0
    picture = depth_overlay(depth, (6, 6), bar=False)
    assert picture.shape == (24, 60, 3)
    brightness = picture[15].astype(int).sum(-1)
    assert (np.diff(brightness) <= 0).all() and brightness[0] > brightness[-1] + 300
    assert (picture[:6, :24] == 0).all()
    assert picture[:6, 24:].any(-1).all() and picture[6:].any(-1).all(), "what is known must not look unknown"


def test_depth_overlay_is_not_darkened_or_brightened_beside_a_hole() -> None:
    depth = torch.full((3, 9), 4.0)
    depth[:, 6:] = 8.0
    whole = depth_overlay(depth, (4, 4), bar=False)
    depth[1, 1] = 0.0
    holed = depth_overlay(depth, (4, 4), bar=False)
    hole = np.zeros((12, 36), bool)
    hole[4:8, 4:8] = True
    assert (holed[hole] == 0).all() and (np.abs(holed[~hole].astype(int) - whole[~hole]) <= 1).all()


def test_depth_overlay_is_padded_to_the_photo_and_never_stretched() -> None:
    depth = torch.linspace(1, 5, 6).reshape(2, 3)
    small, padded = depth_overlay(depth, (14, 14), bar=False), depth_overlay(depth, (14, 14), size=(47, 33), bar=False)
    assert padded.shape == (33, 47, 3)
    assert (padded[:28, :42] == small).all() and not padded[28:].any() and not padded[:, 42:].any()
    with pytest.raises(ValueError, match=r"size \(40, 40\) is smaller"):
        depth_overlay(depth, (14, 14), size=(40, 40))


def test_depth_picture_has_a_bar_with_numbers() -> None:
    depth = torch.linspace(1, 5, 120 * 80).reshape(120, 80)
    picture = depth_picture(depth)
    bar = picture[:, 80:]
    assert picture.shape[0] == 120 and bar.shape[1] >= 40
    assert (bar[:, 20:] > 200).all(-1).any(), "no text"
    assert bar[15, 8].sum() > bar[-15, 8].sum()


@pytest.mark.parametrize("depth", [torch.zeros(30, 20), torch.full((30, 20), torch.nan), torch.full((30, 20), 3.0)])
def test_depth_picture_of_nothing_and_of_a_wall(depth: torch.Tensor) -> None:
    picture = depth_picture(depth)
    assert picture[:, :20].any() == bool((depth > 0).any())


def test_percentiles_are_checked() -> None:
    with pytest.raises(ValueError, match="percentiles"):
        depth_picture(torch.ones(4, 4), percentiles=(85.0, 2.0))


def test_a_missing_matplotlib_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "metriloc\[viz\]"'):
        depth_picture(torch.ones(4, 4))
    score_overlay(torch.zeros(3, 4, 4), torch.zeros(2, 2), (2, 2))
    match_picture(torch.zeros(3, 9, 9), torch.zeros(3, 9, 9), correspondences([[1.0, 1.0]], [[2.0, 2.0]]))


def test_match_picture_draws_lines_at_the_right_pixels() -> None:
    image0, image1 = torch.zeros(3, 100, 80), torch.zeros(3, 100, 120)
    picture = match_picture(image0, image1, correspondences([[70.0, 20.0]], [[30.0, 60.0]]))
    gap = picture.shape[1] - 80 - 120
    start, end = np.array([70.0, 20.0]), np.array([80 + gap + 30.0, 60.0])
    lit = np.argwhere(picture[:100].max(-1) > 120)[:, ::-1]
    assert len(lit) > 30
    along = (end - start) / np.linalg.norm(end - start)
    off = (lit - start) @ np.array([-along[1], along[0]])
    position = (lit - start) @ along
    assert np.abs(off).max() < 3 and -3 < position.min() < 1 and np.linalg.norm(end - start) - 1 < position.max()
    # the end dots are centred on the keypoints, to a fraction of a pixel
    for point in (start, end):
        block = (
            picture[int(point[1]) - 6 : int(point[1]) + 7, int(point[0]) - 1 : int(point[0]) + 2].max(-1).astype(float)
        )
        assert abs((block.sum(1) * np.arange(-6, 7)).sum() / block.sum()) < 1.0
        assert picture[int(point[1]), int(point[0])].max() > 200


def test_match_picture_brings_photos_of_different_size_to_one_height() -> None:
    image0, image1 = torch.zeros(3, 50, 40), torch.zeros(3, 100, 100)
    picture = match_picture(image0, image1, correspondences([[10.0, 10.0]], [[90.0, 90.0]]), height=400)
    gap = picture.shape[1] - 80 - 100
    assert gap > 0 and picture.shape[0] > 100
    # (10, 10) of a photo enlarged twice is at 2 * 10.5 - 0.5
    assert picture[20:22, 20:22].max() > 200 and picture[90, 80 + gap + 90].max() > 200


def test_match_picture_draws_the_most_probable_and_leaves_out_what_is_not_finite() -> None:
    image = torch.zeros(3, 60, 60)
    uv = [[30.0, 10.0], [30.0, 30.0], [30.0, 50.0], [torch.nan, 5.0]]
    one = match_picture(image, image, correspondences(uv, uv, [0.1, 0.9, float("nan"), 1.0]), max_lines=1)
    assert one[30, 30].max() > 150 and not one[10, 30].any() and not one[50, 30].any()
    none = match_picture(image, image, Correspondences.empty())
    assert not none[:60, :60].any() and none[60:].max() > 200, "the caption says that there are none"


@pytest.mark.parametrize("color", ["position", "probability"])
def test_match_colors_tell_lines_apart(color: str) -> None:
    image = torch.zeros(3, 60, 60)
    matches = correspondences([[10.0, 10.0], [50.0, 50.0]], [[10.0, 10.0], [50.0, 50.0]], [0.1, 1.0])
    picture = match_picture(image, image, matches, color=color).astype(int)  # type: ignore[arg-type]
    assert np.abs(picture[10, 10] - picture[50, 50]).max() > 60


def test_match_picture_rejects_wrong_use() -> None:
    image, none = torch.zeros(3, 9, 9), Correspondences.empty()
    with pytest.raises(ValueError, match="max_lines must be >= 0"):
        match_picture(image, image, none, max_lines=-1)
    with pytest.raises(ValueError, match="colour must be 'position' or 'probability', got 'red'"):
        match_picture(image, image, none, color="red")  # type: ignore[arg-type]


def test_inputs_are_not_modified() -> None:
    image, score, depth = torch.rand(3, 20, 20), torch.rand(2, 2), torch.rand(2, 2)
    before = [t.clone() for t in (image, score, depth)]
    score_overlay(image, score, (10, 10))
    depth_overlay(depth, (10, 10))
    assert all(torch.equal(a, b) for a, b in zip(before, (image, score, depth), strict=True))


def test_files_in_memory() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(picture)))) == picture).all()
    jpeg = Image.open(io.BytesIO(encode_jpeg(picture)))
    assert jpeg.format == "JPEG" and jpeg.size == (30, 20)
    assert shrink(picture, 15).shape == (10, 15, 3) and shrink(picture, 30) is picture
    with pytest.raises(ValueError, match="uint8"):
        encode_png(picture.astype(float))


def test_cells_of_a_reduced_photo_cover_all_of_it() -> None:
    """360 pixels of 21 cells and 270 of 16: cells of 17.14 x 16.875 pixels."""
    score = torch.zeros(16, 21)
    score[15, 20] = 1.0
    picture = score_overlay(torch.zeros(3, 270, 360), score, (360 / 21, 270 / 16), bar=False)
    assert picture.shape == (270, 360, 3)
    assert picture[262, 351, 1] > 100 and picture[:240, :, 1].max() < 10
    depth = depth_overlay(torch.full((16, 21), 2.0), (360 / 21, 270 / 16), (360, 270), bar=False)
    assert (depth.reshape(-1, 3).max(1) > 0).all()
