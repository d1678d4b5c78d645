"""PixLoc's recipes: published numbers, batches from real folders, and a run of a few steps that can be resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.backbones.vgg import VGGConfig
from metriloc.datasets.pixloc_pairs import DepthSamples, SampleConfig
from metriloc.datasets.pixloc_starts import Start
from metriloc.datasets.sfm_pairs import SquareConfig
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.lessons.alignment_pictures import alignment_picture
from metriloc.lessons.pixloc_mixed import MixedSamples, batch_of
from metriloc.lessons.pixloc_validation import AlignmentValidation, median_error_px
from metriloc.methods.pixloc import PixLoc
from metriloc.methods.pixloc.training import PixLocTraining
from metriloc.recipes import gnnet, pixloc_cmu, pixloc_megadepth, pixloc_small, pixloc_small_all
from metriloc.recipes.pixloc import SmallPixLoc
from metriloc.recipes.pixloc_published import PublishedPixLoc
from metriloc.training import override, train
from metriloc.training.pages import validation_page
from metriloc.types import Pair, View
from metriloc.viz.chooser import chooser_script


def wall_pair(seed: int) -> Pair:
    """A textured wall two metres away, seen from two places ten centimetres apart."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 12, 24, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (48, 96), mode="bicubic").clamp(0, 1)[0]
    camera = Camera(torch.tensor([64.0, 48.0]), torch.tensor([60.0, 60.0]), torch.tensor([31.5, 23.5]))
    depth = torch.full((48, 64), 2.0)
    poses = [Pose.identity(), Pose(torch.eye(3), torch.tensor([-0.1, 0.0, 0.0]))]
    views = [
        View(wide[:, :, 3 * n + 4 : 3 * n + 68], camera, pose, f"wall{n}", depth=depth) for n, pose in enumerate(poses)
    ]
    return Pair(views[0], views[1], poses[1])


class Walls:
    """Ten pairs."""

    lengths = (10,)

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: tuple[int, int]) -> Pair:
        return wall_pair(index[0])


def samples() -> DepthSamples:
    return DepthSamples(Walls(), SampleConfig(80, start=Start("error", error=(1, 8), disturbed=0.5)))


def test_published_numbers() -> None:
    megadepth, cmu, gn = pixloc_megadepth(), pixloc_cmu(), gnnet()
    assert (megadepth.batches.batch_size, cmu.batches.batch_size, gn.batches.batch_size) == (6, 3, 4)  # type: ignore[attr-defined]
    assert [run.training.optimizer.lr for run in (megadepth, cmu, gn)] == [5e-6, 1e-5, 1e-6]
    assert all(run.training.optimizer.lr_scaling == (("dampingnet.const", 100.0),) for run in (megadepth, cmu))
    assert [run.batches.square.crop for run in (megadepth, cmu, gn)] == [512, 720, 512]  # type: ignore[attr-defined]
    assert all(run.training.clip_norm == 1.0 and run.batches.points == 512 for run in (megadepth, cmu, gn))  # type: ignore[attr-defined]
    assert megadepth.batches.start.share == (0.75, 1.0) and cmu.batches.start.kind == "identity"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("run", "tensors"), [(pixloc_megadepth, 71), (pixloc_cmu, 65)])
def test_published_networks(run: Any, tensors: int) -> None:
    """As many tensors as the released checkpoints have."""
    method = dataclasses.replace(run().method, vgg_weights="random")
    assert len(method().network.state_dict()) == tensors
    with pytest.raises(ValueError, match="vgg_weights"):
        run().method()


def test_gnnet_has_neither_confidences_nor_damping() -> None:
    small = dataclasses.replace(gnnet().method, vgg_weights="random", encoder=VGGConfig((1,) * 5, (8,) * 5))
    method = small()
    assert isinstance(method, PixLocTraining) and method.network.damping(0) is None
    assert not method.network.config.extractor.confidences and method.model.config.top_negatives == 200


def test_small_network() -> None:
    method = SmallPixLoc(imagenet=False)()
    size = sum(p.numel() for p in method.parameters()) * 4
    assert size < 10e6
    settings = method.localizer_settings()
    assert settings.align.damping == "learned" and settings.config.use_confidences
    names = [n for n, _ in method.named_parameters()]
    run = pixloc_small()
    import re

    chosen = [n for n in names if re.search(run.training.optimizer.train_only, n)]
    assert chosen and not any("encoder" in n for n in chosen) and any("dampingnet" in n for n in chosen)
    assert pixloc_small_all().training.optimizer.train_only == ""


def test_small_batches_need_a_folder() -> None:
    for part in (pixloc_small().batches, pixloc_small().validation, pixloc_cmu().batches, pixloc_megadepth().batches):
        assert part is not None
        with pytest.raises(ValueError, match="--data"):
            part(None)


@pytest.mark.slow
def test_small_batches_of_a_new_folder(tmp_path: Path) -> None:
    """Scenes are made when they are missing; starts keep to the limit."""
    how = dataclasses.replace(pixloc_small().batches, scenes=1, pairs_per_scene=1, batch_size=2, points=100)  # type: ignore[type-var]
    source = how(tmp_path)
    assert source.shares == (1.0,)
    found = source.batch(0)
    assert found.reference.shape == (2, 3, 192, 256) and found.xyz.shape == (2, 100, 3)
    assert len(list((tmp_path / "synthetic").glob("*.npz"))) == 1
    assert not torch.equal(found.reference[0], found.reference[1])  # augmented by themselves
    assert float(median_error_px(found, found.init).nan_to_num().max()) < 60.0


