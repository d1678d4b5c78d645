"""GPS positions in metres: east, north and up of a place (WGS 84)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io.photo_headers import GpsPosition

_A = 6_378_137.0
_E2 = 6.69437999014e-3


def east_north_up(positions: Sequence[GpsPosition]) -> Float[Tensor, "N 3"]:
    """Metres from the mean of the positions, float64. A missing altitude is the mean of the others."""
    known = [p.altitude for p in positions if p.altitude is not None]
    mean = sum(known) / len(known) if known else 0.0
    earth = torch.tensor(
        [_earth_centered(p.latitude, p.longitude, mean if p.altitude is None else p.altitude) for p in positions],
        dtype=torch.float64,
    ).reshape(-1, 3)
    if not len(earth):
        return earth
    latitude = math.radians(sum(p.latitude for p in positions) / len(positions))
    longitude = math.radians(positions[0].longitude)  # not a mean: degrees jump at the date line
    sin_lat, cos_lat, sin_lon, cos_lon = (
        math.sin(latitude),
        math.cos(latitude),
        math.sin(longitude),
        math.cos(longitude),
    )
    enu_from_earth = torch.tensor(
        [
            [-sin_lon, cos_lon, 0.0],
            [-sin_lat * cos_lon, -sin_lat * sin_lon, cos_lat],
            [cos_lat * cos_lon, cos_lat * sin_lon, sin_lat],
        ],
        dtype=torch.float64,
    )
    return (earth - earth.mean(0)) @ enu_from_earth.mT


def _earth_centered(latitude: float, longitude: float, altitude: float) -> tuple[float, float, float]:
    phi, lam = math.radians(latitude), math.radians(longitude)
    n = _A / math.sqrt(1 - _E2 * math.sin(phi) ** 2)
    return (
        (n + altitude) * math.cos(phi) * math.cos(lam),
        (n + altitude) * math.cos(phi) * math.sin(lam),
        (n * (1 - _E2) + altitude) * math.sin(phi),
    )
