"""ATE and RPE against evo, files of every kind, frames found, and time to find back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.stream_files import some_poses

from metriloc.cli.main import main
from metriloc.evaluation.trajectory import Spread, associate, lost_stretches, score_trajectory
from metriloc.evaluation.trajectory_files import read_frame_times, read_trajectory
from metriloc.geometry import Pose, so3_exp
from metriloc.io import InputError, pose_as_dict, tum_line
from metriloc.io.poses import kitti_line
from metriloc.io.trajectories import Trajectory
from metriloc.streams.notes import Notes

COUNT = 40
TRUTH = some_poses(COUNT)
TIMES = [0.1 * i for i in range(COUNT)]


def noisy(scale: float = 1.0) -> list[Pose]:
    """The true poses with errors, in a world of its own, of another scale."""
    generator = torch.Generator().manual_seed(1)
    world = Pose(so3_exp(torch.tensor([0.3, 0.2, 0.1]).double()), torch.tensor([1.0, 2, 3]).double())
    found = []
    for pose in TRUTH:
        off = Pose.from_tangent(0.02 * torch.randn(6, generator=generator, dtype=torch.float64))
        moved = off @ pose @ world
        found.append(Pose(moved.R, scale * moved.t))
    return found


def write_tum(path: Path, times: list[float], poses: list[Pose]) -> Path:
    path.write_text("".join(f"{tum_line(t, p)}\n" for t, p in zip(times, poses, strict=True)))
    return path


def of(times: list[float], poses: list[Pose]) -> Trajectory:
    return Trajectory.of(list(zip(times, poses, strict=True)))


@pytest.mark.extras
@pytest.mark.parametrize("align", ["none", "se3", "sim3"])
@pytest.mark.parametrize("form", ["tum", "kitti"])
def test_evo_reads_our_files_and_finds_the_same_numbers(tmp_path: Path, align: Any, form: str) -> None:
    pytest.importorskip("evo", reason="needs evo")
    from evo.core import metrics, sync
    from evo.tools import file_interface

    estimate = noisy(1.3)
    if form == "tum":
        left = [i for i in range(COUNT) if i not in (11, 12)]
        write_tum(tmp_path / "truth.txt", TIMES, TRUTH)
        write_tum(tmp_path / "found.txt", [TIMES[i] + 0.003 for i in left], [estimate[i] for i in left])
        theirs = [file_interface.read_tum_trajectory_file(str(tmp_path / f"{name}.txt")) for name in ("truth", "found")]
        theirs = list(sync.associate_trajectories(*theirs))
    else:
        for name, poses in (("truth", TRUTH), ("found", estimate)):
            (tmp_path / f"{name}.txt").write_text("".join(f"{kitti_line(pose)}\n" for pose in poses))
        theirs = [file_interface.read_kitti_poses_file(str(tmp_path / f"{name}.txt")) for name in ("truth", "found")]
    if align != "none":
        theirs[1].align(theirs[0], correct_scale=align == "sim3")
    found, truth = (read_trajectory(tmp_path / f"{name}.txt", Notes()) for name in ("found", "truth"))
    for delta, unit, theirs_unit in ((1, "frames", metrics.Unit.frames), (3, "frames", metrics.Unit.frames)):
        score = score_trajectory(found, truth, align=align, delta=delta, delta_unit=unit)  # type: ignore[arg-type]
        kinds = metrics.PoseRelation.translation_part, metrics.PoseRelation.rotation_angle_deg
        for kind, ate, rpe in zip(
            kinds, (score.center_m, score.rotation_deg), (score.step_m, score.step_deg), strict=True
        ):
            for metric, ours in ((metrics.APE(kind), ate), (metrics.RPE(kind, delta, theirs_unit), rpe)):
                metric.process_data(tuple(theirs))
                for name, value in metric.get_all_statistics().items():
                    if name in vars(Spread.of(ours)):
                        assert abs(getattr(Spread.of(ours), name) - value) < 1e-6, (kind, name)


def test_a_trajectory_moved_as_a_whole_is_exact_once_aligned() -> None:
    world = Pose(so3_exp(torch.tensor([0.5, -0.4, 0.3]).double()), torch.tensor([3.0, -1, 2]).double())
    moved = [Pose((p @ world).R, 2.5 * (p @ world).t) for p in TRUTH]
    score = score_trajectory(of(TIMES, moved), of(TIMES, TRUTH), align="sim3")
    assert Spread.of(score.center_m).max < 1e-12 and score.scale == pytest.approx(0.4) and score.found_percent == 100
    rigid = score_trajectory(of(TIMES, [p @ world for p in TRUTH]), of(TIMES, TRUTH), align="se3")
    assert Spread.of(rigid.center_m).max < 1e-12 and Spread.of(rigid.rotation_deg).max < 1e-5
    apart = score_trajectory(of(TIMES, [p @ world for p in TRUTH]), of(TIMES, TRUTH))
    assert Spread.of(apart.center_m).rmse > 1 and Spread.of(apart.step_m).max < 1e-12  # steps know no world


def test_steps_over_metres_of_the_true_way() -> None:
    line = [Pose(torch.eye(3).double(), torch.tensor([-0.25 * i, 0, 0]).double()) for i in range(20)]
    longer = [Pose(p.R, 1.1 * p.t) for p in line]
    times = [float(i) for i in range(20)]
    score = score_trajectory(of(times, longer), of(times, line), delta=1.0, delta_unit="metres")
    np.testing.assert_allclose(score.step_m, 0.1, atol=1e-12)
    assert len(score.step_m) == 4
    with pytest.raises(InputError, match="lie in one line"):
        score_trajectory(of(times, longer), of(times, line), align="se3")


def test_each_pose_belongs_to_one_other() -> None:
    assert associate([0.0, 1.0, 2.0], [0.004, 0.008, 1.02, 2.005], 0.01) == [(0, 0), (2, 3)]
    assert associate([0.0, 0.001], [0.0009], 0.01) == [(1, 0)]
    with pytest.raises(InputError, match="no pose of the estimate"):
        score_trajectory(of([100.0], TRUTH[:1]), of([0.0], TRUTH[:1]))
    with pytest.raises(InputError, match=r"--delta 1\.5 frames"):
        score_trajectory(of(TIMES, TRUTH), of(TIMES, TRUTH), delta=1.5)


def test_time_to_find_back() -> None:
    times = [0.5 * i for i in range(10)]
    assert lost_stretches(times, {0, 1, 4, 5, 7}) == ((1.0, 2), (0.5, 1))  # the end is no stretch that was found back
    assert lost_stretches(times, set(range(10))) == ()


def frame_line(index: int, pose: Pose | None, success: bool = True) -> str:
    entry: dict[str, Any] = {
        "index": index,
        "query": f"{index}",
        "time": TIMES[index],
        "success": success and pose is not None,
    }
    if pose is not None:
        entry["cam_from_world"] = pose_as_dict(pose, to_frame="query camera", from_frame="map")
    return json.dumps(entry) + "\n"


def test_runs_of_track_are_read_also_cut_off(tmp_path: Path) -> None:
    lines = [frame_line(i, None if i in (3, 4) else TRUTH[i]) for i in range(8)]
    (tmp_path / "frames.jsonl").write_text("".join(lines) + lines[0][:50])
    notes = Notes()
    found = read_trajectory(tmp_path, notes, offset=0.0)
    assert len(found) == 6 and "frames.jsonl:9: this is no whole frame" in notes.sentences()[0]
    score = score_trajectory(found, of(TIMES[:8], TRUTH[:8]))
    assert Spread.of(score.center_m).max < 1e-12 and score.found_percent == 75
    assert score.lost[0][0] == pytest.approx(0.2) and score.lost[0][1] == 2
    finer = of([0.05 * i for i in range(15)], [TRUTH[i // 2] for i in range(15)])  # true poses twice as often
    own = score_trajectory(found, finer, frames=read_frame_times(tmp_path))
    assert (own.found, own.total, len(own.times)) == (6, 8, 6) and own.lost[0][1] == 2
    moved = read_trajectory(tmp_path, notes, offset=10.0)
    assert moved.stamps[0] == 10.0
    (tmp_path / "frames.jsonl").write_text(frame_line(0, None))
    with pytest.raises(InputError, match="no frame with a pose"):
        read_trajectory(tmp_path, notes)


def test_a_direction_without_a_length_is_no_position(tmp_path: Path) -> None:
    lines = [json.loads(frame_line(i, TRUTH[i])) for i in range(3)]
    (told,) = (lines[1][key] for key in ("query_from_reference", "cam_from_world") if key in lines[1])
    told["translation_unit"] = "unknown scale"
    (tmp_path / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    notes = Notes()
    assert len(read_trajectory(tmp_path, notes)) == 2
    assert "frame 1 has a direction without a length" in notes.sentences()[0]


def test_kitti_has_the_times_beside_it(tmp_path: Path) -> None:
    (tmp_path / "00.txt").write_text("".join(f"{kitti_line(pose)}\n" for pose in TRUTH[:3]))
    assert read_trajectory(tmp_path / "00.txt", Notes()).stamps == (0.0, 1.0, 2.0)
    (tmp_path / "times.txt").write_text("0.0\n0.5\n1.5\n")
    assert read_trajectory(tmp_path / "00.txt", Notes()).stamps == (0.0, 0.5, 1.5)
    (tmp_path / "times.txt").write_text("0.0\n")
    with pytest.raises(InputError, match="has 1 times for pose 2"):
        read_trajectory(tmp_path / "00.txt", Notes())
    (tmp_path / "named.txt").write_text("a.jpg 1 0 0 0 0 0 0\n")
    with pytest.raises(InputError, match="by the names of photos"):
        read_trajectory(tmp_path / "named.txt", Notes())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tum(tmp_path / "truth.txt", TIMES, TRUTH)
    write_tum(tmp_path / "found.txt", TIMES[:30], noisy()[:30])
    command = ["eval", "trajectory", str(tmp_path / "found.txt"), "--truth", str(tmp_path / "truth.txt")]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--align", "se3", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "30 of 40 true poses have one beside them (75.0 %)" in said
    assert "30 poses compared; alignment: se3" in said and "ATE, position (m)" in said
    content = json.loads((tmp_path / "out" / "trajectory.json").read_text())
    score = score_trajectory(
        *(read_trajectory(tmp_path / f"{n}.txt", Notes()) for n in ("found", "truth")), align="se3"
    )
    assert content["ate_position"]["rmse"] == pytest.approx(Spread.of(score.center_m).rmse) and content["found"] == 30
    assert content["unit"] == "metre"
    found = tmp_path / "found.txt"
    found.write_text("# lengths: unit of the map\n" + found.read_text())
    with pytest.raises(SystemExit):
        main(command)
    told = capsys.readouterr()
    assert "ATE, position (map units)" in told.out and "one of the two is in metres" in told.err
    assert content["seconds_to_find_back"] == {"median": None, "max": None}
    with pytest.raises(SystemExit) as stop:
        main([*command[:2], str(tmp_path / "gone.txt"), *command[3:]])
    assert stop.value.code == 2 and "gone.txt' does not exist" in capsys.readouterr().err
    assert math.isnan(Spread.of(np.zeros(0)).rmse)
