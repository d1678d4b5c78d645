"""Synthetic scenes at true size: furnished rooms, streets and squares with exact pose, depth and intrinsics, by seed.

    scene = make_scene(seed=7)
    pair = sample_pair(scene, torch.Generator().manual_seed(0))      # types.Pair; both views carry depth
    data = SyntheticPairs(num_scenes=100, pairs_per_scene=20)        # a torch data set of such pairs

Everything is procedural, no asset is shipped. World frame: z up, metres; depth is exact at pixel centres, 0 is the sky.
The same seed and configuration give the same pictures on the same machine. To read on: ``rooms``,
``interiors`` and ``streets`` (what stands where), ``furniture``, ``shapes`` (solids),
``textures``, ``pictures`` and ``palette`` (surfaces), ``light``,
``render``, ``pairs`` (which two views make a pair).
"""

from __future__ import annotations

from metriloc.datasets.synthetic.config import Exposure, Kind, PairLimits, SyntheticConfig, sample_camera
from metriloc.datasets.synthetic.mesh import PlacedObject
from metriloc.datasets.synthetic.pairs import SyntheticPairs, overlap, sample_pair
from metriloc.datasets.synthetic.scene import SyntheticScene, make_scene

__all__ = [
    "SyntheticConfig",
    "PairLimits",
    "Exposure",
    "Kind",
    "SyntheticScene",
    "PlacedObject",
    "make_scene",
    "sample_camera",
    "sample_pair",
    "overlap",
    "SyntheticPairs",
]
