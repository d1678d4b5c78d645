"""From two photo files to a pose in one call; the command line goes through the same functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metriloc.auto import WithRival
from metriloc.choose import MethodChoice, MethodName, choose_method, polished, require_used
from metriloc.io import InputError, Photo, as_view, turn_view
from metriloc.io.arguments import require_camera_height, require_method, require_number, require_seed
from metriloc.io.photos import check_shared_K
from metriloc.methods.matching.model import FeatureMatching, ImageFeatures
from metriloc.methods.matching.pair import CameraHeight
from metriloc.polish import Polished, PolishName
from metriloc.turns import holds, turned_back
from metriloc.types import PhotoFeatures, PoseEstimate, RelativePoseMethod, View
from metriloc.viz.notebook import with_page

_MORE_AGREE = 1.2


def relative_pose(
    reference: Photo,
    query: Photo,
    *,
    K: Sequence[Any] | None = None,
    fov: float | None = None,
    method: RelativePoseMethod | MethodName | str | None = None,
    depth: str | Path | None = None,
    depth_scale: float | None = None,
    distance: float | None = None,
    camera_height: CameraHeight | None = None,
    polish: PolishName | None = None,
    seed: int = 0,
) -> PoseEstimate:
    """Where the camera of ``query`` stood relative to that of ``reference``.

    - reference, query: files, or what else ``as_view`` takes: bytes, Pillow images, arrays, tensors, Views.
    - K, fov: intrinsics of both photos, as in ``as_view``; a K is for photos of one size.
    - method: a loaded method, its name, or None for the default: the best matcher that is installed, with predicted
      depth where nothing else gives the metres.
    - depth: depth map of the reference (metres come from it); depth_scale: its units a metre where they are not
      millimetres (5000 for TUM).
    - distance: metres between the two cameras, if known.
    - camera_height: metres of both above the ground, for cameras that stand upright and know it (robots, tripods), or
      ``handheld``, the usual height in a hand, which is weighed with predicted depth where a ground is seen.
    - polish: ``nre`` or ``pixloc`` make the pose more exact on the pair, with points lifted by the reference's depth; for
      a reference with a depth map. ``matches``: MicKey's own.
    - seed: same seed, same answer (on one machine, with as many threads).

    Returns ``query_from_reference`` with ``details[0].metric`` telling whether it is in metres; ``success=False`` with
    a reason where the photos do not fix a pose. Raises InputError (a ValueError) for files that cannot be used.

    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", distance=0.61, method="xfeat")
    >>> round(float(estimate.pose.distance()), 2), estimate.verdict
    (0.61, 'reliable')
    """
    require_number("distance", distance)
    require_camera_height(camera_height)
    require_seed(seed)
    require_method(method, "relative_pose")
    reference = as_view(reference, K=K, fov=fov, depth=depth, depth_scale=depth_scale, name="reference")
    query = as_view(query, K=K, fov=fov, name="query")
    check_shared_K(K, reference, query)
    reference, said0 = _with_depth_or_none(reference, "reference")
    query, said1 = _with_depth_or_none(query, "query")
    method = method_for(
        method,
        # a depth map that comes with a View may stay unused, one that is given here may not
        depth_map=depth is not None or (method in (None, "auto") and reference.depth is not None),
        distance=distance,
        camera_height=camera_height,
        polish=polish,
    )
    features0, features1 = method.extract(reference), method.extract(query)
    estimate = _saying(relative_pose_by_turns(method, features0, features1, seed=seed), (*said0, *said1))
    reference, query = as_seen(reference, features0), as_seen(query, features1)
    return with_page(estimate, reference, query, method.name, method.weights_id, seed)


def method_for(
    method: RelativePoseMethod | MethodName | str | None,
    *,
    depth_map: bool = False,
    distance: float | None = None,
    camera_height: CameraHeight | None = None,
    polish: PolishName | None = None,
) -> RelativePoseMethod:
    """The method of a call.

    The default, one by its name, or a loaded one, with what is known of the photos. Raises
    InputError for what the method would not use.
    """
    if method is None or isinstance(method, str):
        known: dict[str, Any] = {"distance": distance, "camera_height": camera_height}
        return choose_method(MethodChoice(method or "auto", depth_map=depth_map, polish=polish, **known))
    if depth_map:
        require_used(MethodChoice(method.name, depth_map=True))
    if distance is not None or camera_height is not None:
        method = _knowing(method, distance=distance, camera_height=camera_height)
    return method if polish is None else polished(method, polish)


def _with_depth_or_none(view: View, role: str) -> tuple[View, tuple[str, ...]]:
    """The photo without a depth map that knows no depth anywhere, and what is to be said of that."""
    if view.depth is None or bool((torch.isfinite(view.depth) & (view.depth > 0)).any()):
        return view, ()
    said = f"the depth map of the {role} knows no depth (all of it is 0, negative or not finite): it is not used"
    return replace(view, depth=None), (said,)


def _saying(estimate: PoseEstimate, said: tuple[str, ...]) -> PoseEstimate:
    if not said:
        return estimate
    return replace(estimate, details=tuple(replace(d, messages=(*d.messages, *said)) for d in estimate.details))


def as_seen(view: View, features: PhotoFeatures) -> View:
    """The photo with the camera that the method took for it.

    A depth source may know more than a guess.
    """
    if not isinstance(features, ImageFeatures) or features.view.intrinsics_source == view.intrinsics_source:
        return view
    seen = features.view
    return replace(view, camera=seen.camera, intrinsics_source=seen.intrinsics_source, focal_sigma=seen.focal_sigma)


def _knowing(method: RelativePoseMethod, **lengths: CameraHeight | None) -> RelativePoseMethod:
    """A loaded method with lengths that are known. Raises InputError for one that has no use for them."""
    if isinstance(method, WithRival):
        method = method.matching
    known = {name: value for name, value in lengths.items() if value is not None}
    if not isinstance(method, FeatureMatching):
        name, value = next(iter(known.items()))
        shown = value if isinstance(value, str) else f"{value:g}"
        raise InputError(f"{name} {shown} is used by feature matching only, and this method is {method.name}")
    return method.knowing(**known)


def relative_pose_by_turns(
    method: RelativePoseMethod, features0: PhotoFeatures, features1: PhotoFeatures, *, seed: int = 0
) -> PoseEstimate:
    """The relative pose, tried with the query turned as well. It is ``method.relative_pose``, but feature matching that
    finds nothing tries the query turned by quarters, too, in case that it lies on its side. The estimate is for the
    query as it is, and says in its ``messages`` when that was so."""
    if isinstance(method, Polished):
        found = relative_pose_by_turns(method.method, features0, features1, seed=seed)
        return method.polished(found, features0, features1, seed=seed)
    if isinstance(method, WithRival):
        found = relative_pose_by_turns(method.matching, features0, features1, seed=seed)
        return method.better(found, features0, features1, seed=seed)
    first = method.relative_pose(features0, features1, seed=seed)
    if bool(first.success) or not isinstance(method, FeatureMatching):
        return first
    if not (isinstance(features0, ImageFeatures) and isinstance(features1, ImageFeatures)):
        return first
    # only the most promising turn is worth a whole solution
    turns = {quarters: method.extract(turn_view(features1.view, quarters)[0]) for quarters in (1, 2, 3)}
    agreeing = {quarters: method.agreeing(features0, turned, seed) for quarters, turned in turns.items()}
    best = max(agreeing, key=agreeing.__getitem__)
    if agreeing[best] < _MORE_AGREE * method.agreeing(features0, features1, seed):
        return first
    estimate = method.relative_pose(features0, turns[best], seed=seed)
    return turned_back(estimate, best, features1.view.size) if holds(estimate) else first
