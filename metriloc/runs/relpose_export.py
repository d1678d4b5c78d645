"""Matches, their 3D points and depth maps of a pair as one npz file: ``metriloc relpose --export``.

Arrays only, no pickle: ``numpy.load(file)`` reads it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metriloc.geometry import Camera
from metriloc.io import InputError, write_atomically
from metriloc.io.archives import ZIP_DAMAGE, open_zip
from metriloc.runs.relpose_results import PairFound
from metriloc.types import Correspondences, PhotoFeatures
from metriloc.viz.words import details_of, has_pose


def export_paths(file: Path, *, single: bool) -> Callable[[int, Path], Path]:
    """The file of each query.

    The one that was named, or for many ``NAME.0000_photo.npz`` beside it. Raises InputError for a
    name that does not end in ``.npz``.
    """
    if file.suffix.lower() != ".npz":
        raise InputError(f"--export writes an npz file: '{file}' does not end in .npz")
    return lambda index, query: file if single else file.with_name(f"{file.stem}.{index:04d}_{query.stem[:150]}.npz")


def pair_arrays(reference: PhotoFeatures, found: PairFound) -> dict[str, np.ndarray]:
    """What a pair came from and to, by name. Reference is 0 and query 1.

    - ``uv0``, ``uv1`` [M, 2]: pixels of matches, the center of the first pixel at (0, 0); the inliers first.
    - ``depth0``, ``depth1`` [M]: along z, in metres, NaN where unknown. ``xyz0``, ``xyz1`` [M, 3]: the points in the frame
      of each camera, ``xyz1 = query_from_reference xyz0`` but for the errors of depth (predicted ones have two scales).
    - ``probability`` [M], ``inlier`` [M] of matches. ``query_from_reference`` [4, 4]: NaN without a pose; ``success``,
      ``confidence``, ``metric``.
    - ``depth_map0``, ``score_map0`` [h, w]: a value a cell, of ``depth_cell0``, ``score_cell0`` (width, height) pixels of
      the photo from its top left corner; without depths those of depth are absent. ``K0`` [3, 3], ``distortion0``,
      ``size0`` (width, height), ``name0``; all of the query with 1.
    """
    estimate = found.estimate
    details = details_of(estimate)
    matches, inlier = _inliers_first(details.inliers, details.matches)
    pose = estimate.pose if has_pose(estimate) else None
    arrays = {
        "probability": _numbers(matches.probability),
        "inlier": inlier,
        "query_from_reference": np.full((4, 4), np.nan) if pose is None else _numbers(pose.matrix()).astype(float),
        "success": np.array(pose is not None),
        "confidence": np.array(float(estimate.confidence)),
        "metric": np.array(pose is not None and details.metric),
    }
    sides = ((reference, matches.uv0, matches.depth0), (found.features, matches.uv1, matches.depth1))
    for k, (features, uv, depth) in enumerate(sides):
        own = {"uv": _numbers(uv), "depth": _numbers(depth), "xyz": _lifted(features.view.camera, uv, depth)}
        arrays |= {f"{name}{k}": value for name, value in {**own, **_photo_arrays(features)}.items()}
    return arrays


def write_export(file: Path, reference: PhotoFeatures, found: PairFound, fingerprint: str = "") -> None:
    """``pair_arrays`` as a file, whole or not at all. fingerprint: of the run, so that a resumed one knows its own; it is
    the comment of the archive."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **pair_arrays(reference, found))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = fingerprint.encode()
    write_atomically(file, buffer.getvalue())


def is_export_of(file: Path, fingerprint: str) -> bool:
    """Whether the file is there and of this run."""
    try:
        with open_zip(file) as archive:
            return archive.comment == fingerprint.encode()
    except ZIP_DAMAGE:
        return False


def _inliers_first(inliers: Correspondences, matches: Correspondences | None) -> tuple[Correspondences, np.ndarray]:
    """All matches, and which are inliers; the inliers alone where a method keeps no others."""
    if matches is None:
        return inliers, np.ones(len(inliers), bool)
    kept = {(*a, *b) for a, b in zip(inliers.uv0.tolist(), inliers.uv1.tolist(), strict=True)}
    rows = zip(matches.uv0.tolist(), matches.uv1.tolist(), strict=True)
    others = torch.tensor([(*a, *b) not in kept for a, b in rows], dtype=torch.bool)
    both = Correspondences(
        *(
            torch.cat([getattr(inliers, name).detach().cpu(), getattr(matches, name).detach().cpu()[others]])
            for name in ("uv0", "uv1", "depth0", "depth1", "probability")
        )
    )
    return both, np.arange(len(both)) < len(inliers)


def _lifted(camera: Camera, uv: Tensor, depth: Tensor) -> np.ndarray:
    """Points in the frame of the camera, NaN without a depth."""
    uv, depth = uv.detach().cpu().double(), depth.detach().cpu().double()
    known = torch.isfinite(depth) & (depth > 0)
    points = camera.detach().to("cpu", torch.float64).lift(uv, depth.where(known, 1.0))
    return _numbers(points.where(known[:, None], torch.nan))


def _photo_arrays(features: PhotoFeatures) -> dict[str, np.ndarray]:
    view, depth, cell = features.view, features.depth_map(), features.cell
    arrays = {"score_map": _numbers(features.score_map()), "score_cell": np.array(cell, np.float32)}
    if depth is None and view.depth is not None:
        depth, cell = view.depth, (view.size[0] / view.depth.shape[1], view.size[1] / view.depth.shape[0])
    if depth is not None:
        arrays |= {"depth_map": _numbers(depth), "depth_cell": np.array(cell, np.float32)}
    camera = view.camera
    return {
        **arrays,
        "K": _numbers(camera.K),
        "distortion": _numbers(camera.distortion),
        "size": np.array(view.size),
        "name": np.array(view.name.encode("utf-8", "backslashreplace").decode()),
    }


def _numbers(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.detach().cpu().float().numpy()
    return array
