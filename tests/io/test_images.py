"""Photos of every kind become upright RGB, and everything else one sentence."""

from __future__ import annotations

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from metriloc.io import InputError, read_image
from metriloc.io.exif import ExifData, focal_from_exif

EXIF_IFD = 0x8769


def picture(width: int = 24, height: int = 16) -> Image.Image:
    """Smooth enough for JPEG, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 10, y * 15, 255 - x * 5 - y * 3], -1).clip(0, 255).astype(np.uint8))


def png(width: int, height: int, bits: int = 8, kind: int = 2, data: bytes = b"\0") -> bytes:
    """A PNG written by hand: any size in the header, 16 bits a channel."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def exif_with(orientation: int = 1, **fields: object) -> Image.Exif:
    codes = {"f35": 0xA405, "f": 0x920A, "w": 0xA002, "h": 0xA003, "px": 0xA20E, "py": 0xA20F, "unit": 0xA210}
    exif = Image.Exif()
    exif[0x0112] = orientation
    sub = exif.get_ifd(EXIF_IFD)
    for name, value in fields.items():
        sub[codes[name]] = value
    return exif


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp", "a.ppm"])
def test_common_formats(tmp_path: Path, name: str) -> None:
    image = picture()
    image.save(tmp_path / name, quality=100)
    loaded = read_image(tmp_path / name)
    assert loaded.rgb.dtype == np.uint8 and loaded.size == loaded.original_size == (24, 16)
    difference = np.abs(loaded.rgb.astype(int) - np.asarray(image))
    # lossy formats store colour at half resolution
    assert difference.mean() < 4 if name in ("a.jpg", "a.webp") else difference.max() == 0
    assert loaded.exif == ExifData()


def test_the_name_does_not_decide(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(read_image(str(tmp_path / "a.jpg")).rgb, np.asarray(picture()))


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    image = picture()
    file = tmp_path / f"a.{suffix}"
    image.save(file, exif=exif_with(orientation), quality=100)
    loaded = read_image(file)
    with Image.open(file) as stored:
        oracle = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert np.array_equal(loaded.rgb, oracle)
    assert loaded.size == ((16, 24) if orientation > 4 else (24, 16))
    assert loaded.rgb.flags.c_contiguous


@pytest.mark.parametrize("bad", [0, 9, 300])
def test_unknown_orientation_is_ignored(tmp_path: Path, bad: int) -> None:
    picture().save(tmp_path / "a.png", exif=exif_with(bad))
    assert np.array_equal(read_image(tmp_path / "a.png").rgb, np.asarray(picture()))


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow remarks on the damage
        assert read_image(tmp_path / "a.jpg").exif == ExifData()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_color_modes(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image = picture().convert(mode)
    image.save(file)
    rgb = read_image(file).rgb
    assert rgb.shape == (16, 24, 3)
    assert np.abs(rgb.astype(int) - np.asarray(image.convert("RGB"))).max() <= 3  # YCbCr is stored rounded


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "a.jpg").rgb.astype(int) - [255, 0, 0]).max() <= 2


def test_transparent_pixels_are_black(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (200, 100, 50, 255))
    image.putpixel((1, 0), (200, 100, 50, 0))
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").rgb.tolist() == [[[200, 100, 50], [0, 0, 0]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    assert read_image(tmp_path / "p.png").rgb.tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_16_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values).save(tmp_path / "grey.tif")
    (tmp_path / "grey.pgm").write_bytes(b"P5\n5 1\n65535\n" + values.astype(">u2").tobytes())
    expected = np.repeat(np.round(values / 257)[..., None], 3, axis=2)
    for name in ("grey.png", "grey.tif", "grey.pgm"):
        assert np.array_equal(read_image(tmp_path / name).rgb, expected), name
    row = b"\0" + np.array([[0, 32768, 65535]], ">u2").tobytes()
    (tmp_path / "rgb.png").write_bytes(png(1, 1, bits=16, data=row))
    assert read_image(tmp_path / "rgb.png").rgb.tolist() == [[[0, 128, 255]]]


def twelve_bits(folder: Path, values: np.ndarray) -> dict[str, Path]:
    """Files of 16 bits with these values that do not state their maximum."""
    files = {name: folder / name for name in ("grey.png", "grey.tif", "grey.pgm", "rgb.png", "rgb.ppm")}
    for name in ("grey.png", "grey.tif"):
        Image.fromarray(values).save(files[name])
    height, width = values.shape
    header, big = f"{width} {height}\n65535\n".encode(), values.astype(">u2")
    files["grey.pgm"].write_bytes(b"P5\n" + header + big.tobytes())
    rgb = np.repeat(big[..., None], 3, axis=2)
    files["rgb.ppm"].write_bytes(b"P6\n" + header + rgb.tobytes())
    files["rgb.png"].write_bytes(png(width, height, bits=16, data=b"".join(b"\0" + row.tobytes() for row in rgb)))
    return files


