"""What ``metriloc data get`` gets: the parts of each data set, their addresses where they are known, and their places.

Models, retrieved images and training files of PixLoc lie on one server, whose folders are listed when they are asked
for (README of PixLoc). Of photos the READMEs name pages, no addresses: such parts are fetched by hand and given to
``--unpack``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from metriloc.datasets.visloc_files import VISLOC_FILES
from metriloc.io import InputError

PIXLOC_SERVER = "https://cvg-data.inf.ethz.ch/pixloc_CVPR2021/"
"""Of the README of PixLoc."""
DataName = Literal["7scenes", "cambridge", "aachen", "cmu", "robotcar", "megadepth", "mapfree"]


MAPFREE_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Asset:
    """A part of a data set.

    - title: what it is.
    - address: below the server; with a slash at the end a folder whose files are listed; None where none is known.
    - place: folder below the data set that it goes to.
    - by_hand: where no address is known, what the paper's page says instead.
    """

    title: str
    address: str | None
    place: str = ""
    by_hand: str = ""


def _photos(title: str, place: str, by_hand: str) -> Asset:
    return Asset(title, None, place, by_hand)


_TRUTH = "on Google Drive, at no address that PixLoc's README names (its issues call the links broken)"
_CIIRC = "on mirrors of CIIRC, whose addresses PixLoc's README does not name; visuallocalization.net leads to them"
_CAMBRIDGE = (
    "in the repository of Cambridge, of which only the numbers are known: KingsCollege 251342, GreatCourt 251291, "
    "OldHospital 251340, ShopFacade 251336, StMarysChurch 251294"
)
_D2NET = "https://github.com/mihaidusmanu/d2-net#downloading-and-preprocessing-the-megadepth-dataset says how"
_MAPFREE = "https://research.nianticlabs.com/mapfree-reloc-benchmark/dataset says how, after its licence is agreed to"
_MODELS = "models, retrieved images"
EVALUATED: Mapping[DataName, tuple[Asset, ...]] = MappingProxyType(
    {
        "7scenes": (
            Asset(_MODELS, "7Scenes/"),
            _photos("photos", "", "from Microsoft, at no address that PixLoc's README names"),
            _photos("true poses (COLMAP models)", "", _TRUTH),
        ),
        "cambridge": (
            Asset(_MODELS, "Cambridge-Landmarks/"),
            _photos("photos", "", _CAMBRIDGE),
            _photos("true poses (COLMAP models)", "", _TRUTH),
        ),
        "aachen": (Asset(_MODELS, "Aachen-Day-Night/"), _photos("photos", "", _CIIRC)),
        "cmu": (
            Asset(f"{_MODELS}, slice {{slice}}", "Extended-CMU-Seasons/slice{slice}/", "slice{slice}"),
            _photos("photos, slice {slice}", "", _CIIRC),
        ),
        "robotcar": (Asset(_MODELS, "RobotCar-Seasons/"), _photos("photos", "", _CIIRC)),
        "megadepth": (),
        "mapfree": tuple(_photos(f"{split} scenes", split, _MAPFREE) for split in MAPFREE_SPLITS),
    }
)
"""What ``metriloc eval`` reads."""
TRAINED: Mapping[DataName, tuple[Asset, ...]] = MappingProxyType(
    {
        "cmu": (
            Asset("training files of PixLoc", "training/cmu_pixloc_training.tar.gz", "training"),
            _photos("photos of the training slices", "", _CIIRC),
        ),
        "megadepth": (
            Asset("training files of PixLoc", "training/megadepth_pixloc_training.tar.gz", "training"),
            _photos("undistorted photos", "", _D2NET),
        ),
    }
)
"""What ``--training`` adds."""


def assets_of(name: DataName, slices: Sequence[str] = (), *, training: bool = False) -> list[Asset]:
    """The parts of a data set.

    - slices: of cmu, such as ("2", "3"); none for those of its benchmark.
    - training: with PixLoc's training files.

    Raises InputError for slices that there are not, slices of another set, and a set that is not trained on.
    """
    if slices and name != "cmu":
        raise InputError(f"--slices {' '.join(slices)}: {name} has none; they are of cmu")
    if training and name not in TRAINED:
        raise InputError(f"--training: PixLoc has no training files of {name}; of {', '.join(TRAINED)}")
    if name == "megadepth" and not training:
        raise InputError("megadepth is trained on, nothing evaluates on it: give --training")
    files = VISLOC_FILES["cmu"]
    for one in slices:
        if one not in files.known:
            raise InputError(f"cmu has no slice {one!r}: one of {', '.join(files.known)}")
    found = []
    for asset in EVALUATED[name]:
        numbered = "{slice}" in asset.title
        found += [_of_slice(asset, one) for one in (slices or files.parts)] if numbered else [asset]
    return [*found, *(TRAINED[name] if training else ())]


def _of_slice(asset: Asset, number: str) -> Asset:
    address = None if asset.address is None else asset.address.replace("{slice}", number)
    return Asset(asset.title.replace("{slice}", number), address, asset.place.replace("{slice}", number), asset.by_hand)
