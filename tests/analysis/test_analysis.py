"""Correlations compared with scipy, their intervals with a slow loop, and both with the figures of the paper."""

import math
import warnings
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from regioncount.analysis import correlations, mark
from regioncount.analysis.correlation import weighted_statistics
from regioncount.analysis.intervals import MIN_OBSERVATIONS, interval
from regioncount.errors import InputError

PAPER = Path(__file__).resolve().parents[2] / ".." / "shared" / "paper"
SCIPY = {
    "pearson": lambda x, y: stats.pearsonr(x, y).statistic,
    "spearman": lambda x, y: stats.spearmanr(x, y).statistic,
    "kendall": lambda x, y: stats.kendalltau(x, y).statistic,
}
INTERVALS = [f"{name}{end}" for name in SCIPY for end in ("", "_low", "_high")]

# Pairs of small integers tie often, and rounding makes no other values tie.
pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12).filter(
    lambda points: all(len(set(values)) > 1 for values in zip(*points, strict=True))
)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def table(measure, gap, train_accuracy=1.0, **columns) -> pd.DataFrame:
    """Return one run per value, each its own configuration."""
    runs = pd.DataFrame({"count": np.asarray(measure, float), "configuration": range(len(measure)), **columns})
    return runs.assign(train_accuracy=train_accuracy, test_accuracy=train_accuracy - np.asarray(gap, float))


def correlate(runs, *, target="generalization_gap", **options) -> pd.Series:
    result = correlations(runs, ["count"], [target], ["configuration"], **options)
    assert len(result) == 1
    return result.iloc[0]


@given(pairs)
def test_values_equal_those_of_scipy_with_ties(points):
    x, y = np.array(points, float).T
    result = correlate(table(x, y / 100))
    for name, reference in SCIPY.items():
        assert result[name] == pytest.approx(reference(x, y), abs=1e-9)


@given(pairs.filter(lambda points: len(points) >= MIN_OBSERVATIONS))
@settings(max_examples=10)
def test_intervals_rest_on_the_correlations_without_each_configuration(points):
    x, y = np.array(points, float).T
    result = correlate(table(x, y / 100), level=0.8)
    for name, reference in SCIPY.items():
        kept = [np.arange(len(x)) != i for i in range(len(x))]
        constant = any(len(set(values[rows])) == 1 for rows in kept for values in (x, y))
        without = np.array([math.nan if constant else reference(x[rows], y[rows]) for rows in kept])
        expected = interval(result[name], without, name, 0.8)
        assert (result[f"{name}_low"], result[f"{name}_high"]) == pytest.approx(expected, abs=2e-3, nan_ok=True)
        assert ("no interval: without one configuration" in result["note"]) == constant


@pytest.mark.parametrize("number", [3, 6, 7])
def test_few_configurations_have_no_interval(number):
    x = np.array([1.0, 3, 2, 4, 6, 5, 7])[:number]
    result = correlate(table(x, np.arange(number) / 100))
    missing = [name for name in INTERVALS if math.isnan(result[name])]
    assert missing == ([] if number == 7 else [name for name in INTERVALS if name.endswith(("low", "high"))])
    assert result["note"] == ("" if number == 7 else f"no interval: {number} configurations, 7 are needed")


def test_the_value_on_which_a_correlation_rests_most_is_named():
    runs = pd.DataFrame(product([0.1, 0.01, 0.001], [64, 128, 256]), columns=["learning_rate", "batch_size"])
    generator = np.random.default_rng(0)
    runs["count"] = 10.0 * (runs["learning_rate"] == 0.001) + generator.normal(size=9)
    gap = 0.1 + 0.1 * (runs["learning_rate"] == 0.001) + 0.01 * generator.normal(size=9)
    runs = runs.assign(train_accuracy=1.0, test_accuracy=1 - gap)
    for sign in (1, -1):
        changed = runs.assign(count=sign * runs["count"])
        result = correlations(changed, ["count"], ["test_error"], ["learning_rate", "batch_size"]).iloc[0]
        for name, reference in SCIPY.items():
            left = {
                f"{column}={value:g}": sign * reference(changed["count"][keep], gap[keep])
                for column in ("learning_rate", "batch_size")
                for value in changed[column].unique()
                for keep in [changed[column] != value]
            }
            least = min(left, key=left.get)
            assert result[f"{name}_least"] == pytest.approx(sign * left[least], abs=1e-5)
            assert result[f"{name}_least_without"] == least == "learning_rate=0.001"
            assert sign * result[f"{name}_least"] < sign * result[name] - 0.3


