"""Tables as CSV that no spreadsheet evaluates."""

import csv
import io
import math

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from regioncount.spreadsheet import to_csv

TEXTS = st.text(st.sampled_from("=+-@'\",1 e.a\n\t_inf"), max_size=5)
STARTS = ("=", "+", "-", "@", "\t", "\r")


@given(st.lists(TEXTS, min_size=1, max_size=4), TEXTS)
def test_no_cell_is_a_formula_and_nothing_else_changes(cells, title):
    rows = list(csv.reader(io.StringIO(to_csv(pd.DataFrame({title: cells, "number": -1.5})))))
    assert [row[1] for row in rows] == ["number", *["-1.5"] * len(cells)]
    for before, (after, _) in zip([title, *cells], rows, strict=True):
        assert after in (before, f"'{before}")
        if after.startswith(STARTS):
            assert math.isfinite(float(after))
            assert set(after) <= set("+-1.e")
        assert after == before or before.startswith(STARTS)


def test_an_empty_table_and_missing_cells_are_kept():
    assert to_csv(pd.DataFrame(columns=["a", "b"])) == "a,b\n"
    assert to_csv(pd.DataFrame({"a": ["=x", None], "b": [1, 2]})) == "a,b\n'=x,1\n,2\n"


def test_numbers_are_kept():
    numbers = ["-1", "+2.5", "-1e-7", "-3.", "1"]
    assert to_csv(pd.DataFrame({"a": numbers})) == "\n".join(["a", *numbers, ""])
    assert to_csv(pd.DataFrame({"a": ["\t=1", "\r1"]})).count("'") == 2
    assert to_csv(pd.DataFrame({"a": ["-inf", "-1_0", "-"]})) == "a\n'-inf\n'-1_0\n'-\n"
