"""Where the model and the photos of a map lie: what people give is a folder somewhere above, beside or within."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from metriloc.io.files import InputError, read_json

FACTS_FILE = "map.json"
"""Beside a model that metriloc made; it says where the photos are."""
_FILES = ("cameras", "images", "points3D")
_PHOTOS = ("images", "images_2", "images_4", "images_8")
_NAMED = 3


def find_model(folder: str | os.PathLike[str]) -> Path:
    """The folder of a COLMAP model.

    The one that is given, its ``sparse``, or the only numbered one in either. Raises InputError
    where there is none, where a file of it is missing, and where there are several.
    """
    folder = Path(folder)
    if folder.is_file() and folder.suffix.lower() == ".metriloc":
        raise InputError(
            f"'{folder}' is a bundle in one file, which is not taken here: give the map that it was made of"
        )
    if not folder.exists():
        raise InputError(f"'{folder}' does not exist: give the folder of a COLMAP model")
    for place in (folder, folder / "sparse"):
        if kind_of_model(place) is not None:
            return _whole(place)
        numbered = [p for p in _folders(place) if p.name.isdigit() and kind_of_model(p) is not None]
        if len(numbered) > 1:
            names = ", ".join(p.name for p in numbered)
            raise InputError(f"'{place}' holds {len(numbered)} COLMAP models ({names}): give one of them")
        if numbered:
            return _whole(numbered[0])
    raise InputError(f"'{folder}' holds no COLMAP model (cameras.bin or cameras.txt), and neither does a sparse in it")


def kind_of_model(folder: Path) -> str | None:
    """``bin`` or ``txt``; None where there is no model."""
    return next((kind for kind in ("bin", "txt") if (folder / f"cameras.{kind}").is_file()), None)


def model_within(folder: Path) -> Path | None:
    """Where a COLMAP model lies in a folder. It is one that ``find_model`` would look at, whole or not; None where
    there is none."""
    near = [place for top in (folder, folder / "sparse") for place in (top, *_folders(top))]
    kept = [p for p in near if p in (folder, folder / "sparse") or p.name.isdigit()]
    files = [f"{name}.{kind}" for name in _FILES for kind in ("bin", "txt")]
    return next((place for place in kept if any((place / file).exists() for file in files)), None)


def is_model(folder: Path) -> bool:
    """Whether all three files of a COLMAP model are here."""
    kind = kind_of_model(folder)
    return kind is not None and all((folder / f"{name}.{kind}").is_file() for name in _FILES)


def find_images(model: Path, names: Sequence[str]) -> Path | None:
    """The folder that holds photos of a model.

    ``images``, a smaller copy of it, the folder above, or the one that ``map.json`` beside the
    model names; None for nowhere.
    """
    places = (*_places(model), *stated_photos(model))
    return next((place for place in places if holds_any(place, names)), None)


def stated_photos(model: Path) -> list[Path]:
    """Where ``map.json`` says that the photos are.

    Seen from the model, in case that both have moved, and in full.
    """
    try:
        photos = read_json(model / FACTS_FILE)["photos"]
        return [(model.resolve() / str(photos["relative"])).resolve(), Path(str(photos["absolute"]))]
    except (InputError, KeyError, TypeError, ValueError, OSError):
        return []


def require_images(folder: Path, model: Path, names: Sequence[str]) -> None:
    """Refuse a folder of photos that is not the model's. Raises InputError when it holds none of those that a model
    names."""
    if not names or holds_any(folder, names):
        return
    near = [folder.parent, *_folders(folder), *_places(model)]
    other = next((place for place in near if holds_any(place, names)), None)
    remedy = f"'{other}' does" if other is not None else "it must be the folder that these names are relative to"
    raise InputError(f"'{folder}' holds none of the map's photos {first_names(names)}: {remedy}")


def photos_are_lost(place: object, names: Sequence[str]) -> str:
    """The sentence for a map whose photos are nowhere.

    Where they were looked for, and what helps.
    """
    named = f" ({first_names(names)})" if names else ""
    return (
        f"the photos of the map '{place}' are not at hand{named}: neither {', '.join(_PHOTOS)} beside it nor the folders "
        "it is in hold one of them, so say in which they are (--images FOLDER, images=... in Python)"
    )


def holds_any(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder holds a file of one of these names."""
    return any(is_photo_in(folder, name) for name in names)


def is_photo_in(folder: Path, name: str) -> bool:
    """Whether a folder holds a file of this name. The name must not lead out of it; no file has one that is too long."""
    return _within(name) and os.path.isfile(folder / name)


def photo_in(folder: Path, name: str) -> Path:
    """The file of a photo. Raises InputError for a name that leads out of the folder: maps come from anywhere."""
    if not _within(name):
        raise InputError(f"the map's photo {name!r} is not in '{folder}'")
    return folder / name


def _within(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def first_names(names: Sequence[str]) -> str:
    """The first three, and how many there are besides."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(repr(name) for name in names[:_NAMED]) + more


def _places(model: Path) -> Iterator[Path]:
    model = model.resolve()
    top = model.parent if model.name.isdigit() else model
    top = top.parent if top.name == "sparse" else top
    for base in dict.fromkeys((top, model, model.parent)):
        yield from (base / name for name in _PHOTOS)
    yield from dict.fromkeys((top, model.parent))


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir())
    except OSError:
        return []


def _whole(folder: Path) -> Path:
    kind = kind_of_model(folder)
    for name in _FILES:
        if not (folder / f"{name}.{kind}").is_file():
            raise InputError(f"'{folder}' holds no {name}.{kind}")
    return folder
