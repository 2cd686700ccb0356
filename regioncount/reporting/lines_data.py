"""The data of figures of lines: a measure through training, or against an option.

See `figure_data` for what all figures have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from regioncount.columns import Column
from regioncount.reporting.figure_data import GROUP_BY
from regioncount.reporting.scales import (
    MAX_LINE_STYLES,
    complete_rows,
    position_on_scale,
    rank_styles,
    require_columns,
    split_facets,
)

MAX_LINES = 200  # in one panel

# Options of the measurement in words.
MEASURING_LABELS = {"number": "number of subspaces", "resolution": "points per axis"}


@dataclass(frozen=True, eq=False)
class Line:
    """A measure along an axis, averaged over the runs with the same values of `Lines.columns`."""

    values: tuple[Any, ...]
    x: np.ndarray
    """Epochs, or the values of the option that is the axis, ascending."""
    mean: np.ndarray
    error: np.ndarray
    """The standard error of the mean; see `Lines.error_over`."""
    runs: np.ndarray


@dataclass(frozen=True, eq=False)
class Lines:
    """A measure through training or against an option, one line per configuration."""

    column: Column
    axis: str
    """The column of the horizontal axis: "epoch", a hyperparameter or an option of the measurement."""
    columns: list[str]
    """The hyperparameters that distinguish lines."""
    lines: list[Line]
    group_by: list[str]
    """The columns that define a configuration, at least two."""
    facet: str
    """As in `HeatMap`."""
    scale: dict[Any, float]
    """As in `Scatter`."""
    styles: dict[tuple[Any, ...], int]
    """The index of the line style for each value of the second hyperparameter, as a tuple; {(): 0} if line styles do not
    distinguish them."""
    error_over: str
    """What the standard errors are over: "runs" (NaN for a single run), or "subspaces" (the mean of those of the runs, which
    share their subspaces)."""

    @property
    def axis_label(self) -> str:
        """The horizontal axis in words."""
        if self.error_over == "subspaces" and self.axis in MEASURING_LABELS:
            return MEASURING_LABELS[self.axis]
        return Column(self.axis).label

    @property
    def is_logarithmic(self) -> bool:
        """Whether the axis is logarithmic: if it is an option with positive values."""
        return self.axis != "epoch" and all((line.x > 0).all() for line in self.lines)

    def style(self, line: Line) -> int:
        """Return the index of a line's style."""
        return self.styles.get(line.values[1:2], 0)


def lines_along(
    values: pd.DataFrame,
    column: Column,
    axis: str = "epoch",
    group_by: Sequence[str] = GROUP_BY,
    facets: bool = True,
    error: Column | None = None,
) -> list[Lines]:
    """Average a measure over runs at each epoch, or at each value of an option.

    Args:
        values: One row per run, and per epoch if that is the axis: the axis, the measure, and `group_by`. Epochs also need
            identity, which tells runs apart. They are averaged at the epochs at which each of them has a value or has
            ended; a run that has ended keeps its last value.
        column: The measure.
        axis: The column of the horizontal axis: "epoch" or an option with numeric values.
        group_by: The columns that define a configuration.
        facets: Whether there is a panel for each combination of the values of the third and further columns. Otherwise,
            all lines are in one panel; if there are more than `MAX_LINES`, they are averages over these columns, or over
            all but the first one.
        error: The column of the standard error of a run's value over subspaces, whose mean over runs is drawn. If None, the
            standard error over runs is.

    Returns:
        The lines of each panel; empty if there are no values.

    Raises:
        InputError: A column is missing.
    """
    if values.empty:
        return []
    numbers = [axis, column.key, *([] if error is None else [error.key])]
    require_columns(values, numbers)
    ends = values.groupby("identity")[axis].max() if axis == "epoch" else None
    values, columns = complete_rows(values, [axis, column.key], group_by)
    if values.empty:
        return []
    values[numbers[1:]] *= column.factor
    scale, (_, styles) = position_on_scale(values[columns[0]]), rank_styles(values, columns[1:2], MAX_LINE_STYLES)
    result = []
    for facet, rows in split_facets(values, columns[2:]) if facets else [("", values)]:
        choices = (columns[: 2 if facets else None], columns[:2], columns[:1])
        shown = next((c for c in choices if rows.groupby(c).ngroups <= MAX_LINES), columns[:1])
        lines = []
        for values_shown, line in rows.groupby(shown):
            averaged_rows = line if ends is None else _at_common_epochs(line, column.key, ends)
            if len(averaged_rows):
                lines.append(_line(values_shown, averaged_rows, *numbers))
        averaged = [c for c in columns if c not in shown and rows[c].nunique() > 1]
        title = f"averaged over {', '.join(Column(c).label for c in averaged)}" if averaged else facet
        over = "runs" if error is None else "subspaces"
        result.append(Lines(column, axis, shown, lines, columns, title, scale, styles, over))
    return result


def _at_common_epochs(rows: pd.DataFrame, key: str, ends: pd.Series) -> pd.DataFrame:
    """Return the epochs and values of runs at the epochs at which each run has a value or has ended.

    A run that has ended keeps its last value. Otherwise, the average would change where a run ends.
    """
    table = rows.pivot_table(index="epoch", columns="identity", values=key)
    has_ended = table.index.to_numpy()[:, None] > ends[table.columns].to_numpy()
    has_last = [table[run].last_valid_index() == ends[run] for run in table.columns]
    table = table.where(~(has_ended & np.array(has_last)), table.ffill()).dropna()
    return table.melt(ignore_index=False, value_name=key).reset_index()


def _line(values: tuple[Any, ...], rows: pd.DataFrame, axis: str, key: str, error_key: str | None = None) -> Line:
    by = rows.groupby(axis)
    averages = by[key].agg(["mean", "sem", "size"])
    mean, error, runs = (averages[column].to_numpy() for column in ("mean", "sem", "size"))
    if error_key is not None:
        error = by[error_key].mean().to_numpy()
    return Line(values, averages.index.to_numpy(), mean, error, runs)
