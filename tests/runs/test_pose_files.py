"""Files of poses for other programs: read back by readers that are not ours, and against each convention's own words."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import metriloc
from metriloc.datasets.nerfstudio import read_nerfstudio
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, parse_submission, parse_tum, pose_as_dict
from metriloc.io.intrinsics import camera_as_dict, camera_from_dict
from metriloc.io.posed_photos import PosedPhoto, PosedPhotos
from metriloc.io.poses import LengthUnit, kitti_line, ros_pose_stamped
from metriloc.runs.outcome import Outcome
from metriloc.runs.pose_files import FORMATS, checked_formats, posed_photos, write_pose_files

DOCS = Path(metriloc.__file__).parents[1] / "docs/conventions.md"
EVERY = tuple(name for name in FORMATS if name != "rosbag")  # needs an extra

# the camera stands 2 m right of, 1 m below and 5 m before the origin, and has turned 90 degrees to the right:
# it looks along the world's +x, its right is the world's -z, its down stays down
CENTER = np.array([2.0, 1.0, 5.0])
AHEAD, ABOVE = np.array([1.0, 0.0, 0.0]), np.array([0.0, -1.0, 0.0])
TURNED = Pose(
    torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64),
    torch.tensor([5.0, -1.0, -2.0], dtype=torch.float64),
)
TILTED = Pose.from_aa(torch.tensor([0.3, -0.2, 0.5]).double(), torch.tensor([0.4, -0.1, 0.7]).double())


def camera(terms: list[float] | None = None, model: Any = "pinhole") -> Camera:
    size, f, c = (torch.tensor(v, dtype=torch.float64) for v in ([640.0, 480.0], [500.0, 510.0], [320.25, 239.5]))
    return Camera(size, f, c, None if terms is None else torch.tensor(terms, dtype=torch.float64), model)


def outcome(
    photo: Path, pose: Pose | None, *, metric: bool = True, lens: Camera | None = None, unit: LengthUnit | None = None
) -> Outcome[None]:
    entry: dict[str, Any] = {"photo": str(photo), "success": pose is not None, "metric": metric, "confidence": 0.75}
    if pose is not None:
        told = pose_as_dict(pose, to_frame="query", from_frame="world", unit=unit or "metre")
        key = "query_from_reference" if unit is None else "cam_from_world"
        entry |= {key: told, "camera": camera_as_dict(lens or camera())}
    return Outcome(str(photo), entry)


def relative(folder: Path) -> PosedPhotos:
    """Two queries found, one not, one without metres; the reference is the world."""
    results = [
        outcome(folder / "a b.jpg", TURNED),
        outcome(folder / "failed.jpg", None),
        outcome(folder / "direction.jpg", TILTED, metric=False),
        outcome(folder / "c.jpg", TILTED, lens=camera([0.1, -0.02, 1e-3, 2e-3, 0.01], "radtan")),
    ]
    world = PosedPhoto("ref.jpg", folder / "ref.jpg", camera(), Pose.identity(dtype=torch.float64))
    return posed_photos(results, world)


def in_map(folder: Path) -> PosedPhotos:
    return posed_photos([outcome(folder / "a.jpg", TURNED, unit="unit of the map")])


@pytest.fixture()
def written(tmp_path: Path) -> Path:
    write_pose_files(tmp_path / "out", EVERY, relative(tmp_path))
    return tmp_path / "out"


def assert_matrix(found: Any, expected: Pose, atol: float = 1e-8) -> None:
    np.testing.assert_allclose(np.asarray(found, float)[:3, :4], expected.matrix().numpy()[:3], rtol=0, atol=atol)


def test_failures_and_directions_leave_no_line(tmp_path: Path) -> None:
    found = relative(tmp_path)
    assert [(Path(p.name).name, p.stamp) for p in found.photos] == [("a b.jpg", 0.0), ("c.jpg", 3.0)]
    nothing = posed_photos([outcome(tmp_path / "x.jpg", None)], found.reference)
    write_pose_files(tmp_path, EVERY, nothing)
    assert all((tmp_path / f"poses.{name}").read_text() == "" for name in ("tum.txt", "kitti.txt", "ros.jsonl"))


def test_tum(written: Path) -> None:
    rows = np.loadtxt(written / "poses.tum.txt")  # time tx ty tz qx qy qz qw, camera to world
    assert rows[:, 0].tolist() == [0, 3]
    np.testing.assert_allclose(rows[0, 1:4], CENTER, atol=1e-9)
    np.testing.assert_allclose(Rotation.from_quat(rows[0, 4:]).as_matrix(), TURNED.R.mT.numpy(), atol=1e-8)
    assert_matrix(parse_tum((written / "poses.tum.txt").read_text())[1][1].matrix(), TILTED)


def test_mapfree(written: Path) -> None:
    found = parse_submission((written / "poses.mapfree.txt").read_text())
    (pose, confidence), _ = found.values()
    assert confidence == 0.75 and [Path(name).name for name in found] == ["a_b.jpg", "c.jpg"]
    assert_matrix(pose.matrix(), TURNED, 1e-5)


def test_kitti_is_camera_to_world_row_by_row(written: Path) -> None:
    rows = np.loadtxt(written / "poses.kitti.txt").reshape(-1, 3, 4)
    np.testing.assert_allclose(rows[0, :, 3], CENTER, atol=1e-9)
    np.testing.assert_allclose(rows[0] @ [0, 0, 1, 1], CENTER + AHEAD, atol=1e-9)  # one metre ahead of the camera
    np.testing.assert_allclose(rows[1], TILTED.inverse().matrix()[:3].numpy(), atol=1e-9)
    names = (written / "poses.kitti.names.txt").read_text().splitlines()
    assert [Path(name).name for name in names] == ["a_b.jpg", "c.jpg"]


def test_colmap_reads_its_model(written: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(str(written / "poses.colmap"))
    images = {Path(image.name).name: image for image in model.images.values()}
    assert set(images) == {"ref.jpg", "a_b.jpg", "c.jpg"}
    assert_matrix(images["ref.jpg"].cam_from_world().matrix(), Pose.identity(dtype=torch.float64))
    assert_matrix(images["a_b.jpg"].cam_from_world().matrix(), TURNED)
    assert_matrix(images["c.jpg"].cam_from_world().matrix(), TILTED)
    np.testing.assert_allclose(images["a_b.jpg"].projection_center(), CENTER, atol=1e-9)
    theirs, ours = model.cameras[images["c.jpg"].camera_id], relative(Path()).photos[1].camera
    points = torch.tensor([[0.1, -0.2, 1.0], [-0.3, 0.25, 2.0]], dtype=torch.float64)
    pixels, _ = ours.project(points)
    np.testing.assert_allclose(theirs.img_from_cam(points.numpy()), pixels.numpy() + 0.5, atol=1e-9)
    assert model.cameras[images["a_b.jpg"].camera_id].model.name == "PINHOLE"


def test_colmap_has_two_photos_of_one_name(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    results = [outcome(Path("a b.jpg"), TURNED), outcome(Path("a_b.jpg"), TILTED)]
    write_pose_files(tmp_path, ["colmap"], posed_photos(results))
    model = pycolmap.Reconstruction(str(tmp_path / "poses.colmap"))
    assert sorted(image.name for image in model.images.values()) == ["a_b.jpg", "a_b.jpg.2"]


def test_nerfstudio(written: Path, tmp_path: Path) -> None:
    file = written / "poses.nerfstudio/transforms.json"
    frames = json.loads(file.read_text())["frames"]
    assert [(file.parent / f["file_path"]).resolve().name for f in frames] == ["ref.jpg", "a b.jpg", "c.jpg"]
    assert all((file.parent / f["file_path"]).resolve().parent == tmp_path.resolve() for f in frames)
    np.testing.assert_allclose(frames[0]["transform_matrix"], np.eye(4))
    turned = np.array(frames[1]["transform_matrix"])
    # y is up and z back, in the world as well: the camera stands right, below and ahead, and looks along its -z
    np.testing.assert_allclose(turned[:3, 3], CENTER * [1, -1, -1], atol=1e-9)
    np.testing.assert_allclose(turned[:3, :3] @ [0, 0, -1], [1, 0, 0], atol=1e-9)
    assert (frames[1]["cx"], frames[1]["cy"]) == (320.75, 240.0)  # from the corner of the first pixel
    read = read_nerfstudio(file)
    axes = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    for index, pose in ((1, TURNED), (2, TILTED)):
        assert_matrix((read.cam_from_world[index] @ Pose(axes, torch.zeros(3).double())).matrix(), pose)
    expected = relative(tmp_path).photos[1].camera
    assert torch.allclose(read.cameras[2].distortion, expected.distortion)
    assert torch.allclose(read.cameras[2].c, expected.c)


def test_ros_is_where_a_body_stands(written: Path) -> None:
    first, second = (json.loads(line) for line in (written / "poses.ros.jsonl").read_text().splitlines())
    assert second["header"] == {"stamp": {"sec": 3, "nanosec": 0}, "frame_id": "reference"}
    position, q = first["pose"]["position"], first["pose"]["orientation"]
    # forward, left, up of the reference: 5 ahead, 2 to the right, 1 below
    np.testing.assert_allclose([position[k] for k in "xyz"], [5, -2, -1], atol=1e-9)
    turned = Rotation.from_quat([q[k] for k in "xyzw"])
    np.testing.assert_allclose(turned.apply([1, 0, 0]), [0, -1, 0], atol=1e-9)  # ahead of it is right of the reference
    assert turned.as_rotvec(degrees=True) == pytest.approx([0, 0, -90])  # REP 103: to the right is negative about up
    assert first["unit"] == "metre" and Path(first["photo"]).name == "a b.jpg"


def test_opengl_view_matrix(written: Path) -> None:
    content = json.loads((written / "poses.opengl.json").read_text())
    view = np.array(content["views"][0]["view_matrix"])
    # a point one metre ahead of the camera is at z = -1 of the eye; in the world, y is up and z back
    ahead = np.append((CENTER + AHEAD) * [1, -1, -1], 1)
    np.testing.assert_allclose(view @ ahead, [0, 0, -1, 1], atol=1e-9)
    above = np.append((CENTER + ABOVE) * [1, -1, -1], 1)
    np.testing.assert_allclose(view @ above, [0, 1, 0, 1], atol=1e-9)
    assert content["unit"] == "metre" and content["world"] == "reference"


def test_a_map_keeps_its_axes_and_says_its_unit(tmp_path: Path) -> None:
    write_pose_files(tmp_path, EVERY, in_map(tmp_path))
    note = "# lengths: unit of the map"
    files = ("poses.tum.txt", "poses.mapfree.txt", "poses.kitti.names.txt", "poses.colmap/images.txt")
    assert all((tmp_path / file).read_text().startswith(note) for file in files)
    assert len(parse_tum((tmp_path / "poses.tum.txt").read_text())) == 1
    assert np.loadtxt(tmp_path / "poses.kitti.txt")[[3, 7, 11]] == pytest.approx(CENTER)
    (line,) = (tmp_path / "poses.ros.jsonl").read_text().splitlines()
    message = json.loads(line)
    assert message["unit"] == "unit of the map" and message["header"]["frame_id"] == "map"
    assert list(message["pose"]["position"].values()) == pytest.approx(CENTER)
    turned = Rotation.from_quat([message["pose"]["orientation"][k] for k in "xyzw"])
    np.testing.assert_allclose(turned.apply([1, 0, 0]), [1, 0, 0], atol=1e-9)  # it looks along the map's +x
    np.testing.assert_allclose(turned.apply([0, 0, 1]), [0, -1, 0], atol=1e-9)  # up is the map's -y
    opengl = json.loads((tmp_path / "poses.opengl.json").read_text())
    view = np.array(opengl["views"][0]["view_matrix"])
    np.testing.assert_allclose(view @ [*CENTER + AHEAD, 1], [0, 0, -1, 1], atol=1e-9)
    assert opengl["unit"] == "unit of the map"
    content = json.loads((tmp_path / "poses.nerfstudio/transforms.json").read_text())
    assert content["unit"] == "unit of the map"
    assert_matrix(read_nerfstudio(tmp_path / "poses.nerfstudio").cam_from_world[0].matrix(), TURNED)


def test_only_what_is_asked_for_stays(written: Path, tmp_path: Path) -> None:
    (written / "transforms.json").write_text("the user's own")
    write_pose_files(written, ["kitti", "colmap"], relative(tmp_path))
    left = {str(p.relative_to(written)) for p in written.rglob("*")}
    assert left == {*FORMATS["kitti"], *FORMATS["colmap"], "poses.colmap", "transforms.json"}
    (written / "poses.colmap/points.ply").write_text("the user's own")
    write_pose_files(written, [], relative(tmp_path))
    assert {str(p.relative_to(written)) for p in written.rglob("*")} == {
        "poses.colmap",
        "poses.colmap/points.ply",
        "transforms.json",
    }


def test_a_wrong_name_is_one_sentence_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pose format 'bundler': one of tum, mapfree, colmap, nerfstudio, kitti, "):
        write_pose_files(tmp_path, ["tum", "bundler"], relative(tmp_path))
    assert not list(tmp_path.iterdir())
    assert checked_formats(["ros", "tum", "ros"]) == ("ros", "tum")


def test_the_table_of_the_docs_is_this_one() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ((?:`poses\.[^`]+`(?:, )?)+) \|", DOCS.read_text(), re.MULTILINE)
    told = {name: set(re.findall(r"`([^`]+)`", files)) for name, files in rows}
    assert told == {name: set(files) for name, files in FORMATS.items()}


@pytest.mark.parametrize(
    "made",
    [
        camera(),
        camera([0.1, -0.02, 1e-3, 2e-3, 0.0], "radtan"),
        camera([0.1, -0.02, 1e-3, 2e-3, 0.01], "radtan"),
        camera([0.1, -0.02, 1e-3, 2e-3], "fisheye"),
    ],
)
def test_cameras_come_back(made: Camera) -> None:
    for again in (Camera.from_colmap(made.to_colmap()), camera_from_dict(json.loads(json.dumps(camera_as_dict(made))))):
        assert again.model == made.model
        for name in ("size", "f", "c", "distortion"):
            assert torch.allclose(getattr(again, name), getattr(made, name), atol=1e-12), name


@pytest.mark.parametrize("key", ["K", "size", "model", "distortion"])
def test_no_camera_is_one_sentence(key: str) -> None:
    entry = {**camera_as_dict(camera()), key: math.nan}
    with pytest.raises(InputError, match="camera"):
        camera_from_dict(entry)
    saved = dict(outcome(Path("a.jpg"), TURNED).entry)
    assert Outcome[None].saved("a.jpg", saved) is not None
    assert Outcome[None].saved("a.jpg", {**saved, "camera": entry}) is None


def test_a_saved_unit_is_one_of_ours() -> None:
    saved = dict(outcome(Path("a.jpg"), TURNED).entry)
    told = {**saved["query_from_reference"], "translation_unit": "metre\n1 0 0 0"}
    assert Outcome[None].saved("a.jpg", {**saved, "query_from_reference": told}) is None


def test_no_pose_is_refused() -> None:
    nan = Pose(torch.full((3, 3), torch.nan), torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        kitti_line(nan)
    with pytest.raises(ValueError, match="not finite"):
        ros_pose_stamped(nan, stamp=0.0, frame_id="map")
    stamp = ros_pose_stamped(TURNED, stamp=2.9999999999, frame_id="map")["header"]["stamp"]
    assert stamp == {"sec": 3, "nanosec": 0}
