"""Submission files: the Map-free zip and the text files of visuallocalization.net; written whole, read warily.

An archive from outside may lie about everything: names with folders, thousands of members, sizes that unpack to
gigabytes, text in any encoding. Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from metriloc.geometry import Pose
from metriloc.io import InputError, read_text, submission_line, write_atomically
from metriloc.io.archives import ZIP_DAMAGE, open_zip
from metriloc.io.files import parse_numbers, require_file
from metriloc.io.poses import Naming, visloc_name

MAX_MEMBERS = 5_000
MAX_MEMBER_BYTES = 16 * 2**20
MAX_TOTAL_BYTES = 64 * 2**20
MAX_TOTAL_LINES = 500_000
"""The largest split of the benchmark has 75,000 queries, 10 MiB."""
_SCENE_FILE = re.compile(r"pose_([A-Za-z0-9_-]{1,64})\.txt")
_EPOCH = (1980, 1, 1, 0, 0, 0)


# -- Map-free ---------------------------------------------------------------------------------------------------------
def scene_text(poses: Mapping[str, tuple[Pose, float]]) -> str:
    """The lines of one scene: image name -> (``query_from_reference``, confidence); frames without a pose are absent."""
    return "".join(submission_line(name, pose, confidence) + "\n" for name, (pose, confidence) in poses.items())


def write_submission(path: str | os.PathLike[str], scenes: Mapping[str, str]) -> None:
    """``pose_<scene>.txt`` for every scene, also for one without a pose: an absent file costs five times as much.

    scenes: scene -> ``scene_text``. The same content gives the same bytes: scenes sorted, a fixed date, no compression.
    Raises ValueError for a scene name that cannot be a file name.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for scene in sorted(scenes):
            name = f"pose_{scene}.txt"
            if not _SCENE_FILE.fullmatch(name):
                raise ValueError(f"{scene!r} cannot be a scene of a submission: letters, digits, - and _ only")
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, scenes[scene])
    write_atomically(path, buffer.getvalue())


def read_submission(path: str | os.PathLike[str]) -> dict[str, str]:
    """Scene -> text of its file. Members that are no ``pose_<scene>.txt`` at the root are left out.

    Raises InputError for what is no zip archive, is damaged or encrypted, holds more than 5,000 members, a scene twice,
    a scene file of more than 16 MiB, all of more than 64 MiB or 500,000 lines, or text that is not UTF-8.
    """
    path = require_file(path)
    try:
        with open_zip(path) as archive:
            return _read_members(archive, path)
    except (zipfile.LargeZipFile, *ZIP_DAMAGE) as error:
        raise InputError(f"'{path}' is not a zip archive, or is damaged: {error}") from error


def _read_members(archive: zipfile.ZipFile, path: Path) -> dict[str, str]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise InputError(f"'{path}' holds {len(members)} files; a submission has at most {MAX_MEMBERS}")
    scenes: dict[str, str] = {}
    total = lines = 0
    for member in members:
        match = _SCENE_FILE.fullmatch(member.filename)
        if match is None:
            continue
        if match[1] in scenes:
            raise InputError(f"'{path}' holds {member.filename!r} twice")
        if member.flag_bits & 1:
            raise InputError(f"'{path}' is encrypted ({member.filename!r})")
        with archive.open(member) as file:
            data = file.read(MAX_MEMBER_BYTES + 1)  # whatever size the archive claims
        total += len(data)
        if len(data) > MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
            raise InputError(f"{member.filename!r} in '{path}' is too long: {len(data)} bytes and more")
        lines += data.count(b"\n") + data.count(b"\r")
        if lines > MAX_TOTAL_LINES:
            raise InputError(f"'{path}' has {lines} lines and more; a submission has at most {MAX_TOTAL_LINES}")
        try:
            scenes[match[1]] = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{member.filename!r} in '{path}' is not UTF-8: byte {error.start}") from error
    return scenes


# -- visuallocalization.net -------------------------------------------------------------------------------------------
def write_visloc(path: str | os.PathLike[str], poses: Iterable[tuple[str, Pose]], naming: Naming) -> None:
    """One line a localised query: ``name qw qx qy qz tx ty tz``, world to camera; no header, full precision.

    Parts that are run separately (CMU slices, RobotCar conditions) are given together. Raises ValueError when two
    queries get the same name, which would overwrite each other silently on the server, and for a pose that is not finite.
    """
    lines: dict[str, str] = {}
    for image, pose in poses:
        name = visloc_name(image, naming)
        if name in lines:
            raise ValueError(f"two queries are called {name!r} in the submission (the second is {image!r})")
        if not bool(pose.is_finite()):
            raise ValueError(f"the pose of {image!r} is not finite: queries without a pose are left out")
        values = [*pose.quaternion().tolist(), *pose.t.tolist()]
        lines[name] = " ".join([name, *(repr(float(value)) for value in values)])
    write_atomically(path, "".join(line + "\n" for line in lines.values()))


def read_visloc(path: str | os.PathLike[str]) -> dict[str, Pose]:
    """Name -> ``cam_from_world``, float64, in file order.

    Raises InputError ``file:line`` for a line that is not ``name qw qx qy qz tx ty tz`` with finite numbers, a zero
    quaternion or a repeated name. Blank lines and lines that begin with ``#`` are skipped.
    """
    poses: dict[str, Pose] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        place = f"{path}:{number}"
        if len(fields) != 8:
            raise InputError(f"{place}: {len(fields)} fields instead of 8, 'name qw qx qy qz tx ty tz'")
        if fields[0] in poses:
            raise InputError(f"{place}: {fields[0]!r} has a pose already")
        values = torch.tensor(parse_numbers(fields[1:], place), dtype=torch.float64)
        if float(values[:4].norm()) <= 1e-8:
            raise InputError(f"{place}: the quaternion {' '.join(fields[1:5])} is zero")
        poses[fields[0]] = Pose.from_quaternion(values[:4], values[4:])
    return poses
