"""Weights on disk: bit-equal round trips, strict loading, and nothing dangerous or broken gets in."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from metriloc.io import InputError
from metriloc.io.weights import (
    CONFIG,
    TENSORS,
    extract_members,
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


def test_interrupted_save_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_weights(tmp_path, "test", {}, STATE)
    before = load_weights(tmp_path, "test")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_weights(tmp_path, "test", {}, {"a": torch.zeros(1)})
    monkeypatch.undo()
    assert load_weights(tmp_path, "test").weights_id == before.weights_id
    assert {p.name for p in tmp_path.iterdir()} == {CONFIG, TENSORS}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no folder", "not a weights folder"),
        ("no config", CONFIG),
        ("config no json", "not JSON"),
        ("config a list", "list"),
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
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="list"):
        read_checkpoint(path)


def test_resolving_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    save_weights(tmp_path / "w", "test", {}, STATE)
    assert resolve_weights(tmp_path / "w") == tmp_path / "w"
    with pytest.raises(InputError, match="metriloc weights get mickey"):
        resolve_weights("mickey")
    save_weights(tmp_path / "cache" / "mickey", "mickey", {}, STATE)
    assert resolve_weights("mickey") == tmp_path / "cache" / "mickey"
    (tmp_path / "mickey.ckpt").write_bytes(b"x")
    with pytest.raises(InputError, match="metriloc weights convert"):
        resolve_weights(tmp_path / "mickey.ckpt")
    with pytest.raises(InputError, match="metriloc weights list"):
        resolve_weights("nothing-of-that-name")


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


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as content:
        for name, data in members.items():
            content.writestr(name, data)
    return path


def test_zip_members_come_out_by_bare_name_only(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"x/../../evil/mickey.ckpt": b"weights", "y/config.yaml": b"c", "/abs": b""})
    (tmp_path / "out").mkdir()
    written = extract_members(path, ("mickey.ckpt", "config.yaml"), tmp_path / "out")
    assert [p.read_bytes() for p in written] == [b"weights", b"c"]
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        "a.zip",
        "out/mickey.ckpt",
        "out/config.yaml",
    }


def test_bad_archives(tmp_path: Path) -> None:
    cases = [
        ({"other": b""}, "0 files named"),
        ({"a/mickey.ckpt": b"1", "b/mickey.ckpt": b"2"}, "2 files named"),
        ({"mickey.ckpt": b"12345"}, "limit"),
    ]
    for members, message in cases:
        path = archive(tmp_path / "a.zip", members)
        with pytest.raises(InputError, match=message):
            extract_members(path, ("mickey.ckpt",), tmp_path, max_bytes=4)
    (tmp_path / "b.zip").write_bytes(io.BytesIO(b"no zip").getvalue())
    with pytest.raises(InputError, match="not a zip"):
        extract_members(tmp_path / "b.zip", ("x",), tmp_path)
