"""What the trainer sees of MicKey: a module that turns a batch of posed photo pairs into one loss.

Network -> keypoints -> points -> objective, with the same functions as at test time. Everything after the network runs
in float32, also under autocast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.geometry import Camera, Pose
from metriloc.methods.mickey.curriculum import Curriculum
from metriloc.methods.mickey.finding import PoseFinding
from metriloc.methods.mickey.keypoint_maps import KeypointMaps, Keypoints
from metriloc.methods.mickey.model import MicKey
from metriloc.methods.mickey.network import MicKeyNetwork
from metriloc.methods.mickey.objective import Objective, ObjectiveConfig, PairFeatures, Truth, objective
from metriloc.methods.mickey.supervision import SupervisionConfig, supervised_loss
from metriloc.types import Pair, StepOutput


@dataclass(frozen=True, eq=False)
class PairBatch:
    """B posed pairs of photos. images: RGB in 0..1; cameras [B]: of these images; cam1_from_cam0: true poses [B], metres.

    depth0, depth1: metres along z, 0 unknown, covering the same field of view, None where there are none. original0,
    original1: cameras of the photos before resizing, in whose pixels the VCRE is measured as published; None for those
    of the images.
    """

    image0: Float[Tensor, "B 3 H0 W0"]
    image1: Float[Tensor, "B 3 H1 W1"]
    camera0: Camera
    camera1: Camera
    cam1_from_cam0: Pose
    depth0: Float[Tensor, "B h0 w0"] | None = None
    depth1: Float[Tensor, "B h1 w1"] | None = None
    original0: Camera | None = None
    original1: Camera | None = None

    def __post_init__(self) -> None:
        count = (len(self.image0),)
        shapes = [self.camera0.shape, self.camera1.shape, self.cam1_from_cam0.shape, self.image1.shape[:1]]
        shapes += [camera.shape for camera in (self.original0, self.original1) if camera is not None]
        shapes += [depth.shape[:1] for depth in (self.depth0, self.depth1) if depth is not None]
        if self.image0.ndim != 4 or self.image1.ndim != 4 or any(shape != count for shape in shapes):
            found = ", ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"PairBatch of images {list(self.image0.shape)} needs everything else [B], got {found}")

    def __len__(self) -> int:
        return len(self.image0)

    def to(self, device: torch.device | str) -> PairBatch:
        """The batch on another device."""

        def moved(values: dict[str, Any]) -> dict[str, Any]:
            return {name: None if value is None else value.to(device) for name, value in values.items()}

        return PairBatch(**moved({f.name: getattr(self, f.name) for f in dataclasses.fields(self)}))

    @classmethod
    def from_pairs(
        cls,
        pairs: Sequence[Pair],
        originals: Sequence[tuple[Camera, Camera]] | None = None,
        original_size: tuple[int, int] | None = None,
    ) -> PairBatch:
        """Stack pairs of photos of one size.

        - pairs: depths are kept where every photo of a side has one of the same size.
        - originals: the cameras before resizing.
        - original_size: instead of them, (width, height) that all photos had before resizing (of a photo that was cropped and
          enlarged: of the enlarged one).

        Raises ValueError for pairs without pose and for photos of many sizes.
        """
        poses = [pair.cam1_from_cam0 for pair in pairs if pair.cam1_from_cam0 is not None]
        if not pairs or len(poses) < len(pairs):
            raise ValueError(f"a training batch needs pairs with known poses, got {len(poses)} of {len(pairs)}")
        sides = [[pair.view0 for pair in pairs], [pair.view1 for pair in pairs]]
        for views in sides:
            sizes = {view.size for view in views}
            if len(sizes) > 1:
                raise ValueError(f"the photos of one side of a batch must have one size, got {sorted(sizes)}")
        image0, image1 = (torch.stack([view.image for view in views]) for views in sides)
        camera0, camera1 = (Camera.stack([view.camera for view in views]) for views in sides)
        depth0, depth1 = (_stack_equal([view.depth for view in views]) for views in sides)
        batch = cls(image0, image1, camera0, camera1, Pose.stack(poses), depth0, depth1)
        if original_size is not None:
            size = batch.camera0.size.new_tensor(original_size)
            scaled = [camera.scale(size / camera.size) for camera in (camera0, camera1)]
            return dataclasses.replace(batch, original0=scaled[0], original1=scaled[1])
        if originals is None:
            return batch
        first, second = (Camera.stack(side) for side in zip(*originals, strict=True))
        return dataclasses.replace(batch, original0=first, original1=second)


def _stack_equal(depths: Sequence[Tensor | None]) -> Tensor | None:
    found = [depth for depth in depths if depth is not None]
    if len(found) < len(depths) or len({depth.shape for depth in found}) != 1:
        return None
    return torch.stack(found)


class MicKeyTraining(nn.Module):
    """A MicKey network with its training objective (paper Sec. 3.1; ``Trainable``).

    curriculum: None to learn from all pairs. supervision: None to learn from poses alone; else it acts on batches that
    have depth. finding: how the model that ``save_pretrained`` writes finds poses. pose_weight: of the objective beside
    the supervised losses. The module's parameters are the network's.
    """

    def __init__(
        self,
        network: MicKeyNetwork,
        config: ObjectiveConfig | None = None,
        curriculum: Curriculum | None = None,
        supervision: SupervisionConfig | None = None,
        finding: PoseFinding | None = None,
        pose_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not pose_weight > 0:
            raise ValueError(f"pose_weight must be positive, got {pose_weight}")
        self.pose_weight = pose_weight
        self.finding = finding or PoseFinding()
        self.network = network
        self.config = config or ObjectiveConfig()
        self.curriculum = curriculum
        self.supervision = supervision

    def forward(self, batch: PairBatch, step: int, generator: torch.Generator) -> StepOutput:
        """As ``training_step``; wrappers of modules (DDP) call this.

        - batch, step, generator: as there.
        """
        return self.training_step(batch, step, generator)

    def training_step(self, batch: PairBatch, step: int, generator: torch.Generator) -> StepOutput:
        """The loss of one batch.

        - batch: pairs with poses.
        - step: optimiser steps done so far.
        - generator: on the CPU, the only source of chance.

        Metrics: ``loss_pose`` (the expected pose loss, what the curriculum sorts by), ``rotation_error_deg`` and
        ``translation_error_m`` (expected), ``null_weight`` (0..1), ``soft_inliers`` (share of a set, best hypothesis),
        ``pairs`` (learned from) and ``percent``; the supervised losses where they act.
        """
        features = self.features(batch)
        loss = batch.image0.new_zeros(())
        metrics: dict[str, Tensor] = {}
        percent = 100.0 if self.curriculum is None else self.curriculum.percent(step)
        with torch.autocast(batch.image0.device.type, enabled=False):
            supervision = self._active_supervision(batch, step)
            if supervision is not None:
                loss, metrics = self._supervised(features, batch, supervision)
            if supervision is None or step >= supervision.alone:
                truth = Truth(batch.cam1_from_cam0, batch.original0 or batch.camera0, batch.original1 or batch.camera1)
                chance = _generator_on(batch.image0.device, generator)
                found = objective(features, truth, self.config, chance, None if percent == 100 else percent)
                loss = loss + self.pose_weight * found.loss
                metrics |= _metrics(found, self.config)
        metrics["loss"] = loss.detach()
        names, values = list(metrics), torch.stack([value.detach().float() for value in metrics.values()])
        numbers = dict(zip(names, values.tolist(), strict=True))
        return StepOutput(loss, numbers | {"percent": percent})

    @torch.no_grad()
    def judge(
        self, keypoints: tuple[Keypoints, Keypoints], cameras: tuple[Camera, Camera], truth: Truth, seed: int = 0
    ) -> Objective:
        """The objective of pairs [B] whose keypoints are known, without selection.

        For validation and its pictures.

        - keypoints, cameras: of both photos.
        - truth: true poses.
        - seed: of the draws.
        """
        device = keypoints[0].uv.device
        config, dustbin = self.network.config, self.network.dustbin if self.network.config.use_dustbin else None
        features = PairFeatures.lifted(*keypoints, cameras, config.match_temperature, dustbin)
        return objective(features, truth, self.config, torch.Generator(device).manual_seed(seed))

    def model(self) -> MicKey:
        """The network as it is, ready to find poses. It goes into evaluation mode."""
        finding = self.finding
        side, network = finding.longest_side, self.network.eval()
        if side is not None:
            network = network.looking_at(side)
        return MicKey(network, finding.solver, finding.polish, rematch=finding.rematch)

    def save_pretrained(self, folder: str | Path) -> str:
        """Write the network and the solver for ``MicKey.from_pretrained``; returns the weights id."""
        mode = self.network.training
        try:
            return self.model().save_pretrained(folder)
        finally:
            self.network.train(mode)

    def features(self, batch: PairBatch) -> PairFeatures:
        """Keypoints of all photos and their points.

        Both photos of the pairs in one pass where their sizes agree.
        """
        network, B = self.network, len(batch)
        if network.working_size(batch.image0) != tuple(batch.image0.shape[:1:-1]):
            raise ValueError(
                f"training photos must have the network's working size {network.working_size(batch.image0)}, "
                f"got {tuple(batch.image0.shape[:1:-1])}"
            )
        if batch.image0.shape == batch.image1.shape:
            maps = network(torch.cat([batch.image0, batch.image1]))
            sides = [_slice(maps, slice(0, B)), _slice(maps, slice(B, 2 * B))]
        else:
            sides = [_slice(network(image), slice(None)) for image in (batch.image0, batch.image1)]
        photos = ((batch.image0, batch.camera0), (batch.image1, batch.camera1))
        first, second = (network.locate(side, *photo) for side, photo in zip(sides, photos, strict=True))
        dustbin = network.dustbin.float() if network.config.use_dustbin else None
        cameras = (batch.camera0, batch.camera1)
        with torch.autocast(batch.image0.device.type, enabled=False):
            return PairFeatures.lifted(first, second, cameras, network.config.match_temperature, dustbin)

    def _active_supervision(self, batch: PairBatch, step: int) -> SupervisionConfig | None:
        found = self.supervision
        if found is None or (found.until is not None and step >= found.until):
            return None
        return found if batch.depth0 is not None and batch.depth1 is not None else None

    def _supervised(
        self, features: PairFeatures, batch: PairBatch, config: SupervisionConfig
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if batch.depth0 is None or batch.depth1 is None:
            raise ValueError("supervision needs a batch with depth")
        depths, cameras = (batch.depth0, batch.depth1), (batch.camera0, batch.camera1)
        return supervised_loss(features, depths, cameras, batch.cam1_from_cam0, self.network.stride, config)


def _slice(maps: KeypointMaps, part: slice) -> KeypointMaps:
    """Some photos of a batch, in float32 whatever autocast made of them."""
    return KeypointMaps(*(getattr(maps, f.name)[part].float() for f in dataclasses.fields(maps)))


def _generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """The draws happen where the features are; one number of the CPU generator starts each step there."""
    if generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def _metrics(found: Objective, config: ObjectiveConfig) -> dict[str, Tensor]:
    best = found.hypotheses.score.amax(-1).mean()
    return {
        "loss_pose": found.pair_loss.mean(),
        "rotation_error_deg": torch.rad2deg(found.rotation_error),
        "translation_error_m": found.translation_error,
        "null_weight": 1 - found.weight.sum(-1).mean(),
        "soft_inliers": best / config.solver.set_size,
        "pairs": found.chosen.sum(),
    }
