"""Fixtures of the NRE tests: golden files as tensors, and a scene with planted maps."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.methods.nre.maps import from_log_probability


@pytest.fixture()
def golden(shared) -> Callable[[str], dict[str, torch.Tensor]]:
    """``golden("b_nre_maps")`` -> tensors by name."""

    def load(name: str) -> dict[str, torch.Tensor]:
        with np.load(shared(f"golden/nre/{name}.npz")) as data:
            return {key: torch.from_numpy(data[key]) for key in data.files}

    return load


@pytest.fixture()
def camera_of() -> Callable[..., Camera]:
    """Camera of a golden file: K and (k1, k2, p1, p2) of a map of (h, w) cells, float64."""

    def build(data: dict[str, torch.Tensor], hw: tuple[int, int]) -> Camera:
        K, distortion = data["K"].double(), data["dist"].double()
        if not bool(distortion.any()):
            return Camera.from_K(K, (hw[1], hw[0]))
        return Camera.from_K(K, (hw[1], hw[0]), torch.cat([distortion, distortion.new_zeros(1)]), "radtan")

    return build


@pytest.fixture()
def scene() -> Callable[..., SimpleNamespace]:
    """A camera, points, the true pose and maps with a peak at each true reprojection (a share of them elsewhere)."""

    def build(n: int = 80, outliers: float = 0.3, seed: int = 0, distortion: tuple[float, ...] | None = None):
        generator = torch.Generator().manual_seed(seed)
        w, h = 50, 34
        size, f = torch.tensor([w, h]).double(), torch.tensor([45.0, 44.0]).double()
        terms = None if distortion is None else torch.tensor(distortion).double()
        camera = Camera(size, f, (size - 1) / 2, terms, "pinhole" if terms is None else "radtan")
        xyz = (torch.rand(n, 3, generator=generator).double() - 0.5) * torch.tensor([5.0, 3.4, 5.0]).double()
        pose = Pose(so3_exp(torch.tensor([0.1, -0.2, 0.05]).double()), torch.tensor([0.2, -0.1, 8.0]).double())
        uv, seen = camera.project(pose.transform(xyz))
        assert bool(seen.all())
        wrong = torch.rand(n, generator=generator) < outliers
        peaks = torch.where(wrong[:, None], torch.rand(n, 2, generator=generator).double() * (size - 1), uv)
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        squared = (x - peaks[:, 0, None, None]).square() + (y - peaks[:, 1, None, None]).square()
        logits = 9 * torch.exp(-squared / 3) + torch.randn(n, h, w, generator=generator)
        log_c = logits.flatten(1).log_softmax(-1).unflatten(-1, (h, w)).float()
        return SimpleNamespace(
            camera=camera, xyz=xyz, pose=pose, uv=uv, wrong=wrong, log_c=log_c, maps=from_log_probability(log_c)
        )

    return build
