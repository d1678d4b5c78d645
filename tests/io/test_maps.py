"""Maps: both layouts of COLMAP models, half pixels, the questions an SfmMap answers, and files that are not whole."""

from __future__ import annotations

import copy
import dataclasses
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError
from metriloc.io.colmap_files import check_binary_model
from metriloc.io.map_folders import is_photo_in
from metriloc.io.maps import load_map_view, map_from_reconstruction, map_from_view, read_map
from metriloc.types import SfmMap, View

Shared = Callable[[str], Path]


@pytest.fixture(scope="module")
def model() -> pycolmap.Reconstruction:
    """Ten images of 60 points, by pycolmap's own generator."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=5, num_points3D=60)
    return pycolmap.synthesize_dataset(options)


@pytest.fixture()
def folder(model: pycolmap.Reconstruction, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    model.write(str(path))
    return path


def test_observations_reproject_with_our_pixel_centers(model: pycolmap.Reconstruction) -> None:
    scene = map_from_reconstruction(model)
    assert len(scene) == 10 and len(scene.xyz) == 60
    for i in range(len(scene)):
        seen = scene.observations_of(i)
        inside = scene.cam_from_world[i].transform(scene.xyz[scene.point_index[seen]])
        uv, valid = scene.cameras[i].project(inside)
        assert bool(valid.all())
        torch.testing.assert_close(uv, scene.uv[seen], atol=1e-6, rtol=0)


def test_five_file_and_three_file_and_text_models_agree(
    folder: Path, model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    scene = read_map(folder)
    text = tmp_path / "text"
    text.mkdir()
    model.write_text(str(text))
    for other in (read_map(text), map_from_reconstruction(model)):
        assert other.names == scene.names
        torch.testing.assert_close(other.cam_from_world.matrix(), scene.cam_from_world.matrix())
        assert torch.equal(other.point_index, scene.point_index)


def test_old_golden_models(shared: Shared) -> None:
    for kind in ("bin", "txt"):
        scene = read_map(shared(f"golden/bench/visloc/model_{kind}"))
        assert len(scene) == 40 and scene.names[0] == "seq1/frame00000.png"


def test_what_is_no_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="absent' does not exist: give the folder of a COLMAP model"):
        read_map(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no COLMAP model"):
        read_map(tmp_path / "empty")
    (folder / "points3D.bin").unlink()
    with pytest.raises(InputError, match=r"holds no points3D\.bin"):
        read_map(folder)


def test_the_folder_of_images_must_be_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder of images"):
        read_map(folder, tmp_path / "nowhere")
    assert read_map(folder).folder is None


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_files_that_are_not_whole_are_named(folder: Path, name: str) -> None:
    check_binary_model(folder)
    path = folder / f"{name}.bin"
    whole = path.read_bytes()
    for cut in sorted({1, 7, len(whole) // 3, len(whole) // 2, len(whole) - 1}):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=rf"{name}\.bin' is damaged"):
            read_map(folder)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="1 bytes follow"):
        read_map(folder)
    path.write_bytes((2**63).to_bytes(8, "little") + whole[8:])
    with pytest.raises(InputError, match="claims"):
        read_map(folder)


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_mutated_models_are_read_or_refused(shared: Shared, tmp_path: Path, kind: str) -> None:
    source = shared(f"golden/bench/visloc/model_{kind}")
    for seed in range(60):
        chance = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for path in source.glob(f"*.{kind}"):
            shutil.copyfile(path, folder / path.name)
        victim = folder / f"{chance.choice(['cameras', 'images', 'points3D'])}.{kind}"
        data = bytearray(victim.read_bytes())
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 2)] = bytes(
                chance.choice(b"0123 \n-x\xff\x00") for _ in range(chance.randint(0, 3))
            )
        victim.write_bytes(data)
        try:
            scene = read_map(folder)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert np.isfinite(scene.xyz.numpy()).all()


def small_map() -> SfmMap:
    camera = Camera.from_fov((10, 10), 1.0)
    pose = Pose.identity((3,), dtype=torch.float64)
    image = torch.tensor([0, 0, 0, 1, 1, 2])
    point = torch.tensor([0, 1, 2, 1, 2, 2])
    xyz = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    return SfmMap(("a", "b", "c"), (camera,) * 3, pose, xyz, image, point, torch.arange(12.0).reshape(6, 2))


def test_questions_a_map_answers() -> None:
    scene = small_map()
    assert scene.index("b") == 1 and len(scene) == 3
    assert scene.observations_of(1) == slice(3, 5)
    assert scene.track_lengths().tolist() == [1, 2, 3, 0]
    assert scene.points_seen_by([1, 2]).tolist() == [1, 2]
    assert scene.points_seen_by([0], min_track=2).tolist() == [1, 2]
    assert scene.covisible(0) == [(1, 2), (2, 1)] and scene.covisible(0, 2) == [(1, 2)]
    rest = scene.without([1])
    assert (
        rest.names == ("a", "c")
        and rest.image_index.tolist() == [0, 0, 0, 1]
        and rest.point_index.tolist() == [0, 1, 2, 2]
    )
    assert rest.uv.shape == (4, 2) and len(rest.xyz) == 4
    with pytest.raises(ValueError, match="no image 'z'"):
        scene.index("z")


def test_maps_that_contradict_themselves_are_refused() -> None:
    whole = vars(small_map())
    for change, says in (
        ({"names": ("a", "b")}, "2 names"),
        ({"names": ("a", "a", "b")}, "same name"),
        ({"image_index": torch.tensor([0, 0, 0, 1, 1, 3])}, "image 3 of 3"),
        ({"point_index": torch.tensor([0, 1, 2, 1, 2, 9])}, "point 9 of 4"),
        ({"image_index": torch.tensor([2, 0, 0, 1, 1, 0])}, "sorted"),
        ({"uv": torch.zeros(5, 2)}, "6 image indices"),
    ):
        with pytest.raises(ValueError, match=says):
            SfmMap(**{**whole, **change})


# -- cameras ----------------------------------------------------------------------------------------------------------
CAMERAS: dict[str, list[float]] = {
    "SIMPLE_FISHEYE": [400, 320, 240],
    "FISHEYE": [400, 410, 322, 238],
    "SIMPLE_RADIAL_FISHEYE": [400, 320, 240, 0.05],
    "RADIAL_FISHEYE": [400, 320, 240, 0.05, -0.01],
    "OPENCV_FISHEYE": [400, 410, 322, 238, 0.05, -0.01, 0.002, 0.001],
    "FULL_OPENCV": [400, 410, 322, 238, 0.05, -0.02, 0.001, -0.001, 0.01, 0.02, 0.01, 0.001],
    "FOV": [400, 410, 322, 238, 0.9],
    "THIN_PRISM_FISHEYE": [400, 410, 322, 238, 0.05, -0.01, 0.001, 0.001, 0.002, 0.001, 0.001, 0.002],
    "RAD_TAN_THIN_PRISM_FISHEYE": [
        400,
        410,
        322,
        238,
        0.05,
        -0.01,
        0.002,
        0.001,
        0,
        0,
        0.001,
        0.001,
        0.001,
        0,
        0.001,
        0,
    ],
    "SIMPLE_DIVISION": [400, 322, 238, -0.1],
    "DIVISION": [400, 410, 322, 238, -0.1],
    "EUCM": [400, 410, 322, 238, 0.6, 1.1],
}


def one_image(kind: str, params: list[float]) -> tuple[pycolmap.Reconstruction, np.ndarray]:
    """A map of one image with 40 points, and the points in its camera's frame."""
    rng = np.random.default_rng(3)
    xyz = rng.uniform([-1.2, -0.8, 2], [1.2, 0.8, 5], (40, 3))
    camera = pycolmap.Camera(model=kind, width=640, height=480, params=params, camera_id=1)
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    uv = camera.img_from_cam(xyz)
    image = pycolmap.Image("a b.png", pycolmap.Point2DList([pycolmap.Point2D(p) for p in uv]), 1, 1)
    model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    for n, point in enumerate(xyz):
        model.add_point3D(point, pycolmap.Track([pycolmap.TrackElement(1, n)]))
    return model, xyz


