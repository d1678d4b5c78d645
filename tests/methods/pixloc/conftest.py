"""PixLoc's reference data: packed poses and cameras, deterministic weights and photos, the tiny scene."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metriloc.geometry import Camera, Pose

Find = Callable[[str], Path]


@pytest.fixture(scope="session")
def load(shared: Find) -> Callable[[str], dict[str, Tensor]]:
    """``load("lm_runs")`` -> the arrays of that file."""

    def read(name: str) -> dict[str, Tensor]:
        with np.load(shared(f"golden/pixloc/{name}.npz")) as file:
            return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}

    return read


def unpack_pose(data: Tensor) -> Pose:
    return Pose(data[..., :9].unflatten(-1, (3, 3)), data[..., 9:])


def pack_pose(pose: Pose) -> Tensor:
    return torch.cat([pose.R.flatten(-2), pose.t], -1)


def unpack_camera(data: Tensor) -> Camera:
    distortion = torch.zeros(*data.shape[:-1], 5, dtype=data.dtype)
    distortion[..., : data.shape[-1] - 6] = data[..., 6:]
    return Camera(data[..., :2], data[..., 2:4], data[..., 4:6], distortion, "radtan")


def uniform(name: str, count: int) -> np.ndarray:
    """Murmur's finaliser of index and name, as the README of the golden data defines it."""
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + zlib.crc32(name.encode())) & 0xFFFFFFFF
    h ^= h >> 16
    h = (h * 0x85EBCA6B) & 0xFFFFFFFF
    h ^= h >> 13
    h = (h * 0xC2B2AE35) & 0xFFFFFFFF
    h ^= h >> 16
    return h.astype(np.float64) / 2**32


def fill(module: nn.Module) -> Any:
    """Deterministic weights, in double precision."""
    module.double()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            u = uniform(key, value.numel()).reshape(value.shape)
            if key.endswith("dampingnet.const"):
                x = 2 * u - 1
            elif key.endswith("running_var"):
                x = 1 + 0.5 * u
            elif value.ndim == 4:
                x = (2 * u - 1) * np.sqrt(6 / np.prod(value.shape[1:]))
            elif key.endswith("weight"):
                x = 1 + 0.1 * (2 * u - 1)
            else:
                x = 0.1 * (2 * u - 1)
            value.copy_(torch.from_numpy(np.asarray(x)))
    return module


