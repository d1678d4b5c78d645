"""Which feature networks NRE can train, and how trained ones are stored and found again.

| architecture | network | stride, first cell | descriptors |
|---|---|---|---|
| ``coarse``, ``coarse8``, ``fine`` | the paper's (``NRENetwork``) | 16, 8, 2 px; pixel 0 | any length, temperature 1 |
| ``xfeat`` | XFeat's descriptor (kornia's class, names of ``xfeat.pt``) | 8 px; pixel 3.5 | unit length, with a temperature |

A folder of trained weights is ``config.json`` with a ``TrainedConfig`` and the network's tensors under their own names;
the file of an ``xfeat`` one is also an ordinary XFeat weights file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones.local import DenseExtractor, require_kornia
from metriloc.backbones.xfeat import XFeat
from metriloc.bounds import require_within
from metriloc.io.files import InputError
from metriloc.io.weights import CONFIG, TENSORS, load_state_dict_strictly, load_weights, save_weights
from metriloc.methods.nre.features import NREFeatures
from metriloc.methods.nre.network import IMAGENET_MEAN, IMAGENET_STD, NRENetwork, NRENetworkConfig

Architecture = Literal["coarse", "coarse8", "fine", "xfeat"]
METHOD = "nre"
XFEAT_TEMPERATURE = 0.02
_NETWORKS = {
    "coarse": NRENetworkConfig("coarse"),
    "coarse8": NRENetworkConfig("coarse", no_maxpool=True),
    "fine": NRENetworkConfig("fine"),
}


@dataclass(frozen=True)
class TrainedConfig:
    """What config.json says of a network."""

    architecture: Architecture = "coarse"
    """Shape of the network."""
    temperature: float = 1.0
    """Products of descriptors are divided by it."""

    def __post_init__(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise ValueError(
                f"architecture must be one of {', '.join(get_args(Architecture))}, got {self.architecture!r}"
            )
        require_within(self, temperature=(1e-9, 1e9))

    @property
    def stride(self) -> int:
        """Pixels from one cell to the next."""
        return 8 if self.architecture == "xfeat" else _NETWORKS[self.architecture].stride

    @property
    def origin(self) -> float:
        """Pixel of the first cell's centre, x and y."""
        return 3.5 if self.architecture == "xfeat" else 0.0

    @property
    def unit(self) -> bool:
        """Whether descriptors have unit length."""
        return self.architecture == "xfeat"


class XFeatNetwork(nn.Module):
    """XFeat's dense descriptor as a module that can be trained.

    Only the descriptor's layers take gradients. Photos [B, 3, H, W] with sides that are multiples
    of 32 -> unit descriptors [B, 64, H / 8, W / 8]. Random weights until a released file is loaded
    into ``net``. Raises ImportError, with the pip command, without kornia.
    """

    HEADS = ("heatmap_head", "keypoint_head", "fine_matcher")

    def __init__(self) -> None:
        super().__init__()
        require_kornia("XFeat")
        from kornia.feature import XFeat as KorniaXFeat

        self.net: nn.Module = KorniaXFeat().net
        for name in self.HEADS:
            getattr(self.net, name).requires_grad_(False)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 64 h w"]:
        """Raises ValueError for sides that are no multiples of 32."""
        if image.ndim != 4 or image.shape[2] % 32 or image.shape[3] % 32:
            raise ValueError(f"XFeat takes images [B, 3, H, W] with sides of multiples of 32, got {list(image.shape)}")
        return F.normalize(self.net(image)[0], dim=1)


def make_network(config: TrainedConfig, generator: torch.Generator | None = None) -> nn.Module:
    """A network with random weights (from ``generator``, if given), such that its maps begin nearly uniform.

    A loss that starts at ln(h w) says that nothing is wrong before anything is learned; that takes convolutions that keep
    the variance, and a small scale in the last batch norm of the paper's networks.
    """
    if config.architecture == "xfeat":
        network: nn.Module = XFeatNetwork()
    else:
        network = NRENetwork(_NETWORKS[config.architecture])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    if isinstance(network, NRENetwork):
        channels = network.config.channels
        # equal features then have a product of 1
        nn.init.constant_(network.cnn[-1].weight, channels**-0.5)  # type: ignore[arg-type]
    return network


def save_trained(folder: str | Path, config: TrainedConfig, network: nn.Module) -> str:
    """Write a weights folder; returns the weights id. Raises InputError when it cannot be written."""
    return save_weights(folder, METHOD, asdict(config), tensors_of(network))


