"""MicKey as the trainer sees it: batches, one training step, supervised warm-up, and overfitting a few synthetic pairs.

The scene is a textured room with a box in it, rendered by ray casting in a few lines. Two tests overfit it: a short one
with supervised warm-up, and the full one of issue 3 (poses alone, from random weights, under three minutes on two
cores), which runs when METRILOC_FULL is set.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from oracles.mickey_matching import match_probabilities
from safetensors.torch import load_file
from torch import Tensor, nn

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.methods.mickey import (
    Curriculum,
    MicKey,
    MicKeyConfig,
    MicKeyNetwork,
    MicKeyTraining,
    ObjectiveConfig,
    PairBatch,
    SolverConfig,
    SupervisionConfig,
)
from metriloc.methods.mickey.checkpoint import config_from_weights, from_official
from metriloc.methods.mickey.keypoint_maps import Keypoints
from metriloc.methods.mickey.loss import reprojection_shift
from metriloc.methods.mickey.objective import PairFeatures
from metriloc.methods.mickey.supervision import Visibility, depth_loss, match_losses, visibility
from metriloc.types import Pair, View

STRIDE = 8
SMALL = ObjectiveConfig(SolverConfig(num_sets=8, num_hypotheses=8, set_size=64, minimal_size=8))


class SmallBackbone(nn.Module):
    """Three strided convolutions."""

    stride, channels = STRIDE, 64

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, o in ((3, 24), (24, 48), (48, 64)):
            layers += [nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image - 0.5)


def small_network(train_backbone: bool = True) -> MicKeyNetwork:
    torch.manual_seed(0)
    config = MicKeyConfig(None, (32, 32, 32, 32), 32, border=1, train_backbone=train_backbone)
    return MicKeyNetwork(config, SmallBackbone())


def render(camera: Camera, cam_from_world: Pose, texture: Tensor) -> tuple[Tensor, Tensor]:
    """Photo and depth of a room of 4 x 2.8 x 5 m with a box in it, coloured by a 3D texture."""
    width, height = (int(x) for x in camera.size)
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ray, _ = camera.unproject(torch.stack([u, v], -1).reshape(-1, 2).float())
    direction, center = ray @ cam_from_world.R, cam_from_world.center()
    t = ((torch.tensor([2.0, 1.4, 2.5]) * direction.sign() - center) / direction).amin(-1)  # the walls
    low, high = torch.tensor([-0.6, 0.0, 0.9]), torch.tensor([0.3, 1.4, 1.6])  # the box
    t0, t1 = (low - center) / direction, (high - center) / direction
    enter, leave = torch.minimum(t0, t1).amax(-1), torch.maximum(t0, t1).amin(-1)
    t = torch.where((enter < leave) & (enter > 0), enter, t)
    xyz = center + t[:, None] * direction
    color = F.grid_sample(texture[None], (xyz / 2.6)[None, None, None], align_corners=True)[0, :, 0, 0]
    return color.reshape(3, height, width), t.reshape(height, width)


def room_pairs(count: int, with_depth: bool = True) -> list[Pair]:
    """Pairs up to 20 degrees and 0.6 m apart, each in a room of its own texture."""
    g = torch.Generator().manual_seed(0)
    camera = Camera.from_fov((128, 96), 1.1)

    def around(scale: float) -> Tensor:
        return scale * (2 * torch.rand(3, generator=g) - 1)

    pairs = []
    for _ in range(count):
        texture = torch.rand(3, 48, 48, 48, generator=g)
        first = Pose(so3_exp(around(0.15)), around(0.2))
        relative = Pose(so3_exp(around(0.2)), around(0.35))
        views = []
        for pose in (first, relative @ first):
            image, depth = render(camera, pose, texture)
            views.append(View(image, camera, depth=depth if with_depth else None))
        pairs.append(Pair(views[0], views[1], relative))
    return pairs


def original(camera: Camera) -> Camera:
    """The camera of the 640x480 photo that the small one stands for: VCRE counts its pixels."""
    return camera.scale(5.0)


def batch_of(pairs: list[Pair]) -> PairBatch:
    return PairBatch.from_pairs(pairs, [(original(p.view0.camera), original(p.view1.camera)) for p in pairs])


def vcre(network: MicKeyNetwork, pairs: list[Pair]) -> list[float]:
    """The benchmark's VCRE of each pair at 640x480, without its clipping, by the test-time solver; inf for a failure."""
    model = MicKey(network, SolverConfig(num_sets=20, num_hypotheses=50, set_size=64))
    errors = []
    for pair in pairs:
        assert pair.cam1_from_cam0 is not None
        found = model.relative_pose(pair.view0, pair.view1)
        shift = reprojection_shift(found.pose @ pair.cam1_from_cam0.inverse(), original(pair.view1.camera), None)
        errors.append(float(shift) if bool(found.success) else math.inf)
    network.train()
    return errors


