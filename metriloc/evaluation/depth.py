"""Metrics of predicted metric depth (MicKey appendix, table 7); no median or scale alignment, since metres are claimed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.geometry import sample_depth


@dataclass(frozen=True)
class DepthScore:
    """Share of pixels with ratio below 1.25^k, mean relative error, root mean square in metres, mean |log10 ratio|.

    count: pixels (or keypoints) with a true depth. All NaN when there is none.
    """

    delta1: float
    delta2: float
    delta3: float
    rel: float
    rmse: float
    log10: float
    count: int


def depth_score(predicted: Float[Tensor, " *n"], true: Float[Tensor, " *n"]) -> DepthScore:
    """Metrics over the pixels with a true depth > 0; pools everything it is given.

    A prediction that is zero, negative or not finite there counts as wrong by every ratio, as infinite in the means.
    Raises ValueError for shapes that differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"predicted depth {list(predicted.shape)} and true depth {list(true.shape)} differ in shape")
    valid = torch.isfinite(true) & (true > 0)
    d, t = predicted[valid].double(), true[valid].double()
    if t.numel() == 0:
        nan = float("nan")
        return DepthScore(nan, nan, nan, nan, nan, nan, 0)
    d = torch.where(torch.isfinite(d) & (d > 0), d, torch.inf)
    ratio = torch.maximum(d / t, t / d)
    deltas = [float((ratio < 1.25**k).double().mean()) for k in (1, 2, 3)]
    difference = (d - t).abs()
    return DepthScore(
        delta1=deltas[0],
        delta2=deltas[1],
        delta3=deltas[2],
        rel=float((difference / t).mean()),
        rmse=float(difference.square().mean().sqrt()),
        log10=float(torch.log10(ratio).mean()),
        count=t.numel(),
    )


def mean_depth_score(scores: Sequence[DepthScore]) -> DepthScore:
    """The mean over images instead of over pixels; images without a true depth are left out. Say which one you report."""
    scores = [score for score in scores if score.count]
    if not scores:
        return depth_score(torch.zeros(0), torch.zeros(0))
    names = ("delta1", "delta2", "delta3", "rel", "rmse", "log10")
    means = {name: sum(getattr(score, name) for score in scores) / len(scores) for name in names}
    return DepthScore(**means, count=sum(score.count for score in scores))


def pooled_depth_score(scores: Sequence[DepthScore]) -> DepthScore:
    """What ``depth_score`` says of all pixels of the images together, from the scores of each."""
    scores = [score for score in scores if score.count]
    if not scores:
        return depth_score(torch.zeros(0), torch.zeros(0))
    total = sum(score.count for score in scores)
    share = [score.count / total for score in scores]
    names = ("delta1", "delta2", "delta3", "rel", "log10")
    means = {name: sum(w * getattr(s, name) for w, s in zip(share, scores, strict=True)) for name in names}
    rmse = math.sqrt(sum(w * s.rmse**2 for w, s in zip(share, scores, strict=True)))
    return DepthScore(**means, rmse=rmse, count=total)


@dataclass(frozen=True, eq=False)
class DepthPrediction:
    """What a source says of one photo. depth: a map that covers the photo, or one value a keypoint, metres.

    uv, score: pixels and scores of the keypoints, None for a map.
    """

    depth: Float[Tensor, " *n"]
    uv: Float[Tensor, "N 2"] | None = None
    score: Float[Tensor, " N"] | None = None


def prediction_scores(
    found: DepthPrediction, true: Float[Tensor, "H W"], image_size: tuple[int, int]
) -> Mapping[str, DepthScore]:
    """By variant: "" for everything that is predicted, ``-Sc`` for the better half by score, where there are scores.

    A map is compared at every true pixel: enlarged bilinearly, or by nearest cells where it has holes.
    """
    if found.uv is not None and found.score is not None:
        scores = keypoint_depth_scores(found.uv, found.depth, found.score, true, image_size)
        return {"": scores["all"], "-Sc": scores["top half"]}
    depth = found.depth
    if depth.shape != true.shape:
        whole = bool((depth > 0).all())
        how: dict[str, Any] = {"mode": "bilinear", "align_corners": False} if whole else {"mode": "nearest-exact"}
        depth = F.interpolate(depth[None, None].float(), true.shape, **how)[0, 0]
    return {"": depth_score(depth, true)}


def keypoint_depth_scores(
    uv: Float[Tensor, "N 2"],
    predicted: Float[Tensor, " N"],
    score: Float[Tensor, " N"],
    true: Float[Tensor, "H W"],
    image_size: tuple[int, int],
) -> Mapping[str, DepthScore]:
    """``all`` keypoints and the ``top half`` by score (MicKey-Sc) of one image, against the true depth at the keypoints.

    true: depth map of any resolution that covers the image; read at the nearest pixel without a hole or a jump
    (``metriloc.geometry.sample_depth``). The paper leaves both choices open.
    """
    truth, known = sample_depth(true, uv, image_size)
    truth = torch.where(known, truth, torch.zeros_like(truth))
    best = top_half(score)
    return {"all": depth_score(predicted, truth), "top half": depth_score(predicted[best], truth[best])}


def top_half(score: Float[Tensor, " N"]) -> Int[Tensor, " n"]:
    """Indices of the better half of the scores, rounded up; ties go to the first."""
    return score.argsort(descending=True, stable=True)[: (len(score) + 1) // 2]
