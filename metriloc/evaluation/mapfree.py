"""The Map-free benchmark scored here: exactly as published (``official``), or with its known defects fixed (``clean``).

| | official | clean |
|---|---|---|
| frames | number only: seq0/frame_00000 and seq1/frame_00000 are one frame | sequence and number; the reference is not scored |
| scene absent from the zip | every true frame is a failure | every *evaluated* frame is |
| rotation of 180 degrees | NaN now and then, then NaN medians | 180 |
| negative confidence | stops the evaluation | the line is left out, with a warning |
| image size | of the last line of intrinsics.txt | of the frame |
| K | float32 | float64 |

Both: every ``step``-th true frame by position (5 for Map-free, 1 for small sets), VCRE with its clipping, thresholds,
AUC over frames kept (:mod:`metriloc.evaluation.curves`). Spec benchmarks a.3, a.4.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from metriloc.evaluation.curves import PrecisionCurve, precision_curve
from metriloc.evaluation.errors import center_error, quaternion_error_deg, vcre
from metriloc.evaluation.mapfree_files import (
    LineWarnings,
    PoseTable,
    parse_intrinsics_lines,
    parse_pose_lines,
    pose_lines,
    pose_table,
)
from metriloc.evaluation.submission import read_submission
from metriloc.geometry import Pose
from metriloc.io import InputError, parse_intrinsics, parse_mapfree_poses, read_text

Mode = Literal["official", "clean"]
POSE_METRES, POSE_DEGREES = 0.25, 5.0
VCRE_PIXELS = 90.0
"""10 % of the diagonal of 540 x 720; other image sizes say their own (80 px for 640 x 480)."""


@dataclass(frozen=True, eq=False)
class SceneScore:
    """Errors of the evaluated frames of one scene that have an estimate, and how many have none."""

    scene: str
    frames: tuple[int, ...]
    center_m: Float[ndarray, " n"]
    rotation_deg: Float[ndarray, " n"]
    vcre_px: Float[ndarray, " n"]
    confidence: Float[ndarray, " n"]
    failures: int
    evaluated: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MapfreeScore:
    """The whole result. metrics: under the names of the published scorer; NaN throughout when nothing was estimated.

    vcre_threshold: pixels; mode and step: how it was scored; warnings: lines and scenes that were left out, the first
    ``KEPT_WARNINGS`` of each file, then their number; in official mode as often as the published scorer, which reads each
    file twice, says them.
    """

    mode: Mode
    step: int
    vcre_threshold: float
    scenes: tuple[SceneScore, ...]
    pose_curve: PrecisionCurve
    vcre_curve: PrecisionCurve
    warnings: tuple[str, ...]

    @property
    def about_submission(self) -> tuple[str, ...]:
        """Each warning once, without those about lines of the truth (which are comments)."""
        return tuple(dict.fromkeys(w for w in self.warnings if f"{os.sep}poses.txt line " not in w))

    @property
    def failures(self) -> int:
        """Frames without an estimate, all scenes."""
        return sum(scene.failures for scene in self.scenes)

    @property
    def total(self) -> int:
        """Estimates and failures: what precision divides by."""
        return self.failures + sum(len(scene.frames) for scene in self.scenes)

    @property
    def metrics(self) -> dict[str, float]:
        """The eight numbers of the leaderboard; medians are means over scenes of the medians of what was estimated."""
        pose, px = f"Pose Error < ({POSE_METRES * 100}cm, {POSE_DEGREES:g}deg)", f"VCRE < {self.vcre_threshold:g}px"
        present = [scene for scene in self.scenes if scene.frames]
        estimates = sum(len(scene.frames) for scene in present)

        def median(values: list[ndarray]) -> float:
            return float(np.mean([np.median(v) for v in values])) if values else float("nan")

        def precision(curve: PrecisionCurve) -> float:
            return float(curve.precision[0] * curve.recall[0]) if estimates else 0.0

        return {
            "Average Median Translation Error": median([s.center_m for s in present]),
            "Average Median Rotation Error": median([s.rotation_deg for s in present]),
            "Average Median Reprojection Error": median([s.vcre_px for s in present]),
            f"Precision @ {pose}": precision(self.pose_curve),
            f"AUC @ {pose}": self.pose_curve.area,
            f"Precision @ {px}": precision(self.vcre_curve),
            f"AUC @ {px}": self.vcre_curve.area,
            "Estimates for % of frames": estimates / self.total if self.total else float("nan"),
        }


def score_mapfree(
    dataset: str | os.PathLike[str],
    submission: str | os.PathLike[str] | Mapping[str, str],
    *,
    mode: Mode = "official",
    step: int = 5,
    first: int = 0,
    vcre_threshold: float = VCRE_PIXELS,
) -> MapfreeScore:
    """Score a submission against the folder of a split (``<dataset>/sNNNNN/{poses,intrinsics}.txt``).

    submission: a zip, or scene -> text of ``pose_<scene>.txt``. first: position of the first frame that is scored, then every
    ``step``-th (9 and 10 for the multi-frame track). Raises InputError for a data set or archive that cannot
    be read, and, in official mode, for a negative confidence (the published scorer stops there); ValueError for a step
    below 1. Malformed lines of a submission are failures with a warning, never errors.
    """
    if step < 1 or first < 0:
        raise ValueError(f"every step-th frame is scored: step must be at least 1, got {step}, and first not negative")
    dataset = Path(dataset)
    scenes = sorted(p.name for p in dataset.iterdir() if (p / "poses.txt").is_file()) if dataset.is_dir() else []
    if not scenes:
        raise InputError(f"'{dataset}' holds no scene with a poses.txt")
    texts = submission if isinstance(submission, Mapping) else read_submission(submission)
    warnings = [f"WARNING: Submission has estimates for unknown scene {s}." for s in sorted(set(texts) - set(scenes))]
    scored = []
    for scene in scenes:
        truth = (_official_truth if mode == "official" else _clean_truth)(dataset / scene, first, step)
        result, found = _score_scene(scene, truth, texts.get(scene), mode)
        scored.append(result)
        warnings += found
    confidence = np.concatenate([s.confidence for s in scored])
    good = np.concatenate([(s.center_m < POSE_METRES) & (s.rotation_deg < POSE_DEGREES) for s in scored])
    near = np.concatenate([s.vcre_px < vcre_threshold for s in scored])
    failures = sum(s.failures for s in scored)
    return MapfreeScore(
        mode,
        step,
        vcre_threshold,
        tuple(scored),
        precision_curve(confidence, good, failures),
        precision_curve(confidence, near, failures),
        tuple(warnings),
    )


# -- the truth --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Truth:
    """Evaluated frames: key (what a submission's line is found by), name, pose, K, size; frames: true lines in all."""

    keys: tuple[int | str, ...]
    names: tuple[str, ...]
    q: Float[ndarray, "n 4"]
    t: Float[ndarray, "n 3"]
    K: Float[ndarray, "n 3 3"]
    size: Float[ndarray, "n 2"]
    frames: int
    warnings: tuple[str, ...] = ()


def _official_truth(folder: Path, first: int, step: int) -> _Truth:
    file = folder / "poses.txt"
    table = parse_pose_lines(read_text(file), str(file), with_confidence=False)
    cameras, size = parse_intrinsics_lines(read_text(folder / "intrinsics.txt"))
    chosen = table.frames[first::step]
    missing = [frame for frame in chosen if frame not in cameras]
    if missing:
        raise InputError(f"'{folder / 'intrinsics.txt'}' has no usable line for frame {missing[0]}")
    K = np.array([cameras[frame] for frame in chosen]).reshape(-1, 3, 3)
    names = tuple(f"seq1/frame_{frame:05d}.jpg" for frame in chosen)
    sizes = np.tile(np.array(size), (len(chosen), 1))
    q, t = table.q[first::step], table.t[first::step]
    return _Truth(tuple(chosen), names, q, t, K, sizes, len(table.frames), table.warnings)


def _clean_truth(folder: Path, first: int, step: int) -> _Truth:
    poses = parse_mapfree_poses(read_text(folder / "poses.txt"), str(folder / "poses.txt"))
    names = [name for name in poses if not name.startswith("seq0/")][first::step]
    withheld = [name for name in names if poses[name] is None]
    if withheld:
        raise InputError(
            f"'{folder / 'poses.txt'}' withholds the pose of {withheld[0]}: only the leaderboard can score it"
        )
    file = folder / "intrinsics.txt"
    entries = {entry.name: entry for entry in parse_intrinsics(read_text(file), str(file))}
    K, sizes = np.zeros((len(names), 3, 3)), np.zeros((len(names), 2))
    for i, name in enumerate(names):
        if name not in entries:
            raise InputError(f"'{file}' has no line for {name}")
        fx, fy, cx, cy = entries[name].fxfycxcy
        K[i] = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        sizes[i] = entries[name].size
    known = [pose for name in names if (pose := poses[name]) is not None]
    stacked = Pose.stack(known) if known else Pose.identity((0,), torch.float64)
    q, t = stacked.quaternion().numpy(), stacked.t.numpy()
    return _Truth(tuple(names), tuple(names), q, t, K, sizes, len(poses))


# -- one scene --------------------------------------------------------------------------------------------------------
def _score_scene(scene: str, truth: _Truth, text: str | None, mode: Mode) -> tuple[SceneScore, tuple[str, ...]]:
    if text is None:
        # upstream counts every true frame of a scene whose file is absent, not only the evaluated ones
        failures = truth.frames if mode == "official" else len(truth.keys)
        warning = f"WARNING: Submission does not have estimates for scene {scene}."
        empty = np.zeros(0)
        score = SceneScore(scene, (), empty, empty, empty, empty, failures, len(truth.keys))
        return score, (*truth.warnings, warning)
    file = f"pose_{scene}.txt"
    table, keys, warnings = _estimates(text, file, mode)
    if mode == "official":
        warnings = 2 * (*truth.warnings, *warnings)
    place = {key: i for i, key in enumerate(keys)}
    found = [i for i, key in enumerate(truth.keys) if key in place]
    rows = [place[truth.keys[i]] for i in found]
    if mode == "official" and (table.confidence[rows] < 0).any():
        raise InputError(f"confidence must be non negative ({file})")
    q0, q1 = torch.from_numpy(truth.q[found]), torch.from_numpy(table.q[rows])
    true = Pose.from_quaternion(q0, torch.from_numpy(truth.t[found]))
    estimated = Pose.from_quaternion(q1, torch.from_numpy(table.t[rows]))
    K, size = torch.from_numpy(truth.K[found]), torch.from_numpy(truth.size[found])
    return SceneScore(
        scene,
        tuple(_number(truth.keys[i], truth.names[i]) for i in found),
        center_error(estimated, true).numpy(),
        quaternion_error_deg(q1, q0, clamp=mode == "clean").numpy(),
        vcre(estimated, true, K, size).numpy(),
        table.confidence[rows],
        len(truth.keys) - len(found),
        len(truth.keys),
        tuple(truth.names[i] for i in found),
    ), warnings


def _estimates(text: str, file: str, mode: Mode) -> tuple[PoseTable, list[int | str], tuple[str, ...]]:
    """The submitted poses of one scene, the key of each, and warnings."""
    if mode == "official":
        table = parse_pose_lines(text, file, with_confidence=True)
        return table, list(table.frames), table.warnings
    # the same line rules, but the whole name counts
    rows: dict[str, list[float]] = {}
    warnings = LineWarnings(file)
    for number, name, _, values in pose_lines(text, file, warnings, with_confidence=True):
        if values[7] < 0:
            warnings.add(f"Negative confidence in file {file} line {number}. Ignoring line.")
            continue
        if name in rows:
            warnings.add(f"{name} comes twice in file {file}; line {number} counts.")
        rows[name] = values
    table = pose_table(dict(enumerate(rows.values())), warnings, with_confidence=True)
    return table, list(rows), table.warnings


def _number(key: int | str, name: str) -> int:
    return key if isinstance(key, int) else int("".join(c for c in name[-9:-4] if c.isdigit()) or 0)
