"""How far the outputs of an ONNX file are from torch's, on this machine, written into the file itself."""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.fixed import FixedNetwork
from metriloc.backbones.local import resized_to
from metriloc.export.graph_file import GraphFile, read_graph, require_runs, with_metadata
from metriloc.export.named import load_network
from metriloc.export.session import open_session
from metriloc.io import InputError, load_view
from metriloc.io.files import write_atomically
from metriloc.io.packaged import own_data

TOLERANCE = 1e-3
"""Of the largest value of an output: ten times what other kernels of float32 were seen to differ by."""


@dataclass(frozen=True)
class Difference:
    """Of one output. largest: difference of any number; of: the largest number that torch gives."""

    output: str
    largest: float
    of: float

    @property
    def share(self) -> float:
        """Of the largest number."""
        return self.largest / self.of if self.of else self.largest


@dataclass(frozen=True)
class Conformance:
    """Differences between torch and a file, over a real photo and one of noise."""

    differences: tuple[Difference, ...]

    @property
    def close(self) -> bool:
        """Whether all are within ``TOLERANCE``; numbers that are not finite never are."""
        return all(difference.share <= TOLERANCE for difference in self.differences)

    def in_words(self) -> str:
        """The worst output in a sentence."""
        worst = max(self.differences, key=lambda d: d.share if d.share == d.share else float("inf"))
        return (
            f"{worst.output} differs by {worst.largest:.2g} from torch, which is {worst.share:.1e} of its largest value "
            f"(tolerance {TOLERANCE:g})"
        )

    def as_dict(self) -> dict[str, Any]:
        """As the file keeps it."""
        import onnxruntime

        outputs = {d.output: {"largest": d.largest, "of": d.of, "share": d.share} for d in self.differences}
        return {
            "outputs": outputs,
            "tolerance": TOLERANCE,
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
            "machine": platform.machine(),
            "date": datetime.date.today().isoformat(),
        }


def check_file(path: str | Path, source: str | None = None) -> tuple[GraphFile, Conformance]:
    """Compare a file with torch on this machine.

    The largest differences are written into its metadata. source: what was exported, where the file
    does not say it or it lies elsewhere now. The file is rewritten whole, or not at all. Raises
    InputError for a file that cannot be used, and for weights that are not the file's.
    """
    model, found = read_graph(path)
    source = source or found.source
    if not source:
        raise InputError(f"'{path}' does not say what was exported: name it (--model)")
    network = load_network(source).fixed
    if (network.kind, network.identity) != (found.kind, found.identity):
        raise InputError(f"'{path}' holds other weights or settings than {source!r}, so it cannot be compared with it")
    require_runs(path)
    measured = compared(network, open_session(str(path), torch.get_num_threads()), found.size)
    write_atomically(path, with_metadata(model, {"conformance": measured.as_dict()}))
    return found, measured


@torch.no_grad()
def compared(network: FixedNetwork, session: Any, size: tuple[int, int]) -> Conformance:
    """The largest differences of each output, over the images of ``test_images``.

    Raises InputError for outputs of other names or shapes.
    """
    names = [output.name for output in session.get_outputs()]
    if names != list(network.outputs):
        raise InputError(f"the file gives {', '.join(names)}, not {', '.join(network.outputs)}")
    largest, of = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for image in test_images(size):
        theirs = session.run(None, {"image": image.numpy()})
        for name, ours, other in zip(names, network.module(image), theirs, strict=True):
            if tuple(other.shape) != tuple(ours.shape):
                raise InputError(f"{name} of the file has shape {list(other.shape)}, not {list(ours.shape)}")
            apart = (ours - torch.from_numpy(other)).abs().max()
            largest[name] = max(largest[name], float(apart.nan_to_num(nan=float("inf"))))
            of[name] = max(of[name], float(ours.abs().max()))
    return Conformance(tuple(Difference(name, largest[name], of[name]) for name in names))


def test_images(size: tuple[int, int]) -> list[Float[Tensor, "1 3 H W"]]:
    """The bundled photo at this size, and noise."""
    photo = load_view(own_data("example") / "reference.jpg").image[None]
    noise = torch.rand(1, 3, size[1], size[0], generator=torch.Generator().manual_seed(0))
    return [resized_to(photo, size).clamp(0, 1).contiguous(), noise]
