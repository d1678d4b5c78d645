"""NRE: "Neural Reprojection Error: Merging Feature Learning and Camera Pose Estimation", CVPR 2021.

Equation map (paper -> function):

    Eq. (2)    metriloc.methods.nre.maps.log_correspondence
    Eq. (3)    metriloc.methods.nre.maps.reprojection_pmf
    Eq. (4)    metriloc.methods.nre.correlation.correlation_error
    Eq. (5)    metriloc.methods.nre.maps.log_cardinality
    Eq. (6)    metriloc.methods.nre.evidence.score_poses
    Eq. (7)    metriloc.methods.nre.maps.gain_maps
    Eq. (7)    metriloc.methods.nre.evidence.gain_at
    Eq. (8)    metriloc.methods.nre.initialize.solve_triplets
    Eq. (9)    metriloc.methods.nre.refine.smoothed_moments
    Eq. (10)   metriloc.methods.nre.correlation.correlation_error
    Eq. (11)   metriloc.methods.nre.maps.GainMaps
"""

# the functions initialise and refine are not exported: they would hide the modules of these names
from metriloc.backbones.local import descriptors_at
from metriloc.methods.nre.checkpoint import from_official, read_official
from metriloc.methods.nre.evidence import score_poses
from metriloc.methods.nre.initialize import Initialization, InitializeConfig
from metriloc.methods.nre.maps import (
    GainMaps,
    gain_maps,
    map_camera,
    window_gain_maps,
)
from metriloc.methods.nre.model import NRE
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig
from metriloc.methods.nre.refine import (
    RefineConfig,
    Refinement,
)
from metriloc.methods.nre.settings import NREConfig
from metriloc.methods.nre.windows import WindowConfig

__all__ = [
    "GainMaps",
    "Initialization",
    "InitializeConfig",
    "NRE",
    "NREConfig",
    "NRENetwork",
    "NRENetworkConfig",
    "RefineConfig",
    "Refinement",
    "WindowConfig",
    "descriptors_at",
    "from_official",
    "gain_maps",
    "map_camera",
    "read_official",
    "score_poses",
    "window_gain_maps",
]
