"""A compact network that predicts the metric depth of one photo, and how sure it is of it.

The encoder is EfficientNet-Lite0; attention over its coarsest features tells the kind of scene, and a decoder brings
that to cells of 8 pixels. Depth is focal-normalized: the network speaks for a camera with a focal length of
``canonical_focal`` pixels on the photo that it sees, and metres are its answer times the true focal length over that. A
photo zoomed by two shows everything twice as large, and comes out right without the network knowing of it.
"""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones.efficientnet_lite import Encoder
from metriloc.backbones.fixed import FixedNetwork, Look, NetworkRunner, identity_of
from metriloc.backbones.folding import fold_batch_norms
from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.io.weights import load_state_dict_strictly, load_weights, resolve_weights, save_weights
from metriloc.types import View

DEPTH_METHOD = "depth"
"""What a weights folder of a depth network says that it is for."""
DEFAULT_WEIGHTS = "metriloc-depth"

_CHANNELS = {4: 24, 8: 40, 16: 112, 32: 320}
_STRIDE, _HEADS = 8, 4
_COARSEST = 32
_LOG_RANGE = (-3.0, 7.0)  # 5 cm to 1.1 km for the canonical camera
_SPREAD_RANGE = (-4.0, 1.5)  # logarithm of the spread of log-depth: 2 % to a factor of 90


@dataclass(frozen=True)
class DepthConfig:
    """The shape of the depth network."""

    side: int = 256
    """Photos are resized to as many pixels as a 4:3 photo of this width has."""
    canonical_focal: float = 220.0
    """See the module."""
    width: int = 64
    """Channels of the decoder."""
    attention: int = 2
    """Layers of self-attention over the coarsest features."""

    def __post_init__(self) -> None:
        if not 64 <= self.side <= 2048:
            raise ValueError(f"DepthConfig.side must be 64 to 2048, got {self.side}")
        if not 1 <= self.canonical_focal <= 1e5:
            raise ValueError(f"DepthConfig.canonical_focal must be 1 to 100000 pixels, got {self.canonical_focal}")
        if not 8 <= self.width <= 1024 or not 0 <= self.attention <= 24:
            raise ValueError(f"DepthConfig: width {self.width} or attention {self.attention} is out of range")


@dataclass(frozen=True, eq=False)
class DepthMaps:
    """What the depth network says of photos.

    log_depth: natural logarithm of metres for the canonical camera, a cell of 8 pixels each;
    log_spread: logarithm of its expected absolute error.
    """

    log_depth: Float[Tensor, "B h w"]
    log_spread: Float[Tensor, "B h w"]


