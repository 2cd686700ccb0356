"""How well averages over seeds are known: variance components of configurations and seeds, and what they do to correlations.

The value of a measure in run s of configuration c, in cell g, is

    mean_g + C_c + E_cs,

with independent configuration and seed effects. A cell is a set of configurations that share the hyperparameters in
`within`; without any, there is one. The components follow from the mean products between and within configurations: the
analysis of variance of unbalanced one-way and nested designs (Searle, Casella and McCulloch 1992, "Variance Components",
chapter 3), for measure and target jointly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from regioncount.analysis.intervals import interval
from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Floats, Integers, Observations, Statistics, tabulate
from regioncount.errors import InputError

SIGNIFICANCE = 0.05  # of the F test that configurations differ by more than seeds
COLUMNS = [f"{name}_{of}" for name in ("reliability", "run_reliability", "p_value") for of in ("measure", "target")]
CORRECTED = [f"corrected_correlation{end}" for end in ("", "_low", "_high")]
COLUMNS += ["correlation", *CORRECTED, "seed_correlation"]


@dataclass(frozen=True, eq=False)
class _Components:
    """Products of measure and target, (2, 2) matrices each."""

    between: Floats
    """Mean products between configurations of a cell."""
    seeds: Floats
    """Mean products between runs of a configuration: the covariance of seed effects."""
    configurations: Floats
    """The covariance of configuration effects."""
    runs: float
    """The harmonic mean of the numbers of runs of configurations."""
    degrees: tuple[int, int]
    """Degrees of freedom of `between` and `seeds`."""


def reliability(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    within: Sequence[str] = (),
    level: float = 0.95,
) -> pd.DataFrame:
    """Compute the reliability of averages over seeds, and correlations corrected for attenuation.

    Seed effects attenuate a correlation of averages, and runs of the same configuration may be correlated for reasons other
    than their hyperparameters. The corrected correlation is that of the configuration effects alone (Spearman 1904, with
    correlated errors). It is not testable if configurations differ by no more than seeds do.

    Args:
        runs: One row per run; see `correlations`.
        measures: Columns of `runs`.
        targets: Columns of `runs`, or generalization_gap and test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        within: The hyperparameters that make a cell, among `group_by`: the statistics describe differences between the
            configurations of a cell. By default, all configurations are in one.
        level: The nominal coverage of the interval; see `regioncount.analysis.intervals`.

    Returns:
        One row per measure and target: measure, target, runs, configurations; reliability_measure and reliability_target
        (the share of the variance of averages that is due to configurations, from 0 to 1); run_reliability_measure and
        run_reliability_target (the same for single runs); p_value_measure and p_value_target (of the F test that there is no
        configuration effect); correlation (of averages as deviations from the mean of their cell, weighted by their numbers
        of runs); corrected_correlation with _low and _high; seed_correlation (of runs of the same configuration); and note:
        why they are undefined (NaN) or not testable, else empty.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, or a column of `within` is not in
            `group_by`.
    """
    if outside := [name for name in within if name not in group_by]:
        raise InputError(f"{', '.join(outside)} cannot make cells: not in group_by")

    def statistic(observed: Observations, measure: str, target: str) -> Statistics:
        return _reliability(observed, measure, target, list(within), level)

    return tabulate(statistic, COLUMNS, runs, measures, targets, group_by, keep_seeds=True)


def describe_reliability(table: pd.DataFrame) -> str:
    """Return a table of `reliability` as text."""
    if table.empty:
        return "no reliability: no measures"
    shown = table[["measure", "target"]].copy()
    for name in COLUMNS:
        if not name.startswith(("run_", "p_value", "corrected")):
            shown[name.replace("_", " ")] = table[name].map(lambda value: "-" if pd.isna(value) else f"{value:.2f}")
    shown["corrected"] = [
        "-" if pd.isna(value) else f"{value:.2f}" + ("" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]")
        for value, low, high in table[CORRECTED].itertuples(index=False)
    ]
    lines = ["reliability of averages over seeds, and correlations corrected for it", shown.to_string(index=False)]
    for note, rows in table[table["note"] != ""].groupby("note", sort=False):
        lines.append(f"{', '.join(dict.fromkeys(rows['measure']))}: {note}")
    return "\n".join(lines)


def _reliability(observed: Observations, measure: str, target: str, within: list[str], level: float) -> Statistics:
    values = observed.values[[measure, target]].to_numpy()
    values = (values - values.mean(axis=0)) / np.abs(values - values.mean(axis=0)).max(axis=0)
    cell = np.zeros(len(values), dtype=np.int64)
    if within:
        cell = np.asarray(observed.settings.groupby(within, dropna=False).ngroup(), dtype=np.int64)
    degrees = _degrees(observed.configuration, cell)
    if degrees[1] < 1:
        return {"note": "undefined: no configuration has two seeds"}
    if degrees[0] < 2:
        return {"note": f"undefined: too few configurations share {' and '.join(within)}" if within else "undefined"}
    components = _components(values, observed.configuration, cell)
    result: Statistics = {}
    untestable = []
    for position, (of, name) in enumerate((("measure", measure), ("target", target))):
        effect, noise = components.configurations[position, position], components.seeds[position, position]
        p_value = special.fdtrc(*degrees, components.between[position, position] / noise) if noise > 0 else 0.0
        result[f"reliability_{of}"] = _share(effect, noise / components.runs)
        result[f"run_reliability_{of}"] = _share(effect, noise)
        result[f"p_value_{of}"] = float(p_value)
        if p_value > SIGNIFICANCE:
            untestable.append(name)
    result["correlation"] = _correlation(components.between)
    result["seed_correlation"] = _correlation(components.seeds)
    if untestable:
        names = " and ".join(untestable)
        return result | {"note": f"not testable: configurations differ in {names} by no more than seeds do"}
    corrected = _correlation(components.configurations)
    without = np.array(
        [
            _correlation(_components(values[kept], observed.configuration[kept], cell[kept]).configurations)
            for kept in (observed.configuration != number for number in np.unique(observed.configuration))
        ]
    )
    result["corrected_correlation"] = float(np.clip(corrected, -1, 1))
    if abs(corrected) >= 1:
        return result | {"note": "no interval: the corrected correlation is not below 1"}
    ends = interval(corrected, without, "pearson", level)
    result |= {"corrected_correlation_low": ends[0], "corrected_correlation_high": ends[1]}
    return result | {"note": ""}


def _degrees(configuration: Integers, cell: Integers) -> tuple[int, int]:
    configurations = len(np.unique(configuration))
    return configurations - len(np.unique(cell)), len(configuration) - configurations


def _components(values: Floats, configuration: Integers, cell: Integers) -> _Components:
    """Return the components of measure and target, (runs, 2)."""
    degrees = _degrees(configuration, cell)
    if degrees[0] < 1:
        undefined = np.full((2, 2), math.nan)
        return _Components(undefined, undefined, undefined, math.nan, degrees)
    numbers, means = _group_means(values, configuration)
    cell_numbers, cell_means = _group_means(values, cell)
    deviations = values - means
    seeds = deviations.T @ deviations / degrees[1] if degrees[1] else np.full((2, 2), math.nan)
    differences = means - cell_means
    between = differences.T @ differences / degrees[0]
    repeated = (len(values) - (numbers / cell_numbers).sum()) / degrees[0]
    harmonic = len(np.unique(configuration)) / (1 / numbers**2).sum()
    return _Components(between, seeds, (between - seeds) / repeated, float(harmonic), degrees)


def _group_means(values: Floats, groups: Integers) -> tuple[Floats, Floats]:
    """Return for each run the size of its group, (runs,), and the mean over it, (runs, 2)."""
    codes = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(codes)
    sums = np.stack([np.bincount(codes, column) for column in values.T], axis=1)
    return sizes[codes].astype(float), (sums / sizes[:, None])[codes]


def _share(effect: float, noise: float) -> float:
    effect = max(effect, 0)
    return float(effect / (effect + noise)) if effect + noise > 0 else math.nan


def _correlation(covariance: Floats) -> float:
    """Return the correlation of a covariance matrix (2, 2); NaN without variance."""
    if not (covariance[0, 0] > 0 and covariance[1, 1] > 0):
        return math.nan
    return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))
