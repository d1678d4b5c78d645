"""What a View refuses: values that are not in 0..1, which every method would misread without a word."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera
from metriloc.types import QueryNeeds, View, needs_of


def view_of(image: torch.Tensor) -> View:
    return View(image, Camera.from_fov((image.shape[2], image.shape[1]), 1.0), name="a.jpg")


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (48, 64), (129, 200)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values_up_to_255_are_refused(size: tuple[int, int], dtype: torch.dtype) -> None:
    image = torch.linspace(0.2, 1, 3 * size[0] * size[1]).reshape(3, *size).to(dtype)
    view = view_of(image)
    with pytest.raises(ValueError, match=r"must be in 0..1, got values from .* to 2.* \('a.jpg'\): divide by 255"):
        view_of(255 * image)
    with pytest.raises(ValueError, match=r"must be in 0..1"):
        dataclasses.replace(view, image=255 * image)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=rf"floating point in 0..1, got {dtype} \('a.jpg'\)"):
        view_of(torch.ones(3, 4, 6).to(dtype))


def test_a_photo_of_the_range_that_networks_normalize_to_is_refused() -> None:
    normalized = (torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)) - 0.45) / 0.225
    with pytest.raises(ValueError, match=r"must be in 0..1, got values from -2"):
        view_of(normalized)


def test_overshoot_and_odd_values_are_kept() -> None:
    for value in (-0.2, 1.2, float("nan")):
        view_of(torch.full((3, 4, 6), value))
    view_of(torch.zeros(3, 0, 6))


def test_the_check_looks_at_few_pixels() -> None:
    image = torch.zeros(3, 3000, 4000)
    image[:, 1, 1] = 255.0  # one bright pixel among twelve million is not worth reading them all
    view_of(image)
    grid = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3000, 40)).astype(np.float32))
    with pytest.raises(ValueError, match=r"must be in 0..1"):
        view_of(grid)


def test_what_a_localizer_needs_is_the_usual_where_it_says_nothing() -> None:
    class Says:
        needs = QueryNeeds(start=True)

    assert needs_of(Says()) is Says.needs and needs_of(object()) == QueryNeeds()
