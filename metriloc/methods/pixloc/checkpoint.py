"""The released PixLoc checkpoints -> ours: names stay, shapes tell the network, and the stored configuration is read
where it still means something.

Released files are ``{"model": tensors, "conf": {...}, "eval": ...}``. Configurations come from several versions of the
published code: keys that no longer do anything are passed over, those with another name are understood.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metriloc.backbones.resnet import ResNetConfig, is_resnet, resnet_config_from_weights
from metriloc.backbones.vgg import VGGConfig, vgg_config_from_weights
from metriloc.io.files import InputError
from metriloc.io.stand_ins import stand_ins
from metriloc.io.weights import load_state_dict_strictly, read_checkpoint, require_finite
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import CostConfig, RobustCost
from metriloc.methods.pixloc.network import NetworkConfig, PixLocNetwork, UNetConfig
from metriloc.methods.pixloc.other_networks import S2DNetConfig
from metriloc.methods.pixloc.settings import LocalizeConfig, Settings, save_pretrained

_LOSS = re.compile(
    r"\s*(scaled_barron|scaled_huber|barron|huber_loss|huber|squared_loss|squared)\s*(?:\(([^()]*)\))?\s*"
)
_S2DNET_HEADS = "adaptation_layers.adap_layer_"
_NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")


def convert_checkpoint(path: str | Path, folder: str | Path) -> str:
    """A released (or trained with the published code) checkpoint -> a weights folder; returns the weights id.

    Raises InputError for a file that is no PixLoc checkpoint, naming the first tensor that does not fit or holds NaN.
    """
    content = read_released(path)
    try:
        network, settings = from_official(content, f"'{path}'")
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"'{path}': {error}") from error
    require_finite(network.state_dict(), f"'{path}'")
    return save_pretrained(network, folder, settings)


def read_released(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint. Released files hold NumPy numbers among their metrics, for which inert objects stand;
    nothing that would run code is let through."""
    with stand_ins(_NUMPY):
        return read_checkpoint(path)


