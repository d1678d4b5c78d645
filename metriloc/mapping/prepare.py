"""Everything before the mapper: keypoints, pairs and matches, by this process alone or shared with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from metriloc.backbones.local import LocalFeatures
from metriloc.io.files import InputError
from metriloc.mapping.config import MapConfig
from metriloc.mapping.features import FeatureStore, Progress, find_features
from metriloc.mapping.matching import Index, MatchStore, load_map_matcher, match_pairs
from metriloc.mapping.pairs import Pair, choose_pairs
from metriloc.mapping.photos import MapPhoto
from metriloc.mapping.places import Workplace

Bar = Callable[[str], AbstractContextManager["Progress | None"]]
"""Makes a progress bar of a name, as ``cli.terminal.progress_bar`` does."""


class Sharing(Protocol):
    """Others that work in the same folder. What they leave undone is done by whoever asked, so they may do any part."""

    def find(self, photos: Sequence[MapPhoto], features: FeatureStore, progress: Progress | None) -> None:
        """Find the keypoints of photos."""
        ...

    def match(
        self, photos: Sequence[MapPhoto], pairs: Sequence[Pair], features: FeatureStore, progress: Progress | None
    ) -> None:
        """Match pairs of photos whose keypoints are there."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What a mapper needs. photos: that have keypoints; messages: one sentence for each of the others. pairs: how many were
    compared. matches: of those, as the pairs are written."""

    photos: Sequence[MapPhoto]
    messages: Sequence[str]
    pairs: int
    matches: Mapping[Pair, Index]
    features: FeatureStore
    store: MatchStore

    def tidy(self) -> None:
        """Forget keypoints and matches of photos that are here no more."""
        self.features.keep_only(self.photos)
        self.store.keep_only([self.features.key(photo) for photo in self.photos])


def prepare(
    photos: Sequence[MapPhoto],
    folder: Path,
    work: Workplace,
    config: MapConfig,
    *,
    device: str = "cpu",
    bar: Bar,
    sharing: Sharing | None = None,
) -> Prepared:
    """Keypoints and matches, found now or before. Raises InputError where fewer than two photos are usable."""
    require_two(photos, folder)
    chosen = load_map_matcher(config, device)
    features = FeatureStore(work.features, chosen.identity)
    with bar("keypoints") as progress:
        if sharing is not None:
            sharing.find(photos, features, progress)
        usable, messages = find_features(photos, features, chosen.finder, progress)
    require_two(usable, folder, messages)
    with bar("similar photos") as progress:
        pairs = choose_pairs(len(usable), config, lambda i: required(features, usable[i]), progress)
    store = MatchStore(work.matches, chosen.rule)
    with bar("matches") as progress:
        if sharing is not None:
            sharing.match(usable, pairs, features, progress)
        matches = match_pairs(usable, pairs, chosen.matcher, features, store, progress)
    return Prepared(usable, messages, len(pairs), matches, features, store)


def required(features: FeatureStore, photo: MapPhoto) -> LocalFeatures:
    """The keypoints of a photo, which were there. Raises InputError where they have gone."""
    found = features.load(photo)
    if found is None:
        raise InputError(f"'{features.file(photo)}' has gone while the map was made: run the command again")
    return found


def require_two(photos: Sequence[MapPhoto], folder: Path, messages: Sequence[str] = ()) -> None:
    """Raises InputError, with the first message, for fewer than two photos."""
    if len(photos) < 2:
        why = f" ({messages[0]})" if messages else ""
        raise InputError(f"a map needs two photos that show the same, and '{folder}' has {len(photos)} usable{why}")
