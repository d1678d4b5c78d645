"""Folders that a web server lists as a page of links: their files and sizes, before anything is fetched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from metriloc.io.download import open_address
from metriloc.io.files import InputError

MAX_PAGE_BYTES = 16 * 2**20
MAX_FILES = 100_000
MAX_FOLDERS = 10_000
MAX_FOLDER_DEPTH = 8
_NAME = re.compile(r"[^/\\:\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a server. name: below the folder that was asked for; size: in bytes, None where it is not told."""

    url: str
    name: str
    size: int | None


def remote_file(url: str) -> RemoteFile:
    """One file by its address, its size asked for. Raises InputError as ``metriloc.io.download.fetch``."""
    with open_address(url, "HEAD") as answer:
        length = answer.headers.get("Content-Length", "")
    return RemoteFile(url, unquote(urlsplit(url).path.rsplit("/", 1)[-1]), int(length) if length.isdigit() else None)


def remote_files(folder: str, found: Callable[[int], None] = lambda count: None) -> list[RemoteFile]:
    """All files below a folder that a server lists, by name.

    - folder: its address, with or without a slash at the end.
    - found: hears how many there are so far.

    Only links below the folder are followed. Raises InputError for a folder that is not listed, has no files, or is
    beyond the limits of this module, and as ``metriloc.io.download.fetch``.
    """
    root = folder.rstrip("/") + "/"
    files: list[RemoteFile] = []
    for url in _walk(root):
        if len(files) == MAX_FILES:
            raise InputError(f"{root} lists more than {MAX_FILES} files")
        name = "/".join(unquote(part) for part in url[len(root) :].split("/"))
        files.append(RemoteFile(url, name, remote_file(url).size))
        found(len(files))
    if not files:
        raise InputError(f"{root} lists no files")
    return sorted(files, key=lambda file: file.name)


def _walk(root: str) -> Iterator[str]:
    waiting, seen = [(root, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        seen += 1
        if depth > MAX_FOLDER_DEPTH or seen > MAX_FOLDERS:
            raise InputError(f"{root} has folders below folders without an end")
        for url in _links(folder):
            if url.endswith("/"):
                waiting.append((url, depth + 1))
            else:
                yield url


def _links(folder: str) -> list[str]:
    """What a page lists that lies straight in its folder; everything else on it is passed over."""
    with open_address(folder) as answer:
        page = answer.read(MAX_PAGE_BYTES + 1)
    if len(page) > MAX_PAGE_BYTES:
        raise InputError(f"{folder} is a page of more than {MAX_PAGE_BYTES} bytes, no list of files")
    parser = _Links()
    parser.feed(page.decode("utf-8", "replace"))
    links = dict.fromkeys(urljoin(folder, link) for link in parser.found)
    return [link for link in links if link.startswith(folder) and _is_plain(link[len(folder) :])]


def _is_plain(name: str) -> bool:
    name = unquote(name.removesuffix("/"))
    return _NAME.fullmatch(name) is not None and not name.startswith(".") and "?" not in name and "#" not in name


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]
