"""Measures against the generalization gap."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from regioncount.columns import Column
from regioncount.reporting.figure_data import MAX_BARS, UNFITTED, Panels, Scatter
from regioncount.reporting.frames import records
from regioncount.reporting.plots.style import (
    MARKERS,
    ORDERED_COLOURS,
    add_colour_bar,
    add_legend,
    empty_figure,
    series_style,
    set_up_axes,
)
from regioncount.reporting.scales import describe_values
from regioncount.reporting.series_data import Series


def count_against_gap(
    data: Scatter | None, correlation: Mapping[str, Any] | None = None, title: str | None = None
) -> Figure:
    """Return a scatter plot with a dot per configuration and error bars of one standard error.

    Dots are hollow if some runs of the configuration do not fit their training set.

    Args:
        data: The dots.
        correlation: A row of `analysis.correlations`, printed above the dots.
        title: The figure's title.

    Returns:
        The figure.
    """
    if data is None:
        return empty_figure()
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    axes = set_up_axes(figure.subplots(), data.x.label, data.y.label)
    axes.plot(*zip(*data.line, strict=True), color="0.6", linestyle="--", linewidth=1.2, zorder=1)
    if len(data.dots) > MAX_BARS:
        _draw_small_dots(axes, data)
    else:
        _draw_dots(axes, data)
    add_colour_bar(figure, axes, data.group_by[0], data.scale)
    style: dict[str, Any] = {"linestyle": "none", "markersize": 7.5, "color": "0.35"}
    handles = [
        Line2D([], [], marker=MARKERS[rank], label=describe_values(data.marked, values), **style)
        for values, rank in data.styles.items()
        if values
    ]
    if not data.dots["fits"].all():
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", markeredgewidth=1.6, label=UNFITTED, **style))
    add_legend(figure, handles)
    if title:
        figure.suptitle(title, fontsize=13)
    notes = [] if correlation is None else _describe(correlation)
    if data.unmarked:
        notes.append(f"not marked: {', '.join(Column(column).label for column in data.unmarked)}")
    axes.set_title("\n".join(notes), fontsize=10, color="0.25")
    return figure


def series(data: Series) -> Figure:
    """Return a scatter plot of several series of runs, with a colour, a marker and a least-squares line for each."""
    figure = Figure(figsize=(6.8, 5.0), layout="constrained")
    axes = set_up_axes(figure.subplots(), data.x.label, data.y.label)
    shape: dict[str, Any] = {"markersize": 7, "linestyle": "--", "linewidth": 1.4}
    handles = []
    for rank, (name, scatter) in enumerate(data.scatters.items()):
        colour, marker = series_style(rank, MARKERS)
        axes.plot(*zip(*scatter.line, strict=True), color=colour, linestyle="--", linewidth=1.4, zorder=1)
        for dot in records(scatter.dots):
            _draw_dot(axes, scatter, dot, to_rgba(colour), marker, bars=data.dots <= MAX_BARS)
        handles.append(Line2D([], [], color=colour, marker=marker, label=data.names[name], **shape))
    if not data.fits:
        hollow: dict[str, Any] = {"linestyle": "none", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.6}
        handles.append(Line2D([], [], marker="o", color="0.35", label=UNFITTED, **hollow))
    add_legend(figure, handles)
    axes.set_title(data.title, fontsize=11)
    return figure


def measures_against_gap(data: Panels | None, title: str | None = None) -> Figure:
    """Return a figure with a small panel per measure, with a dot per configuration and Kendall's tau-b.

    Args:
        data: The panels.
        title: The figure's title.

    Returns:
        The figure.
    """
    if data is None:
        return empty_figure()
    width = min(6, len(data.panels))
    height = math.ceil(len(data.panels) / width)
    figure = Figure(figsize=(2.1 * width + 1, max(3.4, 1.9 * height + 0.6)), layout="constrained")
    all_axes = figure.subplots(height, width, squeeze=False, sharey=True)
    for axes in all_axes.flat[len(data.panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(all_axes.flat, data.panels, strict=False):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.get_offset_text().set_fontsize(7)
        axes.scatter(panel.x, panel.y, s=16, c=[ORDERED_COLOURS(position) for position in panel.positions], linewidths=0)
        tau = "constant" if math.isnan(panel.kendall) else f"tau {panel.kendall:.2f}"
        axes.set_title(f"{panel.column.label}\n{tau}", fontsize=7.5)
    figure.supylabel(data.target.label, fontsize=10)
    add_colour_bar(figure, list(all_axes.flat), data.colour_by, data.scale, fraction=0.015)
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def _draw_dots(axes: Axes, data: Scatter) -> None:
    for dot in records(data.dots):
        _draw_dot(axes, data, dot, ORDERED_COLOURS(data.scale[dot[data.group_by[0]]]), MARKERS[data.marker(dot)])


def _draw_dot(
    axes: Axes,
    data: Scatter,
    dot: Mapping[str, Any],
    colour: tuple[float, float, float, float],
    marker: str,
    bars: bool = True,
) -> None:
    """Draw the dot of a configuration, with error bars or, without them, small."""
    axes.errorbar(
        dot[data.x.key],
        dot[data.y.key],
        xerr=dot[f"{data.x.key}_error"] if bars else None,
        yerr=dot[f"{data.y.key}_error"] if bars else None,
        marker=marker,
        markersize=7.5 if bars else 4,
        markerfacecolor=colour if dot["fits"] else "white",
        markeredgecolor=colour if not dot["fits"] else "white",
        markeredgewidth=0.6 if dot["fits"] else 1.6,
        ecolor=(*colour[:3], 0.5),
        elinewidth=1.2,
    )


def _draw_small_dots(axes: Axes, data: Scatter) -> None:
    """Draw small dots without error bars, for many configurations."""
    ranks = pd.Series([data.marker(dot) for dot in records(data.dots)], index=data.dots.index)
    groups: Any = data.dots.groupby([ranks, "fits"])
    for (rank, fits), dots in groups:
        colours: Any = ORDERED_COLOURS([data.scale[value] for value in dots[data.group_by[0]]])
        faces = colours if fits else "none"
        x, y = dots[data.x.key], dots[data.y.key]
        axes.scatter(x, y, s=12, marker=MARKERS[rank], facecolors=faces, edgecolors=colours, linewidths=0.6)


def _describe(correlation: Mapping[str, Any]) -> list[str]:
    """Return Kendall's tau as text and, if some runs are not fitted, also that of the fitted runs."""
    if correlation.get("fitted") == correlation.get("runs"):
        return [_kendall_text(correlation, "")]
    fitted = f"fitted runs alone: {_kendall_text(correlation, '_fitted')}"
    return [f"all runs: {_kendall_text(correlation, '')}", fitted]


def _kendall_text(correlation: Mapping[str, Any], suffix: str) -> str:
    tau, low, high = (correlation.get(f"kendall{end}{suffix}", math.nan) for end in ("", "_low", "_high"))
    if math.isnan(tau):
        return correlation.get(f"note{suffix}") or "Kendall's tau is undefined"
    number = correlation.get(f"configurations{suffix}")
    configurations = "" if number is None else f", {number:g} configurations"
    return f"Kendall's tau = {tau:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]") + configurations
