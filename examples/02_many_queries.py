"""One reference, many queries: the reference is looked at once, and what has no pose says why.

python examples/02_many_queries.py
"""

from importlib.resources import files

import torch

import metriloc

photos = files("metriloc") / "data" / "example"
method = metriloc.FeatureMatching.from_pretrained()
reference = method.extract(metriloc.load_view(photos / "reference.jpg", depth=photos / "reference.depth.png"))

query = metriloc.load_view(photos / "query.jpg")
blank = metriloc.View(torch.full_like(query.image, 0.5), query.camera, name="a blank wall")
for view in (query, blank):
    estimate = method.relative_pose(reference, view)
    answer = f"{float(estimate.pose.distance()):.2f} m away" if estimate.success else f"no pose: {estimate.reasons[0]}"
    print(f"{view.name.rpartition('/')[2]}: {answer}")
