"""Interactive figures for a page, drawn with plotly from `figure_data`.

A figure has no theme: assets/report.js sets the colours of text and lines to those of the page. Colours that encode a
value are stored twice, for a light and for a dark background, because neither shows all of viridis.
"""

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.colors import to_hex

from regioncount.columns import Column
from regioncount.reporting.figure_data import MAX_BARS, UNFITTED, HeatMap, Scatter
from regioncount.reporting.formatting import counted, mean_and_error, number_text, value_text
from regioncount.reporting.frames import records
from regioncount.reporting.lines_data import Line, Lines
from regioncount.reporting.scales import describe_values

# The parts of viridis that are visible on white and on black.
BACKGROUNDS = {"light": (0.0, 0.88), "dark": (0.25, 1.0)}
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "x", "triangle-left", "triangle-right")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
GREY = "#888888"  # visible on both backgrounds
MAX_DOTS = 3000  # per figure, since a browser draws each dot as a separate element


def count_against_gap(data: Scatter) -> go.Figure:
    """Return a scatter plot with a dot per configuration, and a small dot per run of configurations with several runs.

    Hovering over a dot shows its configuration or run. Of large sweeps, not everything is drawn; see
    `describe_omissions`.

    Args:
        data: The dots. Its runs must also have the columns identity and seed.

    Returns:
        The figure.
    """
    figure = empty(data.scale, data.group_by[0], data.x.label, data.y.label)
    x, y = zip(*data.line, strict=True)
    line = {"color": GREY, "dash": "dash", "width": 1.2}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", name="least squares")
    if _draws_runs(data):
        texts = [_describe_run(run, data) for run in records(data.runs)]
        _add_dots(figure, data, data.runs, texts, 6, opacity=0.6, legendgroup="runs")
        add_legend_entry(figure, "single runs", "runs", marker={"size": 5, "opacity": 0.6})
    _add_configurations(figure, data)
    if not data.dots["fits"].all():
        marker = {"symbol": "circle-open", "size": 10, "line": {"width": 2}}
        add_legend_entry(figure, UNFITTED, "unfitted", marker=marker)
    return figure


def describe_omissions(data: Scatter) -> str:
    """Describe what `count_against_gap` omits of a large sweep, for the caption; return "" if it omits nothing."""
    dots, drawn = len(data.dots), len(evenly_spaced(len(data.dots)))
    if drawn < dots:
        return f"{drawn:,} of {dots:,} configurations are drawn, evenly spaced in the table"
    return "single runs are not drawn" if dots < len(data.runs) and not _draws_runs(data) else ""


def heat_map(data: HeatMap) -> go.Figure | None:
    """Return a heat map; None if it has a single cell or no value."""
    if data.cells.size == 1 or np.isnan(data.cells).all():
        return None
    single_row = data.rows == [""]
    across, up, label = map(plain, (Column(data.across).label, Column(data.up).label, data.title))
    hover = [f"{across} %{{x}}", *([] if single_row else [f"{up} %{{y}}"]), f"{plain(data.column.label)} %{{z:.4~g}}"]
    figure = empty({}, data.across, Column(data.across).label, "" if single_row else Column(data.up).label)
    figure.add_heatmap(
        x=[plain(value_text(value)) for value in data.columns],
        y=[plain(value_text(value)) for value in data.rows],
        z=[[None if math.isnan(value) else float(value) for value in row] for row in data.cells],
        colorscale=_viridis(0, 1),
        zmin=data.range[0],
        zmax=data.range[1],
        showscale=False,
        hovertemplate="<br>".join(hover) + "<extra></extra>",
        xgap=2,
        ygap=2,
    )
    if data.has_numbers:
        figure.update_layout(annotations=list(_cell_numbers(data)))
    else:
        figure.update_traces(showscale=True, colorbar={"thickness": 12, "outlinewidth": 0}, xgap=0, ygap=0)
    title = {"yref": "paper", "y": 1, "yanchor": "bottom", "pad": {"b": 8}}  # right above the cells, below the buttons
    title |= {"text": label, "font": {"size": 14}}
    figure.update_layout(title=title, margin={"t": 62})
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, showticklabels=not single_row)
    return figure


