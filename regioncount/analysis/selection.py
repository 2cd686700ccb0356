"""Selections of runs, and the targets that follow from their accuracies."""

from collections.abc import Sequence

import pandas as pd

from regioncount.errors import InputError

FITTED_ACCURACY = 0.99
ROUNDING = 1e-6  # fractions may exceed 1 by this much: they may be averages of floats of 32 bits
SELECTIONS = ("all", "fitted", "nondegenerate")


def select(runs: pd.DataFrame, selection: str) -> pd.DataFrame:
    """Return the runs of a selection.

    Args:
        runs: One row per run.
        selection: all, fitted or nondegenerate; see `mark`.

    Raises:
        InputError: If the selection is unknown, no column identifies degenerate runs, or accuracies are missing or in
            percent.
    """
    if selection not in SELECTIONS:
        raise InputError(f"selection={selection} is unknown; use one of {', '.join(SELECTIONS)}")
    if selection == "all":
        return runs
    if selection == "nondegenerate" and not any(_identifies_degenerate(str(column)) for column in runs):
        raise InputError("no column identifies degenerate runs: add num_classes or region_share_one_*")
    marked = mark(runs)
    return runs[marked["fitted"] if selection == "fitted" else ~marked["degenerate"]]


def mark(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of a table of runs with two more boolean columns, fitted and degenerate.

    A run is fitted if its train accuracy is at least 0.99. It is degenerate if its test accuracy is at most 1.5 /
    num_classes, provided that the table has a column num_classes, or if it has a single region on more than half of the
    subspaces of some kind (columns region_share_one_*).

    Raises:
        InputError: If accuracies are missing or in percent.
    """
    marked = with_targets(runs)[list(runs.columns)]
    marked["fitted"] = marked["train_accuracy"] >= FITTED_ACCURACY
    # A constant predictor has one region everywhere: the lowest possible count, although it does not generalize.
    degenerate = pd.Series(False, index=marked.index)
    if "num_classes" in marked:
        degenerate |= marked["test_accuracy"] <= 1.5 / numbers(marked, "num_classes")
    for column in marked.columns:
        if str(column).startswith("region_share_one_"):
            degenerate |= numbers(marked, column) > 0.5
    marked["degenerate"] = degenerate
    return marked


def _identifies_degenerate(column: str) -> bool:
    return column == "num_classes" or column.startswith("region_share_one_")


def with_targets(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a copy of a table of runs with generalization_gap and test_error, derived from the accuracies.

    Raises:
        InputError: If accuracies are missing or in percent.
    """
    require(runs, ["train_accuracy", "test_accuracy"])
    runs = runs.copy()
    for column in ("train_accuracy", "test_accuracy"):
        runs[column] = numbers(runs, column)
        if (runs[column] > 1 + ROUNDING).any():
            raise InputError(
                f"{column} has values up to {runs[column].max():g}: fractions from 0 to 1 are expected; divide percent "
                "by 100"
            )
        if (runs[column] < 0).any():
            raise InputError(f"{column} has values down to {runs[column].min():g}: fractions from 0 to 1 are expected")
        runs[column] = runs[column].clip(upper=1)
    runs["generalization_gap"] = runs["train_accuracy"] - runs["test_accuracy"]
    runs["test_error"] = 1 - runs["test_accuracy"]
    return runs


def require(runs: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that a table of runs has these columns.

    Raises:
        InputError: If a column is missing, or several have its name.
    """
    missing = [column for column in dict.fromkeys(columns) if column not in runs]
    if missing:
        names = ", ".join(map(str, missing))
        raise InputError(f"the table of runs has no column {names}; it has {', '.join(map(str, runs))}")
    if repeated := [str(column) for column in columns if isinstance(runs[column], pd.DataFrame)]:
        raise InputError(f"the table of runs has several columns {repeated[0]}: give each column a name of its own")


def numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as floats.

    Raises:
        InputError: If the column is not numeric.
    """
    values = runs[column]
    if values.dtype.kind in "cmM":  # complex numbers, durations, dates
        raise InputError(f"the column {column} of the table of runs is not numeric: it has the type {values.dtype}")
    try:
        return pd.to_numeric(values).astype(float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the column {column} of the table of runs is not numeric: {error}") from error
