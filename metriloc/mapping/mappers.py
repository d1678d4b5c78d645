"""COLMAP's mappers, as the process of ``native`` runs them: a database of verified matches in, models out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.mapping.model_files import write_model

Tell = Callable[..., None]
"""Says how far a job is: ``at``, ``done`` of ``total``."""
_MOST_ERROR_PX, _LEAST_ANGLE_DEG = 4.0, 1.5  # of points that are kept, COLMAP's own
_ROBUST_ROUNDS = 2
_LEAST_SCALE_PX = 0.1  # of the robust loss: no keypoint stands better


def make_models(database: Path, job: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """The models of the mapper that the job names, adjusted and written, each with what it holds."""
    import pycolmap

    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    models = _MAPPERS[job["mapper"]](database, out, job, tell)
    told = []
    for number, model in models.items():
        folder = out / str(number)
        folder.mkdir(exist_ok=True)
        for image in model.images.values():
            image.name = job["images"][image.image_id - 1]["name"]
        tell(at="the last adjustment", done=len(job["images"]), total=len(job["images"]))
        _adjust_robustly(model, job)
        pycolmap.ObservationManager(model).filter_all_points3D(_MOST_ERROR_PX, _LEAST_ANGLE_DEG)
        model.extract_colors_for_all_images(job["photos"])
        write_model(model, folder)
        told.append(
            {
                "folder": str(number),
                "names": sorted(model.images[i].name for i in model.reg_image_ids()),
                "points": model.num_points3D(),
                "error_px": model.compute_mean_reprojection_error(),
            }
        )
    return {"models": told}


def _surest(database: Path, out: Path, job: Mapping[str, Any], tell: Tell) -> dict[int, Any]:
    """The global mapper's, unless that leaves photos out and the incremental one has more."""
    models = _global(database, out, job, tell)
    if _largest(models) == len(job["images"]):
        return models
    others = _incremental(database, out, job, tell)
    return others if _largest(others) > _largest(models) else models


def _largest(models: Mapping[int, Any]) -> int:
    return max((model.num_reg_images() for model in models.values()), default=0)


def _incremental(database: Path, out: Path, job: Mapping[str, Any], tell: Tell) -> dict[int, Any]:
    """Photo after photo, from the two that fit best."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = 2
    options.min_num_matches = job["min_inliers"]
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    options.num_threads = job["threads"] or -1
    options.extract_colors = False
    options.constant_cameras = {number + 1 for number in job["constant"]}
    total = len(job["images"])
    seen = {"count": 0}

    def one_more() -> None:
        seen["count"] += 1
        tell(at=f"photo {seen['count']} of the model", done=min(seen["count"], total), total=total)

    tell(at="the first two photos", done=0, total=total)
    models: dict[int, Any] = pycolmap.incremental_mapping(
        str(database),
        job["photos"],
        str(out),
        options,
        initial_image_pair_callback=one_more,
        next_image_callback=one_more,
    )
    return models


def _global(database: Path, out: Path, job: Mapping[str, Any], tell: Tell) -> dict[int, Any]:
    """All photos at once: rotations are averaged, then places found. Cameras whose focal length is a guess are calibrated
    by the pairs first, which changes the database, hence a copy."""
    import pycolmap

    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = 2
    options.min_num_matches = job["min_inliers"]
    mapper = options.mapper
    parts = (options, mapper, mapper.rotation_averaging, mapper.global_positioning, mapper.retriangulation)
    for part in parts:
        part.random_seed = 0
    options.num_threads = mapper.num_threads = job["threads"] or -1
    mapper.global_positioning.use_gpu = mapper.bundle_adjustment.ceres.use_gpu = False
    refined = len(job["constant"]) < len(job["cameras"])
    mapper.bundle_adjustment.refine_focal_length = mapper.bundle_adjustment.refine_extra_params = refined
    total = len(job["images"])
    tell(at="the global mapper", done=0, total=total)
    own = out / "own.db"
    shutil.copyfile(database, own)
    try:
        if not all(camera["prior"] for camera in job["cameras"]):
            pycolmap.calibrate_view_graph(str(own))
        models: dict[int, Any] = pycolmap.global_mapping(str(own), job["photos"], str(out), options)
    finally:
        for leftover in out.glob("own.db*"):
            leftover.unlink()
    for model in models.values():
        for number in job["constant"]:  # it refines all cameras or none; the last adjustment holds these
            if number + 1 in model.cameras:
                model.cameras[number + 1].params = job["cameras"][number]["params"]
    return models


def _adjust_robustly(model: Any, job: Mapping[str, Any]) -> None:
    """A last adjustment of all that trusts no single observation.

    COLMAP minimises squares, so that the few wrong matches it keeps (up to 4 pixels) bend a map; under Cauchy's loss, as
    wide as the median residual, they do not. On ten photos of a facade (entry_p10) the centers come from 3.5 cm to 0.6.
    """
    import pycolmap

    for _ in range(_ROBUST_ROUNDS):
        model.update_point_3d_errors()
        errors = [point.error for point in model.points3D.values()]
        if not errors:
            return
        options = pycolmap.BundleAdjustmentOptions()
        options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
        options.ceres.loss_function_scale = max(float(np.median(errors)), _LEAST_SCALE_PX)
        options.ceres.solver_options.num_threads = job["threads"] or -1
        options.print_summary = False
        config = pycolmap.BundleAdjustmentConfig()
        for image in model.reg_image_ids():
            config.add_image(image)
        for camera in job["constant"]:
            if camera + 1 in model.cameras:
                config.set_constant_cam_intrinsics(camera + 1)
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()


_MAPPERS: dict[str, Callable[[Path, Path, Mapping[str, Any], Tell], dict[int, Any]]] = {
    "auto": _surest,
    "incremental": _incremental,
    "global": _global,
}
