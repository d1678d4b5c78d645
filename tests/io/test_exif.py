"""Focal lengths from EXIF: digital zoom, bodies known by name, crops and resized photos, and every file of the cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from metriloc.io import ExifData, focal_from_exif, read_image, resolve_intrinsics
from metriloc.io.exif import BODY_SIGMA, EXIF_SIGMA, ExifFocal
from metriloc.io.sensors import BODIES, find_body

PHONE = (4032, 3024)
DIAGONAL = 5040.0
FILM = math.hypot(36, 24)


def of_phone(**fields: object) -> ExifFocal:
    return focal_from_exif(ExifData(make="Apple", model="iPhone 12", **fields), PHONE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("equivalent", "expected", "says"),
    [
        (52.0, 52.0, "digital zoom of 2 included"),
        (51.0, 51.0, "digital zoom of 2 included"),
        (26.0, 52.0, "times a digital zoom of 2"),
        (27.0, 54.0, "times a digital zoom of 2"),
        (39.0, None, "the lens alone has 26 mm"),
        (104.0, None, "the lens alone has 26 mm"),
    ],
)
def test_the_body_tells_whether_the_equivalent_includes_the_zoom(
    equivalent: float, expected: float | None, says: str
) -> None:
    found = of_phone(focal_35mm=equivalent, focal_mm=4.2, zoom=2.0)
    assert says in found.note
    assert found.pixels == (None if expected is None else pytest.approx(expected / FILM * DIAGONAL, rel=1e-9))


def test_zoom_of_an_unknown_body_is_a_guess_that_says_so() -> None:
    exif = ExifData(focal_35mm=26.0, focal_mm=4.2, zoom=2.0, make="Apple", model="iPhone 99")
    known = resolve_intrinsics(PHONE, exif=exif)
    assert known.guessed and "zoomed digitally (2 times) and nothing tells whether it includes that" in known.source


def test_zoom_with_a_known_sensor() -> None:
    plane = {"focal_mm": 4.0, "plane_resolution": (700.0, 700.0), "recorded_size": PHONE}
    assert focal_from_exif(ExifData(**plane), PHONE).pixels == pytest.approx(2800)  # type: ignore[arg-type]
    zoomed = focal_from_exif(ExifData(**plane, zoom=3.0), PHONE)  # type: ignore[arg-type]
    assert zoomed.pixels == pytest.approx(8400) and "times a digital zoom of 3" in zoomed.note
    # the resolution tells what the equivalent means, too
    optical = 2800 / DIAGONAL * FILM
    for equivalent in (optical, 3 * optical):
        both = focal_from_exif(ExifData(**plane, zoom=3.0, focal_35mm=equivalent), PHONE)  # type: ignore[arg-type]
        assert both.pixels == pytest.approx(8400)


@pytest.mark.parametrize("zoom", [1.0, 1.004, 0.5])
def test_no_zoom_to_speak_of(zoom: float) -> None:
    found = focal_from_exif(ExifData(focal_35mm=26.0, zoom=zoom), PHONE)
    assert found.pixels == pytest.approx(26 / FILM * DIAGONAL) and "zoom" not in found.note


@pytest.mark.parametrize(("focal_mm", "equivalent"), [(4.2, 26.0), (4.25, 26.0 * 4.25 / 4.2), (1.55, 13.0)])
def test_a_body_known_by_name(focal_mm: float, equivalent: float) -> None:
    found = of_phone(focal_mm=focal_mm)
    assert found.pixels == pytest.approx(equivalent / FILM * DIAGONAL, rel=1e-9)
    assert found.sigma == BODY_SIGMA and "sensor of the Apple iPhone 12 (crop factor" in found.note
    known = resolve_intrinsics(
        (3024, 4032), exif=ExifData(focal_mm=focal_mm, make="Apple", model="iPhone 12", recorded_size=PHONE)
    )
    assert not known.guessed and known.focal_sigma == BODY_SIGMA
    assert float(known.camera.f[0]) == pytest.approx(found.pixels, rel=1e-6)
    assert of_phone(focal_mm=focal_mm, zoom=2.0).pixels == pytest.approx(2 * found.pixels)


def test_a_body_is_asked_only_where_nothing_better_is_there() -> None:
    assert "35-mm equivalent" in of_phone(focal_mm=4.2, focal_35mm=28.0).note
    assert "focal-plane" in of_phone(focal_mm=4.2, plane_resolution=(700.0, 700.0), recorded_size=PHONE).note


def test_a_lens_that_the_body_does_not_have() -> None:
    assert of_phone(focal_mm=6.0) == ExifFocal(None, "")


def test_a_body_whose_sensor_has_another_shape() -> None:
    found = focal_from_exif(ExifData(focal_mm=4.2, make="Apple", model="iPhone 12"), (4032, 2268))
    assert found.pixels is None and "sensor is 4:3 and the photo 4032x2268, so it was cropped" in found.note


@pytest.mark.parametrize(
    ("make", "model", "is_body"),
    [
        ("Apple", "iPhone 12", True),
        ("APPLE", " iphone  12\0", True),
        ("Apple", "iPhone 12 mini", False),
        ("Apple", "iPhone 1", False),
        ("Apple", "iPhone 12 Pro Max", False),
        ("Samsung", "iPhone 12", False),
        ("", "iPhone 12", False),
        ("Apple", "", False),
    ],
)
def test_names_that_are_alike(make: str, model: str, is_body: bool) -> None:
    body = find_body(make, model, 4.2)
    assert (body is not None) == is_body and (body is None or body.model == "iPhone 12")


def test_models_that_differ_by_a_suffix_keep_their_own_numbers() -> None:
    plain, pro = (
        find_body("Apple", name, 5.1 if name.endswith("3") else 5.7) for name in ("iPhone 13", "iPhone 13 Pro")
    )
    assert plain is not None and pro is not None and plain.crop > 1.1 * pro.crop
    assert find_body("Apple", "iPhone 13", 5.7) is None and find_body("Apple", "iPhone 13 Pro", 5.1) is None


def test_the_table() -> None:
    assert len({body.name for body in BODIES}) >= 20
    assert len({(body.make, body.model, body.focal_mm) for body in BODIES}) == len(BODIES)
    for body in BODIES:
        assert body.source and 0.9 < body.crop < 10 and body.shape in ((4, 3), (3, 2)), body
        assert body.focal_mm is None or 12 < body.focal_mm * body.crop < 80, body
        assert body.make.split()[0].casefold() in body.name.casefold(), body
    # known sensor formats: full frame, APS-C of Canon, four thirds, one inch
    for make, model, crop in [
        ("Canon", "Canon EOS 5D Mark II", 1.0),
        ("Canon", "Canon EOS 550D", 1.61),
        ("Panasonic", "DMC-GH4", 2.0),
        ("DJI", "FC6310", 2.73),
    ]:
        known = find_body(make, model, 8.8)
        assert known is not None and known.crop == pytest.approx(crop, rel=0.005)


def test_a_resized_photo_says_so() -> None:
    exif = ExifData(focal_35mm=26.0, recorded_size=PHONE)
    resized = "resized from 4032x3024 unless it was cropped, which EXIF cannot tell"
    assert focal_from_exif(exif, (1008, 756)).note.endswith(resized)
    assert focal_from_exif(exif, (756, 1008)).note.endswith(resized)
    for size in (PHONE, PHONE[::-1]):
        assert "resized" not in focal_from_exif(exif, size).note
    assert resized in resolve_intrinsics((1008, 756), exif=exif).source
    cropped = focal_from_exif(exif, (1008, 567))
    assert cropped.pixels is None and "cropped from 4032x3024" in cropped.note


def test_an_unusual_shape_without_a_recorded_size_was_cropped() -> None:
    found = focal_from_exif(ExifData(focal_35mm=26.0), (480, 480))
    assert found.pixels is None and "480x480 is neither 4:3 nor 3:2 nor 16:9" in found.note
    for size in ((720, 480), (480, 640), (1920, 1080), (4608, 3456), (3072, 2048)):
        assert focal_from_exif(ExifData(focal_35mm=26.0), size).pixels is not None


def test_rounding_of_the_equivalent_counts() -> None:
    wide, tele = (focal_from_exif(ExifData(focal_35mm=f), PHONE).sigma for f in (13.0, 300.0))
    assert wide == pytest.approx(math.hypot(EXIF_SIGMA, 0.29 / 13)) and tele == pytest.approx(EXIF_SIGMA, rel=0.01)


def test_fields_are_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Apple", "iPhone 12\0"
    exif.get_ifd(0x8769).update({0xA404: 2.0, 0x920A: 4.2, 0xA20E: 2540.0, 0xA20F: 2540.0, 0xA210: 1})
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").exif == ExifData(
        focal_mm=4.2, zoom=2.0, make="Apple", model="iPhone 12", plane_without_unit=True
    )


CASES = {
    "cropped_same_aspect": (360.0, "unless it was cropped, which EXIF cannot tell"),
    "cropped_square": (None, "cropped from 720x480"),
    "cropped_square_nosize": (None, "480x480 is neither 4:3 nor 3:2 nor 16:9"),
    "f35_1": (None, "absurd"),
    "f35_short": (None, "absurd"),
    "no35_model": (None, "sensor of the Apple iPhone 12 (crop factor 6.19) was not used because the sensor is 4:3"),
    "no35_plane_cm": (646.7, "focal-plane"),
    "no35_plane_half": (646.7, "resized from 1440x960"),
    "no35_plane_inch": (646.7, "focal-plane"),
    "no35_plane_mm": (646.7, "focal-plane"),
    "no35_plane_um": (646.7, "focal-plane"),
    "no35_plane_unit1": (None, "focal-plane resolution was not used because it has no unit"),
    "ok35": (640.0, "35-mm equivalent focal length 32 mm"),
    "orient0": (720.0, "35-mm equivalent focal length 36 mm"),
    "orient9": (720.0, "35-mm equivalent focal length 36 mm"),
    "portrait6": (720.0, "35-mm equivalent focal length 36 mm"),
    "zero_den": (None, "a guess"),
    "zero_focal": (None, "a guess"),
    "zoom2_35not": (None, "nothing tells whether it includes that"),
    "zoom2_35scaled": (None, "nothing tells whether it includes that"),
}
"""Pixels that the EXIF of each file states (None: a stated guess) and what the source must say."""


@pytest.mark.parametrize("name", CASES)
def test_cases(shared: Callable[[str], Path], name: str) -> None:
    pixels, says = CASES[name]
    loaded = read_image(shared(f"cases/01_exif/{name}.jpg"))
    known = resolve_intrinsics(loaded.size, exif=loaded.exif)
    assert says in known.source
    assert known.guessed == (pixels is None) and known.source.startswith("a guess") == known.guessed
    if pixels is not None:
        assert float(known.camera.f[0]) == pytest.approx(pixels, rel=1e-5)


def test_every_case_has_an_expectation(shared: Callable[[str], Path]) -> None:
    assert {file.stem for file in shared("cases/01_exif").glob("*.jpg")} == set(CASES)
