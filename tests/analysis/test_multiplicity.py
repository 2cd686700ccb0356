"""Comparisons of measures: permutation p values, differences and ranks."""

from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regioncount.analysis import describe_ranking, multiplicity, ranking
from regioncount.analysis.multiplicity import associate, differences, permutation_p_values, rank_intervals
from regioncount.errors import InputError


def draw(n, correlations, seed):
    """Return measures (n, M) with these correlations with the target, and the target."""
    generator = np.random.default_rng(seed)
    target = generator.standard_normal(n)
    noise = generator.standard_normal((n, len(correlations)))
    rho = np.array(correlations)
    return rho * target[:, None] + np.sqrt(1 - rho**2) * noise, target


def test_p_values_equal_the_shares_of_all_permutations():
    measures, target = draw(6, [0.9, 0.5, -0.8], seed=4)
    measures[0, 1] = measures[1, 1]  # a tie
    orders = [list(order) for order in permutations(range(6))]
    taus = np.array([[abs(stats.kendalltau(m, target[order]).statistic) for m in measures.T] for order in orders])
    expected = (taus >= taus[0] - 1e-9).mean(axis=0)
    expected_adjusted = (taus.max(axis=1)[:, None] >= taus[0] - 1e-9).mean(axis=0)
    p_values, adjusted = permutation_p_values(measures, target)
    np.testing.assert_allclose(p_values, expected, atol=0.015)
    np.testing.assert_allclose(adjusted, expected_adjusted, atol=0.015)


def test_a_missing_value_and_a_constant_measure():
    measures, target = draw(12, [0.9, 0.9, 0.5], seed=1)
    measures[3, 0] = np.nan
    measures[:, 2] = 1
    associations = associate(measures, target, 0.95)
    present = np.arange(12) != 3
    expected = [stats.kendalltau(measures[present, 0], target[present]), stats.kendalltau(measures[:, 1], target)]
    np.testing.assert_allclose(associations.values[:2], [abs(result.statistic) for result in expected])
    p_values, adjusted = permutation_p_values(measures, target)
    assert np.isnan([associations.values[2], p_values[2], adjusted[2], *rank_intervals(associations)[2]]).all()
    np.testing.assert_allclose(p_values[:2], [result.pvalue for result in expected], atol=0.01)
    assert np.isfinite(rank_intervals(associations)[:2]).all()


def test_unrelated_measures_are_rarely_called_related(monkeypatch):
    monkeypatch.setattr(multiplicity, "PERMUTATIONS", 999)
    smallest = [permutation_p_values(*draw(9, [0] * 12, seed))[1].min() for seed in range(200)]
    assert np.mean(np.array(smallest) <= 0.05) <= 0.1  # 0.05 with a standard error of 0.015


