"""What the trainer sees of PixLoc: the two-view model or GN-Net, with the settings its weights are saved with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from metriloc.geometry import Camera, Pose
from metriloc.methods.pixloc.gnnet import GNNet, GNNetConfig
from metriloc.methods.pixloc.network import PixLocNetwork
from metriloc.methods.pixloc.settings import Settings, save_pretrained
from metriloc.methods.pixloc.two_view import TwoViewBatch, TwoViewConfig, TwoViewRefiner
from metriloc.types import Pair, StepOutput


class PixLocTraining(nn.Module):
    """A PixLoc network with its training objective (``Trainable``).

    config: of the two-view model, or of GN-Net. settings: of the localiser that ``save_pretrained`` writes; its network
    and cost are those trained with.
    """

    def __init__(
        self,
        network: PixLocNetwork,
        config: TwoViewConfig | GNNetConfig | None = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        self.model: TwoViewRefiner | GNNet
        if isinstance(config, GNNetConfig):
            self.model = GNNet(network, config)
        else:
            self.model = TwoViewRefiner(network, config)
        self.settings = settings or Settings()

    @property
    def network(self) -> PixLocNetwork:
        """What is trained."""
        return self.model.network

    @property
    def two_view(self) -> TwoViewConfig:
        """How alignments are run and judged."""
        config = self.model.config
        return config.two_view if isinstance(config, GNNetConfig) else config

    def forward(self, batch: TwoViewBatch, step: int, generator: torch.Generator) -> StepOutput:
        """As ``training_step``; wrappers of modules (DDP) call this."""
        return self.training_step(batch, step, generator)

    def training_step(self, batch: TwoViewBatch, step: int, generator: torch.Generator) -> StepOutput:
        """Loss and metrics of one batch. step: optimiser steps done so far; generator: on the CPU, GN-Net's only source of
        chance."""
        return self.model.training_step(batch, step, generator)

    def localizer_settings(self) -> Settings:
        """Settings for inference.

        Those given, with the network, cost and damping of the training.
        """
        trained = self.two_view
        align = dataclasses.replace(self.settings.align, cost=trained.align.cost, damping=trained.align.damping)
        config = dataclasses.replace(
            self.settings.config,
            normalize_features=trained.normalize_features,
            use_confidences=self.network.config.extractor.confidences and not isinstance(self.model, GNNet),
        )
        return dataclasses.replace(self.settings, network=self.network.config, align=align, config=config)

    def save_pretrained(self, folder: str | Path) -> str:
        """Write the network and its settings for ``PixLoc.from_pretrained``; returns the weights id."""
        return save_pretrained(self.network, folder, self.localizer_settings())


def collate(pairs: Sequence[Pair], xyz: Sequence[torch.Tensor], inits: Sequence[Pose]) -> TwoViewBatch:
    """One batch of pairs with true poses, points [N, 3] in the frame of each reference (view0), and first poses.

    Raises ValueError when a true pose is missing, or sizes or numbers of points differ.
    """
    for pair, points in zip(pairs, xyz, strict=True):
        if pair.cam1_from_cam0 is None:
            raise ValueError(f"a batch needs true poses, the pair of {pair.view1.name!r} has none")
        if pair.view0.size != pairs[0].view0.size or pair.view1.size != pairs[0].view1.size:
            raise ValueError(f"photos of a batch must have one size: {pair.view0.size} and {pairs[0].view0.size}")
        if points.shape != xyz[0].shape:
            raise ValueError(f"samples of a batch need as many points: {list(points.shape)}, {list(xyz[0].shape)}")
    return TwoViewBatch(
        reference=torch.stack([pair.view0.image for pair in pairs]),
        query=torch.stack([pair.view1.image for pair in pairs]),
        reference_camera=_cameras([pair.view0.camera for pair in pairs]),
        query_camera=_cameras([pair.view1.camera for pair in pairs]),
        xyz=torch.stack(list(xyz)).float(),
        query_from_reference=Pose.stack([p.cam1_from_cam0 for p in pairs if p.cam1_from_cam0 is not None]).to(
            torch.float32
        ),
        init=Pose.stack(list(inits)).to(torch.float32),
    )


def _cameras(cameras: Sequence[Camera]) -> Camera:
    """One batch; pinholes among cameras with radial distortion become such without any."""
    if len({camera.model for camera in cameras}) > 1:
        cameras = [_radtan(camera) for camera in cameras]
    return Camera.stack([camera.to(torch.float32) for camera in cameras])


def _radtan(camera: Camera) -> Camera:
    if camera.model != "pinhole":
        return camera
    return Camera(camera.size, camera.f, camera.c, camera.f.new_zeros(*camera.shape, 5), "radtan")
