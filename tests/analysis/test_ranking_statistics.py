"""Statistics over pairs of runs compared with plain loops, least squares with scikit-learn, and their invariances."""

import math
import subprocess
import sys
import warnings
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LinearRegression

from regioncount.analysis import (
    conditional_mutual_information,
    correlations,
    describe_ranking,
    describe_regression,
    granulated_kendall,
    partial_correlations,
    ranking,
    regression,
    robust_sign_error,
    select,
)
from regioncount.analysis.__main__ import main
from regioncount.analysis.intervals import interval
from regioncount.errors import InputError

PAPER = Path(__file__).resolve().parents[2] / ".." / "shared" / "paper"
HYPERPARAMETERS = ["learning_rate", "batch_size", "weight_decay"]
GAP = ["generalization_gap"]


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def table(rows) -> pd.DataFrame:
    """Return runs from rows of (setting, count, gap in percent)."""
    grid = pd.DataFrame([setting for setting, _, _ in rows], columns=HYPERPARAMETERS)
    counts, gaps = [count for _, count, _ in rows], [gap / 100 for _, _, gap in rows]
    return grid.assign(count=np.array(counts, float), train_accuracy=1.0, test_accuracy=1 - np.array(gaps, float))


@st.composite
def grids(draw, max_seeds=2):
    """Draw rows of an incomplete grid of hyperparameters, with small integers that tie often."""
    shape, number = (
        draw(st.tuples(st.integers(2, 3), st.integers(1, 3), st.integers(1, 2))),
        draw(st.integers(1, max_seeds)),
    )
    values = (0.1, 0.01, 0.001), (64, 128, 256), (1e-5, 1e-6)
    cells = product(*(value[:length] for value, length in zip(values, shape, strict=True)))
    kept = [setting for setting in cells if draw(st.integers(0, 5))]
    assume(len(kept) >= 3)
    rows = [(setting, draw(st.integers(0, 5)), draw(st.integers(0, 6))) for setting in kept for _ in range(number)]
    for averaged in (False, True):
        for column in zip(*((count, gap) for _, count, gap in observe(rows, averaged)), strict=True):
            assume(len(set(column)) > 1)
    return rows


def observe(rows, averaged: bool) -> list:
    """Return the rows, or their exact averages over each setting."""
    if not averaged:
        return rows
    groups = {}
    for setting, count, gap in rows:
        groups.setdefault(setting, []).append((count, gap))
    means = {s: [Fraction(sum(column), len(group)) for column in zip(*group, strict=True)] for s, group in groups.items()}
    return [(setting, count, gap) for setting, (count, gap) in means.items()]


def sign(number) -> int:
    return (number > 0) - (number < 0)


def slow_granulated(observations) -> dict:
    psi = {}
    for position, name in enumerate(HYPERPARAMETERS):
        groups = {}
        for observation in observations:
            setting = observation[0]
            groups.setdefault(setting[:position] + setting[position + 1 :], []).append(observation)
        taus = []
        for group in groups.values():
            products = []
            for first in group:
                for second in group:
                    if first[0][position] != second[0][position]:
                        products.append(sign(first[1] - second[1]) * sign(first[2] - second[2]))
            if products:
                taus.append(sum(products) / len(products))
        if taus:
            psi[name] = sum(taus) / len(taus)
    return psi


def slow_information(observations) -> dict:
    """Return I(V_m; V_g | U_S) / H(V_g | U_S) for each S, computed from the definition."""
    pairs = [(a, b) for a in observations for b in observations if a[0] != b[0]]
    varying = [i for i in range(3) if len({setting[i] for setting, _, _ in observations}) > 1]
    result = {}
    for size in range(len(varying)):
        for subset in combinations(varying, size):
            joint, with_measure, with_target, total = Counter(), Counter(), Counter(), Counter()
            for a, b in pairs:
                u = tuple((a[0][i], b[0][i]) for i in subset)
                m, g = sign(a[1] - b[1]), sign(a[2] - b[2])
                joint[u, m, g] += 1
                with_measure[u, m] += 1
                with_target[u, g] += 1
                total[u] += 1
            information = sum(
                n / len(pairs) * math.log((n / total[u]) / (with_measure[u, m] / total[u] * (with_target[u, g] / total[u])))
                for (u, m, g), n in joint.items()
            )
            entropy = -sum(n / len(pairs) * math.log(n / total[u]) for (u, g), n in with_target.items())
            if entropy > 1e-9:
                result[", ".join(HYPERPARAMETERS[i] for i in subset)] = information / entropy
    return result


