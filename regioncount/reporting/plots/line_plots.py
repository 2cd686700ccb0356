"""Lines: region counts and other measures through training, and against options of the training or of the measurement."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from regioncount.columns import Column
from regioncount.reporting.formatting import value_text
from regioncount.reporting.lines_data import Lines
from regioncount.reporting.plots.style import (
    LINE_STYLES,
    ORDERED_COLOURS,
    add_colour_bar,
    add_legend,
    empty_figure,
    set_up_axes,
)
from regioncount.reporting.scales import describe_values
from regioncount.reporting.series_data import AgainstMeasuring

MAX_LEVEL_TICKS = 8  # more of them are rotated


def lines(panels: Sequence[Lines]) -> Figure:
    """Return a figure with a panel for each of the given data: a line per configuration, bands of one standard error.

    The panels of one measure share their vertical axis. Several measures with several facets each have a row per measure.
    """
    if not panels:
        return empty_figure()
    measures = list(dict.fromkeys(data.column.key for data in panels))
    facets = list(dict.fromkeys(data.facet for data in panels))
    is_grid = len(measures) > 1 and len(facets) > 1
    rows, columns = (len(measures), len(facets)) if is_grid else (1, len(panels))
    size = (1.4 + (5.2 if columns == 1 else 4.2) * columns, 0.6 + 3.8 * rows)
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False, sharey="row" if is_grid or len(measures) == 1 else "none")
    unused = set(all_axes.flat)
    for position, data in enumerate(panels):
        row, column = (measures.index(data.column.key), facets.index(data.facet)) if is_grid else (0, position)
        _draw_lines(all_axes[row, column], data)
        unused.discard(all_axes[row, column])
    for axes in unused:
        axes.set_axis_off()
    _add_keys(figure, list(all_axes.flat), panels[0])
    return figure


def against_measuring(data: AgainstMeasuring) -> Figure:
    """Return a figure of region counts against an option of the measurement and, beside them, Kendall's tau with the gap."""
    panels = 1 if data.correlation is None else 2
    figure = Figure(figsize=(1.4 + 4.6 * panels, 4.4), layout="constrained")
    axes, *others = figure.subplots(1, panels, squeeze=False)[0]
    _draw_lines(axes, data.lines)
    if data.correlation is not None:
        beside, line = others[0], data.correlation
        set_up_axes(beside, data.lines.axis_label, f"Kendall's tau of count and {Column('generalization_gap').name}")
        _set_up_scale(beside, data.lines)
        bars = np.array([line.tau - line.low, line.high - line.tau])
        beside.errorbar(line.x, line.tau, bars, color="0.25", marker="o", markersize=5, linewidth=1.4, elinewidth=1)
    _add_keys(figure, [axes, *others], data.lines)
    figure.suptitle(data.title, fontsize=12)
    return figure


def measures_through_training(panels: Sequence[Lines], largest_stable: Mapping[float, float] | None = None) -> Figure:
    """Return a figure with a small panel per measure, and a line per configuration, coloured by its first hyperparameter.

    Args:
        panels: The lines.
        largest_stable: The largest Hessian eigenvalue at which gradient descent is stable, by learning rate. A dashed line
            is drawn at each in the panel of `training_hessian_eigenvalue`, if its first hyperparameter is the learning rate.

    Returns:
        The figure.
    """
    if not panels:
        return empty_figure()
    width = min(4, len(panels))
    height = math.ceil(len(panels) / width)
    figure = Figure(figsize=(3.2 * width + 1, 2.5 * height + 0.4), layout="constrained")
    all_axes = figure.subplots(height, width, squeeze=False)
    for axes in all_axes.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, data in zip(all_axes.flat, panels, strict=False):
        set_up_axes(axes, "epoch", "")
        axes.xaxis.get_major_locator().set_params(integer=True)
        compared = data.column.key == "training_hessian_eigenvalue" and data.group_by[0] == "learning_rate"
        stable = {rate: value for rate, value in (largest_stable or {}).items() if compared and rate in data.scale}
        note = "dashed: the largest that is stable" if stable else ""
        axes.set_title("\n".join(filter(None, (data.column.label, data.facet, note))), fontsize=9)
        for line in data.lines:
            colour = ORDERED_COLOURS(data.scale[line.values[0]])
            axes.plot(line.x, line.mean, color=colour, linestyle=LINE_STYLES[data.style(line)], linewidth=1.2)
        for rate, eigenvalue in stable.items():
            axes.axhline(eigenvalue, color=ORDERED_COLOURS(data.scale[rate]), linestyle="--", linewidth=0.8)
        if compared:
            axes.set_yscale("log")
    data = panels[0]
    add_colour_bar(figure, list(all_axes.flat), data.group_by[0], data.scale, fraction=0.015)
    return figure


def _draw_lines(axes: Axes, data: Lines) -> None:
    set_up_axes(axes, data.axis_label, data.column.label)
    axes.set_title(data.facet, fontsize=11)
    _set_up_scale(axes, data)
    for line in data.lines:
        colour = ORDERED_COLOURS(data.scale[line.values[0]])
        shape: dict[str, Any] = {"linewidth": 1.7, "marker": ".", "markersize": 5}
        axes.plot(line.x, line.mean, color=colour, linestyle=LINE_STYLES[data.style(line)], **shape)
        axes.fill_between(line.x, line.mean - line.error, line.mean + line.error, color=colour, alpha=0.12, linewidth=0)


def _set_up_scale(axes: Axes, data: Lines) -> None:
    """Make the horizontal axis logarithmic, with a tick at each value, if the values allow it."""
    if not data.is_logarithmic:
        axes.locator_params(axis="x", integer=data.axis == "epoch")
        return
    axes.set_xscale("log")
    ticks = sorted({value for line in data.lines for value in line.x})
    axes.set_xticks(ticks, [value_text(value) for value in ticks], rotation=45 * (len(ticks) > MAX_LEVEL_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())


def _add_keys(figure: Figure, all_axes: list[Axes], data: Lines) -> None:
    """Add the colour bar and the legend of line styles."""
    add_colour_bar(figure, all_axes, data.group_by[0], data.scale)
    shape = {"color": "0.35", "linewidth": 1.7}
    names = {describe_values(data.group_by[1:2], value): rank for value, rank in data.styles.items() if value}
    add_legend(figure, [Line2D([], [], linestyle=LINE_STYLES[rank], label=name, **shape) for name, rank in names.items()])
