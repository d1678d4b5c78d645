"""One synthetic place: built from a seed, rendered for any pinhole camera with exact depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from metriloc.datasets.synthetic.config import KINDS, Exposure, Kind, SyntheticConfig
from metriloc.datasets.synthetic.light import bake
from metriloc.datasets.synthetic.mesh import Mesh, PlacedObject
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.photos import load_photos
from metriloc.datasets.synthetic.render import Visible, look_through
from metriloc.datasets.synthetic.rooms import Stage, room
from metriloc.datasets.synthetic.shading import Atlas, Lightmap, paint
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.streets import square, street
from metriloc.datasets.synthetic.textures import fractal
from metriloc.geometry import Camera, Pose
from metriloc.types import View

_OUTDOORS = {"street": street, "square": square}


@dataclass(frozen=True, eq=False)
class SyntheticScene:
    """One built place. objects: what stands in it, with real-world sizes; kind, seed, config: where it came from."""

    seed: int
    kind: Kind
    config: SyntheticConfig
    objects: tuple[PlacedObject, ...]
    mesh: Mesh
    atlas: Atlas
    lightmap: Lightmap
    stage: Stage
    clouds: np.ndarray
    gain: float

    def render(
        self,
        camera: Camera,
        cam_from_world: Pose,
        exposure: Exposure | None = None,
        generator: torch.Generator | None = None,
    ) -> View:
        """The photo a camera takes.

        Image, exact depth (metres, 0 where the sky is), camera and pose.

        - camera, cam_from_world: of a single photo.
        - exposure: how it is developed; None for the default.
        - generator: for the sensor noise, needed if ``exposure.noise`` > 0.

        Raises ValueError for a batch of cameras or poses, a camera with distortion and a pose that is not finite.
        """
        exposure = exposure or Exposure()
        if exposure.noise > 0 and generator is None:
            raise ValueError(f"rendering with noise {exposure.noise} needs a generator")
        return self.develop(self.look(camera, cam_from_world), camera, cam_from_world, exposure, generator)

    def look(self, camera: Camera, cam_from_world: Pose) -> Visible:
        """What the camera sees, before any colour: patches and depth. Raises ValueError as ``render`` does."""
        if camera.shape != () or cam_from_world.shape != ():
            raise ValueError(
                f"render takes one camera and one pose, got batch shapes {tuple(camera.shape)} and "
                f"{tuple(cam_from_world.shape)}"
            )
        if camera.model != "pinhole":
            raise ValueError(f"render takes pinhole cameras only, got the model {camera.model!r}")
        if not bool(cam_from_world.is_finite()):
            raise ValueError("render needs a finite cam_from_world")
        return look_through(self.mesh, camera, cam_from_world)

    def develop(
        self, visible: Visible, camera: Camera, pose: Pose, exposure: Exposure, generator: torch.Generator | None
    ) -> View:
        """The photo of what ``look`` found with the same camera and pose.

        - visible, camera, pose: what ``look`` found, and with what.
        - exposure, generator: as in ``render``.
        """
        R = pose.R.double().numpy().astype(np.float32)
        light = paint(visible, self.mesh, self.atlas, self.lightmap, lambda rays: self._sky(rays @ R))
        light *= np.asarray(exposure.balance, dtype=np.float32) * np.float32(exposure.gain * self.gain)
        # a film-like curve (Narkowicz's fit of ACES): soft highlights and deep shadows; then the display's
        film = light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14)
        image = torch.from_numpy(film).clamp_(0, 1).pow_(1 / 2.2).permute(2, 0, 1)
        if exposure.noise > 0:
            image = image + exposure.noise * torch.randn(image.shape, generator=generator)
        depth = torch.from_numpy(visible.depth.astype(np.float32))
        name = f"synthetic/{self.kind}-{self.seed}"
        return View(image.clamp(0, 1).contiguous(), camera, pose, name, "exact: a rendered camera", depth)

    def _sky(self, rays: np.ndarray) -> np.ndarray:
        """Linear colour of world directions: blue above, pale at the horizon, clouds."""
        up = rays[:, 2] / np.linalg.norm(rays, axis=1)
        side = self.clouds.shape[0]
        spread = 0.35 * side / np.maximum(up, 0.06)
        flat = rays[:, :2] / np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-9)
        index = (flat * spread[:, None]).astype(np.int64) % side
        cloud = self.clouds[index[:, 0], index[:, 1]] * np.clip(up * 6, 0, 1)
        blend = np.clip(up, 0, 1)[:, None] ** 0.5
        blue = np.array([0.75, 0.85, 0.95]) * (1 - blend) + np.array([0.2, 0.4, 0.85]) * blend
        strength = 0.5 + float(self.stage.lighting.ambient.mean())
        return (strength * (blue + (np.array([1.0, 1.0, 1.0]) - blue) * cloud[:, None])).astype(np.float32)


def make_scene(seed: int, config: SyntheticConfig | None = None) -> SyntheticScene:
    """Build the scene of that seed. Raises ValueError for a negative seed or an unusable photo folder."""
    if seed < 0:
        raise ValueError(f"the seed of a scene must be >= 0, got {seed}")
    config = config or SyntheticConfig()
    rng = np.random.default_rng([seed, 20_240])
    weights = np.array(config.weights) / sum(config.weights)
    kind = KINDS[int(rng.choice(len(KINDS), p=weights))]
    photos = load_photos(config.photos, config.texture_size, rng) if config.photos is not None else ()
    builder, palette = Builder(), Palette(rng, config.texture_size, photos)
    if kind == "room":
        stage = room(builder, palette, rng)
    else:
        stage = _OUTDOORS[kind](builder, palette, rng, _outdoor_scale(config, rng))
    mesh, atlas = builder.mesh(), palette.atlas()
    lightmap = bake(mesh, stage.lighting, stage.low, stage.high)
    clouds = np.clip((fractal(rng, 256, 4, 6) - rng.uniform(0.4, 0.8)) * 3, 0, 1) * rng.uniform(0.4, 1.0)
    gain = _scene_gain(mesh, atlas, lightmap) * math.exp(rng.normal(0, 0.15))
    objects = tuple(builder.objects)
    return SyntheticScene(seed, kind, config, objects, mesh, atlas, lightmap, stage, clouds, gain)


def _outdoor_scale(config: SyntheticConfig, rng: np.random.Generator) -> float:
    """Nothing is drawn where there is no choice, so that everyday scenes do not depend on it."""
    low, high = config.outdoor_scale
    return math.exp(rng.uniform(math.log(low), math.log(high))) if high > low else low


def _scene_gain(mesh: Mesh, atlas: Atlas, lightmap: Lightmap) -> float:
    """Exposure that puts the typical brightness of the scene, weighted by area, at a middle grey."""
    last = atlas.texels[mesh.texture * atlas.stride + atlas.level_start[-1]].view(np.uint8).reshape(-1, 4)[:, :3]
    albedo = ((last / 255.0) ** 2 * mesh.tint).mean(1)
    light = np.add.reduceat(lightmap.values.mean(1), lightmap.start) / lightmap.shape.prod(1)
    area = np.linalg.norm(np.cross(mesh.right, mesh.down), axis=1).clip(max=25.0)
    mean_log = float((np.log(albedo * light + 1e-3) * area).sum() / area.sum())
    return 0.13 / math.exp(mean_log)
