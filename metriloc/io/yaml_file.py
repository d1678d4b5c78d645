"""Settings in YAML from strangers: plain values only, small, and no aliases that multiply."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from metriloc.io.files import InputError, read_text

MAX_YAML_BYTES = 64 * 2**10
MAX_YAML_DEPTH = 30
MAX_YAML_ALIASES = 20
"""So many can repeat no text more than some thousand times."""


def read_yaml(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The settings of a file. Raises InputError for one that is too large or deep, no YAML, or no table of settings, and
    without PyYAML, with the pip command."""
    try:
        import yaml
    except ImportError as error:
        raise InputError(f"'{path}' needs PyYAML: pip install \"metriloc[convert]\"") from error
    text = read_text(path, MAX_YAML_BYTES)
    try:
        depth = aliases = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > MAX_YAML_DEPTH or aliases > MAX_YAML_ALIASES:
                raise InputError(f"'{path}' is nested too deep, or has more than {MAX_YAML_ALIASES} aliases")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"'{path}' holds no settings")
    return content
