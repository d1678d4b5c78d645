"""Every method by its name, with its calibration: what the command line and ``metriloc.load`` call."""

from __future__ import annotations

from typing import Any

from metriloc.choose.applies import require_used
from metriloc.choose.depth import choose_depth, depth_source, predicted_depth
from metriloc.choose.maps import (
    FEATURES,
    LOCALIZERS,
    LocalizerChoice,
    LocalizerName,
    choose_localizer,
    note_on_features,
)
from metriloc.choose.named import require_device
from metriloc.choose.pairs import (
    HUB_METHOD,
    METHODS,
    MethodChoice,
    MethodName,
    choice_beside,
    choose_method,
    is_method,
    polished,
)
from metriloc.io import InputError
from metriloc.methods.matching.solver import Solver

__all__ = [
    "FEATURES",
    "HUB_METHOD",
    "LOCALIZERS",
    "METHODS",
    "LocalizerChoice",
    "LocalizerName",
    "MethodChoice",
    "MethodName",
    "Solver",
    "choice_beside",
    "choose_depth",
    "choose_localizer",
    "choose_method",
    "depth_source",
    "is_method",
    "load",
    "note_on_features",
    "polished",
    "predicted_depth",
    "require_device",
    "require_used",
]


def load(
    name: str = "auto",
    *,
    depth: str | None = None,
    weights: str | None = None,
    device: str = "cpu",
    calibration: str | None = None,
    runtime: str = "torch",
) -> Any:
    """Any method by its name, with its calibration.

    - name: for two photos one of ``METHODS`` or a matcher of the hub, ``hub:OWNER/NAME``, for maps one of
      ``LOCALIZERS``, as on the command line.
    - depth: where a method for two photos has its metres from: ``metriloc-small`` or another name, folder or file of
      weights that predict depth, ``hub:OWNER/NAME``, ``file`` (the depth map beside a photo, the default), ``none``,
      ``constant:METRES``.
    - weights: folder, file, bundled, published or hub name; by default what comes with the name.
    - device: ``cpu``, ``cuda``, ``cuda:1``, ...
    - runtime: what runs the networks: ``torch``, ``onnx`` (ONNX Runtime on the CPU; a size of photos that is new is
      exported first, which takes seconds) or ``onnx:FOLDER`` (files of ``metriloc export``).
    - calibration: a file, or ``none`` for bare confidences; by default what comes with the weights.

    Returns a ``RelativePoseMethod`` or an ``AbsolutePoseMethod``. Raises InputError for a wrong name, with the list of
    names, and for weights that are missing, with the command that gets them.

    >>> method = metriloc.load("xfeat", depth="metriloc-small")
    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", method=method)
    >>> bool(estimate.success), estimate.detail.metric
    (True, True)
    """
    if not isinstance(name, str):
        raise InputError(f"a method has a name, got {name!r}: one of {', '.join((*METHODS, *LOCALIZERS))}")
    if name in LOCALIZERS:
        if depth is not None:
            raise InputError(f"depth {depth!r} is for methods of two photos; {name} has its metres from the map")
        return choose_localizer(LocalizerChoice(name, weights, device, calibration=calibration, runtime=runtime))
    if not is_method(name):
        raise InputError(
            f"there is no method {name!r}: for two photos {', '.join((*METHODS, HUB_METHOD))}; "
            f"for maps {', '.join(LOCALIZERS)}"
        )
    chosen = {"depth": depth or "file", "device": device, "calibration": calibration, "runtime": runtime}
    return choose_method(MethodChoice(name, weights, **chosen))  # type: ignore[arg-type]
