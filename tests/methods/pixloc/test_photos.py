"""From photos on disk to a pose: a textured plane seen four times, aligned by its colours alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.methods.pixloc import (
    AlignConfig,
    CostConfig,
    Extraction,
    GaussianConfig,
    GaussianPyramid,
    LocalizeConfig,
    PixLoc,
    ResizeConfig,
    RobustCost,
)
from metriloc.types import SfmMap, View

WIDTH, HEIGHT, FOCAL, DEPTH, STEP = 240, 180, 220.0, 4.0, 6


class Colors:
    """The photo as its own features."""

    num_levels = 2

    def __init__(self, size: int | None) -> None:
        self.resize = ResizeConfig(size, antialias=True)
        self.pyramid = GaussianPyramid(GaussianConfig((1, 4)))

    @property
    def identity(self) -> str:
        return f"colours {self.resize}"

    def damping(self, level: int) -> Tensor | None:
        return None

    def __call__(self, view: View, image_scale: int) -> Extraction:
        width, height = self.resize.target(*view.size, image_scale)
        image = torch.nn.functional.interpolate(view.image[None], (height, width), mode="bilinear", antialias=True)
        scales = [(width / view.size[0] / stride, height / view.size[1] / stride) for stride in self.pyramid.strides]
        return Extraction(self.pyramid(image), tuple(scales))


def make_scene(folder: Path) -> tuple[SfmMap, View, Pose]:
    """Three photos of the map, shifted by whole pixels along a plane, a query between them, and its true pose."""
    from PIL import Image

    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(1, 3, 24, 32, generator=generator)
    canvas = torch.nn.functional.interpolate(noise, (HEIGHT + 60, WIDTH + 60), mode="bicubic").clamp(0, 1)[0]
    camera = Camera(
        torch.tensor([float(WIDTH), float(HEIGHT)]).double(),
        torch.tensor([FOCAL, FOCAL]).double(),
        torch.tensor([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]).double(),
    )

    def pose(shift: int) -> Pose:
        return Pose(torch.eye(3).double(), torch.tensor([-shift * DEPTH / FOCAL, 0.0, 0.0]).double())

    def photo(shift: int) -> Tensor:
        return canvas[:, 30 : 30 + HEIGHT, 30 + shift : 30 + shift + WIDTH]

    names = []
    for number, shift in enumerate((-STEP, 0, 2 * STEP)):
        names.append(f"{number}.png")
        array = (photo(shift).permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(np.ascontiguousarray(array)).save(folder / names[-1])
    uv = torch.tensor([40.0, 20.0]) + torch.rand(300, 2, generator=generator).double() * torch.tensor([160.0, 140.0])
    xyz = camera.unproject(uv)[0] * DEPTH
    scene = SfmMap(
        tuple(names),
        (camera,) * 3,
        Pose.stack([pose(shift) for shift in (-STEP, 0, 2 * STEP)]),
        xyz,
        torch.arange(3).repeat_interleave(300),
        torch.arange(300).repeat(3),
        torch.zeros(900, 2).double(),
        folder,
    )
    return scene, View(photo(STEP), camera, name="query"), pose(STEP)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "image_scales"), [(None, (1,)), (120, (1,)), (None, (2, 1)), (200, (4, 1))])
@pytest.mark.parametrize("average", [False, True])
def test_recovers_the_pose(size: int | None, image_scales: tuple[int, ...], average: bool, tmp_path: Path) -> None:
    scene, query, truth = make_scene(tmp_path)
    loop = AlignConfig(
        CostConfig(RobustCost(scale=0.5), pad=2), damping="fixed", stop_translation=1e-4, stop_rotation_deg=1e-3
    )
    config = LocalizeConfig(image_scales=image_scales, average=average, normalize_features=False, use_confidences=False)
    found = PixLoc(Colors(size), loop, config).localize(query, scene, scene.names)
    details = found.localization[0]
    assert found.success and found.reasons == (None,), details.messages
    assert details.references == scene.names and details.num_points >= 280
    start = (details.stages[0].cam_from_world @ truth.inverse()).distance()
    pixel = DEPTH / FOCAL
    assert start > 10 * pixel
    difference = found.pose @ truth.inverse()
    # what a tenth of a pixel at full resolution is; half a pixel astray at any scale would show
    assert difference.distance() < 0.1 * pixel and difference.angle() < 0.1 / FOCAL
    assert details.stages[-1].cost < details.stages[0].cost or len(image_scales) > 1
