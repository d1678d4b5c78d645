"""Pictures and reports: depth and score overlays, the inlier match picture, a single-file HTML report with a 3D view.

Arrays in, uint8 RGB arrays or strings out; nothing here writes a file, opens a window or loads anything from the
network. Colour maps come from matplotlib (extra ``viz``), which is imported only when a picture needs one.
"""

from metriloc.viz.compared import Answer, compared_picture
from metriloc.viz.markup import SoftwareFacts
from metriloc.viz.matches import match_picture
from metriloc.viz.overlays import depth_overlay, depth_picture, score_overlay
from metriloc.viz.pictures import Picture, encode_jpeg, encode_png, shrink
from metriloc.viz.predicted import predicted_strip
from metriloc.viz.relpose_report import QueryReport, RelposeReport, relpose_report
from metriloc.viz.scene import Frustum, Link, Scene, Way, build_scene, triangulate
from metriloc.viz.scene_picture import scene_picture
from metriloc.viz.words import verdict

__all__ = [
    # pictures
    "Answer",
    "compared_picture",
    "depth_overlay",
    "depth_picture",
    "encode_jpeg",
    "encode_png",
    "match_picture",
    "predicted_strip",
    "score_overlay",
    "shrink",
    # report
    "Picture",
    "QueryReport",
    "RelposeReport",
    "SoftwareFacts",
    "relpose_report",
    "verdict",
    # 3D view
    "Frustum",
    "Link",
    "Scene",
    "Way",
    "build_scene",
    "scene_picture",
    "triangulate",
]
