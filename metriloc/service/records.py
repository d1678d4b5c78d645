"""Rows of the service: anchors, maps, tokens, jobs; in SQLite, or in PostgreSQL where one machine is not enough.

A row and its file among the blobs come within one ``writing``, and files are swept away within one that is ``alone``: so
none goes that a row has, or is about to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from metriloc.io import InputError

VERSION = 1
Kind = Literal["anchors", "maps"]
_LOCK = 0x6D6C6F63
"""Of PostgreSQL: everybody who writes waits for it."""
_metadata = sa.MetaData()


def _stored(name: str) -> sa.Table:
    return sa.Table(
        name,
        _metadata,
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("blob", sa.String(64), nullable=False, index=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, index=True),
    )


_TABLES: Mapping[str, sa.Table] = {name: _stored(name) for name in ("anchors", "maps")}
_FORMAT = sa.Table("format", _metadata, sa.Column("version", sa.Integer, primary_key=True))
TOKENS = sa.Table(
    "tokens",
    _metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("scopes", sa.String(32), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("expires", sa.Double),
)
JOBS = sa.Table(
    "jobs",
    _metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("asked", sa.Text, nullable=False),
    sa.Column("answer", sa.Text),
    sa.Column("status", sa.Integer),
    sa.Column("owner", sa.String(32)),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("changed", sa.Double, nullable=False),
)
JOB_BLOBS = sa.Table(
    "job_blobs",
    _metadata,
    sa.Column("job", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("blob", sa.String(64), primary_key=True, index=True),
)


class Records:
    """The rows of one service.

    - url: of SQLAlchemy; ``sqlite_url`` makes one of a file.

    Raises InputError for a database that cannot be opened, or is of a newer metriloc.
    """

    def __init__(self, url: str) -> None:
        url = url.replace("postgresql://", "postgresql+psycopg://", 1).replace(
            "postgres://", "postgresql+psycopg://", 1
        )
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=url.startswith("postgresql"))
            if self._engine.dialect.name == "sqlite":
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
                sa.event.listen(self._engine, "begin", _begin_sqlite)
            with self.writing(alone=True) as rows:
                _metadata.create_all(rows)
                version = rows.scalar(sa.select(_FORMAT.c.version))
                if version is None:
                    rows.execute(_FORMAT.insert().values(version=VERSION))
        except ModuleNotFoundError as error:
            raise ImportError(f'the database needs {error.name}: pip install "metriloc[postgres]"') from error
        except (sa.exc.SQLAlchemyError, ValueError) as error:
            raise InputError(f"the database cannot be opened: {' '.join(str(error).split())[:300]}") from error
        if version is not None and version != VERSION:
            raise InputError(f"the database is of another metriloc (its version is {version}, not {VERSION})")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def writing(self, alone: bool = False) -> Iterator[sa.Connection]:
        """A transaction that writes; on the disk when it is left. alone: nobody else writes meanwhile (in SQLite nobody
        ever does)."""
        with self._engine.connect().execution_options(writes=True) as rows, rows.begin():
            if rows.dialect.name == "postgresql":
                shared = "" if alone else "_shared"
                rows.execute(sa.text(f"SELECT pg_advisory_xact_lock{shared}(:lock)"), {"lock": _LOCK})
            yield rows

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing."""
        with self._engine.connect() as rows, rows.begin():
            yield rows

    # -- anchors and maps ---------------------------------------------------------------------------------------------
    def add(self, rows: sa.Connection, kind: Kind, entry: Mapping[str, Any]) -> None:
        """A row: id, blob, bytes, facts, created, expires."""
        rows.execute(_TABLES[kind].insert().values(**{**entry, "facts": json.dumps(entry["facts"])}))

    def find(self, kind: Kind, id: str) -> dict[str, Any] | None:
        """A row that has not expired; None for no such."""
        table = _TABLES[kind]
        with self.reading() as rows:
            row = rows.execute(sa.select(table).where(table.c.id == id, _alive(table))).mappings().first()
        return None if row is None else _entry(row)

    def list(self, kind: Kind, after: str = "", count: int = 100) -> list[dict[str, Any]]:
        """Rows that have not expired, by their ids."""
        table = _TABLES[kind]
        wanted = sa.select(table).where(table.c.id > after, _alive(table)).order_by(table.c.id).limit(count)
        with self.reading() as rows:
            return [_entry(row) for row in rows.execute(wanted).mappings()]

    def remove(self, rows: sa.Connection, kind: Kind, id: str) -> str | None:
        """The blob of a row that is gone now; None where there was none."""
        table = _TABLES[kind]
        blob = rows.scalar(sa.select(table.c.blob).where(table.c.id == id))
        rows.execute(table.delete().where(table.c.id == id))
        return None if blob is None else str(blob)

    def is_used(self, rows: sa.Connection, blob: str) -> bool:
        """Whether any row has a blob."""
        return any(
            rows.execute(sa.select(table.c.blob).where(table.c.blob == blob).limit(1)).first() is not None
            for table in (*_TABLES.values(), JOB_BLOBS)
        )

    def total(self, rows: sa.Connection) -> int:
        """Bytes of all that is stored."""
        return sum(
            int(rows.scalar(sa.select(sa.func.coalesce(sa.func.sum(table.c.bytes), 0))) or 0)
            for table in (*_TABLES.values(), JOBS)
        )

    def counts(self) -> dict[str, int]:
        """How many rows of each kind there are, and their bytes."""
        with self.reading() as rows:
            found = {
                kind: int(rows.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
                for kind, table in _TABLES.items()
            }
            return {**found, "bytes": self.total(rows)}

    def expire(self, rows: sa.Connection, now: float, jobs_before: float) -> None:
        """Remove what has expired, and jobs that were done before then."""
        for table in _TABLES.values():
            rows.execute(table.delete().where(table.c.expires <= now))
        old = sa.select(JOBS.c.id).where(JOBS.c.state == "done", JOBS.c.changed < jobs_before)
        rows.execute(JOB_BLOBS.delete().where(JOB_BLOBS.c.job.in_(old)))
        rows.execute(JOBS.delete().where(JOBS.c.id.in_(old)))

    def used_blobs(self, rows: sa.Connection) -> set[str]:
        """Digests that rows have."""
        tables = (*_TABLES.values(), JOB_BLOBS)
        return {str(digest) for table in tables for digest in rows.scalars(sa.select(table.c.blob))}


def sqlite_url(file: Path) -> str:
    """Of SQLAlchemy for a file."""
    return str(sa.URL.create("sqlite", database=str(file)))


def _alive(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.or_(table.c.expires.is_(None), table.c.expires > time.time())


def _entry(row: sa.RowMapping) -> dict[str, Any]:
    return {**row, "facts": json.loads(row["facts"])}


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below
    for setting in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=20000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(rows: sa.Connection) -> None:
    # to read first and write then could fail halfway, where another process writes in between
    rows.exec_driver_sql("BEGIN IMMEDIATE" if rows.get_execution_options().get("writes") else "BEGIN")
