"""Keypoints and matches shared with others that see the same folder: Ray workers, or the processes of ``torchrun``.

Every file is named by what it was made of and written whole, so that it does not matter who makes it, or twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from metriloc.mapping.config import MapConfig
from metriloc.mapping.features import FeatureStore, Progress, find_features
from metriloc.mapping.matching import MatchStore, load_map_matcher, match_pairs, rows_of
from metriloc.mapping.pairs import Pair
from metriloc.mapping.photos import MapPhoto
from metriloc.mapping.places import Workplace
from metriloc.ray_workers import work_with_ray

_PARTS = 4
"""Parts that each worker gets, so that the last one is not waited for long."""


@dataclass(frozen=True)
class Part:
    """What one is asked to do.

    Find the keypoints of photos, or, where there are pairs of them, match those.
    """

    photos: tuple[MapPhoto, ...]
    pairs: tuple[Pair, ...] | None = None


@dataclass(frozen=True)
class PartWorker:
    """Makes what does parts. threads: of torch, as many as whoever asks has, so that sums come out alike."""

    work: Workplace
    config: MapConfig
    device: str
    threads: int

    def __call__(self) -> Callable[[Part], str]:
        torch.set_num_threads(self.threads)
        chosen = load_map_matcher(self.config, self.device)
        features, store = FeatureStore(self.work.features, chosen.identity), MatchStore(self.work.matches, chosen.rule)

        def do(part: Part) -> str:
            if part.pairs is None:
                find_features(part.photos, features, chosen.finder)
            else:
                match_pairs(part.photos, part.pairs, chosen.matcher, features, store)
            return ""

        return do


def photo_parts(photos: Sequence[MapPhoto], count: int) -> list[Part]:
    """Photos in so many parts, or fewer."""
    return [Part(tuple(photos[k::count])) for k in range(min(count, len(photos)))]


def pair_parts(photos: Sequence[MapPhoto], pairs: Sequence[Pair], features: FeatureStore, count: int) -> list[Part]:
    """Pairs in so many parts, or fewer, those of one file together."""
    rows = [
        [(min(i, j), max(i, j)) for j in others]
        for i, others in rows_of([features.key(photo) for photo in photos], pairs).items()
    ]
    rows.sort(key=len, reverse=True)
    return [
        Part(tuple(photos), tuple(pair for row in rows[k::count] for pair in row)) for k in range(min(count, len(rows)))
    ]


@dataclass(frozen=True)
class RaySharing:
    """``prepare.Sharing`` with Ray workers, which must see photos and map at the same paths."""

    worker: PartWorker
    workers: int

    def find(self, photos: Sequence[MapPhoto], features: FeatureStore, progress: Progress | None) -> None:
        """Find the keypoints that are not there."""
        missing = [photo for photo in photos if features.load(photo) is None]
        self._share(photo_parts(missing, _PARTS * self.workers), progress)

    def match(
        self, photos: Sequence[MapPhoto], pairs: Sequence[Pair], features: FeatureStore, progress: Progress | None
    ) -> None:
        """Match the pairs that are not matched."""
        self._share(pair_parts(photos, pairs, features, _PARTS * self.workers), progress)

    def _share(self, parts: Sequence[Part], progress: Progress | None) -> None:
        gpus = 1 if self.worker.device.startswith("cuda") else 0
        for done, _ in enumerate(work_with_ray(self.worker, parts, workers=self.workers, gpus_per_worker=gpus), 1):
            if progress is not None:
                progress(done, len(parts))


@dataclass(frozen=True)
class ProcessSharing:
    """``prepare.Sharing`` of one process among several that all run the same.

    It does its part and waits for the others.
    """

    worker: PartWorker
    rank: int
    count: int
    wait: Callable[[], None]

    def find(self, photos: Sequence[MapPhoto], features: FeatureStore, progress: Progress | None) -> None:
        """Find the keypoints of this process's photos."""
        self._do(photo_parts(photos, self.count))

    def match(
        self, photos: Sequence[MapPhoto], pairs: Sequence[Pair], features: FeatureStore, progress: Progress | None
    ) -> None:
        """Match this process's pairs."""
        self._do(pair_parts(photos, pairs, features, self.count))

    def _do(self, parts: Sequence[Part]) -> None:
        if self.rank < len(parts):
            self.worker()(parts[self.rank])
        self.wait()
