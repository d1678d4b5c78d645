"""Localisers by name: what finds the pose of a photo in a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metriloc.baselines.localizing import MatchingLocalizer
from metriloc.io import InputError
from metriloc.io.local_features import load_extractor
from metriloc.types import AbsolutePoseMethod

_PNP: Mapping[str, str] = {"xfeat-pnp": "xfeat", "aliked-pnp": "aliked", "disk-pnp": "disk"}
LOCALIZERS = tuple(_PNP)


@dataclass(frozen=True)
class LocalizerChoice:
    """A localiser and its settings, as a command names them. weights: of its features."""

    name: str = "xfeat-pnp"
    weights: str | None = None
    device: str = "cpu"


def choose_localizer(choice: LocalizerChoice) -> AbsolutePoseMethod:
    """The localiser that a command names. Raises InputError for an unknown name and for weights that are missing."""
    if choice.name not in _PNP:
        raise InputError(f"there is no localiser {choice.name!r}: one of {', '.join(LOCALIZERS)}")
    features, identity = load_extractor(_PNP[choice.name], choice.weights)
    return MatchingLocalizer(features.to(choice.device), identity)  # type: ignore[arg-type]
