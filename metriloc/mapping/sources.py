"""All that tells the scale of a map, asked one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metriloc.io.arguments import FARTHEST, require_metres, require_number
from metriloc.io.changed_views import turn_view
from metriloc.io.depth import read_depth
from metriloc.io.files import InputError
from metriloc.io.gps import east_north_up
from metriloc.io.maps import load_map_view
from metriloc.io.photo_headers import read_header
from metriloc.io.positions import read_positions
from metriloc.mapping.facts import GPS_FRAME
from metriloc.mapping.floor import height_reading, require_height
from metriloc.mapping.names import require_name
from metriloc.mapping.photos import QUARTERS
from metriloc.mapping.readings import Positions, depth_reading, distance_reading, position_reading
from metriloc.mapping.scale import MapScale, fused_scale
from metriloc.methods.matching.depth import DepthSource
from metriloc.solvers.scales import ScaleSource
from metriloc.types import SfmMap

DEPTH_ENDINGS = (".depth.png", ".png", ".depth.npy", ".npy", ".depth.tiff", ".tiff")
SENSOR_BIAS = 0.01
"""What depth cameras err by alike in all photos, relative."""
PREDICTED_BIAS = 0.45
"""What networks that predict depth err by alike in all photos of a place that they never saw (logarithm): metriloc-small
by 0.2 in two rooms, by 0.8 in two places outdoors (docs/models/metriloc-small.md)."""
_GPS_PHOTOS = 3


@dataclass(frozen=True)
class ScaleOptions:
    """What is known of a map's metres. Raises InputError for lengths that cannot be.

    distances: (photo, photo, metres). positions: file of ``read_positions``. depth_maps: folder with a depth map for each
    photo, named as it is. camera_height: metres. gps: whether EXIF is asked.
    """

    distances: tuple[tuple[str, str, float], ...] = ()
    distance_sigma: float = 0.01
    positions: Path | None = None
    positions_sigma: float = 0.05
    depth_maps: Path | None = None
    camera_height: float | None = None
    gps: bool = True

    def __post_init__(self) -> None:
        require_number("distance_sigma", self.distance_sigma, 0, FARTHEST)
        require_metres("positions_sigma", self.positions_sigma)
        if self.camera_height is not None:
            require_height(self.camera_height)
        for first, second, metres in self.distances:
            require_metres(f"the distance of {first!r} and {second!r}", metres)

    def check_names(self, names: Sequence[str]) -> None:
        """Raises InputError for a distance to a photo that is none of these, or from a photo to itself."""
        for first, second, metres in self.distances:
            if require_name(names, first) == require_name(names, second):
                raise InputError(
                    f"the distance of {metres:g} m is from {first!r} to {second!r}, which is one photo: name two"
                )

    def as_dict(self) -> dict[str, Any]:
        """As plain numbers and words."""
        return {key: str(value.resolve()) if isinstance(value, Path) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class PredictedDepth:
    """A network that predicts depth. name: how results call it. bias: what it errs by alike in all photos."""

    source: DepthSource
    name: str
    bias: float = PREDICTED_BIAS


def find_scale(
    scene: SfmMap,
    options: ScaleOptions,
    predicted: PredictedDepth | None,
    bar: Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]],
) -> tuple[MapScale | None, list[str]]:
    """The scale of a map whose photos are at hand, None where nothing tells one; and one sentence for each source that was
    found but says nothing. Raises InputError for what was *given* and cannot be used."""
    readings: list[ScaleSource] = []
    notes: list[str] = []
    similarity, frame = None, ""
    for first, second, metres in options.distances:
        readings.append(distance_reading(scene, first, second, metres, options.distance_sigma))
    if options.camera_height is not None:
        readings.append(height_reading(scene, options.camera_height))
    if options.positions is not None:
        known = _given_positions(options.positions, options.positions_sigma)
        reading, similarity = position_reading(scene, known)
        readings.append(reading)
        frame = known.frame
    if options.gps and (known_gps := _gps_positions(scene)) is not None:
        try:
            reading, found = position_reading(scene, known_gps)
            readings.append(reading)
            similarity, frame = (found, known_gps.frame) if similarity is None else (similarity, frame)
        except InputError as error:
            notes.append(str(error))
    readings.extend(_depth_readings(scene, options, predicted, bar))
    return fused_scale(readings, similarity, frame), notes


def _given_positions(file: Path, sigma: float) -> Positions:
    found = read_positions(file, sigma)
    xyz = torch.stack([center for center, _ in found.values()])
    return Positions(tuple(found), xyz, torch.tensor([own for _, own in found.values()], dtype=torch.float64))


def _gps_positions(scene: SfmMap) -> Positions | None:
    """Of the photos that have them in EXIF; None for fewer than three."""
    if scene.folder is None:
        return None
    found = {}
    for name in scene.names:
        try:
            position = read_header(scene.folder / name).position
        except InputError:
            continue
        if position is not None:
            found[name] = position
    if len(found) < _GPS_PHOTOS:
        return None
    sigma = torch.tensor([position.sigma for position in found.values()], dtype=torch.float64)
    return Positions(tuple(found), east_north_up(list(found.values())), sigma, "GPS positions", GPS_FRAME)


def _depth_readings(
    scene: SfmMap,
    options: ScaleOptions,
    predicted: PredictedDepth | None,
    bar: Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]],
) -> Sequence[ScaleSource]:
    found = []
    if options.depth_maps is not None:
        folder = options.depth_maps
        if not folder.is_dir():
            raise InputError(f"'{folder}' is not a folder of depth maps")
        with bar("depth maps") as progress:
            reading = depth_reading(
                scene,
                lambda image: _stored(scene, image, lambda: _depth_file(folder, scene.names[image])),
                what="depth maps",
                bias=SENSOR_BIAS,
                progress=progress,
            )
        if reading is None:
            raise InputError(f"'{folder}' holds no depth map for any photo of the map (NAME.depth.png or NAME.png)")
        found.append(reading)
    if predicted is not None:
        with bar("predicted depth") as progress:
            reading = depth_reading(
                scene,
                lambda image: _predicted(scene, image, predicted.source),
                what=predicted.name,
                bias=predicted.bias,
                kin="predicted depth",
                progress=progress,
            )
        if reading is not None:
            found.append(reading)
    return found


def _depth_file(folder: Path, name: str) -> Tensor | None:
    stem = Path(name).with_suffix("").as_posix()
    for base in dict.fromkeys((stem, Path(stem).name)):
        for ending in DEPTH_ENDINGS:
            file = folder / f"{base}{ending}"
            if file.is_file() and file.resolve() != (folder / name).resolve():
                return read_depth(file)
    return None


def _stored(scene: SfmMap, image: int, upright_depth: Callable[[], Tensor | None]) -> Tensor | None:
    """A depth map of the upright photo, turned as the photo is stored."""
    depth = upright_depth()
    return None if depth is None else torch.rot90(depth, _quarters(scene, image), (0, 1))


def _predicted(scene: SfmMap, image: int, source: DepthSource) -> Tensor | None:
    quarters = _quarters(scene, image)
    upright, _ = turn_view(load_map_view(scene, image), -quarters)
    with torch.inference_mode():
        depth = source(upright)
    return None if depth is None else torch.rot90(depth.cpu(), quarters, (0, 1))


def _quarters(scene: SfmMap, image: int) -> int:
    """How often the upright photo is turned against the clock to be as it is stored."""
    if scene.folder is None:
        return 0
    return QUARTERS.get(read_header(scene.folder / scene.names[image]).exif.orientation, 0)