def slow_sign_errors(observations, test_size) -> list:
    errors = []
    for one, other in combinations(dict.fromkeys(setting for setting, _, _ in observations), 2):
        if sum(a != b for a, b in zip(one, other, strict=True)) != 1:
            continue
        total, weights = 0, 0
        for a in observations:
            for b in observations:
                if (a[0], b[0]) == (one, other):
                    difference = abs(a[2] - b[2]) / 100
                    if test_size is None:
                        weight = float(difference > 0)
                    else:
                        wrong = 2 * math.exp(-2 * test_size * (difference / 2) ** 2)
                        weight = max(max(0, 1 - wrong) ** 2 - 0.5, 0)
                    total += weight * (1 - sign(a[1] - b[1]) * sign(a[2] - b[2])) / 2
                    weights += weight
        if weights:
            errors.append(total / weights)
    return errors


@given(grids(), st.booleans())
def test_granulated_kendall_equals_that_of_plain_loops(rows, keep_seeds):
    result = granulated_kendall(table(rows), ["count"], GAP, keep_seeds=keep_seeds).iloc[0]
    psi = slow_granulated(observe(rows, not keep_seeds))
    for name in HYPERPARAMETERS:
        assert result[f"granulated_kendall_{name}"] == pytest.approx(psi.get(name, math.nan), abs=1e-12, nan_ok=True)
    assert result["granulated_kendall"] == pytest.approx(sum(psi.values()) / len(psi) if psi else math.nan, nan_ok=True)
    assert bool(result["note"]) == (not psi)


@given(grids(), st.booleans())
def test_conditional_mutual_information_equals_its_definition(rows, keep_seeds):
    result = conditional_mutual_information(table(rows), ["count"], GAP, keep_seeds=keep_seeds).iloc[0]
    slow = slow_information(observe(rows, not keep_seeds))
    assert result["conditional_mutual_information"] == pytest.approx(min(slow.values()), abs=1e-9)
    assert result["mutual_information"] == pytest.approx(slow[""], abs=1e-9)
    assert slow[result["given"]] == pytest.approx(min(slow.values()), abs=1e-9)


@given(grids(), st.booleans(), st.sampled_from([None, 300, 10_000]))
def test_sign_errors_equal_those_of_plain_loops(rows, keep_seeds, test_size):
    result = robust_sign_error(table(rows), ["count"], GAP, keep_seeds=keep_seeds, test_size=test_size).iloc[0]
    slow = slow_sign_errors(observe(rows, not keep_seeds), test_size)
    if slow:
        assert result["environments"] == len(slow)
        assert result["robust_sign_error"] == pytest.approx(max(slow), abs=1e-9)
        assert result["mean_sign_error"] == pytest.approx(sum(slow) / len(slow), abs=1e-9)
    else:
        assert result["note"].startswith("undefined: no ")
        assert math.isnan(result["robust_sign_error"])


@given(grids(), st.booleans())
@settings(max_examples=50)
def test_partial_correlations_equal_those_of_residuals(rows, keep_seeds):
    observations = observe(rows, not keep_seeds)
    columns = pd.DataFrame([setting for setting, _, _ in observations], columns=HYPERPARAMETERS)
    for form in ("categories", "log_linear"):
        result = partial_correlations(table(rows), ["count"], GAP, keep_seeds=keep_seeds, form=form).iloc[0]
        fixed = pd.get_dummies(columns.astype(str)) if form == "categories" else np.log(columns)
        design = np.column_stack([np.ones(len(columns)), fixed.to_numpy(float)])
        x, y = (np.array([float(o[position]) for o in observations]) for position in (1, 2))
        residuals = [values - design @ np.linalg.pinv(design) @ values for values in (x, y)]
        few = len({setting for setting, _, _ in observations}) < np.linalg.matrix_rank(design) + 2
        if few or min(np.abs(values).max() for values in residuals) < 1e-9:
            assert result["note"].startswith("undefined: ")
            assert math.isnan(result["partial_correlation"])
        else:
            # The residuals have mean 0, because the design contains a constant.
            expected = residuals[0] @ residuals[1] / math.sqrt((residuals[0] @ residuals[0]) * (residuals[1] @ residuals[1]))
            assert result["partial_correlation"] == pytest.approx(expected, abs=1e-5)


def test_a_partial_correlation_given_nothing_is_the_pearson_correlation():
    count, gap = np.random.default_rng(0).normal(size=(2, 18))
    runs = table([(setting, c, 20 + g) for setting, c, g in zip(cells(), count, gap, strict=True)])
    result = partial_correlations(runs, ["count"], GAP, given=[], level=0.9).iloc[0]
    plain = stats.pearsonr(count, gap)
    assert result["partial_correlation"] == pytest.approx(plain.statistic, abs=1e-5)
    interval = tuple(plain.confidence_interval(0.9))  # Fisher's
    assert (result["partial_correlation_low"], result["partial_correlation_high"]) == pytest.approx(interval, abs=1e-5)


