"""MicKey: metric keypoints, "Matching 2D Images in 3D: Metric Relative Pose from Metric Correspondences", CVPR 2024.

Equation map (paper -> function):

    Eq. (1)    metriloc.methods.mickey.solver.lift
    Eq. (2)    metriloc.methods.mickey.matching.match_probabilities
    Eq. (2)    metriloc.methods.mickey.matching.scored_match_probabilities
    Eq. (3)    metriloc.methods.mickey.matching.dual_softmax
    Eq. (4)    metriloc.solvers.procrustes.kabsch
    Eq. (4)    metriloc.methods.mickey.solver.fit_minimal_sets
    Eq. (5)    metriloc.solvers.consensus.soft_inliers
    Eq. (6)    metriloc.methods.mickey.solver.refine
    Eq. (12)   metriloc.methods.mickey.network.keypoints

Equations (7)-(11) belong to training.
"""

from metriloc.methods.mickey.model import MicKey, MicKeyFeatures
from metriloc.methods.mickey.network import KeypointMaps, Keypoints, MicKeyConfig, MicKeyNetwork
from metriloc.methods.mickey.solver import SolverConfig

__all__ = ["KeypointMaps", "Keypoints", "MicKey", "MicKeyConfig", "MicKeyFeatures", "MicKeyNetwork", "SolverConfig"]
