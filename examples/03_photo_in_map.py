"""A photo and a map: where in the map did the camera stand?

Here the map is one photo with a depth map, whose pixels are the points; ``metriloc.read_map`` reads those of COLMAP.

python examples/03_photo_in_map.py
"""

from importlib.resources import files

import metriloc
from metriloc.io.maps import map_from_view

photos = files("metriloc") / "data" / "example"
scene = map_from_view(metriloc.load_view(photos / "reference.jpg", depth=photos / "reference.depth.png"))

# "nre-xfeat+aliked" is better and slower, and needs ALIKED's weights
estimate = metriloc.localize(photos / "query.jpg", scene, references=["reference.jpg"], method="nre-xfeat")
if estimate.success:
    x, y, z = estimate.pose.center().tolist()
    print(f"in a map of {len(scene.xyz)} points the camera stood at x {x:+.2f} m, y {y:+.2f} m, z {z:+.2f} m")
    print(f"{estimate.verdict}, confidence {float(estimate.confidence):.2f}")
    for stage in estimate.localization[0].stages:
        print(f"  {stage.name}: support {stage.support:.2f}")
else:
    print("no pose:", estimate.reasons[0])
