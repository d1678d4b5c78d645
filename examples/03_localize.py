"""A photo and a map: where in the map did the camera stand?

Here the map is one photo with a depth map, whose pixels are the points; ``metriloc.read_map`` reads those of COLMAP.

python examples/03_localize.py
"""

import math
from importlib.resources import files
from pathlib import Path

import torch

import metriloc
from metriloc.geometry import sample_depth

folder = Path(str(files("metriloc") / "data" / "example"))
photo = metriloc.load_view(folder / "reference.jpg", depth=folder / "reference.depth.png")
camera = photo.camera.to(torch.float64)

# every 12th pixel with a known depth is a point of the map; the map's frame is that of the photo
width, height = photo.size
v, u = torch.meshgrid(torch.arange(6.0, height, 12), torch.arange(6.0, width, 12), indexing="ij")
uv = torch.stack([u, v], -1).reshape(-1, 2).double()
depth, known = sample_depth(photo.depth.double(), uv, photo.size)
uv, rays = uv[known], camera.unproject(uv[known])[0]
scene = metriloc.SfmMap(
    names=("reference.jpg",),
    cameras=(camera,),
    cam_from_world=metriloc.Pose.identity((1,), dtype=torch.float64),
    xyz=rays * depth[known, None],
    image_index=torch.zeros(len(uv), dtype=torch.long),
    point_index=torch.arange(len(uv)),
    uv=uv,
    folder=folder,
)

method = metriloc.NRE.from_features("xfeat")  # "xfeat+aliked" is better and slower, and needs ALIKED's weights
estimate = metriloc.localize(folder / "query.jpg", scene, references=["reference.jpg"], method=method)
if estimate.success:
    x, y, z = estimate.pose.center().tolist()
    print(f"in a map of {len(uv)} points the camera stood at x {x:+.2f} m (right), y {y:+.2f} m (down), z {z:+.2f} m")
    print(
        f"turned {math.degrees(float(estimate.pose.angle())):.1f} degrees, confidence {float(estimate.confidence):.2f}"
    )
    for stage in estimate.localization[0].stages:
        print(f"  {stage.name}: support {stage.support:.2f}")
else:
    print("no pose:", estimate.reasons[0])