def test_seeds_are_averaged_before_correlating():
    # Within each configuration, the gap decreases as the count increases; their averages increase together.
    runs = pd.DataFrame(
        {"configuration": [1, 1, 2, 2, 3, 3], "count": [1.0, 3.0, 2.0, 5.0, 4.0, 6.0], "train_accuracy": 1.0}
    ).assign(test_accuracy=[0.7, 0.9, 0.6, 0.8, 0.5, 0.7])
    result = correlate(runs)
    assert (result["runs"], result["configurations"]) == (6, 3)
    assert result["pearson"] == pytest.approx(stats.pearsonr([2, 3.5, 5], [0.2, 0.3, 0.4]).statistic)
    assert result["pearson"] > 0.99 > stats.pearsonr(runs["count"], 1 - runs["test_accuracy"]).statistic


def test_averages_that_differ_only_by_rounding_tie():
    third = [0.1, 0.2, 0.3]  # their sum depends on the order of summation
    assert third[0] + third[1] + third[2] != third[2] + third[1] + third[0]
    runs = pd.DataFrame({"configuration": np.repeat([1, 2, 3], 3), "count": [*third, *reversed(third), 1.0, 1.0, 1.0]})
    runs = runs.assign(train_accuracy=1.0, test_accuracy=np.repeat([0.9, 0.8, 0.7], 3))
    assert correlate(runs)["kendall"] == pytest.approx(stats.kendalltau([0.2, 0.2, 1.0], [0.1, 0.2, 0.3]).statistic)


@given(pairs, st.randoms(use_true_random=False), st.integers(1, 3))
@settings(max_examples=30)
def test_order_of_runs_does_not_matter(points, random, seeds):
    x, y = np.array(points, float).T
    noise = np.random.default_rng(0).normal(0, 0.01, size=(2, len(x) * seeds))
    runs = table(np.tile(x, seeds) + noise[0], (np.tile(y, seeds) + noise[1]) / 100 + 0.1)
    runs["configuration"] = np.tile(np.arange(len(x)), seeds)
    order = list(range(len(runs)))
    random.shuffle(order)
    pd.testing.assert_series_equal(correlate(runs), correlate(runs.iloc[order]), check_exact=True)


def test_order_of_runs_does_not_matter_if_averages_lie_between_two_rounded_values():
    seeds = [0.3269, 0.8842, 1.3697715]  # average 0.8602905; the order of summation determines how it is rounded
    runs = pd.DataFrame({"configuration": [1, 1, 1, 2, 3], "count": [*seeds, 0.860291, 2.0]})
    runs = runs.assign(train_accuracy=1.0, test_accuracy=[0.9, 0.9, 0.9, 0.8, 0.7])
    assert len({correlate(runs.iloc[[*order, 3, 4]])["kendall"] for order in permutations(range(3))}) == 1


@given(pairs, st.sampled_from([1e-9, 0.03, 1.0, 700.0, 1e11]), st.integers(-3, 3))
@settings(max_examples=40)
def test_units_of_the_measure_do_not_matter(points, scale, shift):
    x, y = np.array(points, float).T
    expected = correlate(table(x, y / 100))[INTERVALS].astype(float)
    result = correlate(table((x + shift) * scale, y / 100))[INTERVALS].astype(float)
    np.testing.assert_allclose(result, expected, atol=2e-3)


@given(pairs)
@settings(max_examples=30)
def test_a_negative_measure_negates_every_statistic(points):
    x, y = np.array(points, float).T
    plus, minus = correlate(table(x, y / 100)), correlate(table(-x, y / 100))
    for name in SCIPY:
        flipped = (-minus[name], -minus[f"{name}_high"], -minus[f"{name}_low"])
        assert plus[name] == pytest.approx(flipped[0], abs=1e-9)
        ends = (plus[f"{name}_low"], plus[f"{name}_high"])
        assert ends == pytest.approx(flipped[1:], abs=2e-3, nan_ok=True)  # ends are multiples of 0.001 on Fisher's scale


