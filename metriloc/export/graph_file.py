"""ONNX files of networks: what they say of themselves, and how far a file of a stranger is trusted.

A file is read whole, within a limit; it must hold its tensors itself, use standard operators without control flow, and
take one image of a fixed size. It is run for the first time in a process of its own, with limits on memory and time,
because a graph is a program for compiled code.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metriloc.export.packages import require_onnx
from metriloc.io import InputError
from metriloc.io.files import parse_json, read_bytes

MAX_GRAPH_BYTES = 2147483647
"""Of one file, which is all that the format can hold."""
MAX_GRAPH_NODES = 100_000
MAX_GRAPH_SIDE = 8192
"""Pixels of the image."""
MAX_GRAPH_TEXT = 65536
"""Characters of what a file says of itself."""
MAX_GRAPH_SECONDS = 120
"""For the first run."""
PREFIX = "metriloc."
FORMAT = "1"
_REFUSED_OPS = ("If", "Loop", "Scan", "SequenceMap")
_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class GraphFile:
    """An ONNX file of ours. kind, identity: of the network. size: (width, height) of its images. source: what was exported,
    as the user named it. conformance: how it differs from torch, as far as that was measured."""

    path: Path
    kind: str
    identity: str
    size: tuple[int, int]
    outputs: tuple[str, ...]
    source: str = ""
    conformance: Mapping[str, Any] | None = None


def file_name(kind: str, identity: str, size: tuple[int, int]) -> str:
    """How files are called in folders of them."""
    return f"{kind}-{identity}-{size[0]}x{size[1]}.onnx"


def read_graph(path: str | Path) -> tuple[Any, GraphFile]:
    """An ONNX file, as onnx's own type, and what it says of itself. Nothing of it is run.

    Raises InputError for a file that is none of ours, is damaged, or asks for more than such a network needs.
    """
    require_onnx()
    import onnx

    path = Path(path)
    data = read_bytes(path, MAX_GRAPH_BYTES)
    try:
        model = onnx.load_model_from_string(data)
        _require_harmless(model, path)
        onnx.checker.check_model(model)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"'{path}' is not an ONNX file, or is damaged: {_first_line(error)}") from error
    return model, _described(model, path)


def _described(model: Any, path: Path) -> GraphFile:
    said = {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(PREFIX)}
    if said.get(f"{PREFIX}format") != FORMAT or sum(len(value) for value in said.values()) > MAX_GRAPH_TEXT:
        raise InputError(f"'{path}' was not written by metriloc export (its metadata do not say so)")
    size = _image_size(model, path)
    kind, identity = said.get(f"{PREFIX}kind", ""), said.get(f"{PREFIX}identity", "")
    if not re.fullmatch(r"[a-z-]{1,40}", kind) or not re.fullmatch(r"[0-9a-f]{12}", identity):
        raise InputError(f"'{path}' does not say which network it holds: export it again")
    outputs = tuple(str(output.name) for output in model.graph.output)
    text = said.get(f"{PREFIX}conformance")
    conformance = None if text is None else parse_json(text, f"'{path}': what it says of its conformance")
    if conformance is not None and not isinstance(conformance, dict):
        raise InputError(f"'{path}': what it says of its conformance is no JSON object")
    return GraphFile(path, kind, identity, size, outputs, said.get(f"{PREFIX}source", ""), conformance)


def _image_size(model: Any, path: Path) -> tuple[int, int]:
    """(width, height) of the one input. A size that is left open is refused: what depends on it was frozen."""
    if len(model.graph.input) != 1:
        raise InputError(f"'{path}' takes {len(model.graph.input)} inputs, not one image")
    shape = [
        dim.dim_value if dim.HasField("dim_value") else None for dim in model.graph.input[0].type.tensor_type.shape.dim
    ]
    if len(shape) != 4 or shape[:2] != [1, 3] or not all(side and side <= MAX_GRAPH_SIDE for side in shape[2:]):
        told = "x".join("?" if side is None else str(side) for side in shape)
        raise InputError(
            f"'{path}' takes {told}, not one image of a fixed size of at most {MAX_GRAPH_SIDE} pixels: "
            "what depends on the size, such as a table of positions, is right for one only"
        )
    return int(shape[3] or 0), int(shape[2] or 0)


def _require_harmless(model: Any, path: Path) -> None:
    """Raises InputError for tensors in other files, operators that are not standard, and control flow."""
    from onnx.external_data_helper import uses_external_data

    if len(model.graph.node) > MAX_GRAPH_NODES:
        raise InputError(f"'{path}' has {len(model.graph.node)} nodes; the limit is {MAX_GRAPH_NODES}")
    if model.functions or model.graph.sparse_initializer:
        raise InputError(f"'{path}' holds functions or sparse tensors, which metriloc export does not write")
    tensors = [*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.HasField("t"))]
    for tensor in tensors:
        if uses_external_data(tensor):
            raise InputError(f"'{path}' keeps {tensor.name!r} in another file, which is not read")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type in _REFUSED_OPS:
            raise InputError(f"'{path}' uses {node.domain or 'ai.onnx'}.{node.op_type}, which is not run")
        if any(a.HasField("g") or a.graphs or a.tensors or a.sparse_tensors for a in node.attribute):
            raise InputError(f"'{path}': {node.op_type} holds a graph of its own, which is not run")


def require_runs(path: str | Path) -> None:
    """Run a file once in a process of its own, with limits on memory and time.

    Raises InputError for one that does not run there, or ends the process.
    """
    starter = f"import sys; sys.path.insert(0, {str(_PARENT)!r}); from metriloc.export.probe import main; main()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", starter, str(path)], capture_output=True, timeout=MAX_GRAPH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"'{path}' was still running after {MAX_GRAPH_SECONDS} s, and was stopped") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
        raise InputError(f"'{path}' does not run: {said or f'its process ended with code {done.returncode}'}")


def with_metadata(model: Any, values: Mapping[str, object]) -> bytes:
    """The model's bytes with what it says of itself.

    What it said under the same names before is gone.
    """
    import onnx

    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key.startswith(PREFIX)}
    kept |= {f"{PREFIX}{key}": v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}
    onnx.helper.set_model_props(model, kept)
    data: bytes = model.SerializeToString()
    return data


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
