"""GN-Net: golden terms with their recorded draws, the whole loss, the alignment it reports, and a step."""

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
    GNNet,
    GNNetConfig,
    NetworkConfig,
    PixLocNetwork,
    TwoViewBatch,
    TwoViewConfig,
    UNetConfig,
)
from metriloc.methods.pixloc.gnnet import Draws, contrastive_term, draw, gauss_newton_term, gnnet_loss, hard_negatives
from metriloc.methods.pixloc.two_view import pose_errors

CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("default", GNNetConfig()),
        ("nowindow", GNNetConfig(window=None)),
        ("alln", GNNetConfig(top_negatives=0)),
    ],
)
def test_golden_terms(name: str, config: GNNetConfig, load: Any) -> None:
    golden = load("gnnet_terms")
    F0, F1, at0, at1 = (golden[key].clone().requires_grad_() for key in ("F0", "F1", "F0_p", "F1_p"))
    valid, rank = golden["valid"], golden[f"{name}/{'rng_index' if name == 'alln' else 'rng_rank'}"]
    nll, inside = gauss_newton_term(at1, F0, golden["pts0"], valid, golden[f"{name}/rng_u"], config)
    pairs = contrastive_term(at0, at1, F1, golden["pts1"], rank, config)
    torch.testing.assert_close(nll[valid].detach(), golden[f"{name}/gn_nll"][valid], **CLOSE)
    assert torch.equal(inside, valid & golden[f"{name}/gn_mask_noise"])
    torch.testing.assert_close(pairs[valid].detach(), golden[f"{name}/contrastive"][valid], **CLOSE)
    (nll[inside].mean() + (pairs * valid).mean()).backward()
    for key, leaf in (("F0", F0), ("F1", F1), ("F0p", at0), ("F1p", at1)):
        torch.testing.assert_close(leaf.grad, golden[f"{name}/d_{key}"], **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
def test_golden_model(normalize: bool, load: Any, encoded: Any) -> None:
    golden = load("gnnet_full")
    key = f"norm{int(normalize)}"
    # the weights have the names, and with them the values, of the two-view model's; confidences are not looked at
    batch, reference, query = encoded.batch, encoded.reference, encoded.query
    with torch.device("meta"):
        network = PixLocNetwork(NetworkConfig(UNetConfig(encoder=VGG16, confidences=False), learned_damping=False))
    loop = AlignConfig(CostConfig(pad=1, validity="pixloc"), num_iters=5, damping="adaptive")
    config = GNNetConfig(
        top_negatives=20, two_view=TwoViewConfig(loop, normalize_features=normalize, validity="pixloc")
    )
    model = GNNet(network, config).eval()

    def drawn(level: int, direction: int) -> Draws:
        first = 4 * level + 2 * direction
        return Draws(golden[f"{key}/rng_{first:02d}_noise_u"], golden[f"{key}/rng_{first + 1:02d}_neg_rank"])

    with torch.no_grad():
        draws = [(drawn(level, 0), drawn(level, 1)) for level in range(3)]
        loss = gnnet_loss(batch, reference, query, network.extractor.strides, draws, config)
        torch.testing.assert_close(loss.total, golden[f"{key}/loss/total"], **CLOSE)
        torch.testing.assert_close(loss.gauss_newton, golden[f"{key}/loss/gauss_newton_loss"], **CLOSE)
        torch.testing.assert_close(loss.contrastive, golden[f"{key}/loss/contrastive_loss"], **CLOSE)
        found = model.align(batch, reference, query)
        for level in range(3):
            angle, distance = pose_errors(found.poses[level], batch.query_from_reference, relative=True)
            # the recorded run carried its damping in single precision
            torch.testing.assert_close(angle, golden[f"{key}/metrics/R_error/{level}"], rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(distance, golden[f"{key}/metrics/t_error/{level}"], rtol=1e-8, atol=1e-8)
        metrics = model.metrics(batch, reference, query)
    expected = golden[f"{key}/metrics/loss/reprojection_error"].mean().item()
    assert metrics["reprojection_error/final"] == pytest.approx(expected, abs=1e-7)


def test_negatives_are_near_in_feature_and_far_in_place(generator: torch.Generator) -> None:
    fmap = torch.randn(1, 4, 20, 30, generator=generator)
    uv = torch.rand(1, 8, 2, generator=generator) * torch.tensor([29.0, 19.0])
    features = torch.randn(1, 8, 4, generator=generator)
    rank = torch.arange(8)[None]
    config = GNNetConfig(top_negatives=8, window=0.2)
    found = hard_negatives(features, fmap, uv, rank, config)[0]
    distance = (features[0, :, None] - fmap[0].flatten(1).T).norm(dim=-1)
    for point in range(8):
        x, y = found[point] % 30, found[point] // 30
        assert max((x - uv[0, point, 0]).abs(), (y - uv[0, point, 1]).abs()) >= 6
        nearer = (distance[point] < distance[point, found[point]]).nonzero()[:, 0]
        outside = torch.maximum((nearer % 30 - uv[0, point, 0]).abs(), (nearer // 30 - uv[0, point, 1]).abs()) >= 6
        assert outside.sum() == rank[0, point]


def test_step_from_the_truth_has_no_error(generator: torch.Generator) -> None:
    """Without disturbance and residual the step is zero, and only the curvature is left."""
    fmap = torch.randn(1, 6, 20, 20, generator=generator).double()
    uv = 6 + 8 * torch.rand(1, 10, 2, generator=generator).double()
    from metriloc.geometry import sample

    found = sample(fmap, uv, gradients=True)
    config = GNNetConfig(disturbance=0.0)
    nll, inside = gauss_newton_term(found.values, fmap, uv, found.valid, torch.rand(1, 10, 2).double(), config)
    H = found.gradients.mT @ found.gradients + 1e-6 * torch.eye(2).double()
    assert inside.all()
    torch.testing.assert_close(nll, torch.log(torch.tensor(2 * torch.pi).double()) - 0.5 * H.logdet())


def test_gradients_are_finite_where_features_are_equal() -> None:
    same = torch.ones(1, 3, 4, requires_grad=True)
    fmap = torch.ones(1, 4, 6, 6, requires_grad=True)
    contrastive_term(
        same, same.detach(), fmap, torch.ones(1, 3, 2), torch.zeros(1, 3).long(), GNNetConfig()
    ).sum().backward()
    assert same.grad is not None and torch.isfinite(same.grad).all()


@pytest.mark.slow
def test_training_step(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    extractor = UNetConfig(
        VGGConfig((1,) * 5, (8,) * 5), (8, 8, 8, 8), channels=(8, 8, 8), confidences=False, batch_norm=False
    )
    network = PixLocNetwork(NetworkConfig(extractor, learned_damping=False))
    canvas = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 24, generator=generator), 200, mode="bicubic").clamp(
        0, 1
    )
    camera = Camera.from_fov((192, 192), 1.2)[None]
    xyz = camera.unproject(12 + 160 * torch.rand(1, 60, 2, generator=generator))[0] * 4
    shift = torch.tensor([[-6 * 4 / camera.f[0, 0].item(), 0.0, 0.0]])
    batch = TwoViewBatch(
        canvas[..., :192, :192],
        canvas[..., :192, 6:198],
        camera,
        camera,
        xyz,
        Pose(torch.eye(3)[None], shift),
        Pose.identity((1,)),
    )
    model = GNNet(network, dataclasses.replace(GNNetConfig(), top_negatives=30))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(12):
        output = model.train().training_step(batch, step, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert sum(losses[-3:]) < sum(losses[:3])
    again = [model.training_step(batch, 0, torch.Generator().manual_seed(5)).loss.item() for _ in range(2)]
    assert again[0] == again[1]
    assert "translation_error/final" in model.eval().training_step(batch, 0, generator).metrics


def test_draws(generator: torch.Generator) -> None:
    first, second = draw((2, 50), (8, 6), GNNetConfig(top_negatives=20), generator)
    assert first.noise.shape == (2, 50, 2) and first.noise.min() >= 0 and first.noise.max() < 1
    assert first.rank.min() >= 0 and 10 < first.rank.max() < 20
    assert not torch.equal(first.noise, second.noise)
    everywhere, _ = draw((2, 50), (8, 6), GNNetConfig(top_negatives=0), generator)
    assert 20 < everywhere.rank.max() < 48
    small, _ = draw((2, 50), (3, 2), GNNetConfig(), generator)
    assert small.rank.max() < 6
    with pytest.raises(ValueError, match="must not be negative"):
        GNNetConfig(top_negatives=-1)
