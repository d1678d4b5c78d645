"""What MicKey's training looks like on one pair: inliers, drawn matches, scores, depths and rewards, as pictures."""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.methods.mickey.keypoint_maps import MicKeyFeatures
from metriloc.methods.mickey.objective import Objective
from metriloc.training import Picture
from metriloc.types import Correspondences, PoseEstimate
from metriloc.viz import depth_overlay, match_picture, score_overlay

Sides = tuple[MicKeyFeatures, MicKeyFeatures]
DRAWN_LINES = 100


def drawable() -> bool:
    """Whether matplotlib is there to color pictures. Without it training goes on and draws none."""
    return importlib.util.find_spec("matplotlib") is not None


def pair_pictures(
    sides: Sides, estimate: PoseEstimate, found: Objective, rewards: tuple[Float[Tensor, " N0"], Float[Tensor, " N1"]]
) -> list[Picture]:
    """Five pictures of one pair. estimate: its pose; found: its objective; rewards: of the keypoints of both photos."""
    images = sides[0].view.image, sides[1].view.image
    name = f"{sides[0].view.name} {sides[1].view.name}".strip()
    inliers = estimate.details[0].inliers if estimate.details else Correspondences.empty()
    grids = [reward.reshape(side.keypoints.grid) for reward, side in zip(rewards, sides, strict=True)]
    scores = [score_overlay(s.view.image, s.score_map().cpu(), s.cell) for s in sides]
    depths = [depth_overlay(s.depth_map().cpu(), s.cell, s.view.size) for s in sides]
    reward = [score_overlay(s.view.image, grid.cpu(), s.cell) for s, grid in zip(sides, grids, strict=True)]
    drawn = match_picture(*images, best_set(sides, found), DRAWN_LINES, color="probability", kind="sampled")
    return [
        Picture(f"inliers {name}", match_picture(*images, inliers), "of the pose that is found"),
        Picture(f"matches {name}", drawn, "of the set that cost least, by probability"),
        Picture(f"scores {name}", side_by_side(scores), "of the keypoints, on both photos"),
        Picture(f"depth {name}", side_by_side(depths), "predicted, of both photos"),
        Picture(f"reward {name}", side_by_side(reward), "yellow: drawn in sets that cost less than the mean"),
    ]


def best_set(sides: Sides, found: Objective) -> Correspondences:
    """The matches of the set with the least expected loss."""
    best = int(found.set_loss[0].argmin())
    present = found.draws.present[0, best]
    i, j = (index[0, best][present] for index in (found.draws.index0, found.draws.index1))
    first, second = sides[0].keypoints, sides[1].keypoints
    probability = first.score[0, i] * second.score[0, j]
    parts = (first.uv[0, i], second.uv[0, j], first.depth[0, i], second.depth[0, j], probability)
    return Correspondences(*(part.cpu() for part in parts))


def side_by_side(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures in a row, the lower ones filled up with black."""
    height = max(len(picture) for picture in pictures)
    return np.concatenate([np.pad(p, ((0, height - len(p)), (0, 0), (0, 0))) for p in pictures], 1)


def photo_and_depths(features: MicKeyFeatures) -> Picture:
    """Photo, true depth, predicted depth side by side. Depths as grey on one logarithmic scale."""
    view = features.view
    w, h = view.size
    photo = (255 * view.image).byte().permute(1, 2, 0).cpu().numpy()
    true = view.depth if view.depth is not None else torch.zeros(h, w)
    known = true[true > 0]
    low, high = (known.min().log(), known.max().log()) if len(known) else (torch.zeros(()), torch.ones(()))
    panels = [photo]
    for depth in (true, features.depth_map().cpu()):
        gray = 255 * (1 - (depth.clamp(min=1e-3).log() - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
        large = torch.nn.functional.interpolate(gray[None, None], size=(h, w), mode="nearest")[0, 0]
        panels.append(large.byte().numpy()[..., None].repeat(3, -1))
    return Picture(view.name, np.concatenate(panels, 1), "photo, true and predicted depth")
