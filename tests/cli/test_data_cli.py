"""``metriloc data get`` against a local server: listed, fetched, unpacked into what ``metriloc eval`` reads, resumed."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from metriloc.cli.main import main
from metriloc.datasets.downloads import EVALUATED, TRAINED, assets_of
from metriloc.datasets.visloc_files import VISLOC_FILES
from metriloc.io import InputError
from metriloc.runs import data_get


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["data", "get", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METRILOC_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture()
def server(serve: Callable[[Path], str], tmp_path: Path) -> str:
    """A folder like PixLoc's: CMU's slice 2 with its model in a tar, and the training files."""
    root = tmp_path / "server"
    part = root / "Extended-CMU-Seasons" / "slice2"
    part.mkdir(parents=True)
    (part / "pairs-query-netvlad10.txt").write_text("q.jpg r.jpg\n")
    (tmp_path / "cameras.txt").write_text("# none\n")
    with tarfile.open(part / "sfm.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cameras.txt", "sfm_superpoint+superglue/model/cameras.txt")
    (root / "training").mkdir()
    with tarfile.open(root / "training" / "cmu_pixloc_training.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cameras.txt", "slice8.pkl")
    return serve(root)


def test_a_slice_lands_where_eval_looks_for_it(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cmu"
    given = ("cmu", "--slices", 2, "--training", "--out", out, "--server", server)
    assert run(*given, "--list") == 0
    listed = capsys.readouterr().out
    assert "sfm.tar.gz" in listed and "in all" in listed and "by hand   photos, slice 2" in listed
    assert not out.exists()
    photos = tmp_path / "slice2.zip"
    with zipfile.ZipFile(photos, "w") as archive:
        for name in ("query/q.jpg", "database/r.jpg"):
            archive.writestr(f"slice2/{name}", b"photo")
    assert run(*given) == 1  # the photos are missing yet
    assert f"slice2: query images: {out / 'slice2/query'}" in capsys.readouterr().err
    assert run(*given, "--unpack", photos) == 0
    assert "complete" in capsys.readouterr().out
    part = VISLOC_FILES["cmu"].part("2", out, out)
    for what in ("query_images", "reference_images", "reference_sfm", "retrieval"):
        assert part.require(what).exists()
    assert (out / "training" / "slice8.pkl").is_file()


def test_it_goes_on_where_it_was_and_archives_may_be_deleted(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("cmu", "--slices", 2, "--out", tmp_path / "cmu", "--server", server)
    fetched: list[str] = []
    real = data_get.fetch

    def broken(url: str, *arguments: object, **options: object) -> Path:
        fetched.append(url.rsplit("/", 1)[1])
        if len(fetched) == 2:
            raise InputError("the line went dead; run the same command again to go on")
        return real(url, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(data_get, "fetch", broken)
    assert run(*given) == 2
    assert "went dead" in capsys.readouterr().err
    assert run(*given) == 1
    assert fetched == ["pairs-query-netvlad10.txt", "sfm.tar.gz", "sfm.tar.gz"]
    (tmp_path / "cmu/archives/slice2/sfm.tar.gz").unlink()
    assert run(*given) == 1
    assert len(fetched) == 3 and "(here)" in capsys.readouterr().out


def test_wrong_use_is_one_sentence(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = (
        (("aachen", "--slices", 2), "--slices 2: aachen has none"),
        (("cmu", "--slices", 1), "no slice '1'"),
        (("cmu", "--slices", "x"), "'x'"),
        (("aachen", "--training"), "no training files of aachen"),
        (("megadepth",), "give --training"),
        (("robotcar",), "404"),
    )
    for given, message in cases:
        assert run(*given, "--out", tmp_path / "out", "--server", server) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1
    monkeypatch.setenv("METRILOC_OFFLINE", "1")
    assert run("aachen", "--out", tmp_path / "out") == 2
    assert "metriloc is offline" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_archives_at_hand_need_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METRILOC_OFFLINE", "1")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("images/images_upright/db/1.jpg", b"photo")
    assert run("aachen", "--out", tmp_path / "out", "--unpack", tmp_path / "photos.zip") == 1
    shown = capsys.readouterr()
    assert (
        "1 files unpacked" in " ".join(shown.out.split())
        and "reference sfm" in shown.err
        and "query images" not in shown.err
    )
    assert (tmp_path / "out/images/images_upright/db/1.jpg").is_file()


def test_mapfree_is_fetched_by_hand_and_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No README names an address, so no server is asked."""
    archives = []
    for split, scene in (("train", "s00000"), ("val", "s00460"), ("test", "s00525")):
        archives.append(tmp_path / f"{split}.zip")
        with zipfile.ZipFile(archives[-1], "w") as archive:
            archive.writestr(f"{split}/{scene}/poses.txt", b"#\n")
    given = ("mapfree", "--out", tmp_path / "out", "--server", "http://127.0.0.1:1/")
    assert run(*given, "--unpack", *archives[:2]) == 1
    told = capsys.readouterr()
    assert "by hand train scenes: https://research.nianticlabs.com/mapfree" in " ".join(told.out.split())
    assert "test scenes:" in told.err
    assert run(*given, "--unpack", archives[2]) == 0
    assert [path.parent.name for path in sorted((tmp_path / "out").rglob("poses.txt"))] == [
        "s00525",
        "s00000",
        "s00460",
    ]


def test_an_archive_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("aachen", "--out", tmp_path / "out", "--server", "http://127.0.0.1:1/", "--unpack", tmp_path / "gone.zip")
    assert run(*given) == 2
    assert "gone.zip: there is no such file" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_found_before_anything_is_fetched(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_get.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 3})())
    assert run("cmu", "--slices", 2, "--out", tmp_path / "cmu", "--server", server) == 2
    assert "room for" in capsys.readouterr().err and not (tmp_path / "cmu").exists()


def test_every_part_has_an_address_or_says_what_to_do() -> None:
    for table in (EVALUATED, TRAINED):
        for assets in table.values():
            assert all((asset.address is None) == bool(asset.by_hand) for asset in assets)
    assert len(assets_of("cmu", ("2", "3"))) == 4
    assert [asset.address for asset in assets_of("megadepth", training=True)] == [
        "training/megadepth_pixloc_training.tar.gz",
        None,
    ]
