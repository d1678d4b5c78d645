"""Matches of the photos of a map: one file a photo with those of all its pairs, named by what made them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Camera
from metriloc.io.files import write_atomically
from metriloc.mapping.config import MapConfig
from metriloc.mapping.features import (
    FeatureStore,
    Finder,
    Progress,
    matcher_finder,
    sift_finder,
    sift_identity,
)
from metriloc.mapping.pairs import Pair
from metriloc.mapping.photos import MapPhoto
from metriloc.methods.matching.matchers import Matcher, Matches, NearestMatcher, load_matcher
from metriloc.types import View

Index = npt.NDArray[np.int32]
SIFT_MIN_COSINE, SIFT_MAX_RATIO = 0.765, 0.8
"""COLMAP's own: an angle of at most 0.7 between descriptors, and Lowe's ratio."""
_SAVE_EVERY_S = 10.0
_HELD = 64  # photos whose keypoints are held in memory


@dataclass(frozen=True)
class MapMatcher:
    """Features of maps: what finds keypoints, and what matches them. identity: of the keypoints; rule: of the matches."""

    finder: Finder
    matcher: Matcher
    identity: str
    rule: str


def load_map_matcher(config: MapConfig, device: str = "cpu") -> MapMatcher:
    """By the name of the features. Raises InputError, with the pip command, for weights that are not here."""
    if config.features == "sift":
        matcher: Matcher = NearestMatcher(
            _NoExtractor(), "colmap-sift", min_similarity=SIFT_MIN_COSINE, max_ratio=SIFT_MAX_RATIO
        )
        return MapMatcher(sift_finder(config), matcher, sift_identity(config), "nearest 0.765 0.8")
    matcher = load_matcher(config.features).to(device)
    identity = f"{matcher.weights_id}-{config.max_features}-{config.longest_side}"
    return MapMatcher(matcher_finder(matcher, config), matcher, identity, matcher.weights_id)


class _NoExtractor:
    """In place of a network: COLMAP's process finds the keypoints."""

    name = "sift"

    def __call__(self, image: torch.Tensor) -> LocalFeatures:
        raise NotImplementedError("COLMAP's SIFT is found in a process of its own")

    def to(self, device: torch.device | str) -> _NoExtractor:
        return self


@dataclass(frozen=True)
class MatchStore:
    """Where matches are kept.

    A file for each photo that comes first in a pair, by the names of its keypoints.
    """

    folder: Path
    rule: str

    def file(self, key: str) -> Path:
        """Of the photo with these keypoints."""
        return self.folder / f"{hashlib.sha256(f'{key} {self.rule}'.encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: str) -> dict[str, Index]:
        """Matches with others, by the names of their keypoints.

        None where the file is not here or not whole.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return dict(load_file(self.file(key)))
        except (SafetensorError, OSError):
            return {}

    def save(self, key: str, matches: dict[str, Index]) -> None:
        """Keep all matches of a photo, whole or not at all."""
        from safetensors.numpy import save

        write_atomically(self.file(key), save(matches))

    def keep_only(self, keys: Sequence[str]) -> None:
        """Forget what belongs to no photo any more."""
        wanted = {self.file(key).name for key in keys}
        for file in self.folder.glob("*.safetensors"):
            if file.name not in wanted:
                file.unlink(missing_ok=True)


def match_pairs(
    photos: Sequence[MapPhoto],
    pairs: Sequence[Pair],
    matcher: Matcher,
    features: FeatureStore,
    store: MatchStore,
    progress: Progress | None = None,
) -> dict[Pair, Index]:
    """Indices of matched keypoints of each pair, as the pair is written. Those of an earlier run are taken as they are.

    A pair is matched from the photo whose keypoints have the smaller name, so that it does not depend on the order of
    photos.
    """
    keys = [features.key(photo) for photo in photos]
    rows = rows_of(keys, pairs)
    load = _Loader(photos, features)
    found: dict[Pair, Index] = {}
    for first, others in rows.items():
        kept = store.load(keys[first])
        fresh, saved_at = 0, time.monotonic()
        for second in others:
            if keys[second] not in kept:
                kept[keys[second]] = match_two(matcher, *load(first), *load(second))
                fresh += 1
            if fresh and time.monotonic() - saved_at > _SAVE_EVERY_S:
                store.save(keys[first], kept)
                fresh, saved_at = 0, time.monotonic()
            index = kept[keys[second]]
            found[(first, second) if first < second else (second, first)] = index if first < second else index[:, ::-1]
            if progress is not None:
                progress(len(found), len(pairs))
        if fresh:
            store.save(keys[first], kept)
    return found


def rows_of(keys: Sequence[str], pairs: Sequence[Pair]) -> dict[int, list[int]]:
    """For each photo that comes first in a pair those that it is matched with: what one file holds. keys: of keypoints."""
    rows: dict[int, list[int]] = {}
    for i, j in pairs:
        first, second = (i, j) if keys[i] < keys[j] else (j, i)
        rows.setdefault(first, []).append(second)
    return rows


class _Loader:
    """Keypoints and a stand-in for the pixels of photos, the last ones held."""

    def __init__(self, photos: Sequence[MapPhoto], features: FeatureStore) -> None:
        self.photos, self.features = photos, features
        self._held: Callable[[int], tuple[View, LocalFeatures]] = lru_cache(_HELD)(self._load)

    def __call__(self, number: int) -> tuple[View, LocalFeatures]:
        return self._held(number)

    def _load(self, number: int) -> tuple[View, LocalFeatures]:
        photo = self.photos[number]
        width, height = photo.upright_size
        # matchers of keypoints ask for nothing of a photo but its size
        blank = torch.zeros(1, 1, 1).expand(3, height, width)
        found = self.features.load(photo)
        if found is None:
            raise FileNotFoundError(f"the keypoints of {photo.name!r} have gone: {self.features.file(photo)}")
        return View(blank, Camera.from_fov(photo.upright_size, 1.0), name=photo.name), found


@torch.inference_mode()
def match_two(matcher: Matcher, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Index:
    """Indices of matched keypoints, each place at most once."""
    if len(local0) == 0 or len(local1) == 0:
        return np.zeros((0, 2), np.int32)
    return _indices(matcher.match(view0, local0, view1, local1), local0, local1)


def _indices(matches: Matches, local0: LocalFeatures, local1: LocalFeatures) -> Index:
    """Places -> numbers of keypoints; of several at one place (SIFT has one for each orientation) the first stands for
    all, and of several matches of one place the surest."""
    first, second = (_first_at(local.uv, uv) for local, uv in ((local0, matches.uv0), (local1, matches.uv1)))
    order = np.argsort(-matches.score.numpy(), kind="stable")
    taken0: set[int] = set()
    taken1: set[int] = set()
    kept = []
    for n in order.tolist():
        i, j = int(first[n]), int(second[n])
        if i not in taken0 and j not in taken1:
            taken0.add(i)
            taken1.add(j)
            kept.append((i, j))
    return np.array(sorted(kept), dtype=np.int32).reshape(-1, 2)


def _first_at(uv: torch.Tensor, places: torch.Tensor) -> npt.NDArray[np.int64]:
    numbers: dict[tuple[float, float], int] = {}
    for number, place in enumerate(map(tuple, uv.cpu().tolist())):
        numbers.setdefault(place, number)
    return np.array([numbers[place] for place in map(tuple, places.cpu().tolist())], dtype=np.int64)
