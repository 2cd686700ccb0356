"""Variance components and reliability, compared with scipy, least squares and known effects."""

import importlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from regioncount.analysis import describe_reliability, reliability
from regioncount.errors import InputError

module = importlib.import_module("regioncount.analysis.reliability")  # the function has the same name

GAP = ["generalization_gap"]


def draw(configurations, seeds, effect, noise, seed=0, cells=1):
    """Return runs whose count and gap share configuration effects and, with the opposite sign, seed effects."""
    generator = np.random.default_rng(seed)
    common = effect * generator.standard_normal(configurations)
    rows = []
    for number in range(configurations):
        for _ in range(seeds[number] if isinstance(seeds, list) else seeds):
            shared, own = generator.standard_normal(2)
            count = common[number] + noise * (shared + own) / np.sqrt(2) + 10 * (number % cells)
            gap = 0.2 + 0.01 * (common[number] - noise * shared) + 0.1 * (number % cells)
            rows.append({"cell": number % cells, "configuration": number, "count": count, "test_accuracy": 1 - gap})
    return pd.DataFrame(rows).assign(train_accuracy=1.0)


def test_p_values_equal_those_of_an_analysis_of_variance():
    runs = draw(6, [2, 3, 4, 1, 3, 2], effect=1, noise=1)
    result = reliability(runs, ["count"], GAP, ["configuration"]).iloc[0]
    groups = [rows["count"] for _, rows in runs.groupby("configuration")]
    assert result["p_value_measure"] == pytest.approx(stats.f_oneway(*groups).pvalue)
    assert (result["runs"], result["configurations"]) == (15, 6)


def test_nested_p_values_equal_those_of_nested_least_squares():
    runs = draw(12, 3, effect=0.5, noise=1, cells=4).iloc[:-2]
    result = reliability(runs, ["count"], GAP, ["cell", "configuration"], within=["cell"]).iloc[0]
    residuals = []
    for column in ("cell", "configuration"):
        deviations = runs["count"] - runs.groupby(column)["count"].transform("mean")
        residuals.append((deviations @ deviations, len(runs) - runs[column].nunique()))
    (restricted, many), (full, few) = residuals
    statistic = (restricted - full) / (many - few) / (full / few)
    assert result["p_value_measure"] == pytest.approx(stats.f.sf(statistic, many - few, few))


def test_known_components_are_estimated():
    runs = draw(700, 3, effect=1, noise=1)
    result = reliability(runs, ["count"], GAP, ["configuration"]).iloc[0]
    assert result["run_reliability_measure"] == pytest.approx(0.5, abs=0.06)
    assert result["reliability_measure"] == pytest.approx(0.75, abs=0.06)
    assert result["reliability_target"] == pytest.approx(0.75, abs=0.06)
    assert result["seed_correlation"] == pytest.approx(-np.sqrt(0.5), abs=0.06)
    # Seed effects reduce the correlation of averages to 1 - 1/4 (1 + sqrt(1/2)); the effects themselves are equal.
    assert result["correlation"] == pytest.approx(0.75 - 0.25 * np.sqrt(0.5), abs=0.06)
    assert result["corrected_correlation"] == pytest.approx(1, abs=0.1)
    assert result["corrected_correlation_low"] < result["corrected_correlation"] < result["corrected_correlation_high"]


def test_unequal_numbers_of_runs_and_cells_change_no_expectation():
    seeds = [1 + number % 4 for number in range(800)]
    runs = draw(800, seeds, effect=1, noise=1, cells=8)
    result = reliability(runs, ["count"], GAP, ["cell", "configuration"], within=["cell"]).iloc[0]
    assert result["run_reliability_measure"] == pytest.approx(0.5, abs=0.06)
    assert result["corrected_correlation"] == pytest.approx(1, abs=0.08)
    overall = reliability(runs, ["count"], GAP, ["cell", "configuration"]).iloc[0]
    assert overall["run_reliability_measure"] > 0.95  # cells differ by much more


def test_without_configuration_effects_correlations_are_not_testable():
    called = 0
    for seed in range(100):
        runs = draw(9, 3, effect=0, noise=1, seed=seed)
        result = reliability(runs, ["count"], GAP, ["configuration"]).iloc[0]
        called += result["note"] == ""
        if "not testable" in result["note"]:
            assert np.isnan(result["corrected_correlation"])
    assert called <= 10  # both F tests reject in less than 5 % of tables
    assert "not testable: no differences between configurations are detected" in describe_reliability(
        reliability(draw(9, 3, 0, 1, seed=1), ["count"], GAP, ["configuration"])
    )


