"""``metriloc weights list | get | convert``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from metriloc.backbones import DinoV2Config
from metriloc.cli.transfers import transfer_bar
from metriloc.io import InputError
from metriloc.io.archives import extract_members
from metriloc.io.download import SUMS, cache_folder, fetch, file_sha256
from metriloc.io.packaged import BUNDLED, bundled_folder
from metriloc.io.published import PUBLISHED, Published
from metriloc.io.weights import (
    TENSORS,
    is_bundled,
    load_state_dict_strictly,
    read_checkpoint,
    require_finite,
    resolve_weights,
)
from metriloc.io.yaml_file import read_yaml
from metriloc.methods.mickey import MicKey
from metriloc.methods.mickey.checkpoint import (
    config_from_weights,
    config_from_yaml,
    from_official,
    solver_config_from_yaml,
)
from metriloc.methods.mickey.network import MicKeyNetwork
from metriloc.methods.mickey.solver import SolverConfig
from metriloc.methods.nre.checkpoint import read_official
from metriloc.methods.pixloc.checkpoint import convert_checkpoint, is_official, read_released

BACKBONE = "dinov2_vitl14_pretrain.pth"
_INDENT = " " * 17


def weights_list() -> int:
    """The weights metriloc knows by name, their licences, and whether they are in the package or the cache."""
    folder = cache_folder()
    for own in BUNDLED:
        here = (
            f"here, part of metriloc: {bundled_folder(own.name)}"
            if is_bundled(own.name)
            else "not in this installation"
        )
        print(f"{own.name:<16} {own.description}\n{_INDENT}licence: {own.license}\n{_INDENT}{here}")
    for entry in PUBLISHED:
        here = f"get it: metriloc weights get {entry.name}" if not entry.by_hand else f"by hand: {entry.by_hand}"
        if (folder / entry.name / TENSORS).is_file():
            here = "here"
        print(f"{entry.name:<16} {entry.description}\n{_INDENT}licence: {entry.license}\n{_INDENT}{here}")
    print(f"\ncache: {folder}")
    return 0


def weights_get(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    backbone: Path | None = None,
    backbone_heads: int | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> int:
    """Download official weights, check them and convert them.

    Args:
        name: A name of ``metriloc weights list``.
        backbone: The official DINOv2 ViT-L/14 file (raw .pth or transformers), which MicKey's release leaves out; by
            default dinov2_vitl14_pretrain.pth in the cache or where torch.hub keeps it, if there.
        backbone_heads: Attention heads of a backbone that is none of ViT-S, B and L.
        cache: Folder to put them in instead of METRILOC_CACHE.
        offline: Never ask the network; use what the cache holds.
    """
    known = {entry.name: entry for entry in PUBLISHED}
    if name in {own.name for own in BUNDLED}:
        print(f"{name} comes with metriloc: {resolve_weights(name)}")
        return 0
    if name not in known:
        raise InputError(f"there are no published weights {name!r}: one of {', '.join(known)}")
    entry, root = known[name], cache or cache_folder()
    target, folder = root / entry.name, root / "official"
    if (target / TENSORS).is_file() and backbone is None:
        print(f"{name} is here: {target}")
        return 0
    if entry.by_hand:
        raise InputError(f"the weights {name!r} cannot be fetched: {entry.by_hand}")
    if entry.method == "pixloc":
        _refuse_options_of_mickey(f"{name} is of PixLoc", {"backbone": backbone, "backbone-heads": backbone_heads})
    print(f"{entry.name}: licence: {entry.license}", file=sys.stderr)
    _fetch(entry, folder, offline)
    if entry.method == "pixloc":
        print(f"converted to {target}: PixLoc, {convert_checkpoint(folder / entry.convert, target)}")
        return 0
    command = f"metriloc weights get {name}" + (f" --cache '{cache}'" if cache is not None else "")
    return _convert(folder / entry.convert, target, folder / "config.yaml", backbone, backbone_heads, command)


def _fetch(entry: Published, folder: Path, offline: bool) -> None:
    for url, sha256, filename in entry.files:
        with transfer_bar(filename) as progress:
            archive = fetch(url, folder / filename, sha256=sha256, offline=offline or None, progress=progress)
        if sha256 is None:
            note = f"the publisher gives none to compare; recorded in {SUMS} beside it"
            print(f"{filename}: SHA-256 {file_sha256(archive)} ({note})", file=sys.stderr)
        if entry.members:
            extract_members(archive, entry.members, folder)


def weights_convert(
    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")],
    out: Path,
    config: Path | None = None,
    backbone: Path | None = None,
    backbone_heads: int | None = None,
) -> int:
    """Turn an official checkpoint of MicKey or PixLoc (told apart by their tensors) into a metriloc weights folder.

    Args:
        checkpoint: mickey.ckpt, mickey_sc.ckpt, or PixLoc's checkpoint_best.tar.
        out: Folder for config.json and model.safetensors.
        config: Of MicKey: the YAML released with it; by default config.yaml or the checkpoint's name beside it, if there.
        backbone: Of MicKey: the DINOv2 weights: official .pth, or transformers' file or folder; by default
            dinov2_vitl14_pretrain.pth beside the checkpoint, in the cache or where torch.hub keeps it, if there.
        backbone_heads: Of MicKey: attention heads of a backbone that is none of ViT-S, B and L.
    """
    if checkpoint.is_dir():
        raise InputError(
            f"'{checkpoint}' is a folder: what metriloc has trained or converted is used as it is (--weights)"
        )
    if _is_of_pixloc(checkpoint):
        given = {"config": config, "backbone": backbone, "backbone-heads": backbone_heads}
        _refuse_options_of_mickey(f"'{checkpoint}' is a checkpoint of PixLoc", given)
        identity = convert_checkpoint(checkpoint, out)
        print(f"converted to {out}: PixLoc, {identity}")
        return 0
    command = f"metriloc weights convert '{checkpoint}' --out '{out}'"
    return _convert(checkpoint, out, config or _yaml_beside(checkpoint), backbone, backbone_heads, command)


def _refuse_options_of_mickey(what: str, given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{what}: --{name} is of MicKey")


def _is_of_pixloc(checkpoint: Path) -> bool:
    """Raises InputError for a checkpoint of a method that takes it as it is, and for none."""
    try:
        content = read_released(checkpoint)
    except InputError:
        _refuse_nre(checkpoint)  # Lightning keeps more than tensors in its checkpoints
        raise
    if is_official(content):
        return True
    tensors = content.get("state_dict", content)
    if isinstance(tensors, Mapping) and any(str(key).startswith("cnn.") for key in tensors):
        _refuse_nre(checkpoint)
    return False


def _refuse_nre(checkpoint: Path) -> None:
    try:
        read_official(checkpoint)
    except InputError:
        return
    use = "--method nre --features nre --weights COARSE,FINE"
    raise InputError(
        f"'{checkpoint}' is a checkpoint of NRE, which is used as it is: metriloc localize MAP QUERY {use}"
    )


def _convert(
    checkpoint: Path, out: Path, config: Path | None, backbone: Path | None, backbone_heads: int | None, command: str
) -> int:
    """command: what the user typed, for the sentence that says what else to type."""
    official = read_checkpoint(checkpoint)
    if backbone is None and not _holds_backbone(official):
        backbone = _find_backbone(checkpoint.parent)
        if backbone is None:
            raise InputError(
                f"'{checkpoint}' is here but holds no backbone, as released: get {BACKBONE} of DINOv2 "
                f"(https://github.com/facebookresearch/dinov2), then: {command} --backbone {BACKBONE}"
            )
        print(f"backbone: {backbone}", file=sys.stderr)
    tensors = from_official(official, None if backbone is None else _read_backbone(backbone))
    require_finite(tensors, f"'{checkpoint}'")
    network_config, solver = config_from_weights(tensors, backbone_heads), SolverConfig()
    if config is None:
        print("no YAML beside the checkpoint: the settings of the released models are assumed", file=sys.stderr)
    else:
        values = read_yaml(config)
        dinov2 = network_config.backbone if isinstance(network_config.backbone, DinoV2Config) else None
        try:
            network_config, solver = config_from_yaml(values, dinov2), solver_config_from_yaml(values)
        except ValueError as error:
            raise InputError(f"'{config}': {error}") from error
    with torch.device("meta"):
        network = MicKeyNetwork(network_config)
    load_state_dict_strictly(network, tensors, f"'{checkpoint}'")
    MicKey(network, solver).save_pretrained(out)
    print(f"converted to {out}")
    return 0


def _holds_backbone(official: Mapping[str, Any]) -> bool:
    tensors = official.get("state_dict", official)
    # what is no table of names is refused by from_official, with a better sentence than ours
    return not isinstance(tensors, Mapping) or any("dinov2" in str(key) for key in tensors)


def _find_backbone(beside: Path) -> Path | None:
    folders = (beside, cache_folder() / "official", Path(torch.hub.get_dir()) / "checkpoints")
    return next((folder / BACKBONE for folder in folders if (folder / BACKBONE).is_file()), None)


def _read_backbone(path: Path) -> dict[str, Any]:
    if path.is_dir():
        files = [path / name for name in ("model.safetensors", "pytorch_model.bin") if (path / name).is_file()]
        if not files:
            raise InputError(f"'{path}' holds neither model.safetensors nor pytorch_model.bin")
        path = files[0]
    tensors = read_checkpoint(path)
    require_finite(tensors, f"'{path}'")
    return tensors


def _yaml_beside(checkpoint: Path) -> Path | None:
    candidates = [checkpoint.with_suffix(".yaml"), checkpoint.with_name("config.yaml")]
    return next((path for path in candidates if path.is_file()), None)
