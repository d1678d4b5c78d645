"""Sources of a length: inverse variances against a closed form, kin, exact ones, contradictions."""

from __future__ import annotations

import math

import pytest

from metriloc.solvers.scales import ScaleSource, fuse_scales


def test_inverse_variances() -> None:
    sources = [ScaleSource("a", 0.0, 0.1), ScaleSource("b", 0.3, 0.2)]
    fused = fuse_scales(sources)
    assert fused.shares == pytest.approx((0.8, 0.2))
    assert fused.log_length == pytest.approx(0.06)
    assert fused.sigma == pytest.approx(1 / math.sqrt(100 + 25))
    assert fused.contradictions == ()


@pytest.mark.parametrize(("correlation", "expected"), [(0.0, 0.5), (0.5, 0.75), (0.98, 0.99)])
def test_kin_do_not_halve_the_variance(correlation: float, expected: float) -> None:
    """The variance of a mean of two that err alike is (1 + rho) / 2 of one."""
    sources = [ScaleSource(name, 0.0, 0.3, "network", correlation) for name in "ab"]
    fused = fuse_scales(sources)
    assert fused.sigma**2 == pytest.approx(expected * 0.09)
    assert fused.shares == pytest.approx((0.5, 0.5))


def test_kin_count_as_one_against_a_stranger() -> None:
    kin = [ScaleSource(name, 0.0, 0.3, "network", 0.99) for name in "ab"]
    fused = fuse_scales([*kin, ScaleSource("height", 0.2, 0.3)])
    assert fused.shares[2] == pytest.approx(0.5, abs=0.01)


def test_no_source_counts_negatively() -> None:
    """Closely related to a much surer one, a source would be subtracted: it counts nothing instead."""
    sure, kin = ScaleSource("sure", 0.0, 0.1, "n", 0.9), ScaleSource("kin", 0.1, 0.5, "n", 0.9)
    fused = fuse_scales([sure, kin, ScaleSource("other", 0.0, 0.2)])
    assert fused.shares[1] == 0 and sum(fused.shares) == pytest.approx(1)
    assert fused.shares[0] == pytest.approx(0.8)


def test_exact_sources_win_and_are_still_contradicted() -> None:
    fused = fuse_scales([ScaleSource("depth", math.log(3), 0.1), ScaleSource("given", math.log(2), 0.0)])
    assert fused.log_length == math.log(2) and fused.sigma == 0 and fused.shares == (0, 1)
    assert fused.contradictions == (("given", "depth"),)
    near = fuse_scales([ScaleSource("depth", math.log(2.3), 0.1), ScaleSource("given", math.log(2), 0.0)])
    assert near.contradictions == ()


def test_kin_that_err_alike_contradict_sooner() -> None:
    def apart(correlation: float) -> int:
        return len(
            fuse_scales([ScaleSource(n, v, 0.3, "n", correlation) for n, v in (("a", 0), ("b", 0.7))]).contradictions
        )

    assert apart(0.0) == 0 and apart(0.9) == 1


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fuse_scales([])
    with pytest.raises(ValueError, match="'depth' needs a finite length"):
        ScaleSource("depth", math.nan, 0.1)
    with pytest.raises(ValueError, match="between -1 and 1, got 1"):
        ScaleSource("depth", 0.0, 0.1, "n", 1.0)


def test_sources_that_contradict_each_other_are_both_covered() -> None:
    """One of the two is wrong, and nobody knows which: both are within two sigmas."""
    two = [ScaleSource("tape", math.log(2), 0.005), ScaleSource("other tape", math.log(90), 0.002)]
    fused = fuse_scales(two)
    assert fused.contradictions == (("other tape", "tape"),)
    assert fused.sigma == pytest.approx(0.5 * math.log(45), rel=1e-4)
    assert all(abs(source.log_length - fused.log_length) <= 2 * fused.sigma for source in two)
    agreeing = fuse_scales([*two[:1], ScaleSource("third", math.log(2.01), 0.005)])
    assert agreeing.contradictions == () and agreeing.sigma == pytest.approx(0.005 / math.sqrt(2))
    exact = fuse_scales([ScaleSource("a", 0.0, 0.0), ScaleSource("b", 0.4, 0.0), ScaleSource("c", 9.0, 0.1)])
    assert exact.log_length == pytest.approx(0.2) and exact.sigma == pytest.approx(0.2)