class DepthNetwork(nn.Module):
    """Metric depth of single photos, as ``DepthMaps``.

    Photos [B, 3, H, W], RGB in 0..1, have any size in multiples of 32; new weights are random.
    """

    def __init__(self, config: DepthConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DepthConfig()
        width = config.width
        self.encoder = Encoder()
        self.lateral = nn.ModuleDict({str(s): nn.Conv2d(n, width, 1) for s, n in _CHANNELS.items()})
        self.context = nn.ModuleList(ContextLayer(width) for _ in range(config.attention))
        self.scene = nn.Sequential(nn.Linear(_CHANNELS[_COARSEST], width), nn.ReLU(), nn.Linear(width, width))
        self.merge = nn.ModuleDict({str(s): Merge(width) for s in (8, 16, 32)})
        self.fine = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.output = nn.Conv2d(width, 2, 1)
        nn.init.zeros_(self.output.weight)
        self.output.bias = nn.Parameter(torch.tensor([1.0, -1.0]))  # 2.7 m, give or take 37 %
        self.weights_id = ""
        self._runner: NetworkRunner | None = None

    @classmethod
    def from_pretrained(
        cls, source: str | Path = DEFAULT_WEIGHTS, *, device: torch.device | str = "cpu", offline: bool | None = None
    ) -> DepthNetwork:
        """Load weights, ready to predict. The bundled ones, or others.

        - source: a bundled name, a folder, a file, a hub name.
        - device: of the network.
        - offline: never ask a network.

        Raises InputError for weights that are missing, damaged or of something else.
        """
        weights = load_weights(resolve_weights(source, offline=offline), method=DEPTH_METHOD)
        try:
            config = DepthConfig(**weights.config.get("network", {}))
        except (TypeError, ValueError) as error:
            raise InputError(f"'{weights.path}' holds a wrong configuration of a depth network: {error}") from error
        network = cls(config)
        load_state_dict_strictly(network, {k: v.float() for k, v in weights.tensors.items()}, str(weights.path))
        network.weights_id = weights.weights_id
        return network.eval().to(device)

    def save_pretrained(self, folder: str | Path) -> str:
        """Write a weights folder, and return its id.

        Filters are in half precision (half the space, the same depths to 0.1 %).
        """
        tensors = {k: v.half() if v.ndim > 1 else v for k, v in self.state_dict().items()}
        return save_weights(folder, DEPTH_METHOD, {"network": asdict(self.config)}, tensors)

    def train(self, mode: bool = True) -> DepthNetwork:
        """As ``nn.Module.train``.

        The encoder's batch norms keep the statistics they were loaded with.
        """
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> DepthMaps:
        """Depth for the canonical camera on cells of 8 pixels."""
        if self._runner is not None:
            return DepthMaps(**self._runner(image))
        features = self.encoder(image)
        x = self.lateral[str(_COARSEST)](features[_COARSEST])
        x = x + self.scene(features[_COARSEST].mean((-2, -1)))[:, :, None, None]
        for layer in self.context:
            x = layer(x)
        x = self.merge[str(_COARSEST)](x)
        for stride in (16, 8):
            finer = self.lateral[str(stride)](features[stride])
            x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=False) + finer
            if stride == _STRIDE:
                x = x + self.fine(self.lateral["4"](features[4]))[..., : x.shape[-2], : x.shape[-1]]
            x = self.merge[str(stride)](x)
        log_depth, log_spread = self.output(x).float().unbind(1)
        return DepthMaps(log_depth.clamp(*_LOG_RANGE), log_spread.clamp(*_SPREAD_RANGE))

    def fixed(self) -> FixedNetwork:
        """The maps of an image of whole multiples of 32 pixels."""
        identity = identity_of(self.state_dict(), self.config)
        return FixedNetwork("depth", Look(self, _maps), ("log_depth", "log_spread"), _COARSEST, identity)

    def folded(self) -> DepthNetwork:
        """A copy for prediction: batch norms merged into convolutions, channels-last memory.

        Not for saving.
        """
        other = deepcopy(self).eval().requires_grad_(False)
        fold_batch_norms(other)
        return other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def running_on(self, runner: NetworkRunner) -> DepthNetwork:
        """A copy (of the same weights) whose maps another runtime makes."""
        other = copy(self)
        other._runner = runner
        return other

    def sizes_for(self, width: int, height: int) -> list[tuple[int, int]]:
        """The one (width, height) that a photo is looked at in.

        It depends on the photo's own size.
        """
        scale = self.config.side * (0.75 / (width * height)) ** 0.5
        w, h = (max(1, round(side * scale / _COARSEST)) * _COARSEST for side in (width, height))
        return [(w, h)]

    @torch.no_grad()
    def predict(self, view: View) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
        """Depth in metres, and the spread of its logarithm.

        Of the cells of a photo, which cover all of it.
        """
        image, camera = self.reduced(view)
        found = self(image[None])
        focal = float(camera.f.log().mean().exp())
        return (found.log_depth[0].exp() * (focal / self.config.canonical_focal)).cpu(), found.log_spread[0].exp().cpu()

    def reduced(self, view: View) -> tuple[Float[Tensor, "3 H W"], Camera]:
        """The photo as the network sees it, and its camera. In whole multiples of 32 pixels."""
        ((width, height),) = self.sizes_for(*view.size)
        if self._runner is not None:
            width, height = self._runner.size_for(width, height)
        image = view.image[None].to(next(self.parameters()).device)
        small = F.interpolate(image, size=(height, width), mode="bilinear", antialias=True, align_corners=False)[0]
        factor = torch.tensor([width, height]).to(view.camera.size) / view.camera.size
        return small.clamp(0, 1), view.camera.scale(factor)


def _maps(network: DepthNetwork, image: Tensor) -> tuple[Tensor, ...]:
    found = network(image)
    return found.log_depth, found.log_spread


class Merge(nn.Module):
    """Two 3x3 convolutions with a shortcut. Group norms, because a batch mixes kinds of photos."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class ContextLayer(nn.Module):
    """Self-attention over all cells of the coarsest features (a few dozen), then a small perceptron on each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        grid = x.shape[-2:]
        tokens = x.flatten(2).mT
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(seen)
        tokens = tokens + self.mlp(self.norm2(tokens))
        return tokens.mT.unflatten(-1, grid)
