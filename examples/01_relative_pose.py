"""Two photos and a depth map of the first: where did the second camera stand?

python examples/01_relative_pose.py
"""

import math
from importlib.resources import files
from pathlib import Path

import metriloc

folder = Path(str(files("metriloc") / "data" / "example"))
estimate = metriloc.relative_pose(folder / "reference.jpg", folder / "query.jpg", depth=folder / "reference.depth.png")
if estimate.success:
    x, y, z = estimate.pose.center().tolist()
    print(f"camera 2 stood {x:+.2f} m right, {y:+.2f} m down and {z:+.2f} m in front of camera 1")
    print(
        f"turned {math.degrees(float(estimate.pose.angle())):.1f} degrees, confidence {float(estimate.confidence):.2f}"
    )
else:
    print("no pose:", estimate.reasons[0])
