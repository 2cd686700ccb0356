"""How well averages over seeds are known: variance components of configurations and seeds, and what they do to correlations.

The value of a measure in the run of configuration c, in cell g, with seed s is

    mean_g + C_c + S_s + E_cs,

with independent effects of the configuration and of the run, and an effect S_s that all runs with a seed share (they may
start from the same weights). The latter is subtracted before anything else, if the table names the seeds. A cell is a set
of configurations that share the hyperparameters in `within`; without any, there is one. The components follow from the
mean products between and within configurations: the analysis of variance of unbalanced one-way and nested designs (Searle,
Casella and McCulloch 1992, "Variance Components", chapter 3), for measure and target jointly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from regioncount.analysis.intervals import MIN_OBSERVATIONS, interval
from regioncount.analysis.observations import (
    HYPERPARAMETERS,
    TARGETS,
    Floats,
    Integers,
    Observations,
    Statistics,
    join_notes,
    require_level,
    require_list,
    tabulate,
)
from regioncount.errors import InputError

SIGNIFICANCE = 0.05  # of the F test that configurations differ by more than seeds
SWEEPS = 1000  # at most, of an alternating least-squares fit; a table without missing runs takes two
NEGLIGIBLE = 1e-20  # a variance of rounding errors; values are in units of their largest deviation
SHARES = [f"{name}_{of}" for name in ("reliability", "run_reliability", "p_value") for of in ("measure", "target")]
CORRECTED = [f"corrected_correlation{end}" for end in ("", "_low", "_high")]
COLUMNS = [*SHARES, "correlation", *CORRECTED, "seed_correlation"]


def reliability(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    within: Sequence[str] = (),
    seed: str = "seed",
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
        seed: The column that names the seeds. If the table has none, effects that runs with the same seed share are not
            subtracted; if there are such effects, the F test is then conservative.
        level: The nominal coverage of the interval; see `regioncount.analysis.intervals`.

    Returns:
        One row per measure and target: measure, target, runs, configurations; reliability_measure and reliability_target
        (the share of the variance of averages that is due to configurations, from 0 to 1); run_reliability_measure and
        run_reliability_target (the same for single runs); p_value_measure and p_value_target (of the F test that there is no
        configuration effect); correlation (of averages as deviations from the mean of their cell, weighted by their numbers
        of runs); corrected_correlation with _low and _high; seed_correlation (of runs of the same configuration); and note:
        why they are undefined (NaN) or not testable, else empty.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, a column of `within` is not in
            `group_by`, or the level is not from 0.5 to 0.995.
    """
    require_level(level)
    require_list("within", within)
    if outside := [str(name) for name in within if name not in group_by]:
        raise InputError(f"{', '.join(outside)} cannot make cells: not in group_by")

    def statistic(observed: Observations, measure: str, target: str) -> Statistics:
        return _reliability(observed, measure, target, list(within), seed, level)

    named = [seed] if seed in runs and seed not in group_by else []
    return tabulate(statistic, COLUMNS, runs, measures, targets, group_by, keep_seeds=True, others=named)


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
        lines.append(f"{', '.join(dict.fromkeys(map(str, rows['measure'])))}: {note}")
    return "\n".join(lines)


