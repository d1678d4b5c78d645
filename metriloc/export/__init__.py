"""Networks as ONNX files, compared with torch on this machine, and methods that run them by ONNX Runtime (extra ``onnx``).

A file is for images of one size. What surrounds a network (bringing photos to that size, keypoints, matching, poses) is
torch's as ever, so a method gives the same poses up to rounding.

>>> method = metriloc.load("mickey", runtime="onnx")  # doctest: +SKIP
"""

from metriloc.export.conformance import check_file
from metriloc.export.named import NOT_EXPORTED, load_network
from metriloc.export.runtime import OnnxRuntime, on_runtime
from metriloc.export.write import export_network

__all__ = ["NOT_EXPORTED", "OnnxRuntime", "check_file", "export_network", "load_network", "on_runtime"]
