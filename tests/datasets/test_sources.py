"""Scenes, pairs and the collection a trainer draws from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets import (
    Augment,
    DepthFormat,
    PairDataset,
    PairList,
    PosedScene,
    SceneBalancedSampler,
    read_mapfree,
)
from metriloc.datasets.matrices import pinhole
from metriloc.datasets.sources import resample_depth
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError


def make_scene(folder: Path, count: int = 4, name: str = "room") -> PosedScene:
    """``count`` photos of 32x24 whose red channel is their number, with depth maps of 16x12."""
    folder.mkdir(parents=True, exist_ok=True)
    names = tuple(f"{i}.png" for i in range(count))
    for i, photo in enumerate(names):
        Image.new("RGB", (32, 24), (i, 0, 0)).save(folder / photo)
        Image.fromarray(np.full((12, 16), 1000 + i, dtype=np.uint16)).save(folder / f"{i}.depth.png")
    t = torch.arange(count, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    pose = Pose(torch.eye(3, dtype=torch.float64).expand(count, 3, 3), t)
    cameras = (pinhole((32, 24), (30.0, 30.0, 15.5, 11.5)),) * count
    return PosedScene(name, folder, names, cameras, pose, depth_suffix="depth", intrinsics_source="the test")


def pairs_of(scene: PosedScene, index0: list[int], index1: list[int]) -> PairList:
    return PairList(scene, np.array(index0), np.array(index1), np.full(len(index0), 0.5))


def test_a_frame_is_loaded_with_all_that_is_known(tmp_path: Path) -> None:
    frame = make_scene(tmp_path).frame(2)
    view = frame.load()
    assert view.name == "room/2.png" and view.intrinsics_source == "the test"
    assert view.size == (32, 24) and view.camera.dtype == torch.float32
    assert view.depth is not None and view.depth.unique().tolist() == pytest.approx([1.002])
    assert float(view.image[0, 0, 0]) == pytest.approx(2 / 255)
    assert view.cam_from_world is not None and view.cam_from_world.t.tolist() == [2, 0, 0]
    small = frame.load((16, 12), depth=False)
    assert small.depth is None and small.size == (16, 12)
    assert small.camera.c.tolist() == pytest.approx([7.5, 5.5]) and small.camera.f.tolist() == [15, 15]
    assert "resized from 32x24 to 16x12" in small.intrinsics_source


def test_depth_is_found_beside_the_photo(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    (tmp_path / "1.depth.png").unlink()
    assert [frame.depth and frame.depth.name for frame in scene] == ["0.depth.png", None, "2.depth.png", "3.depth.png"]
    np.save(tmp_path / "1.depth.npy", np.full((12, 16), 2.5, dtype=np.float32))
    view = scene.frame(1).load()
    assert view.depth is not None and float(view.depth[0, 0]) == 2.5


def test_depth_of_another_shape_is_refused(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    np.save(tmp_path / "0.depth.npy", np.full((12, 12), 2.5, dtype=np.float32))
    (tmp_path / "0.depth.png").unlink()
    with pytest.raises(InputError, match=r"0.depth.npy' has 12x12 pixels"):
        scene.frame(0).load()


def test_depth_format(tmp_path: Path) -> None:
    color = pinhole((32, 24), (30.0, 30.0, 15.5, 11.5))
    raw = np.full((24, 32), 65535, dtype=np.uint16)
    raw[6:18, 8:24] = 10_000
    Image.fromarray(raw).save(tmp_path / "d.png")
    depth = DepthFormat(scale=0.0002, limit=10.0).read(tmp_path / "d.png", color)
    assert depth.unique().tolist() == [0, 2]
    assert int((depth > 0).sum()) == 12 * 16
    # a sensor with half the focal length sees twice as far out: its centre half fills the colour photo
    wide = DepthFormat(scale=0.0002, limit=10.0, camera=pinhole((32, 24), (15.0, 15.0, 15.5, 11.5)))
    assert (wide.read(tmp_path / "d.png", color) == 2).all()


def test_resampled_depth_equals_the_rays() -> None:
    h, w = 30, 40
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    depth = (1 + 0.01 * u + 0.02 * v).float()
    source = Camera(torch.tensor([80.0, 60.0]), torch.tensor([70.0, 72.0]), torch.tensor([41.0, 28.0]))
    target = Camera(torch.tensor([160.0, 120.0]), torch.tensor([180.0, 178.0]), torch.tensor([77.0, 63.0]))
    turn = Pose(so3_exp(torch.tensor([0.0, 0.0, 0.3])), torch.zeros(3))
    found = resample_depth(depth, source, target, (80, 60), turn)
    for x, y in ((40, 30), (10, 50), (70, 5), (33, 44)):
        ray = torch.tensor([((x + 0.5) * 2 - 0.5 - 77) / 180, ((y + 0.5) * 2 - 0.5 - 63) / 178, 1.0])
        ray = turn.R.mT @ ray
        uv = torch.tensor([70.0, 72.0]) * ray[:2] + torch.tensor([41.0, 28.0])
        column, row = ((uv + 0.5) / 2 - 0.5).round().long().tolist()
        expected = depth[row, column] if 0 <= column < w and 0 <= row < h else torch.tensor(0.0)
        assert float(found[y, x]) == float(expected)


def test_unknown_poses(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    t = scene.cam_from_world.t.clone()
    t[1] = torch.nan
    scene = PosedScene("room", tmp_path, scene.names, scene.cameras, Pose(scene.cam_from_world.R, t))
    assert scene.frame(1).cam_from_world is None and scene.pair(0, 1).cam1_from_cam0 is None
    assert scene.pair(0, 1).load().cam1_from_cam0 is None
    assert scene.pair(0, 2).cam1_from_cam0.t.tolist() == [2, 0, 0]  # type: ignore[union-attr]


def test_wrong_scenes(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with pytest.raises(ValueError, match="'room': 4 names, 3 cameras"):
        PosedScene("room", tmp_path, scene.names, scene.cameras[:3], scene.cam_from_world)  # type: ignore[index]
    with pytest.raises(ValueError, match="4 names but 1 depth files"):
        PosedScene("room", tmp_path, scene.names, scene.cameras, scene.cam_from_world, depths=(None,))
    with pytest.raises(ValueError, match="two photos have the same name"):
        PosedScene("room", tmp_path, ("0.png",) * 4, scene.cameras, scene.cam_from_world)
    with pytest.raises(ValueError, match=r"shapes \(1,\), \(2,\)"):
        PairList(scene, np.zeros(1, int), np.zeros(2, int), np.zeros(1))


def test_collection(tmp_path: Path) -> None:
    a, b, c = (make_scene(tmp_path / name, count, name) for name, count in (("a", 4), ("b", 2), ("c", 3)))
    data = PairDataset([pairs_of(a, [0, 1], [1, 3]), pairs_of(b, [], []), pairs_of(c, [2], [0])], (16, 12), depth=False)
    assert len(data) == 3 and data.lengths == (2, 0, 1)
    assert [(p.frame0.scene, p.frame0.name, p.frame1.name) for p in map(data.frame_pair, range(3))] == [
        ("a", "0.png", "1.png"),
        ("a", "1.png", "3.png"),
        ("c", "2.png", "0.png"),
    ]
    pair = data[2]
    assert pair.view0.name == "c/2.png" and pair.view0.depth is None and pair.view0.size == (16, 12)
    assert pair.cam1_from_cam0 is not None and pair.cam1_from_cam0.t.tolist() == [-2, 0, 0]
    with pytest.raises(IndexError, match="pair 3 of 3"):
        data[3]
    with pytest.raises(InputError, match="no pair to train on in 1 scenes"):
        PairDataset([pairs_of(b, [], [])])


def test_resumed_workers_see_the_same_pictures(shared: Callable[[str], Path]) -> None:
    scenes = [scene.posed for scene in read_mapfree(shared("data/train"))]
    lists = [pairs_of(scene, list(range(0, 100, 10)), list(range(5, 105, 10))) for scene in scenes]
    data = PairDataset(lists, (64, 48), augment=Augment())
    sampler = SceneBalancedSampler(data.lengths, per_scene=4, batch_size=2)

    def run(start: int, workers: int) -> list[torch.Tensor]:
        loader = torch.utils.data.DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=sampler.batches(start, 4),
            num_workers=workers,
            collate_fn=lambda pairs: torch.stack([pair.view1.image for pair in pairs]),
        )
        return list(loader)

    whole, resumed = run(0, 0), run(2, 1)
    assert len(whole) == 4 and all(torch.equal(a, b) for a, b in zip(whole[2:], resumed, strict=True))
    assert not torch.equal(data[3].view0.image, data[3, 1].view0.image)
