"""What lets poses and cameras be stacked as tensors are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch


def batch_axis(dim: int, shape: torch.Size) -> int:
    """Which new batch axis ``torch.stack`` means by ``dim``, counted from the front.

    Raises IndexError as it does.
    """
    if not -len(shape) - 1 <= dim <= len(shape):
        raise IndexError(f"dim must be in {-len(shape) - 1}..{len(shape)} for batch shape {tuple(shape)}, got {dim}")
    return dim % (len(shape) + 1)


def stacked(kind: Any, function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """``torch.stack`` of a sequence of poses or cameras through their own ``stack``.

    NotImplemented for all else.
    """
    if function is not torch.stack:
        return NotImplemented
    parts = args[0] if args else kwargs["tensors"]
    if not all(isinstance(part, kind) for part in parts):
        return NotImplemented
    return kind.stack(parts, args[1] if len(args) > 1 else kwargs.get("dim", 0))
