"""Depth sources by name, for methods that have their metres from depth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from metriloc.backbones.fixed import Swap
from metriloc.choose.named import require_device
from metriloc.evaluation.depth import DepthPrediction
from metriloc.io import InputError
from metriloc.io.packaged import BUNDLED
from metriloc.io.weights import method_of, resolve_weights
from metriloc.methods.matching.depth import (
    DepthSource,
    constant_depth,
    depth_of_file,
    depth_of_method,
    depth_of_network,
)
from metriloc.methods.matching.depth_network import DEFAULT_WEIGHTS, DEPTH_METHOD, DepthNetwork
from metriloc.methods.matching.hub_depth import HubDepth
from metriloc.methods.matching.hub_models import PREFIX as HUB
from metriloc.methods.matching.hub_models import find_hub_model
from metriloc.methods.mickey import MicKey
from metriloc.methods.mickey.model import DEFAULT_WEIGHTS as MICKEY_WEIGHTS
from metriloc.methods.mickey.network_config import Precision
from metriloc.types import View

PREDICTED = DEFAULT_WEIGHTS
"""The depth source of ``auto`` where nothing better gives the metres."""


def depth_source(
    name: str,
    device: str = "cpu",
    precision: Precision = "auto",
    *,
    of_data: bool = False,
    swap: Swap = lambda network: network,
) -> tuple[DepthSource, dict[str, Any]]:
    """Where matching has its metres from, and what it is called.

    Results, calibrations and captions call it so (of ``MatchingConfig``).

    - name: ``file`` (the depth map beside a photo), ``none``, ``constant:METRES``, ``hub:OWNER/NAME``, or weights that
      predict depth, such as ``metriloc-depth``.
    - device, precision: of a network that predicts it.
    - swap: gives what is run in place of such a network.
    - of_data: photos are of a data set that was read with the depth maps that ``file:NAME`` names.

    Raises InputError for a name that is none, and for weights that are missing or predict no depth.

    >>> source, called = depth_source("constant:2")
    >>> called["depth_origin"]
    'set to 2 m'
    """
    kind, value = _kind_of_depth(name)
    if kind == "none" and not value:
        return lambda view: None, {}
    if kind == "file":
        return depth_of_file, _name_of_file(name, value, of_data)
    if kind == "constant":
        return _constant(name, value)
    if name.startswith(HUB):
        hub_depth = HubDepth(find_hub_model(value), device=device)
        called = _predicted_by(value, hub_depth.model.weights_id)
        return hub_depth, {**called, "depth_name": hub_depth.name}
    if kind == "mickey":
        model = MicKey.from_pretrained(value or MICKEY_WEIGHTS, precision=precision, device=device, calibrations=())
        model = model.with_networks(swap)
        return depth_of_method(model), _predicted_by(value or MICKEY_WEIGHTS, model.weights_id)
    if kind == DEPTH_METHOD:
        network = DepthNetwork.from_pretrained(value or DEFAULT_WEIGHTS, device=device)
        elsewhere = swap(network)
        seeing = network.folded() if elsewhere is network else elsewhere
        return depth_of_network(seeing), _predicted_by(value or DEFAULT_WEIGHTS, network.weights_id)
    wanted = (
        f"file, file:NAME (maps beside the photos), none, constant:METRES, mickey:WEIGHTS, {HUB}OWNER/NAME, or weights "
        "that predict depth such as metriloc-depth"
    )
    raise InputError(f"a depth source must be {wanted}, got {name!r}")


def _name_of_file(name: str, value: str, of_data: bool) -> dict[str, Any]:
    """What a depth map beside a photo is called: of ``file:NAME`` the name of its predictor."""
    if not value:
        return {}
    if not of_data:
        raise InputError(f"depth source {name}: only data sets have named depth maps; give the file of one")
    return _predicted_by(value, value)


def _constant(name: str, value: str) -> tuple[DepthSource, dict[str, Any]]:
    """The same metres everywhere."""
    try:
        source = constant_depth(float(value))
    except ValueError as error:
        raise InputError(f"depth source {name}: {error}") from error
    return source, {"depth_name": "constant depth", "depth_id": "constant depth", "depth_origin": f"set to {value} m"}


def _kind_of_depth(name: str) -> tuple[str, str]:
    """What kind of source it is, and the rest: ("mickey", "metriloc-small")."""
    if name in {own.name for own in BUNDLED} or Path(name).is_dir():
        return method_of(resolve_weights(name)) or "mickey", name
    kind, _, value = name.partition(":")
    return kind, value


def is_mickey_depth(name: str) -> bool:
    """Whether a depth source is depth that MicKey predicts."""
    return _kind_of_depth(name)[0] == "mickey"


def choose_depth(name: str, device: str = "cpu") -> Callable[[View], DepthPrediction | None]:
    """A source of depth by its name, to be judged.

    It comes with its keypoints where it has them. The source returns None for a photo that it knows
    nothing of. Raises InputError as ``depth_source``.

    >>> view = metriloc.load_view("reference.jpg")
    >>> float(choose_depth("constant:2")(view).depth.median())
    2.0
    """
    require_device(device)
    kind, value = _kind_of_depth(name)
    if kind == "mickey":
        model = MicKey.from_pretrained(value or MICKEY_WEIGHTS, device=device, calibrations=())

        def at_keypoints(view: View) -> DepthPrediction:
            found = model.extract(view).keypoints
            return DepthPrediction(found.depth[0].cpu(), found.uv[0].cpu(), found.score[0].cpu())

        return at_keypoints
    source, _ = depth_source(name, device)

    def everywhere(view: View) -> DepthPrediction | None:
        depth = source(view)
        return None if depth is None else DepthPrediction(depth.cpu())

    return everywhere


def _predicted_by(source: str, weights_id: str) -> dict[str, Any]:
    name = Path(source).name or weights_id
    return {
        "depth_name": "predicted depth",
        "depth_id": f"depth of {weights_id}",
        "depth_origin": f"predicted by {name}",
    }


def predicted_depth(name: str, device: str = "cpu") -> tuple[DepthSource, str]:
    """A source of depth by the name of its weights.

    Such as ``metriloc-depth``; and what results call it. Raises InputError for a name that predicts
    no depth, and for weights that are missing.

    >>> source, called = predicted_depth("metriloc-depth")
    >>> source(metriloc.load_view("reference.jpg")).shape
    torch.Size([480, 640])
    """
    require_device(device)
    source, called = depth_source(name, device)
    if called.get("depth_name") != "predicted depth":
        raise InputError(f"depth {name!r} predicts none: give weights that do, such as {DEFAULT_WEIGHTS}")
    return source, called["depth_id"]
