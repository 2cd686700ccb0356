"""Pearson's, Spearman's and Kendall's correlation of a measure and a target, with bootstrap intervals."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Observations, complete, observe, prepare
from regioncount.analysis.selection import FITTED_ACCURACY

STATISTICS = ("pearson", "spearman", "kendall")
AT_ONCE = 2**17  # weights of resamples, so that they stay in the processor's cache


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

            def among(rows_kept: pd.DataFrame, measure=measure, target=target) -> dict[str, float | str]:
                observed = observe(rows_kept, [measure, target], group_by, keep_seeds)
                return _correlate(observed, measure, target, resamples, level, seed)

            among_all = among(kept)
            among_fitted = dict(among_all) if fits.all() else among(kept[fits])
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
    drawn = _draw(configurations, resamples, seed)
    boot = _statistics(x, y, drawn[:, observed.configuration])
    defined = ~np.isnan(boot).any(axis=1)
    out["resamples_undefined"] = int((~defined).sum())
    for position, name in enumerate(STATISTICS):
        out[name] = float(values[position])
        if defined.any():
            ends = np.quantile(boot[defined, position], [(1 - level) / 2, (1 + level) / 2])
            out[f"{name}_low"], out[f"{name}_high"] = map(float, ends)
    return out


# The same for every measure and target of a group of runs.
@functools.lru_cache(maxsize=2)
def _draw(configurations: int, resamples: int, seed: int) -> np.ndarray:
    """Draws with replacement: how often each configuration is drawn, all that matters of one (resamples, configurations)."""
    chance = np.full(configurations, 1 / configurations)
    return np.random.default_rng(seed).multinomial(configurations, chance, size=resamples)


def _statistics(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r, Spearman's rho and Kendall's tau-b (R, 3) of x and y (n,), item i counted weights[r, i] times (R, n).

    NaN where x or y is constant among the items with positive weight. A resample takes n log n steps: thousands of
    configurations have as many intervals as nine.
    """
    both = np.unique(np.stack([x, y], axis=1), axis=0, return_inverse=True)[1].ravel()
    levels = [np.unique(values, return_inverse=True)[1] for values in (x, y)]
    merges = _plan_merges(*levels)
    rows = max(1, AT_ONCE // len(x))
    parts = [
        _statistics_of_some(x, y, levels, both, merges, weights[start : start + rows].astype(float))
        for start in range(0, len(weights), rows)
    ]
    return np.concatenate(parts) if parts else np.empty((0, 3))


def _statistics_of_some(x, y, levels, both, merges, weights: np.ndarray) -> np.ndarray:
    (ranks_x, tied_x), (ranks_y, tied_y), (_, tied_in_both) = (_rank(level, weights) for level in (*levels, both))
    pairs = weights.sum(axis=1) ** 2
    untied_x, untied_y = pairs - tied_x, pairs - tied_y
    with np.errstate(divide="ignore", invalid="ignore"):
        pearson = _cosine(_centre(x, weights), _centre(y, weights), weights)
        spearman = _cosine(ranks_x, ranks_y, weights)
        # Pairs are ordered: each of two items counts twice, a pair ordered alike +1, one ordered oppositely -1.
        balance = pairs - tied_x - tied_y + tied_in_both - 4 * _count_opposite(merges, weights)
        kendall = balance / np.sqrt(untied_x * untied_y)
    # Sums of integers are exact: zero untied pairs if and only if the values are constant.
    defined = (untied_x > 0) & (untied_y > 0)
    return np.where(defined[:, None], np.clip(np.stack([pearson, spearman, kendall], axis=1), -1, 1), np.nan)


def _rank(levels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ranks (R, n) of items by their levels (n,), ties averaged: the number of items below minus the number above. And
    the number (R,) of ordered pairs that tie.
    """
    order = np.argsort(levels, kind="stable")
    starts = np.searchsorted(levels[order], np.arange(levels.max() + 1))
    at = np.add.reduceat(weights[:, order], starts, axis=1)
    up_to = np.cumsum(at, axis=1)
    return (2 * up_to - at - up_to[:, -1:])[:, levels], (at**2).sum(axis=1)


def _plan_merges(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """What a merge sort of items by y, which lie in the order of x, does at each of its log n levels (Knight 1966).

    For each level: the items in the order after it, which of them come from a right half, and the end of the block that
    each of these is in. x and y are levels (n,): integers from 0.
    """
    order = np.lexsort((y, x))  # of equal x, the lower y first: no pair of theirs is ordered oppositely
    y, position = y[order], np.arange(len(y))
    merges, width = [], 1
    while width < len(y):
        merged = np.lexsort((position, y, position // (2 * width)))  # of equal y, those of the left half first
        right = np.flatnonzero(merged // width % 2)
        ends = np.minimum((right // (2 * width) + 1) * 2 * width, len(y)) - 1
        merges.append((order[merged], right, ends))
        width *= 2
    return merges


def _count_opposite(merges: list[tuple[np.ndarray, ...]], weights: np.ndarray) -> np.ndarray:
    """The number (R,) of pairs of items that x and y order oppositely: at some level, one passes the other."""
    weights = np.ascontiguousarray(weights.T)
    counted = np.zeros(weights.shape[1])
    for items, right, ends in merges:
        passing = weights[items]
        moved = passing[right]
        passing[right] = 0
        np.cumsum(passing, axis=0, out=passing)
        counted += np.einsum("nr,nr->r", moved, passing[ends] - passing[right])
    return counted


def _cosine(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights * a * b).sum(axis=1) / np.sqrt((weights * a**2).sum(axis=1) * (weights * b**2).sum(axis=1))


def _centre(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values minus their weighted mean (R, n), in units of the largest value so that no square overflows."""
    values = values / np.abs(values).max()
    return values - (weights @ values / weights.sum(axis=1))[:, None]