def overfit(training: MicKeyTraining, pairs: list[Pair], steps: int, check_every: int) -> tuple[list[float], int]:
    """Adam with a cosine schedule until every pair is below 10 px or the steps are used up; VCREs and steps."""
    optimizer = torch.optim.Adam(training.parameters(), 2e-3, eps=1e-6)
    generator = torch.Generator().manual_seed(1)
    batch, errors = batch_of(pairs), [math.inf]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * max(0.05, 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.zero_grad()
        training.training_step(batch, step, generator).loss.backward()
        nn.utils.clip_grad_norm_(training.parameters(), 5.0)
        optimizer.step()
        if (step + 1) % check_every == 0:
            errors = vcre(training.network, pairs)
            if max(errors) < 10:
                return errors, step + 1
    return errors, steps


# -- overfitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_overfits_three_pairs_with_a_warm_up() -> None:
    pairs = room_pairs(3)
    training = MicKeyTraining(small_network(), SMALL, supervision=SupervisionConfig(alone=90, until=110))
    before = vcre(training.network, pairs)
    assert min(before) > 40
    errors, _ = overfit(training, pairs, steps=130, check_every=10)
    assert max(errors) < 10, errors


@pytest.mark.slow
def test_poses_alone_teach_in_a_few_steps() -> None:
    """Draws decide which way a single run takes, so four of them must learn on the whole, not each as far as another."""
    pairs = room_pairs(2, with_depth=False)
    batch, first, last = batch_of(pairs), [], []
    for seed in range(1, 5):
        training, losses = MicKeyTraining(small_network(), SMALL), []
        optimizer = torch.optim.Adam(training.parameters(), 2e-3, eps=1e-6)
        generator = torch.Generator().manual_seed(seed)
        for step in range(50):
            optimizer.zero_grad()
            out = training.training_step(batch, step, generator)
            out.loss.backward()
            nn.utils.clip_grad_norm_(training.parameters(), 5.0)
            optimizer.step()
            losses.append(out.metrics["loss_pose"])
        first.append(sum(losses[:10]) / 10)
        last.append(sum(losses[-10:]) / 10)
    assert sum(last) < 0.88 * sum(first), (first, last)


@pytest.mark.skipif("METRILOC_FULL" not in os.environ, reason="minutes long: set METRILOC_FULL to run")
def test_overfits_four_pairs_from_poses_alone() -> None:
    pairs = room_pairs(4, with_depth=False)
    solver = dataclasses.replace(SMALL.solver, num_sets=12, num_hypotheses=12)
    training = MicKeyTraining(small_network(), dataclasses.replace(SMALL, solver=solver))
    start = time.perf_counter()
    errors, _ = overfit(training, pairs, steps=800, check_every=50)
    assert max(errors) < 10, errors
    assert time.perf_counter() - start < 180


# -- the training step -----------------------------------------------------------------------------------------------------


def test_a_step_reaches_every_parameter() -> None:
    training = MicKeyTraining(small_network(), SMALL)
    out = training.training_step(batch_of(room_pairs(2)), 0, torch.Generator().manual_seed(0))
    assert out.loss.shape == () and out.loss.dtype == torch.float32
    out.loss.backward()
    for name, parameter in training.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name
    expected = {"loss", "loss_pose", "rotation_error_deg", "translation_error_m", "null_weight", "soft_inliers"}
    assert set(out.metrics) == expected | {"pairs", "percent"}
    assert out.metrics["loss"] == pytest.approx(float(out.loss.detach())) == pytest.approx(out.metrics["loss_pose"])
    assert out.metrics["pairs"] == 2 and 0 <= out.metrics["null_weight"] <= 1 and 0 < out.metrics["soft_inliers"] < 1


def test_a_frozen_backbone_stays_as_it_is() -> None:
    training = MicKeyTraining(small_network(train_backbone=False), SMALL).train()
    before = {k: v.clone() for k, v in training.network.backbone.state_dict().items()}
    training(batch_of(room_pairs(2)), 0, torch.Generator().manual_seed(0)).loss.backward()
    assert all(p.grad is None for p in training.network.backbone.parameters())
    assert all(torch.equal(v, before[k]) for k, v in training.network.backbone.state_dict().items())


def test_same_generator_same_step() -> None:
    training, batch = MicKeyTraining(small_network(), SMALL).eval(), batch_of(room_pairs(2))
    first, second, other = (
        training.training_step(batch, 0, torch.Generator().manual_seed(seed)).loss.detach() for seed in (3, 3, 4)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_the_curriculum_takes_the_easiest_pairs() -> None:
    training = MicKeyTraining(small_network(), SMALL, Curriculum(50, 100, 25, every=10))
    batch = batch_of(room_pairs(4))
    seen = [training.training_step(batch, s, torch.Generator().manual_seed(0)).metrics for s in (0, 10, 20)]
    assert [m["percent"] for m in seen] == [50, 75, 100] and [m["pairs"] for m in seen] == [2, 3, 4]
    assert seen[0]["loss"] < seen[0]["loss_pose"]  # the mean over the easier half


def test_photos_of_two_sizes() -> None:
    pairs = room_pairs(2)
    batch = batch_of(pairs)
    camera = batch.camera1.crop((0.0, 0.0), (120.0, 80.0))
    cropped = dataclasses.replace(batch, image1=batch.image1[..., :80, :120], camera1=camera, depth1=None)
    training = MicKeyTraining(small_network(), SMALL, supervision=SupervisionConfig())
    out = training.training_step(cropped, 0, torch.Generator().manual_seed(0))
    assert math.isfinite(out.metrics["loss"]) and "loss_depth" not in out.metrics  # depth is missing on one side
    out.loss.backward()


def test_everything_after_the_network_is_float32_under_autocast() -> None:
    training, batch = MicKeyTraining(small_network(), SMALL), batch_of(room_pairs(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = training.features(batch)
        out = training.training_step(batch, 0, torch.Generator().manual_seed(0))
    for value in (features.xyz0, features.first.descriptor, features.second.score, out.loss):
        assert value.dtype == torch.float32
    out.loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in training.parameters() if p.grad is not None)


def test_golden_maps_in_training_mode(shared: Callable[[str], Path]) -> None:
    io = load_file(shared("golden/mickey/mickey_tiny_io.safetensors"))
    weights = from_official(load_file(shared("golden/mickey/mickey_tiny_weights.safetensors")))
    network = MicKeyNetwork(config_from_weights(weights, num_heads=4)).train()
    network.load_state_dict(weights)
    camera0, camera1 = (Camera.from_K(io[k], (180, 240)) for k in ("K0", "K1"))
    images = [io[k].float() / 255 for k in ("image0", "image1")]
    batch = PairBatch(images[0], images[1], camera0, camera1, Pose.identity((1,)))
    training = MicKeyTraining(network)
    features = training.features(batch)
    for b, side in enumerate((features.first, features.second)):
        pairs = {"depth": side.depth[0], "score": side.score[0], "dsc": side.descriptor[0].mT}
        for name, value in pairs.items():
            expected = io[f"train.{name}"][b].flatten(1).reshape(value.shape)
            assert float((value - expected).detach().abs().max() / expected.abs().max()) < 1e-4, name


# -- batches -----------------------------------------------------------------------------------------------------------------


def test_batches_of_pairs() -> None:
    pairs = room_pairs(3)
    batch = batch_of(pairs)
    assert len(batch) == 3 and batch.image0.shape == (3, 3, 96, 128) and batch.depth1 is not None
    assert torch.equal(batch.image1[2], pairs[2].view1.image) and torch.equal(batch.depth1[2], pairs[2].view1.depth)
    assert batch.original0 is not None and batch.original0.size.tolist() == [[640, 480]] * 3
    moved = batch.to("cpu")
    assert torch.equal(moved.cam1_from_cam0.t, batch.cam1_from_cam0.t) and moved.original1 is not None
    some = [*pairs[:2], Pair(pairs[2].view0, dataclasses.replace(pairs[2].view1, depth=None), pairs[2].cam1_from_cam0)]
    mixed = PairBatch.from_pairs(some)
    assert mixed.depth0 is not None and mixed.depth1 is None and mixed.original0 is None


def test_wrong_batches_raise() -> None:
    pairs = room_pairs(2)
    with pytest.raises(ValueError, match="known poses, got 1 of 2"):
        PairBatch.from_pairs([pairs[0], dataclasses.replace(pairs[1], cam1_from_cam0=None)])
    with pytest.raises(ValueError, match="known poses"):
        PairBatch.from_pairs([])
    view = dataclasses.replace(pairs[1].view0, image=pairs[1].view0.image[:, :80])
    with pytest.raises(ValueError, match="one size"):
        PairBatch.from_pairs([pairs[0], dataclasses.replace(pairs[1], view0=view)])
    batch = batch_of(pairs)
    with pytest.raises(ValueError, match="needs everything else"):
        dataclasses.replace(batch, cam1_from_cam0=Pose.identity((3,)))


# -- supervision ---------------------------------------------------------------------------------------------------------------


def test_visibility_by_true_depth() -> None:
    (pair,) = room_pairs(1)
    batch = PairBatch.from_pairs([pair])
    assert batch.depth0 is not None and batch.depth1 is not None
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(16), indexing="ij")
    uv = (STRIDE * (torch.stack([columns, rows], -1).reshape(1, -1, 2) + 0.5)).float()
    depths, cameras = (batch.depth0, batch.depth1), (batch.camera0, batch.camera1)
    found = visibility(uv, depths, cameras, batch.cam1_from_cam0, (12, 16), STRIDE)
    assert int(found.seen.sum()) > 100 and int(found.hidden.sum()) > 5 and not bool((found.seen & found.hidden).any())
    # the photos agree where a keypoint and its partner meet: follow the pixel, not the cell
    xyz = found.depth[0, :, None] * batch.camera0[0].unproject(uv[0])[0]
    target, _ = batch.camera1[0].project(batch.cam1_from_cam0[0].transform(xyz))
    size = torch.tensor([127.0, 95.0])
    colors = [
        F.grid_sample(image, (2 * p / size - 1)[None, None], align_corners=True)[0, :, 0].T
        for image, p in ((batch.image0, uv[0]), (batch.image1, target))
    ]
    difference = (colors[0] - colors[1]).abs().mean(-1)
    assert float(difference[found.seen[0]].median()) < 0.35 * float(difference[found.hidden[0]].median() + 0.2)
    cell = (target / STRIDE).floor().long()
    assert torch.equal(found.partner[0][found.seen[0]], (16 * cell[:, 1] + cell[:, 0])[found.seen[0]])


def test_visibility_where_depth_is_unknown() -> None:
    (pair,) = room_pairs(1)
    batch = PairBatch.from_pairs([pair])
    assert batch.depth0 is not None and batch.depth1 is not None
    uv = torch.tensor([[[60.0, 40.0], [20.0, 20.0]]])
    cameras = (batch.camera0, batch.camera1)
    nothing = torch.zeros_like(batch.depth0)
    own = visibility(uv, (nothing, batch.depth1), cameras, batch.cam1_from_cam0, (12, 16), STRIDE)
    assert not bool(own.seen.any()) and not bool(own.hidden.any()) and float(own.depth.max()) == 0
    other = visibility(uv[:, :1], (batch.depth0, nothing), cameras, batch.cam1_from_cam0, (12, 16), STRIDE)
    assert not bool(other.seen.any()) and not bool(other.hidden.any())


def test_depth_loss() -> None:
    true = torch.tensor([[2.0, 4.0, 0.0]])
    assert float(depth_loss(torch.tensor([[1.0, 5.0, 9.0]]), true)) == pytest.approx((0.5 + 0.25) / 2)
    assert float(depth_loss(torch.tensor([[1.0, 5.0, 9.0]]), torch.zeros(1, 3))) == 0
    with pytest.raises(ValueError, match="do not fit"):
        depth_loss(true, true[:, :2])


@pytest.mark.parametrize("with_bin", [True, False])
def test_match_losses_equal_the_dense_ones(with_bin: bool, generator: torch.Generator) -> None:
    def side(n: int) -> Keypoints:
        descriptor = F.normalize(torch.randn(1, n, 8, generator=generator), dim=-1)
        score = torch.rand(1, n, generator=generator)
        score[0, 0] = 0  # border
        return Keypoints(torch.zeros(1, n, 2), torch.ones(1, n), score, descriptor, (1, n))

    first, second = side(5), side(6)
    bin_ = torch.tensor(0.8) if with_bin else None
    features = PairFeatures(first, second, torch.zeros(1, 5, 3), torch.zeros(1, 6, 3), 0.1, bin_)
    seen0, seen1 = (
        torch.tensor([[True, False, True, True, False]]),
        torch.tensor([[False, False, False, True, False, False]]),
    )
    hidden0, hidden1 = torch.tensor([[False, True, False, False, False]]), torch.zeros(1, 6, dtype=torch.bool)
    one = Visibility(torch.ones(1, 5), torch.tensor([[1, 0, 3, 5, 0]]), seen0, hidden0, torch.zeros(1, 5, 2))
    two = Visibility(torch.ones(1, 6), torch.tensor([[0, 0, 0, 2, 0, 0]]), seen1, hidden1, torch.zeros(1, 6, 2))
    match, unmatched = match_losses(features, one, two)
    P = match_probabilities(first.descriptor, second.descriptor, first.score, second.score, 0.1, bin_)[0]
    expected = -(P[2, 3].log() + P[3, 5].log() + P[2, 3].log()) / 3  # 0 -> 1 starts on the border; 2 <-> 3 both ways
    assert float(match) == pytest.approx(float(expected), rel=1e-5)
    if bin_ is None:
        assert float(unmatched) == 0
    else:
        row = torch.cat([first.descriptor[0, 1] @ second.descriptor[0].T / 0.1, bin_[None]])
        assert float(unmatched) == pytest.approx(-float(torch.log_softmax(row, 0)[-1]), rel=1e-5)


def test_when_supervision_acts() -> None:
    training = MicKeyTraining(small_network(), SMALL, supervision=SupervisionConfig(alone=10, until=20))
    batch, parts = batch_of(room_pairs(2)), {"loss_match", "loss_unmatched", "loss_depth"}
    keys = [set(training.training_step(batch, s, torch.Generator()).metrics) for s in (9, 10, 19, 20)]
    assert [parts <= k for k in keys] == [True, True, True, False]
    assert ["loss_pose" in k for k in keys] == [False, True, True, True]
    without = dataclasses.replace(batch, depth0=None, depth1=None)
    assert "loss_pose" in training.training_step(without, 0, torch.Generator()).metrics
    for wrong in ({"match": -1.0}, {"alone": -1}, {"alone": 10, "until": 5}):
        with pytest.raises(ValueError, match="SupervisionConfig"):
            SupervisionConfig(**wrong)  # type: ignore[arg-type]
