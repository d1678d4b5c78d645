"""What is reported of a query while NRE localizes it, and what pictures are drawn from where a trace was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.methods.nre.evidence import pose_gain, score_poses
from metriloc.methods.nre.maps import GainMaps
from metriloc.methods.nre.refine import Refinement
from metriloc.methods.nre.support import Look
from metriloc.methods.nre.truth import sampled_cost, smoothed_cost
from metriloc.types import Course, FailureReason, LocalizationDetails, PointMaps, PoseEstimate, Stage, Trace


@dataclass
class Progress:
    """Stages, numbers and messages so far. traced: whether maps and courses are kept, too; truth: a pose whose cost is
    to be told, at_truth: what it costs at each stage."""

    setup: str = ""
    traced: bool = False
    truth: Pose | None = None
    references: tuple[str, ...] = ()
    stages: list[Stage] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    statistics: dict[str, float] = field(default_factory=dict)
    num_points: int = 0
    coarse: Look | None = None
    fine: Look | None = None
    maps: list[PointMaps] = field(default_factory=list)
    courses: list[Course] = field(default_factory=list)
    at_truth: dict[str, float] = field(default_factory=dict)

    def details(self) -> LocalizationDetails:
        """As a result carries it."""
        return LocalizationDetails(
            self.references,
            self.num_points,
            tuple(self.stages),
            dict(self.timings),
            tuple(self.messages),
            dict(self.statistics),
            self.setup,
            dict(self.at_truth),
        )

    def trace(self) -> Trace | None:
        """For pictures; None where nobody asked."""
        return Trace(tuple(self.stages), tuple(self.courses), tuple(self.maps)) if self.traced else None

    def failure(self, reason: FailureReason) -> PoseEstimate:
        """No pose."""
        return PoseEstimate.failure(reason, self.details())

    def keep_refined(self, stage: str, look: Look, index: Tensor, refined: Refinement, sigma: float) -> None:
        """All that is told and drawn of a refined stage. index: of its points in the map; sigma: the last one."""
        maps, xyz, camera = look.maps, look.xyz, look.camera
        self.keep_maps(stage, maps, index, xyz, camera, refined.pose)
        self.keep_course(stage, maps, refined)
        self.keep_smoothed(stage, maps, xyz, camera, sigma)
        self.add_stage(stage, maps, refined)
        self.note_evidence(maps, xyz, camera, refined.pose)

    def add_start(self, name: str, maps: GainMaps, xyz: Tensor, camera: Camera, pose: Pose, cost: float) -> None:
        """A pose that is not refined yet, as a stage."""
        total = maps.max_gain * len(maps)
        gain = total - float(score_poses(maps, xyz, camera, pose))
        self.stages.append(Stage(name, pose, cost, max(0.0, gain / total) if total else 0.0))

    def add_stage(self, name: str, maps: GainMaps, refined: Refinement) -> None:
        """A refined pose."""
        support = float(maps.support(refined.gain).nan_to_num().mean()) if len(maps) else 0.0
        self.stages.append(Stage(name, refined.pose, refined.cost, support))

    def note_evidence(self, maps: GainMaps, xyz: Tensor, camera: Camera, pose: Pose) -> None:
        """What the confidence is made of.

        Mean evidence a point, and how many points have a good part of it.
        """
        share = maps.support(pose_gain(maps, xyz, camera, pose)).nan_to_num()
        explained = int((share > 0.25).sum())
        support = float(share.mean())
        self.statistics = {
            "support": support,
            # of the first look; what follows only looks closer
            "coarse_support": self.statistics.get("coarse_support", support),
            "explained": float(explained),
            "explained_ratio": explained / max(len(share), 1),
        }

    def keep_maps(self, stage: str, maps: GainMaps, index: Tensor, xyz: Tensor, camera: Camera, pose: Pose) -> None:
        """Maps of the points ``index`` of the map, in cells of ``camera``."""
        if self.traced:
            gain = pose_gain(maps, xyz, camera, pose)
            self.maps.append(
                PointMaps(stage, maps.gain, maps.origin, maps.size, maps.max_gain, camera, index, xyz, gain)
            )

    def keep_sampled(self, maps: GainMaps, xyz: Tensor, camera: Camera) -> None:
        """What P3P's objective is at the truth, where that is known."""
        if self.truth is not None:
            self.at_truth["p3p"] = sampled_cost(maps, xyz, camera, self.truth)

    def keep_smoothed(self, stage: str, maps: GainMaps, xyz: Tensor, camera: Camera, sigma: float) -> None:
        """What a refinement's objective is at the truth, where that is known."""
        if self.truth is not None:
            self.at_truth[stage] = smoothed_cost(maps, xyz, camera, self.truth, sigma)

    def keep_course(self, stage: str, maps: GainMaps, refined: Refinement) -> None:
        """How the pose that won was refined."""
        if self.traced:
            again = any(course.stage.startswith(stage) for course in self.courses)
            self.courses.append(course_of(f"{stage}, again" if again else stage, maps, refined))


def course_of(stage: str, maps: GainMaps, refined: Refinement) -> Course:
    """GNC-IRLS of the pose that won. The share of the evidence that was not gathered, step by step.

    Steps at the end of a sigma that only other start poses still took are left out.
    """
    usable = max(1, int(maps.informative().sum())) * maps.max_gain
    values: list[float] = []
    phases: list[str] = []
    for sigma in dict.fromkeys(step.sigma for step in refined.steps):
        costs = [float(step.costs[refined.best]) for step in refined.steps if step.sigma == sigma]
        while len(costs) > 1 and costs[-1] == costs[-2]:
            costs.pop()
        values += [1 + cost / usable for cost in costs]
        phases += [f"sigma {sigma:g}"] * len(costs)
    return Course(stage, tuple(values), tuple(phases), "share of evidence not gathered")
