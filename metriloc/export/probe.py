"""What runs an ONNX file for the first time: a process that holds nothing, within limits."""

from __future__ import annotations

import sys

MAX_PROBE_BYTES = 16 * 2**30
"""Address space."""


def main() -> None:
    """Run the file that the command line names, on an image of zeros; a code other than 0 says that it did not."""
    import numpy as np

    from metriloc.export.session import open_session

    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_PROBE_BYTES, MAX_PROBE_BYTES))
    except (ImportError, ValueError, OSError):
        pass  # no such limits on this system
    try:
        session = open_session(sys.argv[1], threads=1)
        (image,) = session.get_inputs()
        session.run(None, {image.name: np.zeros(image.shape, np.float32)})
    except Exception as error:
        raise SystemExit(" ".join(str(error).split())[:300]) from error
