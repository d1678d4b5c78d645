"""The published NRE checkpoints (PyTorch Lightning 1.2) -> the networks of this library, with the same tensor names.

A checkpoint says what it is by its keys: the index of the last Inception block tells coarse (with or without the second
pooling) from fine. Its ``hyper_parameters`` are only compared. Lightning stores a few classes beside the tensors; the
file is read by the restricted unpickler with inert stand-ins for them, so nothing of the file is ever run.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metriloc.io.files import InputError
from metriloc.io.stand_ins import plain, stand_ins
from metriloc.io.weights import load_state_dict_strictly, read_checkpoint, require_finite
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig

_LAST_LAYER = {"coarse": "Mixed_7a", "fine": "Mixed_5d"}
# where the last block of the coarse network stands, with and without the second pooling; the fine network's last convolution
_COARSE, _COARSE_NO_MAXPOOL = "cnn.15.branch7x7x3_4.conv.weight", "cnn.14.branch7x7x3_4.conv.weight"
_FINE = "cnn.8.weight"


_TABLES = ("pytorch_lightning.utilities.parsing.AttributeDict", "lightning.fabric.utilities.data.AttributeDict")
_OBJECTS = (
    *(f"omegaconf.{name}" for name in ("dictconfig.DictConfig", "listconfig.ListConfig")),
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Integer", "Float", "String", "Boolean")),
    *("typing.Any", "argparse.Namespace"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"),  # of PixLoc's, to tell them
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.callbacks.lr_monitor.LearningRateMonitor",
)


def read_official(path: str | Path) -> NRENetwork:
    """The network of a published checkpoint file, in eval mode.

    The file is a Lightning pickle, a bare state dict, or safetensors. Warns when the file's hyper
    parameters contradict its tensors. Raises InputError for a file that cannot be read, is no NRE
    network, is incomplete, or holds NaN.
    """
    with stand_ins(_OBJECTS, _TABLES):
        content = read_checkpoint(path)
    try:
        config, tensors = from_official(content)
    except ValueError as error:
        raise InputError(f"'{path}' is not an NRE checkpoint: {error}") from error
    require_finite(tensors, f"'{path}'")
    with torch.device("meta"):
        network = NRENetwork(config)
    load_state_dict_strictly(network, tensors, f"'{path}'")
    return network.eval()


def from_official(checkpoint: Mapping[str, Any]) -> tuple[NRENetworkConfig, dict[str, Tensor]]:
    """Which network a checkpoint is of, and its tensors.

    They are float32 (names unchanged, complete, of the right shapes). checkpoint: Lightning's
    dictionary or the bare ``state_dict``. Raises ValueError naming the first entry that is missing,
    unknown or of a wrong shape.
    """
    tensors = checkpoint.get("state_dict", checkpoint)
    if not isinstance(tensors, Mapping):
        raise ValueError(f"its 'state_dict' is a {type(tensors).__name__}, not a table of tensors")
    other = tensors.get("model", tensors)
    if isinstance(other, Mapping) and any(str(key).removeprefix("module.").startswith("extractor.") for key in other):
        raise ValueError("its tensors are PixLoc's: metriloc weights convert, then --method pixloc")
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or not str(key).startswith("cnn."):
            raise ValueError(f"unexpected entry {key!r}")
    config = config_from_keys(tensors)
    with torch.device("meta"):
        expected = NRENetwork(config).state_dict()
    for key, wanted in expected.items():
        if key not in tensors:
            raise ValueError(f"{key!r} is missing")
        if tensors[key].shape != wanted.shape:
            raise ValueError(f"{key!r} has shape {list(tensors[key].shape)}, expected {list(wanted.shape)}")
    for key in tensors:
        if key not in expected:
            raise ValueError(f"unexpected entry {key!r}")
    _compare(config, plain(checkpoint.get("hyper_parameters")))
    return config, {key: tensors[key].to(wanted.dtype) for key, wanted in expected.items()}


def config_from_keys(tensors: Mapping[str, Any]) -> NRENetworkConfig:
    """The network that these keys belong to. Raises ValueError when they are of none we know."""
    if _COARSE in tensors:
        return NRENetworkConfig("coarse")
    if _COARSE_NO_MAXPOOL in tensors:
        return NRENetworkConfig("coarse", no_maxpool=True)
    if _FINE in tensors:
        return NRENetworkConfig("fine")
    raise ValueError(
        f"it holds neither {_COARSE!r} (coarse, up to Mixed_7a) nor {_FINE!r} (fine, up to Mixed_5d); "
        "networks that end in another layer are not supported"
    )


def _compare(config: NRENetworkConfig, stated: Any) -> None:
    """Warns about hyper parameters that contradict the tensors; the tensors count."""
    if not isinstance(stated, Mapping):
        return
    found = {
        "level": config.level,
        "extraction_layer": _LAST_LAYER[config.level],
        "no_maxpool": config.no_maxpool,
    }
    for name, value in found.items():
        if stated.get(name) is not None and stated[name] != value:
            warnings.warn(
                f"the checkpoint's hyper_parameters say {name} = {stated[name]!r}, but its tensors are of "
                f"{value!r}; the tensors count",
                stacklevel=3,
            )
