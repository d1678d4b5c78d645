"""The two-view model: golden losses, metrics and gradients, the whole forward pass, and a step that can overfit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from metriloc.backbones.vgg import VGG16, VGGConfig
from metriloc.geometry import Camera, Pose
from metriloc.methods.pixloc import (
    AlignConfig,
    CostConfig,
    NetworkConfig,
    PixLocNetwork,
    TwoViewBatch,
    TwoViewConfig,
    TwoViewRefiner,
    UNetConfig,
)
from metriloc.methods.pixloc.two_view import pose_errors, two_view_loss, two_view_metrics

PUBLISHED = TwoViewConfig(
    align=AlignConfig(CostConfig(pad=1, validity="pixloc"), num_iters=5), success_threshold=2.0, validity="pixloc"
)
STRIDES = (16, 4, 1)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
LIGHT = NetworkConfig(UNetConfig(VGGConfig((1, 1, 1), (8, 8, 8)), (8, 8), (0, 1, 2), (8, 8, 8), batch_norm=False))


@pytest.fixture(scope="module")
def golden(load: Any) -> Any:
    return load("two_view")


@pytest.fixture(scope="module")
def batch(encoded: Any) -> TwoViewBatch:
    return encoded.batch


def assert_loss(found: Any, golden: Any, key: str) -> None:
    torch.testing.assert_close(found.total, golden[f"{key}/loss/total"], **CLOSE)
    for level, error in enumerate(found.reprojection):
        torch.testing.assert_close(error, golden[f"{key}/loss/reprojection_error/{level}"], **CLOSE)
    torch.testing.assert_close(found.reprojection[-1], golden[f"{key}/loss/reprojection_error"], **CLOSE)
    torch.testing.assert_close(found.init, golden[f"{key}/loss/reprojection_error/init"], **CLOSE)


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_golden_loss(case: str, batch: TwoViewBatch, golden: Any, data: Any) -> None:
    packed = [golden[f"loss_{case}/T_opt_{level}"].clone().requires_grad_() for level in range(3)]
    found = two_view_loss(batch, [data.pose(p) for p in packed], STRIDES, PUBLISHED)
    found.total.sum().backward()
    for level, p in enumerate(packed):
        expected = golden[f"loss_{case}/d_T_opt_{level}"]
        torch.testing.assert_close(torch.zeros_like(p) if p.grad is None else p.grad, expected, **CLOSE)
    found = dataclasses.replace(
        found, total=found.total.detach(), reprojection=tuple(e.detach() for e in found.reprojection)
    )
    assert_loss(found, golden, f"loss_{case}")
    for relative in (False, True):
        key = f"loss_{case}/metrics_normalize{int(relative)}"
        for name, pose in (("/0", packed[0]), ("/1", packed[1]), ("/2", packed[2]), ("", packed[2])):
            angle, distance = pose_errors(data.pose(pose.detach()), batch.query_from_reference, relative)
            torch.testing.assert_close(angle, golden[f"{key}/R_error{name}"], **CLOSE)
            torch.testing.assert_close(distance, golden[f"{key}/t_error{name}"], **CLOSE)
        angle, distance = pose_errors(batch.init, batch.query_from_reference, relative)
        torch.testing.assert_close(angle, golden[f"{key}/R_error/init"], **CLOSE)
        torch.testing.assert_close(distance, golden[f"{key}/t_error/init"], **CLOSE)


def test_golden_too_few_points(batch: TwoViewBatch, golden: Any, data: Any) -> None:
    few = dataclasses.replace(batch, xyz=golden["toofew/points3D"])
    poses = [data.pose(golden[f"loss_a/T_opt_{level}"]) for level in range(3)]
    found = two_view_loss(few, poses, STRIDES, PUBLISHED)
    assert_loss(found, golden, "toofew")
    assert not found.counted.all() and (found.total[~found.counted] == 0).all()


def test_golden_saturation(batch: TwoViewBatch, load: Any, data: Any) -> None:
    golden = load("misc")
    packed = [golden["clamp/T_opt"].clone().requires_grad_() for _ in range(3)]
    config = dataclasses.replace(PUBLISHED, success_threshold=3.0)
    found = two_view_loss(batch, [data.pose(p) for p in packed], STRIDES, config)
    torch.testing.assert_close(found.total.detach(), golden["clamp/loss/total"], **CLOSE)
    for level, error in enumerate(found.reprojection):
        torch.testing.assert_close(error.detach(), golden[f"clamp/loss/reprojection_error/{level}"], **CLOSE)
    found.total.sum().backward()
    for level, p in enumerate(packed):
        torch.testing.assert_close(
            torch.zeros_like(p) if p.grad is None else p.grad, golden[f"clamp/d_T_{level}"], **CLOSE
        )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_forward(
    mode: str, batch: TwoViewBatch, golden: Any, data: Any, encoded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = data.fill(PixLocNetwork(NetworkConfig(UNetConfig(encoder=VGG16))))
    if mode == "eval":  # another test uses the same maps
        maps = {id(batch.reference): encoded.reference, id(batch.query): encoded.query}
        monkeypatch.setattr(network.extractor, "forward", lambda image: maps[id(image)])
    model = TwoViewRefiner(network, PUBLISHED).train(mode == "train")
    with torch.set_grad_enabled(mode == "train"):
        found = model(batch)
        loss = two_view_loss(batch, found.poses, model.strides, PUBLISHED)
    for level in range(3):
        torch.testing.assert_close(data.pack(found.poses[level]), golden[f"full_{mode}/T_opt_{level}"], **CLOSE)
        torch.testing.assert_close(data.pack(found.starts[level]), golden[f"full_{mode}/T_init_{level}"], **CLOSE)
    assert_loss(loss, golden, f"full_{mode}")
    metrics = two_view_metrics(batch, found, loss, dataclasses.replace(PUBLISHED, relative_translation=False))
    key = f"full_{mode}/metrics"
    assert metrics["rotation_error_deg/final"] == pytest.approx(golden[f"{key}/R_error"].mean().item(), abs=1e-9)
    assert metrics["translation_error/0"] == pytest.approx(golden[f"{key}/t_error/0"].mean().item(), abs=1e-9)
    if mode == "train":
        loss.total.mean().backward()
        for name, parameter in network.named_parameters():
            norm = golden[f"full_train/gradnorm/{name}"]
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad.norm(), norm, rtol=1e-9, atol=1e-11)
            if f"full_train/grad/{name}" in golden:
                torch.testing.assert_close(parameter.grad, golden[f"full_train/grad/{name}"], rtol=1e-8, atol=1e-9)


def make_batch(generator: torch.Generator, size: int = 64) -> TwoViewBatch:
    """Two photos of one textured plane 4 m away, shifted by 6 pixels; the start is the identity."""
    canvas = torch.nn.functional.interpolate(torch.rand(2, 3, 12, 12, generator=generator), size + 8, mode="bicubic")
    camera = Camera.stack([Camera.from_fov((size, size), 1.2)] * 2)
    uv = 8 + (size - 20) * torch.rand(2, 60, 2, generator=generator)
    xyz = camera.unproject(uv)[0] * 4
    shift = torch.tensor([-6 * 4 / camera.f[0, 0].item(), 0.0, 0.0])
    truth = Pose(torch.eye(3).expand(2, 3, 3), shift.expand(2, 3))
    views = canvas[..., :size, :size].clamp(0, 1), canvas[..., :size, 6 : size + 6].clamp(0, 1)
    return TwoViewBatch(views[0], views[1], camera, camera, xyz, truth, Pose.identity((2,)))


@pytest.mark.slow
def test_training_step_can_overfit(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    batch = make_batch(generator)
    config = TwoViewConfig(align=AlignConfig(CostConfig(pad=1), num_iters=5), relative_translation=False)
    model = TwoViewRefiner(PixLocNetwork(LIGHT), config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        output = model.training_step(batch, step, generator)
        optimizer.zero_grad()
        output.loss.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
        losses.append(output.loss.item())
    assert min(losses[-5:]) < 0.5 * losses[0]
    assert output.metrics["counted"] == 1 and output.metrics["failed"] == 0
    assert output.metrics["translation_error/final"] < output.metrics["translation_error/init"]


def test_metrics_without_a_sample_that_counts(generator: torch.Generator) -> None:
    batch = make_batch(generator)
    behind = dataclasses.replace(batch, xyz=-batch.xyz)
    output = TwoViewRefiner(PixLocNetwork(LIGHT)).training_step(behind, 0, generator)
    assert output.loss.item() == 0 and dict(output.metrics) == {"counted": 0.0, "failed": 1.0}


def test_wrong_use(generator: torch.Generator) -> None:
    batch = make_batch(generator)
    with pytest.raises(ValueError, match="TwoViewBatch: points"):
        dataclasses.replace(batch, init=Pose.identity((3,)))
    with pytest.raises(ValueError, match="images"):
        dataclasses.replace(batch, query=batch.query[:1])
    with pytest.raises(ValueError, match="1 poses for 3 levels"):
        two_view_loss(batch, [batch.init], STRIDES, PUBLISHED)
    with pytest.raises(ValueError, match="holds no learned damping"):
        TwoViewRefiner(PixLocNetwork(dataclasses.replace(LIGHT, learned_damping=False)))
