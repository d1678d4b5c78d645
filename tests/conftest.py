"""Shared fixtures: where the reference data lies, and threads pinned so that results repeat."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_map import write_model
from PIL import Image

import metriloc
from metriloc.io.maps import map_from_view
from metriloc.types import SfmMap

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"

# a shell that runs the tests in the background makes them, and all that they start, deaf to Ctrl+C
signal.signal(signal.SIGINT, signal.default_int_handler)

# small tensors gain nothing from threads, and on a busy machine threads that wait for each other cost minutes
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("METRILOC_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """``shared("golden/mickey/kabsch.safetensors")`` -> its path; skips the test, saying why, when it is absent."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"reference data not here: {path} (set METRILOC_SHARED)")
        return path

    return find


@pytest.fixture()
def generator() -> torch.Generator:
    """A seeded CPU generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def scene() -> SfmMap:
    """A map of one photo: its pixels with depth are the points."""
    photo = metriloc.load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    return map_from_view(photo, spacing=12)


@pytest.fixture(scope="session")
def example_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a COLMAP model of the two photos of the example."""
    folder = tmp_path_factory.mktemp("map") / "sparse"
    write_model(folder)
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture()
def serve() -> Iterator[Callable[[Path], str]]:
    """``serve(folder)`` -> the address of a server of this machine that lists and gives what is in it."""
    with ExitStack() as open_servers:

        def start(folder: Path) -> str:
            http = open_servers.enter_context(
                ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
            )
            open_servers.callback(http.shutdown)
            threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
            return f"http://127.0.0.1:{http.server_port}"

        yield start


CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")  # playwright keeps an event loop running in this thread, which others may not find
def browser() -> Iterator[Any]:
    """A headless Chromium of playwright that draws WebGL without a GPU; skips, saying why, where one is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not here: pip install playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium")
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=flags + quiet)
        yield chromium
        chromium.close()


# -- a tiny set of Map-free's form -------------------------------------------------------------------------------------
MAPFREE_LIKE_SIZE = (126, 168)
"""Width and height of the photos: 9 x 12 cells of 14 pixels."""
FOCAL, WALL = 140.0, 2.0


def write_scene(folder: Path, seed: int, queries: int, overlaps: bool = False) -> None:
    """``seq0`` with two photos and ``seq1`` with ``queries``; overlaps: write the file for all pairs, 0.5 each."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    wall = np.asarray(coarse.resize((400, 400), Image.Resampling.BICUBIC))
    names = [f"seq0/frame_{i:05d}" for i in range(2)] + [f"seq1/frame_{i:05d}" for i in range(queries)]
    poses, cameras = [], []
    for number, name in enumerate(names):
        x, y = (0.0, 0.0) if number == 0 else rng.uniform(-0.6, 0.6, 2)
        left, top = round(130 + FOCAL * x / WALL), round(110 + FOCAL * y / WALL)
        photo = folder / f"{name}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(wall[top : top + MAPFREE_LIKE_SIZE[1], left : left + MAPFREE_LIKE_SIZE[0]]).save(
            photo, quality=95
        )
        Image.new("I;16", (42, 56), int(1000 * WALL)).save(photo.with_suffix(".depth.png"))
        poses.append(f"{name}.jpg 1 0 0 0 {-x} {-y} 0\n")
        width, height = MAPFREE_LIKE_SIZE
        numbers = f"{FOCAL} {FOCAL} {(width - 1) / 2} {(height - 1) / 2} {width} {height}"
        cameras.append(f"{name}.jpg {numbers}\n")
    (folder / "poses.txt").write_text("".join(poses))
    (folder / "intrinsics.txt").write_text("".join(cameras))
    if overlaps:
        pairs = [(0, i, 1, j) for i in range(2) for j in range(queries)]
        np.savez(folder / "overlaps.npz", idxs=np.array(pairs), overlaps=np.full(len(pairs), 0.5, np.float32))


def write_mapfree_like(root: Path) -> Path:
    """Two scenes to train on, one of them without overlaps, and one to validate on with three scored queries."""
    write_scene(root / "train" / "s00000", 0, 4, overlaps=True)
    write_scene(root / "train" / "s00001", 1, 3)
    write_scene(root / "val" / "s00460", 2, 11)
    return root


@pytest.fixture
def mapfree_like(tmp_path: Path) -> Path:
    """The folder of a tiny set of Map-free's form: a textured wall two metres away, a camera that moves sideways."""
    return write_mapfree_like(tmp_path / "mapfree")
