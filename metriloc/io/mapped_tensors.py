"""Safetensors within a larger file: mapped into memory and read one by one, and written one by one.

safetensors' own reader wants a file to itself; here the tensors may lie anywhere in one, such as a stored zip.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from metriloc.io.files import InputError, parse_json

MAX_HEADER_BYTES = 100 * 2**20
"""Of the table of tensors; safetensors' own limit."""
MAX_TENSOR_DIMENSIONS = 8
_DTYPES: Mapping[str, torch.dtype] = {
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"


class MappedTensors:
    """Tensors of a range of a file. Each is read when it is asked for.

    start, length: of the range, bytes. Raises InputError for what is no safetensors file, or claims what does not fit.
    """

    def __init__(self, path: Path, start: int = 0, length: int | None = None) -> None:
        self._name = f"'{path}'"
        try:
            with open(path, "rb") as file:
                self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{self._name} cannot be read: {error}") from error
        end = len(self._memory) if length is None else start + length
        header, self._data = self._header(start, end)
        metadata = header.pop(_METADATA, {})
        self.metadata: dict[str, str] = dict(metadata) if isinstance(metadata, dict) else {}
        self._places = {name: self._place(name, entry, end) for name, entry in header.items()}

    def _header(self, start: int, end: int) -> tuple[dict[str, Any], int]:
        if end - start < 8 or end > len(self._memory):
            raise InputError(f"{self._name} is cut off: it holds no tensors")
        (size,) = struct.unpack("<Q", self._memory[start : start + 8])
        if size > min(MAX_HEADER_BYTES, end - start - 8):
            raise InputError(f"{self._name} claims a table of tensors of {size} bytes")
        try:
            text = self._memory[start + 8 : start + 8 + size].decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{self._name} has a table of tensors that is no text") from error
        header = parse_json(text, f"{self._name}, its table of tensors,")
        if not isinstance(header, dict):
            raise InputError(f"{self._name} has a table of tensors that is none")
        return header, start + 8 + size

    def _place(self, name: str, entry: Any, end: int) -> tuple[torch.dtype, tuple[int, ...], int, int]:
        try:
            dtype, (first, last) = _DTYPES[entry["dtype"]], entry["data_offsets"]
            shape = tuple(entry["shape"])
            sound = all(type(number) is int and number >= 0 for number in (*shape, first, last))
            count = math.prod(shape) if len(shape) <= MAX_TENSOR_DIMENSIONS else -1
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._name} describes the tensor {name!r} in no way that can be read") from error
        if not sound or last - first != count * dtype.itemsize or self._data + last > end:
            raise InputError(f"{self._name} claims a tensor {name!r} that is not in it")
        return dtype, shape, self._data + first, self._data + last

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def names(self) -> tuple[str, ...]:
        """Of all tensors."""
        return tuple(self._places)

    def read(self, name: str) -> Tensor:
        """A copy of a tensor. Raises InputError for one with NaN or infinite values."""
        dtype, shape, first, last = self._places[name]
        if first == last:
            return torch.empty(shape, dtype=dtype)
        found = torch.frombuffer(bytearray(self._memory[first:last]), dtype=dtype).reshape(shape)
        if dtype.is_floating_point and not bool(torch.isfinite(found).all()):
            raise InputError(f"{self._name} holds NaN or infinite values in {name!r}")
        return found


class TensorWriter:
    """Writes a safetensors file without having all of it in memory.

    Numbers first, beside it, then the table and all.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._beside = path, path.with_name(f"{path.name}.numbers")
        self._file: BinaryIO = open(self._beside, "xb")  # noqa: SIM115 - closed by ``finish``
        self._header: dict[str, Any] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """One more tensor."""
        first = self._file.tell()
        values = tensor.detach().cpu().contiguous()
        self._file.write(values.numpy().tobytes())
        offsets = [first, self._file.tell()]
        self._header[name] = {"dtype": _NAMES[values.dtype], "shape": list(values.shape), "data_offsets": offsets}

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Put the file together."""
        self._file.close()
        text = json.dumps({_METADATA: dict(metadata), **self._header}).encode()
        text += b" " * (-len(text) % 8)
        with open(self.path, "xb") as file, open(self._beside, "rb") as numbers:
            file.write(struct.pack("<Q", len(text)) + text)
            shutil.copyfileobj(numbers, file, 1 << 20)
        os.unlink(self._beside)
