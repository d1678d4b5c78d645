"""``intrinsics.txt``: lines ``image fx fy cx cy width height``, of Map-free (``seq0/frame_00000.jpg``) and of MicKey's
demo (``im0.jpg``).

Pixels of the stored image, first pixel centre at (0, 0). Blank lines, lines that start with ``#`` and what follows a ``#``
after the numbers are skipped (Map-free's published scorer, and only it, skips every line with a ``#`` in its name); names
may hold blanks and ``#``. A photo is looked up by the longest run of trailing path components that it shares with an entry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from metriloc.io.files import InputError, parse_numbers, read_text

FILE_NAME = "intrinsics.txt"
_FORM = "'image fx fy cx cy width height'"


@dataclass(frozen=True)
class IntrinsicsEntry:
    """One line of a list of intrinsics.

    It has the image's name as written, fx fy cx cy in pixels, (width, height), and its line number.

    >>> entry = parse_intrinsics("a.jpg 520 520 319.5 239.5 640 480")[0]
    >>> entry.name, entry.size, entry.line
    ('a.jpg', (640, 480), 1)
    """

    name: str
    fxfycxcy: tuple[float, float, float, float]
    size: tuple[int, int]
    line: int

    @property
    def parts(self) -> tuple[str, ...]:
        """Path components of the name."""
        return tuple(part for part in re.split(r"[/\\]+", self.name) if part not in ("", "."))


def parse_intrinsics(text: str, file: str = FILE_NAME) -> list[IntrinsicsEntry]:
    """The entries of an ``intrinsics.txt`` in file order.

    Raises InputError ``file:line`` for a line that is not a name and six finite numbers, a focal length that is not
    positive, or a size that is not a positive whole number.

    >>> " ".join(entry.name for entry in parse_intrinsics(read_text("intrinsics.txt")))
    'reference.jpg query.jpg'
    """
    entries = []
    for number, line in enumerate(text.split("\n"), 1):
        line = _without_comment(line)
        if not line:
            continue
        place = f"{file}:{number}"
        fields = line.rsplit(None, 6)
        if len(fields) != 7:
            raise InputError(f"{place}: {line[:80]!r} is not of the form {_FORM}")
        fx, fy, cx, cy, width, height = parse_numbers(fields[1:], place)
        if fx <= 0 or fy <= 0:
            raise InputError(f"{place}: focal lengths {fx:g} {fy:g} must be positive")
        if min(width, height) < 1 or width != int(width) or height != int(height):
            raise InputError(f"{place}: {width:g} {height:g} is not an image size in pixels")
        entries.append(IntrinsicsEntry(fields[0], (fx, fy, cx, cy), (int(width), int(height)), number))
    return entries


def _without_comment(line: str) -> str:
    """The line up to a ``#`` that starts a word after a name and six numbers; nothing when the line starts with ``#``."""
    words = list(re.finditer(r"\S+", line))
    if words and words[0][0].startswith("#"):
        return ""
    for i in range(7, len(words)):
        if words[i][0].startswith("#") and all(_is_number(word[0]) for word in words[i - 6 : i]):
            return line[: words[i].start()].strip()
    return line.strip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def find_entry(entries: list[IntrinsicsEntry], image: Path, file: str = FILE_NAME) -> IntrinsicsEntry | None:
    """The entry of a photo.

    - entries: of a list of intrinsics.
    - image: the photo. Its entry is the one that shares most trailing path components, a fully matched name first.
    - file: what errors call the list.

    Returns None when no entry has the photo's file name. Raises InputError listing the candidates when several match
    equally well with different numbers.

    >>> entries = parse_intrinsics("room/a.jpg 500 500 319.5 239.5 640 480")
    >>> find_entry(entries, Path("/data/room/a.jpg")).name
    'room/a.jpg'
    """
    target = image.absolute().parts
    best: tuple[int, bool] = (0, False)
    found: list[IntrinsicsEntry] = []
    for entry in entries:
        shared = _shared_tail(entry.parts, target)
        rank = (shared, shared == len(entry.parts))
        if shared == 0 or rank < best:
            continue
        found = [entry] if rank > best else [*found, entry]
        best = rank
    if len({(entry.fxfycxcy, entry.size) for entry in found}) > 1:
        listed = ", ".join(f"{entry.name!r} (line {entry.line})" for entry in found[:5])
        raise InputError(f"{file} is ambiguous for '{image}': {listed}" + (", ..." if len(found) > 5 else ""))
    return found[0] if found else None


def _shared_tail(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        count += 1
    return count


def read_entry(file: Path, image: Path) -> IntrinsicsEntry:
    """The entry of a photo in a file that the user named. InputError when it is not there."""
    entries = parse_intrinsics(read_text(file), str(file))
    entry = find_entry(entries, image, str(file))
    if entry is None:
        names = ", ".join(repr(e.name) for e in entries[:3]) or "nothing"
        more = f" and {len(entries) - 3} more" if len(entries) > 3 else ""
        raise InputError(f"{file} does not list '{image.name}' (it lists {names}{more})")
    return entry


def discover_entry(image: Path) -> tuple[Path, IntrinsicsEntry] | None:
    """The entry of a photo in an ``intrinsics.txt`` nearby. The file lies beside it or one folder up (Map-free); None
    if no such file lists it.

    Only a whole name counts as listed here, since nobody pointed at the file. A file of another format that happens to
    have this name is passed over, unless it mentions the photo: then its error is raised.
    """
    for folder in (image.parent, image.parent.parent):
        file = folder / FILE_NAME
        try:
            if not file.is_file() or file.stat().st_size == 0:
                continue
        except OSError:
            continue
        mentioned = False
        try:
            text = read_text(file)
            mentioned = image.name in text
            entries = parse_intrinsics(text, str(file))
        except InputError:
            if mentioned:
                raise
            continue
        target = image.absolute().parts
        whole = [entry for entry in entries if entry.parts and target[-len(entry.parts) :] == entry.parts]
        entry = find_entry(whole, image, str(file))
        if entry is not None:
            return file, entry
    return None
