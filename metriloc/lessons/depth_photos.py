"""Photos with depth to train and validate on: rendered scenes beside folders of photos, mixed by shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from metriloc.datasets.augment import Photometric, augment_image
from metriloc.datasets.depth_photos import DepthAugment, DepthPhoto, read_facades, read_rgbd_photos
from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.io import InputError
from metriloc.lessons.depth_validation import DepthValidation, HeldOut
from metriloc.methods.matching import DepthBatch, DepthConfig
from metriloc.training import Validator, generator_of

LANDSCAPE, PORTRAIT, WIDE = (256, 192), (192, 256), (384, 128)


_SHAPES = (LANDSCAPE, LANDSCAPE, PORTRAIT, LANDSCAPE, WIDE)
"""Of the batches, one after the other; dash cameras and trailers are three times as wide as high."""
_STRIDE = 8
_HELD_OUT = {"nyuv2": 80, "facades": 60, "kitti/lidar_places": 6, "kitti/street2": 51}
"""Photos of each set, the last by name, that are never trained on (whole folders of KITTI)."""
_SYNTHETIC = "synthetic"
Shares = Mapping[str, float]
ALL: Shares = {
    "nyuv2": 0.42,
    "facades": 0.2,
    "kitti/street00": 0.1,
    "kitti/lidar_drive": 0.05,
    "kitchen": 0.06,
    "fr1_rpy": 0.05,
    _SYNTHETIC: 0.12,
}


CLEAN: Shares = {"facades": 0.3, "fr1_rpy": 0.1, _SYNTHETIC: 0.6}


@dataclass(frozen=True)
class DepthBatches:
    """Photos of all sets, each drawn by its share. synthetic: folder of rendered scenes, "" for none; scenes: how many.
    clean: only sets whose licence allows any use. side: width of a 4:3 photo of a batch, in multiples of 128 pixels."""

    clean: bool = False
    batch_size: int = 16
    side: int = 256
    synthetic: str = ""
    scenes: int = 300
    seed: int = 0
    augment: DepthAugment = DepthAugment()  # noqa: RUF009 - frozen
    photometric: Photometric = field(default_factory=lambda: Photometric(noise=0.03, blur=1.2, gray=0.15))

    def __post_init__(self) -> None:
        if self.side < 128 or self.side % 128:
            raise ValueError(f"DepthBatches.side must be a multiple of 128 pixels, got {self.side}")

    def __call__(self, data: Path | None) -> MixedPhotos:
        if data is None:
            raise InputError("metric_depth needs --data DIR, a folder with nyuv2, facades, kitti, ...")
        shares = dict(CLEAN if self.clean else ALL)
        sources: dict[str, Callable[[int], DepthPhoto]] = {}
        lengths: dict[str, int] = {}
        for name in shares:
            if name != _SYNTHETIC and (data / name).is_dir():
                photos = training_photos(data, name)
                sources[name], lengths[name] = photos.__getitem__, len(photos)
        if self.synthetic:
            pairs = CachedSyntheticPairs(self.synthetic, self.scenes, 6, SyntheticConfig(sizes=(LANDSCAPE,)))
            sources[_SYNTHETIC] = partial(_rendered, pairs)
            lengths[_SYNTHETIC] = 2 * len(pairs)
        if not sources:
            raise InputError(f"'{data}' holds none of {', '.join(shares)}")
        return MixedPhotos(sources, lengths, {name: shares[name] for name in sources}, self)


@dataclass(frozen=True, eq=False)
class MixedPhotos:
    """Batches of photos drawn set by set (``BatchSource``). All photos of one have one shape."""

    sources: Mapping[str, Callable[[int], DepthPhoto]]
    lengths: Mapping[str, int]
    shares: Shares
    how: DepthBatches

    def batch(self, step: int, part: int = 0, parts: int = 1) -> DepthBatch:
        """See ``BatchSource``; a pure function of its arguments."""
        if self.how.batch_size % parts or not 0 <= part < parts:
            raise ValueError(f"a batch of {self.how.batch_size} cannot be cut into {parts} parts (part {part})")
        size = self.how.batch_size // parts
        width, height = _SHAPES[step % len(_SHAPES)]
        shape = width * self.how.side // LANDSCAPE[0], height * self.how.side // LANDSCAPE[0]
        samples = [self._sample(step, place, shape) for place in range(part * size, (part + 1) * size)]
        images, targets, weak = zip(*samples, strict=True)
        return DepthBatch(torch.stack(images), torch.stack(targets), torch.tensor(weak))

    def _sample(self, step: int, place: int, shape: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, bool]:
        generator = generator_of(self.how.seed, step, place)
        names = list(self.shares)
        weights = torch.tensor([self.shares[name] for name in names])
        name = names[int(torch.multinomial(weights, 1, generator=generator))]
        photo = self.sources[name](int(torch.randint(self.lengths[name], (), generator=generator)))
        canonical = DepthConfig().canonical_focal
        image, target = self.how.augment(photo, shape, canonical, _STRIDE, generator)
        return augment_image(image, self.how.photometric, generator), target, photo.weak


def _rendered(pairs: CachedSyntheticPairs, index: int) -> DepthPhoto:
    pair = pairs[index // 2]
    return DepthPhoto.of_view(pair.view1 if index % 2 else pair.view0)


def training_photos(data: Path, name: str) -> list[DepthPhoto]:
    """A set without what is held out. Raises InputError when nothing else is in it."""
    photos, held_out = _read(data, name), _HELD_OUT.get(name, 0)
    if len(photos) <= held_out:
        raise InputError(f"'{data / name}' holds {len(photos)} photos and the last {held_out} are for validation")
    return photos[: len(photos) - held_out]


def held_out_photos(data: Path) -> dict[str, list[DepthPhoto]]:
    """The photos of each set that neither recipe trains on, as far as the sets are there."""
    return {name: _read(data, name)[-count:] for name, count in _HELD_OUT.items() if (data / name).is_dir()}


def _read(data: Path, name: str) -> list[DepthPhoto]:
    if name == "facades":
        return read_facades(data / name)
    return read_rgbd_photos(data / name, every=2 if name in ("kitchen", "fr1_rpy") else 1)


@dataclass(frozen=True)
class HeldOutPhotos:
    """The photos that are never trained on, seen whole and as crops."""

    def __call__(self, data: Path | None) -> Validator:
        if data is None:
            raise InputError("metric_depth needs --data DIR")
        return DepthValidation(HeldOut(held_out_photos(data)))
