"""``metriloc weights``: a released-looking checkpoint becomes a folder that gives the golden maps."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import metriloc.cli.weights as command
from metriloc.cli.main import main
from metriloc.methods.mickey import MicKey

YAML = """\
MODEL: MicKey
MICKEY:
  DINOV2: {DOWN_FACTOR: 14, CHANNEL_DIM: 64, FLOAT16: False}
  KP_HEADS: {BLOCKS_DIM: [48, 40, 128, 24], BN: True, USE_SOFTMAX: True, USE_DEPTHSIGMOID: False,
             MAX_DEPTH: 60, POS_ENCODING: True}
  DSC_HEAD: {LAST_DIM: 32, BLOCKS_DIM: [48, 40, 128], BN: True, NORM_DSC: True, POS_ENCODING: True}
FEATURE_MATCHER: {TYPE: DualSoftmax, DUAL_SOFTMAX: {TEMPERATURE: 0.1, USE_DUSTBIN: True}}
PROCRUSTES: {IT_MATCHES: 20, IT_RANSAC: 50, NUM_SAMPLED_MATCHES: 2048, NUM_CORR_3D_3D: 3,
             NUM_REFINEMENTS: 4, TH_INLIER: 0.15, TH_SOFT_INLIER: 0.3}
TRAINING: {LR: 1e-4}
"""


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["weights", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture()
def release(shared: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder like the released one: heads in a Lightning checkpoint, YAML beside it, backbone in a file of its own."""
    tensors = {k: v for k, v in load_file(shared("golden/mickey/mickey_tiny_weights.safetensors")).items()}
    prefix = "compute_matches.extractor.dinov2_vitl14."
    heads = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    assert len(heads) == 336  # as released, and one: descriptors of another width need a shortcut
    folder = tmp_path / "release"
    folder.mkdir()
    torch.save({"state_dict": heads, "epoch": 3, "global_step": 7, "optimizer_states": []}, folder / "mickey.ckpt")
    torch.save({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, folder / "dinov2.pth")
    (folder / "config.yaml").write_text(YAML)
    return folder


def check_maps(folder: Path, io: dict[str, torch.Tensor]) -> None:
    model = MicKey.from_pretrained(folder)
    assert model.solver.num_hypotheses == 50  # from the YAML
    with torch.no_grad():
        maps = model.network(io["image0"].float() / 255)
    for name in ("offset", "depth", "score"):
        expected = io[f"map0.{name}"]
        assert (getattr(maps, name) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (maps.descriptor - io["map0.dsc"]).abs().max() < 1e-4


def test_convert_gives_the_golden_network(
    release: Path, shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    io = load_file(shared("golden/mickey/mickey_tiny_io.safetensors"))
    arguments = [release / "mickey.ckpt", "--backbone", release / "dinov2.pth", "--backbone-heads", 4]
    assert run("convert", *arguments, "--out", tmp_path / "ours") == 0
    check_maps(tmp_path / "ours", io)


def test_convert_without_backbone_says_what_is_missing(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("convert", release / "mickey.ckpt", "--out", tmp_path / "ours") == 2
    message = capsys.readouterr().err
    assert "DINOv2" in message and message.count("\n") == 1
    assert not (tmp_path / "ours").exists()


def test_wrong_files_are_one_sentence(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (release / "text.ckpt").write_text("not a checkpoint")
    save_file({"a": torch.zeros(1)}, release / "other.safetensors")
    for checkpoint, backbone in (
        ("text.ckpt", "dinov2.pth"),
        ("other.safetensors", "dinov2.pth"),
        ("dinov2.pth", "dinov2.pth"),
        ("mickey.ckpt", "mickey.ckpt"),
        ("mickey.ckpt", "absent.pth"),
    ):
        arguments = [release / checkpoint, "--backbone", release / backbone, "--out", tmp_path / "ours"]
        assert run("convert", *arguments) == 2, checkpoint
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and "Traceback" not in message
    assert not (tmp_path / "ours").exists()


def test_get_downloads_unpacks_and_converts(
    release: Path,
    shared: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with zipfile.ZipFile(tmp_path / "mickey_weights.zip", "w") as archive:
        for name in ("mickey.ckpt", "config.yaml"):
            archive.write(release / name, f"mickey_weights/{name}")

    def fetched(url: str, destination: Path, **_: Any) -> Path:
        destination.parent.mkdir(parents=True, exist_ok=True)
        destination.write_bytes((tmp_path / "mickey_weights.zip").read_bytes())
        return destination

    monkeypatch.setattr(command, "fetch", fetched)
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    assert run("get", "mickey") == 2  # no backbone yet: the download is kept, and the sentence says what is missing
    assert "--backbone" in capsys.readouterr().err
    assert run("get", "mickey", "--backbone", release / "dinov2.pth", "--backbone-heads", 4) == 0
    assert "non-commercial" in capsys.readouterr().err
    check_maps(tmp_path / "cache" / "mickey", load_file(shared("golden/mickey/mickey_tiny_io.safetensors")))
    assert run("list") == 0
    listed = capsys.readouterr().out
    assert "here" in listed and "metriloc weights get mickey_sc" in listed


def test_get_of_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("get", "superglue") == 2
    assert "mickey" in capsys.readouterr().err


def test_published_entries_are_complete() -> None:
    for entry in command.PUBLISHED:
        assert all(dataclasses.astuple(entry)[:3]) and entry.convert in entry.members
        assert all(url.startswith("https://") for url, _, _ in entry.files)