@pytest.mark.parametrize(
    ("seeds", "within", "reason"),
    [(1, [], "no configuration has two seeds"), (2, ["configuration"], "too few configurations share configuration")],
)
def test_undefined_reliability_gives_the_reason(seeds, within, reason):
    result = reliability(draw(6, seeds, 1, 1), ["count"], GAP, ["configuration"], within=within).iloc[0]
    assert reason in result["note"]
    assert np.isnan(result["reliability_measure"])


def test_cells_are_made_of_hyperparameters():
    with pytest.raises(InputError, match="cell cannot make cells: not in group_by"):
        reliability(draw(6, 2, 1, 1), ["count"], GAP, ["configuration"], within=["cell"])


def test_leaving_out_a_configuration_equals_computing_without_it():
    runs = draw(9, [2, 3, 1, 3, 2, 2, 3, 2, 2], effect=1, noise=0.5, cells=3)
    values, cell = runs[["count", "test_accuracy"]].to_numpy(), runs["cell"].to_numpy()
    configuration = runs["configuration"].to_numpy()
    together = module._components(module._summarize(values, configuration, cell), leave_one_out=True)
    for number in range(9):
        kept = configuration != number
        alone = module._components(module._summarize(values[kept], configuration[kept], cell[kept]))
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[number], other[0])


def test_measures_without_differences_over_seeds_or_within_cells():
    runs = draw(8, 2, 1, 1, cells=2)
    runs["constant_over_seeds"] = runs["configuration"] % 5
    result = reliability(runs, ["constant_over_seeds"], GAP, ["cell", "configuration"]).iloc[0]
    assert result["reliability_measure"] == 1
    assert np.isnan(result["p_value_measure"])
    assert "constant_over_seeds is the same for all seeds" in result["note"]
    runs["shifted"] = runs["constant_over_seeds"] + runs.groupby("configuration").cumcount()
    named = runs.assign(seed=runs.groupby("configuration").cumcount())
    result = reliability(named, ["shifted"], GAP, ["cell", "configuration"]).iloc[0]
    assert result["reliability_measure"] == 1
    assert "shifted differs between seeds by the same amount in all configurations" in result["note"]
    result = reliability(runs, ["cell"], GAP, ["cell", "configuration"], within=["cell"]).iloc[0]
    assert result["note"] == "undefined: cell is the same for all configurations of a cell"
    few = reliability(draw(5, 4, 3, 0.1), ["count"], GAP, ["configuration"]).iloc[0]
    assert few["note"] == "no interval: 5 configurations, 7 are needed"


def test_effects_that_runs_with_a_seed_share_are_subtracted():
    """p values equal those of a two-way analysis of variance; without the names of seeds, the test is conservative."""
    runs = draw(8, 3, effect=0.4, noise=0.3)
    runs["seed"] = np.tile(range(3), 8)
    shifted = runs.assign(count=runs["count"] + 5 * runs["seed"])
    for some in (runs, shifted):
        result = reliability(some, ["count"], GAP, ["configuration"]).iloc[0]
        table = some["count"].to_numpy().reshape(8, 3)
        rows, columns = (table.mean(axis=axis, keepdims=True) for axis in (1, 0))
        residual = ((table - rows - columns + table.mean()) ** 2).sum() / 14
        statistic = 3 * ((rows - table.mean()) ** 2).sum() / 7 / residual
        assert result["p_value_measure"] == pytest.approx(stats.f.sf(statistic, 7, 14))
    unnamed = reliability(shifted.drop(columns="seed"), ["count"], GAP, ["configuration"]).iloc[0]
    assert unnamed["p_value_measure"] > 0.9 > 0.05 > result["p_value_measure"]


def test_effects_of_seeds_are_those_of_least_squares_if_runs_are_missing():
    generator = np.random.default_rng(0)
    configuration, seed = (part.ravel() for part in np.indices((9, 4)))
    kept = generator.random(36) > 0.3
    configuration, seed = configuration[kept], seed[kept]
    values = generator.standard_normal((kept.sum(), 2)) + np.stack([seed, -seed], axis=1)
    adjusted, number = module._subtract_seeds(values, configuration, seed)
    design = np.column_stack([configuration[:, None] == np.arange(9), seed[:, None] == np.arange(1, 4)]).astype(float)
    residuals = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    means = np.stack([adjusted[configuration == one].mean(axis=0) for one in configuration])
    np.testing.assert_allclose(adjusted - means, residuals, atol=1e-9)
    assert number == 3