@pytest.mark.parametrize("kind", CAMERAS)
def test_every_camera_of_colmap_reprojects(kind: str) -> None:
    """Analytic or as an undistorted copy: the observations lie where the camera of the map projects their points."""
    model, xyz = one_image(kind, CAMERAS[kind])
    scene = map_from_reconstruction(model)
    assert len(scene.uv) > 30
    uv, valid = scene.cameras[0].project(torch.from_numpy(xyz)[scene.point_index])
    assert bool(valid.all())
    torch.testing.assert_close(uv, scene.uv, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["FULL_OPENCV", "FOV", "EUCM", "THIN_PRISM_FISHEYE"])
@pytest.mark.parametrize("half", [False, True])
def test_photos_become_undistorted_copies(kind: str, half: bool, tmp_path: Path) -> None:
    """A blob painted at each observation of the photo lies where the copy's camera projects the point."""
    model, xyz = one_image(kind, CAMERAS[kind])
    scale = 0.5 if half else 1.0
    size = (320, 240) if half else (640, 480)
    v, u = np.mgrid[: size[1], : size[0]]
    for point in range(3):
        x, y = model.images[1].points2D[point].xy * scale - 0.5
        blob = 255 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 4.0**2))
        Image.fromarray(np.repeat(blob[..., None], 3, 2).round().astype(np.uint8)).save(tmp_path / "a b.png")
        scene = map_from_reconstruction(model, images=tmp_path)
        view = load_map_view(scene, 0)
        expected, _ = view.camera.project(torch.from_numpy(xyz[point][None]))
        weight = view.image[0].double() ** 2
        rows, columns = (torch.arange(n, dtype=torch.float64) for n in weight.shape)
        found = torch.stack([(weight.sum(0) * columns).sum(), (weight.sum(1) * rows).sum()]) / weight.sum()
        torch.testing.assert_close(found, expected[0], atol=0.15, rtol=0)
        assert view.size == (round(float(view.camera.size[0])), round(float(view.camera.size[1])))
        # what is left out of a map stays left out, and copies stay copies
        assert scene.without([]).originals == scene.originals


