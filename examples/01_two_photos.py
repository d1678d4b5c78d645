"""Two photos and nothing else: where did the second camera stand?

python examples/01_two_photos.py
"""

import math
from importlib.resources import files

import metriloc

photos = files("metriloc") / "data" / "example"
estimate = metriloc.relative_pose(photos / "reference.jpg", photos / "query.jpg")
if estimate.success:
    x, y, z = estimate.pose.center().tolist()
    print(f"camera 2 stood {x:+.2f} m right, {y:+.2f} m down and {z:+.2f} m in front of camera 1")
    print(f"and was turned by {math.degrees(float(estimate.pose.angle())):.1f} degrees")
    # metres of a network that guesses depth: the interval is wide, and the answer says so
    print(f"distance, nine times in ten: {estimate.distance_interval} m; {estimate.verdict}")
else:
    print("no pose:", estimate.reasons[0])
