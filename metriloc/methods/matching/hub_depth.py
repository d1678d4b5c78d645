"""Depth in metres from models of the hub: Depth Anything V2 Metric, DepthPro, ZoeDepth, PromptDepthAnything.

Each kind has its own way to bring a photo to the network and metres back; models whose depth is relative are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from metriloc.io import InputError
from metriloc.methods.matching.depth import depth_from_cells
from metriloc.methods.matching.hub_models import PREFIX, HubModel, load_network, load_processor
from metriloc.types import View

FOCAL_SIGMA = 0.2
"""Relative standard deviation of DepthPro's focal lengths: its paper has 65 to 84 % of the photos of five data sets
within 25 %. So they stay guesses."""
PREDICTED, COMPLETED = "predicted depth", "completed depth map"
_DEPTH_PRO_SIDE = 1536
_ZOE_PADDING = 3.0
_PROMPT_SIDE = 256
_LEAST_FOV, _MOST_FOV = 5.0, 170.0  # degrees; beyond is no answer


@dataclass(frozen=True, eq=False)
class Prediction:
    """depth: metres of every pixel of the photo. focal: pixels, where the network tells it."""

    depth: Float[Tensor, "H W"] | None
    focal: float | None = None


Reader = Callable[[Any, Any, View], Prediction]
"""(network, its processor, photo) -> what the network says."""


class HubDepth:
    """A model of the hub as a depth source.

    ``source(view)`` is its depth, ``source.seen(view)`` the photo with it.
    """

    def __init__(self, model: HubModel, *, device: torch.device | str = "cpu") -> None:
        """Raises InputError for a model that predicts no depth in metres, or that cannot be loaded."""
        if model.kind not in _KINDS:
            raise InputError(
                f"{PREFIX}{model.name} is {model.kind!r}, which gives no depth in metres here: one of {', '.join(_KINDS)}"
            )
        if model.kind == "depth_anything" and model.config.get("depth_estimation_type", "relative") != "metric":
            raise InputError(
                f"{PREFIX}{model.name} predicts relative depth, which has no metres: "
                "take one of Depth Anything's Metric models"
            )
        class_name, self._read, own_processor = _KINDS[model.kind]
        self.model = model
        # what is wrong with the processor is known before gigabytes are read
        self.processor = load_processor(model) if own_processor else model
        self.network = load_network(model, class_name).to(device)
        self.name = COMPLETED if model.kind == "prompt_depth_anything" else PREDICTED

    def __call__(self, view: View) -> Float[Tensor, "H W"] | None:
        """Metres along z, 0 where unknown; None where the model needs a coarse depth map that the photo lacks."""
        return self.seen(view).depth

    @torch.no_grad()
    def seen(self, view: View) -> View:
        """The photo with its depth, and, where only a guess is known and the network tells it, with its focal length."""
        told = self._read(self.network, self.processor, view)
        if told.depth is not None:
            known = told.depth.isfinite() & (told.depth > 0)
            told = replace(told, depth=torch.where(known, told.depth, 0.0).cpu())
        if told.focal is None or not view.focal_is_guessed:
            return replace(view, depth=told.depth)
        camera = replace(view.camera, f=torch.full_like(view.camera.f, told.focal))
        source = f"estimated {told.focal:.0f} px from the photo by {PREFIX}{self.model.name}; still a guess"
        return replace(view, camera=camera, depth=told.depth, intrinsics_source=source, focal_sigma=FOCAL_SIGMA)


# -- one reader a kind ------------------------------------------------------------------------------------------------
def read_resized(network: Any, processor: Any, view: View) -> Prediction:
    """Depth Anything: its output covers the photo, in metres by training."""
    values = processor(images=_picture(view), return_tensors="pt")["pixel_values"]
    return Prediction(_spread(network(pixel_values=values.to(network.device)).predicted_depth[0], view.size))


def read_prompted(network: Any, processor: Any, view: View) -> Prediction:
    """PromptDepthAnything: fine depth in the range of the coarse map.

    Without one it knows no metres.
    """
    if view.depth is None or not bool(((view.depth > 0) & view.depth.isfinite()).any()):
        return Prediction(None)
    values = processor(images=_picture(view), return_tensors="pt")["pixel_values"]
    prompt = _prompt(view.depth.float().cpu())
    if float(prompt.max() - prompt.min()) < 1e-3:  # its range would be divided by nothing
        return Prediction(depth_from_cells(prompt, _cell(prompt, view.size), view.size))
    inputs = {"pixel_values": values.to(network.device), "prompt_depth": prompt[None, None].to(network.device)}
    return Prediction(_spread(network(**inputs).predicted_depth[0], view.size))


def read_zoe(network: Any, processor: Any, view: View) -> Prediction:
    """ZoeDepth: its output covers the photo and a border that its processor has put around it."""
    values = processor(images=_picture(view), return_tensors="pt")["pixel_values"]
    depth = network(pixel_values=values.to(network.device)).predicted_depth[0]
    if not getattr(processor, "do_pad", True):
        return Prediction(_spread(depth, view.size))
    width, height = view.size
    x, y = (int(math.sqrt(side / 2) * _ZOE_PADDING) for side in view.size)
    return Prediction(_spread(depth, (width + 2 * x, height + 2 * y))[y : y + height, x : x + width])


def read_depth_pro(network: Any, model: HubModel, view: View) -> Prediction:
    """DepthPro: ``depth = 1 / clamp(raw W / f, 1e-4, 1e4)``, ``f`` the known focal length, else its own by
    ``f = 0.5 W / tan(0.5 fov)``; enlarged before the inversion."""
    told = network(pixel_values=_normalized(model, view).to(network.device))
    own = _focal(told.field_of_view, view.size[0])
    focal = own if own is not None and view.focal_is_guessed else float(view.camera.f[0])
    inverse = _spread(told.predicted_depth[0] * (view.size[0] / focal), view.size)
    return Prediction(1 / inverse.clamp(1e-4, 1e4), own)


def _normalized(model: HubModel, view: View) -> Float[Tensor, "1 3 h w"]:
    """As DepthPro's processor, which needs torchvision: normalized first, then resized without a filter."""
    settings = model.preprocessing()
    mean, std = (_channels(settings, name) for name in ("image_mean", "image_std"))
    width, height = model.input_size(_DEPTH_PRO_SIDE, _DEPTH_PRO_SIDE)
    image = (view.image.float().cpu() - mean) / std
    return F.interpolate(image[None], size=(height, width), mode="bilinear", align_corners=False)


