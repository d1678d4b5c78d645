"""Frames of a robot and the transforms between them (TF): where its camera stood in a fixed frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.trajectories import Trajectory
from metriloc.streams.device_poses import Axes, MatchConfig, PoseRow, mounted, timed_rows
from metriloc.streams.frames import StreamFrame
from metriloc.streams.notes import Notes

FIXED_FRAMES = ("odom", "odom_combined", "world", "map")
"""Frames that do not move, the smoothest first: what a device poses are told in unless ``--device-frame`` says."""
BODY = ""
"""The child of poses that name none."""


@dataclass(frozen=True, eq=False)
class Edge:
    """``child_from_parent``: over time, or always the same."""

    parent: str
    motion: Trajectory | Pose


@dataclass(eq=False)
class TransformTree:
    """What leads from each frame to the one above it."""

    edges: dict[str, Edge] = field(default_factory=dict)

    def add(
        self, parent: str, child: str, rows: Sequence[Sequence[float]], static: bool, where: str, notes: Notes
    ) -> None:
        """One edge.

        - rows: time, quaternion w x y z and position of parent from child.
        - where: the file, as notes name it.

        An edge that is there already stays, with a note where it leads elsewhere.
        """
        if child == parent:
            notes.add("loop of frames", f"{where}: {child!r} is said to stand in itself; that is left out")
            return
        if child in self.edges:
            if self.edges[child].parent != parent:
                said = f"in {self.edges[child].parent!r} and in {parent!r}; the first one counts"
                notes.add("two parents", f"{where}: {child!r} is said to stand {said}")
            return
        label = f"{where}, {child or 'pose'} in {parent}"
        listed = [
            PoseRow(f"{label}, at {time:.3f} s", time, (w, x, y, z), (tx, ty, tz))
            for time, w, x, y, z, tx, ty, tz in rows
            if abs(time) < float("inf")
        ]
        try:
            trajectory = timed_rows(listed, notes, label)
        except InputError:
            notes.add("empty edge", f"{label}: there is no pose that is one")
            return
        self.edges[child] = Edge(parent, trajectory.poses[0] if static else trajectory)

    def above(self, frame: str) -> list[str]:
        """The frame and all above it."""
        found = [frame]
        while found[-1] in self.edges and self.edges[found[-1]].parent not in found:
            found.append(self.edges[found[-1]].parent)
        return found

    def fixed_frame(self, frame: str) -> str:
        """What a frame is best told in: the first of ``FIXED_FRAMES`` above it, else the top."""
        above = self.above(frame)
        return next((name for name in FIXED_FRAMES if name in above), above[-1])


@dataclass(frozen=True, eq=False)
class TreePoses:
    """The camera of a robot in a fixed frame. mount: ``cam_from_frame``, where the tree does not hold the camera."""

    tree: TransformTree
    frame: str
    fixed: str
    match: MatchConfig
    notes: Notes
    where: str
    mount: Pose | None = None

    def at(self, frame: StreamFrame) -> Pose | None:
        """By the time of the frame."""
        if frame.time is None:
            return None
        up, down = self._from_top(self.frame, frame), self._from_top(self.fixed, frame)
        if up is None or down is None:
            return None
        found = up @ down.inverse()
        return found if self.mount is None else self.mount @ found

    def _from_top(self, name: str, frame: StreamFrame) -> Pose | None:
        """``name_from_common`` at the time of a frame, common being the lowest frame above both."""
        others = self.tree.above(self.fixed if name == self.frame else self.frame)
        pose = Pose.identity(dtype=torch.float64)
        while name not in others:
            edge = self.tree.edges[name]
            moved = self._moved(edge, frame, name)
            if moved is None:
                return None
            pose, name = pose @ moved, edge.parent
        return pose

    def _moved(self, edge: Edge, frame: StreamFrame, child: str) -> Pose | None:
        if isinstance(edge.motion, Pose):
            return edge.motion
        time = (frame.time or 0.0) - self.match.offset
        found = edge.motion.at(time, max_gap=self.match.gap, reach=self.match.tolerance)
        if found is None:
            low, high = edge.motion.span
            said = f"{child or 'it'} is told in {edge.parent} from {low:.3f} to {high:.3f} s, if without gaps"
            self.notes.add("gap in transforms", f"{frame.name} at {time:.3f} s has no pose in {self.where}: {said}")
        return found


@dataclass(frozen=True, eq=False)
class BodyConfig:
    """What poses of a robot are of."""

    body: str | None = None
    """The frame that a topic of poses is about; None for no such topic."""
    fixed: str | None = None
    """The frame that poses are told in; None for the usual one."""
    axes: Axes | None = None
    """Of the body, where no transform leads to the camera: ``body_from_cam``."""
    mount: Pose | None = None
    """Of the body, where no transform leads to the camera: ``body_from_cam``."""


def camera_in_tree(
    tree: TransformTree, camera: str, config: BodyConfig, match: MatchConfig, notes: Notes, where: str
) -> TreePoses | None:
    """Poses of a camera's frame, or of the body of a topic of poses; None, with a note, where there are none.

    Raises InputError for a fixed frame that nothing leads to.
    """
    body = config.body
    in_tree = camera in tree.edges or any(edge.parent == camera for edge in tree.edges.values())
    if body is not None and not (in_tree and set(tree.above(camera)) & set(tree.above(body))):
        return _of_body(tree, body, camera, config, match, notes, where)
    if not in_tree:
        if tree.edges:
            said = f"no transform leads to the camera's frame {camera!r}, so no device pose is known"
            notes.add("no camera frame", f"{where}: {said}")
        return None
    above = tree.above(camera)
    fixed = config.fixed or (tree.edges[body].parent if body is not None else tree.fixed_frame(camera))
    if not set(above) & set(tree.above(fixed)):
        raise InputError(f"{where}: nothing leads from {camera!r} to {fixed!r}; above it are {', '.join(above[1:])}")
    return TreePoses(tree, camera, fixed, match, notes, where)


def _of_body(
    tree: TransformTree, body: str, camera: str, config: BodyConfig, match: MatchConfig, notes: Notes, where: str
) -> TreePoses:
    """Where nothing says where the camera stands in the body, it is taken for the camera, and the notes say so."""
    axes: Axes = config.axes or ("opencv" if "optical" in body else "ros")
    if config.mount is None:
        taken = f"the poses of {body or 'that topic'} are taken for the camera's, with axes as of {axes}"
        told = "(--device-axes and --device-mount say otherwise)"
        notes.add("no mount", f"{where}: no transform leads to the camera's frame {camera!r}: {taken} {told}")
    return TreePoses(tree, body, tree.edges[body].parent, match, notes, where, mounted(axes, config.mount))