def _reliability(
    observed: Observations, measure: str, target: str, within: list[str], seed: str, level: float
) -> Statistics:
    values = observed.values[[measure, target]].to_numpy()
    differs = [observed.values[name].groupby(observed.configuration).nunique().max() > 1 for name in (measure, target)]
    values = (values - values.mean(axis=0)) / np.abs(values - values.mean(axis=0)).max(axis=0)
    cell = np.zeros(len(values), dtype=np.int64)
    if within:
        cell = np.asarray(observed.settings.groupby(within, dropna=False).ngroup(), dtype=np.int64)
    seeds = observed.settings[seed].to_numpy() if seed in observed.settings else np.zeros(len(values))
    values, shared = _subtract_seeds(values, observed.configuration, np.asarray(pd.factorize(seeds)[0], dtype=np.int64))
    sums = _summarize(values, observed.configuration, cell, shared)
    degrees = len(sums.runs) - len(np.unique(cell)), len(values) - len(sums.runs) - shared
    if degrees[1] < 1:
        return {"note": "undefined: no configuration has two seeds" if not shared else "undefined: too few runs"}
    if degrees[0] < 2:
        where = f" share {' and '.join(within)}" if within else ""
        return {"note": f"undefined: too few configurations{where}"}
    between, of_runs, configurations = (matrix[0] for matrix in _components(sums))
    result: Statistics = {"correlation": _correlation(between), "seed_correlation": _correlation(of_runs)}
    runs = len(sums.runs) / (1 / sums.runs).sum()  # the harmonic mean per configuration
    untestable, notes = [], []
    for position, (of, name) in enumerate((("measure", measure), ("target", target))):
        effect, noise = configurations[position, position], of_runs[position, position]
        if between[position, position] < NEGLIGIBLE:
            return {"note": f"undefined: {name} is the same for all configurations of a cell"}
        result[f"reliability_{of}"] = _share(effect, noise / runs)
        result[f"run_reliability_{of}"] = _share(effect, noise)
        if noise < NEGLIGIBLE:
            same = "differs between seeds by the same amount in all configurations"
            notes.append(f"{name} {same if differs[position] else 'is the same for all seeds'}")
            continue
        result[f"p_value_{of}"] = p_value = float(special.fdtrc(*degrees, between[position, position] / noise))
        if p_value > SIGNIFICANCE:
            untestable.append(name)
    if untestable:
        names = " and ".join(untestable)
        notes.insert(0, f"not testable: no differences between configurations are detected beyond seeds in {names}")
        return result | {"note": join_notes(*notes)}
    corrected = _correlation(configurations)
    result["corrected_correlation"] = float(np.clip(corrected, -1, 1))
    low = high = math.nan
    if len(sums.runs) < MIN_OBSERVATIONS:
        notes.append(f"no interval: {len(sums.runs)} configurations, {MIN_OBSERVATIONS} are needed")
    elif abs(corrected) >= 1:
        notes.append("no interval: the corrected correlation is not below 1")
    else:
        without = np.array([_correlation(matrix) for matrix in _components(sums, leave_one_out=True)[2]])
        low, high = interval(corrected, without, "pearson", level)
        if math.isnan(low):
            notes.append("no interval: without one configuration, no differences are left")
    result |= {"corrected_correlation_low": low, "corrected_correlation_high": high}
    return result | {"note": join_notes(*notes)}


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over the runs of C configurations. Products are those of measure and target, (2, 2) matrices."""

    runs: Floats
    """Runs of each configuration, (C,)."""
    means: Floats
    """Means over them, (C, 2)."""
    deviations: Floats
    """Products of deviations from these means, (C, 2, 2)."""
    cell: Integers
    """The cell of each configuration, (C,), integers from 0."""
    shared: int
    """The number of shared effects of seeds that were subtracted."""


def _subtract_seeds(values: Floats, configuration: Integers, seeds: Integers) -> tuple[Floats, int]:
    """Subtract effects of seeds from values (runs, 2), by least squares on configurations and seeds.

    Returns:
        The values, and the number of effects: the seeds but one.
    """
    number = len(np.unique(seeds))
    if number < 2 or len(values) <= len(np.unique(configuration)) + number - 1:
        return values, 0
    configurations = np.unique(configuration, return_inverse=True)[1]
    residuals, effects = values, np.zeros_like(values)
    for _ in range(SWEEPS):
        for codes in (configurations, seeds):
            means = (_sum_by(codes, residuals) / np.bincount(codes)[:, None])[codes]
            residuals = residuals - means
            effects = effects + means if codes is seeds else effects
        if np.abs(means).max() < 1e-12:
            break
    return values - effects, number - 1


def _summarize(values: Floats, configuration: Integers, cell: Integers, shared: int = 0) -> _Sums:
    """Return the sums of measure and target, (runs, 2)."""
    _, first, codes = np.unique(configuration, return_index=True, return_inverse=True)
    runs = np.bincount(codes).astype(float)
    means = _sum_by(codes, values) / runs[:, None]
    centred = values - means[codes]
    cells = np.unique(cell, return_inverse=True)[1][first]
    return _Sums(runs, means, _sum_by(codes, _products(centred)), cells, shared)


def _components(sums: _Sums, leave_one_out: bool = False) -> tuple[Floats, Floats, Floats]:
    """Return mean products between configurations, mean products of seeds, and the covariance of configuration effects.

    These are (1, 2, 2) matrices; or, without each configuration, (C, 2, 2) matrices.
    """
    weighted = sums.runs[:, None, None] * _products(sums.means)
    cell_runs, cell_squares = (np.bincount(sums.cell, sums.runs**power) for power in (1, 2))
    cell_sums = _sum_by(sums.cell, sums.runs[:, None] * sums.means)
    of_cells = _products(cell_sums) / cell_runs[:, None, None]
    cells, runs = float(len(cell_runs)), sums.runs.sum()
    between, deviations = weighted.sum(axis=0)[None] - of_cells.sum(axis=0), sums.deviations.sum(axis=0)[None]
    overlap, number = np.array([(cell_squares / cell_runs).sum()]), np.array([float(len(sums.runs))])
    numbers = np.array([runs]), number, np.array([cells])
    if leave_one_out:
        left_runs = cell_runs[sums.cell] - sums.runs
        left_sums = cell_sums[sums.cell] - sums.runs[:, None] * sums.means
        is_left = left_runs > 0
        divisor = np.where(is_left, left_runs, 1)
        left = np.where(is_left[:, None, None], _products(left_sums) / divisor[:, None, None], 0)
        between = between - weighted + of_cells[sums.cell] - left
        deviations = deviations - sums.deviations
        squares = np.where(is_left, (cell_squares[sums.cell] - sums.runs**2) / divisor, 0)
        overlap = overlap - (cell_squares / cell_runs)[sums.cell] + squares
        numbers = runs - sums.runs, number - 1 - np.zeros(len(sums.runs)), cells - ~is_left
    total, configurations, cells_left = numbers
    free, free_seeds = configurations - cells_left, total - configurations - sums.shared
    with np.errstate(divide="ignore", invalid="ignore"):
        between, seeds = between / free[:, None, None], deviations / free_seeds[:, None, None]
        repeated = (total - overlap) / free
        return between, seeds, (between - seeds) / repeated[:, None, None]


def _products(vectors: Floats) -> Floats:
    """Return the outer product of each vector with itself: (n, 2) to (n, 2, 2)."""
    return vectors[:, :, None] * vectors[:, None, :]


def _sum_by(codes: Integers, values: Floats) -> Floats:
    """Return the sums of values (n, ...) by code, (codes, ...)."""
    sums = np.zeros((codes.max() + 1, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums


def _share(effect: float, noise: float) -> float:
    effect = max(effect, 0)
    return float(effect / (effect + noise)) if effect + noise > 0 else math.nan


def _correlation(covariance: Floats) -> float:
    """Return the correlation of a covariance matrix (2, 2); NaN without variance."""
    if not (covariance[0, 0] > 0 and covariance[1, 1] > 0):
        return math.nan
    return float(covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]))
