"""The released MicKey checkpoints -> ours: a table of names, and the published YAML -> our configuration.

Nothing here reads files: it takes what ``io.weights.read_checkpoint`` returns. The released files hold the four heads
and the dustbin (335 tensors) under Lightning's ``state_dict``; the backbone comes from a DINOv2 file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from metriloc.backbones.dinov2 import config_from_weights as dinov2_config
from metriloc.backbones.dinov2 import official_weights
from metriloc.methods.mickey.network import MicKeyConfig
from metriloc.methods.mickey.solver import SolverConfig

_PREFIX = "compute_matches."
_BACKBONE = "extractor.dinov2_vitl14."

# official name -> ours, tried in order
_RENAMES = [
    (r"^extractor\.dinov2_vitl14\.", "backbone."),
    (r"^extractor\.det_offset\.xy_offset\.", "offset_head.output."),
    (r"^extractor\.depth_head\.depth\.", "depth_head.output."),
    (r"^extractor\.det_head\.score\.", "score_head.output."),
    (r"^extractor\.det_offset\.", "offset_head."),
    (r"^extractor\.depth_head\.", "depth_head."),
    (r"^extractor\.det_head\.", "score_head."),
    (r"^extractor\.dsc_head\.", "descriptor_head."),
    (r"^matcher\.matching_mat\.dustbin_score$", "dustbin"),
    (r"\.resblock(\d)\.", r".block\1."),
    (r"\.shortcut\.0\.", ".shortcut."),
    (r"\.att_layer\.", ".attention."),
    (r"\.([qkv])_proj\.", r".\1."),
    (r"\.mlp\.0\.weight$", ".mlp1.weight"),
    (r"\.mlp\.2\.weight$", ".mlp2.weight"),
]
# stored with the score head, never used there
_LEFTOVERS = re.compile(r"\.(eps|offset_par1|offset_par2|ones_kernel)$")


def from_official(checkpoint: Mapping[str, Any], backbone: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a released checkpoint under our names, in float32.

    checkpoint: the Lightning dictionary or its ``state_dict``, with or without the ``compute_matches.`` prefix, with or
    without backbone tensors. backbone: DINOv2 tensors (raw or transformers names); they win over the checkpoint's own.
    Raises ValueError naming what is missing or unknown.
    """
    tensors = checkpoint.get("state_dict", checkpoint)
    if not isinstance(tensors, Mapping):
        raise ValueError("not a MicKey checkpoint: its 'state_dict' is not a table of tensors")
    ours: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = str(key).removeprefix(_PREFIX)
        if not isinstance(value, Tensor) or not name.startswith(("extractor.", "matcher.")):
            raise ValueError(f"not a MicKey checkpoint: unexpected entry {key!r}")
        if _LEFTOVERS.search(name):
            continue
        if not name.startswith(_BACKBONE):
            ours[rename(name)] = value
        elif backbone is None:
            ours["backbone." + name.removeprefix(_BACKBONE)] = value  # DINOv2's names are ours
    if backbone is not None:
        ours |= {f"backbone.{key}": value for key, value in official_weights(backbone).items()}
    if not any(key.startswith("backbone.") for key in ours):
        raise ValueError(
            "the checkpoint holds no backbone, as released: give the DINOv2 file too (dinov2_vitl14_pretrain.pth)"
        )
    return {key: value.float() if value.is_floating_point() else value for key, value in ours.items()}


def rename(name: str) -> str:
    """One official name, without the ``compute_matches.`` prefix, -> ours."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def config_from_weights(tensors: Mapping[str, Tensor], num_heads: int | None = None) -> MicKeyConfig:
    """The network shape that tensors (under our names) were made for. num_heads: of a backbone whose heads are not 64 wide."""
    try:
        blocks = tuple(tensors[f"depth_head.block{i}.conv1.weight"].shape[0] for i in (1, 2, 3, 4))
        descriptor_dim = tensors["descriptor_head.block4.conv1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"not a MicKey checkpoint: {error.args[0]!r} is missing") from error
    backbone = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    return MicKeyConfig(
        backbone=dinov2_config(backbone, num_heads),
        blocks=blocks,  # type: ignore[arg-type]
        descriptor_dim=descriptor_dim,
        batch_norm="depth_head.block1.bn1.weight" in tensors,
        use_dustbin="dustbin" in tensors,
    )


def apply_yaml(
    config: MicKeyConfig, values: Mapping[str, Any]
) -> tuple[MicKeyConfig, SolverConfig]:
    """A released ``config.yaml`` (yacs schema) on top of the shape that the weights tell; unused keys are ignored.

    Raises ValueError for another model, a Sinkhorn matcher (it never ran upstream) and values that are not numbers.
    """
    if _get(values, "MODEL", "MicKey") != "MicKey":
        raise ValueError(f"the configuration is for model {_get(values, 'MODEL')!r}, not MicKey")
    matcher = _get(values, "FEATURE_MATCHER.TYPE", "DualSoftmax")
    if matcher != "DualSoftmax":
        raise ValueError(f"FEATURE_MATCHER.TYPE {matcher!r} is not supported: only DualSoftmax is")
    bounded = bool(_get(values, "MICKEY.KP_HEADS.USE_DEPTHSIGMOID", False))
    network = dataclasses.replace(
        config,
        use_softmax=bool(_get(values, "MICKEY.KP_HEADS.USE_SOFTMAX", True)),
        max_depth=_number(values, "MICKEY.KP_HEADS.MAX_DEPTH", 60.0) if bounded else None,
        position_encoding=bool(_get(values, "MICKEY.KP_HEADS.POS_ENCODING", True)),
        descriptor_position_encoding=bool(_get(values, "MICKEY.DSC_HEAD.POS_ENCODING", True)),
        normalise_descriptors=bool(_get(values, "MICKEY.DSC_HEAD.NORM_DSC", True)),
        match_temperature=_number(values, "FEATURE_MATCHER.DUAL_SOFTMAX.TEMPERATURE", 0.1),
        use_dustbin=bool(_get(values, "FEATURE_MATCHER.DUAL_SOFTMAX.USE_DUSTBIN", True)),
    )
    default = SolverConfig()
    solver = SolverConfig(
        num_sets=int(_number(values, "PROCRUSTES.IT_MATCHES", default.num_sets)),
        num_hypotheses=int(_number(values, "PROCRUSTES.IT_RANSAC", default.num_hypotheses)),
        set_size=int(_number(values, "PROCRUSTES.NUM_SAMPLED_MATCHES", default.set_size)),
        minimal_size=int(_number(values, "PROCRUSTES.NUM_CORR_3D_3D", default.minimal_size)),
        max_refinements=int(_number(values, "PROCRUSTES.NUM_REFINEMENTS", default.max_refinements)),
        inlier_threshold=_number(values, "PROCRUSTES.TH_INLIER", default.inlier_threshold),
        soft_inlier_threshold=_number(values, "PROCRUSTES.TH_SOFT_INLIER", default.soft_inlier_threshold),
    )
    return network, solver


def _get(values: Mapping[str, Any], path: str, default: Any = None) -> Any:
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return default
        values = values[part]
    return values


def _number(values: Mapping[str, Any], path: str, default: float) -> float:
    found = _get(values, path, default)
    try:
        return float(found)  # plain YAML reads 1e-4 as a string
    except (TypeError, ValueError):
        raise ValueError(f"{path} must be a number, got {found!r}") from None
