"""Which files of poses a run leaves: one table of formats by the names that ``--format`` takes.

``pose.json`` and ``poses.json`` are always there, and so is ``poses.txt`` of ``metriloc localize``; these are for other
programs. All begin with ``poses.`` and the name of their format, so that those of an earlier run can be told apart from
the user's own files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metriloc.io import InputError, prepare_output_folder, write_atomically
from metriloc.io.posed_photos import (
    PosedPhoto,
    PosedPhotos,
    colmap_cameras_text,
    colmap_images_text,
    colmap_points_text,
    kitti_text,
    mapfree_text,
    names_text,
    nerfstudio_text,
    opengl_text,
    ros_text,
    tum_text,
)
from metriloc.io.ros_poses import bag_files, require_rosbags, ros_covariance_text
from metriloc.runs.outcome import Outcome

Text = Callable[[PosedPhotos, Path], "str | bytes"]
"""The content of one file; the folder is where it will be."""


def _anywhere(text: Callable[[PosedPhotos], str | bytes]) -> Text:
    return lambda found, folder: text(found)


FORMATS: Mapping[str, Mapping[str, Text]] = {
    "tum": {"poses.tum.txt": _anywhere(tum_text)},
    "mapfree": {"poses.mapfree.txt": _anywhere(mapfree_text)},
    "colmap": {
        "poses.colmap/cameras.txt": _anywhere(colmap_cameras_text),
        "poses.colmap/points3D.txt": _anywhere(colmap_points_text),
        "poses.colmap/images.txt": _anywhere(colmap_images_text),
    },
    "nerfstudio": {"poses.nerfstudio/transforms.json": nerfstudio_text},
    "kitti": {"poses.kitti.names.txt": _anywhere(names_text), "poses.kitti.txt": _anywhere(kitti_text)},
    "ros": {"poses.ros.jsonl": _anywhere(ros_text)},
    "ros_covariance": {"poses.ros_covariance.jsonl": _anywhere(ros_covariance_text)},
    "rosbag": {
        "poses.rosbag/poses.db3": _anywhere(lambda found: bag_files(found)["poses.db3"]),
        "poses.rosbag/metadata.yaml": _anywhere(lambda found: bag_files(found)["metadata.yaml"]),
    },
    "opengl": {"poses.opengl.json": _anywhere(opengl_text)},
}
"""Format -> its files below the folder of the run, in the order in which they are written."""


def checked_formats(names: Sequence[str]) -> tuple[str, ...]:
    """The names without repetition. Raises InputError, with the list, for one that is no format, and ImportError where
    the package for one is missing."""
    for name in names:
        if name not in FORMATS:
            raise InputError(f"there is no pose format {name!r}: one of {', '.join(FORMATS)}")
    if "rosbag" in names:
        require_rosbags()
    return tuple(dict.fromkeys(names))


def write_pose_files(folder: Path, formats: Sequence[str], found: PosedPhotos) -> None:
    """The files of these formats.

    Those of the others, which an earlier run may have left, are removed. Raises InputError for an
    unknown format and for a folder that cannot be written.
    """
    wanted = checked_formats(formats)
    for name in FORMATS:
        for file, text in FORMATS[name].items():
            path = folder / file
            if name in wanted:
                prepare_output_folder(path.parent)
                write_atomically(path, text(found, path.parent))
            elif path.is_file():
                path.unlink()
                if path.parent != folder and not any(path.parent.iterdir()):
                    path.parent.rmdir()


def posed_photos(results: Sequence[Outcome[Any]], reference: PosedPhoto | None = None) -> PosedPhotos:
    """What was found, as the formats need it.

    Failures are left out, and so are directions without a length. reference: the photo whose camera
    is the world, for relative poses.
    """
    # poses without metres would be read as metres by whoever opens these formats: they stay in pose.json
    solved = [(i, r) for i, r in enumerate(results) if r.success and r.entry.get("metric", True)]
    photos = tuple(
        PosedPhoto(
            r.name, Path(r.entry["photo"]), r.camera, r.pose, float(i), float(r.entry["confidence"]), r.covariance
        )
        for i, r in solved
    )
    return PosedPhotos(photos, reference, solved[0][1].unit if solved else "metre")