def test_twelve_bits_in_sixteen_are_refused(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 2000], [3000, 4000, 4095]], np.uint16)
    for name, path in twelve_bits(tmp_path, values).items():
        with pytest.raises(
            InputError, match=r"has 16 bits but no value above \d{4}, as from .* multiply .* \(by 16"
        ) as caught:
            read_image(path)
        assert str(path) in str(caught.value), name
    for name, path in twelve_bits(tmp_path, 16 * values).items():
        gray = read_image(path).rgb[..., 0]
        assert np.abs(gray.astype(int) - np.round(16 * values / 257)).max() <= 1, name
    for path in twelve_bits(tmp_path, 0 * values).values():
        assert read_image(path).rgb.max() == 0  # black is black in any number of bits


def test_a_stated_maximum_scales(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 2000], [3000, 4000, 4095]], np.uint16)
    expected = np.repeat(np.round(values / 4095 * 255)[..., None], 3, axis=2)
    Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={281: 4095})
    (tmp_path / "a.pgm").write_bytes(b"P5\n3 2\n4095\n" + values.astype(">u2").tobytes())
    rgb = np.repeat(values.astype(">u2")[..., None], 3, axis=2)
    (tmp_path / "a.ppm").write_bytes(b"P6\n3 2\n4095\n" + rgb.tobytes())
    for name in ("a.tif", "a.pgm", "a.ppm"):
        assert np.abs(read_image(tmp_path / name).rgb - expected).max() <= 1, name
    # a dark photo whose file says what white is
    (tmp_path / "a.pgm").write_bytes(b"P5\n3 2\n4095\n" + (values // 40).astype(">u2").tobytes())
    assert read_image(tmp_path / "a.pgm").rgb.max() == round(102 / 4095 * 255)
    Image.fromarray(values).save(tmp_path / "b.tif", tiffinfo={281: 1023})
    with pytest.raises(
        InputError, match=r"b\.tif' states a maximum of 1023 \(MaxSampleValue\) but has values up to 4095"
    ):
        read_image(tmp_path / "b.tif")
    Image.fromarray(values).save(tmp_path / "c.tif", tiffinfo={281: 65535})
    with pytest.raises(InputError, match="no value above 4095"):
        read_image(tmp_path / "c.tif")


def test_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])  # phones write these
    for name in ("a.webp", "a.tif", "a.jpg"):
        rgb = read_image(tmp_path / name).rgb.astype(int)
        assert np.abs(rgb - [255, 0, 0]).max() <= 2, name


def test_numbers_are_no_photo(tmp_path: Path) -> None:
    Image.new("F", (4, 4)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match=r"f.tif' holds 'F' values, not a photo"):
        read_image(tmp_path / "f.tif")


def test_text_named_jpg(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("this is no picture\n" * 20)
    with pytest.raises(InputError, match=r"a.jpg' is not an image that can be read \(JPEG, "):
        read_image(tmp_path / "a.jpg")


def test_other_formats(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.gif")
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    for name in ("a.gif", "a.eps"):
        with pytest.raises(InputError, match="is not an image that can be read"):
            read_image(tmp_path / name)


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    for name, sentence in {"empty.jpg": "is empty", ".": "is a folder", "no.jpg": "does not exist"}.items():
        with pytest.raises(InputError, match=sentence):
            read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif", "a.bmp"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
def test_truncated(tmp_path: Path, name: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match=f"{name}' is (truncated or damaged|not an image)") as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [(8000, 7000, "8000x7000 = 56 megapixels"), (10001, 10001, "10001x10001"), (20000, 20000, "400 megapixels")],
)
def test_size_is_checked_before_decoding(tmp_path: Path, width: int, height: int, says: str) -> None:
    (tmp_path / "bomb.png").write_bytes(png(width, height))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=f"bomb.png' has {says}.*; the limit is 50"):
            read_image(tmp_path / "bomb.png")


def test_the_limit_is_a_parameter(tmp_path: Path) -> None:
    picture(100, 100).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_megapixels=0.01).size == (100, 100)
    with pytest.raises(InputError, match=r"100x100 = 0 megapixels; the limit is 0.0099"):
        read_image(tmp_path / "a.png", max_megapixels=0.0099)


