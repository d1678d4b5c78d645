"""Names of DINOv2's tensors: official ones, from those of ``transformers``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# transformers' name (5.x in memory | 4.x and hub files) -> official name; queries, keys, values are joined afterwards
_LAYER = r"^(?:encoder\.)?layer\.(\d+)\."
_TRANSFORMERS = [
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (_LAYER + r"attention\.(?:attention\.)?(?:query|q_proj)\.", r"blocks.\1.attn.q."),
    (_LAYER + r"attention\.(?:attention\.)?(?:key|k_proj)\.", r"blocks.\1.attn.k."),
    (_LAYER + r"attention\.(?:attention\.)?(?:value|v_proj)\.", r"blocks.\1.attn.v."),
    (_LAYER + r"attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (_LAYER + r"layer_scale([12])\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (_LAYER + r"(norm[12]|mlp\.fc[12])\.", r"blocks.\1.\2."),
    (r"^layernorm\.", "norm."),
]
_WRAPPERS = re.compile(r"^(?:dinov2|model)\.")  # a Dinov2Model inside a task model


def dinov2_from_transformers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ``transformers`` under official names.

    It is of ``Dinov2Model`` (5.x names, or 4.x names as in hub files). Raises ValueError for a name
    that no rule knows, and when one of query, key and value is missing.

    >>> list(dinov2_from_transformers({"layernorm.weight": torch.ones(16)}))
    ['norm.weight']
    """
    renamed = {_official_name(key): value for key, value in state_dict.items()}
    for q_key in [key for key in renamed if ".attn.q." in key]:
        parts = [q_key.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if not all(part in renamed for part in parts):
            raise ValueError(f"not a DINOv2 state dict of transformers: keys or values are missing beside {q_key!r}")
        renamed[q_key.replace(".attn.q.", ".attn.qkv.")] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def _official_name(key: str) -> str:
    for pattern, replacement in _TRANSFORMERS:
        name, count = re.subn(pattern, replacement, _WRAPPERS.sub("", key))
        if count:
            return name
    raise ValueError(f"not a DINOv2 state dict of transformers: unknown name {key!r}")


def dinov2_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names, from official or transformers names, whichever they are.

    A new dict, the same tensors.

    >>> list(dinov2_weights({"embeddings.cls_token": torch.zeros(1, 1, 16), "layernorm.weight": torch.ones(16)}))
    ['cls_token', 'norm.weight']
    """
    return dict(state_dict) if "pos_embed" in state_dict else dinov2_from_transformers(state_dict)
