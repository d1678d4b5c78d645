"""Official checkpoints: every container Lightning may have used is read, and nothing of a file is run."""

from __future__ import annotations

import os
import pickle
import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from metriloc.io import InputError
from metriloc.io.stand_ins import plain
from metriloc.methods.nre.checkpoint import from_official, read_official
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig


@pytest.fixture(scope="module")
def fine() -> NRENetwork:
    return NRENetwork(NRENetworkConfig("fine")).eval()


@pytest.fixture()
def foreign(monkeypatch):
    """``foreign("pytorch_lightning.utilities.parsing", "AttributeDict", dict)`` makes a class that pickles as that."""

    def make(module: str, name: str, base: type = object) -> type:
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            part = ".".join(parts[:i])
            if part not in sys.modules:
                monkeypatch.setitem(sys.modules, part, ModuleType(part))
        found = type(name, (base,), {"__module__": module})
        monkeypatch.setattr(sys.modules[module], name, found, raising=False)
        return found

    return make


def test_lightning_file_with_its_classes(fine, tmp_path, foreign):
    table = foreign("pytorch_lightning.utilities.parsing", "AttributeDict", dict)
    node = foreign("omegaconf.dictconfig", "DictConfig")()
    value = foreign("omegaconf.nodes", "IntegerNode")()
    value.__dict__.update(_val=100, _metadata=None)
    node.__dict__.update(_content={"resize": value}, _parent=None)
    callback = foreign("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    hyper = table(level="fine", extraction_layer="Mixed_5d", minibatch_size=16, image=node)
    content = {"epoch": 3, "state_dict": fine.state_dict(), "hyper_parameters": hyper, "callbacks": {callback: {}}}
    torch.save(content, tmp_path / "fine.ckpt")
    network = read_official(tmp_path / "fine.ckpt")
    assert network.config == NRENetworkConfig("fine") and not network.training
    image = torch.rand(1, 3, 20, 30)
    with torch.no_grad():
        torch.testing.assert_close(network(image), fine(image))


def test_bare_state_dict_and_safetensors(fine, tmp_path):
    torch.save(fine.state_dict(), tmp_path / "a.pth")
    save_file(fine.state_dict(), tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        state = read_official(tmp_path / name).state_dict()
        assert all(torch.equal(v, state[k]) for k, v in fine.state_dict().items())


@pytest.mark.parametrize("no_maxpool", [False, True])
def test_level_comes_from_the_keys(no_maxpool):
    with torch.device("meta"):
        state = NRENetwork(NRENetworkConfig("coarse", no_maxpool)).state_dict()
    config, tensors = from_official({"state_dict": state})
    assert config == NRENetworkConfig("coarse", no_maxpool) and len(tensors) == 462


def test_hyper_parameters_that_disagree_only_warn(fine):
    with pytest.warns(UserWarning, match=r"level = 'coarse'.*'fine'"):
        config, _ = from_official({"state_dict": fine.state_dict(), "hyper_parameters": {"level": "coarse"}})
    assert config.level == "fine"


def test_what_does_not_fit_is_named(fine, tmp_path):
    state = fine.state_dict()
    short = {k: v for k, v in state.items() if k != "cnn.5.branch1x1.conv.weight"}
    with pytest.raises(ValueError, match=r"'cnn.5.branch1x1.conv.weight' is missing"):
        from_official(short)
    with pytest.raises(ValueError, match=r"'cnn.9.extra'"):
        from_official({**state, "cnn.9.extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"'cnn.9.bias' has shape \[3\], expected \[288\]"):
        from_official({**state, "cnn.9.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="neither"):
        from_official({"cnn.0.conv.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="'epoch'"):
        from_official({"epoch": 3})
    with pytest.raises(ValueError, match="is a list"):
        from_official({"state_dict": []})
    torch.save({**state, "cnn.9.bias": torch.full((288,), torch.nan)}, tmp_path / "nan.ckpt")
    with pytest.raises(InputError, match=r"nan.ckpt.*'cnn.9.bias'"):
        read_official(tmp_path / "nan.ckpt")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"other.ckpt.* is not an NRE checkpoint: unexpected entry 'x'"):
        read_official(tmp_path / "other.ckpt")


def test_code_in_a_file_is_not_run(fine, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    torch.save({"state_dict": fine.state_dict(), "hyper_parameters": Attack()}, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=r"bad.ckpt"):
        read_official(tmp_path / "bad.ckpt")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"hyper_parameters": Attack()}))
    with pytest.raises(InputError, match=r"old.ckpt"):
        read_official(tmp_path / "old.ckpt")
    assert not (tmp_path / "run").exists()
    # the stand-ins are only there while a file is read
    assert not any("omegaconf" in str(entry) for entry in torch.serialization.get_safe_globals())


def test_plain_values():
    assert plain({"a": [1, "b", None], "c": (2.5, object())}) == {"a": [1, "b", None], "c": [2.5, None]}