def test_intervals_are_reproducible_and_contain_the_value():
    x = np.arange(20) + np.random.default_rng(0).normal(0, 4, 20)
    runs = table(x, np.arange(20) / 100)
    result = correlate(runs)
    pd.testing.assert_series_equal(result, correlate(runs), check_exact=True)
    narrow = correlate(runs, level=0.5)
    for name in SCIPY:
        assert result[f"{name}_low"] < narrow[f"{name}_low"] < result[name] < narrow[f"{name}_high"] < result[f"{name}_high"]


@pytest.mark.parametrize(
    ("measure", "gap", "note"),
    [
        ([1, 2], [0.1, 0.2], "undefined: 2 configurations, 3 are needed"),
        ([1], [0.1], "undefined: 1 configuration, 3 are needed"),
        ([], [], "undefined: 0 configurations, 3 are needed"),
        ([2, 2, 2], [0.1, 0.2, 0.3], "undefined: count is constant"),
        ([1, 2, 3], [0.1, 0.1, 0.1], "undefined: generalization_gap is constant"),
        ([2, 2, 2], [0.1, 0.1, 0.1], "undefined: count and generalization_gap are constant"),
        ([math.nan, 1, 2], [0.1, 0.2, 0.3], "undefined: 2 configurations, 3 are needed"),
    ],
)
def test_undefined_correlations_give_the_reason(measure, gap, note):
    result = correlate(table(measure, gap))
    assert result["note_fitted"] == note
    assert result["note"].split("; ")[0] == note
    assert result[INTERVALS].isna().all()


def test_incomplete_runs_are_left_out_and_not_counted():
    runs = table([1, 2, 4, 5, 6, 7], [0.1, 0.3, 0.2, 0.5, 0.4, 0.6])
    damaged = runs.copy()
    damaged.loc[3, "count"] = math.nan
    damaged.loc[4, "test_accuracy"] = math.nan
    damaged.loc[5, "count"] = math.inf
    result, expected = correlate(damaged), correlate(runs.iloc[:3])
    pd.testing.assert_series_equal(result.drop("note"), expected.drop("note"))
    left_out = "3 of 6 runs left out: count or test_accuracy are missing or infinite"
    assert result["note"] == f"{expected['note']}; {left_out}"


def test_runs_are_filtered_before_averaging():
    # Configuration 3 has a fitted and an unfitted seed; only the first counts as fitted.
    runs = pd.DataFrame({"configuration": [0, 1, 2, 3, 3], "count": [1.0, 2.0, 3.0, 4.0, 40.0]})
    runs = runs.assign(train_accuracy=[1, 0.99, 0.995, 1, 0.5], test_accuracy=[0.9, 0.81, 0.7, 0.75, 0.4])
    result = correlate(runs)
    assert (result["runs"], result["configurations"], result["fitted"], result["configurations_fitted"]) == (5, 4, 4, 4)
    assert result["pearson_fitted"] == pytest.approx(stats.pearsonr([1, 2, 3, 4], [0.1, 0.18, 0.295, 0.25]).statistic)
    assert result["pearson"] == pytest.approx(stats.pearsonr([1, 2, 3, 22], [0.1, 0.18, 0.295, 0.175]).statistic)
    strict = correlate(runs, fitted_accuracy=0.999)
    assert strict["fitted"] == 2
    assert strict["note_fitted"] == "undefined: 2 configurations, 3 are needed"


def test_missing_hyperparameters_form_a_configuration():
    runs = table([1, 2, 3, 5], [0.1, 0.2, 0.3, 0.2], configuration=[0.1, 0.2, None, None])
    result = correlate(runs)
    assert result["configurations"] == 3
    assert result["pearson"] == pytest.approx(stats.pearsonr([1, 2, 4], [0.1, 0.2, 0.25]).statistic)


def test_targets_are_derived_even_if_columns_of_that_name_exist():
    runs = table([1, 2, 4], [0.1, 0.3, 0.2]).assign(generalization_gap=[9.0, 5.0, 1.0], test_error=7.0, other=[3, 2, 1])
    result = correlations(runs, ["count"], ["generalization_gap", "test_error", "other"], ["configuration"])
    assert list(result["target"]) == ["generalization_gap", "test_error", "other"]
    expected = [stats.pearsonr([1, 2, 4], target).statistic for target in ([1, 3, 2], [1, 3, 2], [3, 2, 1])]
    np.testing.assert_allclose(result["pearson"], expected)


