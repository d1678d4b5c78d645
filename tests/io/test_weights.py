"""Weights on disk: bit-equal round trips, strict loading, and nothing dangerous or broken gets in."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metriloc.io import InputError
from metriloc.io.weights import (
    CONFIG,
    TENSORS,
    file_identity,
    load_state_dict_strictly,
    load_weights,
    read_checkpoint,
    resolve_weights,
    save_weights,
)

STATE = {"a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(7)}


def test_round_trip_is_bit_equal(tmp_path: Path) -> None:
    identity = save_weights(tmp_path / "w", "test", {"width": 3}, STATE)
    for source in (tmp_path / "w", tmp_path / "w" / TENSORS):
        found = load_weights(source, "test")
        assert found.config["width"] == 3 and found.weights_id == identity
        assert all(torch.equal(found.tensors[k], v) and found.tensors[k].dtype == v.dtype for k, v in STATE.items())
    assert identity == f"test-{file_identity(tmp_path / 'w' / TENSORS)}"
    assert {p.name for p in (tmp_path / "w").iterdir()} == {CONFIG, TENSORS}


@pytest.mark.parametrize(
    ("place", "name"),
    [("metriloc.io.weights.file_sha256", "during"), ("os.replace", "renaming"), ("json.dumps", "config")],
)
def test_interrupted_save_leaves_the_old_pair(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(tmp_path, "test", {}, STATE)
    before = load_weights(tmp_path, "test")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, stop)
    with pytest.raises(KeyboardInterrupt):
        save_weights(tmp_path, "test", {}, {"a": torch.zeros(1)})
    monkeypatch.undo()
    assert load_weights(tmp_path, "test").weights_id == before.weights_id
    assert {p.name for p in tmp_path.iterdir()} == {CONFIG, TENSORS}


def test_a_pair_torn_between_the_renames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(tmp_path, "test", {}, STATE)
    replace = os.replace

    def first_only(source: Path, target: Path) -> None:
        if Path(target).name == TENSORS:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", first_only)
    with pytest.raises(KeyboardInterrupt):
        save_weights(tmp_path, "test", {}, {"a": torch.zeros(1)})
    with pytest.raises(InputError, match="SHA-256"):
        load_weights(tmp_path, "test")


def test_saving_refuses_what_could_not_be_loaded(tmp_path: Path) -> None:
    before = save_weights(tmp_path / "w", "test", {}, STATE)
    for bad in (torch.tensor([1.0, torch.inf]), torch.tensor([complex(0, torch.nan)])):
        with pytest.raises(InputError, match="'a'"):
            save_weights(tmp_path / "w", "test", {}, {"a": bad})
    assert load_weights(tmp_path / "w", "test").weights_id == before
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="a file is in the way"):
        save_weights(tmp_path / "file", "test", {}, STATE)


def test_tensors_that_share_memory_and_odd_types_are_saved(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    state = {"whole": whole, "row": whole[1], "turned": whole.mT, "tiny": torch.ones(2).to(torch.float8_e4m3fn)}
    save_weights(tmp_path, "test", {}, state)
    found = load_weights(tmp_path, "test").tensors
    assert all(torch.equal(found[key].float(), value.float()) for key, value in state.items())


@pytest.mark.skipif(os.name == "nt", reason="permission bits of POSIX")
def test_both_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    save_weights(tmp_path / "w", "test", {}, STATE)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "any", *(tmp_path / "w").iterdir())}
    assert len(modes) == 1


def test_the_file_that_is_named_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    save_weights(tmp_path, "test", {}, STATE)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors"):
        load_weights(tmp_path / "other.safetensors", "test")
    with pytest.raises(InputError, match=r"absent\.safetensors' does not exist"):
        load_weights(tmp_path / "absent.safetensors", "test")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no folder", "not a weights folder"),
        ("no config", CONFIG),
        ("config no json", "not JSON"),
        ("config a list", "list"),
        ("config too deep", "not JSON"),
        ("config too large", "bytes"),
        ("other method", "'pixloc'"),
        ("other version", "format_version"),
        ("no tensors", TENSORS),
        ("truncated", "damaged"),
        ("nan", "'a'"),
        ("exchanged", "SHA-256"),
    ],
)
def test_damaged_folders_are_one_sentence(damage: str, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    save_weights(folder, "pixloc" if damage == "other method" else "test", {}, STATE)
    config, tensors = folder / CONFIG, folder / TENSORS
    content = json.loads(config.read_text())
    if damage == "no folder":
        folder = tmp_path / "absent"
    elif damage == "no config":
        config.unlink()
    elif damage == "config no json":
        config.write_text("{")
    elif damage == "config a list":
        config.write_text("[]")
    elif damage == "config too deep":
        config.write_text("[" * 100_000)
    elif damage == "config too large":
        config.write_text(" " * (2 << 20))
    elif damage == "other version":
        config.write_text(json.dumps({**content, "format_version": 99}))
    elif damage == "no tensors":
        tensors.unlink()
    elif damage == "truncated":
        tensors.write_bytes(tensors.read_bytes()[:40])
    elif damage == "nan":
        save_file({**STATE, "a": torch.full((3, 4), torch.nan)}, tensors)
    elif damage == "exchanged":
        save_file({**STATE, "a": torch.zeros(3, 4)}, tensors)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(folder, "test")
    assert "\n" not in str(caught.value)


def test_strict_loading_names_the_first_problem() -> None:
    module = nn.Linear(2, 3)
    good = {k: torch.zeros_like(v) for k, v in module.state_dict().items()}
    load_state_dict_strictly(module, good, "x")
    assert module.weight.eq(0).all() and module.weight.requires_grad
    for state, message in (
        ({"weight": good["weight"]}, "1 tensors are missing, the first is 'bias'"),
        ({**good, "extra": torch.zeros(1)}, "unexpected tensors, the first is 'extra'"),
        ({**good, "weight": torch.zeros(9)}, r"'weight' has shape \[9\], not \[3, 2\]"),
    ):
        with pytest.raises(InputError, match=message):
            load_state_dict_strictly(module, state, "x")


class Payload:
    """Unpickling this would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_checkpoints_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    evil = tmp_path / "evil.ckpt"
    torch.save({"state_dict": Payload(trap)}, evil)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Payload(trap)))
    for path in (evil, tmp_path / "plain.pkl"):
        with pytest.raises(InputError) as caught:
            read_checkpoint(path)
        assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"text, no checkpoint", b"PK\x03\x04broken zip", b"\x80\x02."])
