"""The matcher against the published one, a naive twin that really appends the dustbins, and its own promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracles.mickey_matching import dual_softmax, keypoint_product, match_probabilities
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from metriloc.methods.mickey.matching import scored_match_probabilities
from metriloc.solvers.assignment import mutual_nearest

TOLERANCE = 5e-6  # relative to the maximum
TOLERANCE_OF_THREE_FACTORS = 1e-5  # with the keypoint product: the reference is 2.3e-6 from float64, this 3.5e-6


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.detach() - expected).abs().max() / expected.abs().max())


def naive(desc0: Tensor, desc1: Tensor, temperature: float, dustbin: Tensor | None) -> Tensor:
    """One pair: append row, column and corner, two softmaxes, cut them off again."""
    s = desc0 @ desc1.T / temperature
    if dustbin is None:
        return torch.softmax(s, 0) * torch.softmax(s, 1)
    s = torch.cat([s, dustbin.expand(len(s), 1)], 1)
    s = torch.cat([s, dustbin.expand(1, s.shape[1])], 0)
    return (torch.softmax(s, 0) * torch.softmax(s, 1))[:-1, :-1]


def draw(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Unit vectors."""
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


@pytest.fixture(scope="module")
def golden(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(shared("golden/mickey/matcher.safetensors"))


@pytest.mark.parametrize(
    ("name", "temperature", "dustbin"),
    [("t0.1_bin1", 0.1, 1.0), ("t0.1_bin2.5", 0.1, 2.5), ("t0.05_bin1", 0.05, 1.0), ("t0.1_nobin", 0.1, None)],
)
def test_dual_softmax_is_the_published_one(
    golden: dict[str, Tensor], name: str, temperature: float, dustbin: float | None
) -> None:
    bin_ = None if dustbin is None else torch.tensor(dustbin)
    found = dual_softmax(golden["dsc0"].mT, golden["dsc1"].mT, temperature, bin_)
    assert found.shape == (2, 63, 48)  # unequal numbers of keypoints
    assert relative(found, golden[f"scores.{name}"]) < TOLERANCE


def test_keypoint_product_and_final_probabilities(golden: dict[str, Tensor]) -> None:
    score0, score1 = golden["scr0"][:, 0], golden["scr1"][:, 0]
    assert torch.equal(keypoint_product(score0, score1), golden["kp_scores"])
    args = (golden["dsc0"].mT, golden["dsc1"].mT, score0, score1, 0.1, torch.tensor(1.0))
    found = match_probabilities(*args)
    assert relative(found, golden["final_scores.t0.1_bin1"]) < TOLERANCE
    for b in range(2):
        compact = scored_match_probabilities(*(a[b] for a in args[:4]), *args[4:])
        full = torch.zeros_like(found[b])
        full[compact.index0[:, None], compact.index1] = compact.values
        assert relative(full, golden["final_scores.t0.1_bin1"][b]) < TOLERANCE


def test_gradients_are_the_published_ones(golden: dict[str, Tensor]) -> None:
    leaves = [golden["dsc0"].clone(), golden["dsc1"].clone(), torch.tensor(1.0)]
    dsc0, dsc1, dustbin = (leaf.requires_grad_() for leaf in leaves)
    scores = dual_softmax(dsc0.mT, dsc1.mT, 0.1, dustbin)
    (golden["grad_w"] * torch.log(scores + 1e-16)).sum().backward()
    for leaf, name in ((dsc0, "grad_dsc0"), (dsc1, "grad_dsc1"), (dustbin, "grad_dustbin")):
        assert leaf.grad is not None
        assert relative(leaf.grad, golden[name]) < 1e-5, name


def test_the_whole_matching_stage(shared: Callable[[str], Path]) -> None:
    io = load_file(shared("golden/mickey/mickey_tiny_io.safetensors"))
    dustbin = load_file(shared("golden/mickey/mickey_tiny_weights.safetensors"))[
        "compute_matches.matcher.matching_mat.dustbin_score"
    ]
    args = (io["pair.dsc0"].mT, io["pair.dsc1"].mT, io["pair.scr0"][:, 0], io["pair.scr1"][:, 0])
    assert relative(dual_softmax(*args[:2], 0.1, dustbin), io["pair.scores"]) < TOLERANCE
    assert relative(keypoint_product(*args[2:]), io["pair.kp_scores"]) < TOLERANCE
    found = match_probabilities(*args, 0.1, dustbin)
    assert relative(found, io["pair.final_scores"]) < TOLERANCE_OF_THREE_FACTORS
    assert relative(found.double(), match_probabilities(*(a.double() for a in args), 0.1, dustbin)) < TOLERANCE
    compact = scored_match_probabilities(*(a[0] for a in args), 0.1, dustbin)
    interior = (17 - 6) * (12 - 6)
    assert compact.values.shape == (interior, interior)  # the border of 3 cells is not evaluated
    expected = io["pair.final_scores"][0][compact.index0][:, compact.index1]
    assert relative(compact.values, expected) < TOLERANCE_OF_THREE_FACTORS
    assert (compact.values > 0).all()


def test_the_published_mutual_list_lacks_the_last_keypoints(golden: dict[str, Tensor]) -> None:
    # Upstream cuts the last row and column off, as if they were dustbins, but the dustbins are gone by then. So its
    # list (most probable first) is that of the matrix without the last keypoints: keypoints 62 and 47 can never be matched.
    scores = golden["scores.t0.1_bin1"][0]
    published = golden["mnn_list.t0.1_bin1.b0"]
    cut = mutual_nearest(scores[:-1, :-1])
    assert torch.equal(cut[scores[cut[:, 0], cut[:, 1]].argsort(descending=True)], published)
    ours = mutual_nearest(scores)
    naive_list = [
        (i, j)
        for i in range(63)
        for j in range(48)
        if scores[i, j] == scores[i].max() and scores[i, j] == scores[:, j].max()
    ]
    assert [tuple(pair) for pair in ours.tolist()] == naive_list
    last = (ours == torch.tensor([62, 47])).any(1)
    assert last.any()  # the keypoints that upstream loses do have partners here
    assert {tuple(p) for p in ours[~last].tolist()} <= {tuple(p) for p in published.tolist()}


def test_mutual_nearest_of_special_matrices() -> None:
    assert mutual_nearest(torch.zeros(3, 4)).tolist() == []  # no probability, no match
    assert mutual_nearest(torch.full((3, 4), torch.nan)).tolist() == []
    assert mutual_nearest(torch.zeros(0, 4)).shape == mutual_nearest(torch.zeros(4, 0)).shape == (0, 2)
    assert mutual_nearest(torch.tensor([[0.1, 0.9], [0.3, 0.8]])).tolist() == [[0, 1]]
    assert mutual_nearest(torch.eye(3)).tolist() == [[0, 0], [1, 1], [2, 2]]
    with pytest.raises(ValueError, match=r"one matrix .* got shape \[1, 3, 3\]"):
        mutual_nearest(torch.zeros(1, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("with_bin", [True, False])
def test_naive_twin(generator: torch.Generator, dtype: torch.dtype, batch: tuple[int, ...], with_bin: bool) -> None:
    desc0 = draw(generator, *batch, 7, 16, dtype=dtype)
    desc1 = draw(generator, *batch, 5, 16, dtype=dtype)
    dustbin = torch.tensor(0.7, dtype=dtype) if with_bin else None
    found = dual_softmax(desc0, desc1, 0.3, dustbin)
    assert found.shape == (*batch, 7, 5) and found.dtype == dtype
    pairs = zip(found.reshape(-1, 7, 5), desc0.reshape(-1, 7, 16), desc1.reshape(-1, 5, 16), strict=True)
    for one, first, second in pairs:
        torch.testing.assert_close(one, naive(first, second, 0.3, dustbin))
    score0, score1 = torch.rand(*batch, 7, dtype=dtype), torch.rand(*batch, 5, dtype=dtype)
    full = match_probabilities(desc0, desc1, score0, score1, 0.3, dustbin)
    torch.testing.assert_close(full, found * torch.einsum("...i,...j->...ij", score0, score1))


def test_gradcheck(generator: torch.Generator) -> None:
    inputs = [draw(generator, 4, 6), draw(generator, 3, 6), torch.rand(4).double(), torch.rand(3).double()]
    inputs.append(torch.tensor(0.5).double())
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda a, b, c, d, e: match_probabilities(a, b, c, d, 0.5, e), leaves)


def test_probabilities_stay_finite_for_sharp_temperatures() -> None:
    desc = torch.eye(4)
    found = dual_softmax(desc, desc, 1e-3, torch.tensor(1.0))
    torch.testing.assert_close(found, torch.eye(4))


def test_compact_form(generator: torch.Generator) -> None:
    desc0, desc1 = draw(generator, 9, 8), draw(generator, 6, 8)
    score0 = torch.tensor([0, 0.1, 0, 0.4, 0.2, torch.nan, 0.1, 0, 0.2]).double()
    score1 = torch.tensor([0.5, 0, 0.5, 0, 0, 0]).double()
    compact = scored_match_probabilities(desc0, desc1, score0, score1, 0.2, torch.tensor(1.0))
    assert compact.index0.tolist() == [1, 3, 4, 6, 8] and compact.index1.tolist() == [0, 2]
    full = match_probabilities(desc0, desc1, score0, score1, 0.2, torch.tensor(1.0).double())
    torch.testing.assert_close(compact.values, full[compact.index0][:, compact.index1])
    nothing = scored_match_probabilities(desc0, desc1, torch.zeros(9).double(), score1)
    assert nothing.values.shape == (0, 2) and nothing.index0.numel() == 0


class LargeResults(TorchDispatchMode):
    """Counts operators whose result is new memory of at least ``size`` elements."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        known = {a.data_ptr() for a in args if isinstance(a, Tensor)}
        if isinstance(result, Tensor) and result.numel() >= self.size and result.data_ptr() not in known:
            self.count += 1
        return result


def test_few_large_matrices_at_the_size_of_a_photo(generator: torch.Generator) -> None:
    """720x540: 1938 keypoints, 1440 with a score. One similarity matrix, one of the result, nothing else by name."""
    desc = draw(generator, 1938, 128, dtype=torch.float32)
    score = torch.zeros(51, 38)
    score[3:-3, 3:-3] = 1 / 1440
    with LargeResults(1440 * 1440) as large:
        compact = scored_match_probabilities(
            desc, desc.flip(0), score.flatten(), score.flatten(), 0.1, torch.tensor(1.0)
        )
    assert compact.values.shape == (1440, 1440)
    assert large.count <= 2
    with LargeResults(1938 * 1938) as large, torch.no_grad():
        match_probabilities(desc, desc.flip(0), score.flatten(), score.flatten(), 0.1, torch.tensor(1.0))
    assert large.count <= 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"desc1": torch.zeros(5, 7)}, r"descriptors \[4, 8\] and \[5, 7\] do not fit together"),
        ({"score0": torch.zeros(3)}, r"scores \[3\] do not belong to descriptors \[4, 8\]"),
        ({"score1": torch.zeros(5, 1)}, r"scores \[5, 1\] do not belong to descriptors \[5, 8\]"),
        ({"temperature": 0.0}, "temperature must be positive, got 0"),
    ],
)
def test_wrong_use_raises(change: dict[str, object], message: str) -> None:
    right = {"desc0": torch.zeros(4, 8), "desc1": torch.zeros(5, 8), "score0": torch.zeros(4), "score1": torch.zeros(5)}
    scored_match_probabilities(**right)
    with pytest.raises(ValueError, match=message):
        scored_match_probabilities(**{**right, **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes one pair"):
        scored_match_probabilities(**{name: value[None] for name, value in right.items()})
