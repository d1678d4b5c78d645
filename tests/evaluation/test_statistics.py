"""Intervals, paired comparison, calibration: against naive twins and made-up runs of which the truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metriloc.calibration import Target
from metriloc.evaluation.calibration import (
    FitSource,
    expected_calibration_error,
    fit_calibration,
    fit_metres,
)
from metriloc.evaluation.records import Record
from metriloc.evaluation.scoring import STATISTICS, PairScores, per_scene, summarize
from metriloc.evaluation.statistics import compare, intervals, resamples, wins
from metriloc.geometry import Pose
from metriloc.io import InputError

SOURCE = FitSource("toy", "toy-1", "made up")


def make_scores(n: int, seed: int, noise: float = 3.0) -> PairScores:
    """Errors that grow as the confidence falls; one in ten without an estimate, one in ten without metres."""
    g = np.random.default_rng(seed)
    confidence = g.random(n)
    rotation = np.abs(g.normal(size=n)) * noise * (1.5 - confidence)
    lost, unscaled = g.random(n) < 0.1, g.random(n) < 0.1
    identity = Pose.identity((n,), dtype=torch.float64)
    return PairScores(
        keys=tuple(f"k{i}" for i in range(n)),
        scenes=tuple(f"s{i % 3}" for i in range(n)),
        rotation_deg=np.where(lost, np.nan, rotation),
        direction_deg=np.where(lost, np.nan, 2 * rotation),
        center_m=np.where(lost | unscaled, np.nan, rotation / 20),
        vcre_fraction=np.where(lost | unscaled, np.nan, rotation / 40),
        confidence=np.where(lost, 0, confidence),
        baseline_m=np.full(n, 2.0),
        overlap=np.full(n, np.nan),
        seconds=np.ones(n),
        matching_s=np.full(n, 0.5),
        estimated=~lost,
        metric=~lost & ~unscaled,
        estimate=identity,
        truth=identity,
    )


def test_summary_counts_failures_against_precision_only() -> None:
    scores = make_scores(300, 0)
    numbers = summarize(scores)
    near = scores.vcre_fraction < 0.1
    assert numbers["VCRE precision (10 % of diagonal)"] == pytest.approx(near.sum() / 300)
    assert numbers["median rotation error (deg)"] == pytest.approx(np.nanmedian(scores.rotation_deg))
    assert numbers["estimates"] == pytest.approx(scores.estimated.mean())
    # confidence ranks well here, so the area is above the precision
    assert numbers["VCRE AUC (10 % of diagonal)"] > numbers["VCRE precision (10 % of diagonal)"]
    assert sum(values["pairs"] for values in per_scene(scores).values()) == 300


def test_a_scene_without_estimates_has_numbers_too() -> None:
    lost = make_scores(12, 0).subset(np.zeros(0, int))
    assert len(lost) == 0
    scores = make_scores(12, 1)
    nothing = scores.subset(~scores.estimated) if (~scores.estimated).any() else scores
    assert set(summarize(nothing)) == set(STATISTICS)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    statistic = {"precision": STATISTICS["angular precision (5 deg, direction 10 deg)"]}
    truth = statistic["precision"](make_scores(200_000, 99))
    hits = 0
    for seed in range(40):
        found = intervals(make_scores(150, seed), statistic, count=200, seed=seed)["precision"]
        assert found.low <= found.value <= found.high
        hits += found.low <= truth <= found.high
    assert hits >= 34  # 38 expected; below 34 has a chance of less than one in a hundred


def test_intervals_repeat_and_undefined_values_have_none() -> None:
    scores = make_scores(60, 0)
    assert intervals(scores, count=50) == intervals(scores, count=50)
    lost = scores.subset(np.flatnonzero(~scores.estimated))
    assert np.isnan(intervals(lost, count=20)["median rotation error (deg)"].low)


def test_scenes_of_one_pair_are_drawn_from_together() -> None:
    alone = resamples(tuple(f"s{i}" for i in range(8)), 200, 0)
    assert len(np.unique(alone, axis=0)) > 100
    mixed = resamples(("a",) * 6 + ("b", "c"), 50, 0)
    assert (mixed[:, :6] < 6).all() and (mixed[:, 6:] >= 6).all()


def test_comparison_is_paired() -> None:
    a = make_scores(120, 0)
    g = np.random.default_rng(1)
    # b is better by a little on every pair: clear when paired, lost in the noise when not
    b = PairScores(**{**vars(a), "rotation_deg": a.rotation_deg * 0.97 + 0.001 * g.random(120)})
    found = compare(a, b, count=200)["median rotation error (deg)"]
    assert found.difference.value < 0 and found.clear
    alone = intervals(a, count=200)["median rotation error (deg)"]
    assert alone.low < found.b < alone.high
    assert not compare(a, a, count=50)["median rotation error (deg)"].clear
    assert wins(np.array([1.0, np.nan, 2.0, np.nan]), np.array([2.0, 1.0, 2.0, np.nan])) == (1, 1, 2)
    with pytest.raises(InputError, match="different pairs"):
        compare(a, a.subset(np.arange(10)))


# -- calibration ------------------------------------------------------------------------------------------------------
def made_up(n: int, seed: int) -> tuple[list[Record], np.ndarray]:
    """Right with a probability that is logistic in log(inliers); the method's own confidence is far too sure."""
    g = np.random.default_rng(seed)
    inliers = np.exp(g.uniform(1, 6, n))
    probability = 1 / (1 + np.exp(-2.5 * (np.log(inliers) - 3.7)))
    right = g.random(n) < probability
    records = [
        Record(f"k{i}", True, 0.99 if inliers[i] > 5 else 0.9, (1.0, 0, 0, 0), (0.0, 0, 0), statistics={"inliers": x})
        for i, x in enumerate(inliers.tolist())
    ]
    return records, right


