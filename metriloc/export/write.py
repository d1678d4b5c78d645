"""A network to an ONNX file: fixed size, constants for what depends on it, outputs by name, compared before it is kept."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from metriloc.backbones.fixed import FixedNetwork
from metriloc.export.conformance import Conformance, compared
from metriloc.export.graph_file import FORMAT, MAX_GRAPH_SIDE, GraphFile, read_graph, with_metadata
from metriloc.export.packages import require_onnx
from metriloc.export.session import open_session
from metriloc.io import InputError
from metriloc.io.files import prepare_output_folder, write_atomically
from metriloc.version import __version__

OPSET = 18


def export_network(
    network: FixedNetwork, size: tuple[int, int], path: str | Path, *, source: str = ""
) -> tuple[GraphFile, Conformance]:
    """Write the ONNX file of a network for images of one size.

    - size: (width, height) of the images, whole multiples of ``network.multiple``.
    - path: the file; an older one stays whole until the new one is known to be right.
    - source: what the network was loaded from; ``check_file`` loads it again.

    Raises InputError for a size that does not fit, for a network that cannot be exported, and for a file that differs from
    torch by more than its tolerance: that is not written.
    """
    require_onnx()
    require_size(network, size)
    path = Path(path)
    prepare_output_folder(path.parent)
    model = _traced(network, size)
    facts: dict[str, object] = {"format": FORMAT, "kind": network.kind, "identity": network.identity}
    facts |= {"source": source, "version": __version__, "torch": torch.__version__}
    data = with_metadata(model, facts)
    with tempfile.TemporaryDirectory() as folder:  # compared as it will be read
        trial = Path(folder) / "network.onnx"
        trial.write_bytes(data)
        measured = compared(network, open_session(str(trial), torch.get_num_threads()), size)
    if not measured.close:
        raise InputError(f"'{path}' is not written: {measured.in_words()}")
    write_atomically(path, with_metadata(model, {"conformance": measured.as_dict()}))
    return read_graph(path)[1], measured


def require_size(network: FixedNetwork, size: tuple[int, int]) -> None:
    """Raises InputError for sides that are no whole multiples, or too large."""
    step = network.multiple
    if any(side < 1 or side % step or side > MAX_GRAPH_SIDE for side in size):
        raise InputError(
            f"{network.kind} takes images whose sides are whole multiples of {step} pixels up to {MAX_GRAPH_SIDE}, "
            f"not {size[0]}x{size[1]}"
        )


def _traced(network: FixedNetwork, size: tuple[int, int]) -> Any:
    image = torch.zeros(1, 3, size[1], size[0])
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network.at(size), (image,), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=["image"], output_names=list(network.outputs),
            )  # fmt: skip
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"{network.kind} cannot be exported at {size[0]}x{size[1]}: {said}") from error
    if program is None:
        raise InputError(f"{network.kind} cannot be exported at {size[0]}x{size[1]}")
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice to its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
