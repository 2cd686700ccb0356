"""Intervals of correlations, compared with slow references and with fresh simulations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regioncount.analysis import intervals
from regioncount.analysis.intervals import MIN_OBSERVATIONS, STATISTICS, interval, simulate, studentized, without_each

SCIPY = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


def leave_one_out(x, y, statistic):
    function = SCIPY[statistic]
    without = [function(np.delete(x, i), np.delete(y, i)).statistic for i in range(len(x))]
    return function(x, y).statistic, np.array(without)


@given(st.integers(3, 12), st.floats(-0.99, 0.99), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_correlations_without_each_observation_equal_those_of_scipy(n, rho, seed):
    x, y = simulate(n, rho, 2, np.random.default_rng(seed))
    assert (np.diff(x) > 0).all()
    for name, (values, without) in without_each(x, y).items():
        for row in range(2):
            value, expected = leave_one_out(x[row], y[row], name)
            assert values[row] == pytest.approx(value, abs=1e-9)
            np.testing.assert_allclose(without[row], expected, atol=1e-7)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_at_the_ends_a_test_just_rejects(statistic):
    """In data whose correlation is an end of the interval, the statistic is as extreme with the probability of one tail."""
    n, level = 8, 0.9
    x, y = (values[0] for values in simulate(n, 0.7, 1, np.random.default_rng(5)))
    value, without = leave_one_out(x, y, statistic)
    inverse = {"pearson": lambda t: t, "spearman": lambda t: 2 * math.sin(math.pi * t / 6)}
    inverse["kendall"] = lambda t: math.sin(math.pi * t / 2)
    for end, sign in zip(interval(value, without, statistic, level), (1, -1), strict=True):
        observed = studentized(value, without, math.atanh(end))
        generator = np.random.default_rng(11)
        drawn = []
        for _ in range(400):
            one, noise = generator.standard_normal((2, n))
            rho = inverse[statistic](end)
            other = rho * one + math.sqrt(1 - rho**2) * noise
            t, jackknifed = leave_one_out(one, other, statistic)
            error = math.sqrt((n - 1) / n * sum((jackknifed - jackknifed.mean()) ** 2))
            drawn.append(math.inf if t == 1 else (math.atanh(t) - math.atanh(end)) * (1 - t**2) / max(error, 1e-300))
        share = np.mean(sign * np.array(drawn) >= sign * observed)
        assert 0.02 < share < 0.09  # 0.05 with a standard error of 0.011


def test_intervals_cover_the_truth_as_often_as_they_claim():
    """benchmarks/coverage.py measures the coverage of many more samples, distributions and sizes."""
    for rho in (0, 0.9):
        samples = without_each(*simulate(9, rho, 1000, np.random.default_rng(1)))
        for name, truth in zip(STATISTICS, intervals.population_values(rho), strict=True):
            ends = np.array([interval(*pair, name, 0.95) for pair in zip(*samples[name], strict=True)])
            coverage = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
            assert 0.93 <= coverage <= 0.98, (name, rho)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_of_a_perfect_order_is_one_sided(sign):
    n = 9
    x = np.arange(n, dtype=float)
    for statistic in ("spearman", "kendall"):
        low, high = interval(*leave_one_out(x, sign * x**3, statistic), statistic, 0.95)
        bound, end = (low, high) if sign > 0 else (-high, -low)
        assert end == 1
        rho = math.sin(math.pi * bound / 2) if statistic == "kendall" else 2 * math.sin(math.pi * bound / 6)
        _, y = simulate(n, rho, 40_000, np.random.default_rng(3))
        assert (np.diff(y) > 0).all(axis=1).mean() == pytest.approx(0.025, abs=0.004)


@given(st.floats(-0.95, 0.95), st.integers(0, 50), st.sampled_from(STATISTICS), st.integers(MIN_OBSERVATIONS, 15))
@settings(max_examples=40, deadline=None)
def test_properties_of_intervals(rho, seed, statistic, n):
    values, without = without_each(*simulate(n, rho, 1, np.random.default_rng(seed)))[statistic]
    low, high = interval(values[0], without[0], statistic, 0.95)
    assert -1 <= low <= values[0] <= high <= 1
    inner_low, inner_high = interval(values[0], without[0], statistic, 0.5)
    assert low <= inner_low <= inner_high <= high
    assert interval(-values[0], -without[0], statistic, 0.95) == pytest.approx((-high, -low), abs=2e-3)


def test_no_interval_without_enough_observations_or_if_one_decides():
    for n in range(3, MIN_OBSERVATIONS):
        assert np.isnan(interval(0.5, np.linspace(0.4, 0.6, n), "pearson", 0.95)).all()
    assert np.isnan(interval(0.5, np.array([0.4] * 8 + [math.nan]), "kendall", 0.95)).all()
    assert np.isnan(interval(0.5, np.full(9, 0.5), "kendall", 0.95)).all()


def test_more_observations_than_are_simulated_give_shorter_intervals():
    lengths = []
    for n in (50, 200, 800):
        values, without = without_each(*simulate(n, 0.6, 1, np.random.default_rng(2)))["pearson"]
        low, high = interval(values[0], without[0], "pearson", 0.95)
        lengths.append(high - low)
    assert lengths[0] > 1.6 * lengths[1] > 2.5 * lengths[2]


def test_ties_make_a_perfect_order_more_likely():
    """Two values each, in the same order: 27 observations have the bound of two, which is none."""
    x = np.repeat([0.0, 1.0], [13, 14])
    value, without = leave_one_out(x, x, "kendall")
    assert value == pytest.approx(1)
    assert np.isnan(interval(1.0, without, "kendall", 0.95, levels=2)).all()
    nine, all_of_them = (interval(1.0, np.ones(27), "kendall", 0.95, levels)[0] for levels in (9, 27))
    assert nine < all_of_them < 1


def test_a_line_has_no_interval_of_pearson_and_one_that_is_nearly_one_does():
    assert np.isnan(interval(1.0, np.ones(9), "pearson", 0.95)).all()
    low, high = interval(1 - 1e-9, np.full(9, 1 - 1e-9) - np.arange(9) * 1e-11, "pearson", 0.95)
    assert 0.9999 < low <= high == 1


def test_two_equal_correlations_are_called_different_in_5_percent_of_samples():
    rejected = []
    samples = [without_each(*simulate(n, 0.6, 500, np.random.default_rng(n)))["pearson"] for n in (12, 27)]
    for one, other in zip(*(list(zip(*sample, strict=True)) for sample in samples), strict=True):
        errors = tuple(intervals.fisher_error(*pair) for pair in (one, other))
        rejected.append(intervals.compare((one[0], other[0]), errors, (12, 27)) <= 0.05)
    assert 0.02 <= np.mean(rejected) <= 0.08
    assert math.isnan(intervals.compare((1.0, 0.5), (0.1, 0.2), (9, 9)))
    assert intervals.compare((0.99, 0.1), (0.2, 0.2), (27, 27)) < 0.001
