"""How far to trust an answer: confidence, verdict and doubts of good photos, of guessed intrinsics and of a wall.

python examples/05_trust.py
"""

from dataclasses import replace
from importlib.resources import files

import torch

import metriloc

photos = files("metriloc") / "data" / "example"
reference = metriloc.load_view(photos / "reference.jpg", depth=photos / "reference.depth.png")
query = metriloc.load_view(photos / "query.jpg")
queries = {
    "as it is": query,
    "focal length guessed": replace(query, focal_sigma=0.2),  # what a photo without EXIF gets
    "a blank wall": replace(query, image=torch.full_like(query.image, 0.5)),
}
for name, view in queries.items():
    estimate = metriloc.relative_pose(reference, view)
    print(f"{name}: {estimate.verdict}, confidence {float(estimate.confidence):.2f}")
    if estimate.success:
        print(f"  {float(estimate.pose.distance()):.2f} m away")
        print(f"  the confidence is the probability of {estimate.probability_of}")
    else:
        print(f"  no pose: {estimate.reasons[0]}")
    for doubt in estimate.doubts:
        print(f"  doubt: {doubt}")