def test_files_that_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.ckpt"):
        read_checkpoint(path)


def test_truncated_checkpoint_and_other_content(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save(STATE, path)
    assert torch.equal(read_checkpoint(path)["a"], STATE["a"])
    torch.save(STATE, path, _use_new_zipfile_serialization=False)  # as before torch 1.6
    assert torch.equal(read_checkpoint(path)["a"], STATE["a"])
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="list"):
        read_checkpoint(path)


def test_resolving_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    save_weights(tmp_path / "w", "test", {}, STATE)
    assert resolve_weights(tmp_path / "w") == resolve_weights(tmp_path / "w" / CONFIG) == tmp_path / "w"
    with pytest.raises(InputError, match="metriloc weights get mickey"):
        resolve_weights("mickey")
    save_weights(tmp_path / "cache" / "mickey", "mickey", {}, STATE)
    assert resolve_weights("mickey") == tmp_path / "cache" / "mickey"
    (tmp_path / "mickey.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match="metriloc weights convert"):
        resolve_weights(tmp_path / "mickey.ckpt")
    # none of these is a hub name either
    for name in (
        "nothing-of-that-name",
        "",
        "a" * 5000,
        "x\0y",
        "~/w",
        "a/b/c",
        "https://x/y",
        "weights/mickey.ckpt",
        "A/..",
    ):
        with pytest.raises(InputError, match="metriloc weights list"):
            resolve_weights(name)


def test_hub_names_go_to_the_hub_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    save_weights(tmp_path / "snapshot", "test", {}, STATE)
    asked: dict[str, object] = {}

    def snapshot(repository: str, **options: object) -> str:
        asked.update(repository=repository, **options)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert resolve_weights("someone/model@v2", offline=True) == tmp_path / "snapshot"
    assert asked["repository"] == "someone/model" and asked["revision"] == "v2"
    assert asked["local_files_only"] is True and set(asked["allow_patterns"]) == {CONFIG, TENSORS}  # type: ignore[call-overload]
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="someone/absent"):
        resolve_weights("someone/absent", offline=True)


def test_an_archive_in_two_parts_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    torch.save({"a": torch.ones(2)}, path)
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    # the locator of a zip64 directory that says it is on another disk
    path.write_bytes(data[:end] + struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2) + data[end:])
    with pytest.raises(InputError, match=r"m\.ckpt' is not a checkpoint"):
        read_checkpoint(path)
