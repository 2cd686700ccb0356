"""Region counts through training."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regioncount.reporting.figure_data import Lines
from regioncount.reporting.plots.style import (
    LINE_STYLES,
    ORDERED_COLOURS,
    add_colour_bar,
    add_legend,
    empty_figure,
    set_up_axes,
)
from regioncount.reporting.scales import describe_values


def count_through_training(panels: Sequence[Lines]) -> Figure:
    """Return a figure with a panel for each of the given data: a line per configuration, bands of one standard error."""
    if not panels:
        return empty_figure()
    figure = Figure(figsize=(1.4 + 5.2 * len(panels), 4.4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, data in zip(all_axes, panels, strict=True):
        set_up_axes(axes, "epoch", data.column.label)
        axes.set_title(data.facet, fontsize=11)
        axes.xaxis.get_major_locator().set_params(integer=True)
        for line in data.lines:
            colour = ORDERED_COLOURS(data.scale[line.values[0]])
            shape: dict[str, Any] = {"linewidth": 1.7, "marker": ".", "markersize": 5}
            axes.plot(line.epochs, line.mean, color=colour, linestyle=LINE_STYLES[data.style(line)], **shape)
            band = (line.mean - line.error, line.mean + line.error)
            axes.fill_between(line.epochs, *band, color=colour, alpha=0.12, linewidth=0)
    data = panels[0]
    add_colour_bar(figure, list(all_axes), data.group_by[0], data.scale)
    shape = {"color": "0.35", "linewidth": 1.7}
    names = {describe_values(data.group_by[1:2], value): rank for value, rank in data.styles.items() if value}
    add_legend(figure, [Line2D([], [], linestyle=LINE_STYLES[rank], label=name, **shape) for name, rank in names.items()])
    return figure
