"""Matchers of the hub: SuperPoint, LightGlue and SuperGlue on its keypoints, EfficientLoFTR.

Photos are brought to the network by hand: both on one canvas, in their own shape, grey. What it says of places are
shares of that canvas's size, with the first pixel centre at 0, and they are kept as they are: the post-processing of
``transformers`` cuts them to whole pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.backbones.local import LocalFeatures
from metriloc.io import InputError
from metriloc.methods.matching.hub_models import PREFIX, find_hub_model, load_network
from metriloc.methods.matching.matchers import Matcher, Matches, NearestMatcher
from metriloc.types import View

MAX_KEYPOINTS = 2048
"""Of a photo; SuperPoint has no limit of its own."""
_KINDS: Mapping[str, str] = {
    "superpoint": "SuperPointForKeypointDetection",
    "lightglue": "LightGlueForKeypointMatching",
    "superglue": "SuperGlueForKeypointMatching",
    "efficientloftr": "EfficientLoFTRForKeypointMatching",
}
_BLOCK = 32  # pixels; sides of the canvas are whole multiples
_GRAY = (0.2989, 0.5870, 0.1140)


def load_hub_matcher(name: str) -> Matcher:
    """A matcher by the name of its model (``OWNER/NAME`` or ``./folder``).

    SuperPoint alone matches nearest neighbours. Raises InputError for a model of another kind, and
    for one that is not here or cannot be loaded.
    """
    model = find_hub_model(name)
    if model.kind not in _KINDS:
        raise InputError(f"{PREFIX}{name} is {model.kind!r}, which matches no photos here: one of {', '.join(_KINDS)}")
    side = max(model.input_size(640, 480))
    network = load_network(model, _KINDS[model.kind], max_keypoints=MAX_KEYPOINTS)
    if model.kind == "superpoint":
        return NearestMatcher(HubKeypoints(network, side, f"{PREFIX}{name}"), model.weights_id)
    return HubMatcher(network, side, f"{PREFIX}{name}", model.weights_id)


@dataclass(frozen=True, eq=False)
class Canvas:
    """A photo as a network sees it. image: grey in three channels, the photo at the upper left, its last pixels repeated
    beside it; scale: (x, y) pixels of the canvas a pixel of the photo; photo: (width, height) of the photo."""

    image: Float[Tensor, "3 h w"]
    scale: Float[Tensor, " 2"]
    photo: tuple[int, int]

    def to_photo(self, share: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        """Shares of the canvas -> pixels of the photo."""
        h, w = self.image.shape[1:]
        # whole numbers are pixel centres on both sides, and resizing keeps corners, not centres
        return (share.cpu() * share.new_tensor([w, h]).cpu() + 0.5) / self.scale - 0.5

    def inside(self, uv: Float[Tensor, "N 2"]) -> Bool[Tensor, " N"]:
        """Whether pixels lie in the photo, not on what was put beside it."""
        return ((uv >= -0.5) & (uv <= uv.new_tensor(self.photo) - 0.5)).all(-1)


def canvases(images: tuple[Tensor, ...], side: int) -> list[Canvas]:
    """Photos on canvases of one size, the longer side of each photo ``side`` pixels."""
    sizes = [(image.shape[2], image.shape[1]) for image in images]
    small = [tuple(max(1, round(length * side / max(size))) for length in size) for size in sizes]
    w, h = (-(-max(size[axis] for size in small) // _BLOCK) * _BLOCK for axis in (0, 1))
    found = []
    for image, size, new in zip(images, sizes, small, strict=True):
        reduced = F.interpolate(
            image[None].float().cpu(), size=(new[1], new[0]), mode="bilinear", antialias=True, align_corners=False
        )
        gray = (reduced * torch.tensor(_GRAY)[:, None, None]).sum(1, keepdim=True)
        padded = F.pad(gray, (0, w - new[0], 0, h - new[1]), mode="replicate")
        scale = torch.tensor([new[0] / size[0], new[1] / size[1]])
        found.append(Canvas(padded[0].expand(3, -1, -1), scale, size))
    return found


class HubKeypoints:
    """SuperPoint of the hub. Keypoints of one photo with descriptors of unit length."""

    def __init__(self, network: Any, side: int, name: str) -> None:
        self.network, self.side, self.name = network, side, name

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """At most ``MAX_KEYPOINTS``, in pixels of the photo."""
        (canvas,) = canvases((image,), self.side)
        found = self.network(canvas.image[None].to(self.network.device))
        uv = canvas.to_photo(found.keypoints[0])
        kept = canvas.inside(uv) & (found.mask[0] > 0).cpu()
        descriptors = F.normalize(found.descriptors[0].float().cpu()[kept], dim=-1)
        return LocalFeatures(uv[kept], descriptors, found.scores[0].float().cpu()[kept])

    def to(self, device: torch.device | str) -> HubKeypoints:
        """Move the network; returns self."""
        self.network.to(device)
        return self


class HubMatcher:
    """LightGlue, SuperGlue or EfficientLoFTR of the hub; score: the network's confidence.

    The network looks at both photos at once. Keypoints of one photo are found a second time, for what they say of
    repeated and mirrored photos; EfficientLoFTR has none.
    """

    def __init__(self, network: Any, side: int, name: str, weights_id: str) -> None:
        self.network, self.side, self.name, self.weights_id = network, side, name, weights_id

    def extract(self, view: View) -> LocalFeatures:
        """Keypoints of one photo."""
        detector = getattr(self.network, "keypoint_detector", None)
        if detector is None:
            return LocalFeatures(torch.zeros(0, 2), torch.zeros(0, 0), torch.zeros(0))
        return HubKeypoints(detector, self.side, self.name)(view.image)

    @torch.no_grad()
    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """What the network says belongs together."""
        both = canvases((view0.image, view1.image), self.side)
        told = self.network(torch.stack([canvas.image for canvas in both])[None].to(self.network.device))
        i, j, score = (x.cpu() for x in matched(told))
        uv0, uv1 = (canvas.to_photo(share) for canvas, share in zip(both, told.keypoints[0], strict=True))
        uv0, uv1 = uv0[i], uv1[j]
        kept = both[0].inside(uv0) & both[1].inside(uv1) & score.isfinite()  # NaN is not inside
        return Matches(uv0[kept], uv1[kept], score[kept].float().clamp(0, 1))

    def to(self, device: torch.device | str) -> HubMatcher:
        """Move the network; returns self."""
        self.network.to(device)
        return self


def matched(told: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Indices into the keypoints of both photos, and the scores, of an output of a matching network."""
    mask = getattr(told, "mask", None)
    # LightGlue that may not stop early leaves out the axis of pairs
    (match0, match1), (score, score1) = (x.reshape(2, -1) for x in (told.matches, told.matching_scores))
    if mask is None:  # EfficientLoFTR: the n-th of one belongs to the n-th of the other
        valid = ((match0 > -1) & (match1 > -1) & (score > 0) & (score1 > 0)).nonzero().squeeze(-1)
        return valid, valid, score[valid]
    count = mask[0, 1].sum()
    i = ((mask[0, 0] > 0) & (match0 > -1) & (match0 < count) & (score > 0)).nonzero().squeeze(-1)
    return i, match0[i].long(), score[i]
