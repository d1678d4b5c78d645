"""Changes to training pairs that keep intrinsics, depth and pose right.

Photometric: brightness, contrast, saturation, hue-like channel gains, gamma, blur, noise, greyscale. Geometric: a crop
that is scaled back (zoom), a turn about the optical axis (the camera turns with the picture, so the pose changes), the
exchange of reference and query, and the mirror image of the *whole scene* (both photos and the pose). All chance comes
from the generator that is passed in.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.datasets.sources import resample_depth
from metriloc.geometry import Pose, so3_exp
from metriloc.io import crop_view, resize_view
from metriloc.io.changed_views import mirror_pose, mirror_view
from metriloc.types import Pair, View

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Photometric:
    """How far each quantity may go; 0 leaves it alone. Drawn for each photo by itself.

    brightness, contrast, saturation: factors within ``1 +- x``. white_balance: gain of each channel within ``1 +- x``.
    gamma: exponent within ``exp(+-x)``. blur: largest standard deviation in pixels. noise: largest standard deviation
    of Gaussian noise (0..1 scale). grey: probability of a greyscale photo.
    """

    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.3
    white_balance: float = 0.08
    gamma: float = 0.25
    blur: float = 0.8
    noise: float = 0.02
    gray: float = 0.05

    def __post_init__(self) -> None:
        for name, high in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("white_balance", 1), ("gray", 1)):
            if not 0 <= getattr(self, name) <= high:
                raise ValueError(f"Photometric.{name} must be between 0 and {high}, got {getattr(self, name)}")
        for name in ("gamma", "blur", "noise"):
            if not 0 <= getattr(self, name) < 10:
                raise ValueError(f"Photometric.{name} must be between 0 and 10, got {getattr(self, name)}")


AS_THEY_ARE = Photometric(0, 0, 0, 0, 0, 0, 0, 0)
"""No change."""


@dataclass(frozen=True)
class Geometric:
    """Changes of a pair's geometry.

    zoom: a crop keeps at least this share of each side before it is scaled back (1: none).
    turn_deg: largest turn about the optical axis, degrees, each photo by itself. swap, mirror:
    probabilities.
    """

    zoom: float = 0.8
    turn_deg: float = 10.0
    swap: float = 0.5
    mirror: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.zoom <= 1:
            raise ValueError(f"Geometric.zoom must be above 0 and at most 1, got {self.zoom}")
        if not 0 <= self.turn_deg <= 180:
            raise ValueError(f"Geometric.turn_deg must be between 0 and 180, got {self.turn_deg}")
        if not (0 <= self.swap <= 1 and 0 <= self.mirror <= 1):
            raise ValueError(f"Geometric.swap and mirror are probabilities, got {self.swap} and {self.mirror}")


@dataclass(frozen=True)
class Augment:
    """Both kinds in one; what ``PairDataset(augment=...)`` takes. None leaves a kind out."""

    photometric: Photometric | None = Photometric()
    geometric: Geometric | None = Geometric()

    def __call__(self, pair: Pair, generator: torch.Generator) -> Pair:
        """The changed pair; the one that came in is not written to."""
        if self.geometric is not None:
            pair = augment_geometry(pair, self.geometric, generator)
        if self.photometric is not None:
            views = [augment_colors(view, self.photometric, generator) for view in (pair.view0, pair.view1)]
            pair = Pair(views[0], views[1], pair.cam1_from_cam0)
        return pair


# -- colours ----------------------------------------------------------------------------------------------------------
def augment_colors(view: View, how: Photometric, generator: torch.Generator) -> View:
    """The photo in another light and from another sensor. Values stay in 0..1."""
    return dataclasses.replace(view, image=augment_image(view.image, how, generator))


def augment_image(
    image: Float[Tensor, "3 H W"], how: Photometric, generator: torch.Generator
) -> Float[Tensor, "3 H W"]:
    """``augment_colors`` of an image."""

    def around(reach: float) -> float:
        return reach * float(2 * torch.rand((), generator=generator) - 1)

    gains = torch.tensor([1 + around(how.white_balance) for _ in range(3)]).to(image)
    image = image * gains[:, None, None] * (1 + around(how.brightness))
    mean = image.mean()
    image = (image - mean) * (1 + around(how.contrast)) + mean
    luma = _luma(image)
    gray = float(torch.rand((), generator=generator)) < how.gray
    image = luma + (image - luma) * (0.0 if gray else 1 + around(how.saturation))
    image = image.clamp(0, 1).pow(math.exp(around(how.gamma)))
    image = gaussian_blur(image, how.blur * float(torch.rand((), generator=generator)))
    sigma = how.noise * float(torch.rand((), generator=generator))
    noise = torch.randn(image.shape, generator=generator).to(image)
    return (image + sigma * noise).clamp(0, 1)


def _luma(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
    return torch.einsum("c,chw->hw", image.new_tensor(LUMA), image)


def grayscale(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
    """The same brightness (Rec. 601) in all three channels."""
    return _luma(image).expand(3, -1, -1).clone()


def gaussian_blur(image: Float[Tensor, "c H W"], sigma: float) -> Float[Tensor, "c H W"]:
    """Blurred with a Gaussian of ``sigma`` pixels, edges repeated.

    Below 0.05 pixels the image itself.
    """
    if sigma < 0.05:
        return image
    radius = min(math.ceil(3 * sigma), min(image.shape[1:]))
    offsets = torch.arange(-radius, radius + 1).to(image)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (kernel / kernel.sum()).tolist()
    # shifted sums: on a CPU ten and more times as fast as a convolution of single channels
    _, h, w = image.shape
    padded = F.pad(image, (radius, radius, 0, 0), mode="replicate")
    rows = weights[0] * padded[:, :, :w]
    for k, weight in enumerate(weights[1:], 1):
        rows.add_(padded[:, :, k : k + w], alpha=weight)
    padded = F.pad(rows, (0, 0, radius, radius), mode="replicate")
    blurred = weights[0] * padded[:, :h]
    for k, weight in enumerate(weights[1:], 1):
        blurred.add_(padded[:, k : k + h], alpha=weight)
    return blurred


# -- geometry ---------------------------------------------------------------------------------------------------------
def augment_geometry(pair: Pair, how: Geometric, generator: torch.Generator) -> Pair:
    """Turn, zoom, exchange and mirror, by chance."""

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    for which in (0, 1):
        angle = math.radians(how.turn_deg) * (2 * chance() - 1)
        share, x, y = 1 - (1 - how.zoom) * chance(), chance(), chance()
        if how.turn_deg > 0:
            pair = turn_pair(pair, which, angle)
        if how.zoom < 1:
            pair = _replace_view(pair, which, zoom_view((pair.view0, pair.view1)[which], share, (x, y)))
    swap, mirror = chance() < how.swap, chance() < how.mirror
    pair = swap_pair(pair) if swap else pair
    return mirror_pair(pair) if mirror else pair


def zoom_view(view: View, share: float, place: tuple[float, float]) -> View:
    """A window of the photo, scaled back to full size.

    - view: picture, camera and depth follow.
    - share: of both sides.
    - place: (0..1, 0..1) of where the window can be.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of the sides must be above 0 and at most 1, got {share}")
    width, height = view.size
    w, h = max(1, round(width * share)), max(1, round(height * share))
    corner = (round((width - w) * place[0]), round((height - h) * place[1]))
    depth = view.depth
    if depth is not None:
        # the nearest cell, at the resolution the map has
        columns = _window_cells(corner[0], w, width, depth.shape[1])
        rows = _window_cells(corner[1], h, height, depth.shape[0])
        depth = depth[rows][:, columns]
    window = crop_view(dataclasses.replace(view, depth=None), corner, (w, h))
    return dataclasses.replace(resize_view(window, (width, height)), depth=depth)


