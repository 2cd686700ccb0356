"""Pearson's, Spearman's and Kendall's correlations of measures and targets, with intervals."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.intervals import MIN_OBSERVATIONS, STATISTICS, fisher_error, interval
from regioncount.analysis.observations import (
    HYPERPARAMETERS,
    TARGETS,
    Floats,
    Integers,
    Observations,
    Statistics,
    complete,
    join_notes,
    left_out,
    observe,
    prepare,
    require_level,
    require_list,
)
from regioncount.analysis.selection import FITTED_ACCURACY

Merge = tuple[Integers, Integers, Integers]

WEIGHTS_PER_CHUNK = 2**17  # weights processed at a time; they fit into the processor's cache
ENDS = ("", "_low", "_high")
COLUMNS = tuple(f"{name}{end}" for name in STATISTICS for end in (*ENDS, "_error"))
ROUNDING = 1e-12  # of a correlation of 1
LEAST = tuple(f"{name}_least{end}" for name in STATISTICS for end in ("", "_without"))


def correlations(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
    fitted_accuracy: float = FITTED_ACCURACY,
    level: float = 0.95,
) -> pd.DataFrame:
    """Correlate measures with targets over configurations, as the paper does (Li et al. 2025, arXiv 2505.11370).

    Runs whose measure, target or accuracies are missing or infinite are left out and not counted. Then the seeds of each
    configuration are averaged. `regioncount.analysis.intervals` defines the intervals. They treat configurations as a
    sample, and need at least 7 of them.

    Args:
        runs: One row per run, with the columns of `measures` and `group_by`, and train_accuracy and test_accuracy as
            fractions.
        measures: Columns of `runs`.
        targets: Columns of `runs`, or generalization_gap (train minus test accuracy) and test_error (1 minus test accuracy),
            which are always derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        keep_seeds: Whether every run is an observation; intervals still rest on the configurations.
        fitted_accuracy: The minimum train accuracy of a fitted run.
        level: The nominal coverage of the intervals.

    Returns:
        One row per measure and target: measure, target, runs, configurations, fitted (the number of fitted runs); for
        Pearson's r, Spearman's rho (average ranks) and Kendall's tau-b the value and its interval, such as pearson,
        pearson_low, pearson_high, and the standard error of its artanh, pearson_error (NaN if it is 1 or -1); and how much
        of it rests on one value of one hyperparameter: pearson_least is the lowest correlation, if it is positive, or else
        the highest, that remains if the configurations with such a value are left out, and pearson_least_without names the
        value. The last column is note: why a statistic or its interval is undefined (NaN), and how many runs are left out.
        Columns that end in _fitted have the same statistics for the fitted runs.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, or the level is not from 0.5 to 0.995.
    """
    require_level(level)
    require_list("measures", measures)
    require_list("targets", targets)
    measures, targets = list(measures), list(targets)
    runs = prepare(runs, [*measures, *targets], group_by)
    rows: list[Statistics] = []
    for measure in measures:
        for target in targets:
            kept = complete(runs, [measure, target], group_by)
            fits = kept["train_accuracy"] >= fitted_accuracy
            selections = [kept] if fits.all() else [kept, kept[fits]]
            observations = [observe(selected, [measure, target], group_by, keep_seeds) for selected in selections]
            results = [_correlate(observed, measure, target, level) for observed in observations]
            row: Statistics = {"measure": measure, "target": target, "runs": len(kept), "fitted": int(fits.sum())}
            row |= results[0]
            row |= {f"{name}_fitted": value for name, value in results[-1].items()}
            row["note"] = join_notes(results[0]["note"], left_out(runs, kept, [measure, target]))
            rows.append(row)
    return pd.DataFrame(rows, columns=_columns())


def _columns() -> list[str]:
    statistics = [*COLUMNS, *LEAST, "note"]
    all_runs = ["measure", "target", "runs", "configurations", "fitted", *statistics]
    return all_runs + [f"{name}_fitted" for name in ("configurations", *statistics)]


def _correlate(observed: Observations, measure: str, target: str, level: float) -> Statistics:
    result: Statistics = {"configurations": observed.configurations}
    result |= dict.fromkeys(COLUMNS, math.nan)
    result |= {column: "" if column.endswith("_without") else math.nan for column in LEAST}
    result["note"] = observed.reason_undefined([measure, target])
    if result["note"]:
        return result
    x, y = observed.pair(measure, target)
    values = weighted_statistics(x, y, np.ones((1, len(x))))[0]
    kept = observed.configuration != np.unique(observed.configuration)[:, None]
    without = weighted_statistics(x, y, kept.astype(float))
    levels = min(len(np.unique(x)), len(np.unique(y)))
    for name, value, changed in zip(STATISTICS, values, without.T, strict=True):
        ends = interval(float(value), changed, name, level, levels)
        result |= dict(zip([f"{name}{end}" for end in ENDS], [float(value), *ends], strict=True))
        result[f"{name}_error"] = fisher_error(float(value), changed)
    result |= _leave_one_value_out(observed, x, y, values)
    if observed.configurations < MIN_OBSERVATIONS:
        result["note"] = f"no interval: {observed.configurations} configurations, {MIN_OBSERVATIONS} are needed"
    elif not np.isfinite(without).all():
        result["note"] = f"no interval: without one configuration, {measure} or {target} is constant"
    elif undefined := [name for name in STATISTICS if math.isnan(float(result[f"{name}_low"]))]:
        result["note"] = f"no interval of {', '.join(undefined)}: too few distinct values, or no deviation from a line"
    return result


def _leave_one_value_out(observed: Observations, x: Floats, y: Floats, values: Floats) -> Statistics:
    """Return each correlation without the value of a hyperparameter on which it depends most, and that value."""
    names, kept = observed.leave_one_value_out()
    if not names:
        return {}
    without = weighted_statistics(x, y, kept) * np.where(values < 0, -1, 1)
    result: Statistics = {}
    for position, name in enumerate(STATISTICS):
        if np.isfinite(without[:, position]).any():
            least = int(np.nanargmin(without[:, position]))
            result[f"{name}_least"] = float(without[least, position] * (-1 if values[position] < 0 else 1))
            result[f"{name}_least_without"] = names[least]
    return result


def weighted_statistics(x: Floats, y: Floats, weights: Floats | Integers) -> Floats:
    """Return Pearson's r, Spearman's rho and Kendall's tau-b of x and y (n,), counting item i weights[r, i] times.

    A sample takes n log n steps, which makes intervals affordable for thousands of configurations.

    Args:
        x: Values, (n,).
        y: Values, (n,).
        weights: Multiplicities of the items in each sample, (R, n).

    Returns:
        The statistics, (R, 3); NaN if x or y is constant among the items of positive weight.
    """
    both = np.unique(np.stack([x, y], axis=1), axis=0, return_inverse=True)[1].ravel()
    levels = [np.unique(values, return_inverse=True)[1] for values in (x, y)]
    merges = _plan_merges(*levels)
    rows = max(1, WEIGHTS_PER_CHUNK // len(x))
    parts = [
        _statistics_of_chunk(x, y, levels, both, merges, weights[start : start + rows].astype(float))
        for start in range(0, len(weights), rows)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 3))


def _statistics_of_chunk(
    x: Floats, y: Floats, levels: Sequence[Integers], both: Integers, merges: list[Merge], weights: Floats
) -> Floats:
    """Compute `weighted_statistics` for few enough samples that the weights stay in the cache."""
    (ranks_x, tied_x), (ranks_y, tied_y), (_, tied_in_both) = (_rank(level, weights) for level in (*levels, both))
    pairs = weights.sum(axis=1) ** 2
    untied_x, untied_y = pairs - tied_x, pairs - tied_y
    with np.errstate(divide="ignore", invalid="ignore"):
        pearson = _cosine(_centre(x, weights), _centre(y, weights), weights)
        spearman = _cosine(ranks_x, ranks_y, weights)
        # Pairs are ordered, so two items count twice: +1 if x and y order them alike, -1 if oppositely.
        balance = pairs - tied_x - tied_y + tied_in_both - 4 * _count_opposite(merges, weights)
        kendall = balance / np.sqrt(untied_x * untied_y)
    # Sums of integers are exact: there are no untied pairs if and only if the values are constant.
    defined = (untied_x > 0) & (untied_y > 0)
    statistics = np.stack([pearson, spearman, kendall], axis=1)
    statistics = np.where(np.abs(statistics) > 1 - ROUNDING, np.sign(statistics), statistics)
    return np.where(defined[:, None], statistics, np.nan)


def _rank(levels: Integers, weights: Floats) -> tuple[Floats, Floats]:
    """Return average ranks (R, n) of items by their levels (n,), and the number (R,) of ordered pairs that tie.

    A rank is the number of items below minus the number above.
    """
    order = np.argsort(levels, kind="stable")
    starts = np.searchsorted(levels[order], np.arange(levels.max() + 1))
    per_level = np.add.reduceat(weights[:, order], starts, axis=1)
    cumulative = np.cumsum(per_level, axis=1)
    return (2 * cumulative - per_level - cumulative[:, -1:])[:, levels], (per_level**2).sum(axis=1)


def _plan_merges(x: Integers, y: Integers) -> list[Merge]:
    """Return the log n merges of a merge sort by y of items in the order of x (Knight 1966).

    Each merge is given by the order of the items after it, the positions of the items from right halves, and for each
    of these the position of the last item of its block. x and y are levels (n,): integers from 0.
    """
    order = np.lexsort((y, x))  # among equal x, the lower y first, so that no such pair counts as opposite
    y, position = y[order], np.arange(len(y))
    merges: list[Merge] = []
    width = 1
    while width < len(y):
        merged = np.lexsort((position, y, position // (2 * width)))  # among equal y, the left half first
        right = np.flatnonzero(merged // width % 2)
        ends = np.minimum((right // (2 * width) + 1) * 2 * width, len(y)) - 1
        merges.append((order[merged], right, ends))
        width *= 2
    return merges


def _count_opposite(merges: list[Merge], weights: Floats) -> Floats:
    """Return the number of pairs that x and y order oppositely, (R,): those whose items pass each other in a merge."""
    weights = np.ascontiguousarray(weights.T)
    counted = np.zeros(weights.shape[1])
    for items, right, ends in merges:
        passing = weights[items]
        moved = passing[right]
        passing[right] = 0
        np.cumsum(passing, axis=0, out=passing)
        counted += np.einsum("nr,nr->r", moved, passing[ends] - passing[right])
    return counted


def _cosine(a: Floats, b: Floats, weights: Floats) -> Floats:
    return (weights * a * b).sum(axis=1) / np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))


def _centre(values: Floats, weights: Floats) -> Floats:
    """Return values minus their weighted mean, (R, n), in units of the largest value, so that no square overflows."""
    values = values / np.abs(values).max()
    return values - (weights @ values / weights.sum(axis=1))[:, None]
