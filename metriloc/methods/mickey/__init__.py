"""MicKey: metric keypoints, "Matching 2D Images in 3D: Metric Relative Pose from Metric Correspondences", CVPR 2024.

Equation map (paper -> function):

    Eq. (1)    metriloc.geometry.camera.Camera.lift
    Eq. (2)    metriloc.methods.mickey.matching.scored_match_probabilities
    Eq. (2)    metriloc.methods.mickey.log_probability.log_match_probability
    Eq. (3)    metriloc.methods.mickey.matching.log_normalizer
    Eq. (3)    metriloc.methods.mickey.log_probability.log_dual_softmax
    Eq. (4)    metriloc.solvers.procrustes.kabsch
    Eq. (4)    metriloc.methods.mickey.solver.fit_minimal_sets
    Eq. (5)    metriloc.solvers.consensus.soft_inliers
    Eq. (6)    metriloc.methods.mickey.solver.refine
    Eq. (6)    metriloc.methods.mickey.hypotheses.refinement_sets
    Eq. (7)    metriloc.methods.mickey.loss.vcre_loss
    Eq. (8)    metriloc.methods.mickey.objective.expected_loss
    Eq. (9)    metriloc.methods.mickey.objective.objective_given_draws
    Eq. (10)   metriloc.methods.mickey.objective.single_scalar
    Eq. (11)   metriloc.methods.mickey.objective.single_scalar
    Eq. (12)   metriloc.methods.mickey.keypoint_maps.keypoints

Training only: (7)-(11) and the curriculum of Sec. 3.1.4 (``curriculum.select_pairs``).
"""

from metriloc.methods.mickey.curriculum import Curriculum
from metriloc.methods.mickey.finding import PoseFinding
from metriloc.methods.mickey.keypoint_maps import KeypointMaps, Keypoints, MicKeyFeatures
from metriloc.methods.mickey.loss import PoseLossConfig
from metriloc.methods.mickey.model import MicKey
from metriloc.methods.mickey.network import MicKeyNetwork
from metriloc.methods.mickey.network_config import MicKeyConfig
from metriloc.methods.mickey.objective import ObjectiveConfig
from metriloc.methods.mickey.rematch import RematchConfig
from metriloc.methods.mickey.solver import SolverConfig
from metriloc.methods.mickey.supervision import SupervisionConfig
from metriloc.methods.mickey.training import MicKeyTraining, PairBatch

__all__ = [
    "Curriculum",
    "KeypointMaps",
    "Keypoints",
    "MicKey",
    "MicKeyConfig",
    "MicKeyFeatures",
    "MicKeyNetwork",
    "MicKeyTraining",
    "ObjectiveConfig",
    "PairBatch",
    "PoseFinding",
    "PoseLossConfig",
    "RematchConfig",
    "SolverConfig",
    "SupervisionConfig",
]
