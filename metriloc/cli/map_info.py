"""``metriloc map info`` and ``map check``: what a map holds, and what is weak in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.cli.terminal import EXIT_NO_POSE, print_lines
from metriloc.mapping.check import MapCheck, cameras_in_words, check_map, extent, median_depth
from metriloc.mapping.doppelgangers import Doppelganger
from metriloc.mapping.facts import MapFacts, scale_line
from metriloc.opened_map import look_into

_SHOWN = 10


def map_info(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """What a map holds: photos, points, cameras, where its metres are from.

    Args:
        scene: Folder of a map, also of a COLMAP model that was made elsewhere, or a bundle.
        json_output: Print it as JSON.
    """
    opened = look_into(scene)
    facts, content = opened.facts, opened.scene
    told: dict[str, Any] = {
        "photos": len(content),
        "points": len(content.xyz),
        "observations": len(content.point_index),
        "track_length": float(content.track_lengths().double().mean()) if len(content.xyz) else 0.0,
        "cameras": cameras_in_words(content),
        "folder_of_photos": None if content.folder is None else str(content.folder),
        "bundle_of": None if opened.bundle is None else [method.name for method in opened.bundle.manifest.methods],
        "unit": None if facts is None else facts.unit,
        "extent": extent(content),
        "median_depth": median_depth(content),
    }
    if json_output:
        print(json.dumps({**told, "made": None if facts is None else asdict(facts)}, indent=2))
        return 0
    print_lines(_info_lines(told, facts))
    return 0


def _info_lines(told: dict[str, Any], facts: MapFacts | None) -> list[str]:
    given = "" if facts is None else f" of {facts.given}"
    unit = "m" if facts is not None and facts.scale is not None else "units"
    lines = [
        f"photos        {told['photos']}{given}",
        f"points        {told['points']}, each seen by {told['track_length']:.1f} photos on the mean",
        f"extent        cameras within {told['extent']:.3g} {unit}, things at {told['median_depth']:.3g} {unit}",
        *(f"camera        {camera}" for camera in told["cameras"]),
        _whereabouts(told),
    ]
    if facts is None:
        return [*lines, "scale         as whoever made the map says: metriloc did not"]
    lines.append(f"error         {facts.error_px:.2f} px (mean, of reprojection)")
    lines.append(f"scale         {scale_line(facts)}")
    for source in () if facts.scale is None else facts.scale.sources:
        lines.append(f"              {source['said']} ({100 * source['share']:.0f} % of it)")
    lines += [] if facts.scale is None else [f"              {sentence}" for sentence in facts.scale.disputes]
    if facts.scale is not None and facts.scale.frame != "arbitrary":
        lines.append(f"axes          {facts.scale.frame}")
    return lines


def _whereabouts(told: dict[str, Any]) -> str:
    """Of the photos, in a line."""
    if told["bundle_of"] is None:
        return f"photos lie in {told['folder_of_photos'] or 'no folder that is found: give --images'}"
    within = "no photos" if told["folder_of_photos"] is None else "the photos"
    return f"a bundle with {within} and what {', '.join(told['bundle_of'])} see in them"


def map_check(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """What is weak in a map.

    Photos that hang on little, photos taken twice, a scale that is not known.

    Args:
        scene: Folder of a map, or a bundle.
        json_output: Print it as JSON, with every photo.
    """
    opened = look_into(scene)
    facts, content = opened.facts, opened.scene
    found = check_map(content)
    if json_output:
        scale = None if facts is None or facts.scale is None else asdict(facts.scale)
        print(json.dumps({**asdict(found), "scale": scale}, indent=2))
    else:
        print_lines(check_lines(found, facts))
    disputed = facts is not None and facts.scale is not None and bool(facts.scale.contradictions)
    sound = not found.weak and len(found.parts) <= 1 and not disputed
    return 0 if sound else EXIT_NO_POSE


def check_lines(found: MapCheck, facts: MapFacts | None) -> list[str]:
    """One line for each finding."""
    lines = [f"{photo.name} {photo.weak}" for photo in found.weak]
    for part in found.parts[1:]:
        lines.append(f"{', '.join(part[:_SHOWN])} share{'s' if len(part) == 1 else ''} hardly anything with the rest")
    lines += [f"{a} and {b} were taken from one place: one of them adds nothing" for a, b in found.duplicates]
    lines += _alike_lines(found.alike)
    if facts is not None:
        lines.append(scale_line(facts))
        if facts.scale is not None:
            lines += facts.scale.disputes
    ties = sorted(photo.ties for photo in found.photos)
    middle = ties[len(ties) // 2] if ties else 0
    return [*lines, f"{len(found.photos)} photos, {len(found.weak)} weakly tied; half have {middle} ties or more"]


def _alike_lines(pairs: Sequence[Doppelganger]) -> list[str]:
    lines = [
        f"{pair.first} and {pair.second} should share {pair.expected} points and share {pair.shared}: two places that look "
        "alike, or photos that were never compared"
        for pair in pairs[:_SHOWN]
    ]
    return lines + ([f"so should {len(pairs) - _SHOWN} more pairs (--json names them)"] if len(pairs) > _SHOWN else [])
