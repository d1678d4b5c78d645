"""Keypoints and matches shared with others: the same files, bit for bit, as one process makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from metriloc.cli.main import main
from metriloc.geometry import Pose
from metriloc.mapping.config import MapConfig
from metriloc.mapping.features import FeatureStore
from metriloc.mapping.matching import rows_of
from metriloc.mapping.pairs import ordered_pairs
from metriloc.mapping.photos import read_photos
from metriloc.mapping.sharing import ProcessSharing, RaySharing, pair_parts, photo_parts
from metriloc.runs.map_build import build_map, help_build_map

pytest.importorskip("pycolmap", reason="maps are made by COLMAP")
Write = Callable[..., Pose]
CONFIG = MapConfig(threads=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_photos: Write) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_photos(folder / "photos", 4)
    build_map(folder / "photos", folder / "alone", config=CONFIG)
    return folder


def content(out: Path) -> dict[str, bytes]:
    """Keypoints, matches, and the map; the database by its name, which is the digest of all that is in it."""
    files = [
        *(out / "work" / "features").iterdir(),
        *(out / "work" / "matches").iterdir(),
        *(out / "sparse").glob("*.bin"),
    ]
    named = {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}
    return named | {file.name: b"" for file in (out / "work" / "models").glob("*.db")}


def test_parts_hold_everything_once(place: Path) -> None:
    photos, _ = read_photos(place / "photos")
    features = FeatureStore(place, "anything")
    keys = [features.key(photo) for photo in photos]
    pairs = ordered_pairs(4, 2)
    for count in (1, 2, 3, 9):
        found = [photo for part in photo_parts(photos, count) for photo in part.photos]
        assert sorted(p.name for p in found) == [p.name for p in photos]
        parts = pair_parts(photos, pairs, features, count)
        shared = [pair for part in parts for pair in part.pairs or ()]
        assert sorted(shared) == pairs and len(parts) <= count
        # what one file holds is made by one
        firsts = [set(rows_of(keys, part.pairs or ())) for part in parts]
        assert sum(map(len, firsts)) == len(set().union(*firsts))


@pytest.mark.slow
def test_processes_that_share_make_the_same_map(place: Path, tmp_path: Path) -> None:
    """Two ranks, one after the other: what the first waits for is what the second does."""
    photos, out = place / "photos", tmp_path / "map"
    waits: list[int] = []

    def second() -> None:
        waits.append(len(list((out / "work").rglob("*.safetensors"))))
        if len(waits) == 1:
            help_build_map(photos, out, partial(ProcessSharing, rank=1, count=2, wait=lambda: None), config=CONFIG)

    build_map(photos, out, config=CONFIG, share=partial(ProcessSharing, rank=0, count=2, wait=second))
    assert waits[0] == 2  # its own half of the photos
    assert content(out) == content(place / "alone")


@pytest.mark.slow
def test_ray_workers_make_the_same_map(place: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="shares work over machines")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    told: list[tuple[int, int]] = []

    class Watched(RaySharing):
        def _share(self, parts: Sequence[object], progress: object) -> None:
            super()._share(parts, lambda done, total: told.append((done, total)))  # type: ignore[arg-type]

    try:
        build_map(place / "photos", tmp_path / "map", config=CONFIG, share=partial(Watched, workers=2))
    finally:
        ray.shutdown()
    assert content(tmp_path / "map") == content(place / "alone") and told[-1][0] == told[-1][1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX")
def test_torchrun_makes_the_same_map(place: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["map", "build", str(place / "photos"), "--out", str(tmp_path / "map"), "--threads", "1"]
    common = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "metriloc", *words], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    assert content(tmp_path / "map") == content(place / "alone")


def test_sharing_twice_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["map", "build", str(place / "photos"), "--out", str(tmp_path / "map"), "--ray-workers", "-1"])
    assert ended.value.code == 2 and "--ray-workers must be 0 or more" in " ".join(capsys.readouterr().err.split())
