"""Files in and out: photos, intrinsics, depth maps, poses; every user error is an ``InputError`` of one sentence."""

from metriloc.io.changed_views import crop_view, resize_view, turn_view
from metriloc.io.depth import check_depth_covers, read_depth
from metriloc.io.exif import ExifData, focal_from_exif
from metriloc.io.files import InputError, prepare_output_folder, read_json, read_text, write_atomically
from metriloc.io.images import LoadedImage, read_image
from metriloc.io.intrinsics import Intrinsics, camera_from_K, resolve_intrinsics
from metriloc.io.intrinsics_file import IntrinsicsEntry, find_entry, parse_intrinsics
from metriloc.io.photos import Photo, as_view
from metriloc.io.poses import (
    listed_name,
    mapfree_pose_line,
    parse_mapfree_poses,
    parse_submission,
    parse_tum,
    pose_as_dict,
    pose_from_dict,
    read_mapfree_poses,
    read_tum,
    submission_line,
    tum_line,
)
from metriloc.io.truth import read_reference_poses, read_true_poses
from metriloc.io.view import load_view

__all__ = [
    # files
    "InputError",
    "prepare_output_folder",
    "read_json",
    "read_text",
    "write_atomically",
    # photos
    "ExifData",
    "LoadedImage",
    "Photo",
    "as_view",
    "crop_view",
    "focal_from_exif",
    "load_view",
    "read_image",
    "resize_view",
    "turn_view",
    # intrinsics
    "Intrinsics",
    "IntrinsicsEntry",
    "camera_from_K",
    "find_entry",
    "parse_intrinsics",
    "resolve_intrinsics",
    # depth
    "check_depth_covers",
    "read_depth",
    # poses
    "listed_name",
    "mapfree_pose_line",
    "parse_mapfree_poses",
    "parse_submission",
    "parse_tum",
    "pose_as_dict",
    "pose_from_dict",
    "read_mapfree_poses",
    "read_reference_poses",
    "read_true_poses",
    "read_tum",
    "submission_line",
    "tum_line",
]
