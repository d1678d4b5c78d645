"""Depth maps of every accepted kind, and one sentence for the rest."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from metriloc.io import InputError, check_depth_covers, read_depth

MM = np.array([[0, 500, 1000], [2500, 40000, 65535]], np.uint16)
METRES = torch.tensor([[0, 0.5, 1.0], [2.5, 40.0, 65.535]])


def save(folder: Path, name: str, values: np.ndarray) -> Path:
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, values)
    elif name.endswith(".pgm"):
        header = f"P5\n# depth in mm\n{values.shape[1]} {values.shape[0]}\n65535\n"
        path.write_bytes(header.encode() + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("name", ["d.png", "d.tif", "d.pgm", "d.npy"])
def test_16_bit_millimetres(tmp_path: Path, name: str) -> None:
    depth = read_depth(save(tmp_path, name, MM))
    assert depth.dtype == torch.float32
    assert torch.equal(depth, METRES)
    assert torch.equal(read_depth(tmp_path / name, scale=0.002), 2 * METRES)


@pytest.mark.parametrize("name", ["d.tif", "d.npy"])
def test_float_metres(tmp_path: Path, name: str) -> None:
    assert torch.equal(read_depth(save(tmp_path, name, METRES.numpy())), METRES)


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f2", "<i4", ">u2", "<i8"])
def test_npy_types(tmp_path: Path, dtype: str) -> None:
    values = np.asfortranarray(np.array([[1, 2, 3], [4, 5, 0]])).astype(dtype)
    unit = 1.0 if "f" in dtype else 0.001
    expected = torch.tensor([[1, 2, 3], [4, 5, 0]]) * unit
    assert torch.allclose(read_depth(save(tmp_path, "d.npy", values)), expected, rtol=1e-7)


def test_pgm_values_are_not_stretched(tmp_path: Path) -> None:
    path = tmp_path / "d.pgm"
    path.write_bytes(b"P5 2 1 4000\n" + np.array([4000, 1234], ">u2").tobytes())
    assert torch.equal(read_depth(path), torch.tensor([[4.0, 1.234]]))


def test_unknown_depths_are_zero(tmp_path: Path) -> None:
    values = np.array([[np.nan, np.inf, -1.0], [-np.inf, 0.0, 2.0]], np.float32)
    assert torch.equal(read_depth(save(tmp_path, "d.npy", values)), torch.tensor([[0, 0, 0], [0, 0, 2.0]]))
    assert torch.equal(read_depth(save(tmp_path, "e.npy", np.array([[1e300, 3.0]]))), torch.tensor([[0, 3.0]]))


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("d.png", np.full((2, 2), 7, np.uint8), "a picture with 8 bits, not a depth map"),
        ("d.png", np.full((2, 2, 3), 7, np.uint8), "3 channels"),
        ("d.npy", np.full((2, 2), 7, np.uint8), "holds uint8"),
        ("d.npy", np.full((2, 2), True), "holds bool"),
        ("d.npy", np.full((2, 2), 1j), "holds complex128"),
        ("d.npy", np.full((2, 2, 1), 7.0), r"shape \[2, 2, 1\]"),
        ("d.npy", np.zeros((0, 4)), "no pixels"),
        ("d.npy", np.array([[{}]], dtype=object), "not a usable .npy file"),
        ("d.png", np.zeros((2, 2), np.uint16), "no valid depth: all 4 values"),
        ("d.npy", np.full((2, 2), np.nan), "no valid depth"),
        ("d.npy", np.full((2, 2), 2500.0), "median depth of 2500 m: if it is in millimetres, say scale=0.001"),
    ],
)
def test_what_is_no_depth_map(tmp_path: Path, name: str, values: np.ndarray, says: str) -> None:
    path = save(tmp_path, name, values)
    with pytest.raises(InputError, match=says) as caught:
        read_depth(path)
    assert str(path) in str(caught.value)


def test_a_stated_scale_is_believed(tmp_path: Path) -> None:
    path = save(tmp_path, "d.npy", np.full((2, 2), 2500.0))
    assert float(read_depth(path, scale=0.001)[0, 0]) == 2.5
    assert float(read_depth(path, scale=1.0)[0, 0]) == 2500.0
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="scale of"):
            read_depth(path, scale=bad)


@pytest.mark.parametrize(
    ("value", "dtype", "units", "says"),
    [
        (5000, np.uint16, 0.001, "5e.06 m with 0.001 units a metre, which cannot be"),
        (5000, np.uint16, 0.4, "12500 m with 0.4 units"),
        (5000, np.uint16, 1e8, "5e-05 m with 1e.08 units"),
        (3.0, np.float32, 1e4, "0.0003 m with 10000 units"),
        (0.0004, np.float32, None, "0.0004 m, which cannot be"),
    ],
)
def test_what_no_camera_sees_is_refused(
    tmp_path: Path, value: float, dtype: type, units: float | None, says: str
) -> None:
    path = save(tmp_path, "d.npy", np.full((4, 4), value, dtype))
    with pytest.raises(InputError, match=f"d.npy' has a median depth of {says}.*--depth-scale"):
        read_depth(path, scale=None if units is None else 1 / units)


def test_far_and_near_things_are_seen(tmp_path: Path) -> None:
    """A mountain through a stated scale, and a chip under a macro lens."""
    path = save(tmp_path, "d.npy", np.full((4, 4), 9000, np.uint16))
    assert float(read_depth(path, scale=1.0)[0, 0]) == 9000
    assert float(read_depth(path, scale=1e-6)[0, 0]) == pytest.approx(0.009)


def test_whole_numbers_that_are_far_as_millimetres_are_doubted(tmp_path: Path) -> None:
    room = np.full((4, 4), 15_000, np.uint16)  # 3 m at TUM's 5000 a metre
    room[0] = 0
    for name in ("d.png", "d.pgm", "d.npy"):
        path = save(tmp_path, name, room)
        with pytest.warns(UserWarning, match=r"15 m, read as millimetres.* say --depth-scale 5000 \(3 m\)"):
            assert float(read_depth(path)[1, 1]) == pytest.approx(15.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert float(read_depth(path, scale=1 / 5000)[1, 1]) == pytest.approx(3.0)
            read_depth(path, doubt=False)


@pytest.mark.parametrize(
    ("name", "values"), [("d.png", np.full((2, 2), 11_900, np.uint16)), ("d.npy", np.full((2, 2), 40.0))]
)
def test_what_is_not_doubted(tmp_path: Path, name: str, values: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_depth(save(tmp_path, name, values))


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture at all")
    (tmp_path / "b.png").touch()
    Image.new("RGB", (4, 4)).save(tmp_path / "c.jpg")
    (tmp_path / "d.pgm").write_bytes(b"P5 2 2 255\n0000")
    (tmp_path / "e.pgm").write_bytes(b"P5 two 2 65535\n0000")
    (tmp_path / "f.pgm").write_bytes(b"P5 2 2 65535\n0000")
    says = {
        "a.png": "is not a depth map that can be read",
        "b.png": "is empty",
        "c.jpg": "is not a depth map that can be read",
        "d.pgm": "maximum of 255",
        "e.pgm": "header cannot be read",
        "f.pgm": "truncated: 4 of 8 bytes of 2x2",
        "none": "does not exist",
    }
    for name, sentence in says.items():
        with pytest.raises(InputError, match=sentence):
            read_depth(tmp_path / name)


@pytest.mark.parametrize("name", ["d.png", "d.tif", "d.npy", "d.pgm"])
def test_truncated(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(1, 65535, (40, 40), dtype=np.uint16)
    path = save(tmp_path, name, noise)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"truncated|damaged|not a usable|not an image"):
        read_depth(path)


@pytest.mark.parametrize("header", [b"{'descr': (", b"{'descr': '<f4'}", b"]", b"\xff\x00", b"{'shape': (10**99, 1)}"])
def test_npy_with_a_broken_header(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "d.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(InputError, match=r"d.npy' is not a usable .npy file"):
        read_depth(tmp_path / "d.npy")


def test_size_limit_before_reading(tmp_path: Path) -> None:
    with open(tmp_path / "d.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10000, 10000)})
        file.truncate(file.tell() + 4 * 10**8)  # sparse
    (tmp_path / "d.pgm").write_bytes(b"P5 10000 10000 65535\n")
    for name in ("d.npy", "d.pgm"):
        with pytest.raises(InputError, match="10000x10000 = 100 megapixels; the limit is 50"):
            read_depth(tmp_path / name)


def test_aspect(tmp_path: Path) -> None:
    for shape, size in [
        ((480, 640), (1296, 968)),
        ((18, 13), (54, 72)),
        ((72, 54), (54, 72)),
        ((160, 120), (3024, 4032)),
    ]:
        check_depth_covers(torch.ones(shape), size)
    for shape, size in [((480, 640), (480, 640)), ((100, 100), (54, 72)), ((480, 640), (640, 360))]:
        with pytest.raises(InputError, match=f"'x' has {shape[1]}x{shape[0]} pixels.*{size[0]}x{size[1]} photo"):
            check_depth_covers(torch.ones(shape), size, "x")


def contents(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "npy":
        np.save(stream, MM)
    else:
        Image.fromarray(MM).save(stream, format=kind)
    return stream.getvalue()


CONTENTS = [contents("npy"), contents("PNG"), contents("TIFF"), b"P5\n3 2\n65535\n" + MM.astype(">u2").tobytes()]


@given(st.sampled_from(CONTENTS), st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_damage_never_raises_anything_else(tmp_path: Path, data: bytes, draw: st.DataObject) -> None:
    broken = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 5))):
        broken[draw.draw(st.integers(0, len(broken) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path / "x"
    path.write_bytes(bytes(broken[: draw.draw(st.integers(1, len(broken)))]))
    try:
        depth = read_depth(path, max_megapixels=1)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert torch.isfinite(depth).all() and (depth >= 0).all()
