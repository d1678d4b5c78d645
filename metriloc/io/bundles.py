"""Bundles: a map with all that a query asks of its photos, as a folder or one file (a stored zip), to be opened.

| entry | what |
|---|---|
| ``manifest.json`` | what it was made of and for; size and SHA-256 of every other file |
| ``sparse/...`` | the COLMAP model and ``map.json`` |
| ``features.safetensors`` | what networks saw in the photos at the map's points, and for retrieval; float16 |
| ``images/...`` | the photos, unless it was made without |
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from torch import Tensor

from metriloc.io.archives import CHUNK, ZIP_DAMAGE, open_zip
from metriloc.io.download import file_sha256
from metriloc.io.files import InputError, parse_json, read_text, require_file
from metriloc.io.mapped_tensors import MappedTensors
from metriloc.io.reference_features import Key, entry_name, same_photo

SUFFIX = ".metriloc"
MANIFEST, MODEL, FEATURES, PHOTOS = "manifest.json", "sparse", "features.safetensors", "images"
FORMAT = "metriloc-bundle-1"
MAX_MANIFEST_BYTES = 16 * 2**20
MAX_BUNDLE_FILES = 40_000
MAX_BUNDLE_METHODS = 100


@dataclass(frozen=True)
class BundledMethod:
    """A localizer whose features a bundle holds. license: of its weights."""

    name: str
    weights_id: str
    license: str


@dataclass(frozen=True)
class Manifest:
    """methods: in the order of preference. photos: whether they are in it. made_of: digest of map, photos, weights and
    choices; another one makes a bundle stale. version: of metriloc. files: size and SHA-256 of each."""

    methods: tuple[BundledMethod, ...]
    photos: bool
    made_of: str
    version: str
    files: Mapping[str, tuple[int, str]]

    def text(self) -> str:
        """As it is written."""
        content = {
            "format": FORMAT,
            "metriloc_version": self.version,
            "made_of": self.made_of,
            "photos": self.photos,
            "methods": [{"name": m.name, "weights_id": m.weights_id, "licence": m.license} for m in self.methods],
            "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self.files.items()},
        }
        return json.dumps(content, indent=1) + "\n"


class BundleFeatures:
    """The ``FeatureSource`` of a bundle."""

    def __init__(self, tensors: MappedTensors, source: str) -> None:
        self._tensors = tensors
        photos = parse_json(tensors.metadata.get("photos", "{}"), f"'{source}', its photos,")
        self._photos: dict[str, Any] = photos if isinstance(photos, dict) else {}
        self._fields: dict[str, list[str]] = {}
        for name in tensors.names():
            entry, _, field = name.partition("/")
            self._fields.setdefault(entry, []).append(field)

    def find(self, key: Key) -> dict[str, Tensor] | None:
        """The tensors of an entry. None where there is none, or it was made of another photo."""
        name = entry_name(key)
        if name not in self._fields or not same_photo(str(self._photos.get(name)), key["photo"]):
            return None
        return {field: self._tensors.read(f"{name}/{field}") for field in self._fields[name]}


@dataclass(frozen=True, eq=False)
class Bundle:
    """An open bundle. model: folder of the COLMAP model; images: of the photos, None without."""

    path: Path
    manifest: Manifest
    model: Path
    images: Path | None
    features: BundleFeatures


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a path is meant as a bundle.

    A file that is called so, or a folder with a manifest.
    """
    path = Path(path)
    return path.suffix.lower() == SUFFIX if not path.is_dir() else (path / MANIFEST).is_file()


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle. Its files are then known to be those of its manifest.

    Of a file, model and photos are unpacked to a temporary folder, which lives as long as the bundle; features stay where
    they are. Raises InputError, one sentence, for anything missing, surplus, changed, packed, or that leads elsewhere.
    """
    path = Path(path)
    return _open_folder(path) if path.is_dir() else _open_file(require_file(path))


# -- a folder ---------------------------------------------------------------------------------------------------------
def _open_folder(folder: Path) -> Bundle:
    text = read_text(folder / MANIFEST, MAX_MANIFEST_BYTES)
    manifest = read_manifest(text, f"'{folder / MANIFEST}'")
    for name, (size, digest) in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"the bundle '{folder}' lacks its file {name!r}: make it again")
        if folder.resolve() not in file.resolve().parents:
            raise InputError(f"the file {name!r} of the bundle '{folder}' is a link that leads out of it")
        _require_same(f"'{file}'", (file.stat().st_size, file_sha256(file)), (size, digest))
    images = folder / PHOTOS if manifest.photos else None
    features = BundleFeatures(MappedTensors(folder / FEATURES), str(folder))
    return Bundle(folder, manifest, folder / MODEL, images, features)


def _require_same(name: str, found: tuple[int, str], stated: tuple[int, str]) -> None:
    if found[0] != stated[0]:
        raise InputError(f"{name} has {found[0]} bytes, not the {stated[0]} of its manifest: make the bundle again")
    if found[1] != stated[1]:
        raise InputError(f"{name} is not the file that its manifest tells of (their SHA-256 differ): make it again")


# -- one file ---------------------------------------------------------------------------------------------------------
def _open_file(path: Path) -> Bundle:
    with _readable(path) as archive:
        entries = _entries(archive, path)
        if MANIFEST not in entries:
            raise InputError(f"'{path}' is no bundle: it has no {MANIFEST}")
        if entries[MANIFEST].file_size > MAX_MANIFEST_BYTES:
            raise InputError(f"'{path}' claims a manifest of {entries[MANIFEST].file_size} bytes")
        try:
            text = archive.read(entries[MANIFEST]).decode()
        except UnicodeDecodeError as error:
            raise InputError(f"'{path}' has a manifest that is no text") from error
        manifest = read_manifest(text, f"the manifest of '{path}'")
        if strangers := entries.keys() - manifest.files.keys() - {MANIFEST}:
            raise InputError(f"'{path}' holds {min(strangers)!r}, of which its manifest says nothing")
        temporary = tempfile.TemporaryDirectory(prefix="metriloc-bundle-", ignore_cleanup_errors=True)
        for name, stated in manifest.files.items():
            if name not in entries:
                raise InputError(f"the bundle '{path}' lacks its file {name!r}: make it again")
            target = None if name == FEATURES else Path(temporary.name) / name
            _require_same(f"{name!r} in '{path}'", _taken_out(archive, entries[name], target), stated)
        start, length = _place(path, entries[FEATURES]), entries[FEATURES].file_size
    folder = Path(temporary.name)
    features = BundleFeatures(MappedTensors(path, start, length), str(path))
    bundle = Bundle(path, manifest, folder / MODEL, folder / PHOTOS if manifest.photos else None, features)
    weakref.finalize(features, temporary.cleanup)
    return bundle


@contextmanager
def _readable(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with open_zip(path) as archive:
            yield archive
    except InputError:
        raise
    except (*ZIP_DAMAGE, RuntimeError) as error:
        raise InputError(f"'{path}' is no bundle, or is damaged: {' '.join(str(error).split())}") from error


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """By name, each stored as it is: nothing grows when it is unpacked."""
    listed = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(listed) > MAX_BUNDLE_FILES:
        raise InputError(f"'{path}' holds {len(listed)} files; bundles of more than {MAX_BUNDLE_FILES} are not read")
    if sum(entry.file_size for entry in listed) > path.stat().st_size:
        raise InputError(f"'{path}' claims files that are larger than itself")
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in listed:
        if entry.filename in found:
            raise InputError(f"'{path}' holds {entry.filename!r} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
            raise InputError(f"'{path}' holds {entry.filename!r} packed or encrypted; bundles are stored zips")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise InputError(f"'{path}' holds a link, {entry.filename!r}")
        found[entry.filename] = entry
    return found


def _taken_out(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path | None) -> tuple[int, str]:
    """Size and SHA-256 of an entry, which is written to ``target`` if there is one."""
    digest, size = hashlib.sha256(), 0
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, open(os.devnull if target is None else target, "wb") as file:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    return size, digest.hexdigest()


def _place(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored entry begin: behind its own header, whose lengths are not those of the directory."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset)
        name, extra = struct.unpack("<HH", file.read(30)[26:30])
    return int(entry.header_offset + 30 + name + extra)


# -- the manifest -----------------------------------------------------------------------------------------------------
def read_manifest(text: str, source: str) -> Manifest:
    """What a manifest says. Raises InputError, which begins with ``source``, for one that cannot be."""
    content = parse_json(text, source)
    try:
        if content["format"] != FORMAT:
            raise InputError(f"{source} has format {content['format']!r}; this metriloc reads {FORMAT}")
        listed, methods = content["files"], content["methods"]
        if len(listed) > MAX_BUNDLE_FILES or len(methods) > MAX_BUNDLE_METHODS:
            raise InputError(f"{source} names {len(listed)} files and {len(methods)} methods, which no bundle has")
        files = {_checked(str(name), source): (int(f["bytes"]), str(f["sha256"])) for name, f in listed.items()}
        known = tuple(BundledMethod(str(m["name"]), str(m["weights_id"]), str(m["licence"])) for m in methods)
        made_of, version = str(content["made_of"]), str(content["metriloc_version"])
        manifest = Manifest(known, bool(content["photos"]), made_of, version, files)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source} is damaged: {type(error).__name__} {error}") from error
    if FEATURES not in files:
        raise InputError(f"{source} names no {FEATURES}")
    return manifest


def _checked(name: str, source: str) -> str:
    """A name of a file of a bundle, which leads nowhere else."""
    parts = PurePosixPath(name).parts
    plain = bool(parts) and not name.startswith("/") and ".." not in parts and str(PurePosixPath(name)) == name
    known = name == FEATURES or (len(parts) > 1 and parts[0] in (MODEL, PHOTOS))
    if not plain or not known or "\\" in name or "\0" in name or PureWindowsPath(name).drive:
        raise InputError(f"{source} names {name!r}, which is no place in a bundle")
    return name
