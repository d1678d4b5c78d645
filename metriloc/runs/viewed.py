"""What ``metriloc view`` is given, opened as a scene: a result, a map, or a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metriloc.io import InputError, read_json
from metriloc.io.bundles import is_bundle
from metriloc.opened_map import open_map
from metriloc.runs.localize_results import FORMAT as LOCALIZED
from metriloc.runs.relpose_results import FORMAT as RELATIVE
from metriloc.runs.viewed_map import located_of_folder
from metriloc.runs.viewed_pairs import pairs_of_folder
from metriloc.runs.viewed_track import RUN_FILE, TrackPlace, is_track, track_header, track_of_folder
from metriloc.viz.scene import Scene
from metriloc.viz.whole_map import ShownMap, shown_map

_KINDS = "a result (of relpose, localize or track), a map (a COLMAP model or a bundle), or a run"


@dataclass(frozen=True, eq=False)
class Viewed:
    """scene: what there is to see. title: what it is, in a few words."""

    scene: Scene
    title: str


def open_viewed(path: Path, images: Path | None = None) -> Viewed:
    """A result's folder, a map, or a run as a scene.

    images: the folder of a map's photos, where that is not beside it. Raises InputError for what is none of these, for
    what holds nothing to see, and for what is damaged.
    """
    if not path.exists():
        raise InputError(f"'{path}' does not exist: give {_KINDS}")
    content = None if is_bundle(path) else _result(path)
    if content is not None:
        if images is not None:
            raise InputError(f"--images {images} is of maps: '{path}' says itself where its photos are")
        return _viewed_result(path if path.is_dir() else path.parent, content)
    if path.is_dir() and is_track(path):
        return _viewed_track(path)
    if path.is_dir() and (path / RUN_FILE).is_file():
        raise InputError(
            f"'{path}' is a run of metriloc eval, which keeps numbers and no scene: its pages show them (--out), and "
            "metriloc relpose or localize --out a single photo in 3D"
        )
    if path.is_file() and not is_bundle(path) and path.suffix.lower() != ".npz":
        raise InputError(f"'{path}' is neither {_KINDS}")
    if path.is_dir() and not any(path.iterdir()):
        raise InputError(f"'{path}' is an empty folder: give {_KINDS}")
    shown = _shown(path, images)
    count = len(shown.content)
    return Viewed(shown.scene, f"{path.resolve().name}: {count} photos, {len(shown.content.xyz)} points")


def _shown(path: Path, images: Path | str | None) -> ShownMap:
    opened = open_map(path, images, photos_needed=False)
    return shown_map(opened.scene, opened.unit, z_is_up=opened.z_is_up)


def _result(path: Path) -> dict[str, Any] | None:
    """What poses.json or pose.json of a folder says, or the file itself; None where it is no result."""
    files = [path / "poses.json", path / "pose.json"] if path.is_dir() else [path] if path.suffix == ".json" else []
    for file in files:
        if file.is_file():
            content = read_json(file)
            if isinstance(content, dict) and content.get("format") in (RELATIVE, LOCALIZED):
                return content
            raise InputError(f"'{file}' was not written by metriloc relpose or localize of this version")
    return None


def _viewed_track(folder: Path) -> Viewed:
    header = track_header(folder)
    try:
        target, reference = Path(str(header["target"])), header["reference"]
        if reference is not None:
            place = TrackPlace.of_saved(target, reference["camera"])
        else:
            place = TrackPlace.in_map(_shown(target, header["settings"].get("images")))
        scene = track_of_folder(folder, place)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{folder}' is damaged: {type(error).__name__} {error}") from error
    return Viewed(scene, f"{target.name}: {scene.title}")


def _viewed_result(folder: Path, content: dict[str, Any]) -> Viewed:
    try:
        if content["format"] == RELATIVE:
            scene = pairs_of_folder(folder, content)
            return Viewed(scene, scene.title)
        scene = located_of_folder(folder, content, lambda path, photos: _shown(path, photos))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{folder}' is damaged: {type(error).__name__} {error}") from error
    found = sum(frustum.role == "query" for frustum in scene.frusta)
    return Viewed(scene, f"{Path(str(content['map']['path'])).name}: {found} of {len(content['queries'])} queries")
