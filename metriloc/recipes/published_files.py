"""Training files of the published systems: which recipe they mean, and with which values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metriloc.io import InputError
from metriloc.io.yaml_file import read_yaml
from metriloc.recipes.mickey_file import is_mickeys, run_of_mickeys_file
from metriloc.recipes.pixloc_file import is_pixlocs, run_of_pixlocs_file
from metriloc.recipes.published_keys import PublishedRun
from metriloc.training import Run


def run_of_files(files: Sequence[Path], base: Callable[[], Run] | None = None) -> PublishedRun:
    """The run that training files of MicKey or PixLoc describe, such as ``curriculum_learning.yaml``.

    - files: of one system; what a later one says wins.
    - base: recipe whose values stand where the files say nothing; by default the published one that they come nearest to.

    Raises InputError naming the file of another kind, and the key of a value that cannot be.
    """
    source = ", ".join(map(str, files))
    values: dict[str, Any] = {}
    for file in files:
        values = merged(values, read_yaml(file))
    read = run_of_mickeys_file if is_mickeys(values) else run_of_pixlocs_file if is_pixlocs(values) else None
    if read is None:
        known = "MicKey (TRAINING, LOSS_CLASS) or PixLoc (data, model, train)"
        raise InputError(f"'{source}' is no training file of {known}")
    if base is not None:
        return read(values, source, base())
    found = read(values, source, None)
    return replace(found, run=replace(found.run, name=files[0].stem))


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables of tables as one. Where both say something, the second wins."""
    both = dict(first)
    for key, value in second.items():
        known = both.get(key)
        both[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return both
