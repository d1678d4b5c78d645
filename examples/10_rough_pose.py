"""A rough pose made exact: PixLoc aligns a photo with the map, from a guess that is half a metre and 8 degrees off.

python examples/10_rough_pose.py
"""

import math
from dataclasses import replace
from importlib.resources import files

import torch

import metriloc
from metriloc.geometry import so3_exp
from metriloc.io.maps import map_from_view
from metriloc.methods.pixloc import Tracker

photos = files("metriloc") / "data" / "example"
scene = map_from_view(metriloc.load_view(photos / "reference.jpg", depth=photos / "reference.depth.png"))
turn = so3_exp(torch.tensor([0.0, math.radians(13.0), 0.0], dtype=torch.float64))
guess = metriloc.Pose(turn, torch.tensor([-0.2, 0.1, 0.0], dtype=torch.float64))

record = Tracker()
model = metriloc.PixLoc.from_pretrained()
model = model.adjusted(config=replace(model.config, min_track=1))  # one photo sees every point of this map
estimate = model.localize(metriloc.load_view(photos / "query.jpg"), scene, ["reference.jpg"], guess, log=record)
print(f"{len(record.steps)} steps, mean cost of a point {record.steps[0].cost:.3f} -> {record.steps[-1].cost:.3f}")
moved = estimate.pose @ guess.inverse()
print(f"moved by {float(moved.distance()):.2f} m and {math.degrees(float(moved.angle())):.1f} degrees")
print("now at", [f"{value:+.2f} m" for value in estimate.pose.center().tolist()])
