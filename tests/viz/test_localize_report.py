"""Pictures of localisation: marks where points fall, maps on the photo's pixels, plots, the page, the viewer's folder."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.geometry import Camera, Pose
from metriloc.io.maps import read_map
from metriloc.methods.nre.maps import GainMaps, from_log_probability, gain_maps, map_camera, window_gain_maps
from metriloc.methods.nre.progress import Progress, course_of
from metriloc.methods.nre.refine import RefineConfig, refine
from metriloc.types import (
    Course,
    DenseFeatures,
    LocalizationDetails,
    PointMaps,
    PoseEstimate,
    SfmMap,
    Stage,
    Trace,
    View,
)
from metriloc.viz import SoftwareFacts
from metriloc.viz.alignment import alignment_gif, shown_steps, viewer_dump
from metriloc.viz.curves import course_picture, histogram_picture
from metriloc.viz.features import confidence_picture, feature_picture, principal_colors
from metriloc.viz.localize_report import PICTURES, localization_pictures, localization_report
from metriloc.viz.localized import LocalizedQuery, pose_errors, shown_points
from metriloc.viz.loss_maps import chosen_points, evidence_picture, on_photo, point_pictures, summed_gain
from metriloc.viz.map_scene import map_scene
from metriloc.viz.marks import Drawing, legend, marked_photo, marks_of

SIZE, STRIDE = (160, 120), 8
CAMERA = Camera.from_fov(torch.tensor(SIZE, dtype=torch.float64), 1.1)
IDENTITY = Pose.identity((), dtype=torch.float64)
NOWHERE = Pose(torch.full((3, 3), torch.nan).double(), torch.full((3,), torch.nan).double())


def blank_view(name: str = "photo.jpg", pose: Pose | None = None) -> View:
    return View(torch.full((3, SIZE[1], SIZE[0]), 0.5), CAMERA, pose, name)


def kept(name: str, maps: GainMaps, index: torch.Tensor, xyz: torch.Tensor, camera: Camera) -> PointMaps:
    """As NRE keeps them for the identity pose."""
    progress = Progress(traced=True)
    progress.keep_maps(name, maps, index, xyz, camera, IDENTITY)
    return progress.maps[0]


def looked_up(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> list[GainMaps]:
    """The maps that NRE optimises on, of what is kept of them."""
    found = []
    for stage in world[:2]:
        flat = stage.values.flatten(1)
        peak, at = flat.max(1)
        columns = stage.values.shape[2]
        uv = torch.stack([at % columns, at // columns], -1) + stage.origin
        ones = torch.ones(len(stage))
        found.append(GainMaps(stage.values, stage.origin, stage.size, uv, peak, ones, ones))
    return found


@pytest.fixture()
def world(generator: torch.Generator) -> tuple[PointMaps, PointMaps, torch.Tensor]:
    """Coarse and fine maps of 30 points that peak where the identity pose puts the points."""
    depth = 2 + 3 * torch.rand(30, generator=generator, dtype=torch.float64)
    uv = 12 + torch.rand(30, 2, generator=generator, dtype=torch.float64) * torch.tensor([136.0, 96.0])
    xyz = CAMERA.unproject(uv)[0] * depth[:, None]
    stages = []
    for stride, window in ((STRIDE, None), (2, 16)):
        size = (SIZE[0] // stride, SIZE[1] // stride)
        camera = map_camera(CAMERA, size, stride, ((stride - 1) / 2,) * 2)
        features = torch.nn.functional.normalize(torch.randn(32, size[1], size[0], generator=generator), dim=0)
        cells = camera.project(xyz)[0]
        at = cells.round().long()
        h = features[:, at[:, 1], at[:, 0]].T
        maps = gain_maps(h, features, 0.05) if window is None else window_gain_maps(h, features, cells, window, 0.05)
        stages.append(kept("coarse" if window is None else "fine", maps, torch.arange(30), xyz, camera))
    return stages[0], stages[1], xyz


def entry_of(
    world: tuple[PointMaps, PointMaps, torch.Tensor], success: bool = True, truth: Pose = IDENTITY
) -> LocalizedQuery:
    coarse, fine, xyz = world
    moved = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.05, 0.0, 0.0], dtype=torch.float64))
    stages = (Stage("p3p", moved, 3.0, 0.2), Stage("coarse", moved, -3.0, 0.3), Stage("fine", IDENTITY, -9.0, 0.6))
    details = LocalizationDetails(("a.jpg",), 30, stages, {"read": 0.1}, ("it <b>rained</b>",), {"support": 0.6})
    one, zero = torch.tensor(True), torch.tensor(0.8)
    estimate = PoseEstimate(IDENTITY, one, zero, (None,), localization=(details,))
    if not success:
        estimate = PoseEstimate.failure("flat_maps", details)
    index = torch.arange(30)
    uv = CAMERA.project(xyz)[0]
    single = Pose.identity((1,), dtype=torch.float64)
    scene = SfmMap(("a.jpg",), (CAMERA,), single, xyz, torch.zeros_like(index), index, uv)
    estimate = dataclasses.replace(estimate, trace=Trace(stages, maps=(coarse, fine)))
    return LocalizedQuery(blank_view("<query>.jpg"), estimate, scene, truth=truth)


# -- marks ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", ["square", "cross", "diamond", "plus", "ring", "dot"])
def test_a_mark_is_centered_on_its_place(shape: str) -> None:
    with Drawing(np.zeros((41, 61, 3), np.uint8)) as drawing:
        drawing.mark(np.array([30.0, 20.0]), shape, (255, 0, 0), 6.0)  # type: ignore[arg-type]
    y, x = np.nonzero(drawing.picture[..., 0] > 80)
    assert len(x) > 8
    assert abs((x.min() + x.max()) / 2 - 30) <= 0.5 and abs((y.min() + y.max()) / 2 - 20) <= 0.5
    with Drawing(np.zeros((41, 61, 3), np.uint8)) as drawing:
        drawing.mark(np.array([np.nan, 20.0]), shape, (255, 0, 0), 6.0)  # type: ignore[arg-type]
        drawing.mark(np.array([1e9, 20.0]), shape, (255, 0, 0), 6.0)  # type: ignore[arg-type]
    assert drawing.picture.max() == 0


def test_marks_of_stages(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    nan = Pose(torch.full((3, 3), torch.nan), torch.full((3,), torch.nan))
    stages = [Stage("p3p", IDENTITY, 1.0), Stage("coarse", IDENTITY, 1.0), Stage("p3p", IDENTITY, 2.0)]
    assert [m.label for m in marks_of([*stages, Stage("lost", nan, 0.0)], IDENTITY)] == ["truth", "p3p", "coarse"]
    assert marks_of([], None) == []
    marks = marks_of(entry_of(world).details.stages, IDENTITY)
    assert [(m.label, m.shape) for m in marks] == [
        *(("truth", "ring"), ("p3p", "cross"), ("coarse", "diamond"), ("fine", "plus"))
    ]
    assert len({m.color for m in marks}) == 4
    assert legend(marks, 100).shape[0] > legend(marks, 1000).shape[0] / 2  # rows are added, nothing is cut off


def test_points_are_drawn_where_the_camera_sees_them() -> None:
    """Also when the picture is smaller than the photo; pixel centres are at integers in both."""
    view = View(torch.zeros(3, 480, 640), CAMERA.scale(4.0))
    marks = marks_of([Stage("init", IDENTITY, 0.0)])
    uv = torch.tensor([[319.5, 239.5]], dtype=torch.float64)
    picture = marked_photo(view, marks, view.camera.unproject(uv)[0], side=320)
    y, x = np.nonzero(picture[:240].max(-1) > 100)
    assert abs((x.min() + x.max()) / 2 - 159.5) <= 0.5 and abs((y.min() + y.max()) / 2 - 119.5) <= 0.5


# -- loss maps --------------------------------------------------------------------------------------------------------
def test_summed_gain_against_loops(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    for stage in world[:2]:
        w, h = stage.size
        want = torch.zeros(h, w)
        for n in range(len(stage)):
            x, y = stage.origin[n].tolist()
            block = stage.values[n]
            want[y : y + block.shape[0], x : x + block.shape[1]] += block
        torch.testing.assert_close(summed_gain(stage), want)
    assert summed_gain(stage, slice(0)).sum() == 0


def test_cells_lie_on_the_pixels_they_are_of() -> None:
    """A cell of stride 8 covers its 8 x 8 pixels, whatever the size of the picture."""
    size = (SIZE[0] // STRIDE, SIZE[1] // STRIDE)
    cells = torch.zeros(1, size[1], size[0])
    cells[0, 4, 7] = 1
    camera = map_camera(CAMERA, size, STRIDE, ((STRIDE - 1) / 2,) * 2)
    for factor in (1, 2):
        shown = on_photo(cells, camera, CAMERA, (SIZE[1] * factor, SIZE[0] * factor))[0]
        y, x = np.nonzero(shown)
        assert (x.min(), x.max() + 1) == (56 * factor, 64 * factor)
        assert (y.min(), y.max() + 1) == (32 * factor, 40 * factor)


def test_pictures_of_maps(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    coarse, fine, _ = world
    entry = entry_of(world)
    assert evidence_picture(entry.query, coarse).shape == (SIZE[1], SIZE[0], 3)
    marks = marks_of(entry.details.stages, IDENTITY)
    both = point_pictures(entry.query, coarse, fine, marks, 5)
    alone = point_pictures(entry.query, coarse, None, marks, 5)
    assert both.dtype == alone.dtype == np.uint8 and both.std() > 5 and alone.std() > 5
    none = {name: getattr(coarse, name)[:0] for name in ("values", "origin", "index", "xyz", "gain")}
    nothing = dataclasses.replace(coarse, **none)
    assert point_pictures(entry.query, nothing, None, marks).shape[0] > 0
    assert evidence_picture(entry.query, nothing).std() >= 0


def test_points_go_from_the_best_to_the_worst() -> None:
    camera = map_camera(CAMERA, (20, 15), STRIDE, (3.5, 3.5))
    xyz = torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64).expand(7, 3)
    x, y = camera.project(xyz)[0][0].round().long().tolist()
    log_c = torch.full((7, 15, 20), -9.0)
    for n, value in enumerate([-3.0, -1.0, -5.0, -0.5, -2.0, -4.0, -0.1]):
        log_c[n, y - 1 : y + 2, x - 1 : x + 2] = value
    stage = kept("coarse", from_log_probability(log_c), torch.arange(7) + 100, xyz, camera)
    assert chosen_points(stage, None, 7).tolist() == [6, 3, 1, 4, 0, 5, 2]
    assert chosen_points(stage, None, 3).tolist() == [6, 4, 2]
    assert chosen_points(stage, None, 99).tolist() == [6, 3, 1, 4, 0, 5, 2]


# -- convergence ------------------------------------------------------------------------------------------------------
def test_gnc_goes_down_within_a_sigma(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    start = entry_of(world).details.stages[0].cam_from_world
    away = Pose.stack([Pose(start.R, start.t + 0.1), start, Pose(start.R, start.t - 0.1)])
    progress = Progress(traced=True)
    for name, starts, config, stage, maps in zip(
        ("coarse", "coarse", "fine"),
        (away, start, start),
        (RefineConfig(), RefineConfig(), RefineConfig((1.0, 0.6))),
        (world[0], world[0], world[1]),
        (looked_up(world)[0], *looked_up(world)),
        strict=True,
    ):
        refined = refine(maps, stage.xyz, stage.camera, starts, config)
        progress.keep_course(name, maps, refined)
        # the last value is the cost of the pose that won
        usable = int(maps.informative().sum()) * maps.max_gain
        assert progress.courses[-1].values[-1] == pytest.approx(1 + refined.cost / usable)
    courses = progress.courses
    assert [c.stage for c in courses] == ["coarse", "coarse, again", "fine"]
    assert list(dict.fromkeys(courses[0].phases)) == ["sigma 2", "sigma 1", "sigma 0.8", "sigma 0.6"]
    assert list(dict.fromkeys(courses[2].phases)) == ["sigma 1", "sigma 0.6"]
    for course in courses:
        assert len(course.values) == len(course.phases) > 2
        for phase in set(course.phases):
            values = [v for v, p in zip(course.values, course.phases, strict=True) if p == phase]
            assert values == sorted(values, reverse=True) and 0 <= values[-1] <= values[0] <= 1
    lost = refine(maps, stage.xyz, stage.camera, NOWHERE)
    assert course_of("fine", maps, lost).values == ()


def test_plots() -> None:
    steps = Course("scale 4", (3.0, 2.0, 2.5), ("level 2", "level 2", "level 1"))
    one, four = course_picture([steps]), course_picture([steps] * 4)
    assert one.ndim == 3 and one.dtype == np.uint8 and four.shape[1] > 2 * one.shape[1] and four.shape[0] > one.shape[0]
    assert course_picture([Course("nothing", (), ())]).size > 0
    spread = histogram_picture({"start": [1.0, 2.0, 80.0], "end": [0.1, float("nan")]}, "pixels", 50)
    assert spread.ndim == 3 and spread.dtype == np.uint8
    assert not np.array_equal(spread, histogram_picture({"start": [1.0, 2.0, 3.0], "end": [0.1, 0.2]}, "pixels", 50))


# -- the page ---------------------------------------------------------------------------------------------------------
FACTS = SoftwareFacts("1.0", "nre-test", "<weights>", 3, "2026-01-01")


@pytest.mark.parametrize("success", [True, False])
def test_report(world: tuple[PointMaps, PointMaps, torch.Tensor], success: bool) -> None:
    entry = entry_of(world, success)
    pictures = localization_pictures(entry)
    assert set(pictures) == {"points", "evidence", "maps"} < set(PICTURES)
    page = localization_report(entry, "place & map", FACTS, tuple(pictures.values()))
    assert "&lt;query&gt;.jpg" in page and "<query>" not in page
    assert "place &amp; map" in page and "it &lt;b&gt;rained" in page and "&lt;weights&gt;" in page
    assert page.count("data:image/jpeg") == 3 + 1 + 24  # the photo to choose points in, and the maps of each
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "default-src 'none'" in page
    assert ("No pose found: nothing in the photo" in page) is not success
    for name in ("p3p", "coarse", "fine"):
        assert f'<td class="name">{name}</td>' in page
    assert "nan" not in re.sub(r"data:[^\"]*", "", page).lower().replace("finance", "")


def test_report_of_a_batch_is_refused(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    entry = entry_of(world)
    many = PoseEstimate.stack([entry.estimate, entry.estimate])
    with pytest.raises(ValueError, match=r"batch shape \(2,\)"):
        localization_report(LocalizedQuery(entry.query, many, entry.scene), "map", FACTS)


def test_points_without_maps_are_those_the_references_see(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    full = entry_of(world)
    entry = LocalizedQuery(full.query, dataclasses.replace(full.estimate, trace=None), full.scene)
    assert len(shown_points(entry)) == 30 and len(shown_points(entry, 7)) == 7
    failed = LocalizedQuery(full.query, PoseEstimate.failure("no_reference"), full.scene)
    assert len(shown_points(failed)) == 0 and localization_pictures(failed) == {}
    assert "no photo of the map" in localization_report(failed, "map", FACTS)


def test_scene_in_3d(world: tuple[PointMaps, PointMaps, torch.Tensor], tmp_path: Path) -> None:
    entry = entry_of(world)
    assert map_scene(entry) is None  # the photos of the map are not at hand
    Image.new("RGB", SIZE, (10, 200, 30)).save(tmp_path / "a.jpg", quality=100)
    s = entry.scene
    shift = Pose(torch.eye(3, dtype=torch.float64)[None], torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64))
    scene = SfmMap(s.names, s.cameras, shift, s.xyz, s.image_index, s.point_index, s.uv, tmp_path)
    found = map_scene(LocalizedQuery(entry.query, entry.estimate, scene, truth=IDENTITY))
    assert found is not None
    assert [f.role for f in found.frusta] == ["reference", "query", "truth"]
    assert found.baseline == pytest.approx(1.0)
    np.testing.assert_allclose(found.frusta[1].center, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(found.points, (s.xyz + torch.tensor([0.0, 0.0, 1.0])).numpy(), atol=1e-12)
    assert np.abs(found.colors.astype(int) - [10, 200, 30]).max() < 6
    json.dumps(found.to_json([None] * 3), allow_nan=False)
    # the way of an alignment is a dotted line of equal steps from its start to its end
    course = Course("scale 1", (3.0, 2.0), ("level 0",) * 2, poses=tuple(moving(2)))
    trace = Trace(courses=(course,))
    way = map_scene(LocalizedQuery(entry.query, dataclasses.replace(entry.estimate, trace=trace), scene))
    assert way is not None and (way.points[:30] == found.points).all()
    centers = way.points[30:] - [0, 0, 1]
    np.testing.assert_allclose(centers[0], [-0.05, 0, 0], atol=1e-12)
    np.testing.assert_allclose(centers[-1], [-0.02, 0, 0], atol=1e-12)
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert steps.max() < 1.01 * steps[0] > 0
    json.dumps(way.to_json([None] * 2), allow_nan=False)
    # an alignment that failed is shown to where it came; a failure without steps has nothing to show
    failed = PoseEstimate.failure("diverged", entry.details)
    lost = map_scene(LocalizedQuery(entry.query, dataclasses.replace(failed, trace=trace), scene))
    assert lost is not None and (lost.points == way.points).all()
    assert [f.label for f in lost.frusta][1] == "last step, no pose"
    np.testing.assert_allclose(lost.frusta[1].center, centers[-1] + [0, 0, 1], atol=1e-12)
    assert map_scene(LocalizedQuery(entry.query, failed, scene)) is None


def test_pose_errors() -> None:
    turn = Pose.from_quaternion(torch.tensor([0.9990482, 0.0, 0.0436194, 0.0]).double(), torch.zeros(3).double())
    moved = Pose(turn.R, -(turn.R @ torch.tensor([3.0, 0.0, 4.0]).double()))
    degrees, apart = pose_errors(moved, IDENTITY)
    assert degrees == pytest.approx(5.0, abs=1e-3) and apart == pytest.approx(5.0)


# -- alignment --------------------------------------------------------------------------------------------------------
def moving(count: int) -> list[Pose]:
    eye = torch.eye(3, dtype=torch.float64)
    return [Pose(eye, torch.tensor([0.02 * n, 0.0, 0.0], dtype=torch.float64)) for n in range(count)]


def test_steps_worth_a_frame(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    xyz = world[2]
    still = [IDENTITY] * 50
    assert shown_steps(CAMERA, still, xyz) == [0, 49]  # the published code loses the last one
    poses = moving(12)
    kept = shown_steps(CAMERA, [*poses, *[poses[-1]] * 20], xyz)
    assert kept[0] == 0 and kept[-1] == 31 and 5 < len(kept) < 14
    assert shown_steps(CAMERA, [], xyz) == [] and shown_steps(CAMERA, [IDENTITY], xyz) == [0]
    gif = Image.open(io.BytesIO(alignment_gif(blank_view(), poses, xyz)))
    assert gif.format == "GIF" and gif.n_frames > 3 and gif.size == SIZE  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no step"):
        alignment_gif(blank_view(), [], xyz)


def test_published_viewer(shared: Callable[[str], Path]) -> None:
    """Number by number what the published code writes, with its own choice of steps; quaternions up to their sign."""
    folder = shared("golden/pixloc/tiny_scene")
    scene = read_map(folder / "sfm_bin", folder / "images")
    name, model, *numbers = (folder / "queries_with_intrinsics.txt").read_text().split()
    width, height, *params = (float(n) for n in numbers)
    camera = Camera.from_colmap(model, int(width), int(height), params)
    query = View(torch.zeros(3, int(height), int(width)), camera, name=name)
    steps = np.load(folder / "subsample.npz")
    data = torch.from_numpy(steps["T"]).double()[torch.from_numpy(steps["keep"])]
    poses = [Pose(row[:9].reshape(3, 3), row[9:]) for row in data]
    references = []
    for image in (1, 0, 4):
        w, h = (int(v) for v in scene.cameras[image].size)
        pose = scene.cam_from_world[image]
        references.append(View(torch.zeros(3, h, w), scene.cameras[image], pose, scene.names[image]))
    xyz = torch.from_numpy(steps["p3d"])
    files = viewer_dump(query, poses, references, xyz, np.zeros((len(xyz), 3), int), "7scenes")
    assert set(files) == {path.name for path in (folder / "viewer").iterdir()}
    for file in ("dump.json", "dump_p2d.json"):
        compare(json.loads(files[file]), json.loads((folder / "viewer" / file).read_text()), file)
        assert b": " not in files[file]


def compare(mine: object, golden: object, where: str) -> None:
    if isinstance(golden, dict):
        assert isinstance(mine, dict) and list(mine) == list(golden), where
        for key in golden:
            if key != "colors":
                compare(mine[key], golden[key], f"{where}/{key}")
    elif isinstance(golden, list) and golden and isinstance(golden[0], float | int):
        a, b = np.array(mine, float), np.array(golden, float)
        # rounded to three decimals from float32 numbers: a tie may fall either way
        assert a.shape == b.shape and min(np.abs(a - b).max(), np.abs(a + b).max() if len(a) == 4 else 9) < 1.01e-3, (
            where
        )
        if len(a) == 4:
            assert min(np.abs(a - b).max(), np.abs(a + b).max()) < 1e-6, where
    elif isinstance(golden, list):
        assert isinstance(mine, list) and len(mine) == len(golden), where
        for n, (x, y) in enumerate(zip(mine, golden, strict=True)):
            compare(x, y, f"{where}/{n}")
    else:
        assert mine == golden, where


def test_viewer_wrong_use() -> None:
    view, xyz, colors = blank_view(pose=IDENTITY), torch.ones(1, 3).double(), np.zeros((1, 3), int)
    with pytest.raises(ValueError, match="no turn 'sideways'"):
        viewer_dump(view, [IDENTITY], [view], xyz, colors, "sideways")
    with pytest.raises(ValueError, match="at least one pose"):
        viewer_dump(view, [], [view], xyz, colors)
    with pytest.raises(ValueError, match="the pose of every reference"):
        viewer_dump(view, [IDENTITY], [blank_view()], xyz, colors)


# -- features ---------------------------------------------------------------------------------------------------------
def test_alike_features_have_one_color(generator: torch.Generator) -> None:
    kinds = torch.randn(3, 16, generator=generator)
    a = kinds[torch.randint(3, (12, 20), generator=generator)].permute(2, 0, 1)
    b = 7 * a.flip(2)  # length does not count
    first, second = principal_colors([a, b])
    np.testing.assert_allclose(first.astype(int), second[:, ::-1].astype(int), atol=1)
    assert len(np.unique(first.reshape(-1, 3), axis=0)) == 3
    flat = principal_colors([torch.ones(4, 3, 3)])[0]
    assert flat.shape == (3, 3, 3)
    thin = principal_colors([torch.randn(2, 5, 5, generator=generator)])[0]
    assert thin.shape == (5, 5, 3)


def test_pictures_of_features(generator: torch.Generator) -> None:
    levels = tuple(torch.randn(8, 60 // s, 80 // s, generator=generator) for s in (1, 2, 4))
    picture = feature_picture((DenseFeatures("a", levels), DenseFeatures("b", levels)), 80)
    assert picture.shape == (120, 3 * 84, 3)
    trust = torch.zeros(30, 40)
    trust[:, 20:] = 0.9
    shown = confidence_picture(blank_view(), [trust, trust]).astype(int)
    assert shown.shape == (SIZE[1], SIZE[0], 3)
    assert (shown[:, :60, 0] > shown[:, :60, 1]).all() and (shown[:, 100:, 1] > shown[:, 100:, 0]).all()


def test_windows_are_told_from_whole_maps(world: tuple[PointMaps, PointMaps, torch.Tensor]) -> None:
    entry = entry_of(world)
    assert [kept.whole for kept in entry.trace.maps] == [True, False]
    coarse = dataclasses.replace(entry.trace, maps=entry.trace.maps[:1])
    only = LocalizedQuery(entry.query, dataclasses.replace(entry.estimate, trace=coarse), entry.scene)
    assert set(localization_pictures(only)) == {"points", "evidence", "maps"}
