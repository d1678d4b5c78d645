"""What networks see at the points of a map in its photos: looked at once, kept in memory in float16, or in a bundle.

An entry belongs to one photo, one way to look at it (network, weights, size) and the pixels where the map observes its
points. It holds as long as all of them do; where the photo is at hand, it must be the one that was looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import DenseMap
from metriloc.io.download import file_sha256
from metriloc.io.files import InputError
from metriloc.io.lists import MAX_SIDE
from metriloc.io.maps import load_map_view, pixels_in
from metriloc.types import SfmMap, View

Key = Mapping[str, str]
"""Everything an entry depends on, by name; ``photo`` is the hash of the photo, empty where that is not at hand."""
Entry = Mapping[str, Tensor]
KEPT_BYTES = 1 << 30
"""Of entries in memory; the least recently used go first."""


class FeatureSource(Protocol):
    """Where entries are that were made before: a bundle."""

    def find(self, key: Key) -> Entry | None:
        """The tensors of an entry. None where there is none, or it was made of another photo."""
        ...


def entry_name(key: Key) -> str:
    """Names an entry, whatever photo it was made of."""
    what = json.dumps({name: value for name, value in sorted(key.items()) if name != "photo"})
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def same_photo(made_of: str, asked: str) -> bool:
    """Whether what was made of one photo is good for another. The entry was made of a photo, and this one, or none (""), is
    at hand."""
    return not asked or made_of == asked


class PhotoHashes:
    """The SHA-256 of photos. They are read again only when their size or time of change is another."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int, str]] = {}

    def of(self, scene: SfmMap, image: int) -> str:
        """Of a photo of a map. "" when it is not at hand."""
        kept = scene.views.get(scene.names[image])
        if kept is not None:
            return hashlib.sha256(kept.image.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        path = None if scene.folder is None else scene.folder / scene.names[image]
        try:
            state = path.stat() if path is not None else None
        except OSError:
            state = None
        if path is None or state is None:
            return ""
        known = self._known.get(path)
        if known is None or known[:2] != (state.st_size, state.st_mtime_ns):
            known = (state.st_size, state.st_mtime_ns, file_sha256(path) if path.is_file() else "")
            self._known[path] = known
        return known[2]


@dataclass(frozen=True)
class Look:
    """How photos are looked at. what: network, weights and size, in words; equal only for equal numbers. read: from a photo
    and pixels of it to a descriptor each; the photo is that of the map, in full size."""

    what: str
    read: Callable[[View, Float[Tensor, "n 2"]], Float[Tensor, "n C"]]


class ReferenceFeatures:
    """Descriptors at the observations of a map's photos, each looked at once.

    source: asked before a photo is. max_bytes: of memory. keep: is told every entry that was not in memory.
    """

    def __init__(
        self,
        source: FeatureSource | None = None,
        max_bytes: int = KEPT_BYTES,
        keep: Callable[[Key, Entry], None] | None = None,
    ) -> None:
        self.source, self.max_bytes, self.keep = source, max_bytes, keep
        self._hashes = PhotoHashes()
        self._memory: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._bytes = 0
        self._view: tuple[SfmMap, str, View] | None = None

    def descriptors(self, scene: SfmMap, image: int, look: Look) -> Float[Tensor, "n C"]:
        """The descriptors of all observations of an image. They are in their order, float32 of what float16 keeps.

        Raises InputError when the photo is needed and cannot be read.
        """

        def make() -> Entry:
            view = self._load(scene, image)
            uv = pixels_in(view, scene, image, scene.uv[scene.observations_of(image)])
            return {"descriptors": look.read(view, uv).detach().cpu().half().contiguous()}

        found = self.entry(descriptor_key(scene, image, look.what, self._hashes), make).get("descriptors")
        seen = scene.observations_of(image)
        if found is None or found.ndim != 2 or len(found) != seen.stop - seen.start:
            raise InputError(
                f"the features kept of {scene.names[image]!r} are not of its points: make the bundle again"
            )
        return found.float()

    def size(self, scene: SfmMap, image: int) -> tuple[int, int]:
        """(width, height) of the photo of an image. Raises InputError when it is needed and cannot be read."""

        def make() -> Entry:
            return {"size": torch.tensor(self._load(scene, image).size)}

        found = self.entry(descriptor_key(scene, image, "size", self._hashes), make).get("size", torch.zeros(0))
        sides = [int(side) for side in found.flatten().tolist()]
        if len(sides) != 2 or not all(0 < side <= MAX_SIDE for side in sides):
            raise InputError(f"the size kept of {scene.names[image]!r} is none: make the bundle again")
        return sides[0], sides[1]

    def entry(self, key: Key, make: Callable[[], Entry]) -> Entry:
        """The tensors of an entry: kept, from the source, or made now."""
        tag = entry_name(key), key["photo"]
        if tag in self._memory:
            self._memory.move_to_end(tag)
            return self._memory[tag]
        found = None if self.source is None else self.source.find(key)
        self._memory[tag] = found = make() if found is None else found
        if self.keep is not None:
            self.keep(key, found)
        self._bytes += _bytes(found)
        while self._bytes > self.max_bytes and len(self._memory) > 1:
            self._bytes -= _bytes(self._memory.popitem(last=False)[1])
        return found

    def forget_photo(self) -> None:
        """Free the pixels of the photo that was looked at last."""
        self._view = None

    def _load(self, scene: SfmMap, image: int) -> View:
        """The photo of an image; the last one is kept, because it is looked at in several ways."""
        name = scene.names[image]
        last = self._view
        if last is None or last[1] != name or last[0].folder != scene.folder or last[0].views is not scene.views:
            self._view = last = scene, name, load_map_view(scene, image)
        return last[2]


def descriptor_key(scene: SfmMap, image: int, what: str, hashes: PhotoHashes) -> dict[str, str]:
    """The key of the descriptors of a photo. They are of what is seen in a photo of a map at its observations."""
    camera = scene.cameras[image]
    digest = hashlib.sha256(camera.model.encode())
    for tensor in (camera.size, camera.f, camera.c, camera.distortion, scene.uv[scene.observations_of(image)]):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {"look": what, "name": scene.names[image], "map": digest.hexdigest(), "photo": hashes.of(scene, image)}


def require_channels(descriptors: Float[Tensor, "n C"], dense: DenseMap) -> None:
    """Refuse descriptors of other networks. Raises InputError for those, which a damaged bundle may hold."""
    if descriptors.shape[1] != len(dense.descriptors):
        raise InputError(
            f"the features kept of the map have {descriptors.shape[1]} channels, those of the photo "
            f"{len(dense.descriptors)}: make the bundle again"
        )


def _bytes(entry: Entry) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
