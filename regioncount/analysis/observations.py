"""The observations behind every statistic: complete runs, averaged over seeds, rounded so that equal values tie."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regioncount.analysis.selection import numbers, require, with_targets
from regioncount.errors import InputError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

HYPERPARAMETERS = ("learning_rate", "batch_size", "weight_decay")
TARGETS = ("generalization_gap", "test_error")
INFINITE = 1e300  # sums of larger values may exceed the range of floats
ACCURACIES = ("train_accuracy", "test_accuracy")
MIN_CONFIGURATIONS = 3  # every correlation of two points is 1 or -1

Statistics = dict[str, float | str]
"""Columns of a table of statistics, for one measure and target."""


@dataclass(frozen=True, eq=False)
class Observations:
    """n observations: averages of configurations, or single runs if seeds are kept."""

    values: pd.DataFrame
    """Measures and targets, (n, columns)."""
    settings: pd.DataFrame
    """Hyperparameters, (n, hyperparameters)."""
    configuration: NDArray[np.int64]
    """The configuration of each observation, (n,), integers from 0."""
    runs: int
    """The number of runs behind the observations."""

    @property
    def configurations(self) -> int:
        """The number of configurations."""
        return len(np.unique(self.configuration))

    def pair(self, measure: str, target: str) -> tuple[Floats, Floats]:
        """Return the values of a measure and a target, (n,) each."""
        return self.values[measure].to_numpy(), self.values[target].to_numpy()

    def levels(self) -> Integers:
        """Return the index of each hyperparameter's value, (n, hyperparameters); missing counts as a value."""
        columns = [pd.factorize(self.settings[name], use_na_sentinel=False)[0] for name in self.settings]
        return np.stack(columns, axis=1)

    def leave_one_value_out(self) -> tuple[list[str], Floats]:
        """Return each value of each hyperparameter, such as "learning_rate=0.1", and what is left without it, (values, n).

        What is left is 1 for observations with another value, else 0. Values without which fewer than
        `MIN_CONFIGURATIONS` configurations are left are skipped.
        """
        names, kept = [], []
        for name in self.settings:
            codes, values = pd.factorize(self.settings[name], use_na_sentinel=False)
            for code, value in enumerate(values):
                other = codes != code
                if len(np.unique(self.configuration[other])) >= MIN_CONFIGURATIONS:
                    names.append(f"{name}={f'{value:g}' if isinstance(value, float) else value}")
                    kept.append(other)
        return names, np.array(kept, dtype=np.float64).reshape(len(names), len(self.settings))

    def reason_undefined(self, columns: Sequence[str]) -> str:
        """Return the reason why no statistic of these columns is defined, or an empty string."""
        if self.configurations < MIN_CONFIGURATIONS:
            number = f"{self.configurations} configuration{'s' * (self.configurations != 1)}"
            return f"undefined: {number}, {MIN_CONFIGURATIONS} are needed"
        constant = [str(name) for name in columns if self.values[name].nunique() == 1]
        return f"undefined: {' and '.join(constant)} {'are' if constant[1:] else 'is'} constant" if constant else ""


def prepare(runs: pd.DataFrame, columns: Sequence[str], group_by: Sequence[str]) -> pd.DataFrame:
    """Return a table of runs with its targets, after checking its columns; hyperparameters are rounded as measures are.

    Raises:
        InputError: If a column is missing, group_by is empty, or accuracies are in percent.
    """
    require_list("group_by", group_by)
    runs = with_targets(runs)
    if not len(group_by):
        raise InputError("group_by is empty: name the columns that make a configuration, such as learning_rate")
    if len(set(group_by)) < len(group_by):
        raise InputError(f"group_by names a column twice: {', '.join(map(str, group_by))}")
    require(runs, [*columns, *group_by])
    for name in group_by:
        if runs[name].dtype.kind == "f":
            runs[name] = round_bits(runs[name].to_numpy(dtype=float))
        try:
            runs[name].unique()
        except TypeError as error:
            raise InputError(f"the column {name} cannot make configurations: {error}") from error
    return runs


def require_list(name: str, values: Sequence[str]) -> None:
    """Check that an argument with names of columns is not a single name.

    Raises:
        InputError: If it is.
    """
    if isinstance(values, str):
        raise InputError(f"{name} is {values!r}: pass a list, such as [{values!r}]")


def require_level(level: object) -> None:
    """Check the nominal coverage of intervals. Quantiles of simulated distributions are too inaccurate for larger levels.

    Raises:
        InputError: If it is not from 0.5 to 0.995.
    """
    if not isinstance(level, int | float) or not 0.5 <= level <= 0.995:
        raise InputError(f"level={level}: a confidence level must be from 0.5 to 0.995")


