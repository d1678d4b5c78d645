"""The localiser on the tiny scene: recorded runs, every failure without an exception, batches, weights on disk."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metriloc.backbones.vgg import VGGConfig
from metriloc.geometry import Camera, Pose
from metriloc.io.files import InputError
from metriloc.methods.pixloc import (
    AlignConfig,
    CostConfig,
    Extraction,
    FeaturePyramid,
    Hints,
    LocalizeConfig,
    NetworkConfig,
    NetworkExtractor,
    PixLoc,
    PixLocNetwork,
    ResizeConfig,
    Settings,
    UNetConfig,
    save_pretrained,
)
from metriloc.types import AbsolutePoseMethod, SfmMap, View

LOOP = AlignConfig(CostConfig(pad=1, validity="pixloc"), num_iters=50)
BASE = LocalizeConfig(num_references=4, image_scales=(4, 1), min_track=2)
POSES = LocalizeConfig(
    num_references=3, image_scales=(1,), min_track=2, points="inliers", min_reference_inliers=5, rank_by_inliers=True
)
RETRIEVAL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {  # settings, references in our order
    "default": ({}, (12, 11, 15, 13)),
    "average": ({"average": True}, (12, 11, 15, 13)),
    "single_scale": ({"image_scales": (1,)}, (12, 11, 15, 13)),
    "approx": ({"approximate_pose": True}, (12, 11, 13)),
    "filtercov": ({"covisible_only": True, "num_references": 5}, (12, 11, 13, 14)),
    "inlier_rank": ({"rank_by_inliers": True, "num_references": 2, "min_reference_inliers": 5}, (11, 13)),
    "inlier_rank_inlier_points": ({"rank_by_inliers": True, "points": "inliers"}, (11, 13, 12, 14)),
    "layers_0_1": ({"levels": (0, 1)}, (12, 11, 15, 13)),
    "nouncertainty_avg": ({"use_confidences": False, "average": True}, (12, 11, 15, 13)),
}
LIGHT = NetworkConfig(
    UNetConfig(VGGConfig((1, 1, 1), (8, 8, 8)), (8, 8), (0, 1, 2), (8, 8, 8)),
)


def method(tiny: SimpleNamespace, config: LocalizeConfig = BASE, loop: AlignConfig = LOOP, **kind: Any) -> PixLoc:
    return PixLoc(tiny.extractor(), loop, config, **kind)


@pytest.mark.slow
@pytest.mark.parametrize("tag", RETRIEVAL)
def test_golden_retrieval(tag: str, tiny: SimpleNamespace, data: Any) -> None:
    golden, (settings, images) = tiny.golden, RETRIEVAL[tag]
    matches = tiny.matches if "inlier" in tag else None
    init = None
    if tag == "filtercov":  # the published code loses the order of retrieval, and starts from another image
        init = data.pose(golden[f"retrieval_{tag}/tracker_T"][0].double())
    counts: dict[str, int] = {}
    found = method(tiny, dataclasses.replace(BASE, **settings)).localize(
        tiny.query,
        tiny.scene,
        tiny.references,
        init,
        hints=Hints(matches, tiny.similarity),
        log=lambda stage, _: counts.update({stage: counts.get(stage, 0) + 1}),
    )
    details = found.localization[0]
    assert found.success and found.reasons == (None,) and details.messages == ()
    torch.testing.assert_close(data.pack(found.pose), golden[f"retrieval_{tag}/T_refined"], rtol=0, atol=1e-4)
    assert list(counts.values()) == golden[f"retrieval_{tag}/tracker_num_iters"].tolist()
    assert [tiny.scene.index(name) for name in details.references] == [tiny.image_of[i] for i in images]
    assert sorted(golden[f"retrieval_{tag}/dbids"].tolist()) == sorted(images)
    start = details.stages[0].cam_from_world
    torch.testing.assert_close(data.pack(start).float(), golden[f"retrieval_{tag}/tracker_T"][0], rtol=0, atol=1e-5)
    points = {tiny.point_of[int(i)] for i in golden[f"retrieval_{tag}/p3d_ids"]}
    assert details.num_points == len(points)
    assert details.stages[-1].support == found.confidence.item() > 0.9 > details.stages[0].support
    numbers = details.statistics
    assert numbers["support"] == found.confidence.item() and numbers["points"] == len(points)
    assert 0.5 < numbers["visible"] <= 1 and numbers["distinct_0"] > 0.8 and numbers["precision"] > 50
    assert not {"moved", "turned"} & set(numbers)  # where it went is no support


@pytest.mark.parametrize(
    ("tag", "settings"),
    [
        ("average", {"average": True, "levels": (0, 1)}),
        ("dup", {"levels": (0, 1)}),
        ("all_levels", {}),
    ],
)
def test_golden_poses(tag: str, settings: dict[str, Any], tiny: SimpleNamespace, data: Any) -> None:
    log: list[tuple[str, Any]] = []
    found = method(tiny, dataclasses.replace(POSES, **settings)).localize(
        tiny.query,
        tiny.scene,
        tiny.references,
        tiny.pnp,
        hints=Hints(tiny.matches),
        log=lambda stage, iteration: log.append((stage, iteration)),
    )
    golden = tiny.golden
    expected = golden[f"poses_{tag}/T_refined"]
    iterations = golden[f"poses_{tag}/tracker_num_iters"].tolist()
    assert found.success
    if tag == "all_levels":
        # the last level of the recorded run stopped at once, by a rotation that single precision had rounded to zero;
        # ours, measured by the step itself, is just above the threshold and goes on: compare where the other stopped
        last = [iteration for stage, iteration in log if stage.endswith("level 0")]
        assert iterations == [11, 11, 1] and len(last) == 11
        step = math.degrees(last[0].delta.angle().item())
        assert 0.05 <= step < 0.06 or last[0].delta.distance() >= 5e-3
        torch.testing.assert_close(data.pack(last[0].pose[0]), expected, rtol=0, atol=1e-4)
        return
    torch.testing.assert_close(data.pack(found.pose), expected, rtol=0, atol=1e-4)
    assert len(log) == sum(iterations)


def test_precision_of_kept_features(tiny: SimpleNamespace) -> None:
    """float16 moves the tiny scene's pose by less than a tenth of a millimetre."""
    full = method(tiny).localize(tiny.query, tiny.scene, tiny.references)
    half = method(tiny, dataclasses.replace(BASE, half_references=True)).localize(
        tiny.query, tiny.scene, tiny.references
    )
    difference = half.pose @ full.pose.inverse()
    assert half.success and 0 < difference.distance() < 1e-4 and difference.angle() < 1e-4