def is_official(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's content has features of PixLoc in it (of MicKey's, ``extractor.`` holds no encoder), or is
    S2DNet alone."""
    tensors = _named(content)
    return isinstance(tensors, Mapping) and any(key.startswith("extractor.encoder.") for key in tensors)


def _named(content: Mapping[str, Any]) -> Any:
    """The tensors under the names of a whole model: without those of wrappers; of S2DNet's own file with ``extractor.``.

    What is no table of tensors is given back as it is.
    """
    tensors = content.get("model", content.get("state_dict", content))
    if not isinstance(tensors, Mapping):
        return tensors
    named = {str(key).removeprefix("module."): value for key, value in tensors.items()}
    if any(key.startswith(_S2DNET_HEADS) for key in named):
        named = {f"extractor.{key}": value for key, value in named.items()}
    return named


def from_official(content: Mapping[str, Any], source: str = "the PixLoc checkpoint") -> tuple[PixLocNetwork, Settings]:
    """Network and settings of a checkpoint's content.

    That is ``{"model": ..., "conf": ...}``, the tensors alone, or S2DNet's file. The encoder is
    inferred from the tensors. source: how errors call it. Raises ValueError naming the first tensor
    that is missing, unexpected or of another shape, and for a configuration that this library
    cannot follow.
    """
    tensors = _named(content)
    if not isinstance(tensors, Mapping) or not any(key.startswith("extractor.") for key in tensors):
        raise ValueError("not a PixLoc checkpoint: it has no tensors named 'extractor...'")
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"not a PixLoc checkpoint: {key!r} is a {type(value).__name__}, not a tensor")
    conf = _model_conf(content.get("conf"))
    settings = settings_from_conf(conf, network_from_tensors(tensors, conf))
    with torch.device("meta"):
        network = PixLocNetwork(settings.network)
    floats = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    load_state_dict_strictly(network, floats, source)
    return network.eval(), settings


def network_from_tensors(tensors: Mapping[str, Tensor], conf: Mapping[str, Any] | None = None) -> NetworkConfig:
    """The network that tensors were made for. What shapes do not tell (the levels, kinds of pooling, the range of the
    damping) comes from ``conf``, the ``model`` part of a stored configuration, or is as published."""
    conf = conf or {}
    extractor, optimizer = _mapping(conf.get("extractor")), _mapping(conf.get("optimizer"))

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}

    low, high = _range(_mapping(optimizer.get("damping")), "log_range", (-6.0, 5.0))
    damping = {key for key in tensors if key.endswith("dampingnet.const")}
    shared = "optimizer.dampingnet.const" in damping
    if any(key.startswith(f"extractor.{_S2DNET_HEADS}") for key in tensors):
        return NetworkConfig(_s2dnet_config(part("extractor.")), bool(damping), shared, (low, high))
    heads = _widths(part("extractor.adaptation."), ".0.weight")
    decoder = _widths(part("extractor.decoder."), ".layers.0.weight")
    levels = tuple(_wholes(extractor, "output_scales"))
    if len(levels) != len(heads):
        levels = tuple(range(0, 2 * len(heads), 2))
    return NetworkConfig(
        extractor=UNetConfig(
            encoder=_encoder_config(part("extractor.encoder."), _flag(extractor, "do_average_pooling", False)),
            decoder=decoder or None,
            levels=levels,
            channels=heads,
            batch_norm=any(".layers.1.running_mean" in key for key in tensors),
            confidences=any(key.startswith("extractor.uncertainty.") for key in tensors),
        ),
        learned_damping=bool(damping),
        shared_damping=shared,
        damping_range=(low, high),
    )


def _encoder_config(tensors: Mapping[str, Tensor], average_pooling: bool) -> VGGConfig | ResNetConfig:
    if is_resnet(tensors):
        return resnet_config_from_weights(tensors)
    return vgg_config_from_weights(tensors, average_pooling)


def _s2dnet_config(tensors: Mapping[str, Tensor]) -> S2DNetConfig:
    """The usual taps; widths by shapes."""
    heads = {key.split(".")[1] for key in tensors if key.startswith(_S2DNET_HEADS)}
    usual = S2DNetConfig()
    first, last = (tensors.get(f"{_S2DNET_HEADS}0.{place}.weight") for place in (0, 2))
    if len(heads) != len(usual.layers) or first is None or last is None:
        raise ValueError(f"S2DNet with heads {sorted(heads)}: only the usual {', '.join(usual.layers)} are known")
    return S2DNetConfig(usual.layers, channels=last.shape[0], hidden=first.shape[0])


def settings_from_conf(conf: Mapping[str, Any], network: NetworkConfig) -> Settings:
    """The loop as a checkpoint's configuration describes it, with as many iterations as inference takes (100).

    Old names: ``pad`` stands for a margin with linear interpolation. Keys without meaning are passed over.
    """
    optimizer = _mapping(conf.get("optimizer"))
    interpolation = _mapping(optimizer.get("interpolation"))
    if "pad" in optimizer:
        interpolation = {"pad": optimizer["pad"]}
    mode = str(interpolation.get("mode", "linear"))
    if mode not in ("linear", "cubic"):
        raise ValueError(f"the configuration wants interpolation {mode[:40]!r}: only 'linear' and 'cubic' exist")
    cost = CostConfig(
        loss=parse_loss(str(optimizer.get("loss_fn", "scaled_barron(0, 0.1)"))),
        mode="cubic" if mode == "cubic" else "linear",
        pad=_whole(interpolation, "pad", CostConfig.pad),
        normalize_features=_flag(optimizer, "normalize_features", False),
    )
    published = AlignConfig()
    # S2DNet's own file says nothing of a loop: Levenberg-Marquardt, as published for features without damping
    alone = isinstance(network.extractor, S2DNetConfig) and not optimizer
    loop = AlignConfig(
        cost=cost,
        damping="learned" if network.learned_damping else "adaptive" if alone else "fixed",
        initial_damping=_number(optimizer, "lambda_", published.initial_damping, absent=0.0),
        jacobi_scaling=_flag(optimizer, "jacobi_scaling", False),
        stop_gradient=_number(optimizer, "grad_stop_criteria", published.stop_gradient),
        stop_translation=_number(optimizer, "dt_stop_criteria", published.stop_translation),
        stop_rotation_deg=_number(optimizer, "dR_stop_criteria", published.stop_rotation_deg),
    )
    choices = dataclasses.replace(
        LocalizeConfig(),
        normalize_features=_flag(conf, "normalize_features", True),
        use_confidences=network.extractor.confidences,
    )
    return Settings(network, loop, choices)


def parse_loss(text: str) -> RobustCost:
    """A loss as published configurations write it: ``squared_loss``, ``huber_loss``, ``scaled_barron(0, 0.1)``.

    Raises ValueError for anything else (the published code runs the text as a program).
    """
    found = _LOSS.fullmatch(text)
    numbers = [part.split("=")[-1].strip() for part in (found[2] or "").split(",") if part.strip()] if found else []
    wanted = {"scaled_barron": 2, "scaled_huber": 1, "barron": 1}.get(found[1], 0) if found else -1
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = []
    if not found or len(values) != wanted:
        raise ValueError(f"the loss {text[:60]!r} is not known: squared_loss, huber_loss, scaled_barron(alpha, scale)")
    if found[1].startswith("squared"):
        return RobustCost("squared", scale=1.0)
    if "huber" in found[1]:
        return RobustCost("huber", scale=values[0] if values else 1.0)
    return RobustCost("barron", values[0], values[1] if len(values) > 1 else 1.0)


def _model_conf(conf: Any) -> Mapping[str, Any]:
    conf = _mapping(conf)
    return _mapping(conf.get("model", conf))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    found = values.get(name, default)
    if found is not None and not isinstance(found, bool):
        raise ValueError(f"the configuration's {name} must be true or false, got {str(found)[:40]}")
    return bool(found)


def _number(values: Mapping[str, Any], name: str, default: float, absent: float | None = None) -> float:
    """absent: what an entry of None stands for."""
    found = values.get(name, default)
    if found is None and absent is not None:
        return absent
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not -1e300 < found < 1e300:
        raise ValueError(f"the configuration's {name} must be a finite number")
    return float(found)


def _whole(values: Mapping[str, Any], name: str, default: int) -> int:
    found = _number(values, name, default)
    if found != int(found):
        raise ValueError(f"the configuration's {name} must be a whole number, got {found}")
    return int(found)


def _wholes(values: Mapping[str, Any], name: str) -> list[int]:
    found = values.get(name)
    if found is None:
        return []
    if not isinstance(found, (list, tuple)) or len(found) > 100:
        raise ValueError(f"the configuration's {name} must be a short list of whole numbers")
    return [_whole({name: value}, name, 0) for value in found]


def _range(values: Mapping[str, Any], name: str, default: tuple[float, float]) -> tuple[float, float]:
    found = values.get(name, default)
    if not isinstance(found, (list, tuple)) or len(found) != 2:
        raise ValueError(f"the configuration's {name} must be two numbers")
    return _number({name: found[0]}, name, 0.0), _number({name: found[1]}, name, 0.0)


def _widths(tensors: Mapping[str, Tensor], suffix: str) -> tuple[int, ...]:
    found = {int(k.split(".")[0]): v.shape[0] for k, v in tensors.items() if k.endswith(suffix) and k[0].isdigit()}
    return tuple(found[number] for number in sorted(found))
