"""Tables as CSV that a spreadsheet shows and does not evaluate."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def to_csv(table: "pd.DataFrame") -> str:
    """Return a table as CSV, without its index.

    A text that a spreadsheet would evaluate as a formula, such as "=HYPERLINK(...)", is preceded by an apostrophe.
    """
    from pandas.api.types import is_numeric_dtype  # --help and the parsing of records import this module, but not pandas

    plain = table.apply(lambda column: column if is_numeric_dtype(column) else column.map(_without_formula))
    return plain.rename(columns=_without_formula).to_csv(index=False)


def _without_formula(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(FORMULA_STARTS):
        return cell
    return cell if NUMBER.fullmatch(cell) else f"'{cell}"
