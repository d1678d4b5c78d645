"""A method of your own beside one of the library's: two methods of two functions are all that evaluation asks for.

python examples/06_own_method.py
"""

from importlib.resources import files

import torch

import metriloc
from metriloc.datasets import read_posed
from metriloc.evaluation.scoring import score_pairs
from metriloc.evaluation.tasks import PairSolver, PairTask


class OneStepRight:
    """Always answers that the camera moved half a metre to the right."""

    name, weights_id = "one-step-right", "none"

    def extract(self, view: metriloc.View) -> metriloc.View:
        return view

    def relative_pose(self, reference: metriloc.View, query: metriloc.View, *, seed: int = 0) -> metriloc.PoseEstimate:
        pose = metriloc.Pose(torch.eye(3), torch.tensor([-0.5, 0.0, 0.0]))
        return metriloc.PoseEstimate(pose, torch.tensor(True), torch.tensor(0.5), (None,))


tasks = [PairTask(read_posed(files("metriloc") / "data" / "example").pair(0, 1))]
for method in (OneStepRight(), metriloc.MicKey.from_pretrained()):
    solve = PairSolver(method)
    scores = score_pairs(tasks, [solve(task, 0) for task in tasks])
    print(f"{method.name}: {scores.rotation_deg[0]:.1f} degrees and {scores.center_m[0]:.2f} m off")