def test_kept_references_cost_nothing(tiny: SimpleNamespace, tmp_path: Path) -> None:
    localizer = method(tiny, cache=tmp_path)
    first = localizer.localize(tiny.query, tiny.scene, tiny.references)
    assert localizer.extractor.calls == 2 * 5  # type: ignore[attr-defined]
    again = method(tiny, cache=tmp_path)
    second = again.localize(tiny.query, tiny.scene, tiny.references)
    assert again.extractor.calls == 2  # type: ignore[attr-defined]
    assert torch.equal(first.pose.t, second.pose.t) and torch.equal(first.pose.R, second.pose.R)
    assert {"references", "extract", "align", "support"} == set(second.localization[0].timings)


def expect_failure(found: Any, reason: str, word: str = "") -> Any:
    assert not found.success and found.reasons == (reason,) and found.confidence == 0
    assert found.pose.t.isnan().all()
    (details,) = found.localization
    assert any(word in message for message in details.messages), details.messages
    return details


def test_failures_of_choices(tiny: SimpleNamespace, data: Any) -> None:
    scene, query, names = tiny.scene, tiny.query, tiny.references
    expect_failure(method(tiny).localize(query, scene, []), "no_reference", "no usable reference")
    expect_failure(method(tiny).localize(query, scene, ["nobody.jpg"]), "no_reference", "'nobody.jpg'")
    many = method(tiny, dataclasses.replace(BASE, min_points=1000)).localize(query, scene, names)
    details = expect_failure(many, "too_few_points", "1000 are needed")
    torch.testing.assert_close(
        data.pack(details.stages[0].cam_from_world), tiny.golden["retrieval_toofew/T_init"], rtol=0, atol=1e-12
    )
    long = method(tiny, dataclasses.replace(BASE, min_track=5)).localize(query, scene, names)
    expect_failure(long, "too_few_points", "see 0 points")
    weak = method(tiny, dataclasses.replace(POSES, min_inliers=1000))
    found = weak.localize(query, scene, names, tiny.pnp, hints=Hints(tiny.matches))
    details = expect_failure(found, "too_few_matches", "51 inliers")
    torch.testing.assert_close(
        data.pack(details.stages[0].cam_from_world), tiny.golden["poses_toofew/T_init"], rtol=0, atol=1e-12
    )
    none = method(tiny, dataclasses.replace(POSES, min_reference_inliers=1000))
    expect_failure(none.localize(query, scene, names, tiny.pnp, hints=Hints(tiny.matches)), "no_reference")


