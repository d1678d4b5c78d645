"""Camera and distortion: golden values, pycolmap, finite differences with every term on, the fold, the inverse."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metriloc.geometry import Camera, J_distort, distort, undistort

RADTAN = torch.tensor([-0.21, 0.05, 0.002, -0.003, 0.01], dtype=torch.float64)
FISHEYE = torch.tensor([0.02, -0.01, 0.004, -0.001], dtype=torch.float64)
COLMAP = {
    "SIMPLE_PINHOLE": [500.0, 320.5, 240.25],
    "PINHOLE": [500.0, 510.0, 320.5, 240.25],
    "SIMPLE_RADIAL": [500.0, 320.5, 240.25, -0.1],
    "RADIAL": [500.0, 320.5, 240.25, -0.1, 0.02],
    "OPENCV": [500.0, 510.0, 320.5, 240.25, -0.1, 0.01, 0.002, -0.003],
    "FULL_OPENCV": [500.0, 510.0, 320.5, 240.25, -0.1, 0.01, 0.002, -0.003, 0.005, 0.0, 0.0, 0.0],
    "OPENCV_FISHEYE": [300.0, 310.0, 320.5, 240.25, 0.02, -0.01, 0.004, -0.001],
}


def golden_cases(golden: Any) -> list[str]:
    return sorted(key.split("/")[0] for key in golden.files if key.endswith("/model"))


def test_golden(shared: Callable[[str], Path]) -> None:
    golden = np.load(shared("golden/pixloc/camera.npz"))
    cases = golden_cases(golden)
    assert len(cases) == 11
    xyz = torch.from_numpy(golden["p3d"]) if "p3d" in golden.files else None
    for name in cases:
        size = golden[f"{name}/data"][:2]
        camera = Camera.from_colmap(str(golden[f"{name}/model"]), *size, golden[f"{name}/colmap_params"])
        check_golden_case(golden, name, camera, xyz if xyz is not None else points_of(golden))


def points_of(golden: Any) -> Tensor:
    (key,) = [k for k in golden.files if "/" not in k and golden[k].shape == (200, 3)]
    return torch.from_numpy(golden[key])


def check_golden_case(golden: Any, name: str, camera: Camera, xyz: Tensor) -> None:
    uv, valid = camera.project(xyz, validity="pixloc")
    assert np.allclose(uv, golden[f"{name}/world2image"], rtol=1e-9, atol=1e-6), name
    assert np.array_equal(valid, golden[f"{name}/world2image_valid"]), name
    J, in_front = camera.J_project(xyz)
    assert np.allclose(J, golden[f"{name}/J_world2image"], rtol=1e-9, atol=1e-6), name
    assert np.array_equal(in_front, golden[f"{name}/project_valid"]), name
    m = torch.from_numpy(golden[f"{name}/project"])
    bent, inside = distort(m, camera.distortion, camera.model, validity="pixloc")
    assert np.allclose(bent, golden[f"{name}/distort"], rtol=1e-9, atol=1e-9), name
    assert np.array_equal(inside, golden[f"{name}/distort_valid"]), name
    assert np.allclose(J_distort(m, camera.distortion, camera.model), golden[f"{name}/J_distort"], rtol=1e-9), name
    for key, changed in (
        ("scale_0.25", camera.scale(0.25)),
        ("scale_xy", camera.scale((0.5, 0.3))),
        ("crop", camera.crop((10, 20), (300, 200))),
    ):
        data = golden[f"{name}/{key}"]
        assert np.allclose(torch.cat([changed.size, changed.f, changed.c]), data[:6], atol=1e-12), (name, key)
    small, seen = camera.scale(1 / 16).project(xyz, validity="pixloc")
    assert np.allclose(small, golden[f"{name}/world2image_scale16"], rtol=1e-9, atol=1e-6), name
    assert np.array_equal(seen, golden[f"{name}/valid_scale16"]), name
    single = camera.to(torch.float32)
    expected = golden[f"{name}/world2image_f32"]
    near = golden[f"{name}/world2image_valid"]
    assert np.allclose(single.project(xyz.float())[0][near], expected[near], rtol=1e-4, atol=1e-3), name
    jacobian = golden[f"{name}/J_world2image_f32"][near]
    assert np.allclose(single.J_project(xyz.float())[0][near], jacobian, atol=1e-4 * np.abs(jacobian).max()), name


def test_golden_batch_and_in_image(shared: Callable[[str], Path]) -> None:
    golden = np.load(shared("golden/pixloc/camera.npz"))
    data = torch.from_numpy(golden["batch/data"])
    zero = torch.zeros(2, 1, dtype=torch.float64)
    camera = Camera(data[:, :2], data[:, 2:4], data[:, 4:6], torch.cat([data[:, 6:], zero], 1), "radtan")
    xyz = torch.from_numpy(golden["batch/p3d"])
    uv, valid = camera.project(xyz, validity="pixloc")
    assert np.allclose(uv, golden["batch/world2image"], rtol=1e-9, atol=1e-6)
    assert np.array_equal(valid, golden["batch/valid"])
    assert np.allclose(camera.J_project(xyz)[0], golden["batch/J"], rtol=1e-9, atol=1e-6)
    border = Camera.from_fov((640, 480), 1.0).in_image(torch.from_numpy(golden["in_image_pts"]))
    assert np.array_equal(border, golden["in_image_640x480"])


@pytest.mark.parametrize("model", COLMAP)
def test_projection_agrees_with_pycolmap(model: str, generator: torch.Generator) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=COLMAP[model])
    camera = Camera.from_colmap(model, 640, 480, COLMAP[model])
    xyz = torch.randn(200, 3, dtype=torch.float64, generator=generator) * torch.tensor([0.6, 0.5, 0.2])
    xyz[:, 2] += 2
    uv, _ = camera.project(xyz)
    assert np.allclose(uv + 0.5, theirs.img_from_cam(xyz.numpy()), atol=1e-8)
    ray, valid = camera.unproject(uv)
    assert bool(valid.all())
    assert np.allclose(ray[:, :2], theirs.cam_from_img(uv.numpy() + 0.5), atol=1e-6)
    assert np.allclose(ray, xyz / xyz[:, 2:], atol=1e-8)


@pytest.mark.parametrize(("model", "parameters"), [("radtan", RADTAN), ("fisheye", FISHEYE), ("pinhole", RADTAN[:0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jacobians_with_every_term_on(model: Any, parameters: Tensor, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    m = 0.5 * torch.randn(20, 2, dtype=torch.float64, generator=generator)
    m[0] = 0  # the centre, where the fisheye divides by the radius
    m[1] = 1e-8
    numeric = torch.stack(
        [torch.autograd.functional.jacobian(lambda x: distort(x[None], parameters, model)[0][0], x) for x in m]
    )
    found = J_distort(m.to(dtype), parameters.to(dtype), model)
    assert torch.allclose(found.double(), numeric, atol=1e-12 if dtype == torch.float64 else 2e-6)
    camera = Camera(
        *(torch.tensor(x, dtype=torch.float64) for x in ([640, 480], [500, 510], [320, 240])), parameters, model
    )
    xyz = torch.cat([m, torch.ones(20, 1, dtype=torch.float64)], 1) * 2.5
    numeric = torch.stack([torch.autograd.functional.jacobian(lambda x: camera.project(x[None])[0][0], x) for x in xyz])
    assert torch.allclose(
        camera.to(dtype).J_project(xyz.to(dtype))[0].double(), numeric, atol=1e-9 if dtype == torch.float64 else 2e-2
    )


FOLDS = [  # k1, k2, true radius of the fold, radius at which the published PixLoc stops
    (-0.2, 0.0, 1.29, math.inf),
    (0.2, 0.0, math.inf, 1.29),
    (-0.4, 0.05, 1.04, 1.93),
    (-0.3, -0.05, 0.94, math.inf),
]


@pytest.mark.parametrize(("k1", "k2", "correct", "published"), FOLDS)
def test_validity_ends_at_the_fold(k1: float, k2: float, correct: float, published: float) -> None:
    parameters = torch.tensor([k1, k2, 0, 0, 0], dtype=torch.float64)
    radius = torch.linspace(0, 3, 3001, dtype=torch.float64)
    m = torch.stack([radius, torch.zeros_like(radius)], -1)
    bent, inside = distort(m, parameters, "radtan")
    rising = torch.diff(bent[:, 0]) > 0
    assert bool(rising[inside[1:]].all())  # one-to-one wherever it says valid
    for validity, limit in (("correct", correct), ("pixloc", published)):
        ok = distort(m, parameters, "radtan", validity)[1]  # type: ignore[arg-type]
        end = float(radius[ok].max())
        assert end == pytest.approx(min(limit, 3.0), abs=0.01)


def test_validity_with_k3_and_fisheye() -> None:
    radius = torch.linspace(0, 2, 2001, dtype=torch.float64)
    m = torch.stack([radius, 0 * radius], -1)
    for model, parameters in (
        ("radtan", torch.tensor([0.1, -0.05, 0, 0, -0.1], dtype=torch.float64)),
        ("fisheye", torch.tensor([-0.2, -0.1, 0.0, 0.0], dtype=torch.float64)),
    ):
        bent, inside = distort(m, parameters, model)  # type: ignore[arg-type]
        first_fall = int((torch.diff(bent[:, 0]) <= 0).int().argmax())
        assert not bool(inside.all()) and abs(int(inside.sum()) - first_fall) <= 2


@pytest.mark.slow
@given(
    st.floats(-0.35, 0.35), st.floats(-0.05, 0.1), st.floats(-0.01, 0.01), st.floats(-0.01, 0.01), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_undistort_inverts_distort_inside_the_fold(k1: float, k2: float, p1: float, p2: float, seed: int) -> None:
    parameters = torch.tensor([k1, k2, p1, p2, 0.0], dtype=torch.float64)
    m = 0.5 * torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    bent, inside = distort(m, parameters, "radtan")
    # near the fold, with tangential terms, the inverse is not unique any more
    inside &= torch.linalg.det(J_distort(m, parameters, "radtan")) > 0.2
    inside &= (m.norm(dim=-1) < 0.9) & torch.tensor(k1 > -0.25).expand(50)
    again, valid = undistort(bent, parameters, "radtan")
    assert bool(valid[inside].all())
    assert torch.allclose(again[inside], m[inside], atol=1e-8)


def test_undistort_says_where_there_is_no_inverse() -> None:
    parameters = torch.tensor([-0.2, 0, 0, 0, 0], dtype=torch.float64)
    beyond = torch.tensor([[0.87, 0.0], [5.0, 0.0], [math.nan, 0.0]], dtype=torch.float64)  # the fold maps to 0.861
    assert undistort(beyond, parameters, "radtan")[1].tolist() == [False, False, False]


@pytest.mark.parametrize(("model", "parameters"), [("radtan", RADTAN), ("fisheye", FISHEYE)])
def test_undistort_is_differentiable(model: Any, parameters: Tensor) -> None:
    point = torch.tensor([[0.3, -0.2], [0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    k = parameters.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, p: undistort(x, p, model)[0], (point, k), atol=1e-6)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_of_cameras(batch: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    one = Camera.from_colmap("OPENCV", 640, 480, COLMAP["OPENCV"]).to(dtype)
    parts = [getattr(one, n).expand(*batch, -1) for n in ("size", "f", "c", "distortion")]
    camera = Camera(*parts, model="radtan")  # type: ignore[misc]
    xyz = torch.rand(*batch, 7, 3, dtype=dtype, generator=generator) + torch.tensor([0, 0, 2], dtype=dtype)
    uv, valid = camera.project(xyz)
    assert uv.shape == (*batch, 7, 2) and valid.shape == (*batch, 7) and uv.dtype == dtype
    assert torch.allclose(uv, one.project(xyz)[0])
    assert camera.K.shape == (*batch, 3, 3) and camera.J_project(xyz)[0].shape == (*batch, 7, 2, 3)
    assert camera.unproject(uv)[0].shape == (*batch, 7, 3)
    assert Camera.stack([camera, camera])[0].shape == torch.Size(batch)


def test_points_behind_the_camera_are_never_seen() -> None:
    camera = Camera.from_fov((640, 480), 1.0)
    uv, valid = camera.project(torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    assert valid.tolist() == [False, False, True] and bool(torch.isfinite(uv).all())


def test_scale_keeps_the_direction_of_every_pixel() -> None:
    camera = Camera.from_colmap("PINHOLE", 640, 480, COLMAP["PINHOLE"])
    corner = torch.tensor([[-0.5, -0.5], [639.5, 479.5]], dtype=torch.float64)  # outer corners of the image
    small = camera.scale((0.5, 0.25))
    there = (corner + 0.5) * torch.tensor([0.5, 0.25], dtype=torch.float64) - 0.5
    assert torch.allclose(camera.unproject(corner)[0], small.unproject(there)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Camera(torch.zeros(3), torch.zeros(2), torch.zeros(2)), "size"),
        (lambda: Camera(torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.zeros(3), "radtan"), "distortion"),
        (lambda: Camera.from_colmap("FOV", 640, 480, [1, 1, 1, 1, 1]), "FOV"),
        (lambda: Camera.from_colmap("PINHOLE", 640, 480, [1, 1, 1]), "4 parameters"),
        (lambda: Camera.from_colmap("FULL_OPENCV", 640, 480, [*range(1, 13)]), "k4"),
        (lambda: Camera.from_fov((640, 480), 3.5), "3.5"),
        (lambda: Camera.from_fov((640, 480), 1.0).project(torch.zeros(4)), "xyz"),
    ],
)
def test_wrong_use_raises(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
