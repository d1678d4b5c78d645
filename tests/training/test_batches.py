"""Batches as pure functions of the step: parts, order, workers; moving batches between devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.training import ShuffledBatches, generator_of, mix_seed
from metriloc.training.batches import Share, prefetched, to_device
from metriloc.types import Pair, View


def numbers(length: int = 20, batch_size: int = 4) -> ShuffledBatches:
    return ShuffledBatches(
        lambda index, generator: (index, float(torch.rand((), generator=generator))), length, batch_size, list, seed=3
    )


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_make_up_the_batch_with_the_same_chance(parts: int) -> None:
    source = numbers()
    for step in (0, 3, 17):
        whole = source.batch(step, 0, 1)
        assert [sample for part in range(parts) for sample in source.batch(step, part, parts)] == whole


def test_a_pass_takes_every_sample_once_and_passes_differ() -> None:
    source = numbers()
    passes = [[i for step in range(5 * p, 5 * p + 5) for i in source.indices(step, 0, 1)] for p in range(3)]
    assert all(sorted(one) == list(range(20)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_the_same_question_has_the_same_answer_in_any_order() -> None:
    source, other = numbers(), numbers()
    forwards = [source.batch(step, 0, 2) for step in range(8)]
    torch.manual_seed(99)
    assert [other.batch(step, 0, 2) for step in reversed(range(8))][::-1] == forwards


def test_the_rest_of_a_pass_is_left_out() -> None:
    source = numbers(length=7, batch_size=3)
    assert len({i for step in (0, 1) for i in source.indices(step, 0, 1)}) == 6


@pytest.mark.parametrize("parts", [3, 8])
def test_unequal_parts_are_refused(parts: int) -> None:
    with pytest.raises(ValueError, match=f"a batch of 4 cannot be cut into {parts} equal parts"):
        numbers().batch(0, 0, parts)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 9 cannot be taken from 8 samples"):
        numbers(length=8, batch_size=9)


class Source:
    """Picklable, says what it was asked."""

    def batch(self, step: int, part: int, parts: int) -> dict[str, Tensor]:
        if step == 6:
            raise ValueError("step 6 is broken")
        return {"asked": torch.tensor([step, part, parts])}


@pytest.mark.parametrize("workers", [0, 2])
def test_prefetched_parts_come_in_order(workers: int) -> None:
    state = torch.get_rng_state()
    share = Share(rank=1, world_size=3, accumulation=2)
    found = [b["asked"].tolist() for b in prefetched(Source(), share, range(2, 5), workers)]
    assert found == [[s, p, 6] for s in (2, 3, 4) for p in (2, 3)]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_while_loading_arrives(workers: int) -> None:
    with pytest.raises(ValueError, match="step 6 is broken"):
        list(prefetched(Source(), Share(), range(5, 8), workers))


class Named(NamedTuple):
    x: Tensor
    name: str


@dataclass(frozen=True)
class Batch:
    pose: Pose
    rest: tuple[Named, ...]


def test_to_device_goes_through_everything() -> None:
    meta = torch.device("meta")
    view = View(torch.zeros(3, 4, 5), Camera.from_fov((5, 4), 1.0), Pose.identity(), "a", depth=torch.ones(4, 5))
    batch = {
        "pairs": [Pair(view, view, Pose.identity())],
        "b": Batch(Pose.identity((2,)), (Named(torch.ones(2), "n"),)),
    }
    moved = to_device(batch, meta)
    pair, b = moved["pairs"][0], moved["b"]
    assert isinstance(pair, Pair) and isinstance(b.rest[0], Named)
    tensors = (pair.view0.image, pair.view1.depth, pair.view0.camera.f, pair.cam1_from_cam0.R, b.pose.t, b.rest[0].x)
    assert all(t.device == meta for t in tensors)
    assert (pair.view0.name, b.rest[0].name) == ("a", "n")
    assert view.image.device.type == "cpu"


def test_seeds_of_close_numbers_have_nothing_in_common() -> None:
    seeds = {mix_seed(step, part) for step in range(30) for part in range(30)}
    assert len(seeds) == 900 and all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 2) != mix_seed(12) != mix_seed(2, 1) and mix_seed(1, 2) == mix_seed(1, 2)
    assert torch.rand(3, generator=generator_of(1, 2)).tolist() == torch.rand(3, generator=generator_of(1, 2)).tolist()