def test_queries_that_the_matching_pipeline_lost(tiny: SimpleNamespace) -> None:
    lost = method(tiny, POSES).localize(tiny.query, tiny.scene, tiny.references)
    expect_failure(lost, "too_few_matches", "chosen by matches, and there are none")
    ranked = method(tiny, dataclasses.replace(BASE, rank_by_inliers=True))
    found = ranked.localize(tiny.query, tiny.scene, tiny.references)
    assert found.success and found.localization[0].references == tuple(tiny.references[:4])
    assert "stay in their order" in found.localization[0].messages[0]


def test_a_map_without_points_or_images(tiny: SimpleNamespace) -> None:
    scene = tiny.scene
    none = torch.zeros(0, dtype=torch.long)
    bare = SfmMap(
        scene.names, scene.cameras, scene.cam_from_world, torch.zeros(0, 3), none, none, torch.zeros(0, 2), scene.folder
    )
    expect_failure(method(tiny).localize(tiny.query, bare, tiny.references), "too_few_points", "see 0 points")
    empty = SfmMap((), (), Pose.identity((0,)), torch.zeros(0, 3), none, none, torch.zeros(0, 2))
    expect_failure(method(tiny).localize(tiny.query, empty, tiny.references), "no_reference")


def test_nine_points(tiny: SimpleNamespace) -> None:
    """Ten points are seen by the reference, but one of them is outside the query."""
    scene = tiny.scene
    alone = dataclasses.replace(BASE, num_references=1, min_track=1, min_points=9)
    image = scene.index(tiny.references[0])
    keep = torch.arange(len(scene.image_index))[scene.observations_of(image)][:9]
    small = SfmMap(
        scene.names,
        scene.cameras,
        scene.cam_from_world,
        scene.xyz,
        scene.image_index[keep],
        scene.point_index[keep],
        scene.uv[keep],
        scene.folder,
    )
    found = method(tiny, alone).localize(tiny.query, small, tiny.references)
    expect_failure(found, "too_few_points", "too few points of the references are in view")
    ten = method(tiny, dataclasses.replace(alone, min_points=10)).localize(tiny.query, small, tiny.references)
    expect_failure(ten, "too_few_points", "9 points, 10 are needed")


