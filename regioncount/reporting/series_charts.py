"""Interactive figures of `series_data`, drawn with plotly; see `charts`."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from regioncount.columns import Column
from regioncount.reporting import charts
from regioncount.reporting.charts import GREY, MAX_DOTS, SYMBOLS
from regioncount.reporting.figure_data import MAX_BARS, UNFITTED
from regioncount.reporting.formatting import DASH, interval
from regioncount.reporting.plots.style import series_style
from regioncount.reporting.series_data import AgainstMeasuring, Series


def series(data: Series) -> go.Figure:
    """Return a scatter plot of several series of runs; a click on the name of a series hides it.

    Hovering over a dot shows its configuration. Of more than `charts.MAX_DOTS` dots, an evenly spaced part is drawn.

    Args:
        data: The series. Their runs must also have the columns identity and seed.

    Returns:
        The figure.
    """
    figure = charts.empty({}, "", data.x.label, data.y.label)
    limit = MAX_DOTS // len(data.scatters)
    for rank, (name, scatter) in enumerate(data.scatters.items()):
        colour, symbol = series_style(rank, SYMBOLS)
        x, y = zip(*scatter.line, strict=True)
        line = {"color": colour, "dash": "dash", "width": 1.5}
        figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", legendgroup=name, showlegend=False)
        dots = scatter.dots.iloc[charts.evenly_spaced(len(scatter.dots), limit)]
        bars = {
            f"error_{axis}": {"array": dots[f"{column.key}_error"].tolist(), "color": colour, "thickness": 1, "width": 0}
            for axis, column in (("x", data.x), ("y", data.y))
            if data.dots <= MAX_BARS
        }
        marker: dict[str, Any] = {
            "color": colour,
            "symbol": [symbol + ("" if fits else "-open") for fits in dots["fits"]],
            "size": 10 if bars else 6,
            "line": {"width": [0.5 if fits else 2 for fits in dots["fits"]]},
        }
        texts = charts.describe_configurations(dots, scatter)
        figure.add_scatter(
            x=dots[data.x.key].tolist(),
            y=dots[data.y.key].tolist(),
            mode="markers",
            marker=marker,
            hovertext=[f"{charts.plain(name)}<br>{text}" for text in texts],
            hovertemplate="%{hovertext}<extra></extra>",
            legendgroup=name,
            showlegend=False,
            **bars,
        )
        legend = {"color": colour, "symbol": symbol, "size": 10}
        charts.add_legend_entry(figure, data.names[name], name, marker=legend)
    if not data.fits:
        marker = {"symbol": "circle-open", "size": 10, "line": {"width": 2}}
        charts.add_legend_entry(figure, UNFITTED, "unfitted", marker=marker)
    return figure


def correlation_line(data: AgainstMeasuring) -> go.Figure | None:
    """Return a plot of Kendall's tau, with its intervals, against an option of the measurement; None if it is undefined."""
    line = data.correlation
    if line is None:
        return None
    label = f"Kendall's tau of count and {Column('generalization_gap').name}"
    figure = charts.empty({}, "", data.lines.axis_label, label)
    if data.lines.is_logarithmic:
        figure.update_xaxes(type="log")
    ends = zip(line.x, line.tau, line.low, line.high, strict=True)
    texts = [
        f"{data.lines.axis_label} {x:g}: tau {interval(tau, low, high) if tau == tau else DASH}"
        for x, tau, low, high in ends
    ]
    figure.add_scatter(
        x=line.x.tolist(),
        y=[None if np.isnan(tau) else float(tau) for tau in line.tau],
        error_y={
            "array": np.nan_to_num(line.high - line.tau).tolist(),
            "arrayminus": np.nan_to_num(line.tau - line.low).tolist(),
            "color": GREY,
            "thickness": 1,
        },
        mode="lines+markers",
        line={"color": GREY, "width": 2},
        hovertext=[charts.plain(text) for text in texts],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )
    return figure
