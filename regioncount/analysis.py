"""Statistics over runs: how a measure goes with generalization, from a table of runs to a table of correlations.

Everything is in fractions: accuracies in [0, 1], the gap as their difference.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.errors import InputError

FITTED_ACCURACY = 0.99
STATISTICS = ("pearson", "spearman", "kendall")
FEWEST_CONFIGURATIONS = 3  # through two points every correlation is 1 or -1


def correlations(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = ("generalization_gap", "test_error"),
    group_by: Sequence[str] = ("learning_rate", "batch_size", "weight_decay"),
    *,
    fitted_accuracy: float = FITTED_ACCURACY,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate measures with targets over configurations, as the paper does (Li et al. 2025, arXiv 2505.11370).

    runs has one row a run: the columns of `measures` and `group_by`, train_accuracy and test_accuracy as fractions.
    generalization_gap (train minus test accuracy) and test_error (1 minus test accuracy) are always derived from these; any
    other target is a column. Runs whose measure, target or accuracies are missing or infinite are left out and not counted.
    Then the seeds of a configuration, the runs that share `group_by`, are averaged.

    Returns a row a measure and target: measure, target, runs, configurations, fitted (the runs whose train accuracy is at
    least `fitted_accuracy`), then for Pearson's r, Spearman's rho (average ranks) and Kendall's tau-b the value and its
    percentile bootstrap interval, such as pearson, pearson_low, pearson_high: `resamples` draws of configurations with
    replacement, covering `level`. resamples_undefined counts the draws in which measure or target was constant: they are
    left out of the intervals. note says why a correlation is undefined (NaN), else it is empty. The columns that end in
    _fitted are the same among the fitted runs alone.

    Raises InputError where a column is missing or not numeric, and where accuracies are in percent.
    """
    measures, targets, group_by = list(measures), list(targets), list(group_by)
    runs = with_targets(runs)
    if not group_by:
        raise InputError("group_by is empty: name the columns that make a configuration, such as learning_rate")
    _require(runs, [*measures, *targets, *group_by])
    rows = []
    for measure in measures:
        for target in targets:
            kept = _complete(runs, measure, target, group_by)
            fits = kept["train_accuracy"] >= fitted_accuracy
            among_all = _correlate(kept, measure, target, group_by, resamples, level, seed)
            among_fitted = _correlate(kept[fits], measure, target, group_by, resamples, level, seed)
            row = {"measure": measure, "target": target, "runs": len(kept)}
            row |= {"configurations": among_all.pop("configurations"), "fitted": int(fits.sum())} | among_all
            rows.append(row | {f"{name}_fitted": value for name, value in among_fitted.items()})
    return pd.DataFrame(rows, columns=_columns())