def test_missing_photos_are_passed_over(tiny: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in tiny.scene.names[1:]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((tiny.folder / "images" / name).read_bytes())
    scene = dataclasses.replace(tiny.scene, folder=folder)
    found = method(tiny).localize(tiny.query, scene, tiny.references)
    assert found.success
    assert tiny.scene.names[0] not in found.localization[0].references
    assert len([m for m in found.localization[0].messages if "r0.png" in m]) == 1
    nowhere = dataclasses.replace(tiny.scene, folder=tmp_path / "nothing")
    expect_failure(method(tiny).localize(tiny.query, nowhere, tiny.references), "no_reference", "does not exist")
    unknown = dataclasses.replace(tiny.scene, folder=None)
    expect_failure(method(tiny).localize(tiny.query, unknown, tiny.references), "no_reference", "not at hand")


class Changed:
    """An extractor whose maps of the query are something else."""

    def __init__(self, inner: Any, change: Any) -> None:
        self.inner, self.change = inner, change
        self.identity, self.num_levels, self.damping = inner.identity, inner.num_levels, inner.damping

    def __call__(self, view: View, image_scale: int) -> Extraction:
        found = self.inner(view, image_scale)
        if not view.name.startswith("query"):
            return found
        return dataclasses.replace(found, pyramid=self.change(found.pyramid))


def test_maps_that_say_nothing(tiny: SimpleNamespace) -> None:
    def flat(pyramid: FeaturePyramid) -> FeaturePyramid:
        return dataclasses.replace(pyramid, features=tuple(torch.ones_like(f) for f in pyramid.features))

    def broken(pyramid: FeaturePyramid) -> FeaturePyramid:
        return dataclasses.replace(pyramid, features=tuple(f * torch.nan for f in pyramid.features))

    def localize(change: Any) -> Any:
        localizer = PixLoc(Changed(tiny.extractor(), change), LOOP, BASE)
        return localizer.localize(tiny.query, tiny.scene, tiny.references)

    expect_failure(localize(flat), "flat_maps", "do not change from place to place")
    expect_failure(localize(broken), "non_finite", "not finite")


def test_results_that_cost_more_than_the_start(tiny: SimpleNamespace, data: Any) -> None:
    """Coarse maps from another place drag the pose away; the finest level, with no iteration to spare, cannot undo it."""
    truth = data.pose(tiny.golden["T_w2q_gt"])

    def shifted(pyramid: FeaturePyramid) -> FeaturePyramid:
        return dataclasses.replace(
            pyramid, features=(pyramid.features[0], *(f.roll(3, -1) for f in pyramid.features[1:]))
        )

    loop = dataclasses.replace(LOOP, num_iters=1, stop_every=1)
    config = dataclasses.replace(BASE, image_scales=(1,))
    localizer = PixLoc(Changed(tiny.extractor(), shifted), loop, config)
    found = localizer.localize(tiny.query, tiny.scene, tiny.references, truth)
    expect_failure(found, "diverged", "costs more than the start")
    trusting = PixLoc(localizer.extractor, loop, dataclasses.replace(config, check=False))
    assert trusting.localize(tiny.query, tiny.scene, tiny.references, truth).success


def test_starts_that_cannot_work(tiny: SimpleNamespace) -> None:
    away = Pose(torch.eye(3).double(), torch.tensor([0.0, 0.0, -500.0]).double())
    found = method(tiny).localize(tiny.query, tiny.scene, tiny.references, away)
    expect_failure(found, "too_few_points", "too few points of the references are in view")
    nan = Pose(torch.eye(3), torch.full((3,), torch.nan))
    expect_failure(method(tiny).localize(tiny.query, tiny.scene, tiny.references, nan), "non_finite")
    dark = dataclasses.replace(tiny.query, image=tiny.query.image * torch.nan)
    expect_failure(method(tiny).localize(dark, tiny.scene, tiny.references), "non_finite", "photo")


def test_batches_are_queries_one_by_one(tiny: SimpleNamespace) -> None:
    localizer = method(tiny)
    lists = [tiny.references, [], tiny.references[1:]]
    found = localizer.localize_batch([tiny.query] * 3, tiny.scene, lists)
    assert found.success.tolist() == [True, False, True] and found.reasons == (None, "no_reference", None)
    assert len(found.localization) == 3 and found.pose.shape == (3,)
    for index in (0, 2):
        alone = method(tiny).localize(tiny.query, tiny.scene, lists[index])
        torch.testing.assert_close(found.pose.t[index].double(), alone.pose.t, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="2 queries, 1 lists"):
        localizer.localize_batch([tiny.query] * 2, tiny.scene, [tiny.references])


def test_wrong_use(tiny: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="single pose"):
        method(tiny).localize(tiny.query, tiny.scene, tiny.references, Pose.identity((2,)))
    with pytest.raises(ValueError, match=r"levels \(0, 3\) are not among the 3"):
        method(tiny, dataclasses.replace(BASE, levels=(0, 3)))
    for settings, word in (
        ({"points": "some"}, "'some'"),
        ({"image_scales": ()}, "image_scales"),
        ({"num_references": 0}, "num_references must be positive"),
        ({"levels": (1, 0)}, "increase"),
    ):
        with pytest.raises(ValueError, match=word):
            LocalizeConfig(**settings)  # type: ignore[arg-type]


def test_weights_on_disk(tmp_path: Path, tiny: SimpleNamespace) -> None:
    torch.manual_seed(0)
    network = PixLocNetwork(LIGHT)
    settings = Settings(
        align=dataclasses.replace(LOOP, num_iters=7),
        config=dataclasses.replace(BASE, levels=(0, 2), check=False),
        resize=ResizeConfig(size=128),
    )
    identity = save_pretrained(network, tmp_path, settings)
    loaded = PixLoc.from_pretrained(tmp_path)
    check: AbsolutePoseMethod = loaded
    assert check.name == "pixloc" and loaded.weights_id == identity and identity in loaded.extractor.identity
    assert (loaded.align, loaded.config) == (settings.align, settings.config)
    direct = PixLoc(NetworkExtractor(network, identity, settings.resize), settings.align, settings.config)
    image = torch.rand(3, 192, 256)
    query = dataclasses.replace(tiny.query, image=image)
    one, other = (m.localize(query, tiny.scene, tiny.references) for m in (loaded, direct))
    assert one.reasons == other.reasons
    torch.testing.assert_close(one.pose.t, other.pose.t, equal_nan=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["align"]["damping"] = "guess"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"wrong PixLoc configuration: .*'guess'"):
        PixLoc.from_pretrained(tmp_path)


def test_network_extractor() -> None:
    torch.manual_seed(0)
    network = PixLocNetwork(LIGHT).eval()
    view = View(torch.rand(3, 60, 90), Camera.from_fov((90, 60), 1.0))
    extractor = NetworkExtractor(network, "w", ResizeConfig(size=90))
    found = extractor(view, 1)
    assert found is not None and found.scales[0] == (1.0, 1.0) and found.scales[2] == (0.25, 0.25)
    with torch.no_grad():
        expected = network(view.image[None])
    for a, b in zip(found.pyramid.features, expected.features, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    reduced = extractor(view, 4)
    assert reduced is not None and reduced.pyramid.features[0].shape[2:] == (12, 20)
    assert reduced.scales[0] == (22 / 90, 15 / 60)  # what was made, not 22 / 90 twice
    assert extractor(view, 40) is None
    assert ResizeConfig(1024).target(90, 60, 1) == (90, 60)
    assert ResizeConfig(1024, enlarge=True).target(90, 60, 1) == (1024, 683)
    assert ResizeConfig(None).target(90, 60, 2) == (45, 30)
    with pytest.raises(ValueError, match="positive, got 0"):
        ResizeConfig(0)


def test_small_photos_leave_scales_out(tmp_path: Path, tiny: SimpleNamespace) -> None:
    """At the smaller scale there is no map; the other one is aligned, and the estimate says so."""
    torch.manual_seed(0)
    network = PixLocNetwork(LIGHT).eval()
    config = dataclasses.replace(BASE, image_scales=(400, 100), check=False)
    localizer = PixLoc(NetworkExtractor(network, "w"), LOOP, config)
    found = localizer.localize(tiny.query, tiny.scene, tiny.references)
    details = expect_failure(found, "too_few_points", "the photo is too small at image scale 400, which is left out")
    assert "inside all reference maps at image scale 100" in details.messages[1]
