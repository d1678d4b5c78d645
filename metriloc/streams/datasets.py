"""Folders of data sets as streams: Map-free scenes, nerfstudio captures, TUM RGB-D, KITTI odometry.

Poses that a device told come along (Map-free's ``poses_device.txt``, nerfstudio captures of phones); ground truth of a
benchmark does not: whoever wants it as device poses says so.
"""

from __future__ import annotations

from pathlib import Path

from metriloc.datasets.mapfree import read_device_poses, read_mapfree_scene
from metriloc.datasets.matrices import pinhole
from metriloc.datasets.nerfstudio import FILE_NAME, read_nerfstudio
from metriloc.datasets.sources import PosedScene
from metriloc.datasets.tum import parse_stamped_files, tum_camera
from metriloc.geometry import Camera
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers
from metriloc.io.images import upright_size
from metriloc.streams.device_poses import NamedPoses
from metriloc.streams.folder import DEFAULT_FPS, Photos, photos_in
from metriloc.streams.frames import Stream
from metriloc.streams.notes import Notes
from metriloc.streams.views import CameraOptions

_KITTI_FOLDERS = ("image_2", "image_0", "image_3", "image_1")


def mapfree_stream(folder: Path, options: CameraOptions, fps: float | None = None) -> Stream:
    """The queries of a Map-free scene (``seq1``), the phone's own tracking with them where there is any.

    Poses of the phone are relative to the last frame of each block of nine; between two blocks its world is another.
    """
    scene = read_mapfree_scene(folder)
    chosen = scene.queries() or list(range(len(scene)))
    notes = Notes()
    device = read_device_poses(folder)
    where = f"'{folder / 'poses_device.txt'}'"
    known = None if device is None else {name: pose for name, pose in device.items() if pose is not None}
    return _of_scene(
        scene.posed, chosen, folder, options, fps, None if known is None else NamedPoses(known, notes, where)
    )


def nerfstudio_stream(folder: Path, options: CameraOptions, fps: float | None = None) -> Stream:
    """The photos of a ``transforms.json`` in file order, with intrinsics and poses of each."""
    scene = read_nerfstudio(folder)
    poses = {name: scene.cam_from_world[i] for i, name in enumerate(scene.names)}
    device = NamedPoses(poses, Notes(), f"'{folder / FILE_NAME}'")
    return _of_scene(scene, list(range(len(scene))), folder, options, fps, device)


def _of_scene(
    scene: PosedScene,
    chosen: list[int],
    folder: Path,
    options: CameraOptions,
    fps: float | None,
    device: NamedPoses | None,
) -> Stream:
    photos = Photos(
        [folder / scene.names[i] for i in chosen],
        [number / (fps or DEFAULT_FPS) for number in range(len(chosen))],
        [scene.names[i] for i in chosen],
        lambda number: scene.cameras[chosen[number]],
        scene.intrinsics_source,
        scene.upright,
    )
    return photos.stream(str(folder), options, device)


def tum_stream(folder: Path, options: CameraOptions) -> Stream:
    """The photos of ``rgb.txt`` with its time stamps; the published camera where the folder's name tells it."""
    listed = parse_stamped_files(read_text(folder / "rgb.txt"), str(folder / "rgb.txt"))
    for _, name in listed:
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise InputError(f"'{folder / 'rgb.txt'}' names {name!r}, which is not inside the folder")
    if not listed:
        raise InputError(f"'{folder / 'rgb.txt'}' lists no photos")
    camera = _published(folder)
    photos = Photos(
        [folder / name for _, name in listed],
        [time for time, _ in listed],
        cameras=lambda _: camera,
        source="TUM's published calibration",
    )
    return photos.stream(str(folder), options)


def _published(folder: Path) -> Camera | None:
    try:
        return tum_camera(folder)
    except InputError:  # of another name: the photos or the options may tell it
        return None


def is_kitti(folder: Path) -> bool:
    """Whether a folder is a sequence of KITTI odometry."""
    return (folder / "times.txt").is_file() and _kitti_folder(folder) is not None


def kitti_stream(folder: Path, options: CameraOptions) -> Stream:
    """The photos of the left color camera of a sequence (else of another), with ``times.txt`` and ``calib.txt``.

    Poses of the data set are those of the left grey camera, half a decimeter beside the color one.
    """
    inside = _kitti_folder(folder)
    if inside is None:
        raise InputError(f"'{folder}' holds none of {', '.join(_KITTI_FOLDERS)}")
    paths, file = photos_in(folder / inside), folder / "times.txt"
    rows = [(n, line.split()) for n, line in enumerate(read_text(file).split("\n"), 1) if line.strip()]
    times = [parse_numbers(fields[:1], f"{file}:{n}")[0] for n, fields in rows]
    if len(times) != len(paths):
        raise InputError(f"'{file}' has {len(times)} times for {len(paths)} photos in '{folder / inside}'")
    calib = folder / "calib.txt"
    numbers = _projection(calib, inside[-1]) if calib.is_file() and not options.said else None

    def camera(index: int) -> Camera | None:
        return None if numbers is None else _pinhole(paths[index], numbers)

    return Photos(paths, times, cameras=camera, source=str(calib)).stream(str(folder), options)


def _kitti_folder(folder: Path) -> str | None:
    return next((name for name in _KITTI_FOLDERS if (folder / name).is_dir()), None)


def _projection(file: Path, number: str) -> list[float]:
    """fx fy cx cy of camera ``number``: line ``P2: 12 numbers``."""
    for n, line in enumerate(read_text(file).split("\n"), 1):
        fields = line.split()
        if fields and fields[0] == f"P{number}:":
            values = parse_numbers(fields[1:], f"{file}:{n}")
            if len(values) != 12 or not min(values[0], values[5]) > 0:
                raise InputError(
                    f"{file}:{n}: P{number} must be the 12 numbers of a projection with focal lengths above 0"
                )
            return [values[0], values[5], values[2], values[6]]
    raise InputError(f"'{file}' has no line P{number}")


def _pinhole(path: Path, numbers: list[float]) -> Camera:
    width, height = upright_size(path)
    return pinhole((width, height), numbers)


def is_scene(folder: Path) -> bool:
    """Whether a folder is a scene of Map-free's form."""
    return (folder / "poses.txt").is_file() and (folder / "intrinsics.txt").is_file()
