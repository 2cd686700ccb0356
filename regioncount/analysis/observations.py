"""What every statistic is computed on: the runs that are complete, their seeds averaged, rounded so that ties tie."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regioncount.analysis.selection import numbers, require, with_targets
from regioncount.errors import InputError

HYPERPARAMETERS = ("learning_rate", "batch_size", "weight_decay")
TARGETS = ("generalization_gap", "test_error")
FEWEST_CONFIGURATIONS = 3  # through two points every correlation is 1 or -1


@dataclass(frozen=True, eq=False)
class Observations:
    """n observations: the averages of configurations, or single runs where seeds are kept."""

    values: pd.DataFrame  # (n, columns): measures and targets
    settings: pd.DataFrame  # (n, hyperparameters)
    configuration: np.ndarray  # (n,) integers from 0
    runs: int

    @property
    def configurations(self) -> int:
        return len(np.unique(self.configuration))

    def pair(self, measure: str, target: str) -> tuple[np.ndarray, np.ndarray]:
        return self.values[measure].to_numpy(), self.values[target].to_numpy()

    def levels(self) -> np.ndarray:
        """(n, hyperparameters): which of its values a hyperparameter has, as integers from 0; missing is a value."""
        columns = [pd.factorize(self.settings[name], use_na_sentinel=False)[0] for name in self.settings]
        return np.stack(columns, axis=1)

    def undefined(self, columns: Sequence[str]) -> str:
        """Why no statistic of these columns is defined; empty where it may be."""
        if self.configurations < FEWEST_CONFIGURATIONS:
            found = f"{self.configurations} configuration{'s' * (self.configurations != 1)}"
            return f"undefined: {found}, {FEWEST_CONFIGURATIONS} are needed"
        constant = [name for name in columns if self.values[name].nunique() == 1]
        return f"undefined: {' and '.join(constant)} {'are' if constant[1:] else 'is'} constant" if constant else ""


def prepare(runs: pd.DataFrame, columns: Sequence[str], group_by: Sequence[str]) -> pd.DataFrame:
    """The table with its targets. InputError where a column is missing, group_by empty, or accuracies in percent."""
    runs = with_targets(runs)
    if not len(group_by):
        raise InputError("group_by is empty: name the columns that make a configuration, such as learning_rate")
    require(runs, [*columns, *group_by])
    return runs


def complete(runs: pd.DataFrame, columns: Sequence[str], group_by: Sequence[str]) -> pd.DataFrame:
    """The runs with every number there, in an order of their own: sums of floats depend on it in the last digit."""
    needed = list(dict.fromkeys((*columns, "train_accuracy", "test_accuracy")))
    kept = runs[list(dict.fromkeys([*group_by, *needed]))].copy()
    for column in needed:
        kept[column] = numbers(runs, column)
    return kept[np.isfinite(kept[needed]).all(axis=1)].sort_values(needed)


def observe(runs: pd.DataFrame, columns: Sequence[str], group_by: Sequence[str], keep_seeds: bool) -> Observations:
    """Observations of complete runs: the averages over the runs that share group_by, or where seeds are kept each run."""
    groups = runs.groupby(list(group_by), dropna=False, observed=True, sort=True)
    if keep_seeds:
        values, settings, configuration = runs, runs[list(group_by)], groups.ngroup().to_numpy()
    else:
        values = pd.DataFrame({name: groups[name].mean() for name in columns})
        settings, configuration = values.index.to_frame(index=False), np.arange(len(values))
    rounded = {name: _round(values[name].to_numpy(), name) for name in columns}
    return Observations(pd.DataFrame(rounded), settings.reset_index(drop=True), configuration, len(runs))


def tabulate(
    statistic: Callable[[Observations, str, str], dict],
    columns: Sequence[str],
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str],
    group_by: Sequence[str],
    keep_seeds: bool,
) -> pd.DataFrame:
    """A row a measure and target: measure, target, runs, configurations, the statistic's columns, note."""
    runs = prepare(runs, [*measures, *targets], group_by)
    rows = []
    for measure in measures:
        for target in targets:
            observed = observe(complete(runs, [measure, target], group_by), [measure, target], group_by, keep_seeds)
            row = {"measure": measure, "target": target, "runs": observed.runs, "configurations": observed.configurations}
            note = observed.undefined([measure, target])
            rows.append(row | {"note": note} | ({} if note else statistic(observed, measure, target)))
    return pd.DataFrame(rows, columns=["measure", "target", "runs", "configurations", *columns, "note"])


def combine(levels: np.ndarray) -> np.ndarray:
    """(n,) integers that are equal where the rows of levels (n, k), integers from 0, are equal."""
    codes = np.zeros(len(levels), dtype=np.int64)
    for column in levels.T:
        codes = np.unique(codes * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
    return codes


def _round(values: np.ndarray, name: str) -> np.ndarray:
    """Round, so that averages that differ by floating point error alone tie: to 8 decimals for what accuracies give, else to
    6.

    Measures come in every size: decimals count from the largest value where that is below 1 or above a million.
    """
    if name in TARGETS:
        return np.round(values, 8)
    largest = np.abs(values).max(initial=0)
    if largest == 0:
        return values
    exponent = math.floor(math.log10(largest))
    return np.round(values, min(max(6, 6 - exponent), 12 - exponent, 300))
