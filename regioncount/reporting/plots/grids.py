"""Heat maps over a grid of two hyperparameters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from regioncount.columns import Column
from regioncount.reporting.figure_data import MAX_NUMBERS, HeatMap
from regioncount.reporting.formatting import number_text, value_text
from regioncount.reporting.plots.style import empty_figure


def heat_maps(maps: Sequence[HeatMap]) -> Figure:
    """Return a figure of heat maps of the same grid: side by side, or with a row of facets for each measure."""
    if not maps:
        return empty_figure()
    wide, high = (min(len(values), MAX_NUMBERS) for values in (maps[0].columns, maps[0].rows))
    width, height = max(3.0, 0.75 * wide + 1.1), max(0.8, 0.55 * high) + 1.1
    facets = len({data.facet for data in maps})
    panels = facets if facets > 1 else min(max(1, int(14 / width)), len(maps))
    lines = math.ceil(len(maps) / panels)
    figure = Figure(figsize=(panels * width, lines * height), layout="constrained")
    all_axes = figure.subplots(lines, panels, squeeze=False).ravel()
    for axes in all_axes[len(maps) :]:
        axes.remove()
    for axes, data in zip(all_axes, maps, strict=False):
        _draw_cells(axes, data)
        axes.set_title("\n".join(filter(None, (data.column.label, data.facet))), fontsize=11)
        axes.set_xlabel(Column(data.across).label)
        axes.set_xticks(*_ticks(data.columns), rotation=45 * (len(data.columns) > 8))
        axes.set_ylabel(Column(data.up).label)
        axes.set_yticks(*_ticks(data.rows))
        for axis, values in ((axes.xaxis, data.columns), (axes.yaxis, data.rows)):
            if values == [""]:
                axis.set_visible(False)
    return figure


def _draw_cells(axes: Axes, data: HeatMap) -> None:
    low, high = data.range
    cells = np.ma.masked_invalid(data.cells)
    image = axes.imshow(cells, cmap="viridis", vmin=low, vmax=high, origin="lower", aspect="auto")
    if data.has_numbers:
        size = 10 if data.cells.shape[1] <= 8 else 7
        for (row, column), value in np.ndenumerate(data.cells):
            if not math.isnan(value):
                style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
                axes.text(column, row, number_text(value), color=data.text_colour(value), **style)
    else:
        bar = axes.get_figure().colorbar(image, ax=axes, pad=0.02)  # type: ignore[union-attr]
        bar.outline.set_visible(False)  # type: ignore[operator]
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _ticks(values: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Return the positions and labels of at most `MAX_NUMBERS` ticks."""
    positions = list(range(0, len(values), math.ceil(len(values) / MAX_NUMBERS)))
    return positions, [value_text(values[position]) for position in positions]
