"""Memory that a large photo costs: how far the resident set grows while it is loaded, and while a method looks at it.

    python benchmarks/photo_memory.py [--size 6000 4000] [--method mickey]

The bundled photo, enlarged, as JPEG. What libraries and weights take is there before (a small photo warms them up).
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path

from PIL import Image

import metriloc


def resident_megabytes(field: str) -> float:
    """Of this process (Linux): VmRSS now, VmHWM at most since the mark was last put back."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field)]
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    """Print what loading and looking cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(6000, 4000))
    parser.add_argument("--method", default="mickey")
    arguments = parser.parse_args()
    example = Path(metriloc.__file__).parent / "data" / "example" / "reference.jpg"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jpg"
        with Image.open(example) as photo:
            photo.resize(tuple(arguments.size)).save(path, quality=92)
        method = metriloc.load(arguments.method)
        method.extract(metriloc.load_view(example))

        def marked() -> float:
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5")
            return resident_megabytes("VmRSS")

        before = marked()
        view = metriloc.load_view(path, fov=60)
        print(f"loading {arguments.size[0]}x{arguments.size[1]}: {resident_megabytes('VmHWM') - before:.0f} MB at most")
        before = marked()
        method.extract(view)
        print(f"{arguments.method} looks at it: {resident_megabytes('VmHWM') - before:.0f} MB more at most")


if __name__ == "__main__":
    main()
