"""How good a depth network is on photos that it does not learn from, and whether crops of one photo agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from metriloc.datasets.depth_photos import DepthPhoto
from metriloc.geometry import Camera
from metriloc.io import crop_view
from metriloc.methods.matching import DepthNetwork, DepthTraining
from metriloc.methods.matching.depth import DepthSource
from metriloc.training import Picture, Validation
from metriloc.types import View

CROPS = (0.8, 0.6, 0.4)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Photos of several sets by name."""

    sets: Mapping[str, Sequence[DepthPhoto]]


@dataclass(frozen=True)
class PhotoErrors:
    """Of one photo.

    Mean absolute relative error, share of depths within 25 %, and logarithm of the median ratio of
    predicted to true depth.
    """

    abs_rel: float
    within: float
    log_scale: float


def view_of(photo: DepthPhoto) -> View:
    """The photo as a View."""
    h, w = photo.image.shape[-2:]
    K = torch.tensor([[photo.focal, 0, (w - 1) / 2], [0, photo.focal, (h - 1) / 2], [0, 0, 1]])
    return View(photo.image.float() / 255, Camera.from_K(K, (w, h)), depth=photo.depth)


def photo_errors(source: DepthSource, view: View) -> PhotoErrors:
    """Compare where the truth is known."""
    depth, truth = _predicted(source, view), view.depth
    if truth is None:
        raise ValueError(f"{view.name!r} has no depth")
    full = F.interpolate(depth.log()[None, None], truth.shape, mode="bilinear", align_corners=False)[0, 0].exp()
    known = truth > 0
    ratio = (full[known] / truth[known]).double()
    return PhotoErrors(
        float((ratio - 1).abs().mean()),
        float(((ratio < 1.25) & (ratio > 0.8)).double().mean()),
        float(ratio.median().log()),
    )


def crop_drift(source: DepthSource, view: View) -> float:
    """Largest factor by which crops of one photo come out nearer or farther than the whole, at the same places."""
    whole = _predicted(source, view)
    width, height = view.size
    worst = 0.0
    for share in CROPS:
        w, h = round(width * share), round(height * share)
        left, top = (width - w) // 2, (height - h) // 2
        part = _predicted(source, crop_view(View(view.image, view.camera), (left, top), (w, h)))
        ys = ((torch.arange(part.shape[0]) + 0.5) / part.shape[0] * h + top) / height * whole.shape[0]
        xs = ((torch.arange(part.shape[1]) + 0.5) / part.shape[1] * w + left) / width * whole.shape[1]
        same = whole[ys.long().clamp(max=whole.shape[0] - 1)][:, xs.long().clamp(max=whole.shape[1] - 1)]
        worst = max(worst, abs(float((part / same).log().median())))
    return math.exp(worst)


@dataclass(frozen=True, eq=False)
class DepthValidation:
    """A ``Validator``. ``score`` is the mean scale error of the sets, with half the relative error of rooms beside it."""

    data: HeldOut

    def __call__(self, method: nn.Module) -> Validation:
        if not isinstance(method, DepthTraining):
            raise TypeError(f"this validates depth networks, got {type(method).__name__}")
        source, metrics = cells_of(method.network), {}
        pictures = []
        for name, photos in self.data.sets.items():
            found = [photo_errors(source, view_of(photo)) for photo in photos]
            short = name.split("/")[-1]
            metrics[f"{short}_scale"] = float(np.mean([abs(e.log_scale) for e in found]))
            metrics[f"{short}_bias"] = float(np.mean([e.log_scale for e in found]))
            if not photos[0].weak:
                metrics[f"{short}_abs_rel"] = float(np.mean([e.abs_rel for e in found]))
                metrics[f"{short}_within"] = float(np.mean([e.within for e in found]))
            drift = [crop_drift(source, view_of(photo)) for photo in photos[::8]]
            metrics[f"{short}_drift"] = float(np.mean(drift))
            pictures.append(Picture(short, _picture(source, view_of(photos[0]))))
        rooms = metrics.get("nyuv2_abs_rel", 0.0)
        metrics["score"] = float(np.mean([v for k, v in metrics.items() if k.endswith("_scale")])) + 0.5 * rooms
        return Validation(metrics, tuple(pictures))


def cells_of(network: DepthNetwork) -> DepthSource:
    """What a network predicts, a value a cell."""
    return lambda view: network.predict(view)[0]


def _predicted(source: DepthSource, view: View) -> torch.Tensor:
    depth = source(View(view.image, view.camera, name=view.name))
    if depth is None:
        raise ValueError(f"no depth of {view.name!r} is predicted")
    return depth


def _picture(source: DepthSource, view: View) -> np.ndarray:
    depth = _predicted(source, view)
    full = F.interpolate(depth[None, None], view.image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    near = full.min() / full.clamp(min=1e-6)
    joined = torch.cat([view.image, near.expand(3, -1, -1)], -1)
    return (255 * joined).clamp(0, 255).byte().permute(1, 2, 0).numpy()
