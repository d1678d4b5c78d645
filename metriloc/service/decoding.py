"""Uploaded photos and depth maps to plain numbers, in a process of their own: decoders are compiled code of others.

What comes out is a safetensors file with pixels and the few numbers that EXIF says of the camera, not where a photo was
taken. It lives as long as the request.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from metriloc.io import InputError
from metriloc.io.depth import read_depth
from metriloc.io.exif import ExifData
from metriloc.io.images import LoadedImage, decode_image

MAX_DECODER_BYTES = 3 * 2**30
"""Of memory that a decoder may take beyond what it began with."""


@dataclass(frozen=True)
class Encoded:
    """A file as it came. kind: ``photo`` or ``depth``; scale: units a metre of a depth map."""

    kind: str
    name: str
    data: bytes
    scale: float | None = None


@dataclass(frozen=True)
class Decoder:
    """Makes the function that decodes. spool: folder of the results; megapixels: of the largest photo."""

    spool: Path
    megapixels: float

    def __call__(self) -> Callable[[Encoded], Path]:
        _limit_memory()
        torch.set_num_threads(1)
        return self.decode

    def decode(self, file: Encoded) -> Path:
        """Writes a safetensors file of numbers. Raises InputError for what cannot be read."""
        path = self.spool / f"{secrets.token_hex(16)}.safetensors"
        if file.kind == "depth":
            save_file({"depth": self._depth(file)}, path)
            return path
        loaded = decode_image(file.data, self.megapixels, name=file.name)
        exif = json.dumps({**asdict(loaded.exif), "stored": loaded.original_size}, sort_keys=True)
        save_file({"rgb": np.ascontiguousarray(loaded.rgb)}, path, {"exif": exif})
        return path

    def _depth(self, file: Encoded) -> np.ndarray:
        with tempfile.TemporaryDirectory(dir=self.spool) as folder:
            path = Path(folder) / "depth"
            path.write_bytes(file.data)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    scale = None if file.scale is None else 1 / file.scale
                    return read_depth(path, scale=scale, max_megapixels=self.megapixels).numpy()
            except InputError as error:
                raise InputError(str(error).replace(str(path), file.name)) from None


def read_photo(path: Path) -> LoadedImage:
    """What ``Decoder`` wrote of a photo."""
    with safe_open(path, "np") as file:
        exif: dict[str, Any] = json.loads(file.metadata()["exif"])
        stored = exif.pop("stored")
        for name in ("plane_resolution", "recorded_size"):
            exif[name] = None if exif[name] is None else tuple(exif[name])
        return LoadedImage(file.get_tensor("rgb"), ExifData(**exif), (stored[0], stored[1]))


def read_depth_map(path: Path) -> torch.Tensor:
    """What ``Decoder`` wrote of a depth map, metres."""
    with safe_open(path, "pt") as file:
        return file.get_tensor("depth")


def _limit_memory() -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MAX_DECODER_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):
        pass  # a system that knows no such limit