def complete(runs: pd.DataFrame, columns: Sequence[str], group_by: Sequence[str]) -> pd.DataFrame:
    """Return the runs without missing or infinite values, sorted, because sums of floats depend on the order."""
    needed = list(dict.fromkeys((*columns, *ACCURACIES)))
    kept = runs[list(dict.fromkeys([*group_by, *needed]))].copy()
    for column in needed:
        kept[column] = numbers(runs, column)
    finite = (np.abs(kept[needed].to_numpy()) < INFINITE).all(axis=1)
    return kept.iloc[np.flatnonzero(finite)].sort_values(needed)


def left_out(runs: pd.DataFrame, kept: pd.DataFrame, columns: Sequence[str]) -> str:
    """Return a note on the runs that `complete` left out, or an empty string."""
    if len(kept) == len(runs):
        return ""
    needed = [name for name in dict.fromkeys((*columns, *ACCURACIES)) if name not in TARGETS]
    lacking = [str(name) for name in needed if not (numbers(runs, name).abs() < INFINITE).all()]
    are = "is" if len(lacking) == 1 else "are"
    return f"{len(runs) - len(kept)} of {len(runs)} runs left out: {' or '.join(lacking)} {are} missing or infinite"


def join_notes(*notes: float | str) -> str:
    """Return notes as one text, without empty ones."""
    return "; ".join(str(note) for note in notes if note)


def observe(runs: pd.DataFrame, columns: Sequence[str], group_by: Sequence[str], keep_seeds: bool) -> Observations:
    """Return the observations of complete runs: averages over runs that share group_by, or every run if seeds are kept."""
    groups = runs.groupby(list(group_by), dropna=False, observed=True, sort=True)
    if keep_seeds:
        values, settings, configuration = runs, runs[list(group_by)], np.asarray(groups.ngroup(), dtype=np.int64)
    else:
        values = pd.DataFrame({name: groups[name].mean() for name in columns})
        settings, configuration = values.index.to_frame(index=False), np.arange(len(values), dtype=np.int64)
    rounded = {name: _round(values[name].to_numpy(), name) for name in columns}
    return Observations(pd.DataFrame(rounded), settings.reset_index(drop=True), configuration, len(runs))


def tabulate(
    statistic: Callable[[Observations, str, str], Mapping[str, float | str]],
    columns: Sequence[str],
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str],
    group_by: Sequence[str],
    keep_seeds: bool,
    others: Sequence[str] = (),
) -> pd.DataFrame:
    """Return one row per measure and target: measure, target, runs, configurations, the statistic's columns, note.

    With `others`, the settings of observations have these columns too. They must be single runs.
    """
    require_list("measures", measures)
    require_list("targets", targets)
    runs = prepare(runs, [*measures, *targets], group_by)
    rows: list[Statistics] = []
    for measure in measures:
        for target in targets:
            kept = complete(runs, [measure, target], [*group_by, *others])
            observed = observe(kept, [measure, target], group_by, keep_seeds)
            if others:
                observed = replace(observed, settings=kept[[*group_by, *others]].reset_index(drop=True))
            row: Statistics = {"measure": measure, "target": target}
            row |= {"runs": observed.runs, "configurations": observed.configurations}
            row["note"] = observed.reason_undefined([measure, target])
            if not row["note"]:
                row |= statistic(observed, measure, target)
            rows.append(row)
    return pd.DataFrame(rows, columns=["measure", "target", "runs", "configurations", *columns, "note"])


def combine(levels: Integers) -> Integers:
    """Return one integer per row of levels (n, k), integers from 0, such that equal rows have equal integers."""
    codes = np.zeros(len(levels), dtype=np.int64)
    for column in levels.T:
        codes = np.unique(codes * (column.max(initial=0) + 1) + column, return_inverse=True)[1]
    return codes


def _round(values: Floats, name: str) -> Floats:
    """Return rounded values, so that averages that differ only by floating point error tie.

    Targets that follow from accuracies are rounded to 8 decimals.
    """
    return np.round(values, 8) if name in TARGETS else round_bits(values)


def round_bits(values: Floats) -> Floats:
    """Return values with 43 of the 53 bits of a float, about 13 significant digits; missing and infinite values are kept."""
    mantissas, exponents = np.frexp(values)
    return np.ldexp(np.round(mantissas * 2.0**43) / 2.0**43, exponents)
