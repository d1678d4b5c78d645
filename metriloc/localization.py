"""From a photo file and a map to the pose of the photo in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metriloc.choose import LocalizerName
from metriloc.geometry import Pose
from metriloc.io import Photo
from metriloc.localizer import Localizer
from metriloc.types import AbsolutePoseMethod, PoseEstimate, SfmMap


def localize(
    query: Photo,
    scene: SfmMap | str | Path,
    *,
    K: Sequence[Any] | None = None,
    fov: float | None = None,
    images: str | Path | None = None,
    references: Sequence[str] | None = None,
    init: Pose | None = None,
    method: AbsolutePoseMethod | LocalizerName | None = None,
    seed: int = 0,
    trace: bool = False,
) -> PoseEstimate:
    """Where in a map the camera of a photo stood.

    For many photos, ``Localizer`` opens the map once.

    - query: a file, or what else ``as_view`` takes: bytes, a Pillow image, an array, a tensor, a View.
    - scene: a map, or what ``Localizer`` opens, with ``images``.
    - K, fov: intrinsics of the query, as in ``as_view``.
    - references: names of images of the map that show the same, the best first; by default they are looked for.
    - init: a first guess of ``cam_from_world``.
    - method: a loaded localizer or its name; by default ``NRE.from_features()``, on the best features that are here.
    - seed: same seed, same answer (on one machine, with as many threads).
    - trace: keep in ``trace`` of the estimate how the method came to it, step by step.

    A focal length that is only a guess is estimated with the pose where the map has 30 points or more to say. A photo of
    which nothing is found is turned by quarters, in case that it lies on its side.

    Returns ``cam_from_world``, batch shape (), with its stages and timings in ``localization[0]`` and its ``covariance``;
    ``success=False`` with a reason where the photo does not fix a pose. Raises InputError (a ValueError) for files and
    names that cannot be used.

    >>> estimate = metriloc.localize("query.jpg", "map")
    >>> print(estimate.pose.center().round(decimals=2))
    tensor([ 0.5800, -0.1600,  0.1200], dtype=torch.float64)
    """
    localizer = Localizer(scene, images=images, method=method)
    return localizer.localize(query, K=K, fov=fov, references=references, init=init, seed=seed, trace=trace)
