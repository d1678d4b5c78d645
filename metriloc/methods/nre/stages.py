"""The stages of one query: read the references, coarse maps to a pose (P3P, GNC-IRLS), windows of fine maps (GNC-IRLS).

Maps may be made on a GPU; points and poses stay on the CPU, so the maps come to them, not the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metriloc.backbones.local import DenseExtractor
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.reference_features import ReferenceFeatures
from metriloc.methods.nre.initialize import initialize
from metriloc.methods.nre.looks import Reference, StageLook, apparent_scale, sights
from metriloc.methods.nre.maps import gain_maps
from metriloc.methods.nre.progress import Progress
from metriloc.methods.nre.refine import refine
from metriloc.methods.nre.settings import NREConfig
from metriloc.methods.nre.support import Look
from metriloc.methods.nre.windows import refine_in_windows
from metriloc.stopwatch import timed
from metriloc.types import FailureReason, SfmMap, View


@dataclass(frozen=True, eq=False)
class Place:
    """Where a query is looked for. seen: references with the points they see; kept: what networks saw in them; scale: how
    much larger the query shows the scene."""

    query: View
    scene: SfmMap
    seen: list[Reference]
    kept: ReferenceFeatures
    weights_id: str
    scale: float = 1.0


def read_references(
    scene: SfmMap, names: Sequence[str], kept: ReferenceFeatures, config: NREConfig, progress: Progress
) -> list[Reference]:
    """The references that can be read, with the points that the first of them sees; what cannot be is told."""
    with timed(progress.timings, "read"):
        assigned = scene.assign_points([scene.index(name) for name in names], config.min_track)
        total = sum(len(seen) for _, seen in assigned)
        found = []
        for image, seen in assigned:
            try:
                size = kept.size(scene, image)
            except InputError as error:
                progress.messages.append(str(error))
                continue
            if total > config.max_points:
                count = max(1, round(len(seen) * config.max_points / total))
                seen = seen[torch.linspace(0, len(seen) - 1, count).round().long()]
            found.append(Reference.of(scene, image, size, seen))
        progress.references = tuple(reference.name for reference in found)
    return found


def coarse_stage(
    at: Place, features: DenseExtractor, config: NREConfig, init: Pose | None, seed: int, progress: Progress
) -> tuple[FailureReason | None, Pose | None]:
    """A pose from maps over the whole photo. init: takes the place of P3P."""
    with timed(progress.timings, "coarse features"):
        look = StageLook(features, config.coarse, at.query, at.seen, at.scale)
        dense, camera = look.query(), look.camera()
    with timed(progress.timings, "references"):
        descriptors = look.descriptors(at.scene, at.kept, at.weights_id)
    with timed(progress.timings, "coarse maps"):
        maps = gain_maps(descriptors, dense.descriptors, look.temperature).to("cpu")
        maps = maps.one_hot() if config.use_re else maps
        xyz = torch.cat([reference.xyz for reference in at.seen])
        progress.num_points = len(xyz)
    here = Look(maps, xyz, camera, *sights(at.seen))
    with timed(progress.timings, "p3p"):
        reason, starts = (None, init) if init is not None else _sampled(here, config, seed, progress)
    if starts is None:
        return reason, None
    index = torch.cat([reference.index for reference in at.seen])
    if config.skip_gnc:
        pose = starts if starts.shape == () else starts[0]
        progress.keep_maps("coarse", maps, index, xyz, camera, pose)
        progress.note_evidence(maps, xyz, camera, pose)
        progress.coarse = here
        return None, pose
    with timed(progress.timings, "coarse gnc"):
        refined = refine(maps, xyz, camera, starts, config.coarse_gnc)
    if refined.reason is not None:
        return refined.reason, None
    progress.coarse = here
    progress.keep_refined("coarse", here, index, refined, config.coarse_gnc.sigmas[-1])
    return None, refined.pose


def _sampled(here: Look, config: NREConfig, seed: int, progress: Progress) -> tuple[FailureReason | None, Pose | None]:
    """The best poses of P3P."""
    generator = torch.Generator().manual_seed(seed)
    found = initialize(here.maps, here.xyz, here.camera, generator, config.initialize)
    if found.reason is not None:
        return found.reason, None
    progress.keep_sampled(here.maps, here.xyz, here.camera)
    progress.add_start("p3p", here.maps, here.xyz, here.camera, found.poses[0], float(found.costs[0]))
    return None, found.poses


def fine_stage(
    at: Place, features: DenseExtractor, config: NREConfig, pose: Pose, progress: Progress
) -> tuple[FailureReason | None, Pose]:
    """The pose again, from fine maps in windows around where it puts the points."""
    with timed(progress.timings, "fine features"):
        scale = apparent_scale(at.query, at.seen, pose)
        look = StageLook(features, config.fine, at.query, at.seen, scale)
        dense, camera = look.query(), look.camera()
    with timed(progress.timings, "references"):
        descriptors = look.descriptors(at.scene, at.kept, at.weights_id)
    with timed(progress.timings, "fine gnc"):
        xyz = torch.cat([reference.xyz for reference in at.seen])
        found = refine_in_windows(descriptors, dense.descriptors, xyz, camera, pose, look.temperature, config.windows)
    refined = found.refinement
    if refined.reason is not None:
        return refined.reason, pose
    index = torch.cat([reference.index for reference in at.seen])[found.index]
    uv, owner = sights(at.seen)
    progress.fine = Look(found.maps, xyz[found.index], camera, uv[found.index], owner[found.index])
    progress.num_points = len(found.index)
    progress.keep_refined("fine", progress.fine, index, refined, config.windows.gnc.sigmas[-1])
    return None, refined.pose