@pytest.mark.parametrize("kind", ["logistic", "isotonic"])
def test_calibration_makes_confidence_a_probability_on_pairs_it_has_not_seen(kind: str) -> None:
    records, right = made_up(400, 0)
    fitted = fit_calibration(records, right, SOURCE, target=Target(), kind=kind, statistics=["inliers"])  # type: ignore[arg-type]
    unseen, truth = made_up(2000, 1)
    before = expected_calibration_error(np.array([r.confidence for r in unseen]), truth)
    values = np.array([fitted.probability(r.confidence, r.statistics) for r in unseen])
    assert before > 0.3
    assert expected_calibration_error(values, truth) < 0.06
    # more inliers, never a lower probability
    grid = [fitted.probability(0.5, {"inliers": float(x)}) for x in (1, 5, 20, 60, 200, 1000)]
    assert grid == sorted(grid) and 0 <= grid[0] < 0.2 and 0.8 < grid[-1] <= 1


def test_logistic_fit_equals_the_maximum_of_its_likelihood() -> None:
    from scipy.optimize import minimize

    records, right = made_up(300, 2)
    fitted = fit_calibration(records, right, SOURCE, target=Target(), statistics=["inliers"])
    x = np.log([r.statistics["inliers"] for r in records])
    z = (x - x.mean()) / x.std()

    def loss(w: np.ndarray) -> float:
        logits = w[0] + w[1] * z
        return float(np.logaddexp(0, np.where(right, -logits, logits)).sum() + 0.5 * 1e-2 * 3 * w[1] ** 2)

    best = minimize(loss, np.zeros(2)).x
    slope = best[1] / x.std()
    assert fitted.parameters[1] == pytest.approx(slope, rel=1e-3)
    assert fitted.parameters[0] == pytest.approx(best[0] - slope * x.mean(), rel=1e-3)


