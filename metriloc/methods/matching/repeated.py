"""Whether a photo repeats itself so that another motion explains a pair nearly as well: tiles, windows, shelves.

A matcher that settles on one of several equal answers leaves nothing over in which ``has_rival`` could find the others.
They are in the descriptors: most points then look nearly as much like one that lies elsewhere, all by the same shift.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.backbones.local import LocalFeatures
from metriloc.solvers.support import RIVAL_SHARE

_NEARLY = 0.05  # by how much less alike another keypoint may be
_OTHERS = 8  # keypoints that are looked at for each
_BIN = 0.025  # of the longer side of the photo
_LEAST = 15


def repeats_itself(
    features: tuple[LocalFeatures, LocalFeatures],
    uv0: Float[Tensor, "N 2"],
    uv1: Float[Tensor, "N 2"],
    size: tuple[int, int],
) -> bool:
    """Whether at least half of the matches that agree with a pose have an equal one elsewhere in the query, by one shift.

    uv0, uv1: those matches. size: (width, height) of the query.
    """
    local0, local1 = features
    needed = max(RIVAL_SHARE * len(uv0), _LEAST)
    others = min(_OTHERS, len(local1.uv) - 1)
    if len(uv0) < needed or others < 1:
        return False
    own0, own1 = _nearest(uv0, local0.uv), _nearest(uv1, local1.uv)
    d0, d1 = (F.normalize(f.descriptors.float(), dim=-1) for f in features)
    alike = d0[own0] @ d1.mT
    bin_px = _BIN * max(size)
    apart = torch.cdist(local1.uv[own1].float(), local1.uv.float()) > 2 * bin_px
    best, index = alike.masked_fill(~apart, -1.0).topk(others, dim=1)
    equal = best >= alike.gather(1, own1[:, None]) - _NEARLY
    shifts = local1.uv[index] - local1.uv[own1][:, None]
    return _largest_group(shifts, equal, bin_px, size) >= needed


def _largest_group(
    shifts: Float[Tensor, "N K 2"], equal: Bool[Tensor, "N K"], bin_px: float, size: tuple[int, int]
) -> int:
    """How many points have an equal one by a shift of one neighborhood of 3 x 3 bins."""
    extent = torch.tensor(size, device=shifts.device)
    counts = (2 * extent / bin_px).long() + 2
    place = ((shifts + extent) / bin_px).long().clamp(min=0)
    place = torch.minimum(place, (counts - 1).expand_as(place))
    owner = torch.arange(len(shifts), device=shifts.device)[:, None].expand(equal.shape)
    votes = torch.stack([owner, place[..., 1], place[..., 0]], -1)[equal].unique(dim=0)
    table = torch.zeros(int(counts[1]), int(counts[0]), device=shifts.device)
    table.index_put_((votes[:, 1], votes[:, 2]), torch.ones(len(votes), device=shifts.device), accumulate=True)
    return int(F.avg_pool2d(table[None, None], 3, 1, 1, divisor_override=1).max())


def _nearest(uv: Float[Tensor, "N 2"], keypoints: Float[Tensor, "M 2"]) -> Tensor:
    return torch.cdist(uv.float(), keypoints.float()).argmin(1)
