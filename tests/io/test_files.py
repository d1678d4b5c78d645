"""Writing whole files or none, and one sentence for files that cannot be used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from metriloc.io import InputError, prepare_output_folder, read_json, read_text, write_atomically
from metriloc.io.files import MAX_TEXT_BYTES, MAX_TEXT_LINES, parse_numbers, require_file


@pytest.mark.parametrize("data", ["a\nü", b"\x00\xff"])
def test_write_creates_and_replaces(tmp_path: Path, data: str | bytes) -> None:
    file = tmp_path / "out.txt"
    file.write_text("older")
    write_atomically(file, data)
    assert file.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert os.listdir(tmp_path) == ["out.txt"]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_write_keeps_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    file = tmp_path / "out.txt"
    file.write_text("older")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_atomically(file, "newer")
    if isinstance(error, OSError):
        assert str(file) in str(caught.value) and "No space left" in str(caught.value)
    assert file.read_text() == "older"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing/out.txt' cannot be written: No such file"):
        write_atomically(tmp_path / "missing" / "out.txt", "x")


def test_write_of_a_long_name(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 250), "x")
    assert os.listdir(tmp_path) == ["n" * 250]


def test_output_folder(tmp_path: Path) -> None:
    folder = prepare_output_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and os.listdir(folder) == []
    assert prepare_output_folder(str(folder)) == folder


def test_output_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="a file is in the way"):
            prepare_output_folder(path)


def test_output_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(InputError, match="cannot be written: Permission denied"):
        prepare_output_folder(tmp_path)


def test_require_file_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    cases = {"empty": "is empty", "pipe": "not a regular file", "none": "does not exist", ".": "is a folder"}
    for name, sentence in cases.items():
        with pytest.raises(InputError, match=sentence):
            require_file(tmp_path / name)
    for name in ("a\0b", "n" * 5000):
        with pytest.raises(InputError):
            require_file(tmp_path / name)


def test_read_text(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes(b"\xef\xbb\xbfname\r\n")
    assert read_text(file) == "name\r\n"
    file.write_bytes(b"ab\xff")
    with pytest.raises(InputError, match="byte 2 is not UTF-8"):
        read_text(file)
    with open(file, "wb") as stream:
        stream.truncate(MAX_TEXT_BYTES + 1)  # sparse: no disk is used
    with pytest.raises(InputError, match="67108865 bytes"):
        read_text(file)


@pytest.mark.parametrize("bad", ["x", "nan", "inf", "1_000", "", "0x1", "1e999"])
def test_parse_numbers_refuses(bad: str) -> None:
    assert parse_numbers(["1", "-2.5e3"], "f:1") == [1.0, -2500.0]
    with pytest.raises(InputError, match=r"f:7: .* is not a finite number"):
        parse_numbers(["1", bad], "f:7")


def test_sentences_stay_one_line_and_short() -> None:
    text = str(InputError(f"'a.txt':1: '{'9' * 100_000}\n\x85x' is not a number: give one"))
    assert text.startswith("'a.txt':1: '999") and text.endswith("is not a number: give one")
    assert len(text) < 1000 and len(text.splitlines()) == 1
    assert str(InputError("short\nand two lines")) == "short and two lines"


def test_json_is_read_with_limits(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": [1, 2]}')
    assert read_json(path) == {"a": [1, 2]}
    for text, says in (
        ("[" * 200_000, "nested too deep"),
        ('{"a": ' * 200_000, "nested too deep"),
        ("9" * 10_000, "is not JSON"),
        ("{", "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=says) as caught:
            read_json(path)
        assert "x.json'" in str(caught.value)
    path.write_text(" " * 2000)
    with pytest.raises(InputError, match="more than 1000 are not read"):
        read_json(path, 1000)


def test_lines_of_a_text_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"\n" * (MAX_TEXT_LINES + 1))
    with pytest.raises(InputError, match=r"x\.txt' has 2000001 lines"):
        read_text(path)
