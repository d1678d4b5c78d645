"""``metriloc serve``: anchors and maps over HTTP; and ``metriloc serve token``: who may use them."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import tyro

from metriloc.cli.terminal import print_lines, text_table
from metriloc.io import InputError
from metriloc.service.config import ServiceConfig

MISSING = 'the service needs its packages: pip install "metriloc[serve]"'
_DEFAULT = ServiceConfig()


def serve(config: Annotated[ServiceConfig, tyro.conf.arg(name="service")] = _DEFAULT) -> int:
    """Leave photos and maps at a service, and ask it later where photos were taken; a web page is at its address.

    Args:
        config: The service.
    """
    try:
        from metriloc.service.server import run_server
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    said = f"http://{config.host}:{config.port}: the page; /docs: the API; Ctrl+C stops; data: {config.data}"
    run_server(config, ready=lambda: print_lines([said]))
    return 0


def token(
    action: Annotated[
        tyro.conf.Positional[Literal["add", "rotate", "revoke", "list"]], tyro.conf.arg(metavar="ACTION")
    ],
    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME")] = None,
    scope: tuple[Literal["read", "write"], ...] = ("read", "write"),
    days: float | None = None,
    grace_days: float = 1,
    config: Annotated[ServiceConfig, tyro.conf.arg(name="service")] = _DEFAULT,
) -> int:
    """Make, replace, end and list the tokens of a service; one is shown when it is made, and never again.

    Args:
        action: add, rotate (another of the same name; the old one ends after --grace-days), revoke, or list.
        name: Of whoever uses it, as the audit log calls them.
        scope: read: look and ask for poses; write: make and delete anchors and maps.
        days: How long it lives; for ever by default.
        grace_days: How long the old token still lives after rotate.
        config: The service.
    """
    try:
        from metriloc.service.storage import open_storage
        from metriloc.service.tokens import add_token, revoke_token, rotate_token, tokens_of
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    if name is None and action != "list":
        raise InputError(f"say whose token: metriloc serve token {action} NAME")
    if action != "add" and not config.database and not config.data.is_dir():
        raise InputError(f"'{config.data}' is no folder of a service: --data names the one it keeps its data in")
    records, _ = open_storage(config)
    try:
        if action == "list" or name is None:
            rows = [("name", "scopes", "made", "ends")]
            for one in tokens_of(records):
                end = "never" if one.expires is None else _day(one.expires) if one.alive else "ended"
                rows.append((one.name, " ".join(one.scopes), _day(one.created), end))
            print_lines(text_table(rows))
        elif action == "revoke":
            print_lines([f"{revoke_token(records, name)} ended"])
        else:
            made = add_token(records, name, scope, days) if action == "add" else rotate_token(records, name, grace_days)
            print(made)  # alone in its line, for scripts
    finally:
        records.close()
    return 0


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))
