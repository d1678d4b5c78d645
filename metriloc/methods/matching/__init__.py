"""Feature matching, the fourth method beside the three published ones: matchers, depth sources, retrieval, PnP.

| file | what |
|---|---|
| ``matchers`` | matchers by name, and their weights |
| ``model``, ``pair``, ``solver`` | two photos: matches, fit, metres (``FeatureMatching``) |
| ``joint``, ``metres`` | one fit with the depths of both photos; what each source says of the metres |
| ``mirrored``, ``repeated`` | what makes a fit doubtful |
| ``depth`` | where metres come from; ``depth_network``, ``depth_training``: a network that predicts depth |
| ``hub_models``, ``hub_depth``, ``hub_matchers`` | models of the hub, through ``transformers`` |
| ``retrieval`` | which photos of a map show what a query shows (``MapRetrieval``) |
| ``localizer``, ``focal`` | matching + PnP in a map, also without a focal length |
"""

from metriloc.methods.matching.depth_network import DepthConfig, DepthMaps, DepthNetwork
from metriloc.methods.matching.depth_training import DepthBatch, DepthLossConfig, DepthTraining, depth_loss
from metriloc.methods.matching.retrieval import MapRetrieval, Ranking, RetrievalConfig

__all__ = [
    "DepthBatch",
    "DepthConfig",
    "DepthLossConfig",
    "DepthMaps",
    "DepthNetwork",
    "DepthTraining",
    "MapRetrieval",
    "Ranking",
    "RetrievalConfig",
    "depth_loss",
]
