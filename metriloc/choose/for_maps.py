"""Localizers for a map: the one that a bundle is for, and one that suits how many photos see its points."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TypeVar

from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.io import InputError
from metriloc.io.bundles import Bundle
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.methods.nre.model import NRE
from metriloc.methods.pixloc.model import PixLoc
from metriloc.types import AbsolutePoseMethod, SfmMap

AnyMethod = TypeVar("AnyMethod", bound=AbsolutePoseMethod)


def method_of_bundle(bundle: Bundle, device: str) -> AbsolutePoseMethod:
    """The first method of a bundle whose weights are here.

    The usual one where the photos can be asked.
    """
    said = []
    for known in bundle.manifest.methods:
        try:
            method = choose_localizer(LocalizerChoice(known.name, device=device))
        except (InputError, ImportError) as error:
            said.append(str(error))
            continue
        if method.weights_id == known.weights_id:
            return method
        said.append(f"{known.name} has other weights here ({method.weights_id}, not {known.weights_id})")
    if bundle.images is not None:
        return NRE.from_features(device=device)
    names = ", ".join(method.name for method in bundle.manifest.methods) or "no method"
    raise InputError(
        f"the bundle '{bundle.path}' has no photos, only features of {names}, which cannot be used here"
        + (f": {said[0]}" if said else "")
    )


def require_features(method: AbsolutePoseMethod, bundle: Bundle) -> None:
    """Refuse a bundle without photos that a method cannot use. Raises InputError for a method of which it holds no
    features."""
    known = [(entry.name, entry.weights_id) for entry in bundle.manifest.methods]
    if bundle.images is None and (method.name, method.weights_id) not in known:
        names = ", ".join(name for name, _ in known) or "none"
        raise InputError(
            f"the bundle '{bundle.path}' has no photos, and features of {names}, not of {method.name} "
            f"{method.weights_id}: make it with --methods {method.name}, or with photos"
        )


def suited(method: AnyMethod, scene: SfmMap) -> AnyMethod:
    """The method, suited to how few photos see the points. For a map whose points are all seen by fewer photos than its
    ``min_track`` wants (a map of one photo, say), the method has a ``min_track`` that the best of them have."""
    longest = max(1, int(scene.track_lengths().max())) if len(scene.point_index) else 1
    if not isinstance(method, NRE | PixLoc | MatchingLocalizer) or method.config.min_track <= longest:
        return method
    other = copy(method)
    other.config = replace(method.config, min_track=longest)
    return other
