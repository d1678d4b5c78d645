"""From two photo files to a pose in one call; the command line goes through the same functions."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from metriloc.baselines.matching import FeatureMatching, MatchingConfig
from metriloc.io import InputError, load_view
from metriloc.methods.mickey import MicKey
from metriloc.types import PoseEstimate, RelativePoseMethod, View

MethodName = Literal["auto", "mickey", "matching"]


def relative_pose(
    reference: View | str | Path,
    query: View | str | Path,
    *,
    method: RelativePoseMethod | None = None,
    depth: str | Path | None = None,
    distance: float | None = None,
    seed: int = 0,
) -> PoseEstimate:
    """Where the camera of ``query`` stood relative to that of ``reference``.

    reference, query: files, or Views from ``load_view`` where intrinsics need saying. method: a loaded ``MicKey``, or
    None for feature matching. depth: depth map of the reference (metres come from it). distance: metres between the
    two cameras, if known. seed: same seed, same answer.

    Returns ``query_from_reference`` with ``details[0].metric`` telling whether it is in metres; ``success=False`` with
    a reason where the photos do not fix a pose. Raises InputError (a ValueError) for files that cannot be used.
    """
    if not isinstance(reference, View):
        reference = load_view(reference, depth=depth)
    elif depth is not None:
        raise InputError(
            f"depth {str(depth)!r} was given for a reference that is a View already: load it with the View"
        )
    if not isinstance(query, View):
        query = load_view(query)
    if method is None:
        method = FeatureMatching.from_pretrained(config=MatchingConfig(distance=distance))
    elif distance is not None:
        raise InputError(f"distance {distance} is used by feature matching only: set it there, or leave out method")
    return method.relative_pose(reference, query, seed=seed)


def choose_method(
    name: MethodName,
    *,
    weights: str | None = None,
    distance: float | None = None,
    polish: bool = False,
    device: str = "cpu",
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto",
) -> RelativePoseMethod:
    """The method that a command names; ``auto`` is MicKey when weights are given and feature matching when not.

    Raises InputError when an option belongs to the other method, weights are missing (with the command to get them), or
    this machine has no such device.
    """
    _require_device(device)
    if name == "auto":
        name = "matching" if weights is None else "mickey"
    if name == "matching":
        config = MatchingConfig(distance=distance)
        return FeatureMatching.from_pretrained(weights, config=config).to(device)
    if distance is not None:
        raise InputError(f"--distance {distance}: MicKey measures the distance itself; only --method matching needs it")
    return MicKey.from_pretrained(weights or "mickey", precision=precision, polish=polish, device=device)


def _require_device(name: str) -> None:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"there is no device {name!r} here: {str(error).splitlines()[0]}") from error