def test_a_panorama_costs_its_photo_only(model: pycolmap.Reconstruction) -> None:
    other = copy.deepcopy(model)
    other.cameras[2] = pycolmap.Camera(model="EQUIRECTANGULAR", width=640, height=320, params=[640, 320], camera_id=2)
    lost = sorted(image.name for image in other.images.values() if image.camera_id == 2)
    with pytest.warns(UserWarning, match=f"EQUIRECTANGULAR have no pinhole copy.*{re.escape(lost[0])}"):
        scene = map_from_reconstruction(other)
    assert len(scene) == 5 and not set(lost) & set(scene.names)


# -- numbers that cannot be -------------------------------------------------------------------------------------------
def text_model(folder: Path, **lines: str) -> Path:
    """A small text model with one file replaced."""
    content = {
        "cameras": "# cameras\n1 PINHOLE 640 480 500 500 320 240\n",
        "images": "# images\n1 1 0 0 0 0 0 0 1 a.png\n10 20 1 30 40 -1\n",
        "points3D": "# points\n1 0 0 4 9 9 9 0.5 1 0\n",
    } | lines
    folder.mkdir(exist_ok=True)
    for name, text in content.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ({"images": "1 0.9 0.1 0.2 0.3 0 0 0 1 a.png\n\n"}, r"images\.txt:1: the quaternion .* has length 0\.97"),
        ({"images": "1 0 0 0 0 0 0 0 1 a.png\n\n"}, r"images\.txt:1: .*length 0"),
        ({"images": "1 1 0 0 0 nan 0 0 1 a.png\n\n"}, r"images\.txt:1: a pose that is not"),
        ({"images": "1 1 0 0 0 0 0 0 1 a.png\ninf 20 1\n"}, r"images\.txt:2: an observation"),
        ({"cameras": "1 PINHOLE 640 480 -500 500 320 240\n"}, r"cameras\.txt:1: the focal length"),
        ({"cameras": "\n1 PINHOLE 640 480 nan 500 320 240\n"}, r"cameras\.txt:2: .*not finite"),
        ({"cameras": "1 PINHOLE 0 480 500 500 320 240\n"}, r"cameras\.txt:1: a camera of 0x480"),
        ({"cameras": "1 PINHOLE 640 480 500 320 240\n"}, r"cameras\.txt:1: .*takes 4 parameters, got 3"),
        ({"cameras": "1 LENSLESS 640 480 500 320 240\n"}, r"cameras\.txt:1: camera model 'LENSLESS'"),
        ({"points3D": "1 0 inf 4 9 9 9 0.5 1 0\n"}, r"points3D\.txt:1: a point that is not finite"),
        (
            {"images": "1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 0 0 0 1 a.png\n\n"},
            r"images\.txt:3: two images are called 'a\.png'",
        ),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_their_line(lines: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read_map(text_model(tmp_path / "model", **lines))


def test_binary_numbers_that_cannot_be(folder: Path) -> None:
    path = folder / "frames.bin"
    data = bytearray(path.read_bytes())
    data[8 + 8 : 8 + 8 + 8] = np.float64(0.3).tobytes()  # the first quaternion's w
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"frames\.bin', entry 1 of 5: the quaternion"):
        read_map(folder)


def test_the_case_of_quaternions_that_are_no_rotations(shared: Shared) -> None:
    with pytest.raises(InputError, match=r"images\.txt:\d+: the quaternion"):
        read_map(shared("cases/attack/colmap_unnormalised"))


