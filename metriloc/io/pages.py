"""What every HTML page of metriloc has in its head: a policy by which it loads nothing and runs no script but ours."""

from __future__ import annotations

import base64
import hashlib


def script_source(script: str) -> str:
    """How a policy names the one script of that text."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def policy_tag(script: str | None = None) -> str:
    """The ``<meta>`` of the Content-Security-Policy.

    ``script`` is the text of the one script element that may run.
    """
    allowed = "" if script is None else f" script-src {script_source(script)};"
    rules = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline';{allowed} base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'
