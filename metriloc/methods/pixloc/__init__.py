"""PixLoc: "Back to the Feature: Learning Robust Camera Localization from Pixels to Pose", CVPR 2021.

Equation map (paper -> function). The paper was not at hand when this was written (the implementation follows a written
specification), so the numbers are from memory and each row says what it means:

    Eq. (1)    metriloc.methods.pixloc.cost.linearize           r = F_query[p] - F_reference
    Eq. (2)    metriloc.methods.pixloc.cost.linearize           E = sum w rho(|r|^2)
    Eq. (3)    metriloc.methods.pixloc.cost.normal_equations    J, H = sum w J^T J
    Eq. (4)    metriloc.methods.pixloc.align.align              step = -(H + lambda diag H)^-1 J^T W r
    Eq. (5)    metriloc.methods.pixloc.align.align              pose <- Exp(step) pose
    Eq. (6)    metriloc.methods.pixloc.network.UNet             w = u_query u_reference, u = 1 / (1 + uncertainty)
    Eq. (7)    metriloc.methods.pixloc.align.learned_damping    log10 lambda = low + sigmoid(theta) (high - low)
    Eq. (8)    metriloc.methods.pixloc.two_view.two_view_loss   reprojection error, mean over levels
"""

from metriloc.methods.pixloc.align import Alignment, Iteration
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import AlignmentProblem, CostConfig, RobustCost
from metriloc.methods.pixloc.extractor import Extraction, FeatureExtractor, NetworkExtractor, ResizeConfig
from metriloc.methods.pixloc.gnnet import GNNet, GNNetConfig
from metriloc.methods.pixloc.lookup import FeatureTable
from metriloc.methods.pixloc.model import PixLoc
from metriloc.methods.pixloc.network import NetworkConfig, PixLocNetwork, UNet, UNetConfig
from metriloc.methods.pixloc.other_networks import GaussianConfig, GaussianPyramid, S2DNet, S2DNetConfig
from metriloc.methods.pixloc.pyramid import FeaturePyramid
from metriloc.methods.pixloc.reference import ReferenceStore
from metriloc.methods.pixloc.selection import Hints, MapMatches
from metriloc.methods.pixloc.settings import LocalizeConfig, Settings, save_pretrained
from metriloc.methods.pixloc.tracker import TrackedStep, Tracker
from metriloc.methods.pixloc.two_view import TwoViewBatch, TwoViewConfig, TwoViewRefiner

__all__ = [
    # localise
    "Hints",
    "LocalizeConfig",
    "MapMatches",
    "PixLoc",
    "ReferenceStore",
    "Settings",
    "TrackedStep",
    "Tracker",
    "save_pretrained",
    # features
    "Extraction",
    "FeatureExtractor",
    "FeaturePyramid",
    "GaussianConfig",
    "GaussianPyramid",
    "NetworkConfig",
    "NetworkExtractor",
    "PixLocNetwork",
    "ResizeConfig",
    "S2DNet",
    "S2DNetConfig",
    "UNet",
    "UNetConfig",
    # alignment
    "AlignConfig",
    "Alignment",
    "AlignmentProblem",
    "CostConfig",
    "FeatureTable",
    "Iteration",
    "RobustCost",
    # training
    "GNNet",
    "GNNetConfig",
    "TwoViewBatch",
    "TwoViewConfig",
    "TwoViewRefiner",
]