def lines(data: Lines) -> go.Figure:
    """Return a plot with a line per configuration; hovering over a line shows its configuration."""
    figure = empty(data.scale, data.group_by[0], data.axis_label, data.column.label)
    if data.is_logarithmic:
        figure.update_xaxes(type="log")
    for line in data.lines:
        _add_line(figure, data, line)
    for value, rank in data.styles.items() if len(data.styles) > 1 else ():
        style = {"dash": DASHES[rank], "width": 2, "color": GREY}
        add_legend_entry(figure, describe_values(data.group_by[1:2], value), str(value), mode="lines", line=style)
    # Lines have no colour bar: add an empty trace of markers for it.
    figure.add_scatter(x=[None], y=[None], mode="markers", marker={"color": [0], "coloraxis": "coloraxis"}, showlegend=False)
    return figure


def _add_configurations(figure: go.Figure, data: Scatter) -> None:
    """Add the dots of configurations, at most `MAX_DOTS` of them."""
    drawn = data.dots.iloc[evenly_spaced(len(data.dots))]
    descriptions = pd.Series(describe_configurations(drawn, data), index=drawn.index)
    ranks = np.array([data.marker(dot) for dot in records(drawn)])
    for values, rank in data.styles.items():
        dots = drawn[ranks == rank]
        texts = descriptions[dots.index].tolist()
        bars = {
            f"error_{axis}": {"array": dots[f"{column.key}_error"].tolist(), "color": GREY, "thickness": 1, "width": 0}
            for axis, column in (("x", data.x), ("y", data.y))
            if len(data.dots) <= MAX_BARS
        }
        _add_dots(figure, data, dots, texts, 11 if bars else 6, legendgroup=str(values), **bars)
        name = describe_values(data.marked, values) or "configurations"
        add_legend_entry(figure, name, str(values), marker={"symbol": SYMBOLS[rank], "size": 10})


def _add_dots(figure: go.Figure, data: Scatter, rows: pd.DataFrame, texts: Sequence[str], size: int, **options: Any) -> None:
    marker = {
        "color": [data.scale[value] for value in rows[data.group_by[0]]],
        "symbol": [SYMBOLS[data.marker(row)] + ("" if row["fits"] else "-open") for row in records(rows)],
        "size": size,
        "coloraxis": "coloraxis",
        "line": {"width": [0.5 if fits else 2 for fits in rows["fits"]]},
    }
    figure.add_scatter(
        x=rows[data.x.key].tolist(),
        y=rows[data.y.key].tolist(),
        mode="markers",
        marker=marker,
        hovertext=texts,
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        **options,
    )


def _add_line(figure: go.Figure, data: Lines, line: Line) -> None:
    """Add the line of a configuration and its band of one standard error."""
    error, group = np.nan_to_num(line.error), str(line.values[1:2])
    colours = {background: _colour(data.scale[line.values[0]], background) for background in BACKGROUNDS}
    if error.any():
        figure.add_scatter(
            x=[*line.x, *line.x[::-1]],
            y=[*(line.mean + error), *(line.mean - error)[::-1]],
            mode="none",
            fill="toself",
            hoverinfo="skip",
            legendgroup=group,
            showlegend=False,
            meta={f"fill_{background}": f"{colour}22" for background, colour in colours.items()},
        )
    configuration = _settings(data.columns, dict(zip(data.columns, line.values, strict=True)))
    axis, numbers = data.axis_label, zip(line.x, line.mean, line.error, line.runs, strict=True)
    texts = [[*configuration, f"{axis} {x:g}: {mean_and_error(m, s)}", counted(n, "run")] for x, m, s, n in numbers]
    figure.add_scatter(
        x=line.x.tolist(),
        y=line.mean.tolist(),
        mode="lines+markers",
        line={"dash": DASHES[data.style(line)], "width": 2},
        marker={"size": 5},
        hovertext=[_lines(text) for text in texts],
        hovertemplate="%{hovertext}<extra></extra>",
        legendgroup=group,
        showlegend=False,
        meta={f"line_{background}": colour for background, colour in colours.items()},
    )


