"""Localizers that keep what they see in photos of maps, and what second looks are taken with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol, cast, runtime_checkable

from metriloc.backbones.local import DenseExtractor
from metriloc.io import InputError
from metriloc.io.local_features import load_extractor
from metriloc.io.reference_features import ReferenceFeatures
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.types import AbsolutePoseMethod, SfmMap


@runtime_checkable
class KeepsFeatures(Protocol):
    """A localizer that looks at each photo of a map once."""

    def with_kept(self, kept: ReferenceFeatures) -> AbsolutePoseMethod: ...

    def describe(self, scene: SfmMap, image: int) -> None: ...


def with_kept(method: AbsolutePoseMethod, kept: ReferenceFeatures) -> AbsolutePoseMethod:
    """A localizer that keeps what it sees in photos of maps there.

    One that keeps nothing as it is.
    """
    return method.with_kept(kept) if isinstance(method, KeepsFeatures) else method


def keepers_of(methods: Sequence[AbsolutePoseMethod], kept: ReferenceFeatures) -> list[KeepsFeatures]:
    """What looks at the photos of a map for its localizers. It keeps what these need, and what second looks need. Raises
    InputError for one of somebody's own that keeps nothing, and without XFeat's weights."""
    found: list[KeepsFeatures] = [MatchingLocalizer(*map_features(), kept=kept)]
    for method in methods:
        own = with_kept(method, kept)
        if not isinstance(own, KeepsFeatures):
            raise InputError(f"{method.name} keeps no features of photos that could be put into a bundle")
        found.append(own)
    return found


@cache
def map_features() -> tuple[DenseExtractor, str]:
    """XFeat and the identity of its weights. Raises InputError where they are missing, ImportError without kornia."""
    features, identity = load_extractor("xfeat")
    return cast(DenseExtractor, features), identity