def test_order_of_columns_and_rows():
    runs = table([1, 2, 3], [0.1, 0.3, 0.2]).assign(norm=[3.0, 1.0, 2.0])
    result = correlations(runs, ["count", "norm"], group_by=["configuration"])
    assert list(zip(result["measure"], result["target"], strict=True)) == [
        (measure, target) for measure in ("count", "norm") for target in ("generalization_gap", "test_error")
    ]
    least = [f"{name}_least{end}" for name in SCIPY for end in ("", "_without")]
    values = [f"{name}{end}" for name in SCIPY for end in ("", "_low", "_high", "_error")]
    statistics = [*values, *least, "note"]
    expected = ["measure", "target", "runs", "configurations", "fitted", *statistics, "configurations_fitted"]
    assert list(result.columns) == expected + [f"{name}_fitted" for name in statistics]
    assert list(correlations(runs, [], group_by=["configuration"]).columns) == list(result.columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_accuracy": [98.5, 99.0, 1.0]}, "percent"),
        ({"test_accuracy": [0.5, 0.6, 60.0]}, "percent"),
        ({"count": ["few", "some", "many"]}, "count of the table of runs is not numeric"),
    ],
)
def test_invalid_values_are_rejected(change, message):
    with pytest.raises(InputError, match=message) as error:
        correlate(table([1, 2, 3], [0.1, 0.2, 0.3]).assign(**change))
    assert "\n" not in str(error.value)


def test_fractions_may_exceed_1_by_rounding_and_levels_may_differ_by_it():
    runs = table([1, 2, 4, 3], [0.1, 0.3, 0.2, 0.4], configuration=[0.1, 0.3, 0.1 + 0.2, 0.4])
    rounded = runs.assign(train_accuracy=1.0000001)
    result = correlate(rounded)
    assert result["configurations"] == 3  # 0.1 + 0.2 is 0.30000000000000004
    pd.testing.assert_series_equal(result, correlate(runs))
    with pytest.raises(InputError, match="percent"):
        correlate(runs.assign(train_accuracy=1.001))


