"""What is exported by its name: bundled and published weights, folders, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import cast

from metriloc.backbones.fixed import Exportable, FixedNetwork
from metriloc.io import InputError
from metriloc.io.local_features import load_extractor
from metriloc.io.weights import method_of, resolve_weights
from metriloc.methods.matching.depth_network import DEPTH_METHOD, DepthNetwork
from metriloc.methods.matching.hub_models import PREFIX as HUB
from metriloc.methods.mickey import MicKey
from metriloc.methods.nre.published import load_features
from metriloc.methods.nre.trained import is_trained
from metriloc.methods.pixloc.extractor import NetworkExtractor
from metriloc.methods.pixloc.model import PixLoc
from metriloc.methods.pixloc.settings import METHOD

FEATURES = ("xfeat", "aliked")
_GLUE = "how many points and layers it works on is decided by the photos, layer after layer, and a file has fixed sizes"
NOT_EXPORTED: Mapping[str, str] = MappingProxyType(
    {
        "lightglue": _GLUE,
        "lighterglue": _GLUE,
        "loftr": "it draws fine windows wherever its coarse matches are",
        "disk": "it was not tried; its keypoints and descriptors run in torch",
        "sift": "it is no network",
    }
)
"""What has no file, and why; it runs in torch, also beside networks that are run elsewhere."""


@dataclass(frozen=True, eq=False)
class NamedNetwork:
    """A network that can be exported. sizes_for: (width, height) of a photo -> of the images that the model makes of it."""

    fixed: FixedNetwork
    sizes_for: Callable[[int, int], list[tuple[int, int]]]


def load_network(source: str) -> NamedNetwork:
    """The network of a model, as a function of one image. It is asked for by its name.

    source: ``xfeat``, ``aliked``, bundled or published weights of MicKey, PixLoc or depth, a folder or file of such, or a
    checkpoint or folder of an NRE network. Raises InputError for what has no such networks, saying why.
    """
    network, sizes_for = _load(source)
    return NamedNetwork(network.fixed(), sizes_for or network.sizes_for)


def _load(source: str) -> tuple[Exportable, Callable[[int, int], list[tuple[int, int]]] | None]:
    """The network, and what it is looked with at photos where that is not its own."""
    parts = source.split("+")
    for name in parts:
        if name in NOT_EXPORTED:
            also = "; export its features alone" if len(parts) > 1 else ""
            raise InputError(f"{name} is not exported: {NOT_EXPORTED[name]}{also}")
    if source.startswith(HUB):
        raise InputError(f"{source} is not exported: models of the hub run in transformers")
    if source in FEATURES:
        return load_extractor(source)[0], None  # type: ignore[return-value]
    if _is_of_nre(source):
        return load_features(source)[0], None  # type: ignore[return-value]
    kind = method_of(resolve_weights(source))
    if kind == METHOD:
        method = PixLoc.from_pretrained(source, calibrations=())
        extractor = cast(NetworkExtractor, method.extractor)
        return extractor, partial(extractor.sizes_for, image_scales=method.config.image_scales)
    if kind == DEPTH_METHOD:
        return DepthNetwork.from_pretrained(source), None
    return MicKey.from_pretrained(source, calibrations=()).network, None


def _is_of_nre(source: str) -> bool:
    path = Path(source)
    if is_trained(path):
        return str(method_of(path)).startswith("nre")
    return path.is_file() and path.suffix != ".safetensors"
