"""An hloc log of the tiny scene as PixLoc's hints: counts of the published code, and pairs that come out of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.io.hloc import read_log, read_map_ids
from metriloc.methods.pixloc import LocalizeConfig, PixLoc
from metriloc.methods.pixloc.hloc_hints import hints_of, logged_references, map_matches, similarities
from metriloc.methods.pixloc.selection import rank_by_inliers


@pytest.fixture()
def logged(tiny: Any, tmp_path: Path) -> Any:
    """The tiny scene's log as hloc would have pickled it."""
    log = json.loads((tiny.folder / "hloc_log.json").read_text())
    observed = log["points3D_to_dbidx"]
    entry = {"db": log["db"], "PnP_ret": log["PnP_ret"], "keypoint_index_to_db": (list(range(len(observed))), observed)}
    path = tmp_path / "logs.pkl"
    path.write_bytes(pickle.dumps({"loc": {tiny.query.name: entry}}))
    return read_log(path)[tiny.query.name]


def test_golden_matches(logged: Any, tiny: Any) -> None:
    expected = json.loads((tiny.folder / "model3d_ops.json").read_text())
    ids = read_map_ids(tiny.folder / "sfm_bin")
    assert dict(ids.image_of) == tiny.image_of and dict(ids.point_of) == tiny.point_of
    assert dict(read_map_ids(tiny.folder / "sfm").point_of) == tiny.point_of
    matches = map_matches(logged, ids)
    images = [ids.image_of[image] for image in logged.references]
    assert [matches.inliers_of(image) for image in images] == expected["ninl_dbs"]
    assert rank_by_inliers(images, matches, 5)[:3] == [ids.image_of[image] for image in expected["rerank_3_min5"]]
    torch.testing.assert_close(matches.image_index, tiny.matches.image_index)
    torch.testing.assert_close(matches.point_index, tiny.matches.point_index)
    assert torch.equal(matches.inlier, tiny.matches.inlier) and matches.num_inliers == tiny.matches.num_inliers
    torch.testing.assert_close(logged.pose.matrix(), tiny.pnp.matrix())


def test_points_and_images_the_map_lacks_are_left_out(logged: Any, tiny: Any) -> None:
    ids = read_map_ids(tiny.folder / "sfm_bin")
    gone, lost = logged.references[0], int(logged.point_ids[0])
    fewer = type(ids)(
        {k: v for k, v in ids.image_of.items() if k != gone}, {k: v for k, v in ids.point_of.items() if k != lost}
    )
    matches, all_matches = map_matches(logged, fewer), map_matches(logged, ids)
    assert (
        not (matches.image_index == ids.image_of[gone]).any() and not (matches.point_index == ids.point_of[lost]).any()
    )
    assert 0 < len(matches.image_index) < len(all_matches.image_index)
    assert len(logged_references(logged, fewer, tiny.scene.names)) == len(logged.references) - 1
    assert hints_of(None, ids).matches is None and hints_of(logged, ids, {"a": 1.0}).similarity == {"a": 1.0}


def test_hints_localize(logged: Any, tiny: Any) -> None:
    """Refining hloc's pose with what its log says moves it to the pose that the fixture's matches lead to."""
    ids = read_map_ids(tiny.folder / "sfm_bin")
    config = LocalizeConfig(points="inliers", num_references=3, min_track=2, image_scales=(1,), rank_by_inliers=True)
    names = logged_references(logged, ids, tiny.scene.names)
    found = [
        PixLoc(tiny.extractor(), config=config).localize(tiny.query, tiny.scene, names, logged.pose, hints=hints)
        for hints in (hints_of(logged, ids), hints_of(logged, ids, {}))
    ]
    assert all(bool(f.success) for f in found)
    torch.testing.assert_close(found[0].pose.matrix(), found[1].pose.matrix())
    assert found[0].localization[0].num_points > 10


def test_similarities(tiny: Any) -> None:
    descriptors = {"q": torch.tensor([1.0, 0.0]), "a": torch.tensor([0.6, 0.8]), "b": torch.tensor([0.0, 1.0])}
    assert similarities(descriptors, "q", ["a", "b", "c"]) == pytest.approx({"a": 0.6, "b": 0.0})
    with pytest.raises(ValueError, match="no global descriptor of the query 'z'"):
        similarities(descriptors, "z", ["a"])
