"""The released MicKey checkpoints -> ours: a table of names, and the published YAML -> our configurations.

Nothing here reads files. The released files hold the four heads and the dustbin (335 tensors) under Lightning's
``state_dict``; the backbone comes from a DINOv2 file. Positions and the like are computed, so nothing else is stored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metriloc.backbones import VIT_B, VIT_L, VIT_S, DinoV2Config, dinov2_config_from_weights, dinov2_weights
from metriloc.methods.mickey.network import MicKeyNetwork
from metriloc.methods.mickey.network_config import MicKeyConfig
from metriloc.methods.mickey.solver import SolverConfig

_WRAPPER = "compute_matches."
_OFFICIAL_BACKBONE = "extractor.dinov2_vitl14."

# official prefix -> ours; the first that fits counts
_PREFIXES = {
    _OFFICIAL_BACKBONE: "backbone.",  # and then DINOv2's own names
    "extractor.det_offset.xy_offset.": "offset_head.output.",
    "extractor.det_offset.": "offset_head.",
    "extractor.depth_head.depth.": "depth_head.output.",
    "extractor.depth_head.": "depth_head.",
    "extractor.det_head.score.": "score_head.output.",
    "extractor.det_head.": "score_head.",
    "extractor.dsc_head.": "descriptor_head.",
    "matcher.matching_mat.dustbin_score": "dustbin",
}
# official part of a head's name -> ours
_PARTS = {
    ".resblock": ".block",
    ".shortcut.0.": ".shortcut.",
    ".att_layer.": ".attention.",
    ".q_proj.": ".q.",
    ".k_proj.": ".k.",
    ".v_proj.": ".v.",
    ".mlp.0.": ".mlp1.",
    ".mlp.2.": ".mlp2.",
}
# stored with the score head: constants that our formulas contain, or that nothing uses
_LEFTOVERS = re.compile(r"\.det_head\.(eps|offset_par1|offset_par2|ones_kernel)$")


def from_official(checkpoint: Mapping[str, Any], dinov2: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The tensors of a released checkpoint under our names.

    They are float32, complete and of consistent shapes. checkpoint: the Lightning dictionary or its
    ``state_dict``, with or without the ``compute_matches.`` prefix, with or without backbone
    tensors. dinov2: backbone tensors (raw DINOv2 or transformers names); they win over the
    checkpoint's own. Raises ValueError naming the first entry that is missing, unknown or of a
    wrong shape, or what to supply when there is no backbone.
    """
    tensors = checkpoint.get("state_dict", checkpoint)
    if not isinstance(tensors, Mapping):
        raise ValueError(
            f"not a MicKey checkpoint: its 'state_dict' is a {type(tensors).__name__}, not a table of tensors"
        )
    ours: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = str(key).removeprefix(_WRAPPER)
        if not isinstance(value, Tensor) or not name.startswith(tuple(_PREFIXES)):
            raise ValueError(f"not a MicKey checkpoint: unexpected entry {key!r}")
        if not (_LEFTOVERS.search(name) or (dinov2 is not None and name.startswith(_OFFICIAL_BACKBONE))):
            ours[our_name(name)] = value
    if dinov2 is not None:
        ours |= {f"backbone.{key}": value for key, value in dinov2_weights(dinov2).items()}
    elif not any(key.startswith("backbone.") for key in ours):
        raise ValueError(
            "the checkpoint holds no backbone, as released: also give the DINOv2 weights "
            "(dinov2_vitl14_pretrain.pth, or facebook/dinov2-large of transformers)"
        )
    check_complete(ours)
    return {key: value.float() if value.is_floating_point() else value for key, value in ours.items()}


def our_name(official: str) -> str:
    """One official name, without the ``compute_matches.`` prefix, -> ours. Raises ValueError for a foreign name."""
    for theirs, ours in _PREFIXES.items():
        if official.startswith(theirs):
            name = ours + official.removeprefix(theirs)
            for part in _PARTS if ours != "backbone." else ():
                name = name.replace(part, _PARTS[part])
            return name
    raise ValueError(f"not a name of a MicKey checkpoint: {official!r}")


