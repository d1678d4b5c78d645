"""Reference features: what the map's images show at the map's points, computed once and kept.

An observation is a row of raw features at every level, where the point lands in the image. The store keeps them in
memory and, given a folder, on disk: one memory-mapped file an image and image scale, written whole or not at all, and
computed anew when weights, preprocessing, the photo, its pose or its points change.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Camera, sample
from metriloc.io.files import InputError, prepare_output_folder, write_atomically
from metriloc.io.maps import load_map_view
from metriloc.io.reference_features import PhotoHashes, ReferenceFeatures, same_photo
from metriloc.methods.pixloc.cost import CostConfig
from metriloc.methods.pixloc.extractor import Extraction, FeatureExtractor
from metriloc.types import SfmMap

_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Observations:
    """Features of one image at all its points, or of several images together. point_index: in the map, increasing for
    one image. features, confidences: one a level, finest first, not normalised; valid: at each level."""

    point_index: Int[Tensor, " n"]
    features: tuple[Float[Tensor, "n C"], ...]
    confidences: tuple[Float[Tensor, " n"], ...] | None
    valid: Bool[Tensor, "n L"]

    def __len__(self) -> int:
        return len(self.point_index)


def observe(
    extraction: Extraction, scene: SfmMap, image: int, cost: CostConfig, camera: Camera | None = None
) -> Observations:
    """Look up the maps of a reference image where the map's points land in it by its own pose.

    camera: of the photo that the maps were made of, where that is not of the size that the map has it in.
    """
    points = scene.point_index[scene.observations_of(image)].unique()
    camera = camera or scene.cameras[image]
    xyz = scene.cam_from_world[image].transform(scene.xyz[points])
    maps, confidence_maps = extraction.pyramid.features, extraction.pyramid.confidences
    features, confidences, valid = [], [], []
    for level, scale in enumerate(extraction.scales):
        uv, visible = camera.scale(scale).project(xyz, cost.validity)
        found = sample(maps[level], uv[None].to(maps[level]), cost.mode, cost.pad)
        features.append(found.values[0].cpu())
        valid.append(found.valid[0].cpu() & visible)
        if confidence_maps is not None:
            trust = sample(confidence_maps[level], uv[None].to(maps[level]), cost.mode, cost.pad)
            confidences.append(trust.values[0, :, 0].cpu())
    return Observations(
        points, tuple(features), tuple(confidences) if confidence_maps is not None else None, torch.stack(valid, -1)
    )


def combine(
    parts: Sequence[tuple[Observations, Int[Tensor, " m"]]], levels: Sequence[int], average: bool
) -> Observations:
    """Observations of several images -> residuals.

    Of each image those of the points beside it, valid at every level. average: one residual a
    point, features averaged by confidence and confidences averaged; else one an observation. The
    result holds the chosen levels only.
    """
    rows = []
    for part, points in parts:
        chosen = torch.isin(part.point_index, points) & part.valid[:, list(levels)].all(-1)
        rows.append(chosen.nonzero().squeeze(-1))
    index = _cat([part.point_index[r] for (part, _), r in zip(parts, rows, strict=True)], torch.long)
    with_confidence = all(part.confidences is not None for part, _ in parts) and bool(parts)
    features = [_cat([p.features[k][r].float() for (p, _), r in zip(parts, rows, strict=True)]) for k in levels]
    confidences = [
        _cat([p.confidences[k][r].float() for (p, _), r in zip(parts, rows, strict=True) if p.confidences is not None])
        for k in levels
        if with_confidence
    ]
    if average and len(index):
        index, inverse = torch.unique(index, return_inverse=True)
        features, confidences = _averaged(features, confidences, inverse, len(index))
    valid = torch.ones(len(index), len(levels), dtype=torch.bool)
    return Observations(index, tuple(features), tuple(confidences) if with_confidence else None, valid)


def _averaged(
    features: list[Tensor], confidences: list[Tensor], inverse: Tensor, count: int
) -> tuple[list[Tensor], list[Tensor]]:
    number = torch.bincount(inverse, minlength=count).float()
    means, trusts = [], []
    for level, values in enumerate(features):
        weight = confidences[level] if confidences else torch.ones(len(values))
        total = torch.zeros(count).index_add(0, inverse, weight)
        # confidences that are all zero say nothing about which observation is better
        weight = torch.where(total[inverse] > 0, weight, torch.ones_like(weight))
        divisor = torch.where(total > 0, total, number)
        sums = torch.zeros(count, values.shape[1]).index_add(0, inverse, values * weight[:, None])
        means.append(sums / divisor[:, None])
        if confidences:
            trusts.append(total / number)
    return means, trusts


def by_point(seen: Observations) -> tuple[Int[Tensor, " N"], Int[Tensor, "N K"]]:
    """Observations gathered by point.

    The points, and for each the rows of its observations, -1 where it has no more.
    """
    points, inverse, counts = torch.unique(seen.point_index, return_inverse=True, return_counts=True)
    order = torch.argsort(inverse, stable=True)
    first = counts.cumsum(0) - counts
    slot = torch.arange(len(order)) - first[inverse[order]]
    rows = torch.full((len(points), int(counts.max()) if len(points) else 1), -1)
    rows[inverse[order], slot] = order
    return points, rows


def _cat(parts: list[Tensor], dtype: torch.dtype | None = None) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=dtype)


class ReferenceStore:
    """Observations of a map's images, computed on first use.

    folder: where to keep them on disk, None for memory only. half: store features in float16: half the size, and a
    relative error below 5e-4 a number. max_images: image scales kept in memory, the least recently used go first. kept:
    shared by the localizers of a bundle; in place of memory and folder.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        cost: CostConfig | None = None,
        folder: str | os.PathLike[str] | None = None,
        half: bool = False,
        max_images: int = 256,
        kept: ReferenceFeatures | None = None,
    ) -> None:
        self.extractor, self.cost, self.half = extractor, cost or CostConfig(), half
        self.folder = None if folder is None else prepare_output_folder(folder)
        self.max_images = max_images
        self._memory: OrderedDict[tuple[str, ...], Observations] = OrderedDict()
        self.kept, self._hashes = kept, PhotoHashes()

    def get(self, scene: SfmMap, image: int, image_scale: int) -> Observations:
        """Observations of one image of the map.

        - scene, image: the map, and which of its images.
        - image_scale: how many times smaller the photo is looked at.

        The photo is needed only when they are not kept yet; with a photo at hand, they are used only if it is the one they were
        made from. Raises InputError when the photo is needed and cannot be read or is too small. When the folder can no longer
        be written, that is a warning, and features stay in memory.
        """
        key = self._key(scene, image, image_scale)
        if self.kept is not None:
            entry = self.kept.entry(key, lambda: tensors_of_observations(self._compute(scene, image, image_scale)))
            return _checked(entry, scene, image)
        tag = tuple(key.values())
        if tag in self._memory:
            self._memory.move_to_end(tag)
            return self._memory[tag]
        found = self._read(scene, image, image_scale, key)
        if found is None:
            found = self._compute(scene, image, image_scale)
            try:
                self._write(scene, image, image_scale, key, found)
            except InputError as error:
                warnings.warn(f"{error}; reference features are kept in memory only from here on", stacklevel=2)
                self.folder = None
        self._memory[tag] = found
        while len(self._memory) > self.max_images:
            self._memory.popitem(last=False)
        return found

    def build(self, scene: SfmMap, image_scales: Sequence[int], images: Sequence[int] | None = None) -> list[str]:
        """Compute whatever is missing, all images by default.

        - scene: the map.
        - image_scales: how many times smaller photos are looked at.
        - images: which.

        Returns one sentence for every photo that failed.
        """
        problems = []
        for image in range(len(scene)) if images is None else images:
            for image_scale in image_scales:
                try:
                    self.get(scene, image, image_scale)
                except InputError as error:
                    problems.append(str(error))
                    break
        return problems

    def _compute(self, scene: SfmMap, image: int, image_scale: int) -> Observations:
        view = load_map_view(scene, image)
        found = self.extractor(view, image_scale)
        if found is None:
            raise InputError(f"the reference {scene.names[image]!r} is too small at image scale {image_scale}")
        seen = observe(found, scene, image, self.cost, view.camera)
        if not self.half:
            return seen
        return Observations(seen.point_index, tuple(f.half() for f in seen.features), seen.confidences, seen.valid)

    # -- identity ---------------------------------------------------------------------------------------------------
    def _key(self, scene: SfmMap, image: int, image_scale: int) -> dict[str, str]:
        """Everything that the observations depend on; the photo's hash is empty when it is not at hand."""
        camera, pose = scene.cameras[image], scene.cam_from_world[image]
        points = scene.point_index[scene.observations_of(image)].unique()
        digest = hashlib.sha256(f"{scene.names[image]} {camera.model} {self.cost}".encode())
        for tensor in (camera.size, camera.f, camera.c, camera.distortion, pose.R, pose.t, points, scene.xyz[points]):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return {
            "format": _FORMAT,
            "extractor": self.extractor.identity,
            "image_scale": str(image_scale),
            "precision": "float16" if self.half else "float32",
            "map": digest.hexdigest(),
            "photo": self._hashes.of(scene, image),
        }

    # -- disk -------------------------------------------------------------------------------------------------------
    def _path(self, scene: SfmMap, image: int, image_scale: int) -> Path | None:
        if self.folder is None:
            return None
        name = hashlib.sha256(scene.names[image].encode()).hexdigest()[:24]
        return self.folder / f"{name}-{image_scale}.safetensors"

    def _read(self, scene: SfmMap, image: int, image_scale: int, key: dict[str, str]) -> Observations | None:
        path = self._path(scene, image, image_scale)
        if path is None or not path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                stored = file.metadata() or {}
                equal = all(stored.get(name) == value for name, value in key.items() if name != "photo")
                if not equal or not same_photo(stored.get("photo", ""), key["photo"]):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return observations_of_tensors(tensors)
        except (SafetensorError, OSError, KeyError, IndexError):  # torn by something else: as good as absent
            return None

    def _write(self, scene: SfmMap, image: int, image_scale: int, key: dict[str, str], found: Observations) -> None:
        path = self._path(scene, image, image_scale)
        if path is None:
            return
        from safetensors.torch import save

        write_atomically(path, save(tensors_of_observations(found), metadata=key))


