"""A map in, a bundle out: the model, what networks see in its photos, and the photos if wished, in one folder or file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from metriloc.choose import LOCALIZERS, LocalizerChoice, choose_localizer, require_device
from metriloc.io.bundles import (
    FEATURES,
    MANIFEST,
    MODEL,
    PHOTOS,
    SUFFIX,
    BundledMethod,
    Manifest,
    is_bundle,
    open_bundle,
    read_manifest,
)
from metriloc.io.download import file_sha256
from metriloc.io.files import InputError, prepare_output_folder, write_atomically
from metriloc.io.local_features import license_of
from metriloc.io.map_folders import FACTS_FILE, find_model, photo_in
from metriloc.io.mapped_tensors import TensorWriter
from metriloc.io.maps import read_map, read_reconstruction
from metriloc.io.reference_features import Entry, FeatureSource, Key, ReferenceFeatures, entry_name
from metriloc.keepers import keepers_of
from metriloc.localizer import Localizer
from metriloc.mapping.model_files import write_model
from metriloc.mapping.places import install
from metriloc.mapping.prepare import Bar
from metriloc.opened_map import OpenedMap
from metriloc.runs.map_build import no_bar
from metriloc.types import AbsolutePoseMethod, SfmMap
from metriloc.version import __version__

_VERSION = "1"
METHODS = ("nre", "pixloc", "xfeat-pnp")
"""Whose features a bundle gets unless others are named."""


@dataclass(frozen=True)
class BundleFacts:
    """path: of the bundle.

    size: bytes; methods: whose features it holds; fresh: whether it was written now, or was there
    already, made of the same.
    """

    path: Path
    size: int
    methods: tuple[str, ...]
    fresh: bool


def bundle_map(
    scene: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    methods: Sequence[str] = METHODS,
    photos: bool = True,
    device: str = "cpu",
    bar: Bar = no_bar,
) -> BundleFacts:
    """One bundle of a map, which ``Localizer`` opens without looking at a photo of the map again.

    - scene: folder of a map with a COLMAP model. images: of its photos, where that is not beside it.
    - out: a file called ``*.metriloc``, or a folder.
    - methods: names of localizers.
    - photos: whether the photos are put in, too; without them nobody can look at them, nor try another method.

    A bundle that is there and was made of the same is left alone; of another one, what still holds is used. Written whole
    or not at all. Raises InputError for a map, a method or a photo that cannot be used, and a place that is taken.

    >>> bundle_map("map", "office.metriloc", photos=False)  # doctest: +SKIP
    """
    require_device(device)
    target = Path(out)
    known, whole = read_map(scene, images), find_model(scene)
    if known.folder is None:
        raise InputError(f"the photos of '{scene}' are not at hand, and a bundle is made of them (--images)")
    _require_free(target)
    chosen = _chosen(methods, device)
    made_of = _made_of(known, known.folder, whole, chosen, photos)
    old = _old(target)
    if old is not None and old.made_of == made_of:
        return BundleFacts(target, _size(target), tuple(m.name for m in old.methods), False)
    source = None if old is None else open_bundle(target).features

    def fill(folder: Path) -> None:
        _fill(folder, known, whole, chosen, source, photos, bar)
        _write_manifest(folder, chosen, made_of, photos)

    prepare_output_folder(target.parent)
    _tidy(target)
    if target.suffix.lower() == SUFFIX:
        _install_file(fill, target)
    else:
        install(fill, target)
    return BundleFacts(target, _size(target), tuple(method.name for method in chosen), True)


def _require_free(target: Path) -> None:
    """Raises InputError where something else than a bundle is in the way."""
    taken = target.is_file() if target.suffix.lower() != SUFFIX else target.is_dir()
    other = target.is_dir() and not is_bundle(target) and any(target.iterdir())
    if taken or other:
        raise InputError(f"'{target}' is in the way and is no bundle: give another place, or a file *{SUFFIX}")


def _chosen(names: Sequence[str], device: str) -> list[AbsolutePoseMethod]:
    if not names:
        raise InputError("a bundle needs the features of a method at least (--methods)")
    for name in names:
        if name not in LOCALIZERS:
            raise InputError(f"there is no localizer {name!r}: one of {', '.join(LOCALIZERS)}")
    found = {m.name: m for m in (choose_localizer(LocalizerChoice(name, device=device)) for name in names)}
    return list(found.values())


# -- what it is made of -----------------------------------------------------------------------------------------------
def _made_of(scene: SfmMap, folder: Path, model: Path, methods: Sequence[AbsolutePoseMethod], photos: bool) -> str:
    """Digest of everything that a bundle depends on."""
    facts = [_VERSION, photos, [(method.name, method.weights_id) for method in methods]]
    digest = hashlib.sha256(json.dumps(facts).encode())
    files = sorted(file for file in model.iterdir() if file.suffix in (".bin", ".txt") or file.name == FACTS_FILE)
    for file in [*files, *(photo_in(folder, name) for name in scene.names)]:
        if file.is_file():
            digest.update(f"{file.name} {file_sha256(file)}".encode())
    return digest.hexdigest()


def _old(target: Path) -> Manifest | None:
    """Of a bundle that is there and can be opened."""
    try:
        return open_bundle(target).manifest if is_bundle(target) and target.exists() else None
    except InputError:
        return None


def _size(target: Path) -> int:
    files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


# -- writing ----------------------------------------------------------------------------------------------------------
def _fill(
    folder: Path,
    scene: SfmMap,
    model: Path,
    methods: Sequence[AbsolutePoseMethod],
    source: FeatureSource | None,
    photos: bool,
    bar: Bar,
) -> None:
    (folder / MODEL).mkdir()
    write_model(read_reconstruction(model), folder / MODEL)
    if (model / FACTS_FILE).is_file():
        shutil.copyfile(model / FACTS_FILE, folder / MODEL / FACTS_FILE)
    recorder = _Recorder(folder / FEATURES)
    kept = ReferenceFeatures(source, max_bytes=0, keep=recorder.keep)
    with bar("features") as progress:
        _describe(scene, methods, kept, progress)
    for key, entry in Localizer.of(OpenedMap(scene), methods[0]).retrieval.entries(scene):
        recorder.keep(key, entry)
    recorder.finish()
    if photos and scene.folder is not None:
        for name in scene.names:
            _copy(photo_in(scene.folder, name), folder / PHOTOS / name)


def _copy(photo: Path, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, place)
    except OSError as error:
        raise InputError(f"'{photo}' cannot be copied: {error.strerror or error}") from error


class _Recorder:
    """Writes every entry that is looked at into a bundle, once."""

    def __init__(self, path: Path) -> None:
        self._writer = TensorWriter(path)
        self._photos: dict[str, str] = {}

    def keep(self, key: Key, entry: Entry) -> None:
        """One more entry, unless it is there."""
        name = entry_name(key)
        if name not in self._photos:
            self._photos[name] = key["photo"]
            for field, tensor in entry.items():
                self._writer.add(f"{name}/{field}", tensor)

    def finish(self) -> None:
        """Put the file together."""
        self._writer.finish({"photos": json.dumps(self._photos)})


def _describe(
    scene: SfmMap,
    methods: Sequence[AbsolutePoseMethod],
    kept: ReferenceFeatures,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Everything that a query may ask of the photos, photo after photo."""
    keepers = keepers_of(methods, kept)
    for image in range(len(scene)):
        for keeper in keepers:
            keeper.describe(scene, image)
        if progress is not None:
            progress(image + 1, len(scene))