def test_separable_statistics_stay_finite() -> None:
    records, _ = made_up(100, 3)
    right = np.array([r.statistics["inliers"] > 40 for r in records])
    fitted = fit_calibration(records, right, SOURCE, target=Target(), statistics=["inliers"])
    assert np.isfinite(fitted.parameters).all()
    assert 0.5 < fitted.probability(0, {"inliers": 60.0}) < 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=40, max_size=80))
def test_isotonic_is_monotone_whatever_the_data(data: list[tuple[float, bool]]) -> None:
    right = np.array([r for _, r in data])
    if right.all() or not right.any():
        return
    records = [Record(f"k{i}", True, c, (1.0, 0, 0, 0), (0.0, 0, 0)) for i, (c, _) in enumerate(data)]
    fitted = fit_calibration(records, right, SOURCE, target=Target(), kind="isotonic")
    values = [fitted.probability(c, {}) for c in np.linspace(0.01, 1, 30)]
    assert all(0 < v < 1 for v in values) and values == sorted(values)


def test_fits_that_are_refused() -> None:
    records, right = made_up(100, 4)
    with pytest.raises(InputError, match="at least 30"):
        fit_calibration(records[:20], right[:20], SOURCE, target=Target())
    with pytest.raises(InputError, match="right and wrong"):
        fit_calibration(records, np.ones(100, bool), SOURCE, target=Target())
    with pytest.raises(InputError, match="isotonic"):
        fit_calibration(records, right, SOURCE, target=Target(), kind="isotonic", statistics=["inliers", "confidence"])
    with pytest.raises(ValueError, match="'coverage'"):
        fit_calibration(records, right, SOURCE, target=Target(), statistics=["coverage"])
    with pytest.raises(InputError, match="0 estimates"):  # of another setup
        fit_calibration(records, right, FitSource("toy", "toy-1", "made up", "other"), target=Target())


def test_a_statistic_that_misleads_gets_no_weight() -> None:
    """Wrong poses with more of it, as more matches of unrelated photos once were: it must not lower the probability."""
    records, right = made_up(400, 6)
    noise = np.random.default_rng(0).random(len(records))
    misled = [
        dataclasses.replace(r, statistics={**r.statistics, "bad": float(n + (0.0 if good else 1.0))})
        for r, n, good in zip(records, noise, right, strict=True)
    ]
    fitted = fit_calibration(misled, right, SOURCE, target=Target(), statistics=["inliers", "bad"])
    assert fitted.parameters[1] > 0 and fitted.parameters[2] == 0
    alone = fit_calibration(records, right, SOURCE, target=Target(), statistics=["inliers"])
    assert fitted.parameters[:2] == pytest.approx(alone.parameters, rel=1e-6)
    assert fitted.ranges[0] == pytest.approx(
        (min(r.statistics["inliers"] for r in records), max(r.statistics["inliers"] for r in records))
    )


def test_the_interval_holds_nine_of_ten_of_places_alike() -> None:
    g = np.random.default_rng(1)
    places = np.array(["near"] * 900 + ["far"] * 100)
    parallax = g.uniform(0.3, 5.0, 1000)
    bias = np.where(places == "far", 0.7, 0.0)  # outdoors everything is twice as far as it seems
    ratio = bias + 0.05 * g.normal(size=1000) + 0.2 * g.normal(size=1000) / parallax
    fitted = fit_metres(ratio, parallax, list(places))
    assert fitted.low < 1 and fitted.high > 2
    for place in ("near", "far"):
        chosen = places == place
        ends = np.array([fitted.interval(1.0, p) for p in parallax[chosen]])
        inside = (np.exp(ratio[chosen]) >= ends[:, 0]) & (np.exp(ratio[chosen]) <= ends[:, 1])
        assert inside.mean() > 0.8
    with pytest.raises(InputError, match="at least 30"):
        fit_metres(ratio[:10], parallax[:10])


def test_expected_calibration_error_by_hand() -> None:
    confidence = np.array([0.05, 0.05, 0.95, 0.95])
    right = np.array([False, True, True, True])
    assert expected_calibration_error(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))