def _window_cells(first: int, part: int, side: int, cells: int) -> Tensor:
    """Which of ``cells`` along a ``side`` of pixels lies under each of as many cells of the window from ``first`` on."""
    centers = first + (torch.arange(cells) + 0.5) * part / cells
    return (centers * cells / side).long().clamp(max=cells - 1)


def turn_pair(pair: Pair, which: int, angle: float) -> Pair:
    """Turn one camera of a pair about its optical axis.

    - pair: picture, depth and poses follow.
    - which: camera 0 or 1.
    - angle: radians.
    """
    turned_from_cam = _turn(angle)
    relative = pair.cam1_from_cam0
    if relative is not None:
        turn = turned_from_cam.to(relative.device, relative.dtype)
        relative = turn @ relative if which == 1 else relative @ turn.inverse()
    turned = turn_view((pair.view0, pair.view1)[which], angle)
    return dataclasses.replace(_replace_view(pair, which, turned), cam1_from_cam0=relative)


def turn_view(view: View, angle: float) -> View:
    """The photo of the camera turned about its optical axis.

    ``angle``: radians, ``X' = R_z(angle) X``. Intrinsics and depth values (along that axis) stay;
    what comes from outside the photo is black with depth 0.
    """
    width, height = view.size
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).to(view.camera.c)
    turned_from_cam = _turn(angle)
    in_image = turned_from_cam.to(uv.device, uv.dtype)
    rays, possible = view.camera.unproject(uv)
    source, seen = view.camera.project(in_image.inverse().transform(rays))
    inside = (possible & seen).reshape(height, width)
    limit = source.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = (2 * source / limit - 1).reshape(1, height, width, 2).to(view.image)
    image = F.grid_sample(view.image[None], grid, align_corners=True)[0]
    image = torch.where(inside, image, torch.zeros_like(image))
    depth, pose = view.depth, view.cam_from_world
    if depth is not None:
        cells = (depth.shape[1], depth.shape[0])
        depth = resample_depth(depth, view.camera, view.camera, cells, in_image)
    if pose is not None:
        pose = turned_from_cam.to(pose.device, pose.dtype) @ pose
    source_text = f"{view.intrinsics_source}, turned by {math.degrees(angle):.1f} degrees"
    return dataclasses.replace(view, image=image, depth=depth, cam_from_world=pose, intrinsics_source=source_text)


def swap_pair(pair: Pair) -> Pair:
    """Reference and query exchanged."""
    pose = pair.cam1_from_cam0
    return Pair(pair.view1, pair.view0, None if pose is None else pose.inverse())


def mirror_pair(pair: Pair) -> Pair:
    """What two cameras would see in the mirrored scene.

    With ``X' = diag(-1, 1, 1) X`` both photos are flipped left to right, principal points and
    decentring with them, and ``R' = M R M``, ``t' = M t``. Never flip one photo alone.
    """
    return Pair(mirror_view(pair.view0), mirror_view(pair.view1), mirror_pose(pair.cam1_from_cam0))


def _turn(angle: float) -> Pose:
    return Pose(so3_exp(torch.tensor([0.0, 0.0, angle], dtype=torch.float64)), torch.zeros(3, dtype=torch.float64))


def _replace_view(pair: Pair, which: int, view: View) -> Pair:
    return dataclasses.replace(pair, view0=view) if which == 0 else dataclasses.replace(pair, view1=view)
