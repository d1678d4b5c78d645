"""The packages of the extra ``onnx``, imported when they are asked for."""

from __future__ import annotations

from importlib.util import find_spec

from metriloc.io import InputError

PIP = 'pip install "metriloc[onnx]"'
_MODULES = ("onnx", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Raises InputError, with the pip command, where a package of the extra is missing."""
    for name in _MODULES:
        if find_spec(name) is None:
            raise InputError(f"exported networks need {name}: {PIP}")
