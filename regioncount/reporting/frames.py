"""Typed access to the columns and rows of pandas tables."""

from typing import Any

import pandas as pd


def keys(table: pd.DataFrame) -> list[str]:
    """Return the names of a table's columns."""
    return [str(column) for column in table.columns]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as mappings from columns to values."""
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]
