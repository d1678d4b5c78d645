"""Which models of the hub are taken: what is wrong with the others is one sentence, and nothing of theirs is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import metriloc
from metriloc.io import InputError
from metriloc.methods.matching.hub_depth import HubDepth
from metriloc.methods.matching.hub_models import find_hub_model, licenses_of

Write = Callable[..., Path]


def fake(folder: Path, config: Any, *, tensors: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if tensors:
        (folder / "model.safetensors").write_bytes(b"not read before the rest is right")
    return folder


# -- without transformers ---------------------------------------------------------------------------------------------
def test_names_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", "model", "a/b/c", "https://x/y", "a/..", "x\0/y"):
        with pytest.raises(InputError, match=r"must be hub:OWNER/NAME, or hub:\./FOLDER"):
            find_hub_model(name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is no folder 'gone'"):
        find_hub_model("./gone")
    with pytest.raises(InputError, match=r"no model of transformers: it has no config\.json"):
        find_hub_model(str(tmp_path))


def test_a_model_that_is_not_here_stays_absent_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("METRILOC_OFFLINE", "1")
    asked: dict[str, Any] = {}

    def snapshot(repository: str, **options: Any) -> str:
        asked.update(options)
        raise hub.errors.LocalEntryNotFoundError(f"nothing of {repository} in the cache")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    with pytest.raises(InputError, match="'someone/absent' could not be had"):
        metriloc.load("hub:someone/absent")
    assert asked["local_files_only"] is True
    assert not any(name.endswith((".py", ".bin", ".pt", ".pth", "*")) for name in asked["allow_patterns"])


def test_pickles_and_code_are_refused(tmp_path: Path) -> None:
    pickled = fake(tmp_path / "pickled", {"model_type": "zoedepth"}, tensors=False)
    (pickled / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(InputError, match=r"has no model\.safetensors, and weights of other kinds \(pickles\)"):
        find_hub_model(str(pickled))
    for config in (
        {"model_type": "depth_pro", "auto_map": {"AutoModel": "evil.Model"}},
        {"model_type": "lightglue", "keypoint_detector_config": {"auto_map": {"AutoConfig": "a--b.C"}}},
        {"model_type": "zoedepth", "use_pretrained_backbone": True},
    ):
        with pytest.raises(InputError, match="asks for code or weights of another place"):
            find_hub_model(str(fake(tmp_path / "code", config)))
    for text in ("[1]", "{", '"depth_pro"'):
        with pytest.raises(InputError, match=r"config\.json"):
            find_hub_model(str(fake(tmp_path / "torn", text)))


def test_other_architectures_are_named(tmp_path: Path) -> None:
    for kind in ("dpt", "llama", None):
        with pytest.raises(
            InputError, match=f"is '{kind}', which gives no depth in metres here: one of depth_anything"
        ):
            metriloc.load("xfeat", depth=f"hub:{fake(tmp_path / 'm', {'model_type': kind})}")
        with pytest.raises(InputError, match=f"is '{kind}', which matches no photos here: one of superpoint"):
            metriloc.load(f"hub:{tmp_path / 'm'}")


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    folder = fake(tmp_path / "m", {"model_type": "zoedepth"})
    with pytest.raises(InputError, match=r'needs transformers: pip install "metriloc\[hub\]"'):
        metriloc.load("xfeat", depth=f"hub:{folder}")


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: apache-2.0\n---\n# Model", "apache-2.0"),
        ("---\ntags:\n- a\nlicense: 'other'\nlicense_name: magic-leap\nlicense_link: x\n---\n", "magic-leap (other)"),
        ("---\nlicense:\n- mit\n- cc-by-nc-4.0\ntags: x\n---\n", "mit, cc-by-nc-4.0"),
        ("---\r\nlicense: [mit]\r\n---\r\n", "mit"),
        ("---\nlibrary_name: transformers\n---\nlicense: mit", "no licence stated"),
        ("# license: mit", "no licence stated"),
        ("---\nlicense:\n---\n", "no licence stated"),
        (b"\xff\xfe\x00", "no licence stated"),
        (None, "no licence stated"),
    ],
)
def test_the_licence_of_a_card(tmp_path: Path, card: str | bytes | None, license: str) -> None:
    folder = fake(tmp_path / "m", {"model_type": "zoedepth"})
    if card is not None:
        (folder / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    assert find_hub_model(str(folder)).license == license
    told = licenses_of(f"hub:{folder}", "xfeat", f"hub:{folder}")
    assert told == (f"hub:{folder}: licence by its card: {license}",)


# -- with transformers ------------------------------------------------------------------------------------------------
@pytest.mark.hub
def test_missing_tensors_are_not_made_up(checkpoint: Write) -> None:
    folder = checkpoint("depth_anything")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    gone = next(name for name in tensors if name.startswith("head."))
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, path, {"format": "pt"})
    with pytest.raises(InputError, match="1 tensors of depth_anything are missing or of another shape, such as head"):
        HubDepth(find_hub_model(str(folder)))


@pytest.mark.hub
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"fusion_hidden_size": "many"}),
        ("config.json", {"fusion_hidden_size": 12}),
        ("config.json", {"backbone_config": {"model_type": "none"}}),
        ("preprocessor_config.json", {"image_processor_type": "Nobody"}),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(checkpoint: Write, name: str, change: dict[str, Any]) -> None:
    path = checkpoint("depth_anything") / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"^hub:") as caught:
        HubDepth(find_hub_model(str(path.parent)))
    assert "\n" not in str(caught.value)


@pytest.mark.hub
def test_damaged_tensors_and_odd_sizes_are_one_sentence(checkpoint: Write) -> None:
    folder = checkpoint("superpoint")
    settings = folder / "preprocessor_config.json"
    for size in ({"height": 10**9, "width": 640}, {"height": "480", "width": 640}):
        settings.write_text(json.dumps({"size": size}))
        with pytest.raises(InputError, match="size must be 32 to 4096 pixels"):
            metriloc.load(f"hub:{folder}")
    settings.unlink()
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="could not be loaded as superpoint"):
        metriloc.load(f"hub:{folder}")


@pytest.mark.hub
def test_the_id_is_of_tensors_and_settings(checkpoint: Write) -> None:
    folder = checkpoint("depth_anything")
    before = find_hub_model(str(folder)).weights_id
    assert find_hub_model(str(folder)).weights_id == before
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"max_depth": 20', '"max_depth": 80'))
    assert find_hub_model(str(folder)).weights_id != before
