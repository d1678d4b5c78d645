"""What ``tools/kill_test.py`` kills: commands on small made-up inputs, and what their folder holds once they are done."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import metriloc
from metriloc.datasets.overlap_table import read_arrays
from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.datasets.synthetic.pairs import look_at
from metriloc.datasets.synthetic.scene import make_scene
from metriloc.evaluation.records import read_records
from metriloc.geometry import Camera, sample_depth
from metriloc.io import read_mapfree_poses
from metriloc.io.archives import extract_members
from metriloc.io.bundles import open_bundle
from metriloc.io.download import fetch
from metriloc.training.checkpoint import load_checkpoint

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
_TIMES = ("seconds", "step_seconds", "timings_s", "fingerprint")
_SIZE = (320, 240)


@dataclass(frozen=True)
class Target:
    """run: the work, into a folder, going on where it stopped. result: what must be as undisturbed, of that folder."""

    name: str
    run: Callable[[Path], Any]
    result: Callable[[Path], Any]


def command(*words: object) -> None:
    """``metriloc ...`` in this process."""
    from metriloc.cli.main import main

    main([str(word) for word in words])


def targets(inputs: Path, address: str) -> list[Target]:
    """All of them. inputs: folder of ``make_inputs``; address: of ``slow_server``."""
    photos = sorted((inputs / "photos").glob("query*.jpg"))
    toy = ["training.steps=120", "training.epoch_steps=20", "training.device=cpu", "training.log_every=1"]
    toy.append("training.tensorboard=off")
    pair = ("--fov", 60, "--distance", 0.6, "--method", "matching", "--resume")
    place = ("--images", inputs / "photos", "--method", "xfeat-pnp", "--references", "reference.jpg", "--fov", 60)
    reference, model, scenes = inputs / "photos" / "reference.jpg", inputs / "sparse", inputs / "scenes"
    words = ("--data", scenes, "--draws", 5)
    bundled = ("--images", inputs / "photos", "--methods", "xfeat-pnp", "nre-xfeat")
    return [
        Target("eval", lambda out: command("eval", "identity", "pairs", *words, "--out", out), _records),
        Target("train", lambda out: command("train", "toy", "--out", out, "--resume", "--set", *toy), _training),
        Target("relpose", lambda out: command("relpose", reference, *photos, *pair, "--out", out), _poses("pose.json")),
        Target(
            "localize",
            lambda out: command("localize", model, *photos, *place, "--resume", "--out", out),
            _poses("poses.json"),
        ),
        Target("weights", lambda out: _get_weights(address, out), _hashes),
        Target("synthetic", _render, _arrays),
        Target("bundle", lambda out: command("map", "bundle", model, *bundled, "--out", out / "map.metriloc"), _bundle),
        Target("overlaps", lambda out: command("overlaps", scenes, "--out", out), _arrays),
        Target("map-build", lambda out: _build_map(inputs / "walk", out), _map),
        Target("map-add", lambda out: _add_to_map(inputs, out), _map),
    ]


# -- inputs -----------------------------------------------------------------------------------------------------------
def make_inputs(folder: Path) -> None:
    """Photos, a map of them, and scenes of Map-free's form with depth."""
    (folder / "photos").mkdir(parents=True)
    for i in range(5):
        name = "reference.jpg" if i == 0 else f"query{i}.jpg"
        with Image.open(EXAMPLE / ("reference.jpg" if i == 0 else "query.jpg")) as photo:
            photo.resize(_SIZE).save(folder / "photos" / name, quality=95 - i)
    _write_map(folder / "sparse")
    for scene in ("s00001", "s00002"):
        _write_scene(folder / "scenes" / scene, 24)
    _write_walk(folder / "walk", 5)
    shutil.copytree(folder / "walk", folder / "start" / "photos", ignore=shutil.ignore_patterns("04.png"))
    with suppress(SystemExit):  # commands end so
        _build_map(folder / "start" / "photos", folder / "start" / "map")


def _write_walk(folder: Path, count: int) -> None:
    """Photos of a rendered room, each 15 cm to the right of the one before."""
    folder.mkdir()
    room, camera = make_scene(3), Camera.from_fov(_SIZE, math.radians(60))
    first, right = np.array([3.32, -1.78, 1.22]), np.array([-0.123, -0.992, 0.035])
    target = np.array([5.76, -2.38, 1.38])
    for number in range(count):
        photo = room.render(camera, look_at(first + 0.15 * number * right, target))
        values = (255 * photo.image.permute(1, 2, 0)).round().byte().numpy()
        Image.fromarray(values).save(folder / f"{number:02d}.png")


def _write_map(folder: Path) -> None:
    """The reference alone, as COLMAP writes a map as text; its points are pixels with depth."""
    photo = metriloc.load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    if photo.depth is None:
        raise ValueError("the example has lost its depth map")
    v, u = torch.meshgrid(torch.arange(6.0, 480, 16), torch.arange(6.0, 640, 16), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).double()
    depth, known = sample_depth(photo.depth.double(), uv, photo.size)
    uv = uv[known]
    xyz = photo.camera.to(torch.float64).unproject(uv)[0] * depth[known, None]
    half = [0.5 * float(x) for x in (*photo.camera.f, *photo.camera.c)]
    folder.mkdir()
    (folder / "cameras.txt").write_text(f"1 PINHOLE {_SIZE[0]} {_SIZE[1]} {' '.join(map(repr, half))}\n")
    seen = " ".join(f"{(x + 0.5) / 2:.4f} {(y + 0.5) / 2:.4f} {p}" for p, (x, y) in enumerate(uv.tolist(), 1))
    pose = read_mapfree_poses(EXAMPLE / "poses.txt")["reference.jpg"]
    if pose is None:
        raise ValueError("the example has lost its pose")
    values = " ".join(map(repr, [*pose.quaternion().tolist(), *pose.t.tolist()]))
    (folder / "images.txt").write_text(f"1 {values} 1 reference.jpg\n{seen}\n")
    rows = [f"{p} {x!r} {y!r} {z!r} 9 9 9 0.1 1 {p - 1}" for p, (x, y, z) in enumerate(xyz.tolist(), 1)]
    (folder / "points3D.txt").write_text("\n".join(rows) + "\n")