def test_a_partial_correlation_given_one_variable_equals_the_textbook_formula():
    runs = noisy()
    result = partial_correlations(runs, ["norm"], GAP, form="log_linear", given=["learning_rate"]).iloc[0]
    gap = 1 - runs["test_accuracy"]
    pairs = (runs["norm"], gap), (runs["norm"], np.log(runs["learning_rate"])), (gap, np.log(runs["learning_rate"]))
    xy, xz, yz = (stats.pearsonr(*pair).statistic for pair in pairs)
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert result["partial_correlation"] == pytest.approx(expected, abs=1e-5)
    assert abs(result["partial_correlation"] - xy) > 0.2
    plus, minus = np.arctanh(result["partial_correlation"]) + np.array([1, -1]) * stats.norm.ppf(0.975) / math.sqrt(
        18 - 1 - 3
    )
    assert result["partial_correlation_high"] == pytest.approx(math.tanh(plus), abs=1e-9)
    assert result["partial_correlation_low"] == pytest.approx(math.tanh(minus), abs=1e-9)


@given(grids(max_seeds=1), st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_invariances_of_rank_statistics(rows, random):
    expected = pair_statistics(table(rows))
    exponential = [(setting, 2.0**count, gap) for setting, count, gap in rows]
    pd.testing.assert_series_equal(pair_statistics(table(exponential)), expected)
    random.shuffle(rows)
    pd.testing.assert_series_equal(pair_statistics(table(rows)), expected)
    # Names of a hyperparameter's values, and hence their order, do not matter.
    names = {0.1: "low", 0.01: "zero", 0.001: "high"}
    renamed = table(rows).assign(learning_rate=lambda runs: runs["learning_rate"].map(names))
    pd.testing.assert_series_equal(pair_statistics(renamed), expected)


@given(grids(max_seeds=1))
@settings(max_examples=20)
def test_sign_of_the_measure(rows):
    runs = table(rows)
    plus, minus = pair_statistics(runs), pair_statistics(runs.assign(count=-runs["count"]))
    granulated = [name for name in plus.index if name.startswith("granulated")]
    np.testing.assert_allclose(plus[granulated], -minus[granulated], atol=1e-12)
    assert plus["conditional_mutual_information"] == pytest.approx(minus["conditional_mutual_information"], abs=1e-9)
    assert plus["mean_sign_error"] == pytest.approx(1 - minus["mean_sign_error"], nan_ok=True)
    assert 0 <= plus["conditional_mutual_information"] <= plus["mutual_information"] <= 1


@pytest.mark.parametrize("form", ["categories", "log_linear"])
@given(st.floats(0.1, 100), st.floats(-100, 100), st.booleans())
@settings(max_examples=20)
def test_affine_maps_do_not_change_partial_correlations(form, scale, shift, keep_seeds):
    runs = noisy(seeds=2)
    numbers = [f"partial_correlation{end}" for end in ("", "_low", "_high")]
    expected = partial_correlations(runs, ["count"], GAP, form=form, keep_seeds=keep_seeds).iloc[0][numbers].astype(float)
    moved, mirrored = (
        partial_correlations(
            runs.assign(count=sign * scale * runs["count"] + shift), ["count"], GAP, form=form, keep_seeds=keep_seeds
        )
        .iloc[0][numbers]
        .astype(float)
        for sign in (1, -1)
    )
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    np.testing.assert_allclose(mirrored, -expected.iloc[[0, 2, 1]], atol=1e-4)
    # Adding a term that the fixed hyperparameters explain does not change them either.
    lifted = runs.assign(count=runs["count"] + 3 * np.log(runs["learning_rate"]))
    result = partial_correlations(lifted, ["count"], GAP, form=form, keep_seeds=keep_seeds).iloc[0]
    assert result["partial_correlation"] == pytest.approx(expected.iloc[0], abs=1e-4)


def test_a_perfect_measure_and_the_learning_rate():
    runs = noisy()
    runs["perfect"] = 1 - runs["test_accuracy"]
    result = ranking(runs, ["learning_rate", "perfect"], test_size=10**9).set_index("measure")
    assert list(result.index) == ["perfect", "learning_rate"]
    perfect, rate = result.loc["perfect"], result.loc["learning_rate"]
    for name in ("kendall", "granulated_kendall", "conditional_mutual_information", "partial_correlation_categories"):
        assert perfect[name] == pytest.approx(1)
    assert (perfect["robust_sign_error"], perfect["worst_environment"]) == (0, "")
    assert rate["kendall"] < -0.4
    # Given the learning rate, it has no information.
    assert rate["conditional_mutual_information"] == pytest.approx(0, abs=1e-12)
    assert rate["given"] == "learning_rate"
    assert rate["mutual_information"] > 0.1
    assert rate["robust_sign_error"] == 1
    assert rate["note"].count("learning_rate follows from learning_rate, batch_size, weight_decay") == 1
    per_hyperparameter = granulated_kendall(runs, ["learning_rate"], GAP).iloc[0]
    assert per_hyperparameter["granulated_kendall_batch_size"] == per_hyperparameter["granulated_kendall_weight_decay"] == 0
    assert per_hyperparameter["granulated_kendall_learning_rate"] < -0.5


def test_differences_below_the_noise_of_the_test_set():
    # With 10,000 examples, the square of 1 - 2 exp(-5000 d^2) exceeds 1/2 from d = 0.0196 on.
    for gap, compared in ((1.95, False), (1.97, True)):
        rows = [((0.1, 64, 0), 1, 0), ((0.01, 64, 0), 2, gap), ((0.001, 128, 0), 3, 50)]
        result = robust_sign_error(table(rows), ["count"], GAP, test_size=10_000).iloc[0]
        if compared:
            assert (result["environments"], result["note"]) == (1, "")
        else:
            assert math.isnan(result["robust_sign_error"])
            assert "above the noise of 10000 test examples" in result["note"]


def test_description_of_the_worst_environment():
    rows = [((0.1, 64, 0.5), 3, 1), ((0.01, 64, 0.5), 1, 4), ((0.001, 128, 0.5), 2, 50), ((0.001, 64, 0.5), 4, 60)]
    result = robust_sign_error(table(rows), ["count"], GAP).iloc[0]
    assert result["worst_environment"] == "learning_rate 0.01 or 0.1 at batch_size 64, weight_decay 0.5"


def test_regression_equals_that_of_scikit_learn():
    runs = noisy()
    measures = ["count", "norm", "margin"]
    result = regression(runs, measures, "test_error").set_index("measure")
    x, y = runs[measures].to_numpy(), 1 - runs["test_accuracy"].to_numpy()
    model = LinearRegression().fit(x, y)
    number, r_squared = len(y), model.score(x, y)
    np.testing.assert_allclose(result["coefficient"], model.coef_, rtol=1e-4)
    assert result["intercept"].to_numpy() == pytest.approx(model.intercept_, rel=1e-4)
    assert result["r_squared"].to_numpy() == pytest.approx(r_squared, abs=1e-5)
    assert result["adjusted_r_squared"].to_numpy() == pytest.approx(
        1 - (1 - r_squared) * (number - 1) / (number - 4), abs=1e-5
    )
    units = LinearRegression().fit((x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std())
    np.testing.assert_allclose(result["standardized_coefficient"], units.coef_, rtol=1e-4)
    for position, measure in enumerate(measures):
        others = np.delete(x, position, axis=1)
        residuals = [values - LinearRegression().fit(others, values).predict(others) for values in (x[:, position], y)]
        assert result.loc[measure, "partial_r_squared"] == pytest.approx(stats.pearsonr(*residuals).statistic ** 2, abs=1e-5)
        without = LinearRegression().fit(others, y).score(others, y)
        assert result.loc[measure, "r_squared_drop"] == pytest.approx(r_squared - without, abs=1e-5)
        explained = LinearRegression().fit(others, x[:, position]).score(others, x[:, position])
        assert result.loc[measure, "variance_inflation"] == pytest.approx(1 / (1 - explained), rel=1e-4)
    text = describe_regression(result.reset_index())
    assert f"R^2 {r_squared:.3f}" in text
    assert all(measure in text for measure in measures)


def test_regression_on_one_measure_equals_the_correlation():
    runs = noisy()
    result = regression(runs, ["count"], "generalization_gap").iloc[0]
    r = stats.pearsonr(runs["count"], 1 - runs["test_accuracy"]).statistic
    assert result[["r_squared", "partial_r_squared"]].astype(float).to_numpy() == pytest.approx(r**2, abs=1e-5)
    assert result["standardized_coefficient"] == pytest.approx(r, abs=1e-5)
    assert result["r_squared_drop"] == pytest.approx(r**2, abs=1e-5)
    assert result["variance_inflation"] == 1


def test_undefined_regressions_give_the_reason():
    runs = noisy().assign(twice=lambda runs: 2 * runs["count"] + 1, constant=3.0)
    for measures, note in (
        (["count", "twice", "norm"], "undefined: count and twice are linear functions of the other measures"),
        (["count", "constant"], "undefined: constant is constant"),
    ):
        result = regression(runs, measures)
        assert list(result["note"]) == [note] * len(measures)
        assert result["coefficient"].isna().all()
        assert note in describe_regression(result)
    few = regression(runs.iloc[:4], ["count", "norm", "margin"])
    assert few["note"].iloc[0] == "undefined: 4 configurations, 5 are needed with 3 measures"
    assert regression(runs.iloc[:5], ["count", "norm", "margin"])["note"].iloc[0] == ""
    missing = regression(runs.assign(norm=runs["norm"].where(runs.index > 1)), ["count", "norm"])
    assert set(missing["runs"]) == {16}
    with pytest.raises(InputError, match="each measure once"):
        regression(runs, ["count", "count"])


def test_kept_seeds_are_observations_and_intervals_rest_on_configurations():
    runs = noisy(seeds=2)
    runs["gap"] = 1 - runs["test_accuracy"]
    result = correlations(runs, ["count"], GAP, keep_seeds=True, level=0.8).iloc[0]
    assert (result["runs"], result["configurations"]) == (36, 18)
    assert result["kendall"] == pytest.approx(stats.kendalltau(runs["count"], runs["gap"]).statistic)
    averaged = runs.groupby(HYPERPARAMETERS)[["count", "gap"]].mean()
    assert result["kendall"] != pytest.approx(stats.kendalltau(averaged["count"], averaged["gap"]).statistic)
    without = [
        stats.kendalltau(*(runs.drop(group.index)[name] for name in ("count", "gap"))).statistic
        for _, group in runs.groupby(HYPERPARAMETERS)
    ]
    expected = interval(result["kendall"], np.array(without), "kendall", 0.8)
    assert (result["kendall_low"], result["kendall_high"]) == pytest.approx(expected, abs=1e-9)


def test_the_information_of_an_unrelated_measure_is_below_its_quantile():
    below = []
    for seed in range(40):
        runs = noisy()
        runs["count"] = np.random.default_rng(seed).normal(size=len(runs))
        result = conditional_mutual_information(runs, ["count"], GAP).iloc[0]
        below.append(result["conditional_mutual_information"] <= result["conditional_mutual_information_null"])
    assert 0.8 <= np.mean(below) < 1  # 0.95 with a standard error of 0.035
    related = conditional_mutual_information(noisy(), ["count"], GAP).iloc[0]
    assert related["conditional_mutual_information"] > related["conditional_mutual_information_null"]
    kept = conditional_mutual_information(noisy(seeds=2), ["count"], GAP, keep_seeds=True).iloc[0]
    assert np.isnan(kept["conditional_mutual_information_null"])


def test_sign_errors_by_hyperparameter_and_their_quantile():
    runs = noisy()
    result = robust_sign_error(runs, ["count"], GAP).iloc[0]
    errors = {name: [] for name in HYPERPARAMETERS}
    for one, other in combinations([row for _, row in runs.iterrows()], 2):
        differing = [name for name in HYPERPARAMETERS if one[name] != other[name]]
        if len(differing) == 1:
            signs = np.sign(one["count"] - other["count"]) * np.sign(other["test_accuracy"] - one["test_accuracy"])
            errors[differing[0]].append((1 - signs) / 2)
    for name, values in errors.items():
        assert result[f"mean_sign_error_{name}"] == pytest.approx(np.mean(values))
    together = np.sort(np.concatenate(list(errors.values())))
    assert result["sign_error_quantile_90"] == together[math.ceil(0.9 * len(together)) - 1]
    assert result["mean_sign_error"] == pytest.approx(together.mean())
    assert result["environments"] == len(together)


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([((0.1, 64, 0), 1, 2), ((0.01, 64, 0), 2, 3)], "undefined: 2 configurations, 3 are needed"),
        ([], "undefined: 0 configurations, 3 are needed"),
        ([((0.1, 64, 0), 1, 2), ((0.01, 64, 0), 1, 3), ((0.001, 64, 0), 1, 4)], "undefined: count is constant"),
        ([((0.1, 64, 0), 1, 2), ((0.01, 64, 0), 2, 2), ((0.001, 64, 0), 3, 2)], "undefined: generalization_gap is constant"),
        (
            [((0.1, 64, 0), 1, 2), ((0.01, 64, 0), math.nan, 2), ((0.001, 64, 0), 3, 4)],
            "undefined: 2 configurations, 3 are needed",
        ),
    ],
)
def test_undefined_statistics_give_the_reason(rows, note):
    runs = table(rows)
    for result in (ranking(runs, ["count"]), *(function(runs, ["count"], GAP) for function in PAIRWISE)):
        assert [text.split("; ")[0] for text in result["note"]] == [note]
        identifying = ["measure", "target", "runs", "configurations", "note", "reference"]
        without = [name for name in result if name.endswith("_without")]
        assert (result[without] == "").all(axis=None)
        assert result.drop(columns=[*identifying, *without], errors="ignore").isna().all(axis=None)
    assert note in describe_ranking(ranking(runs, ["count"]))


