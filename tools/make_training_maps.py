"""Maps of the places in ``../shared/data/train``, for fitting the verdicts of the localisers.

    python tools/make_training_maps.py MAPS [--data ../shared/data/train]

Photos of a walk, every so-manieth, get SIFT keypoints, are matched, and points are triangulated at their given poses; a
bundle adjustment with fixed intrinsics then makes poses and points agree, because the poses of a depth camera or of GPS
are themselves some centimetres off. Each place becomes a COLMAP model in ``MAPS/PLACE``; names are relative to the
place's folder. Every place is a child process, as native code may abort.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.datasets.posed import read_posed
from metriloc.datasets.sources import PosedFrame, PosedScene


@dataclass(frozen=True)
class Place:
    """A walk. folder: in the data. step: every so-manieth photo. reach: neighbors in time matched; 0 for all pairs."""

    folder: str
    step: int
    reach: int = 0


PLACES = {
    "kitchen": Place("kitchen", 8),
    "fr1_rpy": Place("fr1_rpy", 8),
    "street00": Place("kitti/street00", 2, 8),
    "street2": Place("kitti/street2", 1, 8),
}


def chosen_frames(scene: PosedScene, place: Place) -> list[PosedFrame]:
    """The photos of the map, with a pose."""
    frames = [scene.frame(k) for k in range(0, len(scene.names), place.step)]
    return [frame for frame in frames if frame.cam_from_world is not None]


def build(place: Place, data: Path, out: Path) -> None:
    """One map."""
    import pycolmap

    scene = read_posed(data / place.folder)
    frames = chosen_frames(scene, place)
    names = [frame.name for frame in frames]
    out.mkdir(parents=True, exist_ok=True)
    database = out / "database.db"
    database.unlink(missing_ok=True)
    w, h = (int(side) for side in frames[0].camera.size)
    fx, fy = frames[0].camera.f.tolist()
    cx, cy = (frames[0].camera.c + 0.5).tolist()  # COLMAP counts from the corner of the first pixel
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE", camera_params=f"{fx},{fy},{cx},{cy}")
    extraction = pycolmap.FeatureExtractionOptions(num_threads=1)
    single = pycolmap.CameraMode.SINGLE
    pycolmap.extract_features(database, data / place.folder, names, single, reader, extraction)
    matching = pycolmap.FeatureMatchingOptions(num_threads=1)
    if place.reach:
        pairing = pycolmap.SequentialPairingOptions(overlap=place.reach, quadratic_overlap=False)
        pycolmap.match_sequential(database, matching, pairing)
    else:
        pycolmap.match_exhaustive(database, matching)
    start = _posed_model(database, frames, (w, h, fx, fy, cx, cy))
    model = pycolmap.triangulate_points(start, database, data / place.folder, out)
    given = {image.name: image.cam_from_world() for image in start.images.values()}
    _adjust(model, given)
    moved = [_apart(image.cam_from_world(), given[image.name]) for image in model.images.values()]
    model.write_binary(str(out))
    print(
        f"{out.name}: {model.num_reg_images()} photos, {model.num_points3D()} points, "
        f"{model.compute_mean_reprojection_error():.2f} px, poses moved by {np.median(moved):.3f} m in the median"
    )


def _posed_model(database: Path, frames: list[PosedFrame], camera: tuple[float, ...]) -> Any:
    """A model with the poses that are known and no points; ids are the database's."""
    import pycolmap

    w, h, *params = camera
    found = pycolmap.Database.open(database)
    ids = {image.name: image.image_id for image in found.read_all_images()}
    camera_id = found.read_all_cameras()[0].camera_id
    found.close()
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(camera_id=camera_id, model="PINHOLE", width=int(w), height=int(h), params=params)
    )
    for frame in frames:
        pose = frame.cam_from_world
        assert pose is not None
        rigid = pycolmap.Rigid3d(pycolmap.Rotation3d(pose.R.double().numpy()), pose.t.double().numpy())
        image = pycolmap.Image(name=frame.name, camera_id=camera_id, image_id=ids[frame.name])
        model.add_image_with_trivial_frame(image, rigid)
    return model


def _adjust(model: Any, given: Mapping[str, Any]) -> None:
    """Poses and points together, intrinsics as given; place, turn and size of the whole stay those of the given poses."""
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=False, refine_principal_point=False, refine_extra_params=False
    )
    for _ in range(2):
        pycolmap.bundle_adjustment(model, options)
        pycolmap.ObservationManager(model).filter_all_points3D(4.0, 1.0)  # px, degrees
    names = {image.name: image.projection_center() for image in model.images.values()}
    here = np.array(list(names.values()))
    there = np.array([given[name].inverse().translation for name in names])
    model.transform(pycolmap.estimate_sim3d(here, there))


def _apart(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a.inverse().translation - b.inverse().translation))


def main() -> None:
    """All places that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--place", choices=list(PLACES), help="only this one, in this process")
    arguments = parser.parse_args()
    if arguments.place is not None:
        build(PLACES[arguments.place], arguments.data, arguments.maps / arguments.place)
        return
    for name in PLACES:
        if not (arguments.maps / name / "points3D.bin").is_file():
            command = [sys.executable, __file__, str(arguments.maps), "--data", str(arguments.data), "--place", name]
            if subprocess.run(command, check=False).returncode:
                print(f"{name}: no map", file=sys.stderr)


if __name__ == "__main__":
    main()
