"""MicKey, whole: two photos in, metric relative pose and confidence out.

The pipeline reads like the paper: network -> keypoints -> match probabilities -> probabilistic Procrustes -> (polish).
Every pair runs by itself with a generator of its own, so a pose does not depend on what else is in the batch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from metriloc.backbones.fixed import Swap
from metriloc.calibration import CALIBRATION_FILE, Calibration, calibrations_for, judged, that_fit
from metriloc.geometry import Camera, Pose
from metriloc.io.weights import load_state_dict_strictly, load_weights, resolve_weights, save_weights
from metriloc.methods.mickey.keypoint_maps import MicKeyFeatures
from metriloc.methods.mickey.matching import MatchProbabilities, scored_match_probabilities
from metriloc.methods.mickey.network import MicKeyNetwork
from metriloc.methods.mickey.network_config import Precision
from metriloc.methods.mickey.rematch import RematchConfig, rematch
from metriloc.methods.mickey.solver import SCALE_SOURCE, Solution, SolverConfig, solve
from metriloc.methods.mickey.stored import read_configs
from metriloc.solvers.reprojection import PolishConfig, polish
from metriloc.solvers.support import RIVAL
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View

DEFAULT_WEIGHTS = "metriloc-small"
"""Bundled with metriloc."""


class MicKey:
    """A loaded MicKey network with its solver.

    - network: weights.
    - solver: settings of the probabilistic Procrustes.
    - polish: settings of the refinement by reprojection error after it, rematch: of the guided
      matching after that; None (as published) for none.
    - weights_id: recorded with every result.
    - calibrations: of these weights; what they were fitted for has a probability as its confidence,
      and a verdict.

    Raises InputError for one of other weights.

    >>> mickey = metriloc.MicKey.from_pretrained("metriloc-small")  # which comes with metriloc
    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg", method=mickey)
    >>> estimate.detail.scale_source
    'depths that MicKey predicted for the matched keypoints'
    """

    name = "mickey"

    def __init__(
        self,
        network: MicKeyNetwork,
        solver: SolverConfig | None = None,
        polish: PolishConfig | None = None,
        weights_id: str = "mickey-unsaved",
        rematch: RematchConfig | None = None,
        calibrations: Sequence[Calibration] = (),
    ) -> None:
        self.network = network.eval()
        self._folded: tuple[object, MicKeyNetwork] | None = None
        self.solver = solver or SolverConfig()
        self.polish, self.rematch = polish, rematch
        self.weights_id = weights_id
        self.calibrations = that_fit(self.name, weights_id, calibrations)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = DEFAULT_WEIGHTS,
        *,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
        polish: bool | None = None,
        calibrations: Sequence[Calibration] | None = None,
        offline: bool | None = None,
    ) -> MicKey:
        """Load the bundled weights, or others.

        - source: a folder, a file, a published name (``mickey``, ``mickey_sc``), a hub ``owner/name``.
        - device, precision: of the backbone; ``auto`` is fp16 on CUDA and fp32 elsewhere.
        - polish: refine poses by reprojection error, and by guided matching where the weights store settings of it; None
          for what they store (of the bundled ones both, of the published none).
        - calibrations: None for what lies beside the weights or comes with them, ``()`` for bare confidences.
        - offline: never ask a network (default: METRILOC_OFFLINE).

        Raises InputError, with the command that gets the weights where they are missing.
        """
        path = resolve_weights(source, offline=offline)
        weights = load_weights(path, method=cls.name)
        config, solver, stored, rematch = read_configs(weights)
        with torch.device("meta"):  # 300 million random numbers that the next line would throw away
            network = MicKeyNetwork(dataclasses.replace(config, precision=precision))
        load_state_dict_strictly(network, weights.tensors, source=str(weights.path))
        wanted = stored is not None if polish is None else polish
        polished = (stored or PolishConfig()) if wanted else None
        if calibrations is None:
            calibrations = calibrations_for(cls.name, weights.weights_id, path / CALIBRATION_FILE)
        model = cls(network, solver, polished, weights.weights_id, rematch if wanted else None, calibrations)
        return model.to(device)

    def save_pretrained(self, folder: str | Path) -> str:
        """Write ``config.json`` and ``model.safetensors``.

        Returns the weights id, which the model takes on. Calibrations of the weights that it had
        before are no longer its own.
        """
        config = {"network": dataclasses.asdict(self.network.config), "solver": dataclasses.asdict(self.solver)}
        for name, settings in (("polish", self.polish), ("rematch", self.rematch)):
            if settings is not None:
                config[name] = dataclasses.asdict(settings)
        self.weights_id = save_weights(folder, self.name, config, self.network.state_dict())
        self.calibrations = tuple(c for c in self.calibrations if c.weights_id == self.weights_id)
        return self.weights_id

    def to(self, device: torch.device | str) -> MicKey:
        """Move the network; returns self."""
        self.network.to(device)
        return self

    def with_networks(self, swap: Swap) -> MicKey:
        """The same method with what ``swap`` gives in place of its network."""
        network, rest = swap(self.network), (self.solver, self.polish, self.weights_id, self.rematch)
        return MicKey(network, *rest, self.calibrations)

    @torch.no_grad()
    def extract(self, view: View) -> MicKeyFeatures:
        """Metric keypoints of one photo, one a cell.

        The cells are those of the backbone's grid (any size; right and bottom rest unused).
        """
        start = time.perf_counter()
        view = view.detach()
        device = next(self.network.parameters()).device
        network = self._for_photos(device)
        found = network.detect(view.image[None].to(device), Camera.stack([view.camera]).to(device))
        stride, working = network.stride, network.working_size(view.image[None])
        cell = stride * view.size[0] / working[0], stride * view.size[1] / working[1]
        return MicKeyFeatures(view, found, cell, time.perf_counter() - start, self.weights_id)

    def _for_photos(self, device: torch.device) -> MicKeyNetwork:
        """The network with its batch norms folded, until a weight changes; as it is on a GPU and where it runs elsewhere."""
        if device.type != "cpu" or self.network.runs_elsewhere:
            return self.network
        tensors = (*self.network.parameters(), *self.network.buffers())
        state = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors), self.network.config
        if self._folded is None or self._folded[0] != state:
            self._folded = state, self.network.fold_batch_norms()
        return self._folded[1]

    def relative_pose(
        self, reference: View | MicKeyFeatures, query: View | MicKeyFeatures, *, seed: int = 0
    ) -> PoseEstimate:
        """``query_from_reference`` in metres, with a confidence in 0..1; batch shape ().

        - reference, query: photos, which may differ in size and camera, or what ``extract`` made of them.
        - seed: same seed, same answer.

        Fails, with the reason, when fewer matches are possible than the solver needs, when every hypothesis is degenerate,
        or when the network gave nothing finite.
        """
        features0 = reference if isinstance(reference, MicKeyFeatures) else self.extract(reference)
        features1 = query if isinstance(query, MicKeyFeatures) else self.extract(query)
        timings = {"extract_reference": features0.seconds, "extract_query": features1.seconds}
        estimate = self._solve(features0, features1, seed, timings)
        return judged(estimate, self.calibrations, (features0.view, features1.view))

    def relative_poses(
        self, reference: View | MicKeyFeatures, queries: Sequence[View | MicKeyFeatures], *, seed: int = 0
    ) -> PoseEstimate:
        """Many queries against one reference, batch shape (n,). Bit-equal to asking one by one.

        - reference, queries: as in ``relative_pose``.
        - seed: of each of them.

        ``elements`` of the result are the single estimates, each with its interval, doubts and verdict.
        """
        features0 = reference if isinstance(reference, MicKeyFeatures) else self.extract(reference)
        return PoseEstimate.stack([self.relative_pose(features0, query, seed=seed) for query in queries])

    def _solve(
        self, features0: MicKeyFeatures, features1: MicKeyFeatures, seed: int, timings: dict[str, float]
    ) -> PoseEstimate:
        start = time.perf_counter()
        first, second = features0.keypoints, features1.keypoints
        matches = scored_match_probabilities(
            first.descriptor[0],
            second.descriptor[0],
            first.score[0],
            second.score[0],
            self.network.config.match_temperature,
            self.network.dustbin if self.network.config.use_dustbin else None,
        )
        device = matches.values.device
        cameras = features0.view.camera.to(device), features1.view.camera.to(device)
        xyz0 = cameras[0].lift(first.uv[0], first.depth[0])
        xyz1 = cameras[1].lift(second.uv[0], second.depth[0])
        timings["match"] = time.perf_counter() - start
        generator = torch.Generator(device).manual_seed(seed)
        solution = solve(matches, xyz0, xyz1, self.solver, generator)
        timings |= solution.timings
        if solution.reason is not None or solution.pose is None:
            return PoseEstimate.failure(
                solution.reason or "degenerate", _details(solution, features0, features1, timings, setup=self.setup)
            )
        polished = replace(solution, pose=self._polished(solution, features0, features1, timings))
        solution, statistics, doubts = self._rematched(polished, matches, (features0, features1), timings)
        details = _details(solution, features0, features1, timings, statistics, self.setup)
        confidence = torch.tensor(min(1.0, solution.confidence))
        pose = solution.pose.to("cpu")  # type: ignore[union-attr]
        return PoseEstimate(pose, torch.tensor(True), confidence, (None,), (details,), doubts=doubts)

    @property
    def setup(self) -> str:
        """What finds poses, as calibrations name it: the refinements that are on."""
        steps = [name for name, on in (("polish", self.polish), ("rematch", self.rematch)) if on is not None]
        return " + ".join(["procrustes", *steps])

    def _polished(
        self, solution: Solution, features0: MicKeyFeatures, features1: MicKeyFeatures, timings: dict[str, float]
    ) -> Pose:
        if solution.pose is None or self.polish is None:
            return solution.pose  # type: ignore[return-value]
        start = time.perf_counter()
        first, second = features0.keypoints, features1.keypoints
        i, j = solution.inlier0, solution.inlier1
        device = first.uv.device
        cameras = features0.view.camera.to(device), features1.view.camera.to(device)
        refined = polish(
            solution.pose, first.uv[0, i], first.depth[0, i], second.uv[0, j], second.depth[0, j], cameras, self.polish
        )
        timings["polish"] = time.perf_counter() - start
        return refined.pose

    def _rematched(
        self,
        solution: Solution,
        matches: MatchProbabilities,
        features: tuple[MicKeyFeatures, MicKeyFeatures],
        timings: dict[str, float],
    ) -> tuple[Solution, dict[str, float], tuple[str, ...]]:
        """The solution with the pose and the matches of the guided matching, what supports it, and doubts."""
        statistics = _statistics(solution)
        if self.rematch is None or solution.pose is None:
            return solution, statistics, ()
        start = time.perf_counter()
        keypoints = features[0].keypoints, features[1].keypoints
        cameras = tuple(found.view.camera.to(matches.values.device) for found in features)
        pixel = max(features[0].cell) / self.network.stride
        found = rematch(solution.pose, keypoints, matches, cameras, pixel, self.rematch)  # type: ignore[arg-type]
        timings["rematch"] = time.perf_counter() - start
        statistics = {"score": statistics["score"], "procrustes_inliers": statistics["inliers"], **found.statistics}
        if len(found.index0) == 0:
            return solution, statistics, ()
        matched = replace(
            solution,
            pose=found.pose,
            inlier0=found.index0,
            inlier1=found.index1,
            probability=found.probability,
        )
        return matched, statistics, (RIVAL,) if found.rival else ()


def _statistics(solution: Solution) -> dict[str, float]:
    """What the Procrustes says of itself; ``inliers`` are its own also where other matches are shown."""
    return {"score": solution.score, "inliers": float(len(solution.inlier0))}


def _details(
    solution: Solution,
    features0: MicKeyFeatures,
    features1: MicKeyFeatures,
    timings: dict[str, float],
    statistics: dict[str, float] | None = None,
    setup: str = "",
) -> PairDetails:
    first, second = features0.keypoints, features1.keypoints
    i, j = solution.inlier0.to(first.uv.device), solution.inlier1.to(second.uv.device)
    parts = (first.uv[0, i], second.uv[0, j], first.depth[0, i], second.depth[0, j], solution.probability)
    return PairDetails(
        score=solution.score,
        inliers=Correspondences(*(part.cpu() for part in parts)),
        metric=True,
        scale_source=SCALE_SOURCE,
        setup=setup,
        hypothesis=solution.hypothesis,
        timings=timings,
        statistics=_statistics(solution) if statistics is None else statistics,
    )
