"""Feature matching with metres from depth: the fourth method, beside the three published ones.

So far the room holds the network that gives the metres: ``DepthNetwork`` predicts the depth of one photo and how sure it
is. Matchers and solvers still live in :mod:`metriloc.baselines`.
"""

from metriloc.methods.matching.depth_network import DepthConfig, DepthMaps, DepthNetwork
from metriloc.methods.matching.depth_training import DepthBatch, DepthLossConfig, DepthTraining, depth_loss

__all__ = [
    "DepthBatch",
    "DepthConfig",
    "DepthLossConfig",
    "DepthMaps",
    "DepthNetwork",
    "DepthTraining",
    "depth_loss",
]
