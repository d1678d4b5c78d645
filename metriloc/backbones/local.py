"""What local-feature networks have in common: sparse keypoints, dense descriptor maps, and where their cells lie.

A cell of a dense map stands at ``origin + stride * cell`` in pixels of the photo that was given (first pixel centre at
(0, 0)), whatever resizing or padding the network needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MISSING_KORNIA = 'needs kornia >= 0.9 (Python >= 3.11): pip install "metriloc[features]"'


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Keypoints of one photo. uv: pixels of the photo given; descriptors: unit length; scores: larger is surer."""

    uv: Float[Tensor, "N 2"]
    descriptors: Float[Tensor, "N C"]
    scores: Float[Tensor, " N"]

    def __len__(self) -> int:
        return self.uv.shape[0]


@dataclass(frozen=True, eq=False)
class DenseMap:
    """A descriptor for every cell of one photo. stride and origin: (x, y) pixels. unit: descriptors have unit length."""

    descriptors: Float[Tensor, "C h w"]
    stride: tuple[float, float]
    origin: tuple[float, float]
    unit: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(w, h) in cells."""
        return self.descriptors.shape[2], self.descriptors.shape[1]

    def to_cells(self, uv: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Pixels of the photo as cells of the map. A cell's centre is at integers."""
        return (uv - uv.new_tensor(self.origin)) / uv.new_tensor(self.stride)

    def to_pixels(self, cell: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Cells of the map -> pixels of the photo."""
        return cell * cell.new_tensor(self.stride) + cell.new_tensor(self.origin)

    def pooled(self, factor: int) -> DenseMap:
        """The mean of ``factor`` x ``factor`` cells, unit again if they were.

        Rows and columns left over are dropped. Raises ValueError for a factor below 1 or larger
        than the map.
        """
        if not 1 <= factor <= min(self.size):
            raise ValueError(f"a map of {self.size} cells cannot be pooled by {factor}")
        if factor == 1:
            return self
        descriptors = F.avg_pool2d(self.descriptors[None], factor)[0]
        descriptors = F.normalize(descriptors, dim=0) if self.unit else descriptors
        shift = (factor - 1) / 2
        origin = (self.origin[0] + shift * self.stride[0], self.origin[1] + shift * self.stride[1])
        return DenseMap(descriptors, (self.stride[0] * factor, self.stride[1] * factor), origin, self.unit)


def descriptors_at(
    features: Float[Tensor, "C h w"], cells: Float[Tensor, "N 2"], *, normalize: bool = False, border: bool = False
) -> Float[Tensor, "N C"]:
    """Features read bilinearly at positions, with zeros outside the map.

    Far outside the descriptor is 0, its map flat.

    - normalize: to unit length (0 stays 0).
    - border: outside the map those of its border, in place of zeros. Differentiable.
    """
    if features.ndim != 3 or cells.ndim != 2 or cells.shape[1] != 2:
        raise ValueError(
            f"features must be [C, h, w] and cells [N, 2], got {list(features.shape)}, {list(cells.shape)}"
        )
    h, w = features.shape[1:]
    extent = cells.new_tensor([max(w - 1, 1), max(h - 1, 1)])
    grid = (2 * cells / extent - 1).clamp(-3, 3).to(features.dtype)  # clamped: coordinates must not overflow
    beyond = "border" if border else "zeros"
    found = F.grid_sample(features[None], grid[None, None], "bilinear", beyond, align_corners=True)[0, :, 0].mT
    return F.normalize(found, dim=-1) if normalize else found


class LocalExtractor(Protocol):
    """A local-feature network. Also: ``to(device)``, which returns it."""

    @property
    def name(self) -> str:
        """How the command line calls the features.

        What is kept of them goes by it, their ``config`` and ``identity``.
        """
        ...

    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """Keypoints of a photo (RGB in 0..1, any size)."""
        ...


class DenseExtractor(Protocol):
    """A network with a descriptor for every cell. temperature: of a softmax over cosines of its descriptors, as it works
    best for localisation."""

    @property
    def name(self) -> str:
        """How the command line calls the features.

        What is kept of them goes by it, their ``config`` and ``identity``.
        """
        ...

    @property
    def temperature(self) -> float:
        """Cosines are divided by this before the softmax."""
        ...

    def dense(self, image: Float[Tensor, "3 H W"]) -> DenseMap:
        """Descriptors of a photo (RGB in 0..1, any size)."""
        ...


def resize_to_multiple(image: Float[Tensor, "3 H W"], multiple: int) -> Float[Tensor, "1 3 h w"]:
    """The photo resized to the nearest whole multiples of ``multiple``. There is at least one each; bilinear,
    antialiased."""
    return resized_to(image[None], nearest_multiples(image.shape[2], image.shape[1], multiple))


def nearest_multiples(width: int, height: int, multiple: int) -> tuple[int, int]:
    """The nearest whole multiples, at least one each."""
    w, h = (max(multiple, round(side / multiple) * multiple) for side in (width, height))
    return w, h


def resized_to(image: Float[Tensor, "1 3 H W"], size: tuple[int, int]) -> Float[Tensor, "1 3 h w"]:
    """The image at a size (width, height): bilinear, antialiased.

    As it is where that is its own.
    """
    if (image.shape[-1], image.shape[-2]) == size:
        return image
    return F.interpolate(image, size=size[::-1], mode="bilinear", align_corners=False, antialias=True)


def resize_to_longer_side(image: Float[Tensor, "3 H W"], longest: int | None) -> Float[Tensor, "3 h w"]:
    """The photo, made smaller if its longer side exceeds ``longest``. None leaves it alone."""
    return resized_to(image[None], longer_side_size(image.shape[2], image.shape[1], longest))[0]


def longer_side_size(width: int, height: int, longest: int | None) -> tuple[int, int]:
    """(width, height) with a longer side of at most ``longest``."""
    if longest is None or max(height, width) <= longest:
        return width, height
    scale = longest / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def pixel_scale(from_image: Tensor, to_image: Tensor) -> tuple[float, float]:
    """How many pixels of ``to_image`` a pixel of ``from_image`` covers. It is (x, y), how wide and high it is there;
    both images cover the same photo."""
    return to_image.shape[-1] / from_image.shape[-1], to_image.shape[-2] / from_image.shape[-2]


def moved_to_photo(
    uv: Float[Tensor, "N 2"], working: Tensor, photo: Tensor, offset: tuple[float, float] = (0.0, 0.0)
) -> Float[Tensor, "N 2"]:
    """Positions in a resized photo as positions in the photo. It goes by the half-pixel rule; offset is added first."""
    scale = uv.new_tensor(pixel_scale(working, photo))
    return (uv + uv.new_tensor(offset) + 0.5) * scale - 0.5


def cells_on_photo(
    working: Tensor, photo: Tensor, stride: float, first: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The stride and the origin of cells on the photo. The cells lie every ``stride`` pixels of its resized copy, from
    ``first`` on."""
    sx, sy = pixel_scale(working, photo)
    return (stride * sx, stride * sy), ((first + 0.5) * sx - 0.5, (first + 0.5) * sy - 0.5)


def detached(tensor: Tensor) -> Tensor:
    """An ordinary tensor.

    Those that ``torch.inference_mode`` makes would poison autograd of the caller.
    """
    return tensor.detach().clone()


def require_kornia(what: str) -> None:
    """Raises ImportError, with the pip command, when kornia is not there."""
    try:
        import kornia.feature  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what} {MISSING_KORNIA}") from error


def load_exactly(
    model: torch.nn.Module, tensors: dict[str, Tensor], what: str, *, may_miss: frozenset[str], may_add: frozenset[str]
) -> None:
    """Load weights whose names are known up to derived buffers.

    Raises ValueError naming the first tensor that is missing, surplus or of another shape.
    """
    expected = model.state_dict()
    for key in sorted(set(expected) - set(tensors) - may_miss) + sorted(set(tensors) - set(expected) - may_add):
        raise ValueError(f"these are not {what} weights: {key!r} is {'missing' if key in expected else 'unknown'}")
    for key, value in tensors.items():
        if key in expected and value.shape != expected[key].shape:
            raise ValueError(
                f"these are not {what} weights: {key!r} has shape {list(value.shape)}, not {list(expected[key].shape)}"
            )
    model.load_state_dict({key: value for key, value in tensors.items() if key in expected}, strict=False)
    model.eval()
