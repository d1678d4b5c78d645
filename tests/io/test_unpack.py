"""Archives of data sets: everything below one folder, whole files only, and one sentence for what is hostile."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import metriloc.io.unpack as unpack_module
from metriloc.io import InputError
from metriloc.io.unpack import Unpacked, is_archive, unpack


def zipped(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as content:
        for name, text in members.items():
            content.writestr(name, text)
    return data.getvalue()


def tarred(path: Path, members: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as content:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            content.addfile(entry, io.BytesIO(text))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            content.addfile(entry)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_zips_in_a_zip_are_unpacked_beside_themselves(tmp_path: Path) -> None:
    inner = zipped({"seq-01/frame-000000.color.png": b"p", "seq-01/Thumbs.db": b"t", "deep.zip": zipped({"x": b"x"})})
    (tmp_path / "chess.zip").write_bytes(zipped({"chess/seq-01.zip": inner, "chess/Thumbs.db": b"t"}))
    heard: list[int] = []
    found = unpack(tmp_path / "chess.zip", tmp_path / "out", heard.append)
    below = files_below(tmp_path / "out")
    assert set(below) == {"chess/seq-01.zip", "chess/seq-01/frame-000000.color.png", "chess/deep.zip"}
    assert found == Unpacked(written=3) and heard
    # once more, as after a kill: what is whole is kept, what is not is written again
    (tmp_path / "out/chess/seq-01/frame-000000.color.png").write_bytes(b"")
    assert unpack(tmp_path / "chess.zip", tmp_path / "out") == Unpacked(written=1, kept=2)
    assert files_below(tmp_path / "out") == below


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_tars_give_plain_files_and_no_links(name: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / name, {"./slice2/query/a.jpg": b"12345"}, {"slice2/out": "/etc", "slice2/up": "../.."})
    assert is_archive(name)
    assert unpack(path, tmp_path / "out") == Unpacked(written=1, passed_over=2)
    assert files_below(tmp_path / "out") == {"slice2/query/a.jpg": b"12345"}


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "..\\evil", "a\x1b[2J", "n" * 2000])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_lead_elsewhere_stop_it(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        path.write_bytes(zipped({name: b"x"}))
    else:
        tarred(path, {name: b"x"})
    with pytest.raises(InputError, match="no path below a folder"):
        unpack(path, tmp_path / "deep" / "out")
    assert files_below(tmp_path) == {path.name: path.read_bytes()}


def test_damage_and_limits_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tarred(tmp_path / "a.tar.gz", {"a": bytes(range(256)) * 400, "b": b"b"}).read_bytes()
    cases = {"cut.tar.gz": whole[:300], "no.tar": b"no archive" * 100, "no.zip": b"no archive", "a.rar": b"x"}
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=r"damaged|no archive"):
            unpack(tmp_path / name, tmp_path / "out")
    assert not any(path.name.endswith(".part") for path in (tmp_path / "out").rglob("*"))
    encrypted = bytearray(zipped({"a": b"abc"}))
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "e.zip").write_bytes(encrypted)
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(tmp_path / "e.zip", tmp_path / "out")
    monkeypatch.setattr(unpack_module, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(InputError, match="more than"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    monkeypatch.setattr(unpack_module, "MAX_UNPACKED_BYTES", 2**30)
    monkeypatch.setattr(unpack_module, "MAX_FILES", 1)
    with pytest.raises(InputError, match="more than 1 files"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_tar_with_a_huge_header_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as content:
        entry = tarfile.TarInfo("a")
        entry.pax_headers = {"comment": "x" * (unpack_module.MAX_READ + 1)}
        content.addfile(entry, io.BytesIO())
    with pytest.raises(InputError, match="header"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
