"""Validation of PixLoc in training: how near the truth alignments end that start from fixed poses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.datasets.pixloc_pairs import PointPair
from metriloc.geometry import Pose
from metriloc.lessons.alignment_pictures import alignment_figure, alignment_picture, errors_picture
from metriloc.lessons.pair_pictures import drawable
from metriloc.methods.pixloc import GNNet
from metriloc.methods.pixloc.trace import made_of
from metriloc.methods.pixloc.training import PixLocTraining, collate
from metriloc.methods.pixloc.two_view import TwoViewBatch, pose_errors
from metriloc.training import Picture, Validation
from metriloc.types import DenseFeatures
from metriloc.viz.chooser import chooser_script

SUCCESS_PX = 2.0
"""An alignment succeeded when its points lie nearer than this (median) to their true places."""
WORST_PX = 50.0


@dataclass(frozen=True, eq=False)
class AlignmentValidation:
    """A ``Validator``: aligns every sample from its fixed start.

    Metrics: error_px, mean over the samples of the median distance of points from their true places, at most 50;
    start_px, the same at the start; success, share below 2 px; improved, share that ended nearer than it started;
    rotation_deg and translation_m, medians. pictures: samples that are drawn, and can be looked into on the page, beside
    histograms of the errors, where matplotlib is installed.
    """

    samples: Iterable[PointPair]
    pictures: int = 4

    def __call__(self, method: nn.Module) -> Validation:
        if not isinstance(method, PixLocTraining):
            raise ValueError(f"AlignmentValidation validates PixLocTraining, got {type(method).__name__}")
        device = next(method.parameters()).device
        rows: list[Tensor] = []
        pictures: list[Picture] = []
        figures: list[str] = []
        for sample in self.samples:
            batch = collate([sample.pair], [sample.xyz], [sample.init]).to(device)
            poses = align_batch(method, batch)
            angle, distance = pose_errors(poses[-1], batch.query_from_reference)
            errors = [median_error_px(batch, pose) for pose in (batch.init, poses[-1])]
            rows.append(torch.cat([*errors, angle, distance]).cpu())
            if len(pictures) < self.pictures and drawable():
                start_px, end_px = rows[-1][:2].tolist()
                levels = [pose[0].to("cpu") for pose in poses]
                pictures.append(alignment_picture(sample, levels[-1], start_px, end_px))
                figures.append(alignment_figure(sample, levels, (start_px, end_px), looked_at(method, batch)))
        table = torch.nan_to_num(torch.stack(rows), nan=torch.inf)
        if pictures:
            start, end = table[:, :2].clamp(max=WORST_PX).numpy().T
            pictures.insert(0, errors_picture(start, end, WORST_PX))
        return Validation(_metrics(table), tuple(pictures), tuple(figures), chooser_script() if figures else None)


def _metrics(table: Float[Tensor, "n 4"]) -> dict[str, float]:
    """table: error at the start and at the end, pixels, angle and distance of each sample."""
    start, end = table[:, 0].clamp(max=WORST_PX), table[:, 1].clamp(max=WORST_PX)
    return {
        "error_px": float(end.mean()),
        "start_px": float(start.mean()),
        "success": float((end < SUCCESS_PX).float().mean()),
        "improved": float((table[:, 1] < table[:, 0]).float().mean()),
        "rotation_deg": float(table[:, 2].median()),
        "translation_m": float(table[:, 3].median()),
    }


def align_batch(method: PixLocTraining, batch: TwoViewBatch) -> tuple[Pose, ...]:
    """The poses at the end of each level, coarse to fine."""
    model = method.model
    if isinstance(model, GNNet):
        return model.align(batch, *model(batch)).poses
    return model(batch).poses


def looked_at(method: PixLocTraining, batch: TwoViewBatch) -> tuple[DenseFeatures, DenseFeatures]:
    """What the network makes of reference and query of the first sample."""
    reference, query = method.network(batch.reference[:1]), method.network(batch.query[:1])
    return made_of("reference", reference), made_of("query", query)


def median_error_px(batch: TwoViewBatch, pose: Pose) -> Float[Tensor, " B"]:
    """Median distance between projections under ``pose`` and the truth, of the points the true query sees, pixels.

    NaN for a sample without such points. Points behind the camera count with their clamped projections.
    """
    uv_true, seen = batch.query_camera.project(batch.query_from_reference.transform(batch.xyz))
    uv, _ = batch.query_camera.project(pose.transform(batch.xyz))
    distance = (uv - uv_true).norm(dim=-1)
    return torch.where(seen, distance, torch.full_like(distance, torch.nan)).nanmedian(-1).values