def tensors_of_observations(found: Observations) -> dict[str, Tensor]:
    """By name, as files hold them."""
    tensors = {"point_index": found.point_index, "valid": found.valid}
    tensors |= {f"features.{k}": values for k, values in enumerate(found.features)}
    tensors |= {f"confidence.{k}": values for k, values in enumerate(found.confidences or ())}
    return {name: values.contiguous() for name, values in tensors.items()}


def observations_of_tensors(tensors: Mapping[str, Tensor]) -> Observations:
    """The same back. Raises KeyError and IndexError for tensors that are none."""
    levels = range(tensors["valid"].shape[1])
    confidences = tuple(tensors[f"confidence.{k}"] for k in levels) if "confidence.0" in tensors else None
    return Observations(
        tensors["point_index"], tuple(tensors[f"features.{k}"] for k in levels), confidences, tensors["valid"]
    )


def _checked(tensors: Mapping[str, Tensor], scene: SfmMap, image: int) -> Observations:
    """Observations that are those of an image. Raises InputError for others: bundles come from anywhere."""
    expected = scene.point_index[scene.observations_of(image)].unique()
    try:
        found = observations_of_tensors(tensors)
        columns = (*found.features, *(found.confidences or ()), found.valid)
        fits = torch.equal(found.point_index, expected) and all(len(column) == len(expected) for column in columns)
    except (KeyError, IndexError, TypeError, RuntimeError):
        fits = False
    if not fits:
        raise InputError(f"the features kept of {scene.names[image]!r} are not of its points: make the bundle again")
    return found
