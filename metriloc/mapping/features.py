"""Keypoints of the photos of a map: one file a photo, named by what made it, so that none is ever stale."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Camera
from metriloc.io.changed_views import resize_view
from metriloc.io.files import InputError, write_atomically
from metriloc.io.images import read_image
from metriloc.io.view import pixels_of
from metriloc.mapping.child import NativeJob, run_native
from metriloc.mapping.config import MapConfig
from metriloc.mapping.photos import MapPhoto
from metriloc.methods.matching.matchers import Matcher
from metriloc.types import View

Progress = Callable[[int, int], None]
_SIFT_VERSION = "1"


@dataclass(frozen=True)
class FeatureStore:
    """Where the keypoints of photos are kept. identity: of what finds them; equal only for equal numbers."""

    folder: Path
    identity: str

    def key(self, photo: MapPhoto) -> str:
        """Names the keypoints of a photo."""
        return hashlib.sha256(f"{photo.digest} {photo.orientation} {self.identity}".encode()).hexdigest()[:32]

    def file(self, photo: MapPhoto) -> Path:
        """Where they are."""
        return self.folder / f"{self.key(photo)}.safetensors"

    def save(self, photo: MapPhoto, found: LocalFeatures) -> None:
        """Keep the keypoints of a photo, whole or not at all."""
        from safetensors.torch import save

        tensors = {"uv": found.uv.float(), "descriptors": found.descriptors.half(), "scores": found.scores.float()}
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        write_atomically(self.file(photo), data)

    def load(self, photo: MapPhoto) -> LocalFeatures | None:
        """The keypoints in pixels of the upright photo.

        None where they are not here, or the file is not whole.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(self.file(photo))
            uv, descriptors, scores = tensors["uv"], tensors["descriptors"].float(), tensors["scores"]
        except (SafetensorError, OSError, KeyError):
            return None
        if uv.shape != (len(scores), 2) or len(descriptors) != len(scores):
            return None
        return LocalFeatures(uv, descriptors, scores)

    def keep_only(self, photos: Sequence[MapPhoto]) -> None:
        """Forget what belongs to no photo any more."""
        wanted = {self.file(photo).name for photo in photos}
        for file in self.folder.glob("*.safetensors"):
            if file.name not in wanted:
                file.unlink(missing_ok=True)


class Finder(Protocol):
    """What finds keypoints of photos and keeps them. Returns one sentence for each photo that could not be used."""

    def __call__(self, photos: Sequence[MapPhoto], store: FeatureStore, progress: Progress | None) -> list[str]: ...


def find_features(
    photos: Sequence[MapPhoto], store: FeatureStore, finder: Finder, progress: Progress | None = None
) -> tuple[list[MapPhoto], list[str]]:
    """The photos that have keypoints, found now or before, and one sentence for each of the others."""
    missing = [photo for photo in photos if store.load(photo) is None]
    done = len(photos) - len(missing)

    def told(number: int, _: int) -> None:
        if progress is not None:
            progress(done + number, len(photos))

    told(0, 0)
    messages = finder(missing, store, told) if missing else []
    usable = []
    for photo in photos:
        found = store.load(photo)
        if found is not None and not len(found):
            messages.append(
                f"'{photo.path}' shows nothing that could be found again, such as one plain color (left out)"
            )
        elif found is not None:
            usable.append(photo)
    return usable, messages


def matcher_finder(matcher: Matcher, config: MapConfig) -> Finder:
    """The keypoints of a matcher, on its device, photo after photo."""

    def find(photos: Sequence[MapPhoto], store: FeatureStore, progress: Progress | None) -> list[str]:
        messages = []
        for done, photo in enumerate(photos, 1):
            try:
                view = upright_view(photo)
            except InputError as error:
                messages.append(f"{error} (left out)")
                continue
            store.save(photo, _limited(_extracted(matcher, view, config.longest_side), config.max_features))
            if progress is not None:
                progress(done, len(photos))
        return messages

    return find


def upright_view(photo: MapPhoto) -> View:
    """The pixels of a photo as it is to be held, with a camera of its size; only the size of that camera counts."""
    loaded = read_image(photo.path)
    image = pixels_of(loaded.rgb)
    return View(image, Camera.from_fov(loaded.size, 1.0), name=str(photo.path))


def _extracted(matcher: Matcher, view: View, longest_side: int) -> LocalFeatures:
    """Keypoints in pixels of the view, looked for in a smaller copy where it is larger than that."""
    longest = max(view.size)
    if longest <= longest_side:
        return matcher.extract(view)
    size = (max(1, round(view.size[0] * longest_side / longest)), max(1, round(view.size[1] * longest_side / longest)))
    found = matcher.extract(resize_view(view, size, antialias=True))
    scale = torch.tensor([view.size[0] / size[0], view.size[1] / size[1]]).to(found.uv)
    return replace(found, uv=(found.uv + 0.5) * scale - 0.5)


def _limited(found: LocalFeatures, count: int) -> LocalFeatures:
    best = found.scores.argsort(descending=True, stable=True)[:count]
    return LocalFeatures(found.uv[best], found.descriptors[best], found.scores[best])


def sift_identity(config: MapConfig) -> str:
    """Of COLMAP's SIFT with these settings."""
    return f"colmap-sift-{_SIFT_VERSION}-{config.max_features}-{config.longest_side}"


def sift_finder(config: MapConfig) -> Finder:
    """COLMAP's SIFT, in a process of its own.

    The scores are sizes, so that the largest count as the best.
    """

    def find(photos: Sequence[MapPhoto], store: FeatureStore, progress: Progress | None) -> list[str]:
        entries = [{"photo": str(photo.path), "out": str(store.file(photo))} for photo in photos]
        settings = {
            "max_features": config.max_features,
            "longest_side": config.longest_side,
            "threads": config.threads,
        }
        answer = run_native(NativeJob("sift", {"photos": entries, **settings}), progress)
        return [f"{sentence} (left out)" for sentence in answer["messages"]]

    return find
