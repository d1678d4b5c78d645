"""Look at it: the matches that fixed a pose, and the depth of the reference, as pictures (extra ``viz``).

python examples/07_look_at_it.py [FOLDER]
"""

import sys
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import metriloc
from metriloc.viz.matches import match_picture
from metriloc.viz.overlays import depth_picture
from metriloc.viz.pictures import encode_jpeg

folder = Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp(prefix="metriloc-"))
photos = files("metriloc") / "data" / "example"
reference = metriloc.load_view(photos / "reference.jpg", depth=photos / "reference.depth.png")
query = metriloc.load_view(photos / "query.jpg")
estimate = metriloc.relative_pose(reference, query)

inliers = estimate.details[0].inliers
(folder / "matches.jpg").write_bytes(encode_jpeg(match_picture(reference.image, query.image, inliers)))
(folder / "depth.jpg").write_bytes(encode_jpeg(depth_picture(reference.depth)))
print(f"{len(inliers)} matches over a distance of {float(estimate.pose.distance()):.2f} m, drawn in {folder}")
print("the whole report, with a 3D view: metriloc relpose REFERENCE QUERY --out FOLDER")
