"""The common look of figures: colours, markers, axes, colour bars and legends."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from regioncount.columns import Column
from regioncount.reporting.formatting import value_text

# The brightest end of viridis is invisible on white.
ORDERED_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, 256)))
# Colours of series, most of them Okabe and Ito's, visible on white and on black. Nine, so that nine networks differ.
SERIES_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#8E8E8E", "#9467BD")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
LINE_STYLES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (8, 2, 1, 2, 1, 2)), (0, (3, 4)))


def series_style(rank: int, markers: Sequence[str]) -> tuple[str, str]:
    """Return the colour and the marker of the series of a rank: no two of the first 81 with nine markers are equal."""
    rounds, position = divmod(rank, len(SERIES_COLOURS))
    return SERIES_COLOURS[position], markers[(position + rounds) % len(markers)]


def empty_figure() -> Figure:
    """Return a figure with the text "no finished runs"."""
    figure = Figure(figsize=(4.8, 2.4))
    figure.text(0.5, 0.5, "no finished runs", ha="center", va="center", fontsize=13, color="0.4")
    return figure


def set_up_axes(axes: Axes, x_label: str, y_label: str) -> Axes:
    """Label axes and give them a light grid; return them."""
    axes.set_xlabel(x_label, fontsize=11)
    axes.set_ylabel(y_label, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def add_colour_bar(
    figure: Figure, axes: Axes | list[Axes], column: str, scale: Mapping[Any, float], fraction: float = 0.04
) -> None:
    """Add the colour scale of a hyperparameter, if it has several values."""
    if len(scale) < 2:
        return
    bar = figure.colorbar(ScalarMappable(cmap=ORDERED_COLOURS), ax=axes, fraction=fraction, pad=0.02)
    ticks = list(scale)[:: math.ceil(len(scale) / 10)]
    bar.set_ticks([scale[value] for value in ticks], labels=[value_text(value) for value in ticks])
    bar.minorticks_off()
    bar.outline.set_visible(False)  # type: ignore[operator]  # matplotlib's stubs call it a list
    bar.set_label(Column(column).label, fontsize=11)


def add_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Add a legend below the figure, in as many columns as fit; increase the figure's height by that of the legend."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    columns = int(width / (0.6 + 0.085 * max(len(str(handle.get_label())) for handle in handles)))
    columns = max(1, min(columns, len(handles)))
    figure.set_size_inches(width, height + 0.23 * math.ceil(len(handles) / columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=10)
