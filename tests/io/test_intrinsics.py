"""Intrinsics: the order of the sources, what each says, the half-pixel rule, and the two text layouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metriloc.geometry import Camera
from metriloc.io import (
    ExifData,
    InputError,
    camera_from_K,
    find_entry,
    parse_intrinsics,
    read_image,
    resolve_intrinsics,
)
from metriloc.io.intrinsics import resized_camera, same_aspect

SIZE = (540, 720)
LINE = "549.5 550.5 268.5 351.5 540 720"
EXIF = ExifData(focal_35mm=28.0)


def numbers(camera: Camera) -> list[float]:
    return [*camera.f.tolist(), *camera.c.tolist()]


@pytest.fixture()
def photo(tmp_path: Path) -> Path:
    """Where a photo of a Map-free scene would be (only its path matters here)."""
    path = tmp_path / "s00000" / "seq0" / "frame_00000.jpg"
    path.parent.mkdir(parents=True)
    return path


def test_the_order_of_the_sources(photo: Path) -> None:
    beside = photo.parent.parent / "intrinsics.txt"
    beside.write_text(f"seq0/frame_00000.jpg {LINE}\n")
    named = photo.parent / "named.txt"
    named.write_text("frame_00000.jpg 500 500 270 360 540 720\n")
    everything = {"path": photo, "intrinsics": named, "exif": EXIF, "fov_deg": 60.0}
    expected = [
        ("K", {**everything, "K": (600, 601, 270, 360)}, "K, as given", 600.0),
        ("named file", everything, f"{named}:1 (frame_00000.jpg)", 500.0),
        # what the user says wins over what is found
        (
            "field of view",
            {**everything, "intrinsics": None},
            "horizontal field of view of 60 degrees, as stated (467.7 px); the EXIF 35-mm",
            270 / math.tan(math.pi / 6),
        ),
        ("found file", {"path": photo, "exif": EXIF}, f"{beside}:1 (seq0/frame_00000.jpg)", 549.5),
        ("EXIF", {"exif": EXIF}, "EXIF 35-mm equivalent focal length 28 mm", 28 / 43.2666 * 900),
        ("guess", {}, "a guess: 26 mm equivalent focal length", 26 / 43.2666 * 900),
    ]
    for what, options, source, focal in expected:
        known = resolve_intrinsics(SIZE, **options)
        assert known.source.startswith(source), what
        assert float(known.camera.f[0]) == pytest.approx(focal, rel=1e-5), what
        assert known.guessed == (what == "guess")
        assert (known.focal_sigma == 0) == (what in ("K", "named file", "found file")), what
        assert known.camera.size.tolist() == [540.0, 720.0] and known.camera.dtype == torch.float32


def test_the_guess_is_near_the_truth_of_mapfree(shared: Callable[[str], Path]) -> None:
    # MicKey's toy pair, spec mickey 11: f = 549.7 at 540x720
    assert float(resolve_intrinsics((540, 720)).camera.f[0]) == pytest.approx(549.7, rel=0.02)


def test_centered_where_nothing_is_known() -> None:
    for options in ({}, {"exif": EXIF}, {"fov_deg": 70.0}):
        camera = resolve_intrinsics((640, 481), **options).camera  # type: ignore[arg-type]
        assert camera.c.tolist() == [319.5, 240.0]


def test_field_of_view_is_horizontal() -> None:
    camera = resolve_intrinsics((640, 480), fov_deg=90.0).camera
    assert camera.f.tolist() == pytest.approx([320.0, 320.0])


def test_exif_that_cannot_be_used_is_mentioned() -> None:
    cropped = ExifData(focal_35mm=26.0, recorded_size=(4032, 3024))
    known = resolve_intrinsics((500, 500), exif=cropped)
    assert known.guessed and "cropped from 4032x3024" in known.source
    known = resolve_intrinsics((500, 500), exif=cropped, fov_deg=60.0)
    assert not known.guessed and known.source.startswith("horizontal") and "cropped" in known.source


@pytest.mark.parametrize(
    "K",
    [
        (600.0, 610.0, 270.0, 360.0),
        [[600, 0, 270], [0, 610, 360], [0, 0, 1]],
        np.array([[600, 0, 270], [0, 610, 360], [0, 0, 1]], np.float32),
        torch.tensor([600.0, 610.0, 270.0, 360.0], dtype=torch.float64),
    ],
)
def test_forms_of_K(K: object) -> None:
    assert numbers(resolve_intrinsics(SIZE, K=K).camera) == [600.0, 610.0, 270.0, 360.0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("K", "says"),
    [
        ((600, 600, 270), r"shape \[3\]"),
        ("abcd", "3x3 matrix or four numbers"),
        (((1, 2), (3,)), "3x3 matrix or four numbers"),
        ((math.nan, 600, 270, 360), "not finite"),
        ((-600, 600, 270, 360), "focal lengths -600 600 px are not plausible for 540x720"),
        ((0, 600, 270, 360), "not plausible"),
        ((0.8, 0.8, 0.5, 0.5), r"0.8 0.8 px are not plausible for 540x720 pixels \(36 to 72000 would be\)"),
        ((600, 600, 2700, 360), "principal point 2700 360 is far outside the 540x720 image"),
        ([[600, 5, 270], [0, 600, 360], [0, 0, 1]], "skew 5"),
        ([[600, 0, 0], [0, 600, 0], [270, 360, 1]], "transposed"),
        ([[600, 0, 270], [0, 600, 360], [0, 0, 2]], "last row of K must be 0 0 1"),
    ],
)
def test_K_that_cannot_be(K: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        resolve_intrinsics(SIZE, K=K)  # type: ignore[arg-type]


def test_contradictions() -> None:
    camera = Camera.from_fov(SIZE, 1.0)
    with pytest.raises(InputError, match="K and camera are both given"):
        resolve_intrinsics(SIZE, K=(600, 600, 270, 360), camera=camera)
    for fov in (0.0, 180.0, -5.0, math.nan):
        with pytest.raises(InputError, match="field of view must be between 0 and 180"):
            resolve_intrinsics(SIZE, K=(600, 600, 270, 360), fov_deg=fov)
    with pytest.raises(InputError, match="no path"):
        resolve_intrinsics(SIZE, intrinsics="intrinsics.txt")


def test_camera_as_given() -> None:
    camera = Camera(
        torch.tensor([540.0, 720.0]),
        torch.tensor([600.0, 610.0]),
        torch.tensor([270.0, 360.0]),
        torch.tensor([0.1, 0.01, 0.001, 0.002, 0.0]),
        "radtan",
    )
    assert resolve_intrinsics(SIZE, camera=camera).camera is camera
    half = resolve_intrinsics((270, 360), camera=camera)
    assert numbers(half.camera) == [300.0, 305.0, 134.75, 179.75]
    assert half.camera.model == "radtan" and torch.equal(half.camera.distortion, camera.distortion)
    assert "scaled from 540x720 to 270x360" in half.source
    with pytest.raises(InputError, match="540x720 pixels but the photo has 640x480"):
        resolve_intrinsics((640, 480), camera=camera)
    with pytest.raises(InputError, match="batch shape"):
        resolve_intrinsics(SIZE, camera=Camera.stack([camera, camera]))
    with pytest.raises(InputError, match="not finite"):
        resolve_intrinsics(SIZE, camera=replace(camera, f=torch.full((2,), math.nan)))


def test_scaled_entry(photo: Path) -> None:
    (photo.parent.parent / "intrinsics.txt").write_text(f"# comment\n\nseq0/frame_00000.jpg {LINE}\n")
    known = resolve_intrinsics((360, 480), path=photo)
    s = 2 / 3
    expected = [549.5 * s, 550.5 * s, 269 * s - 0.5, 352 * s - 0.5]
    assert numbers(known.camera) == pytest.approx(expected, rel=1e-6)
    assert known.source.endswith("intrinsics.txt:3 (seq0/frame_00000.jpg), scaled from 540x720 to 360x480")
    assert known.camera.size.tolist() == [360.0, 480.0]


def test_entry_of_another_shape(photo: Path) -> None:
    (photo.parent / "intrinsics.txt").write_text(f"frame_00000.jpg {LINE}\n")
    with pytest.raises(InputError, match=r"are for 540x720 pixels but the photo has 720x540 \(.*upright photo\)"):
        resolve_intrinsics((720, 540), path=photo)
    with pytest.raises(InputError, match=r"540x720 pixels but the photo has 640x400$"):
        resolve_intrinsics((640, 400), path=photo)


def test_half_pixel_rule_against_golden(shared: Callable[[str], Path]) -> None:
    golden = np.load(shared("golden/bench/unit/intrinsics_rescale.npz"))
    camera = Camera.from_K(torch.from_numpy(golden["K"]).double(), SIZE)
    for (sx, sy), expected in zip(golden["scales"], golden["K_scaled"], strict=True):
        size = (540 * sx, 720 * sy)
        assert np.allclose(resized_camera(camera, size).K.numpy(), expected, rtol=0, atol=1e-9)  # type: ignore[arg-type]


def test_same_aspect_allows_rounding_only() -> None:
    assert same_aspect((4032, 3024), (640, 480)) and same_aspect((1063, 1600), (680, 1024))
    for a, b in [((540, 720), (720, 540)), ((640, 480), (640, 470)), ((4000, 3000), (4000, 2250))]:
        assert not same_aspect(a, b)


def test_named_file_must_list_the_photo(photo: Path) -> None:
    file = photo.parent / "k.txt"
    file.write_text("".join(f"other_{i}.jpg {LINE}\n" for i in range(5)))
    with pytest.raises(
        InputError, match=r"k.txt does not list 'frame_00000.jpg' \(it lists 'other_0.jpg', .* 2 more\)"
    ):
        resolve_intrinsics(SIZE, path=photo, intrinsics=file)
    with pytest.raises(InputError, match="does not exist"):
        resolve_intrinsics(SIZE, path=photo, intrinsics=photo.parent / "none.txt")


def test_a_file_beside_counts_only_if_it_lists_the_photo(photo: Path) -> None:
    file = photo.parent / "intrinsics.txt"
    file.write_text(f"seq7/frame_00000.jpg {LINE}\n")  # the photo lies in seq0
    assert resolve_intrinsics(SIZE, path=photo).guessed
    file.write_text("525 0 320\n0 525 240\n0 0 1\n")  # 7-Scenes writes matrices under this name
    assert resolve_intrinsics(SIZE, path=photo).guessed
    file.write_text("frame_00000.jpg 525 525 320\n")
    with pytest.raises(InputError, match=r"intrinsics.txt:1: .* is not of the form"):
        resolve_intrinsics(SIZE, path=photo)
    assert resolve_intrinsics(SIZE, path=photo, K=(600, 600, 270, 360)).source == "K, as given"


def entries_of(*names: str) -> str:
    return "".join(f"{name} {500 + i} 500 270 360 540 720\n" for i, name in enumerate(names))


@pytest.mark.parametrize(
    ("names", "image", "expected"),
    [
        (("im0.jpg", "im1.jpg"), "/a/im1.jpg", "im1.jpg"),
        (("seq0/f.jpg", "seq1/f.jpg"), "/a/seq1/f.jpg", "seq1/f.jpg"),
        (("f.jpg", "seq1/f.jpg"), "/a/seq1/f.jpg", "seq1/f.jpg"),
        (("f.jpg", "seq1/f.jpg"), "/a/seq2/f.jpg", "f.jpg"),  # a whole name before a part of one
        (("seq0/f.jpg", "seq0/g.jpg"), "/elsewhere/f.jpg", "seq0/f.jpg"),
        (("seq0\\f.jpg",), "/a/seq0/f.jpg", "seq0\\f.jpg"),
        (("./seq0//f.jpg",), "/a/seq0/f.jpg", "./seq0//f.jpg"),
        (("my photo.jpg",), "/a/my photo.jpg", "my photo.jpg"),
        (("f.jpg",), "/a/xf.jpg", None),
        (("f.jpg",), "/a/f.png", None),
    ],
)
def test_lookup(names: tuple[str, ...], image: str, expected: str | None) -> None:
    entry = find_entry(parse_intrinsics(entries_of(*names)), Path(image))
    assert (entry.name if entry else None) == expected


def test_ambiguous_lookup() -> None:
    entries = parse_intrinsics(entries_of("seq0/f.jpg", "seq1/f.jpg"))
    with pytest.raises(InputError, match=r"ambiguous for '/a/f.jpg': 'seq0/f.jpg' \(line 1\), 'seq1/f.jpg' \(line 2\)"):
        find_entry(entries, Path("/a/f.jpg"))
    same = parse_intrinsics(2 * f"f.jpg {LINE}\n")
    assert find_entry(same, Path("f.jpg")) is same[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("f.jpg 1 2 3", "k.txt:2: 'f.jpg 1 2 3' is not of the form"),
        ("f.jpg a 500 270 360 540 720", "k.txt:2: 'a' is not a finite number"),
        ("f.jpg 500 nan 270 360 540 720", "k.txt:2: 'nan' is not a finite number"),
        ("f.jpg -500 500 270 360 540 720", "focal lengths -500 500 must be positive"),
        ("f.jpg 500 500 270 360 0 720", "0 720 is not an image size"),
        ("f.jpg 500 500 270 360 540.5 720", "540.5 720 is not an image size"),
    ],
)
def test_malformed_lines(line: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_intrinsics(f"a.jpg {LINE}\n{line}\n", "k.txt")


def test_a_comment_after_the_numbers_does_not_lose_the_line() -> None:
    text = f"""# a.jpg 1 1 1 1 1 1