def _write_scene(folder: Path, count: int) -> None:
    for sequence in ("seq0", "seq1"):
        (folder / sequence).mkdir(parents=True)
    names = ["seq0/frame_00000", *(f"seq1/frame_{i:05d}" for i in range(count))]
    (folder / "poses.txt").write_text("".join(f"{n}.jpg 1 0 0 0 {-0.02 * i} 0 0\n" for i, n in enumerate(names)))
    (folder / "intrinsics.txt").write_text("".join(f"{n}.jpg 80 80 39.5 29.5 80 60\n" for n in names))
    for name in names:
        Image.new("RGB", (80, 60)).save(folder / f"{name}.jpg")
        Image.fromarray(np.full((60, 80), 2000, np.uint16)).save(folder / f"{name}.depth.png")


class _Slow(BaseHTTPRequestHandler):
    """One archive, in small pieces, with ranges and an ETag."""

    data = b""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        resumed = wanted is not None and self.headers.get("If-Range", '"1"') == '"1"'
        start = int(wanted[6:-1]) if wanted is not None and resumed else 0
        total = len(self.data)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        try:
            for place in range(start, total, 1 << 16):
                self.wfile.write(self.data[place : place + (1 << 16)])
                time.sleep(0.005)
        except OSError:
            return  # the client was killed, which is what it is for

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def slow_server(folder: Path) -> Iterator[str]:
    """Address of an archive of weights."""
    archive = folder / "archive.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("a/weights.bin", np.random.default_rng(0).bytes(3 << 20))
        content.writestr("a/config.yaml", "MODEL: MicKey\n")
    _Slow.data = archive.read_bytes()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/archive.zip"
        server.shutdown()


# -- work without a command of its own --------------------------------------------------------------------------------
def _get_weights(address: str, out: Path) -> None:
    """What ``weights get`` does before it converts."""
    archive = fetch(address, out / "archive.zip", offline=False)
    extract_members(archive, ("weights.bin", "config.yaml"), out)


def _render(out: Path) -> None:
    """The synthetic cache of a few small scenes."""
    pairs = CachedSyntheticPairs(out, 3, 2, SyntheticConfig(sizes=((48, 32),), texture_size=32))
    for seed in range(3):
        pairs.prepare(seed)


def _build_map(photos: Path, out: Path) -> None:
    command("map", "build", photos, "--out", out, "--threads", 1, "--fov", 60, "--distance", "00.png", "03.png", 0.45)


def _add_to_map(inputs: Path, out: Path) -> None:
    """One more photo into a map that is there from the start, and whose photos lie beside it."""
    if not (out / "photos").is_dir():
        # as a whole, so that a run that goes on finds all of it
        shutil.copytree(inputs / "start", out / "start.tmp", dirs_exist_ok=True)
        for name in ("map", "photos"):
            os.rename(out / "start.tmp" / name, out / name)
    photo = out / "photos" / "04.png"
    if not photo.is_file():
        shutil.copyfile(inputs / "walk" / photo.name, photo.with_suffix(".tmp"))
        os.rename(photo.with_suffix(".tmp"), photo)
    command("map", "add", out / "map")


# -- results ----------------------------------------------------------------------------------------------------------
def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(entry) for key, entry in value.items() if key not in _TIMES}
    return [_without_times(entry) for entry in value] if isinstance(value, list) else value


def _records(out: Path) -> Any:
    found = {key: _without_times(dict(vars(record))) for key, record in read_records(out).items()}
    return found, (out / "submission.zip").read_bytes()


def _training(out: Path) -> Any:
    tensors = load_checkpoint(out / "checkpoints" / "last").tensors
    lines = [_without_times(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {name: tensor.tolist() for name, tensor in tensors.items()}, lines


def _poses(name: str) -> Callable[[Path], Any]:
    return lambda out: (_without_times(json.loads((out / name).read_text()))["queries"], _names(out))


def _map(out: Path) -> Any:
    """The model to the last bit, what map.json says but for places, and what stages have kept."""
    place = out if (out / "sparse").is_dir() else out / "map"
    told = json.loads((place / "sparse" / "map.json").read_text())
    told.pop("photos")
    kept = [name for name in _names(place) if not name.startswith("work/models/") or name.endswith(".db")]
    return {f.name: f.read_bytes() for f in sorted((place / "sparse").glob("*.bin"))}, told, kept


def _names(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.suffix != ".tmp")


def _hashes(out: Path) -> Any:
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.suffix != ".part"]
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def _bundle(out: Path) -> Any:
    """Every entry by its hash; opening it compares them with the manifest."""
    path = out / "map.metriloc"
    open_bundle(path)
    with zipfile.ZipFile(path) as archive:
        return _names(out), [(name, hashlib.sha256(archive.read(name)).hexdigest()) for name in archive.namelist()]


def _arrays(out: Path) -> Any:
    found = {}
    for path in sorted(out.rglob("*.npz")):
        names = list(np.load(path, allow_pickle=False).keys())
        found[str(path.relative_to(out))] = {k: v.tolist() for k, v in read_arrays(path, names).items()}
    return found


def clear(folder: Path) -> None:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