def load_trained(folder: str | Path) -> tuple[TrainedConfig, nn.Module, str]:
    """Configuration, network (eval mode) and weights id of a folder that ``save_trained`` wrote; InputError otherwise."""
    weights = load_weights(folder, METHOD)
    try:
        config = TrainedConfig(weights.config["architecture"], float(weights.config["temperature"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{weights.path / CONFIG}' does not describe an NRE network: {error}") from error
    network = make_network(config)
    load_tensors(network, weights.tensors, f"'{weights.path / TENSORS}'")
    return config, network.eval(), weights.weights_id


def load_trained_features(folder: str | Path) -> tuple[DenseExtractor, str]:
    """The dense features of a trained network and their weights id. Raises InputError for anything but such a folder."""
    config, network, identity = load_trained(folder)
    if isinstance(network, NRENetwork):
        features = NREFeatures(network)
        features.temperature, features.identity = config.temperature, identity
        return features, identity
    xfeat = XFeat(tensors_of(network))
    xfeat.temperature, xfeat.identity = config.temperature, identity
    return xfeat, identity


def is_trained(path: str | Path) -> bool:
    """Whether a path is a weights folder (or a safetensors file in one) rather than a published checkpoint."""
    path = Path(path)
    return (path.is_dir() and (path / CONFIG).is_file()) or (path.name == TENSORS and path.with_name(CONFIG).is_file())


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network under the names of its published weights."""
    return dict((network.net if isinstance(network, XFeatNetwork) else network).state_dict())


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load published or trained tensors, which must fit exactly. Raises InputError naming the first that does not."""
    inner = network.net if isinstance(network, XFeatNetwork) else network
    gradients = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    given = {name.removeprefix("net."): value.clone() for name, value in tensors.items()}
    load_state_dict_strictly(inner, given, source)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(gradients[name])


# -- ImageNet ---------------------------------------------------------------------------------------------------------
_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3")
_MIXED5 = ("Mixed_5b", "Mixed_5c", "Mixed_5d")
_MIXED6 = ("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
_POOL = ("",)
_LAYERS: Mapping[str, tuple[str, ...]] = {
    "coarse": (*_STEM, *_POOL, "Conv2d_3b_1x1", "Conv2d_4a_3x3", *_POOL, *_MIXED5, *_MIXED6, "Mixed_7a"),
    "coarse8": (*_STEM, *_POOL, "Conv2d_3b_1x1", "Conv2d_4a_3x3", *_MIXED5, *_MIXED6, "Mixed_7a"),
    "fine": (*_STEM, "Conv2d_3b_1x1", "Conv2d_4a_3x3", *_MIXED5),
}
"""Inception-v3's name of each layer of ``cnn``, by index."""


def load_inception(network: NRENetwork, tensors: Mapping[str, Any], architecture: Architecture) -> int:
    """Start from an ImageNet Inception-v3 (torchvision's names and input range) where names and shapes match.

    The final 1x1 convolution and, in the fine network, the 3x3 that is 1x1 in Inception keep their weights. Returns how
    many tensors were taken; ValueError when there are none.
    """
    own = network.state_dict()
    taken: dict[str, Tensor] = {}
    for index, layer in enumerate(_LAYERS[architecture]):
        for key, value in own.items():
            if layer and key.startswith(f"cnn.{index}."):
                found = tensors.get(f"{layer}.{key.removeprefix(f'cnn.{index}.')}")
                if isinstance(found, Tensor) and found.shape == value.shape:
                    taken[key] = found.detach().clone()
    if "cnn.0.conv.weight" not in taken:
        raise ValueError("the tensors are not those of an Inception-v3 (no Conv2d_1a_3x3.conv.weight of 32x3x3x3)")
    _change_input_range(taken)
    network.load_state_dict({**own, **taken})
    return len(taken)


def _change_input_range(tensors: dict[str, Tensor]) -> None:
    """From images in -1..1, which Inception was trained on, to ImageNet's mean and deviation: the first layer's weights
    take the scale, its batch norm the shift (exact but for the padding at the border)."""
    weight, mean = tensors["cnn.0.conv.weight"], tensors.get("cnn.0.bn.running_mean")
    scale, shift = (weight.new_tensor(values) for values in (IMAGENET_STD, IMAGENET_MEAN))
    if mean is not None:
        tensors["cnn.0.bn.running_mean"] = mean - (weight.sum((2, 3)) * (shift / 0.5 - 1)).sum(1)
    tensors["cnn.0.conv.weight"] = weight * (scale / 0.5)[:, None, None]
