"""Depth sources by name, for methods that have their metres from depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metriloc.choose.named import require_device
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
from metriloc.methods.mickey.network import Precision

PREDICTED = DEFAULT_WEIGHTS
"""The depth source of ``auto`` where nothing better gives the metres."""


def depth_source(name: str, device: str = "cpu", precision: Precision = "auto") -> tuple[DepthSource, dict[str, Any]]:
    """Where matching has its metres from, and what results, calibrations and captions call it (of ``MatchingConfig``).

    - name: ``file`` (the depth map beside a photo), ``none``, ``constant:METRES``, ``hub:OWNER/NAME``, or weights that
      predict depth, such as ``metriloc-depth``.
    - device, precision: of a network that predicts it.

    Raises InputError for a name that is none, and for weights that are missing or predict no depth.
    """
    kind, _, value = name.partition(":")
    if name in {own.name for own in BUNDLED} or Path(name).is_dir():
        kind, value = method_of(resolve_weights(name)) or "mickey", name
    if kind == "file" and not value:
        return depth_of_file, {}
    if kind == "none" and not value:
        return lambda view: None, {}
    if kind == "constant":
        try:
            called = {"depth_name": "constant depth", "depth_id": "constant depth", "depth_origin": f"set to {value} m"}
            return constant_depth(float(value)), called
        except ValueError as error:
            raise InputError(f"--depth-source {name}: {error}") from error
    if name.startswith(HUB):
        hub_depth = HubDepth(find_hub_model(value), device=device)
        called = _predicted_by(value, hub_depth.model.weights_id)
        return hub_depth, {**called, "depth_name": hub_depth.name}
    if kind == "mickey":
        model = MicKey.from_pretrained(value or MICKEY_WEIGHTS, precision=precision, device=device, calibrations=())
        return depth_of_method(model), _predicted_by(value or MICKEY_WEIGHTS, model.weights_id)
    if kind == DEPTH_METHOD:
        network = DepthNetwork.from_pretrained(value or DEFAULT_WEIGHTS, device=device)
        return depth_of_network(network), _predicted_by(value or DEFAULT_WEIGHTS, network.weights_id)
    wanted = (
        f"file, none, constant:METRES, mickey:WEIGHTS, {HUB}OWNER/NAME, or weights that predict depth such as "
        "metriloc-depth"
    )
    raise InputError(f"--depth-source must be {wanted}, got {name!r}")


def _predicted_by(source: str, weights_id: str) -> dict[str, Any]:
    name = Path(source).name or weights_id
    return {
        "depth_name": "predicted depth",
        "depth_id": f"depth of {weights_id}",
        "depth_origin": f"predicted by {name}",
    }


def predicted_depth(name: str, device: str = "cpu") -> tuple[DepthSource, str]:
    """A source of depth by the name of its weights, such as ``metriloc-depth``, and what results call it.

    Raises InputError for a name that predicts no depth, and for weights that are missing.
    """
    require_device(device)
    source, called = depth_source(name, device)
    if called.get("depth_name") != "predicted depth":
        raise InputError(f"depth {name!r} predicts none: give weights that do, such as {DEFAULT_WEIGHTS}")
    return source, called["depth_id"]