def test_no_two_configurations_differ_in_one_hyperparameter():
    result = ranking(table([((0.1, 64, 1), 1, 2), ((0.01, 128, 2), 2, 3), ((0.001, 256, 3), 3, 5)]), ["count"]).iloc[0]
    assert result["kendall"] == 1
    assert result[["granulated_kendall", "robust_sign_error"]].isna().all()
    assert result["note"].count("no two configurations differ in one hyperparameter alone") == 2


@pytest.mark.parametrize(
    ("weight_decay", "why"),
    [
        ([0, 1e-5], "weight_decay is zero in some runs"),
        ([-1, 1], "weight_decay is negative in some runs"),
        (["none", "some"], "weight_decay is not a number in some runs"),
    ],
)
def test_hyperparameters_without_logarithm(weight_decay, why):
    runs = noisy()
    runs["weight_decay"] = runs["weight_decay"].map(dict(zip([1e-5, 1e-6], weight_decay, strict=True)))
    result = partial_correlations(runs, ["count"], GAP, form="log_linear").iloc[0]
    assert result["note"] == f"undefined: {why}, so it has no logarithm"
    assert math.isnan(result["partial_correlation"])
    # Categories accept any values, and a hyperparameter that is the same in every run need not be held fixed.
    assert partial_correlations(runs, ["count"], GAP).iloc[0]["note"] == ""
    same_weight_decay = runs[runs["weight_decay"] == weight_decay[0]]
    assert partial_correlations(same_weight_decay, ["count"], GAP, form="log_linear").iloc[0]["note"] == ""


