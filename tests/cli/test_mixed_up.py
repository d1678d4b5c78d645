"""What is easily mixed up: weights of another network, a run in place of its weights, two photos of one name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import metriloc
from metriloc.backbones.vgg import VGGConfig
from metriloc.cli.main import main
from metriloc.io import InputError
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig
from metriloc.methods.pixloc import NetworkConfig, PixLoc, PixLocNetwork, UNetConfig, save_pretrained
from metriloc.runs.queries import QueryPhoto, require_own_entries

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints as released, a run that has weights and one that has none yet."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    shape = UNetConfig(VGGConfig((2, 2, 4, 4, 4), (4, 4, 6, 6, 8)), (6, 6, 6, 4), channels=(4, 8, 8))
    network = PixLocNetwork(NetworkConfig(shape))
    torch.save({"model": network.state_dict(), "conf": {}, "eval": {"loss": np.float64(1.0)}}, folder / "pixloc.tar")
    for level in ("coarse", "fine"):
        state = NRENetwork(NRENetworkConfig(level)).state_dict()  # type: ignore[arg-type]
        torch.save({"state_dict": state}, folder / f"{level}.ckpt")
    for name in ("run", "young"):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    save_pretrained(network, folder / "run" / "weights")
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence


def test_weights_of_another_network_are_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse, fine, pixloc = files / "coarse.ckpt", files / "fine.ckpt", files / "pixloc.tar"
    nre = ("localize", "--show", "--features", "nre", "--weights")
    assert "its tensors are PixLoc's" in refused(capsys, *nre, f"{pixloc},{fine}")
    assert "its tensors are PixLoc's" in refused(capsys, *nre, f"{coarse},{pixloc}")
    assert "of 'pixloc', not of 'nre'" in refused(capsys, *nre, f"{files / 'run'},{fine}")
    assert "both coarse networks" in refused(capsys, *nre, f"{coarse},{coarse}")
    aligned = ("localize", "--show", "--method", "pixloc", "--weights")
    assert "weights convert" in refused(capsys, *aligned, coarse)
    assert "--features nre" in refused(capsys, "weights", "convert", coarse, "--out", files / "out")
    assert "pixloc takes one" in refused(capsys, *aligned, f"{files / 'run'},{pixloc}")


@pytest.mark.wheels
def test_nres_networks_without_features_nre(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("localize", "--show", "--method", "nre-xfeat", "--weights", files / "coarse.ckpt")
    assert "used by --method nre --features nre" in refused(capsys, *given)


def test_a_run_stands_for_its_weights(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert PixLoc.from_pretrained(files / "run").weights_id == PixLoc.from_pretrained(files / "run/weights").weights_id
    young = ("localize", "--show", "--method", "pixloc", "--weights", files / "young")
    assert "is the folder of a training run, and it holds no 'weights' yet" in refused(capsys, *young)
    assert "is used as it is" in refused(capsys, "weights", "convert", files / "run", "--out", files / "out")


def test_a_run_is_something_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("--set", "training.steps=2", "training.epoch_steps=2", "training.device=cpu", "training.tensorboard=off")
    for name, more in (("first", ()), ("second", ("--init", tmp_path / "first"))):
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in ("train", "toy", "--out", tmp_path / name, *quick, *more)])
        assert not stop.value.code, capsys.readouterr().err


def photos(*names: str) -> list[QueryPhoto]:
    return [QueryPhoto(Path(name), name) for name in names]


def test_two_photos_of_one_name_never_share_an_entry() -> None:
    file = Path("list.txt")
    with pytest.raises(InputError, match=r"lists 'q\.jpg', which is 'a/q\.jpg' as well as 'b/q\.jpg'"):
        require_own_entries(photos("a/q.jpg", "b/q.jpg"), {"q.jpg"}, file)
    with pytest.raises(InputError, match="with their folders"):
        require_own_entries(photos("1/a/q.jpg", "2/a/q.jpg"), {"a/q.jpg", "q.jpg"}, file)
    require_own_entries(photos("a/q.jpg", "b/q.jpg"), {"a/q.jpg", "q.jpg"}, file)
    require_own_entries(photos("a/q.jpg", "a/q.jpg", "c/r.jpg"), {"q.jpg"}, file)


@pytest.mark.parametrize("option", ["--init", "--truth", "--pairs"])
def test_lists_with_bare_names_are_refused(
    option: str, example_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        given.append(shutil.copy(EXAMPLE / "query.jpg", tmp_path / folder / "q.jpg"))
    file = tmp_path / "list.txt"
    file.write_text("q.jpg reference.jpg\n" if option == "--pairs" else "q.jpg 1 0 0 0 0 0 0\n")
    scene = ("--images", EXAMPLE, "--names", "folder/file", "--k", 560, 560, 320, 240)
    sentence = refused(capsys, "localize", example_map, *given, *scene, option, file)
    assert "lists 'q.jpg'" in sentence and "with their folders" in sentence
