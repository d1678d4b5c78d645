"""What a photo says before it is decoded: size, orientation, GPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from metriloc.io import InputError
from metriloc.io.photo_headers import GPS_SIGMA_M, read_header


def photo(folder: Path, gps: dict[int, Any] | None = None, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if gps is not None:
        exif.get_ifd(0x8825).update(gps)
    path = folder / "photo.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    return path


def test_gps_positions(tmp_path: Path) -> None:
    gps = {1: "S", 2: (48.0, 30.0, 36.0), 3: "W", 4: (11.0, 0.0, 0.0), 5: b"\x01", 6: 12.5}
    found = read_header(photo(tmp_path, gps)).position
    assert found is not None
    assert (found.latitude, found.longitude, found.altitude) == (pytest.approx(-48.51), -11.0, -12.5)
    assert found.sigma == GPS_SIGMA_M


@pytest.mark.parametrize(
    "gps",
    [
        None,
        {},
        {1: "N", 2: (95.0, 0.0, 0.0), 3: "E", 4: (11.0, 0.0, 0.0)},
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, 0.0, 0.0)},
        {1: "N", 2: 48.0, 3: "E", 4: 11.0},
    ],
)
def test_gps_that_says_nothing(tmp_path: Path, gps: dict[int, Any] | None) -> None:
    assert read_header(photo(tmp_path, gps)).position is None


def test_the_size_is_as_stored(tmp_path: Path) -> None:
    header = read_header(photo(tmp_path, orientation=6))
    assert header.size == (40, 30) and header.upright_size == (30, 40)
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(InputError, match="not an image"):
        read_header(tmp_path / "text.jpg")
