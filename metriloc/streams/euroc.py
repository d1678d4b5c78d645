"""EuRoC folders (``mav0/cam0/data.csv``, ``sensor.yaml``) and the poses of the body beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from metriloc.datasets.matrices import rigid_pose
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers
from metriloc.io.yaml_file import read_yaml
from metriloc.streams.device_poses import PoseRow
from metriloc.streams.folder import Photos
from metriloc.streams.frames import Stream
from metriloc.streams.views import CameraOptions

_BENT, _FISHEYES = ("radial-tangential", "radtan"), ("equidistant",)
_NANOSECOND = 1e-9


def is_euroc_poses(first: str) -> bool:
    """Whether the first line of a file is the head of EuRoC's poses."""
    head = first.lower().replace(" ", "")
    return head.startswith("#timestamp") and "," in head and "q_" in head


def euroc_rows(text: str, file: str) -> Iterator[PoseRow]:
    """``timestamp [ns], p x y z, q w x y z, ...``, world from body; further columns are not looked at.

    Raises InputError ``file:line`` for a malformed line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        place, fields = f"{file}:{number}", [field.strip() for field in line.split(",")]
        if len(fields) < 8:
            raise InputError(f"{place}: {len(fields)} fields; EuRoC's poses have a time, a position and a quaternion")
        (time,) = parse_numbers(fields[:1], place)
        x, y, z, w, qx, qy, qz = parse_numbers(fields[1:8], place, finite=False)
        yield PoseRow(place, time * _NANOSECOND, (w, qx, qy, qz), (x, y, z))


def euroc_mount(poses: Path, camera: str = "cam0") -> Pose:
    """``cam_from_sensor`` for the poses of ``mav0/SENSOR/data.csv``, from the ``T_BS`` of both ``sensor.yaml``.

    Raises InputError where the camera's is missing, and PyYAML's absence with the pip command.
    """
    own, other = poses.parent / "sensor.yaml", poses.parent.parent / camera / "sensor.yaml"
    if not other.is_file():
        raise InputError(
            f"'{poses}' has poses of the body, and '{other}', which says where the camera stands in it, is not here: "
            "give --device-mount, or --device-axes opencv if they are the camera's"
        )
    body_from_cam = _sensor_pose(other)
    body_from_sensor = _sensor_pose(own) if own.is_file() else Pose.identity(dtype=torch.float64)
    return body_from_cam.inverse() @ body_from_sensor


def is_euroc(folder: Path) -> bool:
    """Whether a folder is a camera of EuRoC, or holds one."""
    return _camera_folder(folder) is not None


def euroc_stream(folder: Path, options: CameraOptions) -> Stream:
    """The photos of the first camera of a sequence (or of the folder of another one), with its intrinsics.

    Raises InputError for malformed files.
    """
    camera = _camera_folder(folder)
    if camera is None:
        raise InputError(f"'{folder}' holds no cam0/data.csv")
    file = camera / "data.csv"
    times, paths = [], []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 2 or "/" in fields[1] or "\\" in fields[1] or fields[1].startswith("."):
            raise InputError(f"{file}:{number}: {line.strip()[:60]!r} is not of the form 'timestamp,file'")
        times.append(parse_numbers(fields[:1], f"{file}:{number}")[0] * _NANOSECOND)
        paths.append(camera / "data" / fields[1])
    if not paths:
        raise InputError(f"'{file}' lists no photos")
    known = None if options.said else _camera(camera / "sensor.yaml")
    return Photos(paths, times, cameras=lambda _: known, source=str(camera / "sensor.yaml")).stream(
        str(folder), options
    )


def _camera_folder(folder: Path) -> Path | None:
    near = (folder, folder / "cam0", folder / "mav0" / "cam0")
    return next((path for path in near if (path / "data.csv").is_file() and (path / "data").is_dir()), None)


def _camera(file: Path) -> Camera | None:
    """None without the file: the photos or the options may tell it."""
    if not file.is_file():
        return None
    content = read_yaml(file)
    size, numbers = _numbers(content, "resolution", 2, file), _numbers(content, "intrinsics", 4, file)
    kind, model = content.get("camera_model"), content.get("distortion_model", "none")
    if kind != "pinhole" or model not in (*_BENT, *_FISHEYES, "none"):
        raise InputError(f"'{file}': a camera {str(kind)[:30]!r} with distortion {str(model)[:30]!r} is not supported")
    wh, f, c = (torch.tensor(values, dtype=torch.float64) for values in (size, numbers[:2], numbers[2:]))
    if model == "none":
        return Camera(wh, f, c)
    terms = torch.tensor(_numbers(content, "distortion_coefficients", 4, file), dtype=torch.float64)
    if model in _FISHEYES:
        return Camera(wh, f, c, terms, "fisheye")
    return Camera(wh, f, c, torch.cat([terms, terms.new_zeros(1)]), "radtan")


def _numbers(content: Mapping[str, Any], key: str, count: int, file: Path) -> list[float]:
    values = content.get(key)
    if not isinstance(values, list) or len(values) != count:
        raise InputError(f"'{file}': {key} must be {count} numbers, got {str(values)[:60]!r}")
    # 1e-05 is a text in YAML, which wants a point
    return parse_numbers([str(value) for value in values], f"'{file}', {key}")


def _sensor_pose(file: Path) -> Pose:
    """``body_from_sensor``."""
    entry = read_yaml(file).get("T_BS")
    if not isinstance(entry, Mapping):
        raise InputError(f"'{file}' has no T_BS with the 16 numbers of a 4x4 matrix")
    values = _numbers(entry, "data", 16, file)
    pose = rigid_pose(torch.tensor(values, dtype=torch.float64).reshape(4, 4), f"'{file}'")
    if pose is None:
        raise InputError(f"'{file}': T_BS is not finite")
    return pose
