"""Poses and cameras as PixLoc's README uses them: like tensors, under its names."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, J_transform, Pose, so3_exp

COLMAP = {"model": "OPENCV", "width": 640, "height": 480, "params": [500.0, 510.0, 320.5, 240.0, -0.1, 0.01, 0.0, 0.0]}


def random_pose(*batch: int, seed: int = 0) -> Pose:
    w, t = torch.randn(2, *batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Pose.from_aa(w, t)


def test_the_example_of_pixlocs_readme() -> None:
    """Poses from R and t, moved and applied; a chain; two COLMAP cameras in a batch, projection
    and Jacobian."""
    generator = torch.Generator().manual_seed(0)
    R = so3_exp(0.1 * torch.randn(2, 3, generator=generator))
    t = torch.randn(2, 3, generator=generator) * 0.1
    points = torch.rand(2, 50, 3, generator=generator) + torch.tensor([-0.5, -0.5, 2.0])

    world_to_camera = Pose.from_Rt(R, t)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    world_to_camera = world_to_camera.cuda() if device == "cuda" else world_to_camera.cpu()
    in_camera = world_to_camera * points.to(device)
    assert torch.allclose(in_camera.cpu(), torch.einsum("bij,bnj->bni", R, points) + t[:, None], atol=1e-6)

    first, second = random_pose(seed=1), random_pose(seed=2)
    chained = second @ first
    assert torch.allclose(chained * points[0].double(), second * (first * points[0].double()), atol=1e-12)

    one, two = Camera.from_colmap(COLMAP), Camera.from_colmap({**COLMAP, "params": [400.0, *COLMAP["params"][1:]]})
    cameras = torch.stack([one, two]).to(in_camera.device, in_camera.dtype)
    assert isinstance(cameras, Camera) and cameras.shape == (2,)
    pixels, seen = cameras.world2image(in_camera)
    jacobian, in_front = cameras.J_world2image(in_camera)
    assert pixels.shape == (2, 50, 2) and jacobian.shape == (2, 50, 2, 3)
    expected = *cameras.project(in_camera), *cameras.J_project(in_camera)
    for ours, theirs in zip((pixels, seen, jacobian, in_front), expected, strict=True):
        assert torch.equal(ours, theirs)
    # by hand, for the one point of the second camera
    x, y = (in_camera[1, 0, :2] / in_camera[1, 0, 2]).cpu().double().tolist()
    r2 = x * x + y * y
    bent = 1 - 0.1 * r2 + 0.01 * r2 * r2
    assert pixels[1, 0].tolist() == pytest.approx([400 * x * bent + 320.0, 510 * y * bent + 239.5], abs=1e-3)


def test_jacobians_chain_to_the_derivative_of_the_pixel() -> None:
    pose, camera = random_pose(seed=3), Camera.from_colmap(COLMAP)
    points = pose.inv() * torch.tensor([[0.2, -0.1, 2.0], [-0.4, 0.3, 3.0]], dtype=torch.float64)

    def pixel(delta: torch.Tensor) -> torch.Tensor:
        return camera.world2image((Pose.from_tangent(delta) @ pose) * points)[0]

    numeric = torch.autograd.functional.jacobian(pixel, torch.zeros(6, dtype=torch.float64))
    moved = pose * points
    assert torch.allclose(camera.J_world2image(moved)[0] @ J_transform(moved), numeric, atol=1e-9)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_torch_stack(dim: int) -> None:
    a, b = random_pose(2, 3, seed=1), random_pose(2, 3, seed=2)
    stacked = torch.stack([a, b], dim)
    place = dim % 3
    assert stacked.shape == torch.stack([torch.zeros(2, 3)] * 2, dim).shape
    assert torch.equal(stacked.t, torch.stack([a.t, b.t], place)) and torch.equal(
        stacked.R, torch.stack([a.R, b.R], place)
    )
    cameras = Camera.stack([Camera.from_colmap(COLMAP)] * 2)
    assert torch.stack((cameras, cameras), dim=-1).shape == (2, 2) == torch.stack(tensors=[cameras] * 2, dim=1).shape


def test_torch_stack_refuses_what_cannot_be_stacked() -> None:
    pose, camera = random_pose(), Camera.from_colmap(COLMAP)
    with pytest.raises(TypeError):
        torch.stack([pose, camera])
    with pytest.raises(TypeError):
        torch.cat([pose, pose])
    with pytest.raises(TypeError):
        torch.ones(3) * pose
    with pytest.raises(IndexError, match=r"dim must be in -1\.\.0"):
        torch.stack([pose, pose], 1)
    with pytest.raises(ValueError, match="different models"):
        torch.stack([camera, Camera.from_fov((640, 480), 1.0)])


def test_numpy_comes_in_and_types_change() -> None:
    R, t = np.eye(3), np.array([1.0, 2.0, 3.0])
    pose = Pose.from_Rt(R, t)
    assert pose.dtype == torch.float64 and (pose * np.zeros((1, 3))).tolist() == [[1.0, 2.0, 3.0]]
    assert (pose.float() * np.zeros((1, 3))).dtype == torch.float32
    assert torch.equal(Pose.from_aa(np.zeros(3), t).R, torch.eye(3, dtype=torch.float64))
    for thing in (pose, Camera.from_colmap(COLMAP)):
        assert thing.float().dtype == torch.float32 and thing.float().double().dtype == torch.float64
        assert thing.cpu().device.type == "cpu"
    with pytest.raises(TypeError):
        pose * 2  # type: ignore[operator]


def test_gradients_pass_through_the_short_names() -> None:
    w = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64, requires_grad=True)
    t = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    xyz = torch.tensor([[0.1, 0.2, 2.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: torch.stack([Pose.from_aa(a, b), Pose.from_aa(b, a).inv()]) * xyz, (w, t)
    )


def test_cameras_of_colmap_as_dictionary_and_as_object() -> None:
    known = Camera.from_colmap("OPENCV", 640, 480, COLMAP["params"])
    enumeration = SimpleNamespace(name="OPENCV")  # as pycolmap has its models
    for given in (COLMAP, SimpleNamespace(**COLMAP), SimpleNamespace(**{**COLMAP, "model": enumeration})):
        camera = Camera.from_colmap(given)  # type: ignore[arg-type]
        for name in ("size", "f", "c", "distortion"):
            assert torch.equal(getattr(camera, name), getattr(known, name))
    with pytest.raises(ValueError, match="width, params is missing"):
        Camera.from_colmap({"model": "OPENCV", "height": 480})
    with pytest.raises(ValueError, match="needs width, height and parameters"):
        Camera.from_colmap("OPENCV", 640)


def test_fields_are_tensors() -> None:
    with pytest.raises(ValueError, match=r"Pose\.R must be a tensor, got list: torch\.as_tensor makes one"):
        Pose([[1.0]], torch.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Camera\.f must be a tensor, got int"):
        Camera(torch.ones(2), 3, torch.zeros(2))  # type: ignore[arg-type]