@given(st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_properties(seed):
    measures, target = draw(10, [0.95, 0.7, -0.6, 0.1], seed)
    associations = associate(measures, target, 0.95)
    p_values, adjusted = permutation_p_values(measures, target)
    assert (adjusted >= p_values).all()
    ranks = stats.rankdata(-associations.values)
    low, high = rank_intervals(associations).T
    assert (low >= 1).all()
    assert (high <= 4).all()
    assert (low <= ranks).all()
    assert (ranks <= high).all()
    for one in range(4):
        value, low, high = differences(associations, one).T
        np.testing.assert_allclose(value, associations.values - associations.values[one])
        assert ((low <= value) & (value <= high)).all()
        assert low[one] == high[one] == 0
        for other in range(4):
            mirrored = -differences(associations, other)[one]
            np.testing.assert_allclose([value[other], high[other], low[other]], mirrored, atol=1e-12)
    # Neither the sign nor the unit of a measure matters.
    changed = associate(np.exp(-measures), target, 0.95)
    np.testing.assert_allclose(changed.values, associations.values)
    np.testing.assert_allclose(rank_intervals(changed), rank_intervals(associations))


def test_a_measure_cannot_be_told_from_a_function_of_it():
    measures, target = draw(30, [0.9, 0.2], seed=0)
    measures = np.column_stack([measures, measures[:, 0] ** 3])
    associations = associate(measures, target, 0.95)
    assert differences(associations, 0)[2] == pytest.approx(0)
    intervals = rank_intervals(associations)
    assert intervals[0].tolist() == intervals[2].tolist() == [1, 2]
    assert intervals[1].tolist() == [3, 3]


def test_differences_cover_the_truth():
    """With measures that share noise, whose correlations with the target are 0.9 and 0.6."""
    truth = 2 / np.pi * (np.arcsin(0.6) - np.arcsin(0.9))
    covered = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        target, common, *own = generator.standard_normal((4, 12))
        measures = [
            rho * target + np.sqrt(1 - rho**2) * (common + noise) / np.sqrt(2)
            for rho, noise in zip((0.9, 0.6), own, strict=True)
        ]
        _, low, high = differences(associate(np.stack(measures, axis=1), target, 0.95), 0)[1]
        covered.append(low <= truth <= high)
    assert 0.91 <= np.mean(covered) <= 0.995


def grid(seeds=2):
    """Return a full grid of 12 configurations with two related measures and an unrelated one."""
    generator = np.random.default_rng(3)
    runs = pd.DataFrame(product([0.1, 0.01, 0.001], [32, 64, 128, 256], range(seeds)))
    runs.columns = ["learning_rate", "batch_size", "seed"]
    quality = -np.log10(runs["learning_rate"]) + np.log2(runs["batch_size"]) / 4
    for number, noise in enumerate((0.3, 0.6, 3)):
        runs[f"m{number}"] = quality + noise * generator.normal(size=len(runs))
    return runs.assign(train_accuracy=1.0, test_accuracy=0.9 - 0.05 * quality + 0.01 * generator.normal(size=len(runs)))


def rank(runs, measures=("m0", "m1", "m2"), **options):
    options = {"target": "test_error", "group_by": ["learning_rate", "batch_size"]} | options
    return ranking(runs, measures, **options)


def test_ranks_follow_the_correlations_beside_them_if_runs_are_missing():
    for seed in range(20):
        runs = grid(seeds=3)
        runs.loc[np.random.default_rng(seed).random(len(runs)) < 0.3, "m0"] = np.nan
        result = rank(runs)
        assert result["kendall"].abs().is_monotonic_decreasing
        differences = result["kendall"].abs() - result["kendall"].abs().iloc[0]
        np.testing.assert_allclose(result["difference_to_best"], differences, atol=1e-12)
        assert "runs left out: m0 is missing" in result.set_index("measure").loc["m0", "note"]


def test_a_measure_without_an_interval_may_be_better_or_worse_than_any():
    runs = grid()
    best = runs.groupby(["learning_rate", "batch_size"])["test_accuracy"].transform("mean")
    runs["only"] = (best == best.min()).astype(float)  # constant without one configuration
    result = rank(runs, ["only", "m0", "m1", "m2"]).set_index("measure")
    assert np.isnan(result.loc["only", "rank_low"])
    assert "no intervals of differences to only" in result.loc["m0", "note"]
    others = result.drop("only")
    assert (others["rank_low"] <= others["rank"]).all()
    assert (others["rank"] <= others["rank_high"]).all()
    assert others["rank_high"].max() == 4


def test_measures_of_different_configurations_are_not_taken_for_equal():
    number = np.arange(27)
    runs = pd.DataFrame({"c": number, "train_accuracy": 1.0, "test_accuracy": 0.5 - 0.01 * number})
    runs["all"], runs["some"] = number, np.where(number < 8, number, np.nan)
    result = rank(runs, ["all", "some"], group_by=["c"]).set_index("measure").loc["some"]
    assert result["difference_to_reference"] == 0
    assert result["difference_to_reference_low"] < -0.1
    assert result["difference_to_reference_high"] > 0


@pytest.mark.parametrize("dtype", ["Int64", "string", "category", "boolean"])
def test_hyperparameters_of_any_type_may_be_missing(dtype):
    runs = grid()
    sizes = runs["batch_size"].where(runs["batch_size"] > 32)
    values = sizes.map({64: True, 128: False, 256: True}) if dtype == "boolean" else sizes.astype(str).where(sizes.notna())
    runs["batch_size"] = sizes.astype("Int64") if dtype == "Int64" else values.astype(dtype)
    result = rank(runs)
    assert result["kendall"].notna().all()
    assert (result["kendall_least_without"] != "").all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda runs: runs.assign(batch_size=[[32]] * len(runs)), "batch_size cannot make configurations"),
        (lambda runs: pd.concat([runs, runs[["m0"]]], axis=1), "has several columns m0"),
        (lambda runs: runs.assign(test_accuracy=-0.5), "test_accuracy has values down to -0.5"),
        (lambda runs: runs.assign(m0=int("9" * 400)), "m0 of the table of runs is not numeric"),
    ],
)
def test_tables_that_cannot_be_analysed_are_refused(change, reason):
    with pytest.raises(InputError, match=reason):
        rank(change(grid()))


def test_no_measures_names_of_numbers_and_huge_values():
    assert describe_ranking(rank(grid(), [])) == "no ranking: no measures"
    result = rank(grid().rename(columns={"m0": 0}).assign(constant=1.0), [0, "constant"])
    assert "constant: undefined" in describe_ranking(result)
    huge = rank(grid().assign(m0=grid()["m0"] * 1e299, m1=1e305))
    assert huge["kendall"].notna().sum() == 2
    with pytest.raises(InputError, match="names a column twice"):
        rank(grid(), group_by=["learning_rate", "learning_rate"])
    with pytest.raises(InputError, match="reference=m9 is not among the measures"):
        rank(grid(), reference="m9")
