"""Hyperparameters in figures: the rows that can be drawn, and the colour and style of each value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from regioncount.errors import InputError

MAX_STYLES = 20  # values that markers or line styles distinguish


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


def rank_styles(values: pd.Series) -> dict[Any, int]:
    """Return the index of each value's marker or line style, ascending; all 0 for more than `MAX_STYLES` values."""
    ordered = sorted(values.unique())
    return {value: rank if len(ordered) <= MAX_STYLES else 0 for rank, value in enumerate(ordered)}


def distinguishes(styles: dict[Any, int]) -> bool:
    """Return whether styles distinguish values and therefore need a legend."""
    return len(set(styles.values())) > 1


def _sortable(values: pd.Series) -> pd.Series:
    """Return the values as numbers if all of them are numbers, otherwise as text."""
    try:
        if values.notna().all():
            return pd.to_numeric(values)
    except (TypeError, ValueError):
        pass
    return values.map(lambda value: "none" if pd.isna(value) else str(value)).astype(object)