def test_invalid_arguments_are_rejected():
    runs = noisy()
    with pytest.raises(InputError, match="epochs cannot be held fixed"):
        partial_correlations(runs, ["count"], given=["epochs"])
    with pytest.raises(InputError, match="form=cubic is unknown"):
        partial_correlations(runs, ["count"], form="cubic")
    with pytest.raises(InputError, match="test_size is 0"):
        robust_sign_error(runs, ["count"], test_size=0)
    result = robust_sign_error(runs.assign(loss=runs["norm"]), ["count"], ["loss"], test_size=100).iloc[0]
    assert "not of loss" in result["note"]


def test_missing_hyperparameters_count_as_a_value():
    runs = noisy()
    missing = runs.assign(weight_decay=runs["weight_decay"].where(runs["weight_decay"] > 1e-6))
    pd.testing.assert_series_equal(pair_statistics(missing), pair_statistics(runs))
    expected, result = (partial_correlations(some, ["count"], GAP).iloc[0] for some in (runs, missing))
    assert result["partial_correlation"] == pytest.approx(expected["partial_correlation"])


def test_ranking_is_sorted_and_has_every_statistic():
    runs = noisy(seeds=2).assign(constant=1.0)
    runs["negative"] = -runs["count"]
    measures = ["constant", "margin", "negative", "norm", "count"]
    result = ranking(runs, measures, "test_error", reference="count", test_size=10_000)
    assert list(result["measure"].iloc[[0, 1, 4]]) == ["negative", "count", "constant"]
    defined = result["kendall"].abs().iloc[:4]
    assert (defined.diff().dropna() <= 0).all()
    assert list(result.columns[:7]) == [
        *["measure", "target", "runs", "configurations"],
        "kendall",
        "kendall_low",
        "kendall_high",
    ]
    assert result.columns[-1] == "note"
    by_measure = result.set_index("measure")
    for expected in (
        correlations(runs, measures, ["test_error"]),
        *(function(runs, measures, ["test_error"]) for function in (granulated_kendall, conditional_mutual_information)),
        robust_sign_error(runs, measures, ["test_error"], test_size=10_000),
        *(
            partial_correlations(runs, measures, ["test_error"], form=form).rename(
                columns=lambda name, form=form: name.replace("partial_correlation", f"partial_correlation_{form}")
            )
            for form in ("categories", "log_linear")
        ),
    ):
        shared = [name for name in expected.columns if name in by_measure and name != "note"]
        assert len(shared) > 3
        pd.testing.assert_frame_equal(by_measure[shared], expected.set_index("measure").loc[by_measure.index, shared])
    per_run = ranking(runs, measures, "test_error", keep_seeds=True)
    assert not np.allclose(per_run["kendall"], result["kendall"], equal_nan=True)
    lines = describe_ranking(result).splitlines()
    assert lines[0] == "measures against test_error, by |Kendall's tau| (18 configurations, 36 runs)"
    assert lines[1].startswith("2 of the 3 other measures cannot be told from the best, negative; 3 of 5 are related")
    assert [line.split()[0] for line in lines[3:8]] == list(result["measure"])
    assert [line.split()[0] for line in lines[9:14]] == list(result["measure"])
    assert lines[16] == "constant: undefined: constant is constant"


