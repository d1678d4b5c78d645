"""Rows, blobs and tokens: what was told is there after anything."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sa = pytest.importorskip("sqlalchemy", reason="the service needs the extra serve")

from metriloc.io import InputError  # noqa: E402
from metriloc.service.blobs import FolderBlobs, RemoteBlobs, digest_of  # noqa: E402
from metriloc.service.config import ServiceConfig  # noqa: E402
from metriloc.service.records import Records, sqlite_url  # noqa: E402
from metriloc.service.spool import Spool  # noqa: E402
from metriloc.service.storage import open_storage  # noqa: E402
from metriloc.service.tokens import add_token, revoke_token, rotate_token, tokens_of, who_sends  # noqa: E402

pytestmark = pytest.mark.extras


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL of its own."""
    pytest.importorskip("psycopg", reason="PostgreSQL needs the extra postgres")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("there is no PostgreSQL here (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: the name of a socket has 107 bytes
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:  # which it refuses to run as
        shutil.chown(folder, "postgres")
        as_user = {"user": "postgres", "extra_groups": []}
    data, tool = folder / "data", found[-1].with_name("pg_ctl")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, "check": True, **as_user}
    subprocess.run([found[-1], "-D", data, "-U", "metriloc", "-A", "trust"], **quiet)  # type: ignore[call-overload]
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    subprocess.run([tool, "-D", data, "-w", "-o", options, "start"], **quiet)  # type: ignore[call-overload]
    try:
        yield f"postgresql://metriloc@/postgres?host={folder}"
    finally:
        subprocess.run([tool, "-D", data, "-m", "immediate", "stop"], **quiet)  # type: ignore[call-overload]
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Records]:
    if request.param == "sqlite":
        made = Records(sqlite_url(tmp_path / "service.db"))
    else:
        url = request.getfixturevalue("postgres")
        emptied = sa.create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
        with emptied.begin() as rows:
            rows.execute(sa.text("DROP SCHEMA public CASCADE"))
            rows.execute(sa.text("CREATE SCHEMA public"))
        emptied.dispose()
        made = Records(url)
    yield made
    made.close()


def row(id: str, blob: str = "b" * 64, expires: float | None = None) -> dict[str, object]:
    facts = {"photo": "a.jpg", "told": {"k": [1.5, 2, 3, 4]}}
    return {"id": id, "blob": blob, "bytes": 10, "facts": facts, "created": time.time(), "expires": expires}


def test_rows_come_back_and_go(records: Records) -> None:
    with records.writing() as rows:
        records.add(rows, "anchors", row("a" * 32))
        records.add(rows, "anchors", row("c" * 32))
        records.add(rows, "maps", row("d" * 32, expires=time.time() - 1))
        assert records.total(rows) == 30
    found = records.find("anchors", "a" * 32)
    assert found is not None and found["facts"] == row("")["facts"]
    assert [entry["id"][0] for entry in records.list("anchors")] == ["a", "c"]
    assert [entry["id"][0] for entry in records.list("anchors", after="a" * 32)] == ["c"]
    assert records.find("maps", "d" * 32) is None and records.list("maps") == []
    with records.writing(alone=True) as rows:
        assert records.remove(rows, "anchors", "a" * 32) == "b" * 64
        assert records.remove(rows, "anchors", "a" * 32) is None
        assert records.is_used(rows, "b" * 64)
        records.expire(rows, time.time(), 0)
        assert records.total(rows) == 10
    assert records.counts() == {"anchors": 1, "maps": 0, "bytes": 10}


def test_what_fails_halfway_leaves_nothing(records: Records) -> None:
    with pytest.raises(RuntimeError, match="power"), records.writing() as rows:
        records.add(rows, "anchors", row("a" * 32))
        raise RuntimeError("power")
    assert records.list("anchors") == []


def test_a_database_of_another_version_is_refused(tmp_path: Path) -> None:
    with Records(sqlite_url(tmp_path / "service.db")).writing() as rows:
        rows.execute(sa.text("UPDATE format SET version = 99"))
    with pytest.raises(InputError, match=r"of another metriloc \(its version is 99, not 1\)"):
        Records(sqlite_url(tmp_path / "service.db"))
    (tmp_path / "none.db").write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(InputError, match="the database cannot be opened"):
        Records(sqlite_url(tmp_path / "none.db"))


