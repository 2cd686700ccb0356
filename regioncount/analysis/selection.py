"""Which runs: the targets derived from the accuracies, and the runs that fit or that are degenerate."""

from collections.abc import Sequence

import pandas as pd

from regioncount.errors import InputError

FITTED_ACCURACY = 0.99
SELECTIONS = ("all", "fitted", "nondegenerate")


def select(runs: pd.DataFrame, selection: str) -> pd.DataFrame:
    """The runs of a selection: all, fitted (see `mark`), or nondegenerate, those not marked degenerate.

    Raises InputError for another selection, where no column says what is degenerate, and where accuracies are missing or in
    percent.
    """
    if selection not in SELECTIONS:
        raise InputError(f"no selection {selection}: one of {', '.join(SELECTIONS)}")
    if selection == "all":
        return runs
    if selection == "nondegenerate" and not any(_tells_degenerate(column) for column in runs):
        raise InputError("nothing says which runs are degenerate: a column num_classes or region_share_one_* is needed")
    marked = mark(runs)
    return runs[marked["fitted"] if selection == "fitted" else ~marked["degenerate"]]


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
        degenerate |= marked["test_accuracy"] <= 1.5 / numbers(marked, "num_classes")
    for column in marked.columns:
        if str(column).startswith("region_share_one_"):
            degenerate |= numbers(marked, column) > 0.5
    marked["degenerate"] = degenerate
    return marked


def _tells_degenerate(column: str) -> bool:
    return column == "num_classes" or str(column).startswith("region_share_one_")


def with_targets(runs: pd.DataFrame) -> pd.DataFrame:
    """A copy of a table of runs with generalization_gap and test_error, derived from the accuracies.

    Raises InputError where accuracies are missing or in percent.
    """
    require(runs, ["train_accuracy", "test_accuracy"])
    runs = runs.copy()
    for column in ("train_accuracy", "test_accuracy"):
        runs[column] = numbers(runs, column)
        if (runs[column] > 1).any():
            raise InputError(
                f"{column} has values up to {runs[column].max():g}: percent was found where fractions from 0 to 1 are "
                "expected, divide by 100"
            )
    runs["generalization_gap"] = runs["train_accuracy"] - runs["test_accuracy"]
    runs["test_error"] = 1 - runs["test_accuracy"]
    return runs


def require(runs: pd.DataFrame, columns: Sequence[str]) -> None:
    """InputError that names the columns a table of runs lacks."""
    missing = [column for column in dict.fromkeys(columns) if column not in runs]
    if missing:
        raise InputError(f"the table of runs has no column {', '.join(missing)}; it has {', '.join(map(str, runs))}")


def numbers(runs: pd.DataFrame, column: str) -> pd.Series:
    """A column as floats; InputError where it is not numeric."""
    try:
        return pd.to_numeric(runs[column]).astype(float)
    except (TypeError, ValueError) as error:
        raise InputError(f"the column {column} of the table of runs is not numeric: {error}") from error
