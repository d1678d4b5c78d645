"""Released checkpoints: tensors under their own names, configurations of any age, and files that are something else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metriloc.backbones.vgg import VGGConfig
from metriloc.io.files import InputError
from metriloc.methods.pixloc import NetworkConfig, PixLoc, PixLocNetwork, RobustCost, UNetConfig
from metriloc.methods.pixloc.checkpoint import convert_checkpoint, from_official, network_from_tensors, parse_loss

CONF: dict[str, Any] = {  # as the two released configurations have it, with keys of older versions
    "data": {"name": "cmu"},
    "model": {
        "name": "two_view_refiner",
        "success_thresh": 3,
        "normalize_features": True,
        "normalize_dt": False,
        "extractor": {"name": "unet", "encoder": "vgg16", "output_scales": [0, 2, 4], "compute_uncertainty": True},
        "optimizer": {
            "name": "learned_optimizer",
            "num_iters": 15,
            "pad": 3,
            "lambda_": 0.01,
            "loss_fn": "scaled_barron(0, 0.1)",
            "learned_damping": True,
            "damping": {"type": "constant", "log_range": [-5, 4]},
            "sqrt_diag_damping": False,
            "bound_confidence": True,
            "no_conditions": True,
            "verbose": False,
            "feature_dim": 128,
        },
    },
    "train": {"lr": 1e-5},
}


def small(convs: tuple[int, ...] = (2, 2, 3, 3, 3), **kind: Any) -> PixLocNetwork:
    """The published layout with narrow layers."""
    torch.manual_seed(0)
    extractor = UNetConfig(VGGConfig(convs, (4, 4, 6, 6, 8)), (6, 6, 6, 4), channels=(4, 8, 8), **kind)
    return PixLocNetwork(NetworkConfig(extractor))


def released(network: PixLocNetwork) -> dict[str, Any]:
    return {
        "model": network.state_dict(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]},
        "conf": CONF,
        "epoch": 3,
        "losses": None,
        "eval": {"loss/total": np.float64(1.25), "n": np.int64(3), "ok": np.bool_(True), "f": np.float32(0.5)},
    }


@pytest.mark.parametrize("convs", [(2, 2, 3, 3, 3), (2, 2, 4, 4, 4), (1, 1, 1, 1, 1)])
def test_round_trip(convs: tuple[int, ...], tmp_path: Path) -> None:
    network = small(convs)
    torch.save(released(network), tmp_path / "checkpoint_best.tar")
    identity = convert_checkpoint(tmp_path / "checkpoint_best.tar", tmp_path / "weights")
    model = PixLoc.from_pretrained(tmp_path / "weights")
    assert model.weights_id == identity
    assert (model.align.damping, model.align.num_iters, model.align.cost.pad) == ("learned", 100, 3)
    assert model.align.cost.loss == RobustCost() and model.align.cost.mode == "linear"
    found, settings = from_official(released(network))
    assert settings.network.extractor.encoder == VGGConfig(convs, (4, 4, 6, 6, 8))
    assert settings.network.damping_range == (-5.0, 4.0)
    for key, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)
    assert not found.training


def test_old_and_new_numpy_names(tmp_path: Path) -> None:
    """Checkpoints from NumPy 1 name its scalars differently."""
    file = tmp_path / "checkpoint.tar"
    torch.save(released(small()), file, pickle_protocol=2, _use_new_zipfile_serialization=False)
    content = file.read_bytes()
    for theirs in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        file.write_bytes(content.replace(b"numpy._core.multiarray", theirs))
        assert convert_checkpoint(file, tmp_path / "weights").startswith("pixloc-")


def test_tensors_alone_and_variants() -> None:
    tensors = {f"module.{key}": value for key, value in small().state_dict().items()}
    network, settings = from_official(tensors)
    assert settings.align.cost.pad == 2 and settings.network == small().config and not network.training
    plain = small(confidences=False, batch_norm=False)
    _, settings = from_official({"model": plain.state_dict()})
    assert settings.network == plain.config and not settings.config.use_confidences
    undamped = {k: v for k, v in small().state_dict().items() if "dampingnet" not in k}
    assert from_official(undamped)[1].align.damping == "fixed"
    shared = {k: v for k, v in undamped.items()} | {"optimizer.dampingnet.const": torch.zeros(6)}
    assert network_from_tensors(shared).shared_damping and from_official(shared)[1].align.damping == "learned"
    two = UNetConfig(VGGConfig((1, 1, 1), (4, 4, 4)), (4, 4), (0, 1), (4, 4))
    state = PixLocNetwork(NetworkConfig(two)).state_dict()
    conf = {"model": {"extractor": {"output_scales": [0, 1]}}}
    assert from_official({"model": state, "conf": conf})[1].network.extractor == two


def test_interpolation_keys() -> None:
    conf = {
        "optimizer": {"interpolation": {"mode": "cubic", "pad": 5}, "loss_fn": "huber_loss", "jacobi_scaling": True}
    }
    settings = from_official({"model": small().state_dict(), "conf": conf})[1]
    assert (settings.align.cost.mode, settings.align.cost.pad) == ("cubic", 5)
    assert settings.align.jacobi_scaling and settings.align.cost.loss == RobustCost("huber", scale=1.0)
    with pytest.raises(ValueError, match="interpolation 'nearest'"):
        from_official({"model": small().state_dict(), "conf": {"optimizer": {"interpolation": {"mode": "nearest"}}}})


def test_losses() -> None:
    assert parse_loss("squared_loss") == RobustCost("squared", scale=1.0)
    assert parse_loss(" scaled_barron( alpha=-2, a=0.3 ) ") == RobustCost("barron", -2.0, 0.3)
    assert parse_loss("barron(1)") == RobustCost("barron", 1.0, 1.0)
    assert parse_loss("scaled_huber(0.5)") == RobustCost("huber", scale=0.5)
    for text in ("__import__('os')", "scaled_barron(0)", "barron(x)", "huber_loss(2)", ""):
        with pytest.raises(ValueError, match="is not known"):
            parse_loss(text)


class Spell:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_files_that_are_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "c.tar", tmp_path / "weights"
    torch.save({"model": {"weight": torch.zeros(1)}}, file)
    with pytest.raises(InputError, match=r"no tensors named 'extractor\.\.\.'"):
        convert_checkpoint(file, out)
    state = dict(small().state_dict())
    missing = {k: v for k, v in state.items() if k != "extractor.adaptation.1.0.bias"}
    torch.save({"model": missing}, file)
    with pytest.raises(InputError, match=r"extractor\.adaptation\.1\.0\.bias"):
        convert_checkpoint(file, out)
    torch.save({"model": state | {"extractor.extra": torch.zeros(1)}}, file)
    with pytest.raises(InputError, match=r"unexpected tensors, the first is 'extractor\.extra'"):
        convert_checkpoint(file, out)
    torch.save({"model": state, "conf": {"optimizer": {"loss_fn": "exec('1')"}}}, file)
    with pytest.raises(InputError, match="is not known"):
        convert_checkpoint(file, out)
    torch.save({"model": state, "eval": Spell()}, file)
    with pytest.raises(InputError, match="not a checkpoint of plain tensors"):
        convert_checkpoint(file, out)
    file.write_bytes(pickle.dumps({"model": Spell()}))
    with pytest.raises(InputError):
        convert_checkpoint(file, out)
    assert "run" not in capsys.readouterr().out and not out.exists()
    with pytest.raises(ValueError, match=r"'extractor\.a' is a int"):
        from_official({"extractor.a": 3})
