"""Hyperparameters in figures: the rows that can be drawn, and the colour and style of each value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from regioncount.columns import Column
from regioncount.errors import InputError
from regioncount.reporting.formatting import value_text

# Limits beyond which a figure does not distinguish values.
MAX_MARKERS = 9
MAX_LINE_STYLES = 6
MAX_FACETS = 6  # panels side by side


def complete_rows(table: pd.DataFrame, numbers: Sequence[str], group_by: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows in which all numbers are finite, and at least two columns by which to group them.

    Args:
        table: The rows.
        numbers: Columns of numbers.
        group_by: Columns of hyperparameters. Those that the table lacks are ignored.

    Returns:
        A copy of the complete rows, and the columns, padded to two with columns of "".
    """
    table = table.copy()
    for column in numbers:
        table[column] = pd.to_numeric(table[column]).astype(float)
    complete: Any = np.isfinite(table[list(numbers)].to_numpy(dtype=float)).all(axis=1)
    table = table.loc[complete].copy()
    columns = [column for column in group_by if column in table]
    for column in columns:
        table[column] = _sortable(table[column])
    while len(columns) < 2:
        columns.append(f"only {len(columns)}")
        table[columns[-1]] = ""
    return table, columns


def require_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Check that a table has columns.

    Args:
        table: The table of a figure.
        columns: The columns that are drawn.

    Raises:
        InputError: A column is missing.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"the figure's table has no column {', '.join(missing)}; it has {', '.join(map(str, table))}")


def position_on_scale(values: pd.Series) -> dict[Any, float]:
    """Return the position of each value on a scale from 0 to 1, ascending.

    The scale is logarithmic for non-negative numbers. Other values are evenly spaced.
    """
    ordered = sorted(values.unique())
    positions = np.arange(len(ordered), dtype=float)
    if pd.api.types.is_numeric_dtype(values) and ordered[0] >= 0 and ordered[-1] > 0:
        logs = np.log10([value for value in ordered if value > 0])
        # Zero has no logarithm: place it one step below the smallest positive value.
        zero = logs[0] - (np.diff(logs).min() if len(logs) > 1 else 1)
        positions = np.concatenate([np.full(len(ordered) - len(logs), zero), logs])
    span = positions[-1] - positions[0]
    return dict(zip(ordered, (positions - positions[0]) / span if span else np.full(len(ordered), 0.4), strict=True))


def rank_styles(table: pd.DataFrame, columns: Sequence[str], limit: int) -> tuple[list[str], dict[tuple[Any, ...], int]]:
    """Return the columns that markers or line styles distinguish, and the index of each combination's style.

    Args:
        table: The rows.
        columns: The columns to distinguish, the most important one first.
        limit: The number of styles.

    Returns:
        Those columns that have several values: all of them if there are styles for all combinations, otherwise only the
        first one, or none. The indices, in ascending order of the combinations.
    """
    varying = [column for column in columns if table[column].nunique() > 1]
    for chosen in (varying, varying[:1], []):
        combinations = sorted({*table[chosen].itertuples(index=False, name=None)}) if chosen else [()]
        if len(combinations) <= limit:
            break
    return chosen, {combination: rank for rank, combination in enumerate(combinations)}


def split_facets(table: pd.DataFrame, columns: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Split rows by hyperparameters that neither axes, colours nor styles of a figure show.

    Returns:
        The title and the rows of each panel. With more than `MAX_FACETS` combinations of values, there is one panel of
        averages, and its title says so.
    """
    varying = [column for column in columns if table[column].nunique() > 1]
    if not varying:
        return [("", table)]
    groups: Any = table.groupby(varying)
    if len(groups) > MAX_FACETS:
        return [(f"averaged over {', '.join(Column(column).label for column in varying)}", table)]
    return [(describe_values(varying, values), rows) for values, rows in groups]


def describe_values(columns: Sequence[str], values: Sequence[Any]) -> str:
    """Return hyperparameters and their values as text: "learning rate 0.1, batch size 64"."""
    return ", ".join(f"{Column(column).label} {value_text(value)}" for column, value in zip(columns, values, strict=True))


def _sortable(values: pd.Series) -> pd.Series:
    """Return the values as numbers if all of them are numbers, otherwise as text."""
    try:
        if values.notna().all():
            return pd.to_numeric(values)
    except (TypeError, ValueError):
        pass
    return values.map(lambda value: "none" if pd.isna(value) else str(value)).astype(object)
