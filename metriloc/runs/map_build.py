"""A folder of photos in, a folder with a map out, which can be interrupted at any moment and goes on from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from metriloc.choose import predicted_depth, require_device
from metriloc.io.arguments import require_path
from metriloc.io.files import InputError, prepare_output_folder, write_atomically
from metriloc.io.map_folders import FACTS_FILE, find_model
from metriloc.io.maps import map_from_reconstruction, read_reconstruction
from metriloc.mapping.build import Models, build_models
from metriloc.mapping.child import require_pycolmap
from metriloc.mapping.config import MapConfig
from metriloc.mapping.facts import MapFacts, facts_text, read_facts, require_same_photos, scale_line
from metriloc.mapping.model_files import write_model
from metriloc.mapping.photos import read_photos
from metriloc.mapping.places import Workplace, install, recover
from metriloc.mapping.prepare import Bar, Sharing, prepare, require_two
from metriloc.mapping.scale import MapScale, scale_model
from metriloc.mapping.sharing import PartWorker
from metriloc.mapping.sources import PredictedDepth, ScaleOptions, find_scale
from metriloc.types import SfmMap


def no_bar(what: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
    """In place of a progress bar: nobody looks."""
    return nullcontext(None)


def build_map(
    photos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: MapConfig | None = None,
    scale: ScaleOptions | None = None,
    depth: str | None = None,
    intrinsics: str | os.PathLike[str] | None = None,
    fov: float | None = None,
    device: str = "cpu",
    bar: Bar = no_bar,
    share: Callable[[PartWorker], Sharing] | None = None,
    in_place: Callable[[SfmMap], MapScale | None] | None = None,
) -> MapFacts:
    """A map from a folder of photos: ``out/sparse``, which ``localize(photo, out)`` opens.

    - photos: the folder; those below it count as well.
    - out: the folder of the map; what an earlier run that was interrupted finished there is taken as it is.
    - config: features, pairs and more.
    - scale: what is known of metres; GPS positions in EXIF are found without being asked for.
    - depth: weights that predict depth, such as ``metriloc-small``: a scale, if a rough one.
    - intrinsics, fov: of the photos, as in ``load_view``; by default a list beside them, EXIF, or a guess, which are
      refined.
    - bar: makes a progress bar of a name.
    - share: others that find keypoints and match, such as ``partial(RaySharing, workers=8)``; the map is the same.
    - in_place: gives the place, axes and unit of the new map, before anything else is asked for them.

    Returns what ``map.json`` says: how many photos are in the map, its scale and the scale's standard deviation. Raises
    InputError (a ValueError), one sentence, where no map comes of it: fewer than two photos, none that show the same, a
    folder that cannot be written, a distance to a photo that is not in the map. ImportError without pycolmap.

    >>> facts = metriloc.build_map("photos", "new_map")  # doctest: +SKIP
    >>> metriloc.localize("query.jpg", "new_map")  # doctest: +SKIP
    """
    require_path("photos", photos)
    require_path("out", out)
    require_pycolmap()
    require_device(device)
    folder, target = Path(photos), Path(out)
    if target.resolve() == folder.resolve():
        raise InputError(f"'{out}' is the folder of the photos: give the map a folder of its own")
    config, options = config or MapConfig(), scale or ScaleOptions()
    recover(target / "sparse")
    if in_place is None:
        require_same_photos(target, folder)
    predicted = None if depth is None else PredictedDepth(*predicted_depth(depth, device))
    with bar("photos") as progress:
        found, left_out = read_photos(
            folder, intrinsics=None if intrinsics is None else Path(intrinsics), fov_deg=fov, progress=progress
        )
    require_two(found, folder, left_out)
    options.check_names([photo.name for photo in found])  # before the work, not after it
    prepare_output_folder(target)
    work = Workplace.prepare(target)
    sharing = None if share is None else share(PartWorker(work, config, device, torch.get_num_threads()))
    models = build_models(found, folder, work, config, device=device, bar=bar, sharing=sharing)
    known = asdict(config) | {"intrinsics": None if intrinsics is None else str(Path(intrinsics).resolve()), "fov": fov}
    facts = _facts_of(models, folder, len(found), left_out, known, options.as_dict() | {"depth": depth})
    if in_place is not None and (same := _still_there(facts, target)) is not None:
        return same

    def scale_of(scene: SfmMap) -> tuple[MapScale | None, list[str]]:
        kept = None if in_place is None else in_place(scene)
        return (kept, []) if kept is not None else find_scale(scene, options, predicted, bar)

    return install_map(models, facts, target, scale_of)


def _facts_of(
    models: Models,
    photos: Path,
    usable: int,
    left_out: Sequence[str],
    settings: dict[str, Any],
    scale_options: dict[str, Any],
) -> MapFacts:
    """What is to be said of the largest model, before anything is known of metres."""
    return MapFacts(
        photos=str(photos),
        given=usable + len(left_out),
        registered=len(models.names),
        error_px=float(models.entries[0]["error_px"]),
        others=models.others,
        alone=models.alone,
        left_out=(*left_out, *models.messages),
        settings=settings,
        model=models.folder.name,
        scale_options=scale_options,
    )


def _still_there(facts: MapFacts, target: Path) -> MapFacts | None:
    """Of a map that was made of the same model, which stays as it is to the last bit; None for any other."""
    model = find_model(target)
    old = read_facts(model)
    if old is None or old.model != facts.model:
        return None
    facts = replace(facts, notes=old.notes, scale=old.scale)
    write_atomically(model / FACTS_FILE, facts_text(facts, model))
    return facts


def help_build_map(
    photos: str | os.PathLike[str],
    out: str | os.PathLike[str],
    share: Callable[[PartWorker], Sharing],
    *,
    config: MapConfig | None = None,
    intrinsics: str | os.PathLike[str] | None = None,
    fov: float | None = None,
    device: str = "cpu",
) -> None:
    """The part of one of several processes that run ``build_map`` together, but for the one that makes the model."""
    folder, config = Path(photos), config or MapConfig()
    found, left_out = read_photos(folder, intrinsics=None if intrinsics is None else Path(intrinsics), fov_deg=fov)
    require_two(found, folder, left_out)
    work = Workplace.prepare(Path(out))
    sharing = share(PartWorker(work, config, device, torch.get_num_threads()))
    prepare(found, folder, work, config, device=device, bar=no_bar, sharing=sharing)


def install_map(
    models: Models, facts: MapFacts, target: Path, scale_of: Callable[[SfmMap], tuple[MapScale | None, list[str]]]
) -> MapFacts:
    """The largest model, installed as ``target/sparse``.

    It is in metres where something tells them, with ``map.json`` beside it.

    - models: what the mapper made.
    - facts: what is known of the map.
    - target: its folder.
    - scale_of: how metres are found in it, and what is to be said of that.
    """
    model = read_reconstruction(models.largest)
    scene = map_from_reconstruction(model, str(models.largest), Path(facts.photos))
    found, notes = scale_of(scene)
    facts = replace(facts, notes=tuple(notes))
    if found is not None:
        scale_model(model, found, scene.cam_from_world.center().mean(0))
        facts = replace(facts, scale=found.facts)

    def fill(folder: Path) -> None:
        write_model(model, folder)
        write_atomically(folder / FACTS_FILE, facts_text(facts, target / "sparse"))

    install(fill, target / "sparse")
    return facts


def summary(facts: MapFacts, target: str | os.PathLike[str]) -> list[str]:
    """What a person wants to know of a new map. A line each."""
    lines = [
        f"{target}: {facts.registered} of {facts.given} photos, mean reprojection error {facts.error_px:.2f} px",
        scale_line(facts),
    ]
    if facts.scale is not None:
        lines += [f"  {source['said']} ({100 * source['share']:.0f} % of it)" for source in facts.scale.sources]
        lines += [f"  {sentence}" for sentence in facts.scale.disputes]
    lines += [f"  {note}" for note in facts.notes]
    for names in facts.others:
        lines.append(f"{len(names)} photos show another place, or nothing in common: {_some(names)}")
    if facts.alone:
        lines.append(f"{len(facts.alone)} photos could not be placed: {_some(facts.alone)}")
    return lines + list(facts.left_out)


def _some(names: tuple[str, ...], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


__all__ = ["MapFacts", "build_map", "install_map", "no_bar", "summary"]
