"""From two photo files to a pose in one call; the command line goes through the same functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from metriloc.calibration import CALIBRATION_FILE, CalibratedMethod, load_calibration, packaged_calibrations
from metriloc.evaluation.identity import IdentityPose
from metriloc.io import InputError, Photo, as_view, turn_view
from metriloc.io.photos import require_one_size
from metriloc.io.weights import resolve_weights
from metriloc.methods.matching.depth import DepthSource, constant_depth, depth_of_file, depth_of_method
from metriloc.methods.matching.matchers import MatcherName, best_matcher
from metriloc.methods.matching.model import FeatureMatching, ImageFeatures, MatchingConfig
from metriloc.methods.matching.solver import Solver
from metriloc.methods.mickey import MicKey
from metriloc.methods.mickey.model import DEFAULT_WEIGHTS as MICKEY_WEIGHTS
from metriloc.turns import holds, turned_back
from metriloc.types import PhotoFeatures, PoseEstimate, RelativePoseMethod
from metriloc.viz.notebook import with_page

MethodName = Literal["auto", "mickey", "matching", MatcherName, "identity"]
"""auto: the best matcher that is here, with the depth that metriloc-small predicts where nothing better gives the metres,
unless the other settings call for MicKey; mickey: MicKey, the bundled metriloc-small unless other weights are given;
matching, which is xfeat; the matchers of ``metriloc.methods.matching.matchers``; and identity, the rival that never moves."""


_MORE_AGREE = 1.2


def relative_pose(
    reference: Photo,
    query: Photo,
    *,
    K: Sequence[Any] | None = None,
    fov: float | None = None,
    method: RelativePoseMethod | MethodName | None = None,
    depth: str | Path | None = None,
    depth_scale: float | None = None,
    distance: float | None = None,
    seed: int = 0,
) -> PoseEstimate:
    """Where the camera of ``query`` stood relative to that of ``reference``.

    reference, query: files, or what else ``as_view`` takes: bytes, Pillow images, arrays, tensors,
    Views. K, fov: intrinsics of both photos, as in ``as_view``; a K is for photos of one size.
    method: a loaded ``MicKey`` or another method, its name, or None for the default: the best
    matcher that is installed, with predicted depth where nothing else gives the metres. depth:
    depth map of the reference (metres come from it); depth_scale: its units a metre where they are
    not millimetres (5000 for TUM). distance: metres between the two cameras, if known. seed: same
    seed, same answer (on one machine, with as many threads).

    Returns ``query_from_reference`` with ``details[0].metric`` telling whether it is in metres; ``success=False`` with
    a reason where the photos do not fix a pose. Raises InputError (a ValueError) for files that cannot be used.
    """
    reference = as_view(reference, K=K, fov=fov, depth=depth, depth_scale=depth_scale, name="reference")
    query = as_view(query, K=K, fov=fov, name="query")
    require_one_size(K, reference, query)
    if isinstance(method, str):
        method = choose_method(MethodChoice(method, distance=distance, depth_map=reference.depth is not None))
    elif method is None:
        method = choose_method(MethodChoice(distance=distance, depth_map=reference.depth is not None))
    elif distance is not None:
        raise InputError(f"distance {distance} is used by feature matching only: set it there, or leave out method")
    estimate = relative_pose_by_turns(method, method.extract(reference), method.extract(query), seed=seed)
    return with_page(estimate, reference, query, method.name, method.weights_id, seed)


def relative_pose_by_turns(
    method: RelativePoseMethod, features0: PhotoFeatures, features1: PhotoFeatures, *, seed: int = 0
) -> PoseEstimate:
    """``method.relative_pose``; feature matching that finds nothing tries the query turned by quarters, too, in case that
    it lies on its side. The estimate is for the query as it is, and says in its ``messages`` when that was so."""
    first, matching = method.relative_pose(features0, features1, seed=seed), bare(method)
    if bool(first.success) or not isinstance(matching, FeatureMatching):
        return first
    if not (isinstance(features0, ImageFeatures) and isinstance(features1, ImageFeatures)):
        return first
    # only the most promising turn is worth a whole solution
    turns = {quarters: matching.extract(turn_view(features1.view, quarters)[0]) for quarters in (1, 2, 3)}
    agreeing = {quarters: matching.agreeing(features0, turned, seed) for quarters, turned in turns.items()}
    best = max(agreeing, key=agreeing.__getitem__)
    if agreeing[best] < _MORE_AGREE * matching.agreeing(features0, features1, seed):
        return first
    estimate = method.relative_pose(features0, turns[best], seed=seed)
    return turned_back(estimate, best, features1.view.size) if holds(estimate) else first


def bare(method: RelativePoseMethod) -> RelativePoseMethod:
    """The method without its calibrations."""
    return method.method if isinstance(method, CalibratedMethod) else method


@dataclass(frozen=True)
class MethodChoice:
    """A method and its settings, as a command names them.

    weights: folder, file, bundled, published or hub name (MicKey; ``metriloc-small`` by default), or file (keypoints of a
    matcher). distance: metres between the cameras, if known (matching). solver: of matching. depth: where matching has
    its metres from: ``file`` (the depth map beside a photo), ``none``, ``constant:METRES``, or ``mickey:WEIGHTS`` (its
    predicted depth). polish, precision: of MicKey; polish None is as its weights say. calibration: file that turns the
    confidence into a probability, or ``none``; by default the one beside MicKey's weights, or the one that comes with
    metriloc for these weights, if any. depth_map: the reference comes with one, for ``auto``, which then is matching.
    """

    name: MethodName = "auto"
    weights: str | None = None
    distance: float | None = None
    solver: Solver = "auto"
    depth: str = "file"
    polish: bool | None = None
    device: str = "cpu"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    calibration: str | None = None
    depth_map: bool = False


def choose_method(choice: MethodChoice) -> RelativePoseMethod:
    """The method that a command names, with its calibration.

    Raises InputError when an option belongs to another method, weights are missing (with the command to get them), the
    calibration is for other weights, or this machine has no such device.
    """
    require_device(choice.device)
    method, beside = _choose(choice)
    if choice.calibration == "none":
        return method
    if choice.calibration is not None:
        return CalibratedMethod(method, load_calibration(choice.calibration))
    return calibrated(method, beside)


def calibrated(method: RelativePoseMethod, beside: Path | None = None) -> RelativePoseMethod:
    """The method with the calibrations that fit it: ``beside`` its weights, else those that come with metriloc."""
    if beside is not None and beside.is_file():
        found = load_calibration(beside)
        if found.weights_id == method.weights_id:  # a user may have replaced the weights
            return CalibratedMethod(method, found)
    packaged = packaged_calibrations(method.name, method.weights_id)
    return CalibratedMethod(method, *packaged) if packaged else method


def _resolved(choice: MethodChoice) -> MethodChoice:
    """With the method and the depth that ``auto`` stands for: what was given decides, because ignoring it would surprise."""
    if choice.name != "auto":
        return choice
    if choice.weights is not None or choice.polish:
        return replace(choice, name="mickey")
    gives_metres = choice.depth_map or choice.distance is not None or choice.depth != "file"
    matcher = best_matcher()
    if matcher is None:  # for MicKey alone, metres that are given would be lost: matching says what to install
        return replace(choice, name="matching" if gives_metres or choice.solver != "auto" else "mickey")
    return replace(choice, name=matcher, depth=choice.depth if gives_metres else "mickey")


def _choose(choice: MethodChoice) -> tuple[RelativePoseMethod, Path | None]:
    """The method, and the file beside its weights that may hold its calibration."""
    choice = _resolved(choice)
    name = choice.name
    if name != "mickey" and choice.polish:
        raise InputError("--polish is MicKey's; matching always polishes where it has depth")
    if name == "identity":
        return IdentityPose(), None
    if name == "mickey":
        if choice.distance is not None:
            raise InputError(
                f"--distance {choice.distance}: MicKey measures the distance itself; only matching needs it"
            )
        source = choice.weights or MICKEY_WEIGHTS
        model = MicKey.from_pretrained(source, precision=choice.precision, polish=choice.polish, device=choice.device)
        return model, resolve_weights(source) / CALIBRATION_FILE
    kind = choice.depth.partition(":")[0]
    depth_name = {"mickey": "predicted depth", "constant": "constant depth"}.get(kind, "depth map")
    source_of_depth, depth_id = _depth_source(choice)
    config = MatchingConfig(
        distance=choice.distance, solver=choice.solver, depth_name=depth_name, depth_id=depth_id or depth_name
    )
    matcher = "xfeat" if name == "matching" else name
    matching = FeatureMatching.from_pretrained(
        choice.weights, matcher=matcher, config=config, depth_source=source_of_depth
    )
    return matching.to(choice.device), None


def _depth_source(choice: MethodChoice) -> tuple[DepthSource, str]:
    """The source, and what calibrations call it."""
    kind, _, value = choice.depth.partition(":")
    if kind == "file" and not value:
        return depth_of_file, ""
    if kind == "none" and not value:
        return lambda view: None, ""
    if kind == "constant":
        try:
            return constant_depth(float(value)), ""
        except ValueError as error:
            raise InputError(f"--depth-source {choice.depth}: {error}") from error
    if kind == "mickey":
        model = MicKey.from_pretrained(value or MICKEY_WEIGHTS, precision=choice.precision, device=choice.device)
        return depth_of_method(model), f"depth of {model.weights_id}"
    raise InputError(f"--depth-source must be file, none, constant:METRES or mickey:WEIGHTS, got {choice.depth!r}")


def require_device(name: str) -> None:
    """Raises InputError when this machine has no such device."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"there is no device {name!r} here: {str(error).splitlines()[0]}") from error