def test_heic(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = picture(64, 48)
    exif = exif_with(6, f35=26)
    pillow_heif.from_pillow(image).save(tmp_path / "a.heic", exif=exif.tobytes(), quality=100)
    loaded = read_image(tmp_path / "a.heic")
    # turned once: by libheif, not again by the EXIF orientation
    assert loaded.size == (48, 64) and loaded.exif.focal_35mm == 26
    assert np.abs(loaded.rgb.astype(int) - np.rot90(np.asarray(image), -1)).mean() < 4
    with pytest.raises(InputError, match=r"the limit is 0\.001"):
        read_image(tmp_path / "a.heic", max_megapixels=0.001)
    data = (tmp_path / "a.heic").read_bytes()
    for end in (100, len(data) - 200):
        (tmp_path / "b.heic").write_bytes(data[:end])
        with pytest.raises(InputError, match=r"b.heic' is truncated or damaged"):
            read_image(tmp_path / "b.heic")


def test_heic_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"pip install 'metriloc\[heic\]'"):
        read_image(tmp_path / "a.heic")


def encoded(suffix: str) -> bytes:
    stream = io.BytesIO()
    picture(12, 8).save(stream, format=suffix, exif=exif_with(6, f35=26))
    return stream.getvalue()


ENCODED = [encoded(name) for name in ("JPEG", "PNG", "WEBP", "TIFF")]


@given(st.sampled_from(ENCODED), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_never_raises_anything_else(tmp_path: Path, data: bytes, draw: st.DataObject) -> None:
    broken = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        broken[draw.draw(st.integers(0, len(broken) - 1))] = draw.draw(st.integers(0, 255))
    file = tmp_path / "x"
    file.write_bytes(bytes(broken[: draw.draw(st.integers(1, len(broken)))]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = read_image(file, max_megapixels=1)
        except InputError as error:
            assert str(file) in str(error)
        else:
            assert loaded.rgb.ndim == 3 and loaded.rgb.size > 0


def test_exif_fields(tmp_path: Path) -> None:
    fields = {"f35": 26, "f": 4.25, "w": 4032, "h": 3024, "px": 1000.0, "py": 1000.0, "unit": 3}
    picture().save(tmp_path / "a.jpg", exif=exif_with(8, **fields))
    assert read_image(tmp_path / "a.jpg").exif == ExifData(8, 26.0, 4.25, (100.0, 100.0), (4032, 3024))


def test_focal_of_35mm_equivalent() -> None:
    # a full-frame photo of 6000x4000: 36 mm of sensor are 6000 pixels
    found = focal_from_exif(ExifData(focal_35mm=50.0), (6000, 4000))
    assert found.pixels == pytest.approx(50 / 36 * 6000, rel=1e-12)
    assert found.note == "EXIF 35-mm equivalent focal length 50 mm"
    # resized and turned: the same share of the longer side
    small = focal_from_exif(ExifData(focal_35mm=50.0, recorded_size=(6000, 4000)), (400, 600))
    assert small.pixels == pytest.approx(50 / 36 * 600, rel=1e-12)


def test_focal_of_the_sensor() -> None:
    # 4 mm lens, 500 px/mm as recorded at 4000 px, photo reduced to 1000 px
    exif = ExifData(focal_mm=4.0, plane_resolution=(500.0, 500.0), recorded_size=(4000, 3000))
    assert focal_from_exif(exif, (1000, 750)).pixels == pytest.approx(4 * 500 / 4)
    assert focal_from_exif(exif, (750, 1000)).pixels == pytest.approx(4 * 500 / 4)
    odd = focal_from_exif(ExifData(focal_mm=4.0, plane_resolution=(500.0, 250.0)), (1000, 750))
    assert odd.pixels is None and "contradict" in odd.note


def test_focal_that_cannot_be_used() -> None:
    assert focal_from_exif(ExifData(), (640, 480)).pixels is None
    assert focal_from_exif(ExifData(focal_mm=4.0), (640, 480)).pixels is None
    for absurd in (1.0, 65535.0):
        found = focal_from_exif(ExifData(focal_35mm=absurd), (640, 480))
        assert found.pixels is None and "absurd" in found.note
    cropped = focal_from_exif(ExifData(focal_35mm=26.0, recorded_size=(4032, 3024)), (1000, 1000))
    assert cropped.pixels is None and "cropped from 4032x3024" in cropped.note


def test_reading_is_repeatable_and_leaves_the_file(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    first, second = read_image(tmp_path / "a.png"), read_image(os.fspath(tmp_path / "a.png"))
    assert np.array_equal(first.rgb, second.rgb) and (tmp_path / "a.png").read_bytes() == before
