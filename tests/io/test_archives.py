"""Zip archives of strangers: members by bare name only, damage in one sentence, nothing left behind."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from metriloc.io import InputError
from metriloc.io.archives import extract_members, open_zip


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as content:
        for name, data in members.items():
            content.writestr(name, data)
    return path


def test_zip_members_come_out_by_bare_name_only(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"x/../../evil/mickey.ckpt": b"weights", "y/config.yaml": b"c", "/abs": b""})
    (tmp_path / "out").mkdir()
    written = extract_members(path, ("mickey.ckpt", "config.yaml"), tmp_path / "out")
    assert [p.read_bytes() for p in written] == [b"weights", b"c"]
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        "a.zip",
        "out/mickey.ckpt",
        "out/config.yaml",
    }


def test_bad_archives(tmp_path: Path) -> None:
    cases = [
        ({"other": b""}, "0 files named"),
        ({"a/mickey.ckpt": b"1", "b/mickey.ckpt": b"2"}, "2 files named"),
        ({"mickey.ckpt": b"12345"}, "limit"),
    ]
    for members, message in cases:
        path = archive(tmp_path / "a.zip", members)
        with pytest.raises(InputError, match=message):
            extract_members(path, ("mickey.ckpt",), tmp_path, max_bytes=4)
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a zip"):
        extract_members(tmp_path / "b.zip", ("x",), tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        extract_members(tmp_path / "absent.zip", ("x",), tmp_path)


@pytest.mark.parametrize("damage", ["encrypted", "method", "content", "size", "truncated"])
def test_damaged_archives_leave_nothing(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("m.ckpt", b"abc" * 1000)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")  # the central directory's copy of the header
    if damage == "encrypted":
        data[6] |= 1
        data[entry + 8] |= 1
    elif damage == "method":
        data[8] = data[entry + 10] = 99
    elif damage == "content":
        data[40] ^= 0xFF
    elif damage == "size":
        data[entry + 24 : entry + 28] = (1).to_bytes(4, "little")
    elif damage == "truncated":
        del data[-30:]
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip") as caught:
        extract_members(path, ("m.ckpt",), tmp_path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_file_without_a_name_is_damage(tmp_path: Path) -> None:
    """zipfile lists it, and breaks when asked whether it is a folder."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("#", b"1")
        archive.writestr("b", b"2")
    path.write_bytes(path.read_bytes().replace(b"#", b"\0"))  # names end before a zero
    with pytest.raises(zipfile.BadZipFile, match="without a name"), open_zip(path):
        pass
    with pytest.raises(InputError, match="without a name"):
        extract_members(path, ("b",), tmp_path)
