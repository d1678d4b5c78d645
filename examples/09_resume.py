"""A run that is finished later: what an interrupted run left in its folder is kept and not computed again.

python examples/09_resume.py
"""

from importlib.resources import files
from tempfile import TemporaryDirectory

import metriloc
from metriloc.datasets import read_posed
from metriloc.evaluation.runner import collect, run
from metriloc.evaluation.scoring import score_pairs
from metriloc.evaluation.tasks import PairSolver, PairTask

scene = read_posed(files("metriloc") / "data" / "example")
tasks = [PairTask(scene.pair(0, 1)), PairTask(scene.pair(1, 0))]  # there, and back again
model = metriloc.MicKey.from_pretrained()
description = {"method": model.name, "weights_id": model.weights_id}  # a folder of another run is refused


def stop_after_one(done: int, count: int) -> None:
    print(f"  {done} of {count} done")
    if done == 1:
        raise KeyboardInterrupt


with TemporaryDirectory() as folder:
    try:
        run(tasks, PairSolver(model), folder, description, progress=stop_after_one)
    except KeyboardInterrupt:
        print("interrupted; once more:")
    run(tasks, PairSolver(model), folder, description, progress=lambda done, count: print(f"  {done} of {count} done"))
    scores = score_pairs(tasks, collect(tasks, folder))
    print("errors:", ", ".join(f"{error:.2f} m" for error in scores.center_m))
