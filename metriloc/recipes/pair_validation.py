"""Validation of a relative-pose method in training: the benchmark's own metrics on a fixed list of pairs, and depth maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.evaluation.curves import mapfree_auc
from metriloc.evaluation.errors import rotation_error_deg, translation_error, vcre
from metriloc.geometry import sample_depth
from metriloc.methods.mickey import MicKeyTraining
from metriloc.methods.mickey.model import MicKey, MicKeyFeatures
from metriloc.training import Picture, Validation
from metriloc.types import Pair, View

ACCEPTED = 0.1
"""A pose is right when its VCRE is below this share of the photo's diagonal (Map-free)."""


@dataclass(frozen=True, eq=False)
class PairValidation:
    """A ``Validator``: runs the model on every pair, always in the same way.

    Metrics: depth_log_error, mean ``|log z / z_true|`` at the keypoints (depth_constant: of the best constant depth);
    vcre_precision and vcre_auc at 10 % of the diagonal; median rotation (degrees) and translation (metres) errors,
    and of the identity pose beside them; pictures: photo, true and predicted depth.
    """

    pairs: Sequence[Pair]
    pictures: int = 4

    def __call__(self, method: nn.Module) -> Validation:
        if not isinstance(method, MicKeyTraining):
            raise ValueError(f"PairValidation validates MicKeyTraining, got {type(method).__name__}")
        model = method.model()
        rows, logs, pictures = [], [], []
        for number, pair in enumerate(self.pairs):
            features = [model.extract(view) for view in (pair.view0, pair.view1)]
            logs += [_log_ratios(found) for found in features]
            rows.append(_errors(model, pair, features[0], features[1]))
            if number < self.pictures:
                pictures.append(Picture(pair.view0.name, _picture(features[0]), "photo, true and predicted depth"))
        numbers = np.array(rows)
        accepted = numbers[:, 0] < ACCEPTED
        medians = np.nanmedian(numbers[:, 1:3], 0)
        ratio = torch.cat([log[0] for log in logs])
        truth = torch.cat([log[1] for log in logs])
        return Validation(
            {
                "depth_log_error": float(ratio.abs().mean()),
                "depth_constant": float((truth - truth.median()).abs().mean()),
                "vcre_precision": float(accepted.mean()),
                "vcre_auc": mapfree_auc(numbers[:, 3], accepted),
                "rotation_deg": float(medians[0]),
                "translation_m": float(medians[1]),
                "identity_translation_m": float(np.median(numbers[:, 4])),
                "identity_precision": float((numbers[:, 5] < ACCEPTED).mean()),
            },
            tuple(pictures),
        )


def _log_ratios(features: MicKeyFeatures) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """``log(z / z_true)`` and ``log z_true`` at the keypoints that have a true depth."""
    view, found = features.view, features.keypoints
    if view.depth is None:
        return torch.zeros(0), torch.zeros(0)
    true, known = sample_depth(view.depth, found.uv[0].cpu(), view.size)
    ratio = found.depth[0].cpu()[known].clamp(min=1e-3) / true[known]
    return ratio.log(), true[known].log()


def _errors(model: MicKey, pair: Pair, first: MicKeyFeatures, second: MicKeyFeatures) -> tuple[float, ...]:
    """(VCRE over the diagonal, degrees, metres, confidence) of the estimate, (metres, VCRE) of the identity pose."""
    true = pair.cam1_from_cam0
    if true is None:
        raise ValueError(f"validation needs pairs with poses, {pair.view0.name!r} has none")
    camera = pair.view1.camera
    diagonal = float(camera.size.norm())
    estimate = model.relative_pose(first, second)
    pose = estimate.pose.to(true.dtype)
    identity = type(true).identity(dtype=true.dtype)
    values = [vcre(p, true, camera.K, camera.size) / diagonal for p in (pose, identity)]
    own = [float(v) for v in (values[0], rotation_error_deg(pose, true), translation_error(pose, true))]
    if not bool(estimate.success):
        own = [float("inf"), float("nan"), float("nan")]
    return (*own, float(estimate.confidence), float(translation_error(identity, true)), float(values[1]))


def _picture(features: MicKeyFeatures) -> np.ndarray:
    """Photo, true depth, predicted depth side by side; depths as grey on one logarithmic scale."""
    view: View = features.view
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
    return np.concatenate(panels, 1)
