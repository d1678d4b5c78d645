"""Anchors in the worlds of devices."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from metriloc.geometry import CONVENTIONS, Pose
from metriloc.io import InputError
from metriloc.service.devices import parse_device_poses, with_anchor_in_device

EYE = torch.eye(4).flatten().tolist()


def turned(degrees: float, t: tuple[float, float, float]) -> Pose:
    return Pose.from_aa(torch.tensor([0.1, math.radians(degrees), 0.2]).double(), torch.tensor(t).double())


@pytest.mark.parametrize("name", list(CONVENTIONS))
def test_the_anchor_is_where_the_device_would_have_said(name: str) -> None:
    reference_from_device, query_from_device = turned(30, (1, 2, 3)), turned(-50, (0.5, 0, -1))
    told = query_from_device.to(name).matrix().flatten().tolist()
    devices = parse_device_poses(json.dumps([told, EYE]), name, 2)
    query_from_reference = query_from_device @ reference_from_device.inverse()
    known: dict[str, Any] = {"to_frame": "query camera", "from_frame": "reference camera", "unit": "metre"}
    pose = query_from_reference.to_dict(**known)
    entries = [{"success": True, "metric": True, "query_from_reference": pose}, {"success": False}]
    with_anchor_in_device(entries, devices)
    found = entries[0]["anchor_in_device"]
    assert isinstance(found, dict) and found["convention"] == name and entries[1]["anchor_in_device"] is None
    wanted = reference_from_device.to(name).matrix()
    assert torch.allclose(torch.tensor(found["matrix"], dtype=torch.float64), wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no JSON", "is not JSON"),
        ("[]", "16 numbers for each of the 1 photos"),
        (json.dumps([EYE, EYE]), "16 numbers for each of the 1 photos"),
        (json.dumps([EYE[:15]]), "16 numbers"),
        (json.dumps([[float("nan"), *EYE[1:]]]), "16 numbers"),
        (json.dumps([[True, *EYE[1:]]]), "16 numbers"),
        (json.dumps([[2.0, *EYE[1:]]]), "number 1"),
        ("[" * 70000, "at most 65536"),
        ("[" * 60000, "nested too deep"),
    ],
)
def test_poses_that_are_none(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_device_poses(text, "arkit", 1)


def test_an_unknown_convention() -> None:
    with pytest.raises(InputError, match="device_convention: there is no convention 'arcore'"):
        parse_device_poses(json.dumps([EYE]), "arcore", 1)
