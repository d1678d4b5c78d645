"""The options of compact models: working size, focal-normalised and logarithmic depth, saving from training, supervision."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from metriloc.backbones import EfficientNetLiteConfig
from metriloc.geometry import Camera, Pose
from metriloc.methods.mickey import (
    MicKey,
    MicKeyConfig,
    MicKeyNetwork,
    MicKeyTraining,
    PairBatch,
    PoseFinding,
    SolverConfig,
    SupervisionConfig,
)
from metriloc.methods.mickey.keypoint_maps import keypoints
from metriloc.methods.mickey.supervision import Visibility, depth_loss, offset_loss, visibility
from metriloc.types import Pair, View

COMPACT = MicKeyConfig(
    backbone=EfficientNetLiteConfig(width=16),
    blocks=(16, 16, 16, 16),
    descriptor_dim=16,
    border=0,
    train_backbone=True,
    longest_side=64,
    log_depth=True,
    canonical_focal=50.0,
    pixel_centers=True,
)


def camera(width: int, height: int, f: float) -> Camera:
    return Camera.from_K(torch.tensor([[f, 0, width / 2 - 0.5], [0, f, height / 2 - 0.5], [0, 0, 1]]), (width, height))


class Grey(nn.Module):
    """A backbone that gives the mean colour of each cell."""

    stride, channels = 8, 3

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(image, 8)


@pytest.fixture(scope="module")
def network() -> MicKeyNetwork:
    torch.manual_seed(0)
    return MicKeyNetwork(COMPACT).eval()


def test_options_are_off_by_default(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    plain = MicKeyNetwork(MicKeyConfig(backbone=None, blocks=(16, 16, 16, 16), border=0), Grey()).eval()
    image = torch.rand(1, 3, 32, 43, generator=generator)
    found, expected = plain.detect(image, Camera.stack([camera(43, 32, 31.0)])), keypoints(plain(image), 8)
    assert torch.equal(found.uv, expected.uv) and torch.equal(found.depth, expected.depth)
    assert plain.working_size(image) == (43, 32)


@pytest.mark.parametrize(("size", "expected"), [((128, 96), (64, 48)), ((100, 75), (64, 48)), ((30, 64), (32, 64))])
def test_working_size(network: MicKeyNetwork, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network.working_size(torch.zeros(1, 3, size[1], size[0])) == expected


def test_keypoints_are_in_pixels_of_the_photo(network: MicKeyNetwork, generator: torch.Generator) -> None:
    small = torch.rand(1, 3, 48, 64, generator=generator)
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.allclose(nn.functional.interpolate(large, size=(48, 64), mode="area"), small, atol=1e-6)
    maps = network(small)
    one = network.locate(maps, small, Camera.stack([camera(64, 48, 50.0)]))
    two = network.locate(maps, large, Camera.stack([camera(128, 96, 100.0)]))
    torch.testing.assert_close(two.uv, 2 * (one.uv + 0.5) - 0.5)
    torch.testing.assert_close(two.depth, one.depth)
    assert float(one.uv.min()) >= -0.5 and bool((one.uv <= torch.tensor([63.5, 47.5])).all())


def test_depth_grows_with_the_focal_length(network: MicKeyNetwork, generator: torch.Generator) -> None:
    image = torch.rand(2, 3, 48, 64, generator=generator)
    maps = network(image)
    assert bool((maps.depth > 0).all())
    found = network.locate(maps, image, Camera.stack([camera(64, 48, 50.0), camera(64, 48, 125.0)]))
    plain = maps.depth.flatten(1)
    torch.testing.assert_close(found.depth, plain * torch.tensor([[1.0], [2.5]]))


def test_the_same_weights_look_at_larger_photos(network: MicKeyNetwork, generator: torch.Generator) -> None:
    larger = network.looking_at(128)
    assert larger.config == dataclasses.replace(COMPACT, longest_side=128, depth_side=64)
    assert network.config == COMPACT and larger.looking_at(96).config.depth_side == 64
    torch.manual_seed(1)
    other = MicKeyNetwork(dataclasses.replace(COMPACT, longest_side=128)).eval()
    other.load_state_dict(network.state_dict())
    image, cameras = torch.rand(1, 3, 96, 128, generator=generator), Camera.stack([camera(128, 96, 90.0)])
    found, expected, depth = larger.detect(image, cameras), other.detect(image, cameras), network.detect(image, cameras)
    assert torch.equal(found.uv, expected.uv) and torch.equal(found.descriptor, expected.descriptor)
    assert found.grid == (12, 16) and depth.grid == (6, 8)
    # a coarse cell's own depth lies within those of the four fine cells it became, corners keep it exactly
    fine, coarse = found.depth.reshape(12, 16), depth.depth.reshape(6, 8)
    torch.testing.assert_close(fine[::11, ::15], coarse[::5, ::7])
    torch.testing.assert_close(fine[1:3, 1:3].log().mean(), coarse[:2, :2].log().mean(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="longest_side"):
        MicKeyNetwork(dataclasses.replace(COMPACT, longest_side=None)).looking_at(64)
    with pytest.raises(ValueError, match="depth_side"):
        dataclasses.replace(COMPACT, longest_side=None, depth_side=64)


def test_configurations_go_through_json(network: MicKeyNetwork) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(COMPACT)))
    assert MicKeyConfig.from_dict(values) == COMPACT
    for change, message in (
        ({"longest_side": 0}, "longest_side must be positive"),
        ({"canonical_focal": -1.0}, "canonical_focal must be positive"),
        ({"max_depth": 5.0}, "exclude each other"),
        ({"backbone": {"variant": "lite9"}}, "lite9"),
    ):
        with pytest.raises(ValueError, match=message):
            MicKeyConfig.from_dict({**values, **change})


def scene(generator: torch.Generator, f: float = 50.0) -> Pair:
    """A wall with a random picture, 2 m away; the second camera stands 0.25 m to the right (6.25 px)."""
    wall = torch.rand(1, 3, 24, 44, generator=generator)
    wall = nn.functional.interpolate(wall, size=(48, 88), mode="bilinear")[0]
    pose = Pose(torch.eye(3), torch.tensor([-0.32, 0.0, 0.0]))
    cam, depth = camera(64, 48, f), torch.full((48, 64), 2.0)
    views = [View(wall[..., s : s + 64], cam, depth=depth) for s in (0, 8)]
    return Pair(views[0], views[1], pose)


def test_training_saves_what_from_pretrained_loads(tmp_path: Path, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    solver = SolverConfig(set_size=64, num_sets=3)
    training = MicKeyTraining(
        MicKeyNetwork(COMPACT), supervision=SupervisionConfig(alone=9), finding=PoseFinding(solver)
    )
    training.train()
    weights_id = training.save_pretrained(tmp_path)
    assert training.network.training
    loaded = MicKey.from_pretrained(tmp_path)
    assert loaded.weights_id == weights_id and loaded.solver == solver and loaded.network.config == COMPACT
    pair = scene(generator)
    one, two = (model.relative_pose(pair.view0, pair.view1, seed=3) for model in (loaded, training.model()))
    assert bool(one.success) and torch.equal(one.pose.t, two.pose.t)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        MicKey.from_pretrained(tmp_path)


def test_photos_must_have_the_working_size(generator: torch.Generator) -> None:
    training = MicKeyTraining(MicKeyNetwork(dataclasses.replace(COMPACT, longest_side=32)))
    with pytest.raises(ValueError, match=r"working size \(32, 24\), got \(64, 48\)"):
        training.training_step(PairBatch.from_pairs([scene(generator)]), 0, generator)


def test_originals_of_one_size(generator: torch.Generator) -> None:
    batch = PairBatch.from_pairs([scene(generator)] * 2, original_size=(640, 480))
    assert batch.original0 is not None
    torch.testing.assert_close(batch.original0.f, torch.full((2, 2), 500.0))
    torch.testing.assert_close(batch.original0.c, torch.tensor([[319.5, 239.5]] * 2))
    assert batch.camera0.size.tolist() == [[64, 48]] * 2


@pytest.mark.slow
def test_supervision_learns_depth_and_matches(generator: torch.Generator) -> None:
    """A few dozen steps on two pairs: the depth error halves, and so do offsets and matches improve."""
    torch.manual_seed(1)
    training = MicKeyTraining(
        MicKeyNetwork(COMPACT), supervision=SupervisionConfig(alone=1000, offset=0.2, log_depth=True)
    ).train()
    training.network.backbone.encoder.requires_grad_(False)  # type: ignore[union-attr]
    optimizer = torch.optim.Adam([p for p in training.parameters() if p.requires_grad], 3e-3)
    batch = PairBatch.from_pairs([scene(generator), scene(generator)])
    history = []
    for step in range(40):
        output = training.training_step(batch, step, generator)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        history.append(output.metrics)
    for name, share in (("loss_depth", 0.3), ("loss_match", 0.8), ("loss_offset", 0.95)):
        assert history[-1][name] < share * history[0][name], (name, history[0][name], history[-1][name])


def test_logarithmic_depth_loss() -> None:
    true = torch.tensor([[2.0, 4.0, 0.0]])
    for factor in (0.5, 2.0):
        assert float(depth_loss(factor * true + 0.0, true, True)) == pytest.approx(0.6931, abs=1e-4)
    assert float(depth_loss(-true, true, True)) < 20  # a wrong sign costs much, but is finite


def test_offset_loss_is_zero_for_consistent_keypoints() -> None:
    """Keypoints that the same motion maps onto each other cost nothing; moving one costs its distance in cells."""
    uv0 = torch.tensor([[[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]]])
    cam = Camera.stack([camera(24, 8, 20.0)])
    depth = torch.full((1, 8, 24), 2.0)
    move = Pose(torch.eye(3)[None], torch.tensor([[-0.8, 0.0, 0.0]]))  # 8 pixels to the left
    seen = visibility(uv0, (depth, depth), (cam, cam), move, (1, 3), 8)
    assert isinstance(seen, Visibility) and seen.seen.tolist() == [[False, True, True]]
    assert seen.partner[0, 1:].tolist() == [0, 1]
    assert float(offset_loss(uv0, seen, 8)) == pytest.approx(0.0, abs=1e-6)
    moved = uv0.clone().requires_grad_()
    loss = offset_loss(moved + torch.tensor([2.0, -1.0]), seen, 8)
    assert float(loss.detach()) == pytest.approx(3 / 8, abs=1e-6)
    loss.backward()
    assert moved.grad is not None and bool((moved.grad[0, :2] != 0).all()) and bool((moved.grad[0, 2] == 0).all())