def mark(runs: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table of runs with two more columns, both boolean: fitted and degenerate.

    fitted: train accuracy at least 0.99. degenerate: test accuracy at or below 1.5 / num_classes, where the table has a
    column num_classes, or a single region on more than half of the subspaces of some kind (columns region_share_one_*).

    Raises InputError where accuracies are missing or in percent.
    """
    marked = with_targets(runs)[list(runs.columns)]
    marked["fitted"] = marked["train_accuracy"] >= FITTED_ACCURACY
    # A constant predictor has one region everywhere: the lowest count there is, and yet no sign of a good solution.
    degenerate = pd.Series(False, index=marked.index)
    if "num_classes" in marked:
        degenerate |= marked["test_accuracy"] <= 1.5 / _numbers(marked, "num_classes")
    for column in marked.columns:
        if str(column).startswith("region_share_one_"):
            degenerate |= _numbers(marked, column) > 0.5
    marked["degenerate"] = degenerate
    return marked


def with_targets(runs: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table of runs with generalization_gap and test_error, derived from the accuracies.

    Raises InputError where accuracies are missing or in percent.
    """
    _require(runs, ["train_accuracy", "test_accuracy"])
    runs = runs.copy()
    for column in ("train_accuracy", "test_accuracy"):
        runs[column] = _numbers(runs, column)
        if (runs[column] > 1).any():
            raise InputError(
                f"{column} has values up to {runs[column].max():g}: percent was found where fractions from 0 to 1 are "
                "expected, divide by 100"
            )
    runs["generalization_gap"] = runs["train_accuracy"] - runs["test_accuracy"]
    runs["test_error"] = 1 - runs["test_accuracy"]
    return runs


def _require(runs: pd.DataFrame, columns: list[str]) -> None:
    missing = [column for column in dict.fromkeys(columns) if column not in runs]
    if missing:
        raise InputError(f"the table of runs has no column {', '.join(missing)}; it has {', '.join(map(str, runs))}")


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    try:
        return pd.to_numeric(runs[column]).astype(float)
    except (TypeError, ValueError) as error:
        raise InputError(f"the column {column} of the table of runs is not numeric: {error}") from error


def _columns() -> list[str]:
    intervals = [f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")]
    described = [*intervals, "resamples_undefined", "note"]
    all_runs = ["measure", "target", "runs", "configurations", "fitted", *described]
    return all_runs + [f"{name}_fitted" for name in ("configurations", *described)]


def _complete(runs: pd.DataFrame, measure: str, target: str, group_by: list[str]) -> pd.DataFrame:
    """The runs with every number there, in an order of their own: sums of floats depend on it in the last digit."""
    numbers = list(dict.fromkeys((measure, target, "train_accuracy", "test_accuracy")))
    kept = runs[list(dict.fromkeys([*group_by, *numbers]))].copy()
    for column in numbers:
        kept[column] = _numbers(runs, column)
    return kept[np.isfinite(kept[numbers]).all(axis=1)].sort_values(numbers)


def _correlate(
    runs: pd.DataFrame, measure: str, target: str, group_by: list[str], resamples: int, level: float, seed: int
) -> dict[str, float | str]:
    groups = runs.groupby(group_by, dropna=False, observed=True, sort=True)
    x = _round(groups[measure].mean().to_numpy())
    y = np.round(groups[target].mean().to_numpy(), 8)
    out = {"configurations": len(x)}
    out |= {f"{name}{end}": math.nan for name in STATISTICS for end in ("", "_low", "_high")}
    out |= {"resamples_undefined": 0, "note": ""}
    if len(x) < FEWEST_CONFIGURATIONS:
        return out | {"note": f"undefined: {len(x)} configuration{'s' * (len(x) != 1)}, {FEWEST_CONFIGURATIONS} are needed"}
    constant = [name for name, values in ((measure, x), (target, y)) if (values == values[0]).all()]
    if constant:
        return out | {"note": f"undefined: {' and '.join(constant)} {'are' if constant[1:] else 'is'} constant"}

    values = _statistics(x, y, np.ones((1, len(x))))[0]
    # How often each configuration is drawn is all that matters of a draw with replacement.
    drawn = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), size=resamples)
    boot = _statistics(x, y, drawn)
    defined = ~np.isnan(boot).any(axis=1)
    out["resamples_undefined"] = int((~defined).sum())
    for position, name in enumerate(STATISTICS):
        out[name] = float(values[position])
        if defined.any():
            ends = np.quantile(boot[defined, position], [(1 - level) / 2, (1 + level) / 2])
            out[f"{name}_low"], out[f"{name}_high"] = map(float, ends)
    return out


def _round(measures: np.ndarray) -> np.ndarray:
    """Round to 6 decimals, so that averages that differ by floating point error alone tie.

    Measures come in every size: decimals count from the largest value where that is below 1 or above a million.
    """
    largest = np.abs(measures).max(initial=0)
    if largest == 0:
        return measures
    exponent = math.floor(math.log10(largest))
    return np.round(measures, min(max(6, 6 - exponent), 12 - exponent, 300))


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
