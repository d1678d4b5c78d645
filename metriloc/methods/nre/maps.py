"""Correspondence maps, loss maps and the neural reprojection error (NRE), paper Sec. 3, Eqs. (1)-(7) and (11).

    camera = map_camera(camera_px, (w, h), stride, origin)     the camera whose pixels are cells of a feature map
    h = descriptors_at(features, cells, normalize=True)        [N, C] descriptors of map points seen in a reference
    maps = gain_maps(h, features, temperature)                 coarse: one map over all cells a point
    maps = window_gain_maps(h, features, centers, window, T)   fine: only a window around each predicted position
    maps.informative(), maps[index], maps.one_hot(), maps.support(gain)

and then (other modules; every result carries ``reason``, None on success)

    evidence.gain_at(maps, uv, inside)                                    nats, 0 = no better than "seen nowhere"
    evidence.score_poses(maps, xyz, camera, poses)                        Eq. (6): the NRE of poses (lower is better)
    found = initialize.initialize(maps, xyz, camera, generator)           .poses [K], best first; .costs
    refined = refine.refine(maps, xyz, camera, found.poses)               .pose, .cost, .gain [N], .steps
    fine = windows.refine_in_windows(h, features, xyz, camera, pose, T)   .refinement, .index, .maps

All positions are cells of the map the features belong to, (x, y), first cell centre (0, 0). A ``GainMaps`` stores
``ln(|Omega| C(q))``: by how many nats cell q explains the point better than the outlier model. Below 0 the outlier
explains it better, so the loss map of Eq. (7) is ``ln|Omega| - max(., 0)``; cells that are not stored have gain 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Camera

MIN_PEAK = math.log(2)
"""A map whose best cell is not at least twice as likely as the mean of its cells says nothing: it is flat."""
_CHUNK = 1 << 20  # numbers a temporary of a chunk may hold: stays in the cache
_IMPOSSIBLE = -1e4  # stands for the logarithm of 0, where 0 times it must be 0


@dataclass(frozen=True, eq=False)
class GainMaps:
    """The loss maps of N points.

    They are over a whole feature map (coarse) or in windows of it (fine). log_ratio: ``ln(|Omega|
    C)`` of the stored cells, float32. origin: (x, y) of the first stored cell in the feature map.
    size: (w, h) of the feature map. peak_uv: the most probable cell (the first of equals), in the
    feature map; peak: its log ratio. entropy: of the correspondence map, nats. mass: probability in
    the stored cells (1 over a whole map).
    """

    log_ratio: Float[Tensor, "N rows columns"]
    origin: Int[Tensor, "N 2"]
    size: tuple[int, int]
    peak_uv: Int[Tensor, "N 2"]
    peak: Float[Tensor, " N"]
    entropy: Float[Tensor, " N"]
    mass: Float[Tensor, " N"]

    def __len__(self) -> int:
        return self.log_ratio.shape[0]

    def __getitem__(self, index: Tensor) -> GainMaps:
        """The maps of some of the points (a tensor of indices or a mask)."""
        return self._each(lambda value: value[index])

    def to(self, device: torch.device | str) -> GainMaps:
        """The maps on another device."""
        return self._each(lambda value: value.to(device))

    def _each(self, change: Any) -> GainMaps:
        names = ("log_ratio", "origin", "peak_uv", "peak", "entropy", "mass")
        return replace(self, **{name: change(getattr(self, name)) for name in names})

    @cached_property
    def gain(self) -> Float[Tensor, "N rows columns"]:
        """``max(log_ratio, 0)``: truncated cell by cell. Kept, as scoring reads it many times."""
        return self.log_ratio.clamp(min=0)

    @property
    def max_gain(self) -> float:
        """The loss of an outlier, and the gain of a certain cell.

        It is ``ln|Omega|``. |Omega| counts the cells and *out*.
        """
        return log_cardinality(self.size)

    def informative(self, min_peak: float = MIN_PEAK) -> Bool[Tensor, " N"]:
        """Which maps tell one place from another.

        Finite, the peak ``min_peak`` nats above the mean of the stored cells.
        """
        mean = self.mass.log() + self.max_gain - math.log(max(1, self.log_ratio[:1].numel()))
        return (self.mass > 0) & (self.peak - mean >= min_peak)

    def support(self, gain: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Gains as a share of what a perfect map would give.

        0..1; such a map is certain and right.
        """
        return gain / self.max_gain

    def one_hot(self) -> GainMaps:
        """All probability on the best cell.

        NRE becomes a robust reprojection error, paper Eq. (11) (``use_re``). Entropies and peaks
        stay those of the original maps, so that the ranking of the points does not become
        arbitrary.
        """
        n, h, w = self.log_ratio.shape
        x, y = (self.peak_uv - self.origin).unbind(-1)
        flat = torch.full((n, h * w), -torch.inf, dtype=self.log_ratio.dtype, device=self.log_ratio.device)
        known = torch.where(self.mass > 0, self.max_gain, -torch.inf).to(flat)
        flat.scatter_(1, (y * w + x)[:, None], known[:, None])
        return replace(self, log_ratio=flat.reshape(n, h, w))


