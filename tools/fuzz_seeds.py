"""The readers of foreign files, each with a few valid files to begin with; used by ``tools/fuzz_readers.py``."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

import metriloc
from metriloc.calibration import load_calibration
from metriloc.datasets.nerfstudio import read_nerfstudio
from metriloc.datasets.nre_sample import read_nre_sample
from metriloc.datasets.overlap_table import read_overlaps
from metriloc.datasets.scannet import parse_scannet_pairs
from metriloc.datasets.sevenscenes import parse_absolute_list, parse_relative_list, parse_split
from metriloc.datasets.tum import parse_stamped_files
from metriloc.evaluation.mapfree import score_mapfree
from metriloc.evaluation.records import Record, parse_record, read_records, read_run
from metriloc.evaluation.submission import read_submission, read_visloc
from metriloc.io import load_view, read_depth, read_image, read_mapfree_poses, read_text, read_tum
from metriloc.io.bundles import FEATURES, FORMAT, MANIFEST, MODEL, open_bundle, read_manifest
from metriloc.io.hloc import image_names, read_features, read_global_descriptors, read_log
from metriloc.io.intrinsics_file import parse_intrinsics
from metriloc.io.lists import parse_pairs, parse_queries
from metriloc.io.maps import read_map
from metriloc.io.packaged import own_data
from metriloc.io.weights import load_weights, read_checkpoint
from metriloc.io.yaml_file import read_yaml
from metriloc.methods.mickey.checkpoint import config_from_yaml, solver_config_from_yaml
from metriloc.methods.mickey.model import MicKey
from metriloc.methods.pixloc import NetworkConfig, PixLocNetwork, Settings
from metriloc.methods.pixloc.checkpoint import network_from_tensors, settings_from_conf
from metriloc.methods.pixloc.settings import read_settings
from metriloc.recipes.published_files import run_of_files
from metriloc.training.record import read_config

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


@dataclass(frozen=True)
class Reader:
    """read: a file called ``name`` in a folder of its own, beside ``beside``. kind: how files are mutated. words: whether
    ValueError is documented, and names no file."""

    title: str
    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], Any]
    kind: str = "binary"
    beside: dict[str, bytes] | None = None
    words: bool = False


def _text(parse: Callable[..., Any]) -> Callable[[Path], Any]:
    return lambda path: parse(read_text(path), str(path))


def readers() -> list[Reader]:
    """All of them."""
    return [*_photos(), *_lists(), *_json(), *_archives(), *_colmap()]


def _encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.open(EXAMPLE / "query.jpg").resize((48, 32)).convert(mode)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _photos() -> list[Reader]:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Phone", 6
    exif.get_ifd(0x8769).update({0x920A: 4.2, 0xA405: 26, 0xA404: 1.5, 0xA20E: 1000.0, 0xA20F: 1000.0, 0xA210: 3})
    photos = tuple(_encoded(kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP"))
    depth = np.full((6, 8), 1500, np.uint16)
    npy, png = io.BytesIO(), io.BytesIO()
    np.save(npy, depth.astype(np.float32) / 1000)
    Image.fromarray(depth).save(png, "PNG")
    with_exif = _encoded("JPEG", exif=exif)
    return [
        Reader("photo", "a.jpg", photos, read_image),
        Reader("EXIF", "a.jpg", (with_exif[: with_exif.index(b"\xff\xdb") + 400], with_exif), load_view),
        Reader("depth PNG", "d.png", (png.getvalue(),), read_depth),
        Reader("depth npy", "d.npy", (npy.getvalue(),), read_depth),
        Reader("depth PGM", "d.pgm", (b"P5 8 6 65535\n" + depth.tobytes(),), read_depth),
    ]


_TRAINING = (
    b"LOSS_CLASS: {LOSS_FUNCTION: VCRE, VCRE: {MAX_LOSS: 0.8}, CURRICULUM: {TRAIN_CURRICULUM: true, TOPK_INIT: 30}}\n"
    b"TRAINING: {BATCH_SIZE: 8, NUM_GPUS: 4, LR: 1e-4, LR_STEP_INTERVAL: 9, VAL_INTERVAL: 0.5, VAL_BATCHES: 10}\n"
    b"DATASET: {HEIGHT: 720, WIDTH: 540, MIN_OVERLAP_SCORE: 0.4, AUGMENTATION: jitter}\n",
    b"data: {name: cmu, resize: 720, crop: 720, min_overlap: 0.3, init_pose: [0.7, 1], batch_size: 3}\n"
    b"model: {extractor: {encoder: vgg16, output_dim: [8, 8, 8]}, optimizer: {loss_fn: 'scaled_barron(0, .1)'}}\n"
    b"train: {epochs: 2, lr: 1e-5, lr_scaling: [[100, [dampingnet.const]]], optimizer_options: {eps: 1e-8}}\n",
)


def _lists() -> list[Reader]:
    example = {name: (EXAMPLE / name).read_bytes() for name in ("intrinsics.txt", "poses.txt")}
    visloc = b"a.jpg 1 0 0 0 0.1 0.2 0.3\nb.jpg 0.5 0.5 0.5 0.5 1 2 3\n"
    queries = b"q/a.jpg SIMPLE_RADIAL 640 480 500 320 240 0.01\nq/b.jpg PINHOLE 640 480 500 501 320 240\n"
    yaml = b"MODEL: MicKey\nPROCRUSTES: {IT_MATCHES: 20, TH_INLIER: 0.3}\n"
    yaml += b"MICKEY: {KP_HEADS: {BLOCKS_DIM: [512, 256, 128, 64]}}\n"
    scannet = b"a.jpg b.jpg 0 1 500 0 320 0 500 240 0 0 1 500 0 320 0 500 240 0 0 1 1 0 0 0 0 1 0 0 0 0 1 1 0 0 0 1\n"

    def settings(path: Path) -> None:
        values = read_yaml(path)
        config_from_yaml(values), solver_config_from_yaml(values)

    return [
        Reader("intrinsics.txt", "intrinsics.txt", (example["intrinsics.txt"],), _text(parse_intrinsics), "text"),
        Reader("poses.txt", "poses.txt", (example["poses.txt"],), read_mapfree_poses, "text"),
        Reader("TUM", "t.txt", (b"1.5 0 0 0 0 0 0 1\n2 1 2 3 0.5 0.5 0.5 0.5\n",), read_tum, "text"),
        Reader("visloc poses", "v.txt", (visloc,), read_visloc, "text"),
        Reader("pairs", "pairs.txt", (b"a.jpg b.jpg\na.jpg c.jpg\n",), _text(parse_pairs), "text"),
        Reader("queries", "queries.txt", (queries,), _text(parse_queries), "text"),
        Reader("scannet pairs", "p.txt", (scannet,), _text(parse_scannet_pairs), "text"),
        Reader("7-Scenes split", "s.txt", (b"sequence1\nsequence2\n",), _text(parse_split), "text"),
        Reader("7-Scenes list", "l.txt", (b"a.png 1 0 0 0 1 2 3\n",), _text(parse_absolute_list), "text"),
        Reader("7-Scenes pairs", "r.txt", (b"a.png b.png 0.9 1 0 0 0 1 2 3\n",), _text(parse_relative_list), "text"),
        Reader("TUM files", "rgb.txt", (b"# x\n1.5 rgb/1.5.png\n",), _text(parse_stamped_files), "text"),
        Reader("YAML", "config.yaml", (yaml,), settings, "text", words=True),
        Reader("training files", "own.yaml", _TRAINING, lambda path: run_of_files([path]), "text"),
    ]


def _json() -> list[Reader]:
    calibrations = tuple(path.read_bytes() for path in sorted(own_data("calibration").glob("*.json")))[:4]
    eye = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    nerf = {"fl_x": 50.0, "w": 64, "h": 48, "frames": [{"file_path": "a.jpg", "transform_matrix": eye}]}
    record = asdict(Record("k", True, 0.5, (1.0, 0, 0, 0), (0.0, 0, 1), True, None, 0.1, {"inliers": 3.0}, "s"))
    run = {"method": "identity", "weights_id": "none", "seed": 0}
    small = own_data("weights/metriloc-small")
    tensors = PixLocNetwork(NetworkConfig()).state_dict()
    conf = {
        "extractor": {"output_scales": [0, 2, 4], "do_average_pooling": False},
        "optimizer": {"loss_fn": "scaled_barron(0, 0.1)", "pad": 3, "damping": {"log_range": [-6, 5]}, "lambda_": 0.01},
        "normalize_features": True,
    }

    def released(path: Path) -> None:
        values = metriloc.io.read_json(path)
        values = values if isinstance(values, dict) else {}
        settings_from_conf(values, network_from_tensors(tensors, values))

    def stored(path: Path) -> None:
        values = metriloc.io.read_json(path)
        read_settings(values if isinstance(values, dict) else {}, str(path))

    dumped = [json.dumps(value).encode() for value in (nerf, run, {"recipe": {"a": 1}}, conf, asdict(Settings()))]
    photo = {"a.jpg": _encoded("JPEG")}
    weights = {"model.safetensors": (small / "model.safetensors").read_bytes()}
    return [
        Reader("calibration", "calibration.json", calibrations, load_calibration, "json"),
        Reader("bundle manifest", "m.json", (_manifest({}),), lambda p: read_manifest(read_text(p), str(p)), "json"),
        Reader("transforms.json", "transforms.json", (dumped[0],), read_nerfstudio, "json", photo),
        Reader("run.json", "run.json", (dumped[1],), lambda path: read_run(path.parent), "json"),
        Reader("training config", "config.json", (dumped[2],), lambda path: read_config(path.parent), "json"),
        Reader("PixLoc conf", "conf.json", (dumped[3],), released, "json", words=True),
        Reader("PixLoc settings", "config.json", (dumped[4],), stored, "json"),
        Reader(
            "record",
            "r.json",
            (json.dumps(record).encode(),),
            lambda p: parse_record(p.read_text("utf-8", "replace")),
            "json",
        ),
        Reader(
            "records",
            "records-0.jsonl",
            (json.dumps(record).encode() + b"\n",),
            lambda p: read_records(p.parent),
            "text",
        ),
        Reader(
            "weights config",
            "config.json",
            ((small / "config.json").read_bytes(),),
            lambda path: MicKey.from_pretrained(path.parent),
            "json",
            weights,
        ),
    ]


def _manifest(members: dict[str, bytes]) -> bytes:
    """Of a bundle that holds ``members`` beside its features."""
    members = {FEATURES: save({"a": torch.ones(3)}), **members}
    listed = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in members.items()}
    method = {"name": "xfeat-pnp", "weights_id": "w", "licence": "l"}
    content = {"format": FORMAT, "files": listed, "methods": [method], "photos": False, "made_of": "m"}
    return json.dumps(content | {"metriloc_version": "0"}).encode()


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _archives() -> list[Reader]:
    lines = b"seq1/frame_00000.jpg 1 0 0 0 0 0 0 0.5\nseq1/frame_00005.jpg 1 0 0 0 0.1 0 0 0.7\n"
    truth = (
        b"seq0/frame_00000.jpg 1 0 0 0 0 0 0\nseq1/frame_00000.jpg 1 0 0 0 0 0 0\nseq1/frame_00005.jpg 1 0 0 0 0 0 0\n"
    )
    cameras = b"".join(line.split()[0] + b" 500 500 270 360 540 720\n" for line in truth.splitlines())
    scene = {"val/s00000/poses.txt": truth, "val/s00000/intrinsics.txt": cameras}

    def scored(path: Path) -> None:
        for mode in ("official", "clean"):
            score_mapfree(path.parent / "val", {"s00000": read_text(path)}, mode=mode, step=1)  # type: ignore[arg-type]

    K, eye = np.eye(3), np.eye(4)
    sample = {"source_K": K, "target_K": K, "source_P": eye, "target_P": eye, "p3D": np.ones((4, 3))}
    sample |= {"source_dist": np.zeros(4), "target_dist": np.zeros(4)}
    sample |= {"source_image": np.array("a.jpg"), "target_image": np.array("a.jpg")}
    photo = {"a.jpg": _encoded("JPEG")}
    overlaps = _npz(idxs=np.array([[0, 0, 1, 5]]), overlaps=np.array([0.5], np.float32))
    log = {"loc": {"q.jpg": {"db": [1, 2], "PnP_ret": None, "keypoints_query": np.zeros((1, 2)), "points3D_ids": [3]}}}
    state = io.BytesIO()
    torch.save({"state_dict": {"cnn.a": torch.ones(3)}}, state)
    model = {f"{MODEL}/{name}.txt": b"" for name in ("cameras", "images", "points3D")}
    bundle = _zip({MANIFEST: _manifest(model), FEATURES: save({"a": torch.ones(3)}), **model}, zipfile.ZIP_STORED)
    found = [
        Reader("bundle", "map.metriloc", (bundle,), open_bundle),
        Reader("submission zip", "s.zip", (_zip({"pose_s00000.txt": lines}),), read_submission),
        Reader("submission lines", "pose_s00000.txt", (lines,), scored, "text", scene),
        Reader("overlaps", "overlaps.npz", (overlaps,), read_overlaps),
        Reader("NRE sample", "sample.npz", (_npz(**sample),), read_nre_sample, beside=photo),
        Reader("hloc log", "logs.pkl", tuple(pickle.dumps(log, protocol) for protocol in (2, 4)), read_log),
        Reader("safetensors", "m.safetensors", (save({"a": torch.ones(3, 2)}),), read_checkpoint),
        Reader("checkpoint", "m.ckpt", (state.getvalue(),), read_checkpoint),
        Reader(
            "weights tensors",
            "model.safetensors",
            (save({"a": torch.ones(3)}),),
            lambda path: load_weights(path.parent, "mickey"),
            beside={"config.json": b'{"method": "mickey", "format_version": 1}'},
        ),
    ]
    try:
        import h5py
    except ImportError:
        return found
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name in ("a.jpg", "db/b.jpg"):
            file[f"{name}/keypoints"] = np.ones((4, 2), np.float16)
            file[f"{name}/descriptors"] = np.ones((3, 4), np.float16)
            file[f"{name}/global_descriptor"] = np.ones(4, np.float32)

    def hdf5(path: Path) -> None:
        for name in image_names(path):
            read_global_descriptors(path, [name])
            read_features(path, name)

    return [*found, Reader("HDF5", "f.h5", (buffer.getvalue(),), hdf5)]


def _colmap() -> list[Reader]:
    files = {
        "cameras.txt": b"1 PINHOLE 640 480 500 500 320 240\n2 SIMPLE_RADIAL 640 480 500 320 240 0.01\n",
        "images.txt": b"1 1 0 0 0 0 0 0 1 a.jpg\n10 20 1 30 40 2\n2 1 0 0 0 1 0 0 2 b.jpg\n11 21 1 31 41 2\n",
        "points3D.txt": b"1 0 0 5 9 9 9 0.1 1 0 2 0\n2 1 0 5 9 9 9 0.1 1 1 2 1\n",
    }
    found = []
    for name in files:
        others = {other: data for other, data in files.items() if other != name}
        found.append(Reader(f"COLMAP {name}", name, (files[name],), lambda path: read_map(path.parent), "text", others))
    binary = _binary_model(files)
    for name in binary:
        others = {other: data for other, data in binary.items() if other != name}
        found.append(Reader(f"COLMAP {name}", name, (binary[name],), lambda path: read_map(path.parent), beside=others))
    return found


def _binary_model(files: dict[str, bytes]) -> dict[str, bytes]:
    """The same model as COLMAP itself writes it; nothing without pycolmap."""
    import tempfile

    try:
        import pycolmap
    except ImportError:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        model = pycolmap.Reconstruction()
        model.read_text(folder)
        model.write_binary(folder)
        return {
            path.name: path.read_bytes()
            for path in Path(folder).glob("*.bin")
            if path.stem in ("cameras", "images", "points3D")
        }