a.jpg {LINE} # from the maker
  #b.jpg {LINE}
c#1.jpg {LINE}
my # photo.jpg {LINE}\t#500 500 270 360 540 720
d.jpg {LINE}
#
"""
    entries = parse_intrinsics(text)
    assert [(entry.name, entry.line) for entry in entries] == [
        ("a.jpg", 2),
        ("c#1.jpg", 4),
        ("my # photo.jpg", 5),
        ("d.jpg", 6),
    ]
    assert {entry.fxfycxcy for entry in entries} == {(549.5, 550.5, 268.5, 351.5)}
    for line in (f"a.jpg {LINE}# no blank", "a.jpg 549.5 550.5 # 268.5", "a.jpg # 1 2"):
        with pytest.raises(InputError, match=r"intrinsics\.txt:1: "):
            parse_intrinsics(line)


def test_a_name_with_a_hash_is_found_or_refused(photo: Path) -> None:
    odd = photo.parent / "frame #2.jpg"
    (photo.parent / "intrinsics.txt").write_text(f"frame #2.jpg {LINE} # checked\n")
    assert "(frame #2.jpg)" in resolve_intrinsics(SIZE, path=odd).source
    named = photo.parent / "k.txt"
    named.write_text(f"#3.jpg {LINE}\n")
    with pytest.raises(InputError, match=r"does not list '#3.jpg' \(it lists nothing\)"):
        resolve_intrinsics(SIZE, path=photo.parent / "#3.jpg", intrinsics=named)
    named.write_text(f"./#3.jpg {LINE}\n")
    assert not resolve_intrinsics(SIZE, path=photo.parent / "#3.jpg", intrinsics=named).guessed


CASE_LINES = {  # of photos that lie in cases/08_intrinsics_txt: what is written, and what is right
    "half.jpg": ("646.7 647.8 356 235.6 720 480 # of the large one", [323.35, 323.9, 177.75, 117.55]),
    "a.jpg": ("646.7 647.8 356 235.6 720 480", [646.7, 647.8, 356, 235.6]),
    "p.jpg": ("646.7 647.8 235.6 356 480 720 # upright", [646.7, 647.8, 235.6, 356]),
    "squeezed.jpg": ("646.7 647.8 356 235.6 720 480 # of the wide one", "for 720x480 pixels but the photo has 540x480"),
}


@pytest.mark.parametrize("name", CASE_LINES)
def test_cases_of_other_sizes(shared: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    line, expected = CASE_LINES[name]
    file = tmp_path / "k.txt"
    file.write_text(f"{name} {line}\n")
    path = shared(f"cases/08_intrinsics_txt/{name}")
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            resolve_intrinsics(read_image(path).size, path=path, intrinsics=file)
    else:
        known = resolve_intrinsics(read_image(path).size, path=path, intrinsics=file)
        assert numbers(known.camera) == pytest.approx(expected, rel=1e-6) and not known.guessed


def test_cases_of_a_portrait_and_of_no_pixels(shared: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shared("cases/08_intrinsics_txt")
    file = tmp_path / "k.txt"
    file.write_text("p.jpg 646.7 647.8 356 235.6 720 480\n")  # of the pixels as stored: the photo is upright
    with pytest.raises(InputError, match=r"720x480 pixels but the photo has 480x720 \(.* upright photo\)"):
        resolve_intrinsics((480, 720), path=folder / "p.jpg", intrinsics=file)
    with pytest.raises(InputError, match=r"focal lengths 0\.9 1\.35 px are not plausible"):
        resolve_intrinsics((720, 480), path=folder / "a.jpg", intrinsics=folder / "i.txt")


def test_sizes_may_be_printed_as_decimals() -> None:
    assert parse_intrinsics("f.jpg 500 500 270 360 540.0 720.0\r\n")[0].size == (540, 720)


def test_mapfree_golden_file(shared: Callable[[str], Path]) -> None:
    root = shared("golden/mickey/mapfree_synth/train/s00000")
    entries = parse_intrinsics((root / "intrinsics.txt").read_text())
    assert len(entries) == 8 and entries[0].fxfycxcy == (52.5061, 55.6901, 27.4914, 34.3611)
    assert len({entry.fxfycxcy for entry in entries}) == 8  # each frame its own
    found = resolve_intrinsics((54, 72), path=root / "seq1" / "frame_00002.jpg")
    assert "(seq1/frame_00002.jpg)" in found.source


@given(st.text(alphabet="ab/.# \t\n0159-einf\\\x00é", max_size=200) | st.text(max_size=80))
def test_parser_never_raises_anything_else(text: str) -> None:
    try:
        entries = parse_intrinsics(text)
        find_entry(entries, Path("a/b.jpg"))
    except InputError as error:
        assert str(error).startswith("intrinsics.txt")


@given(
    st.lists(st.floats(1, 1e5), min_size=2, max_size=2),
    st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=2),
    st.tuples(st.integers(1, 20000), st.integers(1, 20000)),
)
def test_parser_reads_back(f: list[float], c: list[float], size: tuple[int, int]) -> None:
    line = " ".join(["seq 0/im.jpg", *map(repr, [*f, *c]), *map(str, size)])
    (entry,) = parse_intrinsics(line)
    assert entry.name == "seq 0/im.jpg" and entry.fxfycxcy == (*f, *c) and entry.size == size


def test_camera_from_K_does_not_keep_the_input() -> None:
    K = torch.tensor([[600.0, 0, 270], [0, 600, 360], [0, 0, 1]])
    camera = camera_from_K(K, SIZE)
    K.zero_()
    assert numbers(camera) == [600.0, 600.0, 270.0, 360.0]