def log_cardinality(size: tuple[int, int]) -> float:
    """``ln|Omega|`` of a map of (w, h) cells, with the category *out*; the truncation value of paper Eq. (5)."""
    return math.log(size[0] * size[1] + 1)


def map_camera(
    camera: Camera, size: tuple[int, int], stride: float | tuple[float, float], origin: tuple[float, float] = (0.0, 0.0)
) -> Camera:
    """The camera whose pixels are the cells of a feature map.

    - camera: of the photo; the result is in float64, so that poses are refined in it.
    - size, stride: (w, h) cells; ``cell = (pixel - origin) / stride``.
    - origin: pixel of the first cell's centre; (0, 0) for the NRE networks, (stride - 1) / 2 for cells that tile the image.
    """
    if min(stride if isinstance(stride, tuple) else (stride,)) <= 0 or min(size) < 1:
        raise ValueError(f"a map needs a positive stride and at least one cell, got stride {stride} and size {size}")
    camera = camera.to(torch.float64)
    s = camera.f.new_tensor(stride if isinstance(stride, tuple) else (stride, stride))
    c = (camera.c - camera.c.new_tensor(origin)) / s
    return replace(camera, size=camera.size.new_tensor(size).expand(camera.f.shape), f=camera.f / s, c=c)


# -- correspondence maps ----------------------------------------------------------------------------------------------
def log_correspondence(
    descriptors: Float[Tensor, "N C"], features: Float[Tensor, "C h w"], temperature: float = 1.0
) -> Float[Tensor, "N h w"]:
    """``ln C_n``.

    Log-softmax over all cells of descriptor times features, the inlier part of paper Eq. (2).
    Differs from the paper: a temperature, for features that were not trained with this loss.
    Differentiable, dense: for training and pictures; ``gain_maps`` does the same in chunks.
    """
    if descriptors.ndim != 2 or features.ndim != 3 or descriptors.shape[1] != features.shape[0]:
        raise ValueError(
            f"descriptors [N, C] and features [C, h, w] do not fit: {list(descriptors.shape)}, {list(features.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    logits = (descriptors / temperature) @ features.flatten(1)
    return logits.log_softmax(-1).unflatten(-1, features.shape[1:])


@torch.no_grad()
def gain_maps(
    descriptors: Float[Tensor, "N C"], features: Float[Tensor, "C h w"], temperature: float = 1.0
) -> GainMaps:
    """Loss maps over the whole feature map, paper Eq. (7), in chunks of points: no temporary of their size.

    - descriptors, features: of the points [N, C]; of the photo [C, h, w]. Where one is not finite there is no gain.
    - temperature: of the softmax.
    """
    n, (h, w) = len(descriptors), features.shape[1:]
    log_ratio = torch.empty(n, h, w, dtype=torch.float32, device=features.device)
    parts = []
    step = max(1, _CHUNK // (h * w))
    for start in range(0, n, step):
        log_c = log_correspondence(descriptors[start : start + step], features, temperature)
        maps = from_log_probability(log_c.float())
        log_ratio[start : start + step] = maps.log_ratio
        parts.append((maps.peak_uv, maps.peak, maps.entropy, maps.mass))
    if not parts:
        return from_log_probability(log_ratio)
    peak_uv, peak, entropy, mass = (torch.cat(column) for column in zip(*parts, strict=True))
    return GainMaps(log_ratio, torch.zeros_like(peak_uv), (w, h), peak_uv, peak, entropy, mass)


@torch.no_grad()
def from_log_probability(
    log_c: Float[Tensor, "N rows columns"],
    origin: Int[Tensor, "N 2"] | None = None,
    size: tuple[int, int] | None = None,
) -> GainMaps:
    """Maps from ``ln C`` of all cells, or of windows at ``origin`` of a feature map of ``size``; ``log_c`` is not kept."""
    if log_c.ndim != 3 or (origin is not None and origin.shape != (len(log_c), 2)):
        raise ValueError(
            f"log_c must have shape [N, rows, columns] and origin [N, 2], got {list(log_c.shape)}"
            + ("" if origin is None else f" and {list(origin.shape)}")
        )
    n, h, w = log_c.shape
    size = size or (w, h)
    origin = torch.zeros(n, 2, dtype=torch.long, device=log_c.device) if origin is None else origin
    log_c = torch.nan_to_num(log_c, nan=_IMPOSSIBLE, neginf=_IMPOSSIBLE)
    flat = log_c.flatten(1)
    if n == 0:
        return GainMaps(log_c, origin, size, origin.clone(), *(flat.sum(1) for _ in range(3)))
    best, index = flat.max(-1)
    peak_uv = torch.stack([index % w, torch.div(index, w, rounding_mode="floor")], -1) + origin
    probability = flat.exp()
    entropy = -torch.linalg.vecdot(probability, flat)
    constant = log_cardinality(size)
    return GainMaps(log_c.add_(constant), origin, size, peak_uv, best + constant, entropy, probability.sum(-1))


# -- windows ----------------------------------------------------------------------------------------------------------
@torch.no_grad()
def window_gain_maps(
    descriptors: Float[Tensor, "N C"],
    features: Float[Tensor, "C h w"],
    centers: Float[Tensor, "N 2"],
    window: int = 16,
    temperature: float = 1.0,
    log_mass: Float[Tensor, " N"] | None = None,
) -> GainMaps:
    """Loss maps of cells around predicted positions. The fine stage: memory O(points x window), softmax in the window.

    - descriptors, features, temperature, window: as in ``gain_maps``; (window + 1)^2 cells a point.
    - centers: rounded to cells; at the border of the map the window is moved inside it, so cells that do not exist take no
      part in the softmax. The caller leaves out points predicted outside.
    - log_mass: logarithm of the probability that the point is in the window at all (0 by default), which the map is times.
    """
    n, (channels, h, w) = len(descriptors), features.shape
    if centers.shape != (n, 2) or descriptors.shape != (n, channels):
        raise ValueError(
            f"descriptors [N, C], features [C, h, w] and centers [N, 2] do not fit: "
            f"{list(descriptors.shape)}, {list(features.shape)}, {list(centers.shape)}"
        )
    if window < 1 or not temperature > 0:
        raise ValueError(f"window must be at least 1 and temperature positive, got {window} and {temperature}")
    columns, rows = min(window + 1, w), min(window + 1, h)
    last = centers.new_tensor([w - columns, h - rows])
    half = centers.new_tensor([columns // 2, rows // 2])
    origin = (torch.nan_to_num(centers).round() - half).clamp(min=0).minimum(last).long()
    logits = _window_products(descriptors / temperature, features, origin, (rows, columns))
    log_c = logits.float().log_softmax(-1).unflatten(-1, (rows, columns))
    if log_mass is not None:
        log_c = log_c + log_mass.to(log_c)[:, None, None]
    return from_log_probability(log_c, origin, (w, h))


def _window_products(
    descriptors: Tensor, features: Tensor, origin: Tensor, shape: tuple[int, int]
) -> Float[Tensor, "N cells"]:
    """Descriptors times the features of their windows. One window after the other, in the order of the map, so that
    neighbours find each other's cells in the cache: eight times as fast as one gather of all windows."""
    rows, columns = shape
    out = descriptors.new_empty(len(descriptors), rows * columns)
    channels_last = features.stride(0) == 1
    order = (origin[:, 1] * features.shape[2] + origin[:, 0]).argsort()
    for n, (x, y) in zip(order.tolist(), origin[order].tolist(), strict=True):
        window = features[:, y : y + rows, x : x + columns]
        if channels_last:
            out[n] = window.permute(1, 2, 0).reshape(rows * columns, -1) @ descriptors[n]
        else:
            out[n] = descriptors[n] @ window.reshape(len(window), -1)
    return out


def blocks(
    maps: GainMaps, center: Int[Tensor, "*b N 2"], radius: int
) -> tuple[Float[Tensor, "*b N rows columns"], Int[Tensor, "*b N 2"]]:
    """The (2 radius + 1)^2 log ratios around a cell of each point, and (x, y) of the first of them in the feature map.

    At the border of what is stored a block is moved inside, so it holds every stored cell within the radius, and none
    that is not stored; it is smaller where the maps are. Far centers are fine.
    """
    h, w = maps.log_ratio.shape[1:]
    rows, columns = min(2 * radius + 1, h), min(2 * radius + 1, w)
    last = torch.tensor([w - columns, h - rows], device=center.device)
    local = (center - radius - maps.origin).clamp(min=0).minimum(last)
    x, y = local.unbind(-1)
    point = torch.arange(len(maps), device=center.device).expand(x.shape)
    view = maps.log_ratio.unfold(1, rows, 1).unfold(2, columns, 1)
    return view[point, y, x], local + maps.origin


# -- the error of positions and poses ---------------------------------------------------------------------------------
def reprojection_pmf(
    uv: Float[Tensor, "*b 2"], size: tuple[int, int]
) -> tuple[Int[Tensor, "*b 4 2"], Float[Tensor, "*b 4"], Bool[Tensor, "*b"]]:
    """``q_r``: the four cells (x, y) around a position, their bilinear weights, and whether it is inside the map, Eq. (3).

    Outside (also NaN) all mass is on *out*: the weights are 0 and the cells arbitrary, but in the map.
    """
    limit = uv.new_tensor([size[0] - 1, size[1] - 1])
    inside = ((uv >= 0) & (uv <= limit)).all(-1)
    uv = torch.where(inside[..., None], uv, torch.zeros_like(uv))
    low = uv.detach().floor().minimum((limit - 1).clamp(min=0))
    ax, ay = (uv - low).unbind(-1)
    x0, y0 = low.long().unbind(-1)
    x1, y1 = (x0 + 1).clamp(max=size[0] - 1), (y0 + 1).clamp(max=size[1] - 1)
    cells = torch.stack([torch.stack([x, y], -1) for y in (y0, y1) for x in (x0, x1)], -2)
    weights = torch.stack([(1 - ax) * (1 - ay), ax * (1 - ay), (1 - ax) * ay, ax * ay], -1)
    return cells, weights * inside[..., None], inside
