"""Overlaps from depth and from reconstructions, and the file that keeps them: naive twins, real scenes, interrupted runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.datasets import (
    PosedScene,
    depth_overlap,
    overlap_of_views,
    overlapping_pairs,
    read_colmap,
    read_mapfree,
    read_overlaps,
    sfm_overlap,
    write_overlaps,
)
from metriloc.datasets.matrices import pinhole
from metriloc.datasets.overlap import OverlapRows, _reduced
from metriloc.datasets.overlap_table import save_overlaps
from metriloc.geometry import Pose, so3_exp
from metriloc.io import InputError
from metriloc.io.maps import read_map
from metriloc.types import View

Shared = Callable[[str], Path]


def facing_wall(x: float, *, depth: float = 2.0, hole: bool = False, angle: float = 0.0, name: str = "") -> View:
    """A camera at (x, 0, 0) that looks along z, turned by ``angle`` about y, at a wall at z = ``depth``."""
    camera = pinhole((80, 60), (80.0, 80.0, 39.5, 29.5))
    R = so3_exp(torch.tensor([0.0, angle, 0.0], dtype=torch.float64))
    center = torch.tensor([x, 0.0, 0.0], dtype=torch.float64)
    pose = Pose(R, -(R @ center))
    v, u = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    rays, _ = camera.unproject(torch.stack([u, v], -1).reshape(-1, 2).double())
    z = depth / (rays @ R)[:, 2]
    z = torch.where(z > 0, z, torch.zeros_like(z)).reshape(60, 80).float()
    if hole:
        z[:, 40:] = 0
    return View(torch.zeros(3, 60, 80), camera, pose, name, depth=z)


# -- pairs of views ---------------------------------------------------------------------------------------------------
def test_translation_along_a_wall() -> None:
    # a photo is 2 m wide on the wall: every decimetre costs a twentieth
    for x in (0.0, 0.1, 0.5, 1.0, 1.9, 2.1):
        assert overlap_of_views(facing_wall(0), facing_wall(x), points=4800) == pytest.approx(
            max(0, 1 - x / 2), abs=0.02
        )


def test_it_is_symmetric_and_the_smaller_direction() -> None:
    near, far = facing_wall(0, depth=2.0), facing_wall(0, depth=2.0)
    assert far.cam_from_world is not None
    back = Pose(far.cam_from_world.R, far.cam_from_world.t + torch.tensor([0.0, 0.0, 2.0]))  # 2 m further away
    far = View(far.image, far.camera, back, depth=far.depth * 2)  # type: ignore[operator]
    # all of the near photo is in the far one, a quarter of the far one is in the near one
    assert overlap_of_views(near, far, points=4800) == pytest.approx(0.25, abs=0.02)
    assert overlap_of_views(far, near, points=4800) == overlap_of_views(near, far, points=4800)


def test_what_hides_another_surface_is_not_shared() -> None:
    # the same cameras, but one of them sees a screen in front of the wall
    assert overlap_of_views(facing_wall(0), facing_wall(0, depth=1.8)) == 0.0


def test_facing_away_shares_nothing() -> None:
    assert overlap_of_views(facing_wall(0), facing_wall(0, angle=3.1)) == 0.0


def test_unknown_depth_counts_neither_way() -> None:
    assert overlap_of_views(facing_wall(0), facing_wall(0.0, hole=True), points=4800) == pytest.approx(1, abs=0.02)
    empty = facing_wall(0)
    empty = View(empty.image, empty.camera, empty.cam_from_world, depth=torch.zeros(60, 80))
    assert overlap_of_views(facing_wall(0), empty) == 0.0


def test_reduced_maps_keep_their_rays() -> None:
    camera = pinhole((640, 480), (600.0, 610.0, 311.0, 249.0))
    ramp = torch.arange(480 * 640).reshape(480, 640).float() + 1
    reduced = _reduced(View(torch.zeros(3, 480, 640), camera, facing_wall(0).cam_from_world, depth=ramp))
    h, w = reduced.depth.shape
    assert (w, h) == (160, 120) and reduced.camera.size.tolist() == [160, 120]
    for x, y in ((0, 0), (159, 119), (40, 77)):
        row, column = divmod(int(reduced.depth[y, x]) - 1, 640)
        here, _ = reduced.camera.unproject(torch.tensor([[x, y]], dtype=torch.float64))
        there, _ = camera.unproject(torch.tensor([[column, row]], dtype=torch.float64))
        torch.testing.assert_close(here, there, rtol=0, atol=1e-12)


def test_wrong_views() -> None:
    bare = View(torch.zeros(3, 60, 80), facing_wall(0).camera, name="a.jpg")
    with pytest.raises(ValueError, match=r"'a\.jpg' needs its depth and pose"):
        overlap_of_views(facing_wall(0), bare)


# -- from a reconstruction --------------------------------------------------------------------------------------------
def test_shared_points_against_a_naive_twin(shared: Shared) -> None:
    folder = shared("data/eval/places/fountain_p11")
    sfm = read_map(folder / "sparse", folder)
    scene = read_colmap(folder, folder)
    rows = sfm_overlap(scene, sfm)
    seen = [set(sfm.point_index[sfm.observations_of(i)].tolist()) for i in range(len(sfm))]
    for i in range(len(sfm)):
        expected = [len(seen[i] & other) / max(len(seen[i]), len(other)) for other in seen]
        np.testing.assert_allclose(rows.row(i), expected, rtol=1e-6)


def test_a_photo_that_the_map_lacks(shared: Shared) -> None:
    folder = shared("data/eval/places/fountain_p11")
    sfm, scene = read_map(folder / "sparse", folder), read_colmap(folder, folder)
    other = PosedScene("x", folder, ("nowhere.jpg",), scene.cameras[:1], scene.cam_from_world[:1])  # type: ignore[index]
    with pytest.raises(InputError, match=r"no image 'nowhere\.jpg'"):
        sfm_overlap(other, sfm)


# -- the file ---------------------------------------------------------------------------------------------------------
def toy_scene(folder: Path, names: tuple[str, ...]) -> PosedScene:
    n = len(names)
    camera = pinhole((80, 60), (80.0, 80.0, 39.5, 29.5))
    return PosedScene("toy", folder, names, (camera,) * n, Pose.identity((n,), torch.float64))


def rows_of(table: np.ndarray, calls: list[int] | None = None, stop_at: int | None = None) -> OverlapRows:
    def row(index: int) -> np.ndarray:
        if index == stop_at:
            raise KeyboardInterrupt
        if calls is not None:
            calls.append(index)
        return table[index].astype(np.float32)

    return OverlapRows("toy", row)


@pytest.mark.parametrize(
    "names", [("seq0/frame_00003.jpg", "seq1/frame_00070.png", "seq1/frame_00071.jpg"), ("a", "b", "ü c")]
)
def test_round_trip(tmp_path: Path, names: tuple[str, ...]) -> None:
    scene = toy_scene(tmp_path, names)
    table = np.array([[1, 0.5, 0.2], [0.7, 1, 0.0], [0.3, 0.9, 1]])
    path = write_overlaps(scene, rows_of(table))
    assert path == tmp_path / "overlaps.npz" and sorted(p.name for p in tmp_path.iterdir()) == ["overlaps.npz"]
    pairs = overlapping_pairs(scene, path)
    found = {(int(i), int(j)): float(o) for i, j, o in zip(pairs.index0, pairs.index1, pairs.overlap, strict=True)}
    # the smaller of both directions; no pair of a photo with itself, none without overlap
    assert found == pytest.approx({(0, 1): 0.5, (1, 0): 0.5, (0, 2): 0.2, (2, 0): 0.2})
    rows, _, stored = read_overlaps(path)
    if names[0].startswith("seq"):
        assert stored is None and rows.tolist()[0] == [0, 3, 1, 70]
    else:
        assert stored == names
    assert len(overlapping_pairs(scene, path, 0.2, 0.6)) == 4 if np.float32(0.2) > 0.2 else 2


def test_names_survive_another_order(tmp_path: Path) -> None:
    scene = toy_scene(tmp_path, ("a", "b", "c"))
    path = tmp_path / "overlaps.npz"
    save_overlaps(path, scene, np.array([[0, 2]]), np.array([0.5]))
    pairs = overlapping_pairs(toy_scene(tmp_path, ("c", "a")), path)
    assert (pairs.index0.tolist(), pairs.index1.tolist()) == ([1], [0])
    with pytest.raises(InputError, match="has no 'c'"):
        overlapping_pairs(toy_scene(tmp_path, ("a", "b")), path)


def test_a_stopped_run_continues(tmp_path: Path) -> None:
    scene = toy_scene(tmp_path, tuple(f"{i}.jpg" for i in range(9)))
    table = np.random.default_rng(0).random((9, 9))
    with pytest.raises(KeyboardInterrupt):
        write_overlaps(scene, rows_of(table, stop_at=6), save_every=0)
    assert not (tmp_path / "overlaps.npz").exists()
    calls: list[int] = []
    told: list[tuple[int, int]] = []
    path = write_overlaps(scene, rows_of(table, calls), save_every=0, progress=lambda *done: told.append(done))
    assert calls == [6, 7, 8] and told == [(7, 9), (8, 9), (9, 9)]
    resumed = path.read_bytes()
    straight = write_overlaps(scene, rows_of(table), tmp_path / "straight.npz")
    assert straight.read_bytes() == resumed
    assert not list(tmp_path.glob(".*"))


def test_progress_of_another_run_is_not_used(tmp_path: Path) -> None:
    table = np.random.default_rng(0).random((4, 4))
    scene = toy_scene(tmp_path, ("a", "b", "c", "d"))
    with pytest.raises(KeyboardInterrupt):
        write_overlaps(scene, rows_of(table, stop_at=2), save_every=0)
    (partial,) = tmp_path.glob(".*")
    calls: list[int] = []
    moved = Pose(scene.cam_from_world.R, scene.cam_from_world.t + 1)
    write_overlaps(PosedScene("toy", tmp_path, scene.names, scene.cameras, moved), rows_of(table, calls))
    assert calls == [0, 1, 2, 3]
    partial.write_bytes(b"PK\x03\x04 damaged")
    calls.clear()
    write_overlaps(scene, rows_of(table, calls))
    assert calls == [0, 1, 2, 3]


def test_a_scene_with_depth(shared: Shared, tmp_path: Path) -> None:
    whole = read_mapfree(shared("data/train"))[1].posed
    keep = list(range(0, 640, 40))
    scene = PosedScene(
        whole.name,
        whole.folder,
        tuple(whole.names[i] for i in keep),
        tuple(whole.cameras[i] for i in keep),
        whole.cam_from_world[torch.tensor(keep)],
        depth_suffix="depth",
    )
    path = write_overlaps(scene, depth_overlap(scene), tmp_path / "overlaps.npz")
    pairs = overlapping_pairs(scene, path)
    assert len(pairs) > 50
    for row in (0, 17, 40):
        pair = pairs[row].load()
        assert overlap_of_views(pair.view0, pair.view1) == pytest.approx(pairs[row].overlap, abs=0.05)


def test_a_scene_without_depth(shared: Shared) -> None:
    scene = read_mapfree(shared("data/eval/places/fountain_p11"))[0].posed
    with pytest.raises(InputError, match="has no depth map"):
        depth_overlap(scene)