def photo(name: str, height: int, width: int) -> Tensor:
    """A smooth picture [3, H, W], double precision."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = uniform(name, 72).reshape(3, 6, 4)
    out = np.zeros((3, height, width))
    for channel in range(3):
        for a, fx, fy, phase in waves[channel]:
            out[channel] += (0.3 + a) * np.sin(2 * np.pi * ((fx - 0.5) * x + (fy - 0.5) * y) * 0.15 + 2 * np.pi * phase)
    return torch.from_numpy(1 / (1 + np.exp(-out)))


@pytest.fixture(scope="session")
def data() -> SimpleNamespace:
    """The functions above."""
    return SimpleNamespace(
        pose=unpack_pose, pack=pack_pose, camera=unpack_camera, uniform=uniform, fill=fill, photo=photo
    )


@pytest.fixture(scope="session")
def encoded(load: Callable[[str], dict[str, Tensor]]) -> SimpleNamespace:
    """The golden two-view batch, and what the VGG-16 U-Net with deterministic weights makes of it in evaluation mode."""
    from metriloc.backbones.vgg import VGG16
    from metriloc.methods.pixloc import NetworkConfig, PixLocNetwork, TwoViewBatch, UNetConfig

    pair = load("two_view")
    reference, query = (torch.stack([photo(f"{name}{b}", 160, 192) for b in range(2)]) for name in ("tvr", "tvq"))
    batch = TwoViewBatch(
        reference,
        query,
        unpack_camera(pair["ref_camera"]),
        unpack_camera(pair["query_camera"]),
        pair["points3D"],
        unpack_pose(pair["T_r2q_gt"]),
        unpack_pose(pair["T_r2q_init"]),
    )
    network = fill(PixLocNetwork(NetworkConfig(UNetConfig(encoder=VGG16)))).eval()
    with torch.no_grad():
        return SimpleNamespace(batch=batch, reference=network(reference), query=network(query))


@pytest.fixture(scope="session")
def tiny(shared: Find, load: Callable[[str], dict[str, Tensor]]) -> SimpleNamespace:
    """The tiny scene: map, query, references in order, matches, similarities, and an extractor that returns the maps
    that were made for it."""
    pycolmap = pytest.importorskip("pycolmap")
    from metriloc.io.maps import read_map
    from metriloc.methods.pixloc import Extraction, FeaturePyramid, MapMatches
    from metriloc.methods.pixloc.align import learned_damping
    from metriloc.types import View

    folder = shared("golden/pixloc/tiny_scene")
    golden = load("tiny_scene/refine")
    scene = read_map(folder / "sfm_bin", folder / "images")
    name, model, *numbers = (folder / "queries_with_intrinsics.txt").read_text().split()
    camera = Camera.from_colmap(model, int(numbers[0]), int(numbers[1]), [float(n) for n in numbers[2:]])
    query = View(torch.zeros(3, int(numbers[1]), int(numbers[0])), camera, name=name)
    references = [line.split()[1] for line in (folder / "pairs.txt").read_text().splitlines() if line.strip()]
    log: Mapping[str, Any] = json.loads((folder / "hloc_log.json").read_text())
    model3d = pycolmap.Reconstruction()
    model3d.read_binary(str(folder / "sfm_bin"))
    point_of = {point: index for index, point in enumerate(sorted(model3d.points3D))}
    image_of = {image: scene.index(model3d.images[image].name) for image in model3d.images}
    entries = [
        (image_of[log["db"][place]], point_of[point], inlier)
        for (point, places), inlier in zip(log["points3D_to_dbidx"], log["PnP_ret"]["inliers"], strict=True)
        for place in places
        if point in point_of
    ]
    images, points, inliers = (torch.tensor(column) for column in zip(*entries, strict=True))
    matches = MapMatches(images, points, inliers, log["PnP_ret"]["num_inliers"])
    pnp = Pose.from_quaternion(
        torch.tensor(log["PnP_ret"]["qvec"], dtype=torch.float64),
        torch.tensor(log["PnP_ret"]["tvec"], dtype=torch.float64),
    )
    with np.load(folder / "global_descriptors.npz") as file:
        own = file[name.replace("/", "|")]
        similarity = {n: float(own @ file[n.replace("/", "|")]) for n in scene.names}

    class MadeFeatures:
        """Maps from the golden file; ``scale4`` at half resolution, ``scale1`` at full."""

        identity = "made by hand"
        num_levels = 3
        calls = 0

        def damping(self, level: int) -> Tensor:
            return learned_damping(golden[f"damping_const_{level}"])

        def __call__(self, view: View, image_scale: int) -> Extraction:
            self.calls += 1
            key = view.name.rsplit("images/", 1)[-1]
            at = f"dense/{key}/scale{image_scale}"
            features = tuple(golden[f"{at}/features_{level}"][None] for level in range(3))
            confidences = tuple(golden[f"{at}/confidence_{level}"][None] for level in range(3))
            factors = [golden[f"dense/scale{image_scale}/scale_{level}"].tolist() for level in range(3)]
            return Extraction(FeaturePyramid(features, confidences), tuple((x, y) for x, y in factors))

    return SimpleNamespace(
        folder=folder,
        golden=golden,
        scene=scene,
        query=query,
        references=references,
        matches=matches,
        similarity=similarity,
        pnp=pnp,
        point_of=point_of,
        image_of=image_of,
        extractor=MadeFeatures,
    )
