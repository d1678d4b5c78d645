"""The Inception networks: names and shapes of the published weights, golden outputs, folding, sizes."""

from __future__ import annotations

import csv
import zlib

import numpy as np
import pytest
import torch

from metriloc.methods.nre.network import IMAGENET_MEAN, IMAGENET_STD, NRENetwork, NRENetworkConfig


def name_seeded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights drawn from the names of the tensors, as the golden bundle's README says."""

    def draw(key: str, shape: tuple[int, ...]):
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        if key.endswith("num_batches_tracked"):
            return np.zeros(shape)
        if len(shape) == 4:
            return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        if key.endswith("running_var"):
            return 1 + 0.2 * rng.random(shape)
        if key.endswith(("running_mean", "bias")):
            return 0.1 * rng.standard_normal(shape)
        return 1 + 0.1 * rng.standard_normal(shape)

    return {key: torch.as_tensor(draw(key, tuple(v.shape))).to(v.dtype) for key, v in state.items()}


@pytest.mark.parametrize(("level", "count"), [("coarse", 462), ("fine", 162)])
def test_names_shapes_and_order_are_the_published_ones(shared, level, count):
    with open(shared("spec/nre_state_dict.tsv"), newline="") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if row[0] == level]
    with torch.device("meta"):
        state = NRENetwork(NRENetworkConfig(level)).state_dict()
    found = [[level, k, "x".join(map(str, v.shape)) or "scalar", str(v.dtype).split(".")[1]] for k, v in state.items()]
    assert len(rows) == count and found == rows


@pytest.mark.parametrize("level", ["coarse", "fine"])
@torch.no_grad()
def test_golden_outputs_layers_and_folding(golden, level):
    data = golden(f"n_net_{level}")
    network = NRENetwork(NRENetworkConfig(level)).eval()
    network.load_state_dict(name_seeded(network.state_dict()))
    folded = network.fold()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    for parity in ("even", "odd"):
        image, expected = data[f"input_{parity}"], data[f"output_{parity}"]
        torch.testing.assert_close(network.cnn(image), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(folded.cnn(image), expected, rtol=0, atol=1e-4)
        # the golden images are normalised already; ours takes RGB in 0..1
        std, mean = (torch.tensor(v)[:, None, None] for v in (IMAGENET_STD, IMAGENET_MEAN))
        torch.testing.assert_close(network(image * std + mean), expected, rtol=0, atol=1e-3)
    x = data["input_odd"]
    for layer, stats in zip(network.cnn, data["layer_stats_odd"], strict=True):
        x = layer(x)
        assert any(abs(float(x.mean()) - float(s)) < 1e-4 for s in stats)
        assert any(abs(float(x.std()) - float(s)) < 1e-3 for s in stats)


@pytest.mark.parametrize(
    ("config", "stride", "channels"),
    [
        (NRENetworkConfig("coarse"), 16, 1280),
        (NRENetworkConfig("coarse", no_maxpool=True), 8, 1280),
        (NRENetworkConfig("fine"), 2, 288),
    ],
)
@torch.no_grad()
def test_sizes(config, stride, channels):
    assert (config.stride, config.channels) == (stride, channels)
    network = NRENetwork(config).eval()
    for h, w in ((33, 50), (32, 48)):
        out = network(torch.rand(1, 3, h, w))
        assert out.shape == (1, channels, -(-h // stride), -(-w // stride))


def test_folding_leaves_the_network_alone_and_training_works():
    network = NRENetwork(NRENetworkConfig("fine"))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.fold()
    assert network.training and all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    network(torch.rand(1, 3, 24, 24)).square().mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="'medium'"):
        NRENetworkConfig("medium")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no_maxpool"):
        NRENetworkConfig("fine", no_maxpool=True)
    with pytest.raises(ValueError, match="configuration"):
        NRENetworkConfig.from_dict({"depth": 3})
    assert NRENetworkConfig.from_dict({"level": "fine"}) == NRENetworkConfig("fine")
    with pytest.raises(ValueError, match=r"\[3, 8, 8\]"):
        NRENetwork(NRENetworkConfig("fine"))(torch.rand(3, 8, 8))