def official_name(ours: str) -> str:
    """The inverse of ``our_name``, for messages and for writing checkpoints that the published code can read."""
    for theirs, prefix in _PREFIXES.items():
        if ours.startswith(prefix):
            rest = "." + ours.removeprefix(prefix)
            for part, own in _PARTS.items() if prefix != "backbone." else ():
                rest = rest.replace(own, part)
            return theirs + rest[1:]
    raise ValueError(f"not a name of a MicKey network: {ours!r}")


def check_complete(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError, with the official name, for the first entry missing, unexpected or of another shape than the
    rest implies."""
    config = config_from_weights(tensors, num_heads=1)  # their number shows in no shape
    with torch.device("meta"):
        expected = MicKeyNetwork(config).state_dict()
    for key, value in expected.items():
        if key not in tensors:
            raise ValueError(f"the MicKey checkpoint is incomplete: {official_name(key)!r} is missing")
        if tensors[key].shape != value.shape:
            found, wanted = list(tensors[key].shape), list(value.shape)
            raise ValueError(f"{official_name(key)!r} has shape {found} in the MicKey checkpoint, expected {wanted}")
    for key in tensors:
        if key not in expected:
            raise ValueError(f"not a MicKey checkpoint: unexpected entry {official_name(key)!r}")


def config_from_weights(tensors: Mapping[str, Tensor], num_heads: int | None = None) -> MicKeyConfig:
    """The network shape that tensors (under our names) were made for.

    What shapes do not tell has its default. num_heads: of a backbone of unpublished width. Raises
    ValueError naming a missing entry.
    """
    try:
        first, second, third, fourth = (tensors[f"depth_head.block{i}.conv1.weight"].shape[0] for i in (1, 2, 3, 4))
        descriptor_dim = tensors["descriptor_head.block4.conv1.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"the MicKey checkpoint is incomplete: {official_name(error.args[0])!r} is missing") from error
    backbone = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
    return MicKeyConfig(
        backbone=dinov2_config_from_weights(backbone, num_heads),
        blocks=(first, second, third, fourth),
        descriptor_dim=descriptor_dim,
        batch_norm=any(".bn1." in key for key in tensors),
    )


def config_from_yaml(values: Mapping[str, Any], backbone: DinoV2Config | None = None) -> MicKeyConfig:
    """The network of a released ``config.yaml`` (yacs schema, as a mapping).

    Keys it does not use are ignored. backbone: the DINOv2 that the heads sit on; by default the
    published one of DINOV2.CHANNEL_DIM. Half precision (FLOAT16) becomes ``auto``. Raises
    ValueError for another model, a Sinkhorn matcher (it never ran upstream), a backbone that does
    not fit, and values of a wrong kind.
    """
    if _get(values, "MODEL", "MicKey") != "MicKey":
        raise ValueError(f"the configuration is for MODEL {_shown(_get(values, 'MODEL'))}, not MicKey")
    matcher = _get(values, "FEATURE_MATCHER.TYPE", "DualSoftmax")
    if matcher != "DualSoftmax":
        raise ValueError(f"FEATURE_MATCHER.TYPE {_shown(matcher)} is not supported: only DualSoftmax is")
    bounded = _flag(values, "MICKEY.KP_HEADS.USE_DEPTHSIGMOID", False)
    return MicKeyConfig(
        backbone=_backbone(values, backbone),
        blocks=_blocks(values),
        # the descriptor head takes widths and batch norm from KP_HEADS, as upstream
        descriptor_dim=_whole(values, "MICKEY.DSC_HEAD.LAST_DIM", 128),
        batch_norm=_flag(values, "MICKEY.KP_HEADS.BN", True),
        position_encoding=_flag(values, "MICKEY.KP_HEADS.POS_ENCODING", True),
        descriptor_position_encoding=_flag(values, "MICKEY.DSC_HEAD.POS_ENCODING", True),
        use_softmax=_flag(values, "MICKEY.KP_HEADS.USE_SOFTMAX", True),
        max_depth=_number(values, "MICKEY.KP_HEADS.MAX_DEPTH", 60.0) if bounded else None,
        normalize_descriptors=_flag(values, "MICKEY.DSC_HEAD.NORM_DSC", True),
        match_temperature=_number(values, "FEATURE_MATCHER.DUAL_SOFTMAX.TEMPERATURE", 0.1),
        use_dustbin=_flag(values, "FEATURE_MATCHER.DUAL_SOFTMAX.USE_DUSTBIN", True),
        precision="auto" if _flag(values, "MICKEY.DINOV2.FLOAT16", True) else "fp32",
    )


def solver_config_from_yaml(values: Mapping[str, Any]) -> SolverConfig:
    """The test-time solver of a released ``config.yaml`` (its PROCRUSTES section). Raises ValueError as above."""
    default = SolverConfig()
    return SolverConfig(
        num_sets=_whole(values, "PROCRUSTES.IT_MATCHES", default.num_sets),
        num_hypotheses=_whole(values, "PROCRUSTES.IT_RANSAC", default.num_hypotheses),
        set_size=_whole(values, "PROCRUSTES.NUM_SAMPLED_MATCHES", default.set_size),
        minimal_size=_whole(values, "PROCRUSTES.NUM_CORR_3D_3D", default.minimal_size),
        max_refinements=_whole(values, "PROCRUSTES.NUM_REFINEMENTS", default.max_refinements),
        inlier_threshold=_number(values, "PROCRUSTES.TH_INLIER", default.inlier_threshold),
        soft_inlier_threshold=_number(values, "PROCRUSTES.TH_SOFT_INLIER", default.soft_inlier_threshold),
    )


def _backbone(values: Mapping[str, Any], backbone: DinoV2Config | None) -> DinoV2Config:
    channels = _whole(values, "MICKEY.DINOV2.CHANNEL_DIM", VIT_L.embed_dim)
    published = {shape.embed_dim: shape for shape in (VIT_S, VIT_B, VIT_L)}
    if backbone is None and channels not in published:
        raise ValueError(f"MICKEY.DINOV2.CHANNEL_DIM {channels} is no published DINOv2: its shape must be given")
    backbone = backbone or published[channels]
    stride = _number(values, "MICKEY.DINOV2.DOWN_FACTOR", backbone.patch_size)
    if (channels, stride) != (backbone.embed_dim, backbone.patch_size):
        raise ValueError(
            f"MICKEY.DINOV2 wants {channels} channels at stride {stride:g}, "
            f"the backbone has {backbone.embed_dim} at {backbone.patch_size}"
        )
    return backbone


def _blocks(values: Mapping[str, Any]) -> tuple[int, int, int, int]:
    path = "MICKEY.KP_HEADS.BLOCKS_DIM"
    found = _get(values, path, (512, 256, 128, 64))
    if not isinstance(found, (list, tuple)) or len(found) != 4 or not all(type(value) is int for value in found):
        raise ValueError(f"{path} must be four widths, got {_shown(found)}")
    first, second, third, fourth = found
    return first, second, third, fourth


def _get(values: Mapping[str, Any], path: str, default: Any = None) -> Any:
    for part in path.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return default
        values = values[part]
    return values


def _number(values: Mapping[str, Any], path: str, default: float) -> float:
    found = _get(values, path, default)
    try:
        number = math.nan if isinstance(found, bool) else float(found)  # plain YAML reads 1e-4 as a string
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path} must be a number, got {_shown(found)}")
    return number


def _whole(values: Mapping[str, Any], path: str, default: int) -> int:
    number = _number(values, path, default)
    if number != int(number):
        raise ValueError(f"{path} must be a whole number, got {number}")
    return int(number)


def _shown(value: Any) -> str:
    """A scalar as written, cut; of others their kind (they may be huge)."""
    if isinstance(value, int) and abs(value) < 10**40:
        return str(value)
    return repr(value)[:60] if isinstance(value, (str, float)) or value is None else f"of kind {type(value).__name__}"


def _flag(values: Mapping[str, Any], path: str, default: bool) -> bool:
    found = _get(values, path, default)
    if not isinstance(found, bool):
        raise ValueError(f"{path} must be True or False, got {_shown(found)}")
    return found