def test_selections():
    runs = noisy().assign(num_classes=10)
    runs.loc[[0, 1], "train_accuracy"] = 0.98
    runs.loc[2, "test_accuracy"] = 0.1
    assert list(select(runs, "all").index) == list(range(18))
    assert list(select(runs, "fitted").index) == list(range(2, 18))
    assert list(select(runs, "nondegenerate").index) == [0, 1, *range(3, 18)]
    with pytest.raises(InputError, match="selection=best is unknown"):
        select(runs, "best")
    with pytest.raises(InputError, match="num_classes or region_share_one"):
        select(runs.drop(columns="num_classes"), "nondegenerate")


def test_the_command(tmp_path, capsys):
    runs = noisy(seeds=2)
    runs["norm"] = runs["norm"].where(runs.index > 1)
    renamed = runs.assign(train=100 * runs["train_accuracy"], test=100 * runs["test_accuracy"])
    renamed.drop(columns=["train_accuracy", "test_accuracy"]).to_csv(tmp_path / "runs.csv", index=False)
    arguments = [
        str(tmp_path / "runs.csv"),
        "--measures",
        "count",
        "norm",
        "--train-accuracy",
        "train",
        "--test-accuracy",
        "test",
    ]
    arguments += ["--unit", "percent", "--targets", "test_error", "--keep-seeds", "--test-size", "500"]
    command = [sys.executable, "-c", ISOLATED, *arguments, "--out", str(tmp_path / "tables")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (process.returncode, process.stderr) == (0, "")
    expected = ranking(runs, ["count", "norm"], "test_error", keep_seeds=True, test_size=500)
    assert describe_ranking(expected) in process.stdout
    assert "test_error regressed on count, norm" in process.stdout
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "granulated_kendall.csv",
        "ranking.csv",
        "regression.csv",
        "reliability.csv",
    ]
    written = pd.read_csv(tmp_path / "tables" / "ranking.csv", keep_default_na=True)
    numeric = expected.select_dtypes("number").columns
    np.testing.assert_allclose(written[numeric], expected[numeric], atol=1e-6)
    coefficients = regression(runs, ["count", "norm"], "test_error", keep_seeds=True)["coefficient"]
    np.testing.assert_allclose(pd.read_csv(tmp_path / "tables" / "regression.csv")["coefficient"], coefficients, rtol=1e-6)

    assert main([*arguments, "--group-by", "learning_rate", "batch_size", "--out", str(tmp_path / "one.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "one.csv")) == 2
    assert "(9 configurations, 36 runs)" not in capsys.readouterr().out  # norm is missing in two runs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.csv", "runs.csv", "tables"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: file, --measures"),
        (["runs.csv", "--measures", "count", "--unit", "promille"], "invalid choice: 'promille'"),
        (["none.csv", "--measures", "count"], "none.csv cannot be read"),
        (["empty.csv", "--measures", "count"], "empty.csv is not a CSV table"),
        (["header.csv", "--measures", "count"], "header.csv has no runs"),
        (["binary.csv", "--measures", "count"], "binary.csv is not a CSV table"),
        (["runs.csv", "--measures", "count", "--reference", "norm"], "reference=norm is not among the measures: count"),
        (["runs.csv", "--measures", "count", "--within", "count"], "count cannot make cells: not in group_by"),
        (["runs.csv", "--measures", "sharpness"], "has no column sharpness (--measures)"),
        (["runs.csv", "--measures", "count", "--group-by", "epochs"], "has no column epochs (--group-by)"),
        (["runs.csv", "--measures", "count", "--targets", "loss"], "has no column loss (--targets)"),
        (["runs.csv", "--measures", "words"], "words of the table of runs is not numeric"),
        (
            ["runs.csv", "--measures", "count", "--train-accuracy", "train"],
            "has no column train; name another with --train-accuracy",
        ),
        (["runs.csv", "--measures", "count", "--test-accuracy", "hundreds"], "pass --unit percent"),
        (["runs.csv", "--measures", "count", "--unit", "percent"], "pass --unit fraction"),
        (["runs.csv", "--measures", "count", "--test-accuracy", "negative"], "accuracies must be from 0 to 1"),
        (["runs.csv", "--measures", "count", "--select", "fitted", "--train-accuracy", "half"], "no fitted runs"),
        (["runs.csv", "--measures", "count", "--select", "nondegenerate"], "no column identifies degenerate runs"),
        (["runs.csv", "--measures", "count", "--test-size", "-5"], "--test-size: -5: give a whole number"),
        (["runs.csv", "--measures", "count", "--out", "nowhere/out.csv"], "there is no directory nowhere"),
        (["runs.csv", "--measures", "count", "--out", "binary"], "is a file without the ending .csv"),
        (["runs.csv", "--measures", "count", "--out", "directory.csv"], "is a directory with the name of a .csv file"),
        (["runs.csv", "--measures", "count", "--out", "./runs.csv"], "would replace the table runs.csv"),
        (["ranking.csv", "--measures", "count", "--out", "."], "would replace the table ranking.csv"),
        (["runs.csv", "--measures", "count", "--out", ""], "argument --out: give a path"),
        (["runs.csv", "--measures", "count", "--test-size", "1" + 400 * "0"], "argument --test-size: 1000"),
        (["commas.csv", "--measures", "count"], "rows have more fields than the header"),
        (["twice.csv", "--measures", "count"], "has several columns count"),
    ],
)
def test_invalid_command_lines_give_a_one_line_error(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    runs = noisy().assign(words="many", negative=-0.5, half=0.5)
    runs["hundreds"] = 100 * runs["test_accuracy"]
    runs.to_csv("runs.csv", index=False)
    runs.to_csv("ranking.csv", index=False)
    runs.iloc[:0].to_csv("header.csv", index=False)
    header, *rows = Path("runs.csv").read_text().splitlines()
    Path("commas.csv").write_text("\n".join([header, *(f"{row},1" for row in rows)]))
    Path("twice.csv").write_text("\n".join([f"{header},count", *(f"{row},1" for row in rows)]))
    Path("empty.csv").touch()
    Path("directory.csv").mkdir()
    for name in ("binary.csv", "binary"):
        Path(name).write_bytes(b"\xff\xfe\x00\x81" * 9)
    before = sorted(tmp_path.rglob("*"))
    if "--out" not in arguments and arguments:
        arguments = [*arguments, "--out", "tables"]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("regioncount.analysis: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_published_figures_of_other_measures_are_reproduced():
    files = [PAPER / f"resnet18_{name}.csv" for name in ("margin_and_norm", "other_measures")]
    if not all(file.is_file() for file in files):
        pytest.skip("the paper's CSV files are not beside the repository, in ../shared/paper")
    compared, others = map(pd.read_csv, files)
    measures = ["regions_line", "parameter_norm", "margin", "normalized_margin"]
    result = correlations(compared, measures, GAP)
    assert list(result["configurations"]) == [27] * 4
    assert list(result["pearson"].round(2)) == [0.98, 0.83, 0.63, 0.21]  # published to two digits
    measures = [column for column in others if column not in ("train_accuracy", "test_accuracy", *HYPERPARAMETERS)]
    result = correlations(others, measures, GAP)
    assert len(result) == 10
    assert result["pearson"].abs().max().round(2) == 0.81


PAIRWISE = (granulated_kendall, conditional_mutual_information, robust_sign_error, partial_correlations)

ISOLATED = """
import runpy, sys
for name in ("torch", "hydra", "omegaconf", "wandb", "matplotlib"):
    sys.modules[name] = None
runpy.run_module("regioncount.analysis", run_name="__main__")
"""


def cells() -> list:
    return list(product((0.1, 0.01, 0.001), (64, 128, 256), (1e-5, 1e-6)))


def noisy(seeds: int = 1) -> pd.DataFrame:
    """Return a full grid on which count and gap share noise and increase as the learning rate decreases."""
    settings = [setting for setting in cells() for _ in range(seeds)]
    common, own, norm, margin = np.random.default_rng(1).normal(size=(4, len(settings)))
    rate = np.array([-math.log10(setting[0]) for setting in settings])
    runs = table([(setting, 0, 0) for setting in settings])
    runs["count"] = rate + common + 0.5 * own
    runs["test_accuracy"] = 1 - (10 + 3 * rate + common) / 100
    return runs.assign(norm=norm + rate, margin=margin + common)


def pair_statistics(runs: pd.DataFrame) -> pd.Series:
    """Return all statistics that depend only on the order of pairs."""
    result = [function(runs, ["count"], GAP).iloc[0] for function in PAIRWISE[:3]]
    result.append(correlations(runs, ["count"], GAP).iloc[0][["spearman", "kendall"]])
    statistics = pd.concat(result)
    dropped = ["measure", "target", "runs", "configurations", "note", "given", "worst_environment"]
    dropped += ["conditional_mutual_information_null"]  # of permutations in the order of the table
    return statistics[[name for name in statistics.index if name not in dropped]].astype(float)


def test_a_comma_at_the_end_of_every_row_shifts_no_column(tmp_path, capsys):
    noisy().to_csv(tmp_path / "runs.csv", index=False)
    header, *rows = (tmp_path / "runs.csv").read_text().splitlines()
    (tmp_path / "commas.csv").write_text("\n".join([header, *(f"{row}," for row in rows)]))
    printed = []
    for name in ("runs.csv", "commas.csv"):
        assert main([str(tmp_path / name), "--measures", "count"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_words_for_missing_values_are_values_of_a_text_column(tmp_path, capsys):
    """In a column of text, None and NA are two values; in a column of numbers, they are missing ones."""
    runs = noisy()
    options = {"augmentation": ["None", "NA", "mixup"], "norm": ["1.5", "NA", "None"]}
    runs = runs.assign(**{name: np.resize(values, len(runs)) for name, values in options.items()}, empty="NaN")
    runs.to_csv(tmp_path / "runs.csv", index=False)
    arguments = [str(tmp_path / "runs.csv"), "--measures", "count", "norm", "empty", "--group-by"]
    assert main([*arguments, "learning_rate", "batch_size", "augmentation", "--out", str(tmp_path / "ranking.csv")]) == 0
    capsys.readouterr()
    ranked = pd.read_csv(tmp_path / "ranking.csv").set_index("measure")
    assert ranked["configurations"].to_dict() == {
        "empty": 0,
        "count": runs.groupby(["learning_rate", "batch_size", "augmentation"]).ngroups,
        "norm": runs[runs["norm"] == "1.5"].groupby(["learning_rate", "batch_size", "augmentation"]).ngroups,
    }


def test_a_result_that_cannot_be_printed_is_an_error(tmp_path, monkeypatch, capsys):
    noisy().to_csv(tmp_path / "runs.csv", index=False)
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main([str(tmp_path / "runs.csv"), "--measures", "count"]) == 1
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
    assert capsys.readouterr().err == "regioncount.analysis: the result could not be printed\n"
