"""The data of figures of dots and cells, which `plots` draws with matplotlib and `charts` with plotly.

Figures distinguish configurations by their hyperparameters: the first sets the colour, the second the line style or, with
all others, the marker. In heat maps the first two are the axes. Heat maps and lines have a panel for each combination of
the values of the others or, if there are too many, one panel of averages that says so. Missing and infinite values, such
as those of diverged runs, are omitted. Accuracies are in percent. `lines_data` has the figures of lines.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps

from regioncount.analysis import FITTED_ACCURACY, with_targets
from regioncount.columns import Column
from regioncount.reporting.scales import (
    MAX_MARKERS,
    complete_rows,
    position_on_scale,
    rank_styles,
    require_columns,
    split_facets,
)

# Limits that keep figures of large sweeps readable.
MAX_BARS = 300  # dots with error bars
MAX_NUMBERS = 24  # rows or columns of a heat map with numbers in its cells

GROUP_BY = ("learning_rate", "batch_size")
GAP = Column("generalization_gap")
UNFITTED = f"below {FITTED_ACCURACY:.0%} train accuracy"


@dataclass(frozen=True, eq=False)
class Scatter:
    """A measure against a target, one dot per configuration."""

    x: Column
    y: Column
    group_by: list[str]
    """The columns that define a configuration; the first sets the colour."""
    marked: list[str]
    """The other columns that markers distinguish."""
    runs: pd.DataFrame
    """The complete runs: `group_by`, x, y, and fits (whether the run fits its training set)."""
    dots: pd.DataFrame
    """One row per configuration: `group_by`; means of x and y over runs; their standard errors, x.key + "_error" and
    y.key + "_error"; fits (whether all runs fit); and runs (their number)."""
    scale: dict[Any, float]
    """The position on the colour scale, from 0 to 1, of each value of the first hyperparameter."""
    styles: dict[tuple[Any, ...], int]
    """The index of the marker for each combination of the values of `marked`."""
    line: list[tuple[float, float]]
    """The two ends of the least-squares line through the dots."""

    @property
    def unmarked(self) -> list[str]:
        """The hyperparameters that vary but neither colour nor marker shows."""
        return [c for c in self.group_by[1:] if c not in self.marked and self.dots[c].nunique() > 1]

    def marker(self, dot: Mapping[Any, Any]) -> int:
        """Return the index of the marker of a row of `dots` or `runs`."""
        return self.styles[tuple(dot[column] for column in self.marked)]


@dataclass(frozen=True, eq=False)
class HeatMap:
    """The mean of a measure in each cell of a grid of two hyperparameters."""

    column: Column
    across: str
    up: str
    columns: list[Any]
    """The values of the hyperparameter `across`, ascending."""
    rows: list[Any]
    """The values of the hyperparameter `up`, ascending; [""] if there is only one hyperparameter."""
    cells: np.ndarray
    """Means, (rows, columns); NaN where there is no run."""
    facet: str
    """The values of the other hyperparameters, or those that are averaged over, as text."""
    range: tuple[float, float]
    """The smallest and the largest value of the measure in its heat maps, which share a colour scale."""

    @property
    def title(self) -> str:
        """The measure, and the facet."""
        return ", ".join(filter(None, (self.column.label, self.facet)))

    @property
    def has_numbers(self) -> bool:
        """Whether the cells are large enough to print numbers in them."""
        return max(self.cells.shape) <= MAX_NUMBERS

    def text_colour(self, value: float) -> str:
        """Return the colour, black or white, of text that is readable on the cell of a value."""
        low, high = self.range
        colour = colormaps["viridis"](float((value - low) / (high - low)) if high > low else 0.0)
        return "black" if np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"


@dataclass(frozen=True, eq=False)
class Panel:
    """One measure of `Panels`: its dots, one per configuration."""

    column: Column
    kendall: float
    x: np.ndarray
    y: np.ndarray
    positions: list[float]
    """The positions of the dots on the colour scale."""


@dataclass(frozen=True, eq=False)
class Panels:
    """Several measures against one target."""

    target: Column
    panels: list[Panel]
    colour_by: str
    scale: dict[Any, float]


def scatter(runs: pd.DataFrame, x: Column, y: Column = GAP, group_by: Sequence[str] = GROUP_BY) -> Scatter | None:
    """Average a measure and a target over the runs of each configuration.

    Args:
        runs: One row per run: x, train_accuracy and test_accuracy (fractions), `group_by`, and y unless it can be
            computed from the accuracies.
        x: The measure.
        y: The target.
        group_by: The columns that define a configuration. Those that `runs` lacks are ignored.

    Returns:
        The dots; None if no run has all values.

    Raises:
        InputError: A column is missing, or accuracies are in percent.
    """
    if runs.empty:
        return None
    runs = with_targets(runs)
    require_columns(runs, [x.key, y.key])
    runs, columns = complete_rows(runs, [x.key, y.key, "train_accuracy"], group_by)
    if runs.empty:
        return None
    runs["fits"] = runs["train_accuracy"] >= FITTED_ACCURACY
    runs[y.key] *= y.factor
    runs[x.key] *= x.factor
    by = runs.groupby(columns)
    dots = by[[x.key, y.key]].mean().join(by[[x.key, y.key]].sem().fillna(0).add_suffix("_error"))
    dots = dots.join(by["fits"].all()).join(by.size().rename("runs")).reset_index()
    slope, offset = _least_squares(dots[x.key], dots[y.key])
    ends = [(float(end), float(slope * end + offset)) for end in (dots[x.key].min(), dots[x.key].max())]
    marked, styles = rank_styles(runs, columns[1:], MAX_MARKERS)
    return Scatter(x, y, columns, marked, runs, dots, position_on_scale(runs[columns[0]]), styles, ends)


def heat_maps(runs: pd.DataFrame, measures: Sequence[Column], group_by: Sequence[str] = GROUP_BY) -> list[HeatMap]:
    """Average measures over the runs of each cell of a grid.

    Args:
        runs: One row per run: the measures and `group_by`.
        measures: The measures, one heat map each.
        group_by: Hyperparameters. The first two are the axes.

    Returns:
        Heat maps of the same grid, for each measure one per combination of the values of the other hyperparameters; empty
        if no run has a value.

    Raises:
        InputError: A measure is missing.
    """
    keys = [column.key for column in measures]
    if runs.empty or not keys:
        return []
    require_columns(runs, keys)
    runs, (across, up, *others) = complete_rows(runs, [], group_by)
    runs[keys] = runs[keys].apply(pd.to_numeric).replace([math.inf, -math.inf], math.nan)
    runs = runs[runs[keys].notna().any(axis=1)]
    if runs.empty:
        return []
    columns, rows = list(position_on_scale(runs[across])), list(position_on_scale(runs[up]))
    maps = []
    for column in measures:
        panels = []
        for facet, selected in split_facets(runs, others):
            cells = selected.groupby([up, across])[column.key].mean().unstack().reindex(index=rows, columns=columns)
            panels.append((facet, cells.to_numpy(dtype=float) * column.factor))
        values = np.concatenate([cells for _, cells in panels])
        values = values[np.isfinite(values)]
        limits = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        maps += [HeatMap(column, across, up, columns, rows, cells, facet, limits) for facet, cells in panels]
    return maps


def measure_panels(
    runs: pd.DataFrame, ranking: pd.DataFrame, columns: Callable[[str], Column], group_by: Sequence[str] = GROUP_BY
) -> Panels | None:
    """Average ranked measures and their target over the runs of each configuration.

    Args:
        runs: As in `scatter`, with all measures of the ranking.
        ranking: A table of `analysis.ranking`.
        columns: Returns the column for the key of a measure.
        group_by: As in `scatter`.

    Returns:
        A panel for each measure that is defined for some run, in the order of the ranking; None if there are none.

    Raises:
        InputError: A column is missing, or accuracies are in percent.
    """
    if runs.empty:
        return None
    runs = with_targets(runs)
    target = columns(ranking["target"].iloc[0])
    require_columns(runs, [*ranking["measure"], target.key])
    runs, names = complete_rows(runs, [], group_by)
    scale = position_on_scale(runs[names[0]])
    panels = []
    for key, kendall in zip(ranking["measure"], ranking["kendall"], strict=True):
        defined, _ = complete_rows(runs, [key, target.key], [])
        if len(defined):
            dots, column = defined.groupby(names)[[key, target.key]].mean().reset_index(), columns(key)
            x, y = (dots[c.key].to_numpy() * c.factor for c in (column, target))
            panels.append(Panel(column, kendall, x, y, [scale[value] for value in dots[names[0]]]))
    return Panels(target, panels, names[0], scale) if panels else None


def _least_squares(x: pd.Series, y: pd.Series) -> tuple[float, float]:
    """Return the slope and offset of the least-squares line; NaN if x is constant."""
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else math.nan
    return slope, y.mean() - slope * x.mean()