def _channels(settings: Mapping[str, Any], name: str) -> Float[Tensor, "3 1 1"]:
    values = settings.get(name, [0.5, 0.5, 0.5])
    numbers = isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values)
    if not numbers or not all(-10 <= v <= 10 and (v > 0 or name == "image_mean") for v in values):
        raise InputError(f"{name} of a model of the hub must be three numbers, got {values!r}")
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def _focal(field_of_view: Tensor | None, width: int) -> float | None:
    if field_of_view is None:
        return None
    degrees = float(field_of_view.reshape(-1)[0])
    if not _LEAST_FOV <= degrees <= _MOST_FOV:
        return None
    return 0.5 * width / math.tan(0.5 * math.radians(degrees))


_KINDS: Mapping[str, tuple[str, Reader, bool]] = {
    "depth_anything": ("DepthAnythingForDepthEstimation", read_resized, True),
    "depth_pro": ("DepthProForDepthEstimation", read_depth_pro, False),
    "zoedepth": ("ZoeDepthForDepthEstimation", read_zoe, True),
    "prompt_depth_anything": ("PromptDepthAnythingForDepthEstimation", read_prompted, True),
}


# -- pictures and maps ------------------------------------------------------------------------------------------------
def _picture(view: View) -> Image.Image:
    pixels = (view.image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), "RGB")


def _cell(cells: Tensor, size: tuple[int, int]) -> tuple[float, float]:
    return size[0] / cells.shape[1], size[1] / cells.shape[0]


def _spread(cells: Float[Tensor, "h w"], size: tuple[int, int]) -> Float[Tensor, "H W"]:
    """Cells that cover a photo of ``size``, at its pixels."""
    return depth_from_cells(cells.float(), _cell(cells, size), size)


def _prompt(depth: Float[Tensor, "H W"]) -> Float[Tensor, "h w"]:
    """A map as coarse as the network was trained with, its holes closed from their edges; something must be known."""
    known = ((depth > 0) & depth.isfinite()).float()[None, None]
    filled = torch.where(known > 0, depth, 0.0)
    step = -(-max(depth.shape) // _PROMPT_SIDE)
    if step > 1:
        size = (-(-depth.shape[0] // step), -(-depth.shape[1] // step))
        filled, known = (F.adaptive_avg_pool2d(x, size) for x in (filled, known))
        filled, known = filled / known.clamp(min=1e-6), (known > 0).float()
    while bool((known == 0).any()):
        # one ring of pixels at a time takes the mean of its neighbors
        total, count = (F.avg_pool2d(x, 3, 1, 1) for x in (filled * known, known))
        ring = (known == 0) & (count > 0)
        filled = torch.where(ring, total / count.clamp(min=1e-6), filled)
        known = torch.where(ring, 1.0, known)
    return filled[0, 0]
