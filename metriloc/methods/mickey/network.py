"""MicKey's network: a backbone and four heads with one trunk architecture, giving one metric keypoint a cell.

Paper Sec. 3.2, Tables 4 and 5 (architecture), and Eq. (12) (keypoint positions). Where the published code differs from
the paper, the code is followed, because the released weights need it. Photos are not normalised by mean and deviation,
although the backbone was trained that way; they are cropped, not resized, to whole cells.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones import DinoV2, DinoV2Config, EfficientNetLite, FeatureBackbone
from metriloc.backbones.fixed import FixedNetwork, Look, NetworkRunner, identity_of
from metriloc.backbones.folding import fold_batch_norms
from metriloc.geometry import MIN_DEPTH, Camera
from metriloc.methods.mickey.keypoint_maps import (
    KeypointMaps,
    Keypoints,
    interior,
    keypoints,
    pad_border,
    spatial_softmax,
)
from metriloc.methods.mickey.network_config import HALF, MicKeyConfig
from metriloc.methods.mickey.trunk import Trunk

_DESCRIPTOR_EPS = 1e-10
_LOG_DEPTH_RANGE = (-5.0, 6.0)  # 7 mm to 400 m at the canonical focal length


class MicKeyNetwork(nn.Module):
    """What MicKey sees in photos, as ``KeypointMaps`` (paper Sec. 3.2).

    Photos are [B, 3, H, W], RGB in 0..1, without further normalisation. Any size is accepted; what
    does not fill a cell at the right and bottom is cropped away. The heads run in the precision of
    their weights (float32), the backbone in that of the configuration. New weights are random.
    """

    backbone: nn.Module

    def __init__(self, config: MicKeyConfig | None = None, backbone: FeatureBackbone | None = None) -> None:
        super().__init__()
        config = config or MicKeyConfig()
        if backbone is None:
            if config.backbone is None:
                raise ValueError("MicKeyConfig.backbone is None: hand a backbone to MicKeyNetwork")
            chosen = config.backbone
            backbone = DinoV2(chosen) if isinstance(chosen, DinoV2Config) else EfficientNetLite(chosen)
        if not isinstance(backbone, nn.Module):
            raise ValueError(f"a backbone must be an nn.Module, got {type(backbone).__name__}")
        self.config = config
        self.stride = backbone.stride
        channels = backbone.channels
        self.backbone = backbone
        width, norm, encode = config.blocks, config.batch_norm, config.position_encoding
        self.offset_head = Trunk(channels, width, 2, norm, encode)
        self.depth_head = Trunk(channels, width, 1, norm, encode)
        self.score_head = Trunk(channels, width, 1, norm, encode)
        width = (*config.blocks[:3], config.descriptor_dim)
        self.descriptor_head = Trunk(channels, width, None, norm, config.descriptor_position_encoding)
        # in both softmaxes of the matcher, a bin for keypoints without partner (paper, below Eq. (3)); always stored
        self.dustbin = nn.Parameter(torch.ones(()))
        self._cast: tuple[tuple[Any, ...], dict[str, Tensor]] | None = None
        self._runner: NetworkRunner | None = None
        if not config.train_backbone:
            self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> MicKeyNetwork:
        """As ``nn.Module.train``; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self.config.train_backbone:
            self.backbone.eval()
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> MicKeyNetwork:
        self._cast = None  # torch moves and casts modules through this
        return super()._apply(fn, recurse)

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> KeypointMaps:
        """Maps of the photos (resized, if so configured).

        The heads run in float32 also under autocast.
        """
        if self._runner is not None:
            return KeypointMaps(**self._runner(self.prepared(image)))
        features = self.features(image)
        with torch.autocast(features.device.type, enabled=False):
            return self.heads(features)

    def running_on(self, runner: NetworkRunner) -> MicKeyNetwork:
        """A copy (of the same weights) whose maps another runtime makes."""
        other = self._configured()
        other._runner = runner
        return other

    @property
    def runs_elsewhere(self) -> bool:
        """Whether another runtime makes the maps."""
        return self._runner is not None

    def fixed(self) -> FixedNetwork:
        """Backbone and heads in float32, batch norms merged.

        The maps of an image of whole cells.
        """
        folded = self.fold_batch_norms()
        outputs = tuple(field.name for field in dataclasses.fields(KeypointMaps))

        def at(width: int, height: int) -> Look:
            baked, backbone = copy.copy(folded), folded.backbone
            if isinstance(backbone, DinoV2):
                backbone = backbone.for_grid((height // self.stride, width // self.stride))
            baked._modules = {**folded._modules, "backbone": backbone}
            return Look(baked, _maps_of_cells)

        identity = identity_of(self.state_dict(), dataclasses.replace(self.config, precision="auto"))
        return FixedNetwork("mickey", Look(folded, _maps_of_cells), outputs, self.stride, identity, at)

    def detect(self, image: Float[Tensor, "B 3 H W"], camera: Camera) -> Keypoints:
        """Photos and their cameras [B] -> keypoints.

        In pixels of these photos, with depth in metres.
        """
        found, side = self.locate(self(image), image, camera), self.config.depth_side
        if side is None:
            return found
        seen = self._configured(longest_side=side, depth_side=None)
        coarse = seen.locate(seen(image), image, camera)
        logs = coarse.depth.clamp(min=MIN_DEPTH).log().unflatten(1, (1, *coarse.grid))
        fine = F.interpolate(logs, size=found.grid, mode="bilinear", align_corners=False)
        return dataclasses.replace(found, depth=fine.exp().flatten(1))

    def locate(self, maps: KeypointMaps, image: Float[Tensor, "B 3 H W"], camera: Camera) -> Keypoints:
        """The keypoints of maps that ``forward`` made of these photos, see ``detect``.

        - maps: what ``forward`` returned.
        - image: the photos, for their size.
        - camera: of the photos.
        """
        found = keypoints(maps, self.stride)
        shrink = image.new_tensor(image.shape[:1:-1]) / image.new_tensor(self.working_size(image))
        uv, depth = found.uv, found.depth
        if self.working_size(image) != (image.shape[-1], image.shape[-2]):
            uv = uv * shrink
        if self.config.pixel_centers:
            uv = uv - 0.5
        if self.config.canonical_focal is not None:
            focal = (camera.f.to(shrink) / shrink).log().mean(-1).exp()
            depth = depth * (focal / self.config.canonical_focal)[:, None]
        return dataclasses.replace(found, uv=uv, depth=depth)

    def working_size(self, image: Float[Tensor, "B 3 H W"]) -> tuple[int, int]:
        """(width, height) that photos of this size are resized to.

        Whole cells, the longest side as configured.
        """
        width, height = self._resized_size(image.shape[-1], image.shape[-2])
        return (width, height) if self._runner is None else self._runner.size_for(width, height)

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        if self.config.longest_side is None:
            return width, height
        scale = self.config.longest_side / max(height, width) / self.stride
        w, h = (max(1, round(side * scale)) * self.stride for side in (width, height))
        return w, h

    def sizes_for(self, width: int, height: int) -> list[tuple[int, int]]:
        """(width, height) of whole cells of a photo of this size.

        With a ``depth_side`` those for the depths, too.
        """
        w, h = self._resized_size(width, height)
        sizes = [(w - w % self.stride, h - h % self.stride)]
        side = self.config.depth_side
        if side is not None:
            sizes += self._configured(longest_side=side, depth_side=None).sizes_for(width, height)
        return list(dict.fromkeys(sizes))

    def looking_at(self, longest_side: int) -> MicKeyNetwork:
        """These very weights (shared) for photos resized to another longest side.

        Depths stay those of the old one. Raises ValueError for a network that takes photos as they
        are.
        """
        config = self.config
        if config.longest_side is None:
            raise ValueError("a network without MicKeyConfig.longest_side takes photos as they are")
        return self._configured(longest_side=longest_side, depth_side=config.depth_side or config.longest_side)

    def _configured(self, **changes: Any) -> MicKeyNetwork:
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, **changes)
        return other

    def features(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The backbone's feature map.

        It is cast back from the backbone's precision to that of the heads. Raises ValueError as
        ``prepared``, and for half precision on the CPU.
        """
        image = self.prepared(image)
        dtype = backbone_dtype(self.config, image.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_backbone):
            features = self._run_backbone(image) if dtype is None else self._run_backbone_as(dtype, image)
        return features.to(self.depth_head.block1.conv1.weight.dtype)

    def prepared(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        """The photos as the backbone sees them. At their working size, without what fills no cell.

        Raises ValueError for an image that is not [B, 3, H, W] of floats or smaller than a cell.
        """
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(f"image must be floats of shape [B, 3, H, W], got {image.dtype} {list(image.shape)}")
        width, height = self.working_size(image)
        if (height, width) != image.shape[-2:] and image.numel():
            image = F.interpolate(image, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
        h, w = image.shape[-2] // self.stride, image.shape[-1] // self.stride
        if min(h, w) < 1:
            size = f"{image.shape[-1]}x{image.shape[-2]}"
            raise ValueError(f"an image of {size} pixels is smaller than a cell of {self.stride} pixels")
        return image[..., : h * self.stride, : w * self.stride]

    def _run_backbone(self, image: Tensor) -> Tensor:
        self._cast = None
        parameter = next(self.backbone.parameters(), image)
        return self.backbone(image.to(parameter.dtype))

    def _run_backbone_as(self, dtype: torch.dtype, image: Tensor) -> Tensor:
        """Everything in half precision, as the released models run: weights and position table included.

        The weights themselves stay in float32, so that saving and moving the network lose nothing; the cast copy is
        kept until a weight changes.
        """
        tensors = {**dict(self.backbone.named_parameters()), **dict(self.backbone.named_buffers())}
        state = (dtype, *((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors.values()))
        if self._cast is None or self._cast[0] != state:
            half = {name: t.detach().to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
            self._cast = (state, half)
        return torch.func.functional_call(self.backbone, self._cast[1], (image.to(dtype),))

    def heads(self, features: Float[Tensor, "B C h w"]) -> KeypointMaps:
        """The four heads on a feature map (paper Tables 4 and 5)."""
        config = self.config
        depth = self.depth_head(features)
        if config.max_depth is not None:
            depth = config.max_depth * torch.sigmoid(depth)
        if config.log_depth:
            depth = depth.clamp(*_LOG_DEPTH_RANGE).exp()
        logits = self.score_head(features)
        if config.use_softmax:
            score = spatial_softmax(logits, config.score_temperature, config.border)
        else:
            score = pad_border(torch.sigmoid(interior(logits, config.border)), logits, config.border)
        descriptor = self.descriptor_head(features)
        if config.normalize_descriptors:
            descriptor = descriptor / (descriptor.square().sum(1, keepdim=True) + _DESCRIPTOR_EPS).sqrt()
        return KeypointMaps(torch.sigmoid(self.offset_head(features)), depth, score, descriptor)

    def fold_batch_norms(self) -> MicKeyNetwork:
        """A network for inference whose batch norms are merged into the convolutions.

        A frozen backbone is shared. The same maps up to rounding, sooner; in channels-last memory.
        Its state dict has other entries: save the original instead.
        """
        shared: dict[int, Any] = {id(self._cast): None}
        if not self.config.train_backbone:
            shared[id(self.backbone)] = self.backbone
        folded = copy.deepcopy(self, shared)
        for name, part in folded.named_children():
            if name != "backbone" or self.config.train_backbone:
                fold_batch_norms(part)
                part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return folded.requires_grad_(False).eval()


def _maps_of_cells(network: MicKeyNetwork, image: Tensor) -> tuple[Tensor, ...]:
    maps = network.heads(network.backbone(image))
    return maps.offset, maps.depth, maps.score, maps.descriptor


def backbone_dtype(config: MicKeyConfig, device: torch.device) -> torch.dtype | None:
    """The half precision that the backbone runs in on this device.

    None for that of its weights (float32). Raises ValueError for fp16 or bf16 on the CPU, where
    they are 2 to 40 times slower than fp32 and gain nothing.
    """
    if config.precision == "auto":
        return torch.float16 if device.type == "cuda" and not config.train_backbone else None
    if config.precision != "fp32" and device.type == "cpu":
        raise ValueError(f"precision {config.precision!r} is much slower than 'fp32' on the CPU: use 'auto' or 'fp32'")
    return HALF.get(config.precision)
