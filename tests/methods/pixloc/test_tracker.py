"""The record of an alignment against the recorded run of the tiny scene: every pose, step length and cost."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metriloc.methods.pixloc import AlignConfig, CostConfig, LocalizeConfig, PixLoc, Tracker


@pytest.fixture()
def track(tiny: SimpleNamespace) -> Tracker:
    loop = AlignConfig(CostConfig(pad=1, validity="pixloc"), num_iters=50)
    config = LocalizeConfig(num_references=4, image_scales=(4, 1), min_track=2)
    found = Tracker()
    PixLoc(tiny.extractor(), loop, config).localize(tiny.query, tiny.scene, tiny.references, log=found)
    return found


def test_golden_run(track: Tracker, tiny: SimpleNamespace, data: Any) -> None:
    golden = tiny.golden
    counts = golden["retrieval_default/tracker_num_iters"].tolist()
    stages = track.stages()
    assert list(stages) == [f"scale {scale}, level {level}" for scale in (4, 1) for level in (2, 1, 0)]
    assert [len(steps) for steps in stages.values()] == counts
    poses = golden["retrieval_default/tracker_T"].split([count + 1 for count in counts])  # each stage with its start
    for number, (steps, expected) in enumerate(zip(stages.values(), poses, strict=True)):
        assert [step.index for step in steps] == list(range(len(steps)))
        mine = torch.stack([data.pack(step.pose) for step in steps])
        torch.testing.assert_close(mine.float(), expected[1:], rtol=0, atol=1e-4)
        costs = torch.tensor([step.unweighted_cost for step in steps])
        torch.testing.assert_close(costs, golden[f"retrieval_default/tracker_cost_{number}"], rtol=1e-3, atol=1e-6)
        assert all(step.accepted and step.observations >= 10 and 0 < step.cost < step.unweighted_cost for step in steps)
    lengths = torch.tensor([step.translation for step in track.steps])
    torch.testing.assert_close(lengths, golden["retrieval_default/tracker_dt"], rtol=1e-3, atol=1e-4)


def test_as_json(track: Tracker) -> None:
    shown = json.loads(json.dumps(track.as_dict(), allow_nan=False))
    assert {len(values) for values in shown.values()} == {len(track.steps)}
    last = track.steps[-1]
    assert shown["stage"][-1] == last.stage and shown["translation_cam_from_world"][-1] == last.pose.t.tolist()
    assert shown["rotation_deg"][-1] == pytest.approx(last.rotation * 57.29578)
    assert Tracker().as_dict()["cost"] == [] and Tracker().stages() == {}
