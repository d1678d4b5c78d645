"""``metriloc weights``: a released-looking checkpoint becomes a folder that gives the golden maps."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import metriloc.cli.weights as command
from metriloc.backbones.vgg import VGGConfig
from metriloc.cli.main import main
from metriloc.io import InputError
from metriloc.io.weights import resolve_weights
from metriloc.methods.mickey import MicKey
from metriloc.methods.nre.network import NRENetwork, NRENetworkConfig
from metriloc.methods.pixloc import NetworkConfig, PixLoc, PixLocNetwork, UNetConfig

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


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No backbone or weights that the developer has must make a test pass."""
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("METRILOC_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


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


def transformers_names(official: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """DINOv2's names -> those of transformers 4.x and of hub files; queries, keys and values apart."""
    renamed = {}
    for key, value in official.items():
        for old, new in (
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("blocks.", "encoder.layer."),
            ("attn.proj", "attention.output.dense"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
        ):
            key = key.replace(old, new)
        if key in ("cls_token", "mask_token"):
            key = f"embeddings.{key}"
        if key.startswith("norm."):
            key = f"layer{key}"
        if "attn.qkv" in key:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[key.replace("attn.qkv", f"attention.attention.{part}")] = third.contiguous()
        else:
            renamed[key] = value
    return renamed


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout", ["transformers folder", "transformers file", "inside", "beside", "torch.hub", "cache"]
)
def test_every_way_to_the_backbone_gives_the_golden_network(
    layout: str, release: Path, shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = torch.load(release / "dinov2.pth", weights_only=True)
    name, arguments = "dinov2_vitl14_pretrain.pth", []
    found = {
        "beside": release / name,
        "torch.hub": tmp_path / "torch" / "hub" / "checkpoints" / name,
        "cache": tmp_path / "cache" / "official" / name,
    }.get(layout)
    if found is not None:
        found.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(release / "dinov2.pth", found)
    elif layout == "inside":
        content = torch.load(release / "mickey.ckpt", weights_only=True)
        prefix = "compute_matches.extractor.dinov2_vitl14."
        content["state_dict"] |= {f"{prefix}{key}": value for key, value in official.items()}
        torch.save(content, release / "mickey.ckpt")
    else:
        (tmp_path / "hf").mkdir()
        file = tmp_path / "hf" / "model.safetensors"
        save_file(transformers_names(official), file)
        arguments = ["--backbone", file if layout.endswith("file") else file.parent]
    assert run("convert", release / "mickey.ckpt", *arguments, "--backbone-heads", 4, "--out", tmp_path / "ours") == 0
    assert (str(found) in capsys.readouterr().err) == (found is not None)  # what was picked up is said
    check_maps(tmp_path / "ours", load_file(shared("golden/mickey/mickey_tiny_io.safetensors")))


def test_convert_without_backbone_says_what_to_type(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = release / "mickey.ckpt", tmp_path / "ours"
    assert run("convert", checkpoint, "--out", out) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "DINOv2" in message
    assert f"metriloc weights convert '{checkpoint}' --out '{out}' --backbone dinov2_vitl14_pretrain.pth" in message
    assert not out.exists()


@pytest.mark.parametrize("where", ["mickey.ckpt", "dinov2.pth"])
def test_nan_weights_are_not_converted(
    where: str, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(release / where, weights_only=True)
    tensors = content.get("state_dict", content)
    key = next(key for key, value in tensors.items() if value.is_floating_point() and value.ndim == 4)
    tensors[key] = tensors[key] * torch.nan
    torch.save(content, release / where)
    arguments = [release / "mickey.ckpt", "--backbone", release / "dinov2.pth", "--backbone-heads", 4]
    assert run("convert", *arguments, "--out", tmp_path / "ours") == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "NaN" in message and str(release / where) in message
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("text", ["MODEL: [", "- a\n- b\n", "d: 2020-13-45\n", "[" * 5000])
def test_wrong_yaml_is_one_sentence(
    text: str, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (release / "config.yaml").write_text(text)
    arguments = [release / "mickey.ckpt", "--backbone", release / "dinov2.pth", "--backbone-heads", 4]
    assert run("convert", *arguments, "--out", tmp_path / "ours") == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and str(release / "config.yaml") in message


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


@pytest.fixture()
def published(release: Path, tmp_path: Path, serve: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The release as a zip on a server of this machine, in place of the published addresses."""
    with zipfile.ZipFile(tmp_path / "mickey_weights.zip", "w") as archive:
        for name in ("mickey.ckpt", "config.yaml"):
            archive.write(release / name, f"mickey_weights/{name}")
    files = ((f"{serve(tmp_path)}/mickey_weights.zip", None, "mickey_weights.zip"),)
    here = tuple(dataclasses.replace(entry, files=files) for entry in command.PUBLISHED if entry.method == "mickey")
    monkeypatch.setattr(command, "PUBLISHED", here)


@pytest.mark.usefixtures("published")
def test_get_downloads_unpacks_and_converts(
    release: Path, shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("get", "mickey") == 2  # no backbone yet: the download is kept, and the sentence says what is missing
    message = capsys.readouterr().err
    assert "metriloc weights get mickey --backbone dinov2_vitl14_pretrain.pth" in message and "SHA-256" in message
    assert (tmp_path / "cache" / "official" / "SHA256SUMS").read_text().endswith("  mickey_weights.zip\n")
    arguments = ["--backbone", release / "dinov2.pth", "--backbone-heads", 4]
    assert run("get", "mickey", *arguments, "--offline") == 0
    assert "non-commercial" in capsys.readouterr().err
    check_maps(tmp_path / "cache" / "mickey", load_file(shared("golden/mickey/mickey_tiny_io.safetensors")))
    assert (
        MicKey.from_pretrained("mickey").weights_id == MicKey.from_pretrained(tmp_path / "cache" / "mickey").weights_id
    )
    assert run("get", "mickey") == 0  # it is here
    assert run("list") == 0
    listed = capsys.readouterr().out
    assert "here" in listed and "metriloc weights get mickey_sc" in listed
    assert run("get", "mickey_sc", *arguments) == 2  # this archive holds the other one alone
    assert "mickey_sc.ckpt" in capsys.readouterr().err


@pytest.mark.usefixtures("published")
def test_get_offline_says_which_file_goes_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("get", "mickey", "--offline", "--cache", tmp_path / "own") == 2
    message = capsys.readouterr().err
    assert "offline" in message and str(tmp_path / "own" / "official" / "mickey_weights.zip") in message
    assert "bytes" not in message  # no bar of what never begins


def test_get_of_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("get", "superglue") == 2
    assert "mickey" in capsys.readouterr().err


def test_published_entries_are_complete() -> None:
    for entry in command.PUBLISHED:
        assert all(dataclasses.astuple(entry)[:3])
        assert bool(entry.files) != bool(entry.by_hand)
        assert entry.by_hand or entry.convert in (*entry.members, *(name for _, _, name in entry.files))
        assert all(url.startswith("https://") for url, _, _ in entry.files)


@pytest.mark.parametrize("name", ["s2dnet", "nre"])
def test_weights_without_an_address_say_so_and_what_to_do(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("get", name) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "cannot be fetched" in message and "address" in message
    assert run("list") == 0
    assert " ".join(f"by hand: {next(e for e in command.PUBLISHED if e.name == name).by_hand}".split()) in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(InputError, match="cannot be fetched"):
        resolve_weights(name)


# -- PixLoc -----------------------------------------------------------------------------------------------------------
@pytest.fixture()
def pixloc_release(tmp_path: Path) -> dict[str, Any]:
    """As released: tensors, configuration and metrics, with NumPy numbers among them; narrow layers."""
    torch.manual_seed(0)
    extractor = UNetConfig(VGGConfig((2, 2, 4, 4, 4), (4, 4, 6, 6, 8)), (6, 6, 6, 4), channels=(4, 8, 8))
    conf = {"model": {"optimizer": {"pad": 3, "damping": {"type": "constant", "log_range": [-5, 4]}, "verbose": True}}}
    return {
        "model": PixLocNetwork(NetworkConfig(extractor)).state_dict(),
        "conf": conf,
        "epoch": 3,
        "eval": {"loss/total": np.float64(1.25)},
    }


def test_pixloc_is_told_by_its_tensors(
    pixloc_release: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "checkpoint_best.tar", tmp_path / "ours"
    torch.save(pixloc_release, file)
    assert run("convert", file, "--out", out) == 0
    shown = capsys.readouterr().out
    model = PixLoc.from_pretrained(out)
    assert f"converted to {out}: PixLoc, {model.weights_id}" in shown
    assert (model.align.cost.pad, model.align.num_iters) == (3, 100)
    # the tensors alone, and as DistributedDataParallel calls them
    tensors = {f"module.{key}": value for key, value in pixloc_release["model"].items()}
    torch.save(tensors, file)
    assert run("convert", file, "--out", tmp_path / "alone") == 0
    assert PixLoc.from_pretrained(tmp_path / "alone").weights_id == model.weights_id
    save_file({key.removeprefix("module."): value for key, value in tensors.items()}, tmp_path / "c.safetensors")
    assert run("convert", tmp_path / "c.safetensors", "--out", tmp_path / "safe") == 0


def test_get_pixloc_downloads_and_converts_into_what_published_runs_look_for(
    pixloc_release: dict[str, Any],
    tmp_path: Path,
    serve: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(pixloc_release, tmp_path / "checkpoint_best.tar")
    address = f"{serve(tmp_path)}/checkpoint_best.tar"
    here = tuple(
        dataclasses.replace(entry, files=((address, None, entry.convert),)) if entry.method == "pixloc" else entry
        for entry in command.PUBLISHED
        if not entry.by_hand
    )
    monkeypatch.setattr(command, "PUBLISHED", here)
    assert run("get", "pixloc_cmu", "--backbone", "x.pth") == 2
    assert "--backbone is of MicKey" in capsys.readouterr().err
    assert run("get", "pixloc_cmu") == 0
    shown = capsys.readouterr()
    assert f"converted to {tmp_path / 'cache' / 'pixloc_cmu'}" in shown.out and "licence" in shown.err
    assert PixLoc.from_pretrained("pixloc_cmu").align.cost.pad == 3
    assert run("get", "pixloc_cmu", "--offline") == 0  # it is here


def test_wrong_pixloc_checkpoints_are_one_sentence(
    pixloc_release: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out, state = tmp_path / "c.tar", tmp_path / "ours", dict(pixloc_release["model"])
    key = "extractor.adaptation.1.0.bias"
    nan = {**state, key: state[key] * torch.nan}
    for content, options, words in (
        (state, ["--backbone", file], "is a checkpoint of PixLoc: --backbone is of MicKey"),
        ({k: v for k, v in state.items() if k != key}, [], key),
        ({**state, "extractor.extra": state[key]}, [], "'extractor.extra'"),
        (nan, [], f"NaN or infinite values in '{key}'"),
        ({**state, "extractor.encoder.0.0.weight": 3}, [], "is a int, not a tensor"),
    ):
        torch.save({"model": content}, file)
        assert run("convert", file, "--out", out, *options) == 2, words
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and words in message and str(file) in message
    assert not out.exists()


def test_nre_needs_no_converting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fine.ckpt"
    torch.save({"state_dict": NRENetwork(NRENetworkConfig("fine")).state_dict(), "epoch": 1}, file)
    assert run("convert", file, "--out", tmp_path / "ours") == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "is a checkpoint of NRE, which is used as it is" in message
