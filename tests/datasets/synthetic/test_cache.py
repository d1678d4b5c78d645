"""Synthetic pairs on disk are those that would be rendered, and nobody reads the wrong or a damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metriloc.datasets import Augment
from metriloc.datasets.synthetic import PairLimits, SyntheticConfig, SyntheticPairs
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.io import InputError

CONFIG = SyntheticConfig(sizes=((48, 32),), texture_size=16, limits=PairLimits(attempts=200))


@pytest.mark.slow
def test_what_is_read_is_what_is_rendered(tmp_path: Path) -> None:
    cached, rendered = (
        CachedSyntheticPairs(tmp_path, 2, 2, CONFIG, first_seed=3),
        SyntheticPairs(2, 2, CONFIG, first_seed=3),
    )
    assert len(cached) == 4 and cached.lengths == (2, 2)
    for _ in range(2):  # made, then read
        for index in (0, 3):
            found, true = cached[index], rendered[index]
            for view, other in ((found.view0, true.view0), (found.view1, true.view1)):
                assert view.name == other.name
                assert float((view.image - other.image).abs().max()) <= 0.5 / 255 + 1e-6
                assert view.depth is not None and other.depth is not None
                torch.testing.assert_close(view.depth, other.depth, rtol=1e-3, atol=0)
                assert torch.equal(view.camera.K, other.camera.K)
            assert found.cam1_from_cam0 is not None and true.cam1_from_cam0 is not None
            torch.testing.assert_close(found.cam1_from_cam0.matrix(), true.cam1_from_cam0.matrix(), atol=1e-6, rtol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene_000003.npz", "scene_000004.npz"]


def test_augmentation_is_a_function_of_its_seed(tmp_path: Path) -> None:
    cached = CachedSyntheticPairs(tmp_path, 1, 1, CONFIG, augment=Augment())
    one, two, three = cached[0, 5], cached[0, 5], cached[0, 6]
    assert torch.equal(one.view0.image, two.view0.image)
    assert not torch.equal(one.view0.image, three.view0.image)


def test_wrong_files_and_indices_are_named(tmp_path: Path) -> None:
    cached = CachedSyntheticPairs(tmp_path, 1, 1, CONFIG)
    path = cached.prepare(0)
    with pytest.raises(IndexError, match="pair 1 of 1"):
        cached[1]
    with pytest.raises(InputError, match="other settings"):
        CachedSyntheticPairs(tmp_path, 1, 2, CONFIG)[0]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"scene_000000\.npz' cannot be read"):
        cached[0]
