"""From two photo files to a pose in one call; the command line goes through the same functions."""

from __future__ import annotations

from pathlib import Path

from metriloc.calibrated import bare
from metriloc.choose import MethodChoice, MethodName, choose_method
from metriloc.io import InputError, load_view, turn_view
from metriloc.methods.matching.model import FeatureMatching, ImageFeatures
from metriloc.turns import holds, turned_back
from metriloc.types import PhotoFeatures, PoseEstimate, RelativePoseMethod, View

_MORE_AGREE = 1.2


def relative_pose(
    reference: View | str | Path,
    query: View | str | Path,
    *,
    method: RelativePoseMethod | MethodName | None = None,
    depth: str | Path | None = None,
    depth_scale: float | None = None,
    distance: float | None = None,
    seed: int = 0,
) -> PoseEstimate:
    """Where the camera of ``query`` stood relative to that of ``reference``.

    reference, query: files, or Views from ``load_view`` where intrinsics need saying. method: a loaded ``MicKey`` or
    another method, its name, or None for the default: the best matcher that is installed, with predicted depth where
    nothing else gives the metres. depth: depth map of the reference (metres come from it); depth_scale: its units a
    metre where they are not millimetres (5000 for TUM). distance: metres between the two cameras, if known. seed: same
    seed, same answer (on one machine, with as many threads).

    Returns ``query_from_reference`` with ``details[0].metric`` telling whether it is in metres; ``success=False`` with
    a reason where the photos do not fix a pose. Raises InputError (a ValueError) for files that cannot be used.
    """
    if not isinstance(reference, View):
        reference = load_view(reference, depth=depth, depth_scale=depth_scale)
    elif depth is not None or depth_scale is not None:
        given = f"depth {str(depth)!r}" if depth is not None else f"depth_scale {depth_scale:g}"
        raise InputError(f"{given} was given for a reference that is a View already: load it with the View")
    if not isinstance(query, View):
        query = load_view(query)
    if isinstance(method, str):
        method = choose_method(MethodChoice(method, distance=distance, depth_map=reference.depth is not None))
    elif method is None:
        method = choose_method(MethodChoice(distance=distance, depth_map=reference.depth is not None))
    elif distance is not None:
        raise InputError(f"distance {distance} is used by feature matching only: set it there, or leave out method")
    return relative_pose_by_turns(method, method.extract(reference), method.extract(query), seed=seed)


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
