"""How predicted depths err, photo by photo and pair by pair: what ``DepthError`` of the joint fit holds.

    python tools/depth_errors.py --data ../shared/data/train [--depth mickey]

Compared with depths of sensors, on pairs of the training rooms; nothing of ``eval`` is read. A network that was trained
on a place says little by its errors there. Logarithms: the scale of a photo is its median; the tilt is the slope of what
is left over the logarithm of the true depth; the shape is what remains.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from training_pairs import KnownPair, nyu_pairs, posed_pairs

from metriloc.choose import MethodChoice, choose_method
from metriloc.evaluation.report import markdown_table
from metriloc.methods.matching.model import FeatureMatching


def photo_errors(predicted: Tensor, true: Tensor) -> tuple[float, float, float]:
    """Scale, tilt and shape of one depth map."""
    resized = F.interpolate(predicted[None, None].float(), true.shape, mode="area")[0, 0]
    known = (true > 0) & (resized > 0)
    ratio, lever = (resized[known] / true[known]).log(), true[known].log()
    lever = lever - lever.mean()
    scale = ratio.median()
    tilt = (lever * (ratio - scale)).mean() / lever.square().mean().clamp(min=1e-9)
    shape = 1.4826 * (ratio - scale - tilt * lever).abs().median()
    return float(scale), float(tilt), float(shape)


def pairs_of(data: Path, most: int) -> Iterator[KnownPair]:
    """Pairs of which both photos may have a depth map."""
    yield from islice(nyu_pairs(data / "nyuv2", True), most)
    yield from islice(posed_pairs(data / "kitchen", (25, 60), most, True), most)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--depth", default="mickey", help="as metriloc relpose --depth-source calls it")
    parser.add_argument("--most", type=int, default=100, help="pairs of each place")
    arguments = parser.parse_args()
    method = choose_method(MethodChoice("xfeat", depth=arguments.depth, calibration="none"))
    if not isinstance(method, FeatureMatching):
        raise SystemExit("xfeat is no feature matching here")
    found: dict[str, list[list[tuple[float, float, float]]]] = {}
    for pair in pairs_of(arguments.data, arguments.most):
        if pair.view0.depth is None or pair.view1.depth is None:
            continue
        row = []
        for view in (pair.view0, pair.view1):
            predicted = method.depth_source(view)
            if predicted is not None and view.depth is not None:
                row.append(photo_errors(predicted, view.depth))
        if len(row) == 2:
            found.setdefault(pair.place, []).append(row)
    rows = [["place", "pairs", "scale: mean", "rms", "correlation of two photos", "tilt: mean", "rms", "shape"]]
    for place, errors in found.items():
        scale, tilt, shape = np.moveaxis(np.array(errors), -1, 0)
        # about 0, not about their mean: what all photos get wrong is an error of each
        correlation = (scale[:, 0] * scale[:, 1]).mean() / np.square(scale).mean()
        values = scale.mean(), _rms(scale), correlation, tilt.mean(), _rms(tilt), shape.mean()
        rows.append([place, str(len(errors)), *(f"{v:.2f}" for v in values)])
    print(markdown_table(rows))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
