"""LoFTR through kornia's class, with weights given as tensors: matches of two photos without keypoints.

LoFTR ("Detector-Free Local Feature Matching with Transformers", CVPR 2021). Its weights come from a file of the user, or
by kornia's own download.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import (
    load_exactly,
    moved_to_photo,
    require_kornia,
    resize_to_longer_side,
    resize_to_multiple,
)

_MULTIPLE = 8
RELEASES = ("outdoor", "indoor", "indoor_new")


class Loftr:
    """Matches two photos.

    weights: a released state dict, bare or under ``state_dict``. release: which of ``RELEASES`` it is; ``indoor_new``
    was trained with another positional encoding. longest_side: larger photos are made smaller first. Raises ValueError
    when the weights do not fit or the release is unknown, and ImportError, with the pip command, without kornia.
    """

    def __init__(self, weights: Mapping[str, Tensor], release: str = "outdoor", longest_side: int | None = 640) -> None:
        require_kornia("LoFTR")
        from kornia.feature import LoFTR as KorniaLoftr
        from kornia.feature.loftr.loftr import default_cfg

        if release not in RELEASES:
            raise ValueError(f"LoFTR's release must be one of {', '.join(RELEASES)}, got {release!r}")
        config: dict[str, Any] = copy.deepcopy(default_cfg)
        config["coarse"]["temp_bug_fix"] = release == "indoor_new"
        self._model = KorniaLoftr(pretrained=None, config=config)
        self._longest_side = longest_side
        load_exactly(
            self._model,
            {key.removeprefix("matcher."): value for key, value in weights.items()},
            "LoFTR",
            may_miss=frozenset({"pos_encoding.pe"}),
            may_add=frozenset({"pos_encoding.pe"}),
        )

    def to(self, device: torch.device | str) -> Loftr:
        """Move the weights; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, image0: Float[Tensor, "3 H W"], image1: Float[Tensor, "3 H1 W1"]
    ) -> tuple[Float[Tensor, "M 2"], Float[Tensor, "M 2"], Float[Tensor, " M"]]:
        """Matched pixels of both photos (RGB in 0..1, any size) and scores (0..1)."""
        working = [self._gray(image) for image in (image0, image1)]
        found = self._model({"image0": working[0], "image1": working[1]})
        uv0 = moved_to_photo(found["keypoints0"], working[0], image0)
        uv1 = moved_to_photo(found["keypoints1"], working[1], image1)
        return uv0.cpu(), uv1.cpu(), found["confidence"].cpu()

    def _gray(self, image: Tensor) -> Tensor:
        device = next(self._model.parameters()).device
        small = resize_to_multiple(resize_to_longer_side(image.to(device), self._longest_side), _MULTIPLE)
        weights = small.new_tensor([0.299, 0.587, 0.114])
        return (small * weights[:, None, None]).sum(1, keepdim=True)
