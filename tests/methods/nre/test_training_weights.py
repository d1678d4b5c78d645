"""Networks NRE trains: how they start, and how trained ones are stored, found again and used."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from metriloc.io import InputError
from metriloc.methods.nre.features import NREFeatures
from metriloc.methods.nre.model import NRE
from metriloc.methods.nre.network import IMAGENET_MEAN, IMAGENET_STD, NRENetwork, NRENetworkConfig
from metriloc.methods.nre.trained import (
    TrainedConfig,
    load_inception,
    load_trained,
    load_trained_features,
    make_network,
)
from metriloc.methods.nre.training import NRETraining, NRETrainingConfig
from metriloc.methods.nre.training_points import PointPair


def _pair(generator, size=(96, 64), n=30) -> PointPair:
    images = [torch.rand(3, size[1], size[0], generator=generator) for _ in range(2)]
    uv = torch.rand(n, 2, generator=generator) * torch.tensor([size[0] - 17.0, size[1] - 17.0])
    return PointPair(images[0], images[1], uv, uv.clone())


@pytest.mark.parametrize("architecture, cells", [("coarse", 6 * 4), ("coarse8", 12 * 8), ("fine", 48 * 32)])
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_random_networks_of_the_paper_start_at_a_uniform_map(generator, architecture, cells, statistics):
    trained = TrainedConfig(architecture)
    config = NRETrainingConfig(points=20, statistics=statistics)
    method = NRETraining(trained, make_network(trained, generator), config).train()
    found = method.training_step([_pair(generator)], 0, generator)
    assert found.metrics["ln_cells"] == pytest.approx(math.log(cells))
    if statistics == "batch":  # stored statistics that nobody measured promise nothing
        assert found.metrics["nre"] == pytest.approx(math.log(cells), rel=0.1)
    assert found.loss.isfinite()


def test_the_same_generator_makes_the_same_network():
    first, second = (
        make_network(TrainedConfig("fine"), torch.Generator().manual_seed(3)).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("architecture", ["coarse", "fine"])
def test_networks_come_back_as_they_were_saved(tmp_path, generator, architecture):
    method = NRETraining(TrainedConfig(architecture), make_network(TrainedConfig(architecture), generator))
    identity = method.save_pretrained(tmp_path)
    assert identity.startswith("nre-")
    again = NRETraining.from_pretrained(tmp_path)
    assert again.trained == method.trained and again.config == NRETrainingConfig()
    own, other = method.network.state_dict(), again.network.state_dict()
    assert own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)
    assert len(own) == (462 if architecture == "coarse" else 162), "the names of the published weights"
    features, found = load_trained_features(tmp_path)
    assert found == identity and isinstance(features, NREFeatures)
    image = torch.rand(3, 64, 96, generator=generator)
    with torch.no_grad():
        wanted = method.network.eval()(image[None])[0]
    torch.testing.assert_close(features.dense(image).descriptors, wanted, atol=1e-4, rtol=1e-4)


def test_xfeat_comes_back_and_is_an_xfeat_file(tmp_path, generator):
    pytest.importorskip("kornia")
    from metriloc.io.local_features import load_extractor

    trained = TrainedConfig("xfeat", 0.05)
    method = NRETraining(trained, make_network(trained, generator), NRETrainingConfig(learn_temperature=True))
    with torch.no_grad():
        method.log_temperature += 0.3
    method.save_pretrained(tmp_path)
    config, network, _ = load_trained(tmp_path)
    assert config.architecture == "xfeat" and config.temperature == pytest.approx(0.05 * math.exp(0.3))
    trains = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trains and not any(head in name for name in trains for head in network.HEADS)
    image = torch.rand(3, 64, 96, generator=generator)
    with torch.no_grad():
        wanted = method.network.eval()(image[None])[0]
    found, _ = load_trained_features(tmp_path)
    assert found.temperature == pytest.approx(config.temperature)
    torch.testing.assert_close(found.dense(image).descriptors, wanted, atol=1e-5, rtol=1e-5)
    plain, _ = load_extractor("xfeat", tmp_path / "model.safetensors")
    torch.testing.assert_close(plain.dense(image).descriptors, wanted, atol=1e-5, rtol=1e-5)
    assert plain.temperature == 0.02, "the temperature of other XFeats is left alone"


def test_the_localizer_takes_trained_networks(tmp_path, generator):
    for architecture in ("coarse", "fine"):
        trained = TrainedConfig(architecture)
        NRETraining(trained, make_network(trained, generator)).save_pretrained(tmp_path / architecture)
    nre = NRE.from_features("nre", weights=[str(tmp_path / "coarse"), str(tmp_path / "fine" / "model.safetensors")])
    assert nre.name == "nre-nre" and nre.weights_id.count("nre-") == 2
    assert nre.config.coarse.longest_side == nre.config.fine.longest_side == 1600
    assert nre.coarse.temperature == nre.fine.temperature == 1.0


def test_the_localizer_takes_a_trained_xfeat(tmp_path, generator):
    pytest.importorskip("kornia")
    trained = TrainedConfig("xfeat", 0.03)
    NRETraining(trained, make_network(trained, generator)).save_pretrained(tmp_path)
    nre = NRE.from_features("nre", weights=[str(tmp_path)] * 2)
    assert nre.name == "nre-xfeat" and nre.coarse.temperature == pytest.approx(0.03)
    assert (nre.config.coarse.longest_side, nre.config.fine.longest_side) == (800, 1600)
    assert nre.config.coarse.temperature is None, "the learned temperature is used"
    assert nre.config.fine.temperature == pytest.approx(0.015)


@pytest.mark.parametrize("damage", ["method", "architecture", "temperature", "tensor", "folder"])
def test_damaged_folders_are_refused(tmp_path, generator, damage):
    trained = TrainedConfig("fine")
    network = make_network(trained, generator)
    if damage == "tensor":
        network.cnn[9] = nn.Identity()
    NRETraining(trained, network).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config |= {"method": "mickey"} if damage == "method" else {}
    config |= {"architecture": "vgg"} if damage == "architecture" else {}
    config |= {"temperature": -1} if damage == "temperature" else {}
    path.write_text(json.dumps(config))
    with pytest.raises(InputError) as error:
        load_trained(tmp_path / "nothing" if damage == "folder" else tmp_path)
    assert str(tmp_path) in str(error.value)


def test_wrong_descriptions_raise():
    with pytest.raises(ValueError, match="vgg"):
        TrainedConfig("vgg")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0"):
        TrainedConfig("fine", 0.0)


def _inception_like(generator) -> dict[str, torch.Tensor]:
    """Tensors under torchvision's names, with random values, of the layers the fine network shares."""
    names = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
    names += ("Mixed_5b", "Mixed_5c", "Mixed_5d")
    tensors = {"fc.weight": torch.zeros(1000, 2048)}
    for key, value in NRENetwork(NRENetworkConfig("fine")).state_dict().items():
        _, index, rest = key.split(".", 2)
        if int(index) < len(names):
            shape = (80, 64, 1, 1) if (index, rest) == ("3", "conv.weight") else value.shape
            new = torch.rand(shape, generator=generator) if value.is_floating_point() else value
            tensors[f"{names[int(index)]}.{rest}"] = new
    return tensors