def test_missing_columns_are_named():
    runs = table([1, 2, 3], [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="no column sharpness, weight_decay;"):
        correlations(runs, ["count", "sharpness"], group_by=["configuration", "weight_decay"])
    with pytest.raises(InputError, match="no column test_accuracy;"):
        mark(runs.drop(columns="test_accuracy"))
    with pytest.raises(InputError, match="group_by is empty"):
        correlations(runs, ["count"], group_by=[])


def test_mark():
    runs = pd.DataFrame(
        [
            # train, test, classes, share of lines and planes with one region -> fitted, degenerate
            (1.00, 0.80, 10, 0.1, 0.1, True, False),
            (0.99, 0.80, 10, 0.5, 0.5, True, False),
            (0.98, 0.80, 10, 0.1, 0.6, False, True),
            (0.10, 0.15, 10, 0.1, 0.1, False, True),
            (1.00, 0.15, 100, math.nan, math.nan, True, False),
            (math.nan, math.nan, 10, math.nan, math.nan, False, False),
        ],
        columns=[
            *("train_accuracy", "test_accuracy", "num_classes", "region_share_one_line", "region_share_one_plane"),
            *("expected_fitted", "expected_degenerate"),
        ],
    )
    before = runs.copy()
    marked = mark(runs)
    pd.testing.assert_frame_equal(runs, before)
    assert list(marked.columns) == [*runs.columns, "fitted", "degenerate"]
    assert all(marked[column].dtype == np.dtype(bool) for column in ("fitted", "degenerate"))
    assert list(marked["fitted"]) == list(runs["expected_fitted"])
    assert list(marked["degenerate"]) == list(runs["expected_degenerate"])
    # Without the number of classes, the chance level is unknown.
    assert not mark(runs[["train_accuracy", "test_accuracy"]])["degenerate"].any()


def test_published_figures_are_reproduced_from_the_published_runs():
    if not (PAPER / "runs.csv").is_file() or not (PAPER / "correlations.csv").is_file():
        pytest.skip("the paper's runs.csv and correlations.csv are not beside the repository, in ../shared/paper")
    runs, published = pd.read_csv(PAPER / "runs.csv"), pd.read_csv(PAPER / "correlations.csv")
    groups = dict(list(runs.groupby(["experiment", "network"])))
    assert len(published) == len(groups) > 100
    for _, expected in published.iterrows():
        result = correlations(groups[expected["experiment"], expected["network"]], ["regions_200"])
        gap, error = result.iloc[0], result.iloc[1]
        case = f"{expected['experiment']}, {expected['network']}"
        assert (gap["runs"], gap["configurations"]) == (expected["runs"], expected["configurations"]), case
        # Published to four digits.
        for name in SCIPY:
            assert gap[name] == pytest.approx(expected[name], abs=5.1e-5), f"{case}: {name}"
        assert error["pearson"] == pytest.approx(expected["pearson_test_error"], abs=5.1e-5), f"{case}: test error"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weighted_statistics_equal_those_of_repeated_items(data):
    """They equal those of scipy for repeated items, and are undefined if x or y is constant."""
    number = data.draw(st.integers(1, 40))
    values = st.lists(st.integers(1, 8), min_size=number, max_size=number)
    x, y = (np.array(data.draw(values), dtype=float) for _ in range(2))
    draws = st.lists(st.integers(0, 3), min_size=number, max_size=number).filter(any)
    weights = np.array(data.draw(st.lists(draws, min_size=1, max_size=4)))
    for row, result in zip(weights, weighted_statistics(x, y, weights), strict=True):
        repeated = np.repeat(x, row), np.repeat(y, row)
        if min(len(set(values)) for values in repeated) == 1:
            assert np.isnan(result).all()
            continue
        expected = [statistic(*repeated) for statistic in SCIPY.values()]
        np.testing.assert_allclose(result, expected, atol=1e-9)


@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (1e-3, 0), (1e-200, 0), (1e200, 0), (1e-4, 1e3), (1e-6, 1)])
def test_the_unit_of_a_measure_changes_no_correlation(factor, offset):
    settings = {"learning_rate": [0.1, 0.05, 0.02, 0.01, 0.005, 0.002], "batch_size": 32, "weight_decay": 0.0}
    accuracies = {"train_accuracy": 1.0, "test_accuracy": [0.9, 0.91, 0.93, 0.92, 0.94, 0.95]}
    measure = np.array([2.0, 1e-3, 3e-7, 2e-7, 1e-7, 5e-8]) if offset == 0 else np.array([6.0, 5.5, 4.0, 3.0, 2.0, 1.0])
    runs = pd.DataFrame(settings | accuracies | {"m": measure, "scaled": factor * measure + offset})
    table = correlations(runs, ["m", "scaled"], ["generalization_gap"])
    gaps = 1 - runs["test_accuracy"]
    assert table["kendall"].tolist() == pytest.approx([stats.kendalltau(measure, gaps)[0]] * 2)
    assert table["spearman"].tolist() == pytest.approx([stats.spearmanr(measure, gaps)[0]] * 2)
    assert table["pearson"].tolist() == pytest.approx([stats.pearsonr(measure, gaps)[0]] * 2)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"measures": "m"}, "measures is 'm': pass a list"),
        ({"targets": "test_error"}, "targets is 'test_error': pass a list"),
        ({"group_by": "seed"}, "group_by is 'seed': pass a list"),
        ({"measures": ["complex"]}, "complex of the table of runs is not numeric"),
        ({"measures": ["date"]}, "date of the table of runs is not numeric"),
        ({"measures": ["text"]}, "text of the table of runs is not numeric"),
    ],
)
def test_arguments_and_columns_of_other_types_are_refused(arguments, reason):
    runs = pd.DataFrame({"seed": [0, 1, 2], "train_accuracy": 1.0, "test_accuracy": [0.5, 0.6, 0.7], "m": [1.0, 2, 3]})
    runs["complex"], runs["date"], runs["text"] = [1j, 2j, 3j], pd.Timestamp("2020-01-01"), ["a", "b", "c"]
    with pytest.raises(InputError, match=reason) as refused:
        correlations(runs, **{"measures": ["m"], "group_by": ["seed"]} | arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("level", [0, 0.01, 0.999, 1, 1.5, 95, -1, math.nan, "0.95"])
def test_levels_that_a_simulation_cannot_deliver_are_refused(level):
    runs = pd.DataFrame({"seed": [0], "train_accuracy": [1.0], "test_accuracy": [0.5], "m": [1.0]})
    with pytest.raises(InputError, match="level"):
        correlations(runs, ["m"], group_by=["seed"], level=level)
