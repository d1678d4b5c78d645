"""What the verdicts of the localisers are worth: photos left out of real maps in turn, and photos of other places.

    python benchmarks/localizer_verdicts.py ../shared/data/eval/places --methods nre-xfeat pixloc xfeat-pnp [--out RUNS]

For each place every so-manieth photo is taken out of the map and localised from the nearest three; and photos of other
places and rooms are looked for in it, from the three photos that look most alike. Right is a rotation within 2 degrees
and a position within 2 % of the median depth in view. Records are kept in --out without calibration, so that a stopped
run goes on and another calibration costs nothing. The numbers are in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from metriloc.calibration import Calibrations, calibrations_of, judged
from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.choose.for_maps import suited
from metriloc.datasets.sources import PosedFrame
from metriloc.evaluation.errors import center_error, rotation_error_deg
from metriloc.evaluation.held_out import held_out_queries
from metriloc.evaluation.records import Record, record_of, unreadable
from metriloc.evaluation.runner import collect, run
from metriloc.evaluation.tasks import QueryTask
from metriloc.geometry import Pose
from metriloc.io import InputError, load_view
from metriloc.io.maps import read_map
from metriloc.localizer import LOCALIZED
from metriloc.methods.matching import MapRetrieval
from metriloc.solvers.absolute_support import median_depth
from metriloc.turns import by_quarter_turns, turned_back
from metriloc.types import FAILED, RELIABLE, AbsolutePoseMethod, PoseEstimate, SfmMap, View

STEPS = {"holo_a": 10, "kitchen": 5}
ONE_YARD = {"fountain_p11", "entry_p10"}
"""Two maps of one courtyard: photos of the fountain show the entry behind it, and are rightly found in its map."""
_DOUBTS = "doubts"


@dataclass(frozen=True, eq=False)
class Sources:
    """What photos of other places are taken from and compared with. rooms: photos of rooms that no map shows."""

    rooms: list[Path]
    retrieval: MapRetrieval


@dataclass(frozen=True)
class TurningSolver:
    """A bare method: its calibrations only decide whether a photo is turned; how many doubts there are is kept beside the
    statistics."""

    method: AbsolutePoseMethod
    calibrations: Calibrations

    def __call__(self, task: QueryTask, seed: int) -> Record:
        """The record of one query."""
        try:
            view = task.frame.load(depth=False)
            chosen = suited(self.method, task.scene)

            def attempt(turned: View, _: Pose) -> PoseEstimate:
                return chosen.localize(turned, task.scene, task.references, seed=seed)

            estimate, quarters = by_quarter_turns(view, attempt, lambda found: judged(found, self.calibrations, [view]))
        except InputError as error:
            return unreadable(task.key, error)
        estimate = turned_back(estimate, quarters, view.size)
        record = record_of(task.key, estimate, 0.0)
        return dataclasses.replace(record, statistics={**record.statistics, _DOUBTS: float(len(estimate.doubts))})


def other_queries(place: str, maps: dict[str, SfmMap], count: int, sources: Sources) -> list[QueryTask]:
    """Photos of other places and rooms, evenly chosen, as queries in the map of this one."""
    frames: list[list[PosedFrame]] = []
    for other, scene in maps.items():
        if other != place and {other, place} != ONE_YARD:
            folder = scene.folder or Path()
            views = zip(scene.names, scene.cameras, strict=True)
            frames.append([PosedFrame(f"{place}<-{other}", n, folder / n, c, None) for n, c in views])
    rooms = [PosedFrame(f"{place}<-nyuv2", path.name, path, load_view(path).camera, None) for path in sources.rooms]
    frames += [rooms] if rooms else []
    tasks = []
    for known in frames:
        share = min(len(known), -(-count // len(frames)))
        for i in torch.linspace(0, len(known) - 1, share).round().long().tolist():
            names = sources.retrieval.rank(known[i].load(depth=False), maps[place], 3).names
            tasks.append(QueryTask(known[i], maps[place], names or maps[place].names[:3]))
    return tasks


def verdict(record: Record, calibrations: Calibrations) -> str:
    """As ``PoseEstimate.verdict``, from a record."""
    if not record.success:
        return "failed"
    calibration = next((c for c in calibrations if c.setup == record.setup), None)
    if calibration is None:
        return "uncalibrated"
    p = calibration.probability(record.confidence, record.statistics)
    if p < FAILED:
        return "failed"
    return "reliable" if p >= RELIABLE and not record.statistics[_DOUBTS] else "doubtful"


def is_right(record: Record, task: QueryTask) -> bool:
    """Within ``LOCALIZED``."""
    truth, pose = task.frame.cam_from_world, record.pose
    assert LOCALIZED.rotation_deg is not None and LOCALIZED.center_share is not None
    if truth is None or pose is None:
        return False
    truth = truth.to(torch.float64)
    depth = median_depth(truth, task.scene.xyz, task.frame.camera)
    turned = float(rotation_error_deg(pose, truth))
    return turned < LOCALIZED.rotation_deg and float(center_error(pose, truth)) < LOCALIZED.center_share * depth


def row(place: str, name: str, tasks: list[QueryTask], others: list[QueryTask], folder: Path) -> str:
    """One line of the table."""
    known = calibrations_of(choose_localizer(LocalizerChoice(name)))
    method = choose_localizer(LocalizerChoice(name, cache=str(folder / "features"), calibration="none"))
    solver, description = TurningSolver(method, known), {"method": name, "weights_id": method.weights_id}
    counts = {}
    for kind, queries in (("here", tasks), ("others", others)):
        run(queries, solver, folder / f"{place}-{name}-{kind}", description)
        records = collect(queries, folder / f"{place}-{name}-{kind}")
        for record, task in zip(records, queries, strict=True):
            key = kind, verdict(record, known), kind == "here" and is_right(record, task)
            counts[key] = counts.get(key, 0) + 1

    def told(kind: str, words: str) -> str:
        right, wrong = (counts.get((kind, words, value), 0) for value in (True, False))
        return f"{right + wrong} ({right})" if kind == "here" else str(wrong)

    here, there = (" | ".join(told(k, v) for v in ("reliable", "doubtful", "failed")) for k in ("here", "others"))
    return f"| {place} | {name} | {len(tasks)} | {here} | {len(others)} | {there} |"


def main() -> None:
    """One row a place and method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("places", type=Path)
    parser.add_argument("--methods", nargs="+", default=["nre-xfeat", "pixloc", "xfeat-pnp"])
    parser.add_argument("--only", nargs="+", default=["fountain_p11", "entry_p10", "holo_a", "kitchen"])
    parser.add_argument("--others", type=int, default=21, help="photos of other places for each map")
    parser.add_argument("--out", type=Path, default=Path("/tmp/localizer_verdicts"))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    places = arguments.places
    maps = {path.name: read_map(path / "sparse", path) for path in sorted(places.iterdir()) if path.is_dir()}
    rooms = sorted((places.parent / "nyuv2" / "rgb").glob("*.jpg"))[::40]
    sources = Sources(rooms, MapRetrieval.from_pretrained(cache=arguments.out / "retrieval"))
    print(f"{datetime.date.today()}, right: {LOCALIZED}; in brackets how many are right")
    print(
        "| place | method | its queries | reliable | doubtful | failed | of other places | reliable | doubtful | failed |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for place in arguments.only:
        tasks = held_out_queries(maps[place], STEPS.get(place, 1), 3, place)
        others = other_queries(place, maps, arguments.others, sources)
        for name in arguments.methods:
            print(row(place, name, tasks, others, arguments.out), flush=True)


if __name__ == "__main__":
    main()
