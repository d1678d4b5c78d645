"""Data sets in: posed photos of the published benchmarks and of the user's own, as scenes, pairs and training samples.

``PosedScene`` is what every reader returns, ``PairDataset`` what a trainer draws from, ``LocalizationTask`` what a
localisation benchmark consists of. Nothing is read before it is asked for; every user error is an ``InputError``.
"""

from metriloc.datasets.augment import Augment, Geometric, Photometric, mirror_pair, swap_pair, turn_pair, zoom_view
from metriloc.datasets.mapfree import FrameBlock, MapfreeScene, read_mapfree, read_mapfree_scene, uniform_pairs
from metriloc.datasets.nerfstudio import read_nerfstudio
from metriloc.datasets.overlap import depth_overlap, overlap_of_views, sfm_overlap, write_overlaps
from metriloc.datasets.overlap_table import overlapping_pairs, read_overlaps
from metriloc.datasets.posed import read_colmap, read_posed, read_posed_scenes, scene_from_map
from metriloc.datasets.rgbd import read_rgbd, with_depth_folder
from metriloc.datasets.sampler import PairBatches, SceneBalancedSampler, scene_balanced_order
from metriloc.datasets.scannet import (
    read_scannet_index,
    read_scannet_pairs,
    read_scannet_scan,
    scannet_training_pairs,
)
from metriloc.datasets.sevenscenes import read_sevenscenes
from metriloc.datasets.sources import DepthFormat, FramePair, PairDataset, PairList, PosedFrame, PosedScene
from metriloc.datasets.training_pairs import make_overlaps, read_training_pairs
from metriloc.datasets.tum import read_tum_folder
from metriloc.datasets.visloc import LocalizationTask
from metriloc.datasets.visloc_tasks import (
    aachen_task,
    cambridge_task,
    cmu_task,
    robotcar_task,
    sevenscenes_task,
)

__all__ = [
    # what every data set is made of
    "DepthFormat",
    "FramePair",
    "PairDataset",
    "PairList",
    "PosedFrame",
    "PosedScene",
    # Map-free
    "FrameBlock",
    "MapfreeScene",
    "read_mapfree",
    "read_mapfree_scene",
    "uniform_pairs",
    # any folder with poses
    "read_colmap",
    "read_nerfstudio",
    "read_posed",
    "read_posed_scenes",
    "read_rgbd",
    "read_sevenscenes",
    "read_tum_folder",
    "scene_from_map",
    "with_depth_folder",
    # ScanNet
    "read_scannet_index",
    "read_scannet_pairs",
    "read_scannet_scan",
    "scannet_training_pairs",
    # localisation benchmarks
    "LocalizationTask",
    "aachen_task",
    "cambridge_task",
    "cmu_task",
    "robotcar_task",
    "sevenscenes_task",
    # overlaps
    "depth_overlap",
    "make_overlaps",
    "overlap_of_views",
    "overlapping_pairs",
    "read_overlaps",
    "sfm_overlap",
    "write_overlaps",
    # training samples
    "Augment",
    "Geometric",
    "PairBatches",
    "Photometric",
    "SceneBalancedSampler",
    "mirror_pair",
    "read_training_pairs",
    "scene_balanced_order",
    "swap_pair",
    "turn_pair",
    "zoom_view",
]