def empty(scale: Mapping[Any, float], column: str, x_title: str, y_title: str) -> go.Figure:
    """Return an empty figure whose colour axis shows the values of a hyperparameter."""
    ticks = list(scale)[:: math.ceil(len(scale) / 10)] if scale else []
    bar = {
        "title": {"text": plain(Column(column).label), "side": "right"},
        "tickvals": [scale[value] for value in ticks],
        "ticktext": [plain(value_text(value)) for value in ticks],
        "thickness": 12,
        "outlinewidth": 0,
    }
    colours = {"cmin": 0, "cmax": 1, "colorscale": _viridis(*BACKGROUNDS["light"])}
    layout = go.Layout(
        template=go.layout.Template(),
        margin={"l": 60, "r": 10, "t": 36, "b": 50},  # the buttons are above the plot
        hovermode="closest",
        dragmode=False,  # so that a finger on a phone scrolls the page
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        xaxis={"title": {"text": plain(x_title)}, "zeroline": False, "automargin": True},
        yaxis={"title": {"text": plain(y_title)}, "zeroline": False, "automargin": True},
        coloraxis={**colours, "showscale": len(scale) > 1, "colorbar": bar},
        meta={background: _viridis(*part) for background, part in BACKGROUNDS.items()},
    )
    return go.Figure(layout=layout)


def add_legend_entry(figure: go.Figure, name: str, group: str, mode: str = "markers", **style: Any) -> None:
    """Add a legend entry in grey, since colours encode values. Clicking it hides its group."""
    style.setdefault("marker", {}).setdefault("color", GREY)
    figure.add_scatter(x=[None], y=[None], mode=mode, name=plain(name), legendgroup=group, **style)


def _cell_numbers(data: HeatMap) -> Iterable[dict[str, Any]]:
    for (row, column), value in np.ndenumerate(data.cells):
        if not math.isnan(value):
            # Plotly's choice between black and white is hard to read on green.
            font = {"color": data.text_colour(value)}
            yield {"x": column, "y": row, "text": number_text(value), "showarrow": False, "font": font}


def _draws_runs(data: Scatter) -> bool:
    """Return whether single runs are drawn: if some configurations have several, and there are not too many."""
    return len(data.dots) < len(data.runs) and len(data.runs) + len(data.dots) <= MAX_DOTS


def evenly_spaced(number: int, limit: int = MAX_DOTS) -> np.ndarray:
    """Return the evenly spaced positions of at most `limit` of `number` dots."""
    return np.unique(np.linspace(0, number - 1, min(number, limit)).round().astype(int))


def describe_configurations(dots: pd.DataFrame, data: Scatter) -> list[str]:
    """Return the hover texts of configurations.

    Args:
        dots: Rows of `data.dots`.
        data: The dots. Its runs must also have the columns identity and seed.
    """
    first_runs = data.runs.groupby(data.group_by)[["identity", "seed"]].first()
    return [_describe_configuration(dot, first_runs, data) for dot in records(dots)]


def _describe_configuration(dot: Mapping[str, Any], first_runs: pd.DataFrame, data: Scatter) -> str:
    """Return the hover text of a configuration; `first_runs` has the identity and seed of its first run."""
    lines = _settings(data.group_by, dot)
    for column in (data.x, data.y):
        error = dot[f"{column.key}_error"] if dot["runs"] > 1 else math.nan
        lines.append(f"{column.label}: {mean_and_error(dot[column.key], error)}")
    runs = counted(dot["runs"], "run")
    if dot["runs"] == 1:
        run = first_runs.loc[tuple(dot[column] for column in data.group_by)]
        runs = f"run {run['identity'][:8]}, seed {value_text(run['seed'])}"
    return _lines([*lines, runs + ("" if dot["fits"] else ", not all fitted")])


def _describe_run(run: Mapping[str, Any], data: Scatter) -> str:
    values = [f"{column.label}: {run[column.key]:.3f}" for column in (data.x, data.y)]
    name = f"run {run['identity'][:8]}, seed {value_text(run['seed'])}"
    return _lines([*_settings(data.group_by, run), *values, name + ("" if run["fits"] else ", not fitted")])


def _settings(columns: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    return [f"{Column(column).label} {value_text(values[column])}" for column in columns if values[column] != ""]


def _lines(lines: Iterable[str]) -> str:
    return "<br>".join(map(plain, lines))


def plain(text: object) -> str:
    """Escape text for plotly, which interprets some HTML."""
    return html.escape(str(text), quote=False)


def _viridis(start: float, stop: float) -> list[list[Any]]:
    """Return a part of viridis as a colour scale of plotly: pairs of a position from 0 to 1 and a colour."""
    steps = [step / 10 for step in range(11)]
    return [[step, to_hex(colormaps["viridis"](start + step * (stop - start)))] for step in steps]


def _colour(position: float, background: str) -> str:
    start, stop = BACKGROUNDS[background]
    return to_hex(colormaps["viridis"](start + position * (stop - start)))
