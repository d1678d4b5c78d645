"""Recipes of NRE: the pairs they train on, from RGB-D folders, COLMAP models and synthetic scenes, and a few steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets.synthetic import SyntheticConfig, make_scene, sample_pair
from metriloc.io import InputError
from metriloc.lessons.nre_batches import Look, NREBatches, PointBatches, ReconstructedPairs, real_sources
from metriloc.lessons.nre_validation import NREValidation, PointValidation
from metriloc.methods.nre.trained import load_trained
from metriloc.methods.nre.training import NRETraining, NRETrainingConfig
from metriloc.methods.nre.training_points import PointPair
from metriloc.recipes import nre_coarse, nre_fine, nre_small
from metriloc.recipes.nre import NREMethod
from metriloc.training import settable_fields, train
from metriloc.types import Pair

SIZE = (160, 128)
LOOK = Look(128, smallest=0.8, points=60, min_points=20)


@pytest.fixture(scope="module")
def pair() -> Pair:
    scene = make_scene(3, SyntheticConfig(sizes=(SIZE,), weights=(1.0, 0.0, 0.0)))
    return sample_pair(scene, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def data(pair, tmp_path_factory) -> Path:
    """``real/rgbd`` with depth maps and ``real/sfm`` with a COLMAP model, of the same two photos."""
    root = tmp_path_factory.mktemp("nre_data")
    _write_rgbd(root / "real" / "rgbd", pair)
    _write_colmap(root / "real" / "sfm", pair)
    return root


def _save_photo(path: Path, image: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(path)


def _write_rgbd(folder: Path, pair: Pair) -> None:
    for name, view in (("0", pair.view0), ("1", pair.view1)):
        _save_photo(folder / "color" / f"{name}.png", view.image)
        for kind in ("depth", "pose"):
            (folder / kind).mkdir(exist_ok=True)
        millimetres = (1000 * view.depth).round().clamp(max=65535).numpy().astype(np.uint16)
        Image.fromarray(millimetres).save(folder / "depth" / f"{name}.png")
        np.savetxt(folder / "pose" / f"{name}.txt", view.cam_from_world.inverse().matrix().double().numpy())
    np.savetxt(folder / "intrinsics.txt", pair.view0.camera.K.double().numpy())


def _write_colmap(folder: Path, pair: Pair) -> None:
    """The two cameras, and eighty points that both see."""
    from metriloc.methods.nre.training_points import points_from_depth

    found = points_from_depth(pair, 80, torch.Generator().manual_seed(1))
    from metriloc.geometry import sample_depth

    depth, _ = sample_depth(pair.view0.depth, found.uv0, SIZE)
    rays, _ = pair.view0.camera.unproject(found.uv0)
    xyz = pair.view0.cam_from_world.inverse().to(torch.float32).transform(rays * depth[:, None])
    model = folder / "sparse"
    model.mkdir(parents=True)
    cameras, images, points = [], [], []
    for number, view in enumerate((pair.view0, pair.view1), 1):
        _save_photo(folder / "images" / f"{number}.png", view.image)
        f, c = view.camera.f.tolist(), (view.camera.c + 0.5).tolist()
        cameras.append(f"{number} PINHOLE {SIZE[0]} {SIZE[1]} {f[0]} {f[1]} {c[0]} {c[1]}")
        pose = view.cam_from_world.to(torch.float64)
        numbers = " ".join(str(v) for v in (*pose.quaternion().tolist(), *pose.t.tolist()))
        images.append(f"{number} {numbers} {number} {number}.png")
        uv = (found.uv0 if number == 1 else found.uv1) + 0.5
        images.append(" ".join(f"{x} {y} {i + 1}" for i, (x, y) in enumerate(uv.tolist())))
    for i, (x, y, z) in enumerate(xyz.tolist()):
        points.append(f"{i + 1} {x} {y} {z} 0 0 0 0.5 1 {i} 2 {i}")
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (model / f"{name}.txt").write_text("\n".join(lines) + "\n")


def _patches_agree(found: PointPair) -> float:
    """Median absolute difference of grey values at the two positions of each point."""
    values = []
    for image, uv in ((found.image0, found.uv0), (found.image1, found.uv1)):
        h, w = image.shape[1:]
        grid = (2 * uv / torch.tensor([w - 1.0, h - 1.0]) - 1)[None, None]
        values.append(torch.nn.functional.grid_sample(image.mean(0)[None, None], grid, align_corners=True)[0, 0, 0])
    return float((values[0] - values[1]).abs().median())


def test_both_kinds_of_scene_are_found(data):
    sources = real_sources(data, min_shared=20)
    assert [type(s).__name__ for s in sources] == ["ListedPairs", "ReconstructedPairs"]
    # a folder that is the scenes itself
    assert [type(s).__name__ for s in real_sources(data / "real", min_shared=20)] == [type(s).__name__ for s in sources]


@pytest.mark.parametrize("kind", [0, 1])
def test_points_still_agree_after_all_augmentation(data, kind):
    batches = NREBatches(LOOK, batch_size=2)(data)
    one = PointBatches([batches.sources[kind]], [1.0], LOOK, batches.augment, 2)
    plain = PointBatches([batches.sources[kind]], [1.0], LOOK, None, 2)
    rng, differences, undone = torch.Generator().manual_seed(0), [], []
    for step in range(4):
        for found in (*one.batch(step), *plain.batch(step)):
            assert len(found) >= 20 and max(found.image0.shape[1:]) <= 128
            for image, uv in ((found.image0, found.uv0), (found.image1, found.uv1)):
                limit = torch.tensor([image.shape[2] - 0.5, image.shape[1] - 0.5])
                assert (uv >= -0.5).all() and (uv <= limit).all()
            differences.append(_patches_agree(found))
            shuffled = found.uv1[torch.randperm(len(found), generator=rng)]
            undone.append(_patches_agree(replace(found, uv1=shuffled)))
    assert np.median(differences) < 0.5 * np.median(undone), (differences, undone)
    assert len({tuple(found.image0.shape) for step in range(4) for found in one.batch(step)}) > 2, "scales differ"


def test_batches_are_a_pure_function_and_cut_into_parts(data):
    batches = NREBatches(LOOK, batch_size=4)(data)
    whole, again = batches.batch(3), NREBatches(LOOK, batch_size=4)(data).batch(3)
    parts = [found for part in range(2) for found in batches.batch(3, part, 2)]
    for a, b, c in zip(whole, again, parts, strict=True):
        for other in (b, c):
            assert torch.equal(a.image0, other.image0) and torch.equal(a.uv1, other.uv1)
    assert not torch.equal(batches.batch(4)[0].uv0[:5], whole[0].uv0[:5])
    with pytest.raises(ValueError, match="equal parts"):
        batches.batch(0, 0, 3)


def test_sides_are_multiples(data):
    look = Look(160, smallest=0.5, multiple=32, points=60, min_points=10)
    for step in range(4):
        for found in NREBatches(look, batch_size=2)(data).batch(step):
            assert not any(side % 32 for image in (found.image0, found.image1) for side in image.shape[1:])


def test_an_image_without_partners_gives_no_points(data):
    source = next(s for s in real_sources(data, min_shared=20) if isinstance(s, ReconstructedPairs))
    lonely = ReconstructedPairs(source.scene, min_shared=10_000)
    assert len(lonely.draw(LOOK, None, torch.Generator().manual_seed(0))) == 0


@pytest.mark.slow
def test_synthetic_scenes(tmp_path):
    look = Look(128, smallest=0.9, points=40, min_points=20)
    batches = NREBatches(look, batch_size=2, synthetic_share=1.0, scenes=1, pairs_per_scene=1)(tmp_path)
    assert all(len(found) == 40 for found in batches.batch(0))
    assert len(list((tmp_path / "synthetic").iterdir())) == 1


def test_a_few_steps_end_in_weights_that_load(data, tmp_path):
    """The whole run of a recipe, on the fine network at a small size."""
    loss = NRETrainingConfig(maps="both", window=8, points=30, statistics_steps=1)
    run = nre_fine()
    training = replace(run.training, steps=2, epoch_steps=2, accumulation=1, workers=0, tensorboard="off", device="cpu")
    look = Look(64, smallest=0.9, points=30, min_points=10)
    run = replace(
        run,
        method=NREMethod("fine", loss=loss),
        batches=NREBatches(look, batch_size=1),
        training=training,
        validation=NREValidation(look, pairs=1),
    )
    (data / "val").mkdir(exist_ok=True)
    if not (data / "val" / "rgbd").exists():
        (data / "val" / "rgbd").symlink_to(data / "real" / "rgbd")
    train(run, tmp_path / "run", data)
    trained, network, _ = load_trained(tmp_path / "run" / "weights")
    assert trained.architecture == "fine"
    start = NREMethod("fine")().network
    pairs = zip(network.parameters(), start.parameters(), strict=True)
    assert any(not torch.equal(found, other) for found, other in pairs)


def test_validation_repeats_itself(data):
    batches = NREBatches(LOOK, batch_size=2)(data)
    validator = PointValidation(batches.batch(0))
    method = NREMethod("fine", loss=NRETrainingConfig(points=20))().eval()
    with torch.no_grad():
        first, second = validator(method).metrics, validator(method).metrics
    assert first == second and 0 < first["relative"] < 2
    with pytest.raises(ValueError, match="Linear"):
        validator(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("recipe", [nre_coarse, nre_fine, nre_small])
def test_recipes_can_be_listed_and_set(recipe):
    run = recipe()
    assert run.name == recipe.__name__ and run.training.clip_norm == 1.0
    assert {"batches.look.longest_side", "method.loss.points", "training.optimizer.lr"} <= {
        name for name, _ in settable_fields(run)
    }


def test_wrong_settings_raise(tmp_path):
    for options in ({"longest_side": 8}, {"smallest": 0.0}, {"multiple": 0}, {"points": 10, "min_points": 20}):
        with pytest.raises(ValueError, match="must"):
            Look(**options)
    with pytest.raises(ValueError, match="--data"):
        NREBatches()(None)
    with pytest.raises(ValueError, match="shares"):
        PointBatches([], [], LOOK, None, 1)
    with pytest.raises(InputError):
        NREMethod("coarse", imagenet=str(tmp_path / "nothing.pth"))()
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth.*Inception"):
        NREMethod("coarse", imagenet=str(tmp_path / "other.pth"))()
    assert isinstance(NREMethod("fine")(), NRETraining)