def test_names_keep_their_blanks(tmp_path: Path) -> None:
    scene = read_map(text_model(tmp_path / "m", images="1 1 0 0 0 0 0 0 1 my photos/a b.png\n10 20 1\n"))
    assert scene.names == ("my photos/a b.png",)


# -- where things lie -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", ["sparse/0", "sparse", "."])
def test_the_usual_places_are_found(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    text_model(tmp_path / place)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (640, 480)).save(tmp_path / "images" / "a.png")
    scene = read_map(tmp_path)
    assert scene.folder is not None and scene.folder.resolve() == (tmp_path / "images").resolve()
    assert load_map_view(scene, 0).size == (640, 480)


def test_a_wrong_folder_of_images_is_one_sentence(tmp_path: Path) -> None:
    text_model(tmp_path / "model")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match=r"other' holds none of the map's photos 'a\.png'"):
        read_map(tmp_path / "model", tmp_path / "other")


def test_several_models_are_a_question(tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    for number in "01":
        text_model(tmp_path / "sparse" / number)
    with pytest.raises(InputError, match=r"holds 2 COLMAP models \(0, 1\)"):
        read_map(tmp_path)


def test_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    scene = read_map(text_model(tmp_path / "m", images="1 1 0 0 0 0 0 0 1 ../../secret.png\n\n", points3D=""))
    with pytest.raises(InputError, match=r"secret\.png' is not in"):
        load_map_view(dataclasses.replace(scene, folder=tmp_path), 0)


def test_a_name_that_no_file_can_have_is_not_at_hand(tmp_path: Path) -> None:
    long = f"{'9' * 5000}.png"
    two = f"1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 0 0 1 1 {long}\n\n"
    text_model(tmp_path / "sparse", images=two, points3D="")
    Image.new("RGB", (640, 480)).save(tmp_path / "a.png")
    scene = read_map(tmp_path / "sparse", tmp_path)
    assert [is_photo_in(tmp_path, name) for name in scene.names] == [name == "a.png" for name in scene.names]
    with pytest.raises(InputError, match=r"cannot be read|does not exist|too long"):
        load_map_view(scene, scene.names.index(long))


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "m", points3D="")
    model = pycolmap.Reconstruction()
    model.read_text(str(folder))
    (tmp_path / "binary").mkdir()
    model.write_binary(str(tmp_path / "binary"))
    file = tmp_path / "binary/images.bin"
    file.write_bytes(file.read_bytes().replace(b"a.png", b"\xff\xfe.pn"))
    with pytest.raises(InputError, match="the name of image 1 is not UTF-8"):
        read_map(tmp_path / "binary")


def test_a_map_of_one_photo_with_depth() -> None:
    depth = torch.full((24, 32), 2.0)
    depth[:, 16:] = 0  # unknown in the right half
    camera = Camera.from_K(torch.tensor([[100.0, 0, 31.5], [0, 100, 23.5], [0, 0, 1]]), (64, 48))
    world = Pose(so3_exp(torch.tensor([0.1, -0.3, 0.2], dtype=torch.float64)), torch.tensor([1.0, 2, 3]).double())
    view = View(torch.zeros(3, 48, 64), camera, world, name="folder/photo.jpg", depth=depth)
    scene = map_from_view(view, spacing=8)
    assert scene.names == ("photo.jpg",) and scene.folder == Path("folder")
    assert len(scene.xyz) == len(scene.uv) == 4 * 6  # half of 8 x 6
    in_camera = scene.cam_from_world[0].transform(scene.xyz)
    torch.testing.assert_close(in_camera[:, 2], torch.full((24,), 2.0).double())
    uv, seen = scene.cameras[0].project(in_camera)
    assert bool(seen.all())
    torch.testing.assert_close(uv, scene.uv)
    assert view.cam_from_world is world


def test_no_map_of_a_photo_without_depth() -> None:
    camera = Camera.from_K(torch.eye(3), (8, 6))
    with pytest.raises(InputError, match="depth=FILE"):
        map_from_view(View(torch.zeros(3, 6, 8), camera, name="a.jpg"))
    with pytest.raises(InputError, match=r"'a\.jpg' is known at none"):
        map_from_view(View(torch.zeros(3, 6, 8), camera, name="a.jpg", depth=torch.zeros(6, 8)))
    with pytest.raises(ValueError, match="at least 1 pixel"):
        map_from_view(View(torch.zeros(3, 6, 8), camera, name="a.jpg", depth=torch.ones(6, 8)), spacing=0)