def test_inception_weights_are_taken_where_they_fit(generator):
    tensors = _inception_like(generator)
    given = {key: value.clone() for key, value in tensors.items()}
    network = NRENetwork(NRENetworkConfig("fine"))
    before = network.state_dict()["cnn.3.conv.weight"].clone()
    taken = load_inception(network, tensors, "fine")
    state = network.state_dict()
    # all but the head (1 + 5 tensors) and the 3x3 that is 1x1 there
    assert taken == 162 - 6 - 1
    assert torch.equal(state["cnn.3.conv.weight"], before)
    assert torch.equal(state["cnn.7.branch5x5_2.bn.running_var"], tensors["Mixed_5d.branch5x5_2.bn.running_var"])
    assert all(torch.equal(given[key], tensors[key]) for key in given), "inputs are not written to"
    with pytest.raises(ValueError, match="Inception"):
        load_inception(network, {"a": torch.zeros(1)}, "fine")


def test_inception_sees_its_own_input_range(generator):
    tensors = _inception_like(generator)
    network = NRENetwork(NRENetworkConfig("fine")).eval()
    load_inception(network, tensors, "fine")
    image = torch.rand(1, 3, 15, 17, generator=generator)
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    # Inception was trained on images in -1..1
    raw = nn.functional.conv2d(2 * image - 1, tensors["Conv2d_1a_3x3.conv.weight"], stride=2, padding=1)
    prefix = "Conv2d_1a_3x3.bn."
    wanted = nn.functional.batch_norm(
        raw,
        tensors[prefix + "running_mean"],
        tensors[prefix + "running_var"],
        tensors[prefix + "weight"],
        tensors[prefix + "bias"],
        eps=1e-3,
    ).relu()
    with torch.no_grad():
        found = network.cnn[0]((image - mean) / std)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-4, rtol=1e-4)
