"""MicKey as users hold it: save and load, photos of any size and camera, failures, no side effects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracles.mickey_solvers import pnp_pose, rigid_pose

from metriloc.backbones.dinov2 import DinoV2Config
from metriloc.geometry import Camera, Pose, rotation_angle
from metriloc.io import InputError
from metriloc.methods.mickey import MicKey, MicKeyConfig, MicKeyFeatures, MicKeyNetwork, SolverConfig
from metriloc.solvers.reprojection import PolishConfig
from metriloc.types import PoseEstimate, View


def small_network() -> MicKeyNetwork:
    torch.manual_seed(0)
    config = MicKeyConfig(backbone=DinoV2Config(32, 1, 2), blocks=(24, 16, 16, 8), descriptor_dim=16)
    network = MicKeyNetwork(config)
    with torch.no_grad():
        network.depth_head.output.weight.mul_(50)
    return network


@pytest.fixture(scope="module")
def model() -> MicKey:
    return MicKey(small_network(), SolverConfig(num_sets=4, num_hypotheses=20, set_size=256))


def photo(width: int, height: int, seed: int = 0, fov: float = 1.0) -> View:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))
    return View(image, Camera.from_fov((width, height), fov), name=f"{width}x{height}")


def test_save_and_load_is_bit_equal(model: MicKey, tmp_path: Path) -> None:
    identity = model.save_pretrained(tmp_path / "weights")
    again = MicKey.from_pretrained(tmp_path / "weights")
    assert again.weights_id == identity and again.solver == model.solver
    assert again.network.config == model.network.config
    assert not any(p.requires_grad for p in again.network.backbone.parameters())
    assert all(p.requires_grad for p in again.network.depth_head.parameters())
    view0, view1 = photo(224, 168), photo(224, 168, 1)
    before, after = model.relative_pose(view0, view1, seed=1), again.relative_pose(view0, view1, seed=1)
    assert torch.equal(before.pose.R, after.pose.R) and torch.equal(before.pose.t, after.pose.t)
    assert torch.equal(before.confidence, after.confidence)


@pytest.mark.parametrize("sizes", [((224, 168), (168, 224)), ((224, 168), (301, 199)), ((140, 140), (238, 154))])
def test_sizes_and_cameras_may_differ(model: MicKey, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    view0, view1 = photo(*sizes[0]), photo(*sizes[1], 1, 0.7)
    estimate = model.relative_pose(view0, view1)
    assert bool(estimate.success)
    detail = estimate.details[0]
    assert (detail.inliers.uv0 <= torch.tensor(sizes[0])).all() and (detail.inliers.uv1 <= torch.tensor(sizes[1])).all()
    assert detail.hypothesis is not None and len(detail.hypothesis.minimal) == 3
    assert {"extract_reference", "extract_query", "match", "sample", "fit_and_score"} <= detail.timings.keys()


def test_tiny_photo_fails_with_a_reason(model: MicKey) -> None:
    estimate = model.relative_pose(photo(70, 70), photo(224, 168))  # a grid of 5x5 cells is all border
    assert not bool(estimate.success) and estimate.reasons == ("too_few_matches",)
    assert torch.isnan(estimate.pose.t).all() and float(estimate.confidence) == 0


def test_one_failure_does_not_touch_the_others(model: MicKey) -> None:
    good, tiny = photo(224, 168, 1), photo(70, 70)
    reference = photo(224, 168)
    batch = model.relative_poses(reference, [good, tiny, good])
    assert batch.success.tolist() == [True, False, True]
    assert torch.equal(batch.pose.t[0], batch.pose.t[2])
    assert torch.equal(batch.pose.t[0], model.relative_pose(reference, good).pose.t)


def test_nan_from_the_network_is_said(model: MicKey) -> None:
    features = model.extract(photo(224, 168))
    nowhere = torch.full_like(features.keypoints.depth, torch.nan)
    broken = dataclasses.replace(features, keypoints=dataclasses.replace(features.keypoints, depth=nowhere))
    estimate = model.relative_pose(broken, features)
    assert estimate.reasons == ("non_finite",)


def test_inputs_are_not_written_to(model: MicKey) -> None:
    view0, view1 = photo(224, 168), photo(224, 168, 1)
    copies = view0.image.clone(), view1.image.clone()
    state = torch.random.get_rng_state()
    model.relative_pose(view0, view1)
    assert torch.equal(view0.image, copies[0]) and torch.equal(view1.image, copies[1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_polish_is_optional_and_runs(model: MicKey) -> None:
    view0, view1 = photo(224, 168), photo(224, 168, 1)
    polished = MicKey(model.network, model.solver, PolishConfig())
    estimate = polished.relative_pose(view0, view1)
    assert bool(estimate.success) and "polish" in estimate.details[0].timings
    assert "polish" not in model.relative_pose(view0, view1).details[0].timings


def test_polish_is_stored_with_the_weights(model: MicKey, tmp_path: Path) -> None:
    config = PolishConfig(pixel_sigma=3.0)
    MicKey(model.network, model.solver, config).save_pretrained(tmp_path / "polished")
    MicKey(model.network, model.solver).save_pretrained(tmp_path / "plain")
    polished, plain = (MicKey.from_pretrained(tmp_path / name) for name in ("polished", "plain"))
    assert polished.polish == config and plain.polish is None
    assert MicKey.from_pretrained(tmp_path / "polished", polish=False).polish is None
    assert MicKey.from_pretrained(tmp_path / "plain", polish=True).polish == PolishConfig()
    stored = tmp_path / "plain" / "config.json"
    stored.write_text(stored.read_text().replace('"solver"', '"polish": {"sigma": 1}, "solver"'))
    with pytest.raises(InputError, match="wrong MicKey configuration"):
        MicKey.from_pretrained(tmp_path / "plain")


def test_distorted_camera_changes_the_pose(model: MicKey) -> None:
    view0, view1 = photo(224, 168), photo(224, 168, 1)
    plain = view1.camera
    bent = Camera(plain.size, plain.f, plain.c, torch.tensor([-0.1, 0.01, 0.0, 0.0, 0.0]), "radtan")
    lens = View(view1.image, bent)
    assert not torch.equal(model.relative_pose(view0, view1).pose.t, model.relative_pose(view0, lens).pose.t)


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="metriloc weights get mickey"):
        MicKey.from_pretrained("mickey")
    with pytest.raises(InputError, match="metriloc weights list"):
        MicKey.from_pretrained(tmp_path / "nothing")


def metric_features(model: MicKey) -> tuple[MicKeyFeatures, MicKeyFeatures, Pose]:
    """Two photos' keypoints that are truly metric: random points on the grid cells, moved by a known pose.

    Descriptors agree where the same point is meant; a third of the cells of the second photo show something else.
    """
    generator = torch.Generator().manual_seed(3)
    view0, view1 = photo(420, 336), photo(420, 336, 1)
    features = model.extract(view0)
    first = features.keypoints
    count, channels = first.uv.shape[1], first.descriptor.shape[2]
    pose = Pose.from_tangent(torch.tensor([0.2, -0.1, 0.15, 0.05, 0.12, -0.04]))
    depth0 = 2 + 3 * torch.rand(count, generator=generator)
    ray, _ = view0.camera.unproject(first.uv[0])
    xyz1 = pose.transform(ray * depth0[:, None])
    uv1 = view1.camera.project(xyz1)[0]
    descriptor = torch.nn.functional.normalize(torch.randn(count, channels, generator=generator), dim=-1)
    other = torch.rand(count, generator=generator) < 0.33
    uv1[other] = 300 * torch.rand(int(other.sum()), 2, generator=generator)
    score = torch.full((1, count), 1 / count)
    changed0 = dataclasses.replace(first, depth=depth0[None], score=score, descriptor=descriptor[None])
    changed1 = dataclasses.replace(changed0, uv=uv1[None], depth=xyz1[None, :, 2])
    return (
        dataclasses.replace(features, keypoints=changed0),
        dataclasses.replace(features, view=view1, keypoints=changed1),
        pose,
    )


@pytest.mark.parametrize("solver", ["procrustes", "pnp", "rigid"])
def test_every_solver_recovers_a_known_pose(model: MicKey, solver: str) -> None:
    features0, features1, pose = metric_features(model)
    if solver == "procrustes":
        estimate = model.relative_pose(features0, features1)
    else:
        estimate = (pnp_pose if solver == "pnp" else rigid_pose)(model, features0, features1)
    assert bool(estimate.success) and 0 < float(estimate.confidence) <= 1
    assert float((estimate.pose.t - pose.t).norm()) < 0.01
    assert float(rotation_angle(estimate.pose.R @ pose.R.mT)) < 0.005
    assert len(estimate.details[0].inliers) > 150


@pytest.mark.parametrize("solver", [pnp_pose, rigid_pose])
def test_alternatives_fail_with_a_reason(model: MicKey, solver: Callable[..., PoseEstimate]) -> None:
    tiny = model.extract(photo(70, 70))
    estimate = solver(model, tiny, tiny)
    assert not bool(estimate.success) and estimate.reasons == ("too_few_matches",)
    assert torch.isnan(estimate.pose.t).all()


@pytest.mark.parametrize(
    "wrong", [{"network": None}, {"network": []}, {"network": {"colour": 3}}, {"solver": {"colour": 3}}, {"solver": 1}]
)
def test_wrong_configurations_are_one_sentence(model: MicKey, wrong: dict[str, object], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **wrong}))
    with pytest.raises(InputError, match="configuration"):
        MicKey.from_pretrained(tmp_path)