def _write_manifest(folder: Path, methods: Sequence[AbsolutePoseMethod], made_of: str, photos: bool) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listed = {f.relative_to(folder).as_posix(): (f.stat().st_size, file_sha256(f)) for f in files}
    known = tuple(BundledMethod(m.name, m.weights_id, license_of(m.weights_id)) for m in methods)
    text = Manifest(known, photos, made_of, __version__, listed).text()
    read_manifest(text, "the manifest")  # what cannot be opened is not written
    write_atomically(folder / MANIFEST, text)


def _install_file(fill: Callable[[Path], None], target: Path) -> None:
    """A folder that ``fill`` fills, as a stored zip in the place of an older one: whole, or the older one stays."""
    fresh, packed = (target.with_name(f".{target.name}.{os.getpid()}.{what}") for what in ("new", "zip"))
    try:
        fresh.mkdir()
        fill(fresh)
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(file for file in fresh.rglob("*") if file.is_file()):
                entry = zipfile.ZipInfo(file.relative_to(fresh).as_posix())
                entry.external_attr, entry.file_size = 0o644 << 16, file.stat().st_size
                with open(file, "rb") as source, archive.open(entry, "w") as place:
                    shutil.copyfileobj(source, place, 1 << 20)
        os.replace(packed, target)
    except OSError as error:
        raise InputError(f"'{target}' cannot be written: {error.strerror or error}") from error
    finally:
        packed.unlink(missing_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)


def _tidy(target: Path) -> None:
    """Remove what runs that were killed have left beside a bundle."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        pid, _, kind = leftover.name.removeprefix(f".{target.name}.").partition(".")
        if pid.isdigit() and kind in ("new", "zip") and not _runs(int(pid)):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
