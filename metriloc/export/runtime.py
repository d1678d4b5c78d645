"""Methods whose networks ONNX Runtime runs: files for the sizes that photos turn out to have, made or found.

``onnx``: each size is exported when it is first met (seconds), into metriloc's cache, and is there from then on; a photo is
looked at in exactly the size that torch would take (NRE's networks: the nearest whole multiples of 32 pixels).
``onnx:FOLDER``: nothing is exported; a photo is brought to the most similar of the sizes that the folder has files for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from metriloc.backbones.fixed import Exportable, FixedNetwork, Swap
from metriloc.export.graph_file import GraphFile, file_name, read_graph, require_runs
from metriloc.export.packages import require_onnx
from metriloc.export.session import open_session
from metriloc.export.write import export_network, require_size
from metriloc.io import InputError
from metriloc.io.download import cache_folder

RUNTIMES = ("torch", "onnx", "onnx:FOLDER")
KEPT_SESSIONS = 8
"""Of each network; the one that was used longest ago makes room."""
_FOLDER = "onnx:"
MethodT = TypeVar("MethodT")


@runtime_checkable
class HasNetworks(Protocol):
    """A method whose networks can be run elsewhere."""

    def with_networks(self, swap: Swap) -> Any:
        """A copy with what ``swap`` gives in place of each network."""
        ...


class OnnxRuntime:
    """Where the files of networks are. folder: of files that are used as they are; None for the cache, where files are
    made when they are missing. swapped: kinds of the networks that run here."""

    def __init__(self, folder: Path | None = None) -> None:
        require_onnx()
        if folder is not None and not folder.is_dir():
            raise InputError(f"'{folder}' is not a folder of ONNX files: metriloc export writes them")
        self.folder = folder
        self.swapped: list[str] = []
        self._read: list[GraphFile] | None = None

    def swap(self, network: Any) -> Any:
        """The network, run by ONNX Runtime. One that is not exported as it is."""
        if not isinstance(network, Exportable):
            return network
        fixed = network.fixed()
        runner = OnnxRunner(fixed, cache_folder() / "onnx") if self.folder is None else self._of_folder(fixed)
        self.swapped.append(fixed.kind)
        return network.running_on(runner)

    def _of_folder(self, fixed: FixedNetwork) -> OnnxRunner:
        assert self.folder is not None
        found: dict[tuple[int, int], Path] = {}
        for graph in self._graphs():
            if (graph.kind, graph.identity, graph.outputs) == (fixed.kind, fixed.identity, fixed.outputs):
                require_runs(graph.path)
                found[graph.size] = graph.path
        if not found:
            raise InputError(
                f"'{self.folder}' has no ONNX file of {fixed.kind} with these weights and settings: "
                f"metriloc export MODEL --size WIDTHxHEIGHT --out '{self.folder}'"
            )
        return OnnxRunner(fixed, self.folder, found)

    def _graphs(self) -> list[GraphFile]:
        if self._read is None:
            assert self.folder is not None
            self._read = [read_graph(path)[1] for path in sorted(self.folder.glob("*.onnx"))]
        return self._read


class OnnxRunner:
    """A network at many sizes. files: the sizes there are; None for any, exported into the folder when first met."""

    def __init__(self, fixed: FixedNetwork, folder: Path, files: Mapping[tuple[int, int], Path] | None = None) -> None:
        self._fixed, self._folder, self._files = fixed, folder, files
        self._sessions: OrderedDict[tuple[int, int], Any] = OrderedDict()

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Its own size where any is to be had, else of those there are the most similar in both sides."""
        step = self._fixed.multiple
        whole = width - width % step, height - height % step
        if self._files is None or whole in self._files or min(whole) < 1:
            return width, height
        return min(self._files, key=lambda size: math.hypot(math.log(size[0] / width), math.log(size[1] / height)))

    def __call__(self, image: Tensor) -> Mapping[str, Tensor]:
        """The outputs by name. Raises InputError for a size that cannot be exported."""
        session = self._session((image.shape[-1], image.shape[-2]))
        found = session.run(None, {"image": image.detach().float().cpu().contiguous().numpy()})
        return dict(zip(self._fixed.outputs, map(torch.from_numpy, found), strict=True))

    def _session(self, size: tuple[int, int]) -> Any:
        if size not in self._sessions:
            self._sessions[size] = open_session(str(self._file(size)), torch.get_num_threads())
            if len(self._sessions) > KEPT_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(size)
        return self._sessions[size]

    def _file(self, size: tuple[int, int]) -> Path:
        if self._files is not None:
            return self._files[size]
        require_size(self._fixed, size)
        path = self._folder / file_name(self._fixed.kind, self._fixed.identity, size)
        if not path.is_file():
            export_network(self._fixed, size, path)
        return path


def on_runtime(method: MethodT, runtime: str) -> MethodT:
    """The method with its networks run elsewhere.

    By ``torch``, ``onnx`` or ``onnx:FOLDER``; the method itself stays as it is. Networks that are
    not exported stay in torch. Raises InputError for another word, for a method none of whose
    networks are exported, and for what ``OnnxRuntime`` refuses.
    """
    chosen = named_runtime(runtime)
    if chosen is None:
        return method
    name = str(getattr(method, "name", type(method).__name__))
    moved = method.with_networks(chosen.swap) if isinstance(method, HasNetworks) else method
    if not chosen.swapped:
        raise InputError(f"runtime {runtime}: {name} has no network that is exported; leave the runtime out")
    return moved


def swapping(runtime: str) -> Swap:
    """What gives the networks of a runtime, for those that are no method by themselves. Raises InputError as above."""
    chosen = named_runtime(runtime)
    return (lambda network: network) if chosen is None else chosen.swap


def named_runtime(runtime: str) -> OnnxRuntime | None:
    """Of a name; None for torch. Raises InputError for another word."""
    if runtime == "torch":
        return None
    if runtime != "onnx" and not runtime.startswith(_FOLDER):
        raise InputError(f"there is no runtime {runtime!r}: one of {', '.join(RUNTIMES)}")
    folder = runtime.removeprefix(_FOLDER) if runtime.startswith(_FOLDER) else None
    return OnnxRuntime(None if folder is None else Path(folder))


def require_cpu(runtime: str, device: str) -> None:
    """Raises InputError for a device that exported networks do not run on."""
    if runtime != "torch" and any(name.partition(":")[0] != "cpu" for name in device.split(",")):
        raise InputError(f"runtime {runtime} runs on the CPU: leave out device {device}")
