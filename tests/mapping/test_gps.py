"""Photos whose EXIF says where they were taken: a map in metres, its axes east, north and up."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from metriloc.geometry import Pose
from metriloc.io.maps import read_map
from metriloc.mapping.config import MapConfig
from metriloc.mapping.facts import GPS_FRAME, read_facts
from metriloc.runs.map_build import build_map

pytest.importorskip("pycolmap", reason="maps are made by COLMAP")
LATITUDE, LONGITUDE, GROUND = 50.0, 8.0, 120.0
ENU_FROM_WORLD = torch.tensor(
    [[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64
)  # y of the rendered world is down


def degrees(value: float) -> tuple[float, float, float]:
    whole = int(value)
    minutes = int(60 * (value - whole))
    return (float(whole), float(minutes), 3600 * (value - whole - minutes / 60))


def tagged(photo: Path, enu: torch.Tensor) -> None:
    """The photo as a JPEG with its place, good to 2 cm, which is what a surveyor's receiver states."""
    north = math.degrees(float(enu[1]) / 6_365_000)  # metres of a radian along and across the meridian, at 50 degrees
    east = math.degrees(float(enu[0]) / (6_390_700 * math.cos(math.radians(LATITUDE))))
    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    gps.update({1: "N", 2: degrees(LATITUDE + north), 3: "E", 4: degrees(LONGITUDE + east), 5: b"\0"})
    gps.update({6: GROUND + float(enu[2]), 31: 0.02})
    with Image.open(photo) as image:
        image.save(photo.with_suffix(".jpg"), quality=97, exif=exif)
    photo.unlink()


@pytest.mark.slow
def test_gps_in_exif_gives_metres_gravity_and_north(tmp_path: Path, write_photos: Callable[..., Pose]) -> None:
    folder = tmp_path / "photos"
    poses = write_photos(folder, 6)
    listed = (folder / "intrinsics.txt").read_text().replace(".png", ".jpg")
    (folder / "intrinsics.txt").write_text(listed)
    enu = poses.center() @ ENU_FROM_WORLD.mT
    noise = 0.01 * torch.randn(enu.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise[2] += 3.0  # one that says nonsense
    for number in range(6):
        tagged(folder / f"{number:02d}.png", enu[number] + noise[number])
    build_map(folder, tmp_path / "map", config=MapConfig(threads=1))
    facts, scene = read_facts(tmp_path / "map"), read_map(tmp_path / "map")
    assert facts is not None and facts.scale is not None and facts.scale.frame == GPS_FRAME
    (source,) = facts.scale.sources
    assert source["name"] == "GPS positions" and "5 of 6 photos" in source["said"]
    moved, true = scene.cam_from_world.center(), enu
    ratio = float((moved[0] - moved[5]).norm() / (true[0] - true[5]).norm())
    assert abs(math.log(ratio)) < 3 * facts.scale.sigma and facts.scale.sigma < 0.1
    down = scene.cam_from_world.R[:, 1].mean(0)
    assert float(-down[2] / down.norm()) > math.cos(math.radians(8))  # up is z, as well as 2 cm on 1.5 m tell
    ahead, expected = scene.cam_from_world.R[:, 2], poses.R[:, 2] @ ENU_FROM_WORLD.mT
    assert float((ahead * expected).sum(-1).min()) > math.cos(math.radians(8))