def test_writers_do_not_lose_what_others_sweep(records: Records, tmp_path: Path) -> None:
    """Files come with their rows, and go only without: whoever sweeps meanwhile takes none of a row."""
    folder, stop = FolderBlobs(tmp_path / "blobs"), threading.Event()
    folder.folder.mkdir()

    def sweep() -> None:
        while not stop.is_set():
            with records.writing(alone=True) as rows:
                used = records.used_blobs(rows)
                for digest in list(folder.digests()):
                    if digest not in used:
                        folder.delete(digest)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(30):
            file = tmp_path / "file"
            file.write_bytes(b"%d" % (number // 2))  # two of each
            digest = digest_of(file)
            with records.writing() as rows:
                folder.put(file, digest)
                records.add(rows, "anchors", row(f"{number:032x}", digest))
    finally:
        stop.set()
        sweeper.join()
    kept = [entry["blob"] for entry in records.list("anchors")]
    assert len(kept) == 30 and {folder.path(digest).name for digest in kept} == set(folder.digests())


# -- blobs ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("remote", [False, True], ids=["folder", "fsspec"])
def test_blobs_are_called_by_what_is_in_them(tmp_path: Path, remote: bool) -> None:
    folder = FolderBlobs(tmp_path / "blobs")
    folder.folder.mkdir()
    blobs = RemoteBlobs(f"file://{tmp_path / 'far'}", folder) if remote else folder
    file = tmp_path / "file"
    file.write_bytes(b"features")
    digest = digest_of(file)
    assert list(blobs.digests()) == []
    blobs.put(file, digest)
    assert not file.exists() and blobs.path(digest).read_bytes() == b"features"
    assert list(blobs.digests()) == [digest]
    if remote:  # another machine has no copy yet
        other = RemoteBlobs(f"file://{tmp_path / 'far'}", FolderBlobs(tmp_path / "other"))
        assert other.path(digest).read_bytes() == b"features"
        (tmp_path / "far" / digest).write_bytes(b"damaged!")
        with pytest.raises(InputError, match="is damaged"):
            RemoteBlobs(f"file://{tmp_path / 'far'}", FolderBlobs(tmp_path / "third")).path(digest)
    blobs.delete(digest)
    blobs.delete(digest)
    with pytest.raises(KeyError):
        blobs.path(digest)


def test_the_spool_of_a_service_that_was_killed_is_removed(tmp_path: Path) -> None:
    living = Spool(tmp_path)
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "lock").touch()
    (dead / "photo").touch()
    other = Spool(tmp_path)
    assert not dead.exists() and living.path.is_dir() and other.path != living.path
    other.close()
    assert not other.path.exists()


# -- tokens -----------------------------------------------------------------------------------------------------------
def test_tokens_are_hashed_scoped_and_end(records: Records, tmp_path: Path) -> None:
    made = add_token(records, "phone", ("read",))
    found = who_sends(records, made)
    assert found is not None and (found.name, found.scopes) == ("phone", ("read",))
    secret = made.rsplit("_", 1)[1]
    assert all(secret.encode() not in file.read_bytes() for file in tmp_path.glob("service.db*"))
    for wrong in ("", made[:-1], made[:-1] + ("A" if made[-1] != "A" else "B"), "metriloc_0_x", "ü" * 70):
        assert who_sends(records, wrong) is None
    with pytest.raises(InputError, match="there is a token 'phone'"):
        add_token(records, "phone")
    assert revoke_token(records, "phone") == 1 and who_sends(records, made) is None
    with pytest.raises(InputError, match="there is no token 'phone'"):
        revoke_token(records, "phone")


def test_rotation_lets_both_in_for_a_while(records: Records) -> None:
    old = add_token(records, "phone", ("write",), days=10)
    new = rotate_token(records, "phone", grace_days=1)
    assert who_sends(records, old) is not None and who_sends(records, new) is not None
    newest = rotate_token(records, "phone", grace_days=0)
    assert who_sends(records, old) is None and who_sends(records, new) is None
    last = who_sends(records, newest)
    assert last is not None and last.scopes == ("write",) and last.expires is not None
    assert len(tokens_of(records)) == 3


@pytest.mark.parametrize(("name", "days"), [("", None), ("a b", None), ("x" * 65, None), ("a", 0), ("a", -1)])
def test_wrong_tokens_are_one_sentence(records: Records, name: str, days: float | None) -> None:
    with pytest.raises(InputError, match=r"a token has a name|positive number of days"):
        add_token(records, name, days=days)
    with pytest.raises(InputError, match="without a scope"):
        add_token(records, "a", ())


def test_the_data_is_for_its_owner(tmp_path: Path) -> None:
    opened, _ = open_storage(ServiceConfig(data=tmp_path / "new" / "data"))
    opened.close()
    assert stat.S_IMODE((tmp_path / "new" / "data").stat().st_mode) == 0o700
