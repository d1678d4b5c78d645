"""Official weights by name: where they are, and which cannot be fetched because no page names an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """Official weights that metriloc can fetch and convert.

    files: (url, SHA-256 or None where the publisher gives none, file name). members: what to take out of a zip. convert:
    the file that becomes ours. method: whose weights they are. by_hand: why there is no address, and what to do.
    """

    name: str
    description: str
    license: str
    files: tuple[tuple[str, str | None, str], ...] = ()
    members: tuple[str, ...] = ()
    convert: str = ""
    method: Literal["mickey", "pixloc", "nre"] = "mickey"
    by_hand: str = ""


_MICKEY_ZIP = "https://storage.googleapis.com/niantic-lon-static/research/mickey/assets/mickey_weights.zip"
_MICKEY_LICENSE = "non-commercial research licence of Niantic, patent pending"
_PIXLOC = "https://cvg-data.inf.ethz.ch/pixloc_CVPR2021/checkpoints/"
_PIXLOC_LICENSE = "none stated for the weights; PixLoc's code is Apache-2.0"
PUBLISHED = (
    Published(
        "mickey",
        "MicKey trained on Map-free without overlap scores (the paper's main model)",
        _MICKEY_LICENSE,
        ((_MICKEY_ZIP, None, "mickey_weights.zip"),),
        ("mickey.ckpt", "config.yaml"),
        "mickey.ckpt",
    ),
    Published(
        "mickey_sc",
        "MicKey trained on Map-free with overlap scores",
        _MICKEY_LICENSE,
        ((_MICKEY_ZIP, None, "mickey_weights.zip"),),
        ("mickey_sc.ckpt", "config.yaml"),
        "mickey_sc.ckpt",
    ),
    Published(
        "pixloc_megadepth",
        "PixLoc trained on MegaDepth (VGG-19), of 7-Scenes, Cambridge and Aachen",
        _PIXLOC_LICENSE,
        ((f"{_PIXLOC}pixloc_megadepth/checkpoint_best.tar", None, "pixloc_megadepth.tar"),),
        convert="pixloc_megadepth.tar",
        method="pixloc",
    ),
    Published(
        "pixloc_cmu",
        "PixLoc trained on CMU (VGG-16), of Extended CMU and RobotCar Seasons",
        _PIXLOC_LICENSE,
        ((f"{_PIXLOC}pixloc_cmu/checkpoint_best.tar", None, "pixloc_cmu.tar"),),
        convert="pixloc_cmu.tar",
        method="pixloc",
    ),
    Published(
        "s2dnet",
        "S2DNet's features for PixLoc's alignment",
        "not known here",
        method="pixloc",
        by_hand="no page of PixLoc or NRE names an address of s2dnet_weights.pth; a file that you have: "
        "metriloc weights convert s2dnet_weights.pth --out FOLDER",
    ),
    Published(
        "nre",
        "NRE's coarse and fine networks",
        "CC0 1.0 (NRE's repository)",
        method="nre",
        by_hand="NRE's README names no address, only its repository, https://github.com/germain-hug/NRE; files that you "
        "have are used as they are: metriloc localize MAP QUERY --features nre --weights COARSE,FINE",
    ),
)
"""All that ``metriloc weights list`` names besides those of the package."""