def test_published_batches_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the slices"):
        pixloc_cmu().batches(tmp_path)
    with pytest.raises(InputError, match="none of the 118"):
        pixloc_megadepth().batches(tmp_path)


def test_mixed_batches_are_pure_and_cut_into_parts() -> None:
    mixed = MixedSamples((samples(), samples()), (0.5, 0.5), 4, seed=3)
    whole, again = mixed.batch(7), mixed.batch(7)
    assert torch.equal(whole.reference, again.reference) and torch.equal(whole.init.t, again.init.t)
    parts = [mixed.batch(7, part, 2) for part in range(2)]
    assert torch.equal(torch.cat([p.xyz for p in parts]), whole.xyz)
    assert not torch.equal(mixed.batch(8).xyz, whole.xyz)
    with pytest.raises(ValueError, match="cannot be cut into 3"):
        mixed.batch(0, 0, 3)


def test_validation_measures_the_alignment() -> None:
    """Without iterations a result is its start; the numbers then say so."""
    method = SmallPixLoc(imagenet=False, num_iters=1)()
    fixed = [samples()[n, n] for n in range(3)]
    with torch.no_grad():
        found = AlignmentValidation(fixed)(method.eval())
    assert set(found.metrics) == {"error_px", "start_px", "success", "improved", "rotation_deg", "translation_m"}
    batch = batch_of(fixed)
    expected = median_error_px(batch, batch.init)
    assert found.metrics["start_px"] == pytest.approx(float(expected.mean()), rel=1e-5)
    zero = median_error_px(batch, batch.query_from_reference)
    torch.testing.assert_close(zero, torch.zeros(3))
    with torch.no_grad():
        assert AlignmentValidation(fixed, pictures=0)(method).pictures == ()
    with pytest.raises(ValueError, match="PixLocTraining"):
        AlignmentValidation(fixed)(torch.nn.Linear(1, 1))


def test_validation_draws_two_views_and_their_alignment() -> None:
    """The legend aside, what differs from the photo are the marks, and they stand where the poses put the points."""
    pytest.importorskip("matplotlib")
    method = SmallPixLoc(imagenet=False, num_iters=1)()
    fixed = [samples()[n, n] for n in range(3)]
    with torch.no_grad():
        found = AlignmentValidation(fixed, pictures=2)(method.eval())
    errors, *alignments = found.pictures
    assert errors.title == "errors" and len(alignments) == 2
    assert [picture.title for picture in alignments] == ["alignment wall0 wall1"] * 2
    assert f"median error {float(median_error_px(batch_of(fixed[:1]), batch_of(fixed[:1]).init)):.1f} px" in (
        alignments[0].note
    )
    page = validation_page("pixloc", 3, found, {})
    assert page.count('<figure class="chooser">') == 2
    for word in ("points of the reference", "start", "level 1", "result", "truth", "features of level 0"):
        assert word in page
    assert page.count(chooser_script()) == 1


def test_marks_stand_where_the_poses_put_the_points() -> None:
    sample = samples()[0, 0]
    dark = [dataclasses.replace(view, image=0 * view.image) for view in (sample.pair.view0, sample.pair.view1)]
    sample = dataclasses.replace(sample, pair=Pair(dark[0], dark[1], sample.pair.cam1_from_cam0))
    drawn = alignment_picture(sample, sample.query_from_reference, 9.0, 0.0).rgb[:48, 64:]
    ys, xs = torch.from_numpy((drawn[..., 1] > 1.5 * drawn[..., 0]) & (drawn[..., 1] > 100)).nonzero().unbind(-1)
    uv, seen = dark[1].camera.project(sample.query_from_reference.transform(sample.xyz))
    apart = torch.cdist(torch.stack([xs, ys], -1).float(), uv[seen].float()).min(1).values
    assert len(apart) > 20 and float(apart.max()) < 6  # green rings of the truth, nowhere else


def test_megadepth_run(shared: Callable[[str], Path], tmp_path: Path) -> None:
    """Two steps and a validation of the published recipe, with a tiny network, on a real reconstruction; then weights that
    load."""
    pytest.importorskip("pycolmap")
    source = shared("data/eval/places/entry_p10")
    for name in ("0001", "0016"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "sparse").symlink_to(source / "sparse")
        (tmp_path / "data" / name / "images").symlink_to(source)
    run = pixloc_megadepth()
    batches = dataclasses.replace(
        run.batches,
        batch_size=2,
        per_scene=4,
        points=40,
        square=SquareConfig(96, "min", 96),  # type: ignore[type-var]
    )
    method = PublishedPixLoc("random", VGGConfig((1,) * 5, (8,) * 5), pad=1, num_iters=2)
    validation = dataclasses.replace(run.validation, per_scene=2, batches=batches)  # type: ignore[type-var]
    training = dataclasses.replace(run.training, steps=2, epoch_steps=2, workers=0, device="cpu", tensorboard="off")
    small = dataclasses.replace(run, method=method, batches=batches, validation=validation, training=training)
    result = train(small, tmp_path / "out", tmp_path / "data")
    assert result.progress.step == 2
    assert PixLoc.from_pretrained(tmp_path / "out" / "weights").align.cost.pad == 1
    assert (tmp_path / "data" / "pixloc_pairs" / "0001_pixloc_pairs.npz").is_file()


def test_fields_can_be_overridden() -> None:
    run = override(pixloc_small(), ["batches.real_share=0", "batches.start.disturbed=1", "method.num_iters=3"])
    assert run.batches.start.disturbed == 1 and run.method.num_iters == 3  # type: ignore[attr-defined]
