"""Methods for two photos by name."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from metriloc.auto import WithRival
from metriloc.choose.applies import foreign_settings, require_used
from metriloc.choose.depth import PREDICTED, depth_source
from metriloc.choose.maps import LocalizerChoice, choose_localizer
from metriloc.choose.named import named_calibrations, require_device
from metriloc.evaluation.identity import IdentityPose
from metriloc.export.runtime import on_runtime, require_cpu, swapping
from metriloc.io import InputError
from metriloc.methods.matching.hub_models import PREFIX as HUB
from metriloc.methods.matching.matchers import MatcherName, best_matcher
from metriloc.methods.matching.model import FeatureMatching, MatchingConfig
from metriloc.methods.matching.pair import CameraHeight
from metriloc.methods.matching.solver import Solver
from metriloc.methods.mickey import MicKey
from metriloc.methods.mickey.model import DEFAULT_WEIGHTS as MICKEY_WEIGHTS
from metriloc.methods.mickey.network_config import Precision
from metriloc.methods.nre.model import NRE
from metriloc.methods.pixloc.model import PixLoc
from metriloc.polish import POLISHERS, Polished, PolishName
from metriloc.types import RelativePoseMethod

MethodName = Literal["auto", "mickey", "matching", MatcherName, "identity"]
"""auto: the best matcher that is here, with the depth that metriloc-depth predicts where nothing better gives the metres
(then MicKey is asked, too, where few matches agree), unless the other settings call for MicKey alone; mickey: MicKey, the
bundled metriloc-small unless other weights are given; matching, which is xfeat; the matchers of
``metriloc.methods.matching.matchers``; and identity, the rival that never moves."""
METHODS: tuple[MethodName, ...] = ("auto", "mickey", "matching", *get_args(MatcherName), "identity")
HUB_METHOD = f"{HUB}OWNER/NAME"
"""How the methods that are models of the hub are named: matchers that ``transformers`` runs."""


def is_method(name: str) -> bool:
    """Whether methods for two photos are called so.

    >>> is_method("xfeat"), is_method("magic")
    (True, False)
    """
    return name in METHODS or name.startswith(HUB)


@dataclass(frozen=True)
class MethodChoice:
    """A method and its settings, as a command names them.

    weights: folder, file, bundled, published or hub name (MicKey; ``metriloc-small`` by default), or file (keypoints of a
    matcher). distance: metres between the cameras, if known (matching). camera_height: metres of both above the
    ground, if known, or ``handheld`` for the usual height of cameras in hands (matching). solver: of matching. depth:
    where matching has its metres from: ``file`` (the depth map beside a photo), ``none``, ``constant:METRES``,
    ``mickey:WEIGHTS`` (its predicted depth), or ``hub:OWNER/NAME``. polish: what makes poses more exact, see
    ``PolishName``; with None, MicKey does as its weights say. precision: of MicKey. calibration: file that turns the
    confidence into a probability, or ``none``; by default the one beside MicKey's weights, or the one that comes with
    metriloc for these weights. runtime: what runs the networks: ``torch``, ``onnx`` or ``onnx:FOLDER``. depth_map:
    the reference comes with one; ``auto`` is matching then. of_data: photos are of a data set that was read with the
    depth maps that ``file:NAME`` names.

    >>> MethodChoice("xfeat", distance=0.6).solver
    'auto'
    """

    name: str = "auto"
    weights: str | None = None
    distance: float | None = None
    camera_height: CameraHeight | None = None
    solver: Solver = "auto"
    depth: str = "file"
    polish: PolishName | None = None
    device: str = "cpu"
    precision: Precision = "auto"
    calibration: str | None = None
    runtime: str = "torch"
    depth_map: bool = False
    of_data: bool = False


def choose_method(choice: MethodChoice) -> RelativePoseMethod:
    """The method that a command names, with its calibration.

    Raises InputError for a setting that the method would not use, weights that are missing (with the command to get them),
    a calibration for other weights, and a device that this machine does not have.

    >>> choose_method(MethodChoice("identity")).name
    'identity'
    """
    require_device(choice.device)
    require_cpu(choice.runtime, choice.device)
    resolved = _resolved(choice)
    method = _choose_method(resolved)
    as_usual = (choice.name, choice.solver, resolved.depth, choice.camera_height) == ("auto", "auto", PREDICTED, None)
    if as_usual and choice.calibration != "none":
        method = _with_mickey(method, choice.device)
    method = on_runtime(method, choice.runtime)
    return method if choice.polish not in POLISHERS else polished(method, choice.polish, choice.device, choice.runtime)


def polished(method: RelativePoseMethod, name: PolishName, device: str = "cpu", runtime: str = "torch") -> Polished:
    """A method whose poses a localizer makes more exact.

    - name: one of ``POLISHERS``.
    - device, runtime: of the localizer.

    Raises InputError for another name, and for weights that are missing, with the command to get them.

    >>> method = polished(choose_method(MethodChoice("identity")), "pixloc")
    >>> method.name, method.called
    ('identity', 'pixloc')
    """
    if name not in POLISHERS:
        raise InputError(f"polish must be one of {', '.join(POLISHERS)}, got {name!r}")
    localizer = choose_localizer(LocalizerChoice(name, device=device, runtime=runtime))
    if isinstance(localizer, NRE):  # no point is seen by more than one photo
        localizer = localizer.with_settings(replace(localizer.settings, min_track=1))
    elif isinstance(localizer, PixLoc):
        localizer = localizer.adjusted(config=replace(localizer.config, min_track=1))
    return Polished(method, localizer, name)


def choice_beside(choice: MethodChoice, name: str) -> MethodChoice:
    """Another method for the same photos.

    It is to be compared with a choice: it has its own weights and the same source of metres. What
    the other method would not use is left out for it: MicKey measures for itself.

    >>> choice_beside(MethodChoice("xfeat", distance=0.6), "mickey").distance is None
    True
    """
    calibration = choice.calibration if choice.calibration == "none" else None
    usual = {field.name: field.default for field in fields(choice)}
    left_out: dict[str, Any] = {setting: usual[setting] for setting in foreign_settings(name)}
    beside = replace(_resolved(choice), name=name, weights=None, polish=None, calibration=calibration)
    return replace(beside, **left_out)


def _with_mickey(matching: RelativePoseMethod, device: str) -> RelativePoseMethod:
    """MicKey joins where the metres are predicted anyway; what is known of them, it could not use."""
    rival = MicKey.from_pretrained(MICKEY_WEIGHTS, device=device)
    # unjudged, it has no say
    return WithRival(matching, rival, f"MicKey ({MICKEY_WEIGHTS})") if rival.calibrations else matching


def _resolved(choice: MethodChoice) -> MethodChoice:
    """With the method and the depth that ``auto`` stands for: what was given decides, because ignoring it would surprise."""
    if choice.name != "auto":
        return choice
    if choice.polish == "matches" and choice.weights is None:
        raise InputError(
            "polish by matches is MicKey's, which auto is not: say method mickey beside it "
            f"(--method mickey --polish matches), or polish by {' or '.join(POLISHERS)}"
        )
    if choice.weights is not None:
        return replace(choice, name="mickey")
    gives_metres = choice.depth_map or choice.distance is not None or choice.depth != "file"
    matcher = best_matcher()
    if matcher is None:  # for MicKey alone, metres that are given would be lost: matching says what to install
        needed = gives_metres or choice.camera_height is not None or choice.solver != "auto"
        return replace(choice, name="matching" if needed else "mickey")
    return replace(choice, name=matcher, depth=choice.depth if gives_metres else PREDICTED)


def _choose_method(choice: MethodChoice) -> RelativePoseMethod:
    name, calibrations = choice.name, named_calibrations(choice.calibration)
    if not is_method(name):
        raise InputError(f"there is no method {name!r}: one of {', '.join((*METHODS, HUB_METHOD))}")
    require_used(choice)
    if name == "identity":
        return IdentityPose(calibrations or ())
    if name == "mickey":
        return MicKey.from_pretrained(
            choice.weights or MICKEY_WEIGHTS,
            precision=choice.precision,
            polish=True if choice.polish == "matches" else None,
            device=choice.device,
            calibrations=calibrations,
        )
    source, called = depth_source(
        choice.depth, choice.device, choice.precision, of_data=choice.of_data, swap=swapping(choice.runtime)
    )
    if name.startswith(HUB) and choice.weights is not None:
        raise InputError(f"weights {choice.weights}: {name} names its weights itself")
    config = MatchingConfig(
        distance=choice.distance, camera_height=choice.camera_height, solver=choice.solver, **called
    )
    matching = FeatureMatching.from_pretrained(
        choice.weights,
        matcher="xfeat" if name == "matching" else name,
        config=config,
        depth_source=source,
        calibrations=calibrations,
    )
    return matching.to(choice.device)
