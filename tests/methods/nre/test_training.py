"""Training of NRE: the loss against its dense twin, the wrapper, and learning on synthetic pairs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from oracles.nre_maps import neural_reprojection_error
from torch import nn

from metriloc.backbones.local import descriptors_at
from metriloc.datasets.synthetic import SyntheticConfig, make_scene, sample_pair
from metriloc.methods.nre.correlation import (
    correlation_error,
    noisy_centers,
    window_correlation_error,
    window_origin,
)
from metriloc.methods.nre.maps import log_correspondence, window_gain_maps
from metriloc.methods.nre.trained import TrainedConfig
from metriloc.methods.nre.training import NRETraining, NRETrainingConfig
from metriloc.methods.nre.training_points import PointPair, points_from_depth


def _problem(generator, dtype=torch.float64, n=6, channels=4, size=(11, 9)):
    """Descriptors, features, positions: on a cell, in the last corner, and between cells."""
    w, h = size
    descriptors = torch.randn(n, channels, generator=generator, dtype=dtype, requires_grad=True)
    features = torch.randn(channels, h, w, generator=generator, dtype=dtype, requires_grad=True)
    uv = torch.rand(n, 2, generator=generator, dtype=dtype) * torch.tensor([w - 1, h - 1])
    uv[0] = torch.tensor([w - 1, h - 1])
    uv[1] = torch.tensor([3.0, 4.0])
    return descriptors, features, uv


class TinyNetwork(nn.Module):
    """Stride 16 like the coarse network, but quick: four convolutions and the last batch norm of small scale."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = (3, 16, 32, 48, 64)
        for inp, out in itertools.pairwise(widths):
            layers += [nn.Conv2d(inp, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        head = nn.BatchNorm2d(channels)
        nn.init.constant_(head.weight, 0.5 * channels**-0.25)
        self.cnn = nn.Sequential(*layers, nn.Conv2d(64, channels, 1, bias=False), head)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.cnn(image - 0.45)


# -- the loss ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 250, 1 << 20])
def test_equals_the_dense_error_and_its_gradients(generator, dtype, chunk):
    h, f, uv = _problem(generator, dtype)
    dense = neural_reprojection_error(log_correspondence(h, f), uv)
    found = correlation_error(h, f, uv, chunk)
    assert found.error.dtype == dtype
    torch.testing.assert_close(found.error, dense)
    weights = torch.rand(len(uv), generator=generator, dtype=dtype)
    wanted = torch.autograd.grad((dense * weights).sum(), (h, f))
    torch.testing.assert_close(torch.autograd.grad((found.error * weights).sum(), (h, f)), wanted)
    best = log_correspondence(h, f).flatten(1).argmax(-1)
    assert torch.equal(found.peak[:, 1] * 11 + found.peak[:, 0], best)


def test_gradcheck_over_the_map_and_over_windows(generator):
    h, f, uv = _problem(generator, n=4, channels=3, size=(10, 9))
    assert torch.autograd.gradcheck(lambda h, f: correlation_error(h, f, uv, 200).error, (h, f))
    centers = noisy_centers(uv, 8, generator)
    assert torch.autograd.gradcheck(lambda h, f: window_correlation_error(h, f, uv, centers, 8, 400).error, (h, f))
    # equal descriptors and features: the softmax is uniform, a stationary point of the descriptors' gradient
    flat = torch.ones_like(f, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, f: correlation_error(h, f, uv, 200).error, (h, flat))


def test_windows_are_those_of_the_fine_stage(generator):
    h, f, uv = _problem(generator, size=(40, 30))
    centers = noisy_centers(uv, 8, generator)
    maps = window_gain_maps(h.detach(), f.detach(), centers, 8)
    assert torch.equal(window_origin(centers, (40, 30), (9, 9)), maps.origin)
    log_c = (maps.log_ratio - maps.max_gain).double()
    wanted = neural_reprojection_error(log_c, uv - maps.origin)
    found = window_correlation_error(h, f, uv, centers, 8)
    torch.testing.assert_close(found.error, wanted, atol=1e-4, rtol=0)
    assert torch.equal(found.peak, maps.peak_uv)
    assert torch.isfinite(found.error).all(), "a quarter window of noise keeps the position in its window"


def test_a_window_over_the_whole_map_is_the_map(generator):
    h, f, uv = _problem(generator)
    whole = window_correlation_error(h, f, uv, uv, 16)
    torch.testing.assert_close(whole.error, correlation_error(h, f, uv).error)
    grads = [torch.autograd.grad(e.sum(), (h, f)) for e in (whole.error, correlation_error(h, f, uv).error)]
    torch.testing.assert_close(grads[0], grads[1])


def test_uniform_and_perfect_maps(generator):
    uv = torch.tensor([[2.3, 4.7], [5.0, 1.0]])
    uniform = correlation_error(torch.zeros(2, 3), torch.randn(3, 7, 9, generator=generator), uv)
    torch.testing.assert_close(uniform.error, torch.full((2,), math.log(63)))
    # one-hot cells: at an integer position nothing is left, in the middle of four cells ln 4
    cells = torch.eye(63).reshape(63, 7, 9)
    at = torch.tensor([[5.0, 1.0], [2.5, 4.5]])
    h = 1e3 * cells[:, 1, 5], 1e3 * (cells[:, 4, 2] + cells[:, 4, 3] + cells[:, 5, 2] + cells[:, 5, 3])
    perfect = correlation_error(torch.stack(h), cells, at).error
    torch.testing.assert_close(perfect, torch.tensor([0.0, math.log(4)]))


def test_outside_is_infinite_and_gives_no_gradient(generator):
    h, f, uv = _problem(generator)
    uv[2] = torch.tensor([-0.1, 3.0])
    error = correlation_error(h, f, uv).error
    assert error[2] == torch.inf and torch.isfinite(error[[0, 1, 3, 4, 5]]).all()
    inside = error.isfinite()
    grad = torch.autograd.grad(error[inside].sum(), h)[0]
    assert torch.isfinite(grad).all() and not grad[2].any()
    far = window_correlation_error(h, f, uv, uv.flip(0) * 0, 8).error
    assert far[0] == torch.inf


def test_memory_does_not_grow_with_the_points(generator):
    h = torch.randn(400, 8, generator=generator, requires_grad=True)
    f = torch.randn(8, 60, 80, generator=generator, requires_grad=True)
    uv = torch.rand(400, 2, generator=generator) * torch.tensor([79.0, 59.0])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        correlation_error(h, f, uv, 20 * 4800).error.sum()
    # the inputs, four cells a point, and a number a point; one dense map a point would be 1.9 million
    assert sum(kept) < h.numel() + f.numel() + 12 * len(uv)


def test_half_precision_is_widened(generator):
    h, f, uv = _problem(generator, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = correlation_error(h, f, uv).error
    torch.testing.assert_close(found, neural_reprojection_error(log_correspondence(h, f), uv))


@pytest.mark.parametrize("change", ["descriptors", "uv", "chunk", "centers", "window"])
def test_wrong_inputs_raise(generator, change):
    h, f, uv = _problem(generator)
    with pytest.raises(ValueError, match=r"do not fit|chunk|centers|window"):
        if change == "descriptors":
            correlation_error(h[:, :3], f, uv)
        elif change == "uv":
            correlation_error(h, f, uv[:, :1])
        elif change == "chunk":
            correlation_error(h, f, uv, 0)
        elif change == "centers":
            window_correlation_error(h, f, uv, uv[:3])
        else:
            window_correlation_error(h, f, uv, uv, 7)


# -- the wrapper ------------------------------------------------------------------------------------------------------
def _random_pair(generator, size=(96, 64), n=50) -> PointPair:
    image = torch.rand(3, size[1], size[0], generator=generator)
    uv = torch.rand(n, 2, generator=generator) * torch.tensor([size[0] - 17.0, size[1] - 17.0])
    return PointPair(image, torch.rand(3, size[1], size[0], generator=generator), uv, uv.clone())


def _tiny(**options) -> NRETraining:
    torch.manual_seed(0)
    return NRETraining(TrainedConfig("coarse"), TinyNetwork(), NRETrainingConfig(**options))


@pytest.mark.parametrize("maps", ["full", "window", "both"])
def test_a_step_starts_near_ln_of_the_cells_and_gives_gradients(generator, maps):
    method = _tiny(maps=maps, window=8, statistics="batch").train()
    found = method.training_step([_random_pair(generator, (256, 192))], 0, generator)
    cells = 16 * 12 if maps != "window" else 81
    assert found.metrics["ln_cells"] == pytest.approx(math.log(cells), abs=1e-6)
    assert found.metrics["nre"] == pytest.approx(math.log(cells), rel=0.15)
    found.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.network.parameters())
    assert set(found.metrics) == {"nre", "ln_cells", "recall_1", "recall_2", "recall_4", "points", "temperature"}


def test_both_directions_are_averaged(generator):
    pair = _random_pair(generator)
    there = _tiny(both_directions=False).eval()
    back = PointPair(pair.image1, pair.image0, pair.uv1, pair.uv0)
    one, other = (there.training_step([p], 0, generator).loss for p in (pair, back))
    both = _tiny().eval().training_step([pair], 0, generator).loss
    torch.testing.assert_close(both, (one + other) / 2)
    assert one != other


def test_the_loss_is_that_of_the_dense_functions(generator):
    pair, method = _random_pair(generator), _tiny(both_directions=False).eval()
    features = method.network(torch.stack([pair.image0, pair.image1]))
    h = descriptors_at(features[0], pair.uv0 / 16)
    wanted = neural_reprojection_error(log_correspondence(h, features[1]), pair.uv1 / 16).mean()
    torch.testing.assert_close(method.training_step([pair], 0, generator).loss, wanted)


def test_batch_norms_keep_their_statistics_unless_told(generator):
    pair = _random_pair(generator)
    for options, step, changes in (
        ({}, 0, False),
        ({"statistics": "batch"}, 5, True),
        ({"statistics_steps": 3}, 2, True),
        ({"statistics_steps": 3}, 3, False),
    ):
        method = _tiny(**options).train()
        before = method.network.cnn[1].running_mean.clone()
        method.training_step([pair], step, generator)
        assert torch.equal(before, method.network.cnn[1].running_mean) is not changes, options
    frozen = _tiny(statistics="batch").eval()
    before = frozen.network.cnn[1].running_mean.clone()
    frozen.training_step([pair], 0, generator)
    assert torch.equal(before, frozen.network.cnn[1].running_mean), "evaluation never changes statistics"


def test_no_points_is_a_loss_of_zero(generator):
    pair = PointPair(torch.rand(3, 64, 96), torch.rand(3, 64, 96), torch.zeros(0, 2), torch.zeros(0, 2))
    outside = PointPair(pair.image0, pair.image1, torch.full((4, 2), 95.0), torch.full((4, 2), 95.0))
    for batch in ([], [pair], [outside]):
        found = _tiny().train().training_step(batch, 0, generator)
        assert found.loss == 0 and found.metrics["points"] == 0
        found.loss.backward()


def test_photos_of_two_sizes_and_a_limit_of_points(generator):
    first, second = _random_pair(generator, (96, 64)), _random_pair(generator, (128, 96))
    mixed = PointPair(first.image0, second.image1, first.uv0, second.uv1)
    found = _tiny(points=20).eval().training_step([mixed], 0, generator)
    assert found.metrics["points"] == 20
    assert found.metrics["ln_cells"] == pytest.approx((math.log(24) + math.log(48)) / 2)


@pytest.mark.parametrize(
    "options", [{"maps": "none"}, {"statistics": "own"}, {"window": 4}, {"points": 0}, {"window_weight": 0.0}]
)
def test_wrong_settings_raise(options):
    with pytest.raises(ValueError, match="must be"):
        NRETrainingConfig(**options)


# -- learning ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_two_hundred_steps_on_synthetic_pairs_halve_the_loss(generator):
    scene = make_scene(3, SyntheticConfig(sizes=((160, 112),), weights=(1.0, 0.0, 0.0)))
    pairs = [points_from_depth(sample_pair(scene, generator), 150, generator) for _ in range(6)]
    method = _tiny(statistics="batch").train()
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for step in range(200):
        found = method.training_step([pairs[step % len(pairs)]], step, generator)
        optimizer.zero_grad()
        found.loss.backward()
        optimizer.step()
        history.append(found)
    ln_cells = math.log(10 * 7)
    assert history[0].metrics["ln_cells"] == pytest.approx(ln_cells)
    assert sum(float(h.loss.detach()) for h in history[:3]) / 3 == pytest.approx(ln_cells, rel=0.15)
    assert sum(float(h.loss.detach()) for h in history[-6:]) / 6 < ln_cells / 2
    assert sum(h.metrics["recall_1"] for h in history[-6:]) / 6 > 0.8
