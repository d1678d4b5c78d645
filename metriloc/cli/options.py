"""Arguments that several commands share; settings of photos and methods are those of ``metriloc.runs.options``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from metriloc.choose import HUB_METHOD, METHODS
from metriloc.io import InputError
from metriloc.runs.pose_files import FORMATS, checked_formats

MethodArgument = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join((*METHODS, HUB_METHOD))}}}")]
"""A method for two photos; ``choose_method`` says which there are."""


FormatArgument = Annotated[tuple[str, ...] | None, tyro.conf.arg(name="format", metavar=f"{{{','.join(FORMATS)}}} ...")]
"""Which files of poses a run leaves; ``checked_formats`` says which there are."""


def check_formats(formats: tuple[str, ...] | None, out: Path | None) -> None:
    """Raises InputError for an unknown name after ``--format``, and for ``--format`` without ``--out``."""
    if checked_formats(formats or ()) and out is None:
        raise InputError(f"--format {' '.join(formats or ())} names files of --out: give a folder")


def check_resume(resume: bool, out: Path | None) -> None:
    """Raises InputError for ``--resume`` without ``--out``."""
    if resume and out is None:
        raise InputError("--resume goes on with an earlier run: give its --out")
