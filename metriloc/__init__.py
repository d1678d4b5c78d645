"""metriloc: where is the camera? Metric relative pose from two photos.

>>> import metriloc
>>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", depth="reference.depth.png")
>>> estimate.pose.center(), estimate.confidence
"""

from metriloc.baselines.matching import FeatureMatching, MatchingConfig
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, load_view
from metriloc.methods.mickey import MicKey
from metriloc.relpose import relative_pose
from metriloc.types import Correspondences, Pair, PairDetails, PoseEstimate, RelativePoseMethod, View
from metriloc.version import __version__

__all__ = [
    "__version__",
    # types
    "Camera",
    "Correspondences",
    "Pair",
    "PairDetails",
    "Pose",
    "PoseEstimate",
    "RelativePoseMethod",
    "View",
    # photos in
    "InputError",
    "load_view",
    # methods
    "FeatureMatching",
    "MatchingConfig",
    "MicKey",
    # one call
    "relative_pose",
]
