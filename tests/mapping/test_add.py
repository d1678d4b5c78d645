"""Photos added to a map: it keeps its place, axes and metres."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.maps import read_map
from metriloc.io.poses import read_mapfree_poses
from metriloc.mapping.config import MapConfig
from metriloc.mapping.facts import read_facts
from metriloc.mapping.sources import ScaleOptions
from metriloc.runs.map_add import add_photos
from metriloc.runs.map_build import build_map
from metriloc.solvers.similarity import fit_similarity

pytest.importorskip("pycolmap", reason="maps are made by COLMAP")


@pytest.mark.slow
def test_new_photos_come_in_and_nothing_moves(tmp_path: Path, write_photos: Callable[..., Pose]) -> None:
    poses = write_photos(tmp_path / "photos", 6)
    later = tmp_path / "later"
    later.mkdir()
    (tmp_path / "photos" / "03.png").rename(later / "03.png")
    metres = float(poses[0].center_distance(poses[5]))
    scale = ScaleOptions(distances=(("00.png", "05.png", metres),))
    build_map(tmp_path / "photos", tmp_path / "map", config=MapConfig(threads=1), scale=scale)
    before, facts = read_map(tmp_path / "map"), read_facts(tmp_path / "map")
    assert "03.png" not in before.names and facts is not None and facts.scale is not None
    with pytest.raises(InputError, match="is not within the map's photos"):
        add_photos(tmp_path / "map", later)
    shutil.copy(later / "03.png", tmp_path / "photos" / "03.png")
    added = add_photos(tmp_path / "map", tmp_path / "photos")
    after = read_map(tmp_path / "map")
    assert added.new == added.registered == ("03.png",)
    assert added.facts.scale is not None and added.facts.scale.sigma == facts.scale.sigma
    for n, name in enumerate(before.names):
        pose = after.cam_from_world[after.index(name)]
        assert float(pose.center_distance(before.cam_from_world[n])) < 0.01
        assert float(pose.angle_to(before.cam_from_world[n]).rad2deg()) < 0.3
    step = poses[3].center_distance(poses[2])
    found = after.cam_from_world[after.index("03.png")].center_distance(after.cam_from_world[after.index("02.png")])
    assert float(found) == pytest.approx(float(step), rel=0.05)
    assert add_photos(tmp_path / "map").new == ()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.slow
def test_ended_at_any_moment_the_map_is_the_same(tmp_path: Path, write_photos: Callable[..., Pose]) -> None:
    """Before the new model is put there, between the two renames that do it, and after."""
    write_photos(tmp_path / "all", 4)
    shutil.copytree(tmp_path / "all", tmp_path / "photos", ignore=shutil.ignore_patterns("03.png"))
    scale = ScaleOptions(distances=(("00.png", "02.png", 0.6),))
    build_map(tmp_path / "photos", tmp_path / "map", config=MapConfig(threads=1), scale=scale)
    shutil.copy(tmp_path / "all" / "03.png", tmp_path / "photos")
    shutil.copytree(tmp_path / "map", tmp_path / "other")
    assert add_photos(tmp_path / "map").registered == ("03.png",)
    calm = bytes_of(tmp_path / "map" / "sparse")
    # ended once it was done: the same command finds nothing to do
    assert add_photos(tmp_path / "map").new == () and bytes_of(tmp_path / "map" / "sparse") == calm
    # ended between the renames, with the keypoints of the new photo found already
    other = tmp_path / "other"
    shutil.rmtree(other / "work")
    shutil.copytree(tmp_path / "map" / "work", other / "work")
    (other / "sparse").rename(other / ".sparse.123.old")
    (other / ".sparse.123.new").mkdir()
    assert add_photos(other).registered == ("03.png",)
    assert {k: v for k, v in bytes_of(other / "sparse").items() if k != "map.json"} == {
        k: v for k, v in calm.items() if k != "map.json"
    }
    assert not list(other.glob(".sparse*"))


@pytest.mark.slow
def test_real_photos_come_in(tmp_path: Path, shared: Callable[[str], Path]) -> None:
    """Two photos of a facade into a map of six others: their poses relative to those are the known ones."""
    place = shared("data/eval/places/entry_p10")
    truth = {name: pose for name, pose in read_mapfree_poses(place / "poses.txt").items() if pose is not None}
    names = sorted(path.name for path in (place / "seq0").glob("*.jpg"))[:8]
    late = {names[3], names[6]}
    (tmp_path / "photos").mkdir()
    shutil.copy(place / "intrinsics.txt", tmp_path)
    config = MapConfig(max_features=1500, threads=1)
    poses = [truth[f"seq0/{name}"] for name in names]
    metres = float(poses[0].center_distance(poses[-1]))
    scale = ScaleOptions(distances=((names[0], names[-1], metres),))
    for name in names:
        if name not in late:
            shutil.copy(place / "seq0" / name, tmp_path / "photos")
    build_map(tmp_path / "photos", tmp_path / "map", config=config, scale=scale, intrinsics=place / "intrinsics.txt")
    before = read_map(tmp_path / "map")
    for name in late:
        shutil.copy(place / "seq0" / name, tmp_path / "photos")
    added = add_photos(tmp_path / "map")
    assert set(added.registered) == late
    after = read_map(tmp_path / "map")
    fit = fit_similarity(after.cam_from_world.center(), torch.stack([pose.center() for pose in poses]).double())
    # metres of one distance are those of all; 13 m of facade
    assert fit is not None and abs(fit.scale - 1) < 0.01 and fit.rms < 0.04
    kept = after.cam_from_world.center()[[after.index(name) for name in before.names]]
    assert float((kept - before.cam_from_world.center()).norm(dim=-1).median()) < 0.02
