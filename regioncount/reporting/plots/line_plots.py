"""Lines: region counts and other measures through training, and region counts against a hyperparameter."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from regioncount.columns import Column
from regioncount.reporting.figure_data import Lines
from regioncount.reporting.formatting import value_text
from regioncount.reporting.plots.style import (
    LINE_STYLES,
    ORDERED_COLOURS,
    add_colour_bar,
    add_legend,
    empty_figure,
    set_up_axes,
)
from regioncount.reporting.scales import describe_values


def lines(panels: Sequence[Lines]) -> Figure:
    """Return a figure with a panel for each of the given data: a line per configuration, bands of one standard error."""
    if not panels:
        return empty_figure()
    figure = Figure(figsize=(1.4 + 5.2 * len(panels), 4.4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, data in zip(all_axes, panels, strict=True):
        set_up_axes(axes, Column(data.axis).label, data.column.label)
        axes.set_title(data.facet, fontsize=11)
        if data.is_logarithmic:
            axes.set_xscale("log")
            ticks = sorted({value for line in data.lines for value in line.x})
            axes.set_xticks(ticks, [value_text(value) for value in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        else:
            axes.xaxis.get_major_locator().set_params(integer=data.axis == "epoch")
        for line in data.lines:
            colour = ORDERED_COLOURS(data.scale[line.values[0]])
            shape: dict[str, Any] = {"linewidth": 1.7, "marker": ".", "markersize": 5}
            axes.plot(line.x, line.mean, color=colour, linestyle=LINE_STYLES[data.style(line)], **shape)
            band = (line.mean - line.error, line.mean + line.error)
            axes.fill_between(line.x, *band, color=colour, alpha=0.12, linewidth=0)
    data = panels[0]
    add_colour_bar(figure, list(all_axes), data.group_by[0], data.scale)
    shape = {"color": "0.35", "linewidth": 1.7}
    names = {describe_values(data.group_by[1:2], value): rank for value, rank in data.styles.items() if value}
    add_legend(figure, [Line2D([], [], linestyle=LINE_STYLES[rank], label=name, **shape) for name, rank in names.items()])
    return figure


def measures_through_training(panels: Sequence[Lines]) -> Figure:
    """Return a figure with a small panel per measure, and a line per configuration, coloured by its first hyperparameter.

    In the panel of `training_hessian_eigenvalue`, dashed lines are at 2 / learning rate, around which gradient descent
    without momentum holds it (Cohen et al. 2021).
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
        axes.set_title("\n".join(filter(None, (data.column.label, data.facet))), fontsize=9)
        for line in data.lines:
            colour = ORDERED_COLOURS(data.scale[line.values[0]])
            axes.plot(line.x, line.mean, color=colour, linestyle=LINE_STYLES[data.style(line)], linewidth=1.2)
        if data.column.key == "training_hessian_eigenvalue" and data.group_by[0] == "learning_rate":
            for rate, position in data.scale.items():
                axes.axhline(2 / rate, color=ORDERED_COLOURS(position), linestyle="--", linewidth=0.8)
            axes.set_yscale("log")
    data = panels[0]
    add_colour_bar(figure, list(all_axes.flat), data.group_by[0], data.scale, fraction=0.015)
    return figure
