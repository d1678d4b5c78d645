"""Bearer tokens: made once and shown once, hashed at rest, of one or two scopes, replaced without a gap."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from metriloc.io import InputError
from metriloc.service.records import TOKENS, Records

Scope = Literal["read", "write"]
"""read: look at anchors and maps, ask for poses; write: make and delete them, too."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
_TOKEN = re.compile(r"metriloc_([0-9a-f]{16})_([\w-]{43})", re.ASCII)
_NAME = re.compile(r"[\w.@-]{1,64}", re.ASCII)
_DAY = 86400.0


@dataclass(frozen=True)
class Token:
    """What is known of one. expires: seconds since 1970; None for never."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None = None

    @property
    def alive(self) -> bool:
        """Whether it lets anybody in."""
        return self.expires is None or self.expires > time.time()


def add_token(records: Records, name: str, scopes: tuple[Scope, ...] = SCOPES, days: float | None = None) -> str:
    """A new token, as its user sends it; only its hash is kept. Raises InputError for a name that is taken or none."""
    if not _NAME.fullmatch(name):
        raise InputError(f"a token has a name of 1 to 64 letters, digits and . @ - _, got {name!r}")
    if not scopes:
        raise InputError(f"a token without a scope lets nobody in: give one of {', '.join(SCOPES)}")
    if days is not None and not days > 0:
        raise InputError(f"a token lives for a positive number of days, got {days:g}")
    if any(token.name == name and token.alive for token in tokens_of(records)):
        raise InputError(f"there is a token {name!r}: rotate or revoke it, or take another name")
    return _made(records, name, scopes, None if days is None else time.time() + days * _DAY)


def rotate_token(records: Records, name: str, grace_days: float = 1) -> str:
    """Another token of that name and its scopes; those that were there end after the days of grace."""
    alive = [token for token in tokens_of(records) if token.name == name and token.alive]
    if not alive:
        raise InputError(f"there is no token {name!r}")
    if not 0 <= grace_days < 1e6:
        raise InputError(f"the days of grace must not be negative, got {grace_days:g}")
    newest = max(alive, key=lambda token: token.created)
    made = _made(records, name, newest.scopes, newest.expires)
    end = time.time() + grace_days * _DAY
    for token in alive:
        _end(records, token, end if token.expires is None else min(end, token.expires))
    return made


def revoke_token(records: Records, name: str) -> int:
    """End all tokens of that name now; how many there were. Raises InputError for none."""
    alive = [token for token in tokens_of(records) if token.name == name and token.alive]
    if not alive:
        raise InputError(f"there is no token {name!r}")
    for token in alive:
        _end(records, token, time.time())
    return len(alive)


def tokens_of(records: Records) -> list[Token]:
    """All of them, also those that have ended."""
    with records.reading() as rows:
        return [_token(row) for row in rows.execute(sa.select(TOKENS).order_by(TOKENS.c.created)).mappings()]


def who_sends(records: Records, sent: str) -> Token | None:
    """The token of that text; None for one that is not, or no longer, good."""
    parts = _TOKEN.fullmatch(sent)
    if parts is None:
        return None
    with records.reading() as rows:
        row = rows.execute(sa.select(TOKENS).where(TOKENS.c.id == parts[1])).mappings().first()
    if row is None or not hmac.compare_digest(str(row["hash"]), _hash(parts[2])):
        return None
    token = _token(row)
    return token if token.alive else None


def _made(records: Records, name: str, scopes: tuple[Scope, ...], expires: float | None) -> str:
    id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    entry = {"id": id, "name": name, "hash": _hash(secret), "scopes": " ".join(scopes)}
    with records.writing() as rows:
        rows.execute(TOKENS.insert().values(**entry, created=time.time(), expires=expires))
    return f"metriloc_{id}_{secret}"


def _end(records: Records, token: Token, when: float) -> None:
    with records.writing() as rows:
        rows.execute(TOKENS.update().where(TOKENS.c.id == token.id).values(expires=when))


def _hash(secret: str) -> str:
    # 256 random bits: nothing can be guessed that a slow hash would protect
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: Any) -> Token:
    scopes = tuple(scope for scope in SCOPES if scope in row["scopes"].split())
    return Token(row["id"], row["name"], scopes, row["created"], row["expires"])
