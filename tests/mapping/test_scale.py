"""Metres of a map: every source finds a known scale, and the sigma that it states holds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.gps import east_north_up
from metriloc.io.photo_headers import GpsPosition
from metriloc.io.positions import read_positions
from metriloc.mapping.floor import height_reading
from metriloc.mapping.readings import Positions, depth_reading, distance_reading, position_reading
from metriloc.mapping.scale import fused_scale
from metriloc.solvers.scales import ScaleSource, fuse_scales
from metriloc.solvers.similarity import fit_similarity, robust_similarity
from metriloc.types import SfmMap

SCALE = 3.7
Shrink = Callable[[SfmMap, float], SfmMap]


def test_a_distance_tells_the_scale(true_map: SfmMap, shrunk: Shrink) -> None:
    metres = float(true_map.cam_from_world[0].center_distance(true_map.cam_from_world[7]))
    reading = distance_reading(shrunk(true_map, SCALE), "00.png", "walk/07.png", metres)
    assert math.exp(reading.log_length) == pytest.approx(SCALE, rel=1e-9)
    # a tape's centimetre, and what a map bends
    assert 0.01 / metres < reading.sigma < 0.02 / metres


@pytest.mark.parametrize(
    ("first", "second", "metres", "said"),
    [
        ("00.png", "99.png", 1.0, "no photo '99.png'"),
        ("00.png", "00.png", 1.0, "at one place"),
        ("00.png", "01.png", -1.0, "positive number of metres"),
        ("00.png", "01.png", math.nan, "positive number of metres"),
    ],
)
def test_distances_that_say_nothing(true_map: SfmMap, first: str, second: str, metres: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        distance_reading(true_map, first, second, metres)


def positions_of(scene: SfmMap, sigma: float, generator: torch.Generator) -> Positions:
    centers = scene.cam_from_world.center()
    noise = sigma * torch.randn(centers.shape, generator=generator, dtype=torch.float64)
    return Positions(scene.names, centers + noise, torch.full((len(scene),), max(sigma, 1e-4), dtype=torch.float64))


def test_positions_tell_scale_and_frame_whatever_one_of_them_says(true_map: SfmMap, shrunk: Shrink) -> None:
    known = positions_of(true_map, 0.0, torch.Generator().manual_seed(1))
    known.xyz[2] += 5.0
    reading, found = position_reading(shrunk(true_map, SCALE), known)
    assert math.exp(reading.log_length) == pytest.approx(SCALE, rel=1e-6)
    assert found is not None and found.inliers.tolist() == [n != 2 for n in range(8)]
    moved = found.transform(shrunk(true_map, SCALE).xyz)
    torch.testing.assert_close(moved, true_map.xyz, atol=1e-6, rtol=0)


def test_the_stated_sigma_of_positions_is_the_scatter(true_map: SfmMap) -> None:
    generator = torch.Generator().manual_seed(2)
    errors, stated = [], []
    for _ in range(60):
        reading, _ = position_reading(true_map, positions_of(true_map, 0.02, generator))
        errors.append(reading.log_length)
        stated.append(reading.sigma)
    scatter = float(torch.tensor(errors).square().mean().sqrt())
    assert 0.7 < scatter / (sum(stated) / len(stated)) < 1.3


def test_cameras_in_one_line_tell_the_scale_but_no_frame(true_map: SfmMap, shrunk: Shrink) -> None:
    line = torch.arange(8, dtype=torch.float64)[:, None] * torch.tensor([0.5, 0.1, 0.0], dtype=torch.float64)
    R = true_map.cam_from_world.R
    straight = dataclasses.replace(true_map, cam_from_world=Pose(R, -(R @ line[..., None])[..., 0]))
    known = Positions(straight.names, line, torch.full((8,), 0.01, dtype=torch.float64))
    reading, found = position_reading(shrunk(straight, SCALE), known)
    assert found is None
    assert math.exp(reading.log_length) == pytest.approx(SCALE, rel=1e-6)


def test_positions_of_another_place_are_refused(true_map: SfmMap) -> None:
    wrong = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = Positions(true_map.names, wrong, torch.full((8,), 0.001, dtype=torch.float64))
    with pytest.raises(InputError, match="contradict the map"):
        position_reading(true_map, known)
    with pytest.raises(InputError, match="name 0 photos"):
        position_reading(true_map, Positions(("a", "b", "c"), wrong[:3], known.sigma[:3]))


def test_depth_tells_the_scale_and_its_bias_stays(true_map: SfmMap, shrunk: Shrink) -> None:
    def depth_of(image: int) -> torch.Tensor | None:
        # exact at the pixels that are looked at: a plane in front of each camera would not be
        depth = torch.zeros(240, 320, dtype=torch.float64)
        seen = true_map.observations_of(image)
        z = true_map.cam_from_world[image].transform(true_map.xyz[true_map.point_index[seen]])[:, 2]
        uv = true_map.uv[seen].round().long()
        depth[uv[:, 1].clamp(0, 239), uv[:, 0].clamp(0, 319)] = z
        return depth if image != 3 else None

    reading = depth_reading(shrunk(true_map, SCALE), depth_of, what="depth maps", bias=0.2)
    assert reading is not None
    assert math.exp(reading.log_length) == pytest.approx(SCALE, rel=0.02)
    assert 0.2 <= reading.sigma < 0.21 and "7 photos" in reading.said
    assert depth_reading(true_map, lambda image: None, what="depth maps", bias=0.2) is None


def test_the_height_of_cameras_tells_the_scale(true_map: SfmMap, shrunk: Shrink) -> None:
    reading = height_reading(shrunk(true_map, SCALE), 1.45)
    assert math.exp(reading.log_length) == pytest.approx(SCALE, rel=0.08)
    nothing_below = dataclasses.replace(true_map, xyz=true_map.xyz - torch.tensor([0.0, 10.0, 0.0]))
    with pytest.raises(InputError, match="no floor"):
        height_reading(nothing_below, 1.5)


def test_a_scale_tells_its_sources_and_who_contradicts_whom() -> None:
    sources = [ScaleSource("tape", 1.0, 0.01, said="1 m"), ScaleSource("gps", 1.03, 0.02), ScaleSource("net", 2.0, 0.3)]
    found = fused_scale(sources, None, "")
    assert found is not None and found.facts is not None
    assert found.scale == pytest.approx(math.exp(fuse_scales(sources).log_length))
    assert [source["name"] for source in found.facts.sources] == ["tape", "gps", "net"]
    assert found.facts.sources[0]["said"] == "1 m" and found.facts.contradictions == (("net", "tape"), ("net", "gps"))
    assert fused_scale([], None, "") is None


def test_similarity_recovers_what_was_applied() -> None:
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    R = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    R = R * torch.det(R)
    b = 2.5 * a @ R.T + torch.tensor([1.0, 2.0, 3.0])
    found = fit_similarity(a, b)
    assert found is not None and found.scale == pytest.approx(2.5)
    torch.testing.assert_close(found.transform(a), b)
    assert fit_similarity(a[:2], b[:2]) is None
    line = a[:1] * torch.arange(1, 6)[:, None]
    assert fit_similarity(line, line) is None
    assert robust_similarity(a, b[torch.randperm(10, generator=generator)], torch.full((10,), 1e-3)) is None


def test_gps_is_metres_east_north_and_up() -> None:
    base, north, east = (48.0, 11.0), 1 / 111_200, 1 / (111_320 * math.cos(math.radians(48.0)))
    places = [(0, 0, 0), (10, 0, 0), (0, 10, 0), (0, 0, 10)]
    positions = [GpsPosition(base[0] + n * north, base[1] + e * east, 500.0 + u) for e, n, u in places]
    enu = east_north_up(positions)
    torch.testing.assert_close(enu - enu[0], torch.tensor(places, dtype=torch.float64), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a 1 2\n", ":1: 3 fields"),
        ("a 1 2 3\na 1 2 3\n", ":2: 'a' has a position already"),
        ("a 1 2 x\n", "'x' is not a finite number"),
        ("a 1 2 3 0\n", "must be positive"),
        ("# nothing\n", "holds no positions"),
    ],
)
def test_files_of_positions_are_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        read_positions(tmp_path / "p.txt", 0.1)


def test_files_of_positions(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a 1 2 3\nb 1 2 3 0.5  # by eye\n")
    found = read_positions(file, 0.1)
    assert found["a"][0].tolist() == [1, 2, 3] and found["a"][1] == 0.1 and found["b"][1] == 0.5
    file.write_text("a 1 0 0 0 -1 -2 -3\n")
    assert read_positions(file, 0.1)["a"][0].tolist() == pytest.approx([1, 2, 3])
