"""Where metres come from: nothing but a network, a known distance, or a depth map of the reference.

python examples/04_metres.py
"""

from importlib.resources import files

import metriloc

photos = files("metriloc") / "data" / "example"
reference, query = photos / "reference.jpg", photos / "query.jpg"

estimates = {
    "predicted depth": metriloc.relative_pose(reference, query),
    "known distance": metriloc.relative_pose(reference, query, distance=0.612),  # a tape measure
    "depth map": metriloc.relative_pose(reference, query, depth=photos / "reference.depth.png"),  # a depth camera
}
for source, estimate in estimates.items():
    low, high = estimate.distance_interval
    print(f"{source:<16} {float(estimate.pose.distance()):.2f} m, from {low:.2f} to {high:.2f}: {estimate.verdict}")

# a matcher alone knows the direction and no length
alone = metriloc.relative_pose(reference, query, method="xfeat")
print("xfeat alone:", "metres" if alone.details[0].metric else "a direction of length 1, no metres")
