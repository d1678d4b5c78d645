"""Maps for other programs: what is written is what is read, and nothing of somebody else is written over."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metriloc.cli.main import main
from metriloc.geometry import Pose
from metriloc.io.maps import read_map, read_reconstruction
from metriloc.mapping.config import MapConfig
from metriloc.mapping.export import export_gltf
from metriloc.mapping.facts import GPS_FRAME, ScaleFacts, read_facts
from metriloc.mapping.sources import ScaleOptions
from metriloc.runs.map_build import build_map

pytest.importorskip("pycolmap", reason="maps are made by COLMAP")
Write = Callable[..., Pose]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_photos: Write) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_photos(folder / "photos", 3)
    scale = ScaleOptions(distances=(("00.png", "02.png", 0.6),))
    build_map(folder / "photos", folder / "map", config=MapConfig(threads=1), scale=scale)
    return folder


def parts_of(file: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the buffer of a glb, by the format's own rules."""
    data = file.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data)) and length % 4 == 0
    size, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON"
    told = json.loads(data[20 : 20 + size])
    rest = data[20 + size :]
    size, kind = struct.unpack("<I4s", rest[:8])
    assert kind == b"BIN\0" and told["buffers"] == [{"byteLength": size}] and len(rest) == 8 + size
    return told, rest[8:]


def accessor(told: dict[str, Any], data: bytes, number: int) -> np.ndarray:
    shape = told["accessors"][number]
    view = told["bufferViews"][shape["bufferView"]]
    piece = data[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    kind = {5126: np.float32, 5121: np.uint8}[shape["componentType"]]
    return np.frombuffer(piece, kind).reshape(shape["count"], {"VEC3": 3, "VEC4": 4}[shape["type"]])


def matrix(node: dict[str, Any]) -> np.ndarray:
    return np.array(node["matrix"]).reshape(4, 4).T


def test_gltf_holds_points_and_cameras(place: Path, tmp_path: Path) -> None:
    assert run("map", "export", place / "map", "--out", tmp_path / "out.glb", "--format", "gltf") == 0
    told, data = parts_of(tmp_path / "out.glb")
    scene = read_map(place / "map")
    root, points, *photos = told["nodes"]
    assert told["scenes"][told["scene"]]["nodes"] == [0] and root["children"] == list(range(1, len(told["nodes"])))
    attributes = told["meshes"][points["mesh"]]["primitives"][0]["attributes"]
    found = accessor(told, data, attributes["POSITION"])
    order = lambda xyz: xyz[np.lexsort(xyz.T)]  # noqa: E731 - they come in the model's order
    np.testing.assert_allclose(order(found), order(scene.xyz.numpy().astype(np.float32)), atol=1e-6)
    assert accessor(told, data, attributes["COLOR_0"]).shape == (len(scene.xyz), 4)
    assert [node["name"] for node in photos] == list(scene.names)
    for n, node in enumerate(photos):
        world_from_camera = matrix(node)
        np.testing.assert_allclose(world_from_camera[:3, 3], scene.cam_from_world[n].center().numpy(), atol=1e-9)
        np.testing.assert_allclose(-world_from_camera[:3, 2], scene.cam_from_world.R[n, 2].numpy(), atol=1e-9)
        view = told["cameras"][node["camera"]]["perspective"]
        assert view["yfov"] == pytest.approx(2 * math.atan(120 / 300)) and view["aspectRatio"] == pytest.approx(4 / 3)
    assert told["asset"]["extras"]["unit"] == "metre"
    turn = matrix(root)[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    # photos are held upright: what is up in them is y
    up = np.mean([turn @ -scene.cam_from_world.R[n, 1].numpy() for n in range(len(scene))], axis=0)
    assert up[1] / np.linalg.norm(up) > 0.999


@pytest.mark.parametrize("frame", [GPS_FRAME, "arbitrary"])
def test_gltf_of_a_map_that_gps_has_turned_has_its_up(place: Path, tmp_path: Path, frame: str) -> None:
    facts = read_facts(place / "map")
    assert facts is not None
    file = export_gltf(
        read_reconstruction(place / "map" / "sparse"),
        tmp_path / "a.glb",
        replace(facts, scale=ScaleFacts(0.1, frame=frame)),
    )
    turn = matrix(parts_of(file)[0]["nodes"][0])[:3, :3]
    assert (float((turn @ [0.0, 0.0, 1.0])[1]) > 0.999) == (frame == GPS_FRAME)


def test_gltf_opens_in_a_reader_of_others(place: Path, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="reads glTF here as somebody else does")
    assert run("map", "export", place / "map", "--out", tmp_path, "--format", "gltf") == 0
    scene, own = trimesh.load(tmp_path / "map.glb"), read_map(place / "map")
    clouds = [g for g in scene.geometry.values() if isinstance(g, trimesh.PointCloud)]
    assert [len(cloud.vertices) for cloud in clouds] == [len(own.xyz)]


@pytest.mark.parametrize(("form", "name"), [("ply", "points.ply"), ("gltf", "map.glb")])
def test_a_file_of_somebody_else_stays(
    place: Path, tmp_path: Path, form: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("my own scan")
    for out in (tmp_path, tmp_path / name):
        assert run("map", "export", place / "map", "--out", out, "--format", form) == 2
        assert "holds another" in " ".join(capsys.readouterr().err.split())
        assert (tmp_path / name).read_text() == "my own scan"
    # its own it writes again
    (tmp_path / name).unlink()
    for _ in range(2):
        assert run("map", "export", place / "map", "--out", tmp_path, "--format", form) == 0


@pytest.mark.slow
def test_bundles_are_looked_into_and_exported(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kornia", reason="a bundle holds features of XFeat")
    bundle = tmp_path / "place.metriloc"
    words = ("map", "bundle", place / "map", "--out", bundle, "--methods", "xfeat-pnp", "--no-photos")
    assert run(*words) == 0
    capsys.readouterr()
    assert run("map", "info", bundle) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "3 of 3" in text and "a bundle with no photos and what xfeat-pnp see" in text and "in metres" in text
    assert run("map", "check", bundle) == run("map", "check", place / "map")
    said = capsys.readouterr().out
    assert said[: len(said) // 2] == said[len(said) // 2 :]
    assert run("map", "export", bundle, "--out", tmp_path / "text") == 0
    np.testing.assert_allclose(read_map(tmp_path / "text").xyz, read_map(place / "map").xyz)
    capsys.readouterr()
    assert run("map", "export", bundle, "--out", tmp_path / "ns", "--format", "nerfstudio") == 2
    assert "nerfstudio needs the photos in a folder" in " ".join(capsys.readouterr().err.split())
    assert run("map", "add", bundle) == 2
    assert "is a bundle in one file, which is not taken here" in " ".join(capsys.readouterr().err.split())
