"""What was published for NRE: two checkpoints in any order, its configuration file, and costs at a known pose."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.adjust import adjusted
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.reference_features import ReferenceFeatures
from metriloc.methods.nre import NRE
from metriloc.methods.nre.initialize import initialize
from metriloc.methods.nre.looks import reference_looks
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig
from metriloc.methods.nre.published import assignments_of, load_networks
from metriloc.methods.nre.refine import refine
from metriloc.methods.nre.settings import NREConfig
from metriloc.methods.nre.trained import TrainedConfig, make_network, save_trained
from metriloc.methods.nre.truth import sampled_cost, smoothed_cost

PUBLISHED = {
    "skip_gnc": False,
    "n_iter_p3p": 5000,
    "top_n_p3p": 0.25,
    "max_fine_imsize": 1600,
    "gnc_minibatch": 3000,
    "p3p_sigma_max": 2.0,
    "p3p_sigma_min": 0.6,
    "window_size": 16,
    "fine_sigma_max": 2.0,
    "fine_sigma_min": 0.6,
}
"""Spec nre 12."""


class Nothing:
    """Features of no use: settings alone are looked at."""

    name, temperature = "nothing", 1.0


def configured(values: Mapping[str, Any]) -> NREConfig:
    return adjusted(NRE(Nothing(), Nothing(), NREConfig()), assignments_of(values, "config.yml")).config  # type: ignore[arg-type]


def test_the_published_file_gives_the_published_settings() -> None:
    config = configured(PUBLISHED)
    assert config.initialize.num_samples == 5000 and config.initialize.share == 0.25
    assert config.fine.longest_side == 1600 and config.windows.window == 16 and not config.skip_gnc
    assert config.coarse_gnc.sigmas == config.windows.gnc.sigmas == (2.0, 1.0, 0.8, 0.6)


@pytest.mark.parametrize(
    ("ends", "sigmas"),
    [
        ({"coarse_sigma_max": 4.0, "coarse_sigma_min": 0.2}, (4.0, 2.0, 1.0, 0.8, 0.6, 0.4, 0.2)),
        ({"p3p_sigma_max": 3, "p3p_sigma_min": 3}, (3.0,)),
        ({"p3p_sigma_max": 0.5}, (0.5,)),
        ({"p3p_sigma_max": 0.5, "p3p_sigma_min": 0.1}, (0.5, 0.4, 0.2, 0.1)),
        ({"p3p_sigma_min": 1.5}, (2.0, 1.5)),
    ],
)
def test_ends_of_sigma_bring_the_steps_between_them(ends: dict[str, float], sigmas: tuple[float, ...]) -> None:
    assert configured(ends).coarse_gnc.sigmas == sigmas


def test_groups_are_looked_into_and_a_share_above_one_keeps_all() -> None:
    config = configured({"p3p": {"top_n_p3p": 7}, "other": {"skip_gnc": True, "use_re": True}})
    assert config.initialize.share == 1.0 and config.skip_gnc and config.use_re


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_iter": 3}, "'n_iter' is no setting of NRE"),
        ({"window_size": "big"}, "window_size must be a number"),
        ({"p3p_sigma_max": 1.0, "p3p_sigma_min": 2.0}, "from 1 to 2"),
        ({"fine_sigma_min": 0}, "positive"),
    ],
)
def test_what_is_not_of_nre_is_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        assignments_of(values, "config.yml")


# -- checkpoints ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    for level in ("coarse", "fine"):
        network = NRENetwork(NRENetworkConfig(level))  # type: ignore[arg-type]
        torch.save({"state_dict": network.state_dict()}, folder / f"{level}.ckpt")
    return {level: str(folder / f"{level}.ckpt") for level in ("coarse", "fine")}


def test_checkpoints_come_in_any_order(checkpoints: dict[str, str]) -> None:
    for order in (("coarse", "fine"), ("fine", "coarse")):
        coarse, fine, config, identity = load_networks([checkpoints[level] for level in order], ["cpu", "cpu"])
        assert (coarse.level, fine.level) == ("coarse", "fine") and identity == "nre"  # type: ignore[union-attr]
        assert config.coarse.longest_side == config.fine.longest_side == 1600
    coarse, fine, _, _ = load_networks([checkpoints["coarse"]], ["cpu", "cpu"])
    assert coarse.level == "coarse" and fine is None  # type: ignore[attr-defined]


def test_wrong_checkpoints_are_one_sentence(checkpoints: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="are both coarse networks"):
        load_networks([checkpoints["coarse"]] * 2, ["cpu", "cpu"])
    with pytest.raises(InputError, match="are both fine networks"):
        load_networks([checkpoints["fine"]] * 2, ["cpu", "cpu"])
    with pytest.raises(InputError, match=r"is the fine network of NRE: give the coarse one"):
        load_networks([checkpoints["fine"]], ["cpu", "cpu"])
    with pytest.raises(InputError, match="two weights files"):
        load_networks([], ["cpu", "cpu"])


def test_a_run_stands_for_its_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds no 'weights' yet"):
        load_networks([str(run)], ["cpu", "cpu"])
    config = TrainedConfig("coarse", 0.5)
    identity = save_trained(run / "weights", config, make_network(config, torch.Generator().manual_seed(0)))
    coarse, fine, _, found = load_networks([str(run)], ["cpu", "cpu"])
    assert coarse.temperature == 0.5 and fine is None and found == identity


# -- costs at a known pose --------------------------------------------------------------------------------------------
def test_costs_at_a_pose_are_those_of_the_stages_there(scene: Any) -> None:
    """At the pose that a stage returns, the costs are the ones that it reports; far from it they are higher."""
    planted = scene()
    found = initialize(planted.maps, planted.xyz, planted.camera, torch.Generator().manual_seed(0))
    best = found.poses[0]
    assert sampled_cost(planted.maps, planted.xyz, planted.camera, best) == pytest.approx(
        float(found.costs[0]), rel=1e-9
    )
    refined = refine(planted.maps, planted.xyz, planted.camera, found.poses)
    at = smoothed_cost(planted.maps, planted.xyz, planted.camera, refined.pose, 0.6)
    assert at == pytest.approx(refined.cost, rel=1e-9)
    away = Pose(refined.pose.R, refined.pose.t + 0.5)
    assert smoothed_cost(planted.maps, planted.xyz, planted.camera, away, 0.6) > at
    assert sampled_cost(planted.maps, planted.xyz, planted.camera, away) > float(found.costs[0])


def test_coarse_only_is_a_setting() -> None:
    method = adjusted(NRE(Nothing(), Nothing(), NREConfig()), ["coarse_only=true"])  # type: ignore[arg-type]
    assert method.config == dataclasses.replace(NREConfig(), coarse_only=True)


@pytest.mark.parametrize("kinds", [("coarse", "fine"), ("xfeat", "xfeat")])
def test_what_two_networks_of_one_name_see_is_kept_apart(kinds: tuple[str, str], tmp_path: Path) -> None:
    if "xfeat" in kinds:
        pytest.importorskip("kornia")
    for number, kind in enumerate(kinds):
        trained = TrainedConfig(kind)  # type: ignore[arg-type]
        save_trained(tmp_path / str(number), trained, make_network(trained, torch.Generator().manual_seed(number)))
    coarse, fine, config, identity = load_networks([str(tmp_path / "0"), str(tmp_path / "1")], ["cpu", "cpu"])
    assert fine is not None and coarse.name == fine.name
    seen, other = (
        {look.what for look in reference_looks(network, identity, config.coarse, (640, 480))}
        for network in (coarse, fine)
    )
    assert seen and not seen & other


def test_calibrations_and_settings_leave_what_is_kept() -> None:
    kept = ReferenceFeatures()
    method = NRE(Nothing(), None, NREConfig(), kept=kept)  # type: ignore[arg-type]
    assert method._calibrated(()).kept is kept and method.with_settings(NREConfig(use_re=True)).kept is kept
