"""Pearson's, Spearman's and Kendall's correlation of a measure and a target, with bootstrap intervals."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Observations, complete, observe, prepare
from regioncount.analysis.selection import FITTED_ACCURACY

STATISTICS = ("pearson", "spearman", "kendall")


def correlations(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
    fitted_accuracy: float = FITTED_ACCURACY,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate measures with targets over configurations, as the paper does (Li et al. 2025, arXiv 2505.11370).

    runs has one row a run: the columns of `measures` and `group_by`, train_accuracy and test_accuracy as fractions.
    generalization_gap (train minus test accuracy) and test_error (1 minus test accuracy) are always derived from these; any
    other target is a column. Runs whose measure, target or accuracies are missing or infinite are left out and not counted.
    Then the seeds of a configuration, the runs that share `group_by`, are averaged, unless `keep_seeds`: then every run is
    an observation, and the intervals still draw whole configurations.

    Returns a row a measure and target: measure, target, runs, configurations, fitted (the runs whose train accuracy is at
    least `fitted_accuracy`), then for Pearson's r, Spearman's rho (average ranks) and Kendall's tau-b the value and its
    percentile bootstrap interval, such as pearson, pearson_low, pearson_high: `resamples` draws of configurations with
    replacement, covering `level`. resamples_undefined counts the draws in which measure or target was constant: they are
    left out of the intervals. note says why a correlation is undefined (NaN), else it is empty. The columns that end in
    _fitted are the same among the fitted runs alone.

    Raises InputError where a column is missing or not numeric, and where accuracies are in percent.
    """
    runs = prepare(runs, [*measures, *targets], group_by)
    rows = []
    for measure in measures:
        for target in targets:
            kept = complete(runs, [measure, target], group_by)
            fits = kept["train_accuracy"] >= fitted_accuracy
            among_all, among_fitted = (
                _correlate(
                    observe(rows_kept, [measure, target], group_by, keep_seeds), measure, target, resamples, level, seed
                )
                for rows_kept in (kept, kept[fits])
            )
            row = {"measure": measure, "target": target, "runs": len(kept)}
            row |= {"configurations": among_all.pop("configurations"), "fitted": int(fits.sum())} | among_all
            rows.append(row | {f"{name}_fitted": value for name, value in among_fitted.items()})
    return pd.DataFrame(rows, columns=_columns())


def _columns() -> list[str]:
    intervals = [f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")]
    described = [*intervals, "resamples_undefined", "note"]
    all_runs = ["measure", "target", "runs", "configurations", "fitted", *described]
    return all_runs + [f"{name}_fitted" for name in ("configurations", *described)]


def _correlate(
    observed: Observations, measure: str, target: str, resamples: int, level: float, seed: int
) -> dict[str, float | str]:
    configurations = observed.configurations
    out = {"configurations": configurations}
    out |= {f"{name}{end}": math.nan for name in STATISTICS for end in ("", "_low", "_high")}
    out |= {"resamples_undefined": 0, "note": observed.undefined([measure, target])}
    if out["note"]:
        return out
    x, y = observed.pair(measure, target)
    values = _statistics(x, y, np.ones((1, len(x))))[0]
    # How often each configuration is drawn is all that matters of a draw with replacement.
    chance = np.full(configurations, 1 / configurations)
    drawn = np.random.default_rng(seed).multinomial(configurations, chance, size=resamples)
    boot = _statistics(x, y, drawn[:, observed.configuration])
    defined = ~np.isnan(boot).any(axis=1)
    out["resamples_undefined"] = int((~defined).sum())
    for position, name in enumerate(STATISTICS):
        out[name] = float(values[position])
        if defined.any():
            ends = np.quantile(boot[defined, position], [(1 - level) / 2, (1 + level) / 2])
            out[f"{name}_low"], out[f"{name}_high"] = map(float, ends)
    return out


def _statistics(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r, Spearman's rho and Kendall's tau-b (R, 3) of x and y (n,), item i counted weights[r, i] times (R, n).

    NaN where x or y is constant among the items with positive weight. The rank of an item, with ties averaged and counted
    from the middle, is half the number of items below it minus half the number above it: both rank statistics follow from
    the signs of differences, and those of many resamples from matrix products.
    """
    weights = weights.astype(float)
    signs_x, signs_y = (np.sign(np.subtract.outer(values, values)) for values in (x, y))
    untied_x, untied_y = _sum_over_pairs(signs_x**2, weights), _sum_over_pairs(signs_y**2, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        pearson = _cosine(_centre(x, weights), _centre(y, weights), weights)
        spearman = _cosine(weights @ signs_x.T, weights @ signs_y.T, weights)
        kendall = _sum_over_pairs(signs_x * signs_y, weights) / np.sqrt(untied_x * untied_y)
    # Sums of integers are exact: zero untied pairs if and only if the values are constant.
    defined = (untied_x > 0) & (untied_y > 0)
    return np.where(defined[:, None], np.clip(np.stack([pearson, spearman, kendall], axis=1), -1, 1), np.nan)


def _sum_over_pairs(pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return ((weights @ pairs) * weights).sum(axis=1)


def _cosine(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights * a * b).sum(axis=1) / np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))


def _centre(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values minus their weighted mean (R, n), in units of the largest value so that no square overflows."""
    values = values / np.abs(values).max()
    return values - (weights @ values / weights.sum(axis=1))[:, None]
