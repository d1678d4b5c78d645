"""Folders of a local server: what it lists is found with sizes, and nothing outside of the folder is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import metriloc.io.listing as listing
from metriloc.io import InputError
from metriloc.io.listing import RemoteFile, remote_file, remote_files


def test_files_of_all_folders_are_listed_with_their_sizes(serve: Callable[[Path], str], tmp_path: Path) -> None:
    for name, size in (("set/a.txt", 3), ("set/slice 2/model/b.bin", 5), ("set/.hidden", 1), ("other/c", 7)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    root, counts = serve(tmp_path), []
    found = remote_files(f"{root}/set", counts.append)
    assert found == [
        RemoteFile(f"{root}/set/a.txt", "a.txt", 3),
        RemoteFile(f"{root}/set/slice%202/model/b.bin", "slice 2/model/b.bin", 5),
    ]
    assert counts == [1, 2]
    assert remote_file(f"{root}/other/c") == RemoteFile(f"{root}/other/c", "c", 7)


@pytest.mark.parametrize(
    "link",
    ["/set/../other/c", "../other/c", "https://elsewhere.example/c", "%2e%2e/c", "..%2fc", "a.txt?x=1", "#top", "?C=N"],
)
def test_links_that_leave_the_folder_are_not_followed(link: str, serve: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_text("a")
    (tmp_path / "set" / "index.html").write_text(f'<a href="{link}">x</a> <a href="a.txt">a</a> <a>b</a>')
    assert [file.name for file in remote_files(f"{serve(tmp_path)}/set/")] == ["a.txt"]


def test_what_is_no_list_is_one_sentence(
    serve: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "many").mkdir()
    for name in "abc":
        (tmp_path / "many" / name).write_text("x")
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "more").symlink_to(tmp_path / "loop")
    root = serve(tmp_path)
    with pytest.raises(InputError, match="lists no files"):
        remote_files(f"{root}/empty")
    with pytest.raises(InputError, match="404"):
        remote_files(f"{root}/absent")
    with pytest.raises(InputError, match="without an end"):
        remote_files(f"{root}/loop")
    monkeypatch.setattr(listing, "MAX_FILES", 2)
    with pytest.raises(InputError, match="more than 2 files"):
        remote_files(f"{root}/many")
    monkeypatch.setattr(listing, "MAX_PAGE_BYTES", 10)
    with pytest.raises(InputError, match="more than 10 bytes"):
        remote_files(f"{root}/many")
    monkeypatch.setenv("METRILOC_OFFLINE", "1")
    with pytest.raises(InputError, match="offline"):
        remote_files(f"{root}/many")
    with pytest.raises(InputError, match="only https"):
        monkeypatch.setenv("METRILOC_OFFLINE", "0")
        remote_files("http://example.com/")
