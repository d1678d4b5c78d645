"""ONNX Runtime's sessions: on the CPU, with the threads that torch has."""

from __future__ import annotations

from typing import Any


def open_session(path: str, threads: int) -> Any:
    """A session of a file. Raises what ONNX Runtime raises."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised as well
    # waiting threads give their processor back: torch works between two calls
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
