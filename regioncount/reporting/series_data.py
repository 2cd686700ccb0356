"""The data of figures that compare series of runs: networks, data sets, or the values of an option such as the augmentation.

See `figure_data` for the figures of a single series.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regioncount import analysis
from regioncount.columns import Column
from regioncount.reporting.figure_data import Scatter, scatter
from regioncount.reporting.formatting import interval
from regioncount.reporting.lines_data import Lines

MAX_SERIES = 27  # a figure with more of them is not drawn


@dataclass(frozen=True, eq=False)
class Series:
    """A measure against a target for several series of runs, each with its own least-squares line."""

    x: Column
    y: Column
    scatters: dict[str, Scatter]
    """The dots and the line of each series, by its name."""
    names: dict[str, str]
    """The name of each series with Kendall's tau-b and its interval."""
    title: str
    """What the series share, as text."""

    @property
    def dots(self) -> int:
        """The number of dots."""
        return sum(len(data.dots) for data in self.scatters.values())

    @property
    def fits(self) -> bool:
        """Whether all runs fit their training set."""
        return all(data.dots["fits"].all() for data in self.scatters.values())


@dataclass(frozen=True, eq=False)
class CorrelationLine:
    """Kendall's tau-b of a measure and the generalization gap, against an option of the measurement."""

    x: np.ndarray
    """The values of the option, ascending."""
    tau: np.ndarray
    low: np.ndarray
    """The lower ends of the 95 % intervals; NaN where there is none."""
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class AgainstMeasuring:
    """Region counts, and their correlation with the gap, against an option of the measurement: the number of lines, say."""

    lines: Lines
    correlation: CorrelationLine | None
    """None if the correlation is undefined for all values."""
    title: str
    """The data set, the network and other options of the measurement, as text."""


def series(
    runs: Mapping[str, pd.DataFrame],
    x: Column,
    y: Column,
    group_by: Sequence[str],
    hyperparameters: Sequence[str],
    title: str = "",
) -> Series | None:
    """Average a measure and a target over the runs of each configuration, for each series.

    Args:
        runs: The runs of each series, as for `figure_data.scatter`, by the name of the series.
        x: The measure.
        y: The target.
        group_by: The columns that figures distinguish; they define a dot.
        hyperparameters: The columns that define a configuration in correlations.
        title: What the series share.

    Returns:
        The dots; None if fewer than two series, or more than `MAX_SERIES`, have runs with all values.
    """
    scatters = {name: scatter(rows, x, y, group_by) for name, rows in runs.items()}
    drawn = {name: data for name, data in scatters.items() if data is not None}
    if not 2 <= len(drawn) <= MAX_SERIES:
        return None
    names = {name: f"{name}: {_kendall(runs[name], x, y, hyperparameters)}" for name in drawn}
    return Series(x, y, drawn, names, title)


def correlation_line(correlations: pd.DataFrame, axis: str) -> CorrelationLine | None:
    """Return correlations against an option of the measurement.

    Args:
        correlations: Rows of `analysis.correlations` of one measure and one target, with the column `axis`.
        axis: The option.

    Returns:
        The correlations, in the order of the option's values; None if none is defined.
    """
    if correlations.empty or correlations["kendall"].isna().all():
        return None
    rows = correlations.assign(**{axis: pd.to_numeric(correlations[axis])}).sort_values(axis)
    return CorrelationLine(*(rows[key].to_numpy(float) for key in (axis, "kendall", "kendall_low", "kendall_high")))


def _kendall(runs: pd.DataFrame, x: Column, y: Column, hyperparameters: Sequence[str]) -> str:
    """Return Kendall's tau-b and its interval as text."""
    row = analysis.correlations(runs, [x.key], [y.key], group_by=list(hyperparameters)).iloc[0]
    if math.isnan(row["kendall"]):
        return "tau undefined"
    return f"tau {interval(row['kendall'], row['kendall_low'], row['kendall_high'])}"
