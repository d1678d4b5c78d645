"""Devices and calibrations that are named on the command line."""

from __future__ import annotations

import torch

from metriloc.calibration import Calibrations, load_calibration
from metriloc.io import InputError


def require_device(name: str) -> None:
    """Raises InputError when this machine has no such device.

    >>> require_device("cpu")  # is always there
    """
    names = name.split(",")
    if len(names) > 2:
        raise InputError(f"--device {name}: nre takes two, of its coarse and its fine stage; others one")
    for one in names:
        try:
            torch.ones(1, device=torch.device(one)).sum().item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise InputError(f"there is no device {one!r} here: {str(error).splitlines()[0]}") from error


def named_calibrations(name: str | None) -> Calibrations | None:
    """Those in a file, none for ``none``.

    None (those that come with the weights) where nothing is named.
    """
    if name is None:
        return None
    return () if name == "none" else (load_calibration(name),)
