"""The readers of streams and of device poses, for ``tools/fuzz_readers.py``. Videos and bags are decoded in a process of
their own, which takes a second to start, so they are not among them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from fuzz_seeds import Reader, _encoded

from metriloc.evaluation.trajectory_files import read_trajectory
from metriloc.io import InputError
from metriloc.streams.device_poses import MatchConfig
from metriloc.streams.jpegs import jpeg_stream
from metriloc.streams.notes import Notes
from metriloc.streams.pose_files import MountOptions, read_device_poses, read_mount
from metriloc.streams.source import open_stream
from metriloc.streams.views import CameraOptions

_EUROC = b"#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []\n"
_SENSOR = b"""T_BS:
  cols: 4
  rows: 4
  data: [1.0, 0.0, 0.0, 0.1, 0.0, 1.0, 0.0, 0.2, 0.0, 0.0, 1.0, 0.3, 0.0, 0.0, 0.0, 1.0]
camera_model: pinhole
intrinsics: [50.0, 50.0, 23.5, 15.5]
resolution: [48, 32]
distortion_model: radial-tangential
distortion_coefficients: [-0.28, 0.07, 0.0002, 1.7e-05]
"""


def stream_readers() -> list[Reader]:
    """All of them."""
    jpeg = _encoded("JPEG")
    record3d = {"w": 48, "h": 32, "fps": 30, "K": [50, 0, 0, 0, 50, 0, 24, 16, 1], "poses": [[0, 0, 0, 1, 0.1, 0, 0]]}
    metadata = json.dumps({**record3d, "perFrameIntrinsicCoeffs": [[50, 50, 24, 16]], "frameTimestamps": [0.0]})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("metadata", metadata)
        file.writestr("rgbd/0.jpg", jpeg)
    odometry = b"timestamp, frame, x, y, z, qx, qy, qz, qw\n"
    odometry += b"1.0, 000000, 0, 0, 0, 0, 0, 0, 1\n1.1, 000001, 1, 2, 3, 0, 0, 0, 1\n"
    euroc = _EUROC + b"1403636579763555584,1,2,3,1,0,0,0\n1403636579813555456,1,2,3,1,0,0,0\n"
    frames = {
        "index": 0,
        "time": 0.5,
        "success": True,
        "cam_from_world": {"matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
    }
    listed = b"#timestamp [ns],filename\n1403636579763555584,1403636579763555584.png\n"
    return [
        Reader("device TUM", "t.txt", (b"1.5 0 0 0 0 0 0 1\n2 1 2 3 0.5 0.5 0.5 0.5\n",), _device, "text"),
        Reader("device KITTI", "k.txt", (b"1 0 0 0.1 0 1 0 0.2 0 0 1 0.3\n",), _device, "text"),
        Reader("device Map-free", "poses_device.txt", (b"seq1/a.jpg 1 0 0 0 1 2 3\n",), _device, "text"),
        Reader("device EuRoC", "data.csv", (euroc,), _with_axes, "text"),
        Reader("device Stray Scanner", "odometry.csv", (odometry,), _device, "text"),
        Reader("device Record3D", "metadata.json", (metadata.encode(),), _device, "json"),
        Reader("mount", "m.txt", (b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n",), read_mount, "text"),
        Reader("Record3D", "a.r3d", (archive.getvalue(),), _all_frames),
        Reader(
            "EuRoC sensor.yaml", "sensor.yaml", (_SENSOR,), _of_folder, "text", {"data.csv": listed, "data/x": b"x"}
        ),
        Reader("EuRoC photos", "data.csv", (listed,), _of_folder, "text", {"sensor.yaml": _SENSOR, "data/x": b"x"}),
        Reader("JPEGs in a row", "a.mjpeg", (3 * jpeg,), _jpegs, words=True),
        Reader("frames of a run", "frames.jsonl", (json.dumps(frames).encode() + b"\n",), _trajectory, "json"),
    ]


def _device(path: Path) -> Any:
    return read_device_poses(path, MatchConfig(), MountOptions(), Notes())


def _with_axes(path: Path) -> Any:
    return read_device_poses(path, MatchConfig(), MountOptions(axes="ros"), Notes())


def _trajectory(path: Path) -> Any:
    return read_trajectory(path, Notes())


def _loaded(frames: Any) -> None:
    """Each frame costs itself; only what is no sentence goes on."""
    for frame in frames:
        try:
            frame.load()
        except InputError as error:
            if "\n" in str(error):
                raise RuntimeError(f"not one sentence: {error}") from error


def _all_frames(path: Path) -> None:
    _loaded(open_stream(path))


def _of_folder(path: Path) -> None:
    next(iter(open_stream(path.parent)))


def _jpegs(path: Path) -> None:
    with open(path, "rb") as pipe:
        _loaded(jpeg_stream(io.BytesIO(pipe.read()), CameraOptions(fov=60.0), fps=10.0))
