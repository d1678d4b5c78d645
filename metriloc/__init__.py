"""metriloc: where is the camera? Metric relative pose from two photos.

>>> import metriloc
>>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", depth="reference.depth.png")
>>> print(estimate.pose.center().round(decimals=2))
tensor([ 0.5900, -0.1600,  0.1200])

And where in a map: the pose of a photo among the points of a COLMAP model.

>>> estimate = metriloc.localize("query.jpg", "map/sparse", images="map/images")
>>> bool(estimate.success)
True

Every name is imported when it is first asked for: ``import metriloc`` alone costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metriloc.version import __version__

if TYPE_CHECKING:
    from metriloc.choose import load
    from metriloc.fusion import relative_pose_many
    from metriloc.geometry import Camera, Pose
    from metriloc.io import InputError, as_view, load_view
    from metriloc.io.maps import read_map
    from metriloc.localization import localize
    from metriloc.localizer import Localizer
    from metriloc.methods.matching.model import FeatureMatching, MatchingConfig
    from metriloc.methods.mickey import MicKey
    from metriloc.methods.nre.model import NRE
    from metriloc.methods.pixloc import PixLoc
    from metriloc.relpose import relative_pose
    from metriloc.runs.map_build import build_map
    from metriloc.service.client import Client
    from metriloc.tracking import Tracker
    from metriloc.types import (
        AbsolutePoseMethod,
        Correspondences,
        LocalizationDetails,
        Pair,
        PairDetails,
        PoseEstimate,
        RelativePoseMethod,
        SfmMap,
        View,
    )

_HOMES = {
    # one call
    "Localizer": "localizer",
    "Tracker": "tracking",
    "build_map": "runs.map_build",
    "load": "choose",
    "localize": "localization",
    "relative_pose": "relpose",
    "relative_pose_many": "fusion",
    "Client": "service.client",
    # photos and maps in
    "InputError": "io",
    "as_view": "io",
    "load_view": "io",
    "read_map": "io.maps",
    # methods
    "FeatureMatching": "methods.matching.model",
    "MatchingConfig": "methods.matching.model",
    "MicKey": "methods.mickey",
    "NRE": "methods.nre.model",
    "PixLoc": "methods.pixloc",
    # types
    "Camera": "geometry",
    "Pose": "geometry",
    "AbsolutePoseMethod": "types",
    "Correspondences": "types",
    "LocalizationDetails": "types",
    "Pair": "types",
    "PairDetails": "types",
    "PoseEstimate": "types",
    "RelativePoseMethod": "types",
    "SfmMap": "types",
    "View": "types",
}

__all__ = [
    "__version__",
    "AbsolutePoseMethod",
    "Camera",
    "Client",
    "Correspondences",
    "FeatureMatching",
    "InputError",
    "LocalizationDetails",
    "Localizer",
    "MatchingConfig",
    "MicKey",
    "NRE",
    "Pair",
    "PairDetails",
    "PixLoc",
    "Pose",
    "PoseEstimate",
    "RelativePoseMethod",
    "SfmMap",
    "Tracker",
    "View",
    "as_view",
    "build_map",
    "load",
    "load_view",
    "localize",
    "read_map",
    "relative_pose",
    "relative_pose_many",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metriloc' has no attribute {name!r}")
    value = getattr(import_module(f"metriloc.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
