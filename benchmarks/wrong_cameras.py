"""How often two photos are doubted whose focal lengths are wrong, or of which one is the other, turned.

    PYTHONPATH=tools python benchmarks/wrong_cameras.py ../shared/data/train [--every 2]

Pairs of the training places, matched by XFeat + LighterGlue. Focal lengths: both are multiplied by each factor before the
pose is found, and the matches are asked for the factor that fits best. Turns: photos of NYUv2 are seen again by the same
camera after turns of 3 to 15 degrees; none of them has a direction. The numbers are in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from training_pairs import KnownPair, nyu_pairs, posed_pairs, rendered_pairs

from metriloc.geometry import Camera, so3_exp
from metriloc.methods.matching.matchers import Matcher, Matches, load_matcher
from metriloc.methods.matching.stated_focal import pair_contradiction
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.shared_focal import shared_focal_factor
from metriloc.types import View

FACTORS = (1.0, 1.25, 0.8, 1.5, 1 / 1.5, 2.0, 0.5)
TURNED = 20


def pairs(root: Path) -> Iterator[KnownPair]:
    """Real and rendered pairs whose cameras are known."""
    yield from nyu_pairs(root / "nyuv2", depth=False)
    yield from posed_pairs(root / "kitchen", (10, 25, 60, 120), 60, depth=False)
    yield from posed_pairs(root / "kitti" / "street00", (1, 2, 4, 8, 16), 40, depth=False)
    yield from rendered_pairs(12, 5)


def matched(matcher: Matcher, view0: View, view1: View) -> Matches:
    """The matches of two photos."""
    return matcher.match(view0, matcher.extract(view0), view1, matcher.extract(view1))


def cameras(view0: View, view1: View, factor: float) -> tuple[Camera, Camera]:
    """With wrong focal lengths."""
    return replace(view0.camera, f=factor * view0.camera.f), replace(view1.camera, f=factor * view1.camera.f)


def error_of(view: View) -> float:
    """The inlier threshold of matching, in pixels."""
    return 1.5 * max(view.size) / 640


def focal_lengths(matcher: Matcher, root: Path, every: int) -> None:
    """One row a factor."""
    print("| focal lengths times | pairs with a direction | doubted |\n|--:|--:|--:|")
    chosen = [pair for number, pair in enumerate(pairs(root)) if number % every == 0]
    matches = [matched(matcher, pair.view0, pair.view1) for pair in chosen]
    for factor in FACTORS:
        asked = doubted = 0
        for pair, found in zip(chosen, matches, strict=True):
            wrong, error = cameras(pair.view0, pair.view1, factor), error_of(pair.view0)
            fit = essential_pose(found.uv0, found.uv1, wrong, error)
            if fit.pose is None or not fit.t_observable:
                continue
            better = shared_focal_factor(fit.pose, found.uv0, found.uv1, wrong, error)
            views = replace(pair.view0, camera=wrong[0]), replace(pair.view1, camera=wrong[1])
            asked, doubted = asked + 1, doubted + (pair_contradiction(views, better) is not None)
        print(f"| {factor:.2f} | {asked} | {doubted} |", flush=True)


def turns(matcher: Matcher, root: Path) -> None:
    """Photos of NYUv2 and what the same camera sees after a turn."""
    generator = torch.Generator().manual_seed(0)
    directions = 0
    for number, pair in zip(range(TURNED), nyu_pairs(root / "nyuv2", depth=False), strict=False):
        axis = torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
        w = math.radians(3 + 12 * number / (TURNED - 1)) * axis
        found = matched(matcher, pair.view0, turned(pair.view0, w))
        fit = essential_pose(found.uv0, found.uv1, cameras(pair.view0, pair.view0, 1.0), error_of(pair.view0))
        directions += fit.pose is not None and fit.t_observable
    print(f"\n{directions} of {TURNED} photos that were only turned have a direction")


def turned(view: View, w: torch.Tensor) -> View:
    """The photo as its camera sees it after the turn ``w`` (a rotation vector)."""
    K = view.camera.K.double()
    back = torch.linalg.inv(K @ so3_exp(w) @ torch.linalg.inv(K))
    height, width = view.image.shape[1:]
    v, u = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    seen = torch.stack([u, v, torch.ones_like(u)], -1) @ back.mT
    grid = 2 * (seen[..., :2] / seen[..., 2:] + 0.5) / torch.tensor([width, height]) - 1
    image = torch.nn.functional.grid_sample(view.image[None], grid[None].float(), align_corners=False)[0]
    return replace(view, image=image)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--every", type=int, default=2, help="take every so-manieth pair")
    arguments = parser.parse_args()
    matcher = load_matcher("xfeat+lightglue")
    turns(matcher, arguments.root)
    focal_lengths(matcher, arguments.root, arguments.every)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
