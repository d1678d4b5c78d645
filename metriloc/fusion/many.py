"""A method for two photos that asks several references, and the one call for it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from metriloc.calibration import Calibrations, calibrations_of
from metriloc.choose import MethodName
from metriloc.fusion.pairs import FusedPairs, motion_of
from metriloc.geometry import Pose
from metriloc.io import InputError, Photo, as_view, read_reference_poses
from metriloc.io.arguments import require_camera_height, require_method, require_seed
from metriloc.io.photos import check_shared_K
from metriloc.methods.matching.pair import CameraHeight
from metriloc.polish import PolishName
from metriloc.relpose import as_seen, method_for, relative_pose_by_turns
from metriloc.solvers.consistency import MOST_WITNESSES
from metriloc.solvers.motion_averaging import Motion
from metriloc.types import PoseEstimate, RelativePoseMethod, View
from metriloc.viz.notebook import with_page


class FromMany:
    """A method for two photos that has several references.

    Those are the one it is asked with, and others; itself a ``RelativePoseMethod``.

    - method: finds the pose of each pair.
    - others: further references.
    - poses: ``cam_from_world`` of all references, the one it is asked with first; None where they are not known.

    Raises InputError for too many references, and for poses that are not one each, finite and of single cameras.

    >>> from metriloc.evaluation.identity import IdentityPose
    >>> method = FromMany(IdentityPose(), [metriloc.load_view("query.jpg")])
    >>> method.name, len(method.others)
    ('identity', 1)
    """

    def __init__(self, method: RelativePoseMethod, others: Sequence[View], poses: Sequence[Pose] | None = None) -> None:
        if len(others) >= MOST_WITNESSES:
            raise InputError(f"at most {MOST_WITNESSES} references can be compared, got {len(others) + 1}")
        if poses is not None and (len(poses) != len(others) + 1 or not all(p.shape == () for p in poses)):
            raise InputError(f"{len(others) + 1} references need a pose each, got {len(poses)}")
        self.method, self.others = method, tuple(others)
        if poses is not None and not all(bool(pose.is_finite()) for pose in poses):
            raise InputError("the pose of a reference is not finite")
        self.poses = None if poses is None else tuple(pose.detach().to("cpu", torch.float64) for pose in poses)
        self.name, self.weights_id = method.name, method.weights_id
        self._features: list[Any] | None = None
        self._known: tuple[Any, dict[tuple[int, int], Motion]] | None = None

    @property
    def calibrations(self) -> Calibrations:
        """Of the method."""
        return calibrations_of(self.method)

    def extract(self, view: Any) -> Any:
        """What the method needs of one photo."""
        return self.method.extract(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """``query_from_reference`` by all references together; batch shape ().

        - reference, query: Views, or what ``extract`` made of them.
        - seed: same seed, same answer.
        """
        first, asked = (self.extract(value) if isinstance(value, View) else value for value in (reference, query))
        if self._features is None:
            self._features = [self.extract(view) for view in self.others]
        features = [first, *self._features]
        found = [relative_pose_by_turns(self.method, one, asked, seed=seed) for one in features]
        among = self._among(features, seed) if self.poses is None else {}
        pairs = FusedPairs(found, [f.view for f in features], asked.view, self.poses, among)
        return pairs.fused()

    def _among(self, features: Sequence[Any], seed: int) -> dict[tuple[int, int], Motion]:
        """Motions between the references, estimated once."""
        if self._known is not None and self._known[0] is features[0]:
            return self._known[1]
        motions = {}
        for i in range(len(features)):
            for j in range(i + 1, len(features)):
                estimate = relative_pose_by_turns(self.method, features[i], features[j], seed=seed)
                motion = motion_of(estimate, i, j, (features[i].view, features[j].view))
                if motion is not None:
                    motions[i, j] = motion
        self._known = features[0], motions
        return motions


def relative_pose_many(
    references: Sequence[Photo],
    query: Photo,
    *,
    poses: Sequence[Pose] | str | PathLike[str] | None = None,
    K: Sequence[Any] | None = None,
    fov: float | None = None,
    method: RelativePoseMethod | MethodName | str | None = None,
    camera_height: CameraHeight | None = None,
    polish: PolishName | None = None,
    seed: int = 0,
) -> PoseEstimate:
    """Where a camera stood, asked of several references.

    The answer is relative to the first of them.

    - references: photos of one place, the first is the origin; query: as in ``relative_pose``.
    - poses: ``cam_from_world`` of each reference, metres, or a file of lines 'photo qw qx qy qz tx ty tz'; None where
      they are not known: then they are estimated, too.
    - K, fov: intrinsics of all photos. method, camera_height, polish, seed: as in ``relative_pose``; Views may come with
      depth maps.

    Returns ``query_from_reference`` of the first, with ``covariance``, and in ``details[0].references`` what each of them
    said: one that contradicts the most has no say. ``success=False`` with a reason where no reference has a pose, or
    nothing ties it to the first. Raises InputError for files that cannot be used, and for fewer than two references.

    >>> estimate = metriloc.relative_pose_many(["a.jpg", "b.jpg", "c.jpg"], "query.jpg", poses="poses.txt")  # doctest: +SKIP
    >>> [(said.name, said.used) for said in estimate.detail.references]  # doctest: +SKIP
    """
    require_camera_height(camera_height)
    require_seed(seed)
    require_method(method, "relative_pose")
    if isinstance(references, str | bytes | PathLike | View) or len(references) < 2:
        raise InputError("references must be a list of two photos and more; for one there is relative_pose")
    views = [as_view(photo, K=K, fov=fov, name=f"reference {i}") for i, photo in enumerate(references)]
    asked = as_view(query, K=K, fov=fov, name="query")
    for view in views:
        check_shared_K(K, view, asked)
    known = None if poses is None else _known_poses(poses, views)
    chosen = method_for(
        method,
        depth_map=method in (None, "auto") and any(view.depth is not None for view in views),
        camera_height=camera_height,
        polish=polish,
    )
    many = FromMany(chosen, views[1:], known)
    first, last = many.extract(views[0]), many.extract(asked)
    estimate = many.relative_pose(first, last, seed=seed)
    return with_page(estimate, as_seen(views[0], first), as_seen(asked, last), many.name, many.weights_id, seed)


def _known_poses(poses: Sequence[Pose] | str | PathLike[str], views: Sequence[View]) -> list[Pose]:
    if isinstance(poses, str | PathLike):
        return read_reference_poses(poses, [Path(view.name) for view in views])
    if not isinstance(poses, Sequence) or not all(isinstance(pose, Pose) for pose in poses):
        raise InputError(
            f"poses must be a Pose for each reference, or the file that has them, got {type(poses).__name__}"
        )
    return [pose for pose in poses if isinstance(pose, Pose)]
