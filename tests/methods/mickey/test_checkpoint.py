"""Published checkpoints and configurations become ours, completely or with a sentence that says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from metriloc.backbones import VIT_S, DinoV2Config
from metriloc.methods.mickey.checkpoint import (
    config_from_weights,
    config_from_yaml,
    from_official,
    official_name,
    our_name,
    solver_config_from_yaml,
)
from metriloc.methods.mickey.network import MicKeyNetwork
from metriloc.methods.mickey.network_config import MicKeyConfig
from metriloc.methods.mickey.solver import SolverConfig

PREFIX = "compute_matches."
BACKBONE = "compute_matches.extractor.dinov2_vitl14."

# the values of the released config.yaml as the specification lists them, with the keys nothing uses
RELEASED: dict[str, Any] = {
    "MODEL": "MicKey",
    "DEBUG": False,
    "MICKEY": {
        "DINOV2": {"DOWN_FACTOR": 14, "CHANNEL_DIM": 1024, "FLOAT16": True},
        "KP_HEADS": {
            "BLOCKS_DIM": [512, 256, 128, 64],
            "BN": True,
            "USE_SOFTMAX": True,
            "USE_DEPTHSIGMOID": False,
            "MAX_DEPTH": 60,
            "POS_ENCODING": True,
        },
        "DSC_HEAD": {"LAST_DIM": 128, "BLOCKS_DIM": [9, 9, 9], "BN": False, "NORM_DSC": True, "POS_ENCODING": True},
    },
    "FEATURE_MATCHER": {
        "TYPE": "DualSoftmax",
        "DUAL_SOFTMAX": {"TEMPERATURE": 0.1, "USE_DUSTBIN": True},
        "SINKHORN": {"NUM_IT": 10, "DUSTBIN_SCORE_INIT": 1.0},
        "USE_TRANSFORMER": False,
        "TOP_KEYPOINTS": False,
    },
    "TRAINING": {"LR": "1e-4"},
    "PROCRUSTES": {
        "IT_MATCHES": 20,
        "IT_RANSAC": 100,
        "NUM_SAMPLED_MATCHES": 2048,
        "NUM_CORR_3D_3D": 3,
        "NUM_REFINEMENTS": 4,
        "TH_INLIER": 0.15,
        "TH_SOFT_INLIER": 0.3,
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """RELEASED with one value changed."""
    head, _, rest = path.partition(".")

    def put(node: dict[str, Any], key: str, rest: str) -> dict[str, Any]:
        first, _, more = rest.partition(".")
        return {**node, key: put(node.get(key, {}), first, more) if rest else value}

    return put(RELEASED, head, rest)


@pytest.fixture(scope="module")
def official(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    """Empty tensors of the names and shapes of the released checkpoint and of its backbone."""
    lines = shared("spec/mickey_state_dict.tsv").read_text().splitlines()[1:]
    tensors = {}
    for line in lines:
        key, shape, dtype, *_ = line.split("\t")
        size = [] if shape == "scalar" else [int(part) for part in shape.split("x")]
        tensors[key] = torch.zeros(size, dtype=getattr(torch, dtype), device="meta")
    return tensors


@pytest.fixture(scope="module")
def stored(official: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in official.items() if not key.startswith(BACKBONE)}


@pytest.fixture(scope="module")
def dinov2(official: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(BACKBONE): value for key, value in official.items() if key.startswith(BACKBONE)}


@pytest.fixture(scope="module")
def tiny(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(shared("golden/mickey/mickey_tiny_weights.safetensors"))


def test_all_335_stored_tensors_fit_the_official_network(stored: dict[str, Tensor], dinov2: dict[str, Tensor]) -> None:
    assert len(stored) == 335 and len(dinov2) == 343
    assert sum(value.numel() for value in stored.values()) == 42_566_445
    ours = from_official(stored, dinov2)
    assert len(ours) == 335 - 4 + 343  # four leftovers of the score head
    assert all(value.dtype in (torch.float32, torch.int64) for value in ours.values())
    assert config_from_weights(ours) == MicKeyConfig()
    with torch.device("meta"):
        network = MicKeyNetwork(MicKeyConfig())
    network.load_state_dict(ours, strict=True, assign=True)
    heads = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    assert sum(p.numel() for p in heads) == 42_550_785


def test_names_map_both_ways(official: dict[str, Tensor]) -> None:
    names = [key.removeprefix(PREFIX) for key in official]
    ours = [our_name(name) for name in names]
    assert len(set(ours)) == len(ours)
    assert [official_name(name) for name in ours] == names
    for function, name in ((our_name, "extractor.vgg.conv"), (official_name, "vgg.conv")):
        with pytest.raises(ValueError, match=r"not a name of a MicKey .*vgg\.conv"):
            function(name)


def test_every_wrapping_gives_the_same(stored: dict[str, Tensor], dinov2: dict[str, Tensor]) -> None:
    expected = {key: value.shape for key, value in from_official(stored, dinov2).items()}
    bare = {key.removeprefix(PREFIX): value for key, value in stored.items()}
    lightning = {"state_dict": stored, "epoch": 3, "optimizer_states": [], "callbacks": {}}
    with_backbone = stored | {BACKBONE + key: value for key, value in dinov2.items()}
    for checkpoint, backbone in ((bare, dinov2), (lightning, dinov2), (with_backbone, None), (with_backbone, dinov2)):
        assert {key: value.shape for key, value in from_official(checkpoint, backbone).items()} == expected


def test_values_survive(tiny: dict[str, Tensor]) -> None:
    before = {key: value.clone() for key, value in tiny.items()}
    ours = from_official(tiny)
    assert ours["dustbin"] == 1.25
    key = "extractor.depth_head.att_layer.layers.1.mlp.2.weight"
    assert torch.equal(ours["depth_head.attention.layers.1.mlp2.weight"], tiny[PREFIX + key].float())
    assert all(torch.equal(before[key], value) for key, value in tiny.items())


def test_given_backbone_weights_win(tiny: dict[str, Tensor]) -> None:
    backbone = {k.removeprefix(BACKBONE): torch.ones_like(v) for k, v in tiny.items() if k.startswith(BACKBONE)}
    assert (from_official(tiny, backbone)["backbone.cls_token"] == 1).all()


@pytest.mark.slow
def test_what_is_wrong_is_named(stored: dict[str, Tensor], dinov2: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"holds no backbone.*dinov2_vitl14_pretrain\.pth"):
        from_official(stored)
    for gone in ("extractor.det_head.resblock2.bn1.running_var", "extractor.depth_head.resblock1.conv1.weight"):
        with pytest.raises(ValueError, match=f"'{gone}' is missing"):
            from_official({key: value for key, value in stored.items() if not key.endswith(gone)}, dinov2)
    with pytest.raises(ValueError, match=r"'matcher\.matching_mat\.dustbin_score' is missing"):
        from_official({key: value for key, value in stored.items() if "dustbin" not in key}, dinov2)
    with pytest.raises(ValueError, match=r"'extractor\.dinov2_vitl14\.blocks\.23\.ls2\.gamma' is missing"):
        from_official(stored, {key: value for key, value in dinov2.items() if key != "blocks.23.ls2.gamma"})
    with pytest.raises(ValueError, match=r"unexpected entry 'extractor\.dsc_head\.foo'"):
        from_official(stored | {PREFIX + "extractor.dsc_head.foo": torch.zeros(1)}, dinov2)
    with pytest.raises(ValueError, match=r"unexpected entry 'encoder\.0\.weight'"):
        from_official({"encoder.0.weight": torch.zeros(1)}, dinov2)
    with pytest.raises(ValueError, match="unexpected entry 'epoch'"):
        from_official({"epoch": 3}, dinov2)
    with pytest.raises(ValueError, match="'state_dict' is a list"):
        from_official({"state_dict": []}, dinov2)
    wrong = {PREFIX + "extractor.det_offset.xy_offset.weight": torch.zeros(3, 64, 1, 1)}
    with pytest.raises(ValueError, match=r"xy_offset\.weight' has shape \[3, 64, 1, 1\] .* expected \[2, 64, 1, 1\]"):
        from_official(stored | wrong, dinov2)


def test_the_released_yaml() -> None:
    assert config_from_yaml(RELEASED) == MicKeyConfig()
    assert solver_config_from_yaml(RELEASED) == SolverConfig()
    assert config_from_yaml({}) == MicKeyConfig() and solver_config_from_yaml({}) == SolverConfig()


def test_yaml_values_arrive() -> None:
    def network(path: str, value: object) -> MicKeyConfig:
        return config_from_yaml(changed(path, value))

    assert network("MICKEY.DINOV2.CHANNEL_DIM", 384).backbone == VIT_S
    assert network("MICKEY.DINOV2.FLOAT16", False).precision == "fp32"
    assert network("MICKEY.KP_HEADS.BLOCKS_DIM", [8, 8, 16, 4]).blocks == (8, 8, 16, 4)
    assert network("MICKEY.KP_HEADS.USE_DEPTHSIGMOID", True).max_depth == 60
    assert not network("MICKEY.KP_HEADS.BN", False).batch_norm
    assert not network("MICKEY.KP_HEADS.USE_SOFTMAX", False).use_softmax
    assert not network("MICKEY.KP_HEADS.POS_ENCODING", False).position_encoding
    assert not network("MICKEY.DSC_HEAD.POS_ENCODING", False).descriptor_position_encoding
    assert not network("MICKEY.DSC_HEAD.NORM_DSC", False).normalize_descriptors
    assert network("MICKEY.DSC_HEAD.LAST_DIM", 32).descriptor_dim == 32
    assert network("FEATURE_MATCHER.DUAL_SOFTMAX.TEMPERATURE", "1e-2").match_temperature == 0.01
    assert not network("FEATURE_MATCHER.DUAL_SOFTMAX.USE_DUSTBIN", False).use_dustbin
    assert solver_config_from_yaml(changed("PROCRUSTES.TH_INLIER", "1e-1")).inlier_threshold == 0.1
    assert solver_config_from_yaml(changed("PROCRUSTES.IT_RANSAC", 7)).num_hypotheses == 7


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("MODEL", "LoFTR", "MODEL 'LoFTR', not MicKey"),
        ("FEATURE_MATCHER.TYPE", "Sinkhorn", "TYPE 'Sinkhorn' is not supported"),
        ("FEATURE_MATCHER.DUAL_SOFTMAX.TEMPERATURE", "warm", "TEMPERATURE must be a number, got 'warm'"),
        ("MICKEY.KP_HEADS.BN", "False", "BN must be True or False, got 'False'"),
        ("MICKEY.KP_HEADS.BLOCKS_DIM", [512, 256], "BLOCKS_DIM must be four widths, got"),
        ("MICKEY.DINOV2.CHANNEL_DIM", 64, "CHANNEL_DIM 64 is no published DINOv2"),
        ("MICKEY.DINOV2.DOWN_FACTOR", 8, "wants 1024 channels at stride 8, the backbone has 1024 at 14"),
    ],
)
def test_wrong_yaml_values_are_named(path: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_yaml(changed(path, value))


def test_yaml_and_weights_of_the_tiny_model_agree(shared: Callable[[str], Path], tiny: dict[str, Tensor]) -> None:
    yaml = pytest.importorskip("yaml")
    with safe_open(shared("golden/mickey/mickey_tiny_weights.safetensors"), "pt") as file:
        values = {"MICKEY": yaml.safe_load(file.metadata()["cfg"])}
    backbone = DinoV2Config(embed_dim=64, depth=2, num_heads=4)
    config = config_from_yaml(values, backbone)
    assert config.precision == "fp32"
    assert config_from_weights(from_official(tiny), num_heads=4) == MicKeyConfig(
        backbone=backbone, blocks=config.blocks, descriptor_dim=config.descriptor_dim
    )
    assert (config.blocks, config.descriptor_dim) == ((48, 40, 128, 24), 32)
