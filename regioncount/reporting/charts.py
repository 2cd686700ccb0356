"""Interactive figures of a sweep: tables in, a plotly Figure out, in the colours and markers of `plots`.

A figure knows no theme: text and lines take the page's colours when it is drawn there (assets/report.js). Where a colour
means a value, the figure has it twice, for a light and for a dark ground: not all of viridis can be seen on either.
"""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib import colormaps
from matplotlib.colors import to_hex

from regioncount.analysis import FITTED_ACCURACY
from regioncount.reporting.columns import column_label, column_unit, value_text
from regioncount.reporting.plots import (
    MOST_BARS,
    MOST_LINES,
    MOST_NUMBERS,
    assign_styles,
    average_configurations,
    choose_lines,
    complete_rows,
    least_squares,
    place_on_scale,
)

# The part of viridis that can be seen on white, and on black.
GROUNDS = {"light": (0.0, 0.88), "dark": (0.25, 1.0)}
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "x", "triangle-left", "triangle-right")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
GREY = "#888888"  # can be seen on both
MOST_DOTS = 3000  # in one figure: a browser draws each as an element of its own


def count_against_gap(
    runs: pd.DataFrame,
    measure: str,
    target: str = "generalization_gap",
    group_by: Sequence[str] = ("learning_rate", "batch_size"),
) -> go.Figure:
    """`plots.count_against_gap`, and small dots for the single runs of configurations with several.

    Pointing at a dot says which it is. runs has the columns identity and seed besides. What is left out
    of many, `summarizes` says.
    """
    runs, dots, columns = average_configurations(runs, measure, target, group_by)
    first, second = columns[:2]
    places, symbols = place_on_scale(dots[first]), assign_styles(dots[second], SYMBOLS)
    figure = _figure(places, first, column_label(measure), column_label(target))
    slope, offset = least_squares(dots[measure], dots[target])
    ends = [float(dots[measure].min()), float(dots[measure].max())]
    figure.add_scatter(
        x=ends,
        y=[slope * end + offset for end in ends],
        mode="lines",
        line={"color": GREY, "dash": "dash", "width": 1.2},
        hoverinfo="skip",
        name="least squares",
    )

    def add(table: pd.DataFrame, told: Sequence[str], size: int, **options) -> None:
        symbol = [
            symbols[value] + ("" if fits else "-open") for value, fits in zip(table[second], table["fits"], strict=True)
        ]
        colour = [places[value] for value in table[first]]
        widths = [0.5 if fits else 2 for fits in table["fits"]]
        figure.add_scatter(
            x=table[measure].tolist(),
            y=table[target].tolist(),
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": size, "coloraxis": "coloraxis", "line": {"width": widths}},
            hovertext=told,
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
            **options,
        )

    # Drawn are some, chosen evenly among the configurations in order; the line is of all.
    drawn = dots.iloc[_some(len(dots))]
    if len(dots) < len(runs) and len(runs) + len(dots) <= MOST_DOTS:
        add(
            runs,
            [_tell_run(run, columns, measure, target) for run in runs.to_dict("records")],
            6,
            opacity=0.6,
            legendgroup="runs",
        )
        _add_legend_entry(figure, "single runs", "runs", marker={"size": 5, "opacity": 0.6})
    firsts = runs.groupby(list(columns))[["identity", "seed"]].first()
    alike = len(set(symbols.values())) == 1
    for value, symbol in [(None, next(iter(symbols.values())))] if alike else symbols.items():
        chosen = drawn if alike else drawn[drawn[second] == value]
        told = [_tell_configuration(dot, firsts, columns, measure, target) for dot in chosen.to_dict("records")]
        bars = {
            f"error_{axis}": {"array": chosen[f"{column}_error"].tolist(), "color": GREY, "thickness": 1, "width": 0}
            for axis, column in (("x", measure), ("y", target))
            if len(dots) <= MOST_BARS
        }
        add(chosen, told, 11 if bars else 6, legendgroup=str(value), **bars)
        name = "configurations" if alike else f"{column_label(second)} {value_text(value)}"
        _add_legend_entry(figure, name, str(value), marker={"symbol": symbol, "size": 10})
    if not runs["fits"].all():
        name = f"below {FITTED_ACCURACY:.0%} train accuracy"
        _add_legend_entry(figure, name, "unfitted", marker={"symbol": "circle-open", "size": 10, "line": {"width": 2}})
    return figure


def heat_map(
    runs: pd.DataFrame, measure: str, group_by: Sequence[str] = ("learning_rate", "batch_size")
) -> go.Figure | None:
    """The mean of a measure over the runs of each cell that the first two columns of group_by span; None for one cell."""
    runs, (across, up, *_) = complete_rows(runs, [measure], group_by)
    if runs.empty:
        return None
    columns, rows = list(place_on_scale(runs[across])), list(place_on_scale(runs[up]))
    if len(columns) * len(rows) == 1:
        return None
    cells = runs.groupby([up, across])[measure].mean().unstack().reindex(index=rows, columns=columns) * column_unit(measure)
    values = cells.to_numpy(dtype=float)
    alone = rows == [""]
    told = [f"{_plain(column_label(across))} %{{x}}", *([] if alone else [f"{_plain(column_label(up))} %{{y}}"])]
    figure = _figure({}, across, column_label(across), "" if alone else column_label(up))
    figure.add_heatmap(
        x=[_plain(value_text(value)) for value in columns],
        y=[_plain(value_text(value)) for value in rows],
        z=[[None if math.isnan(value) else float(value) for value in row] for row in values],
        colorscale=_viridis(0, 1),
        showscale=False,
        hovertemplate="<br>".join([*told, f"{_plain(column_label(measure))} %{{z:.4~g}}"]) + "<extra></extra>",
        xgap=2,
        ygap=2,
    )
    low, high, numbers = np.nanmin(values), np.nanmax(values), []
    if max(values.shape) > MOST_NUMBERS:  # too small for numbers
        figure.update_traces(showscale=True, colorbar={"thickness": 12, "outlinewidth": 0}, xgap=0, ygap=0)
    for (row, column), value in np.ndenumerate(values) if max(values.shape) <= MOST_NUMBERS else ():
        if not math.isnan(value):
            # Plotly's own choice of black or white text on a cell can hardly be read on green.
            red, green, blue, _ = colormaps["viridis"]((value - low) / (high - low) if high > low else 0.0)
            colour = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "white"
            number = f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.4g}"
            numbers.append({"x": column, "y": row, "text": number, "showarrow": False, "font": {"color": colour}})
    figure.update_layout(annotations=numbers)
    title = {"yref": "paper", "y": 1, "yanchor": "bottom", "pad": {"b": 8}}  # right above the cells, below the buttons
    title |= {"text": _plain(column_label(measure)), "font": {"size": 14}}
    figure.update_layout(title=title, margin={"t": 62})
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, showticklabels=not alone)
    return figure


def count_through_training(
    counts: pd.DataFrame, measure: str, group_by: Sequence[str] = ("learning_rate", "batch_size")
) -> go.Figure:
    """`plots.count_through_training` of one subspace's counts; pointing at a line says which configuration it is."""
    counts, columns = complete_rows(counts, ["epoch", "mean"], group_by)
    first, second = columns[:2]
    places, dashes = place_on_scale(counts[first]), assign_styles(counts[second], DASHES)
    figure = _figure(places, first, "epoch", column_label(measure))
    lines = columns if counts.groupby(columns).ngroups <= MOST_LINES else choose_lines(counts, columns)
    for values, rows in counts.groupby(lines):
        at = rows.groupby("epoch")["mean"].agg(["mean", "sem", "size"])
        spread, group = at["sem"].fillna(0), str(values[1]) if values[1:] else ""
        colours = {ground: _colour(places[values[0]], ground) for ground in GROUNDS}
        if spread.any():
            figure.add_scatter(
                x=[*at.index, *at.index[::-1]],
                y=[*(at["mean"] + spread), *(at["mean"] - spread)[::-1]],
                mode="none",
                fill="toself",
                hoverinfo="skip",
                legendgroup=group,
                showlegend=False,
                meta={f"fill_{ground}": f"{colour}22" for ground, colour in colours.items()},
            )
        configuration = _settings(lines, dict(zip(lines, values, strict=True)))
        numbers = zip(at.index, at["mean"], at["sem"], at["size"], strict=True)
        told = [[*configuration, f"epoch {e:g}: {_mean_and_error(m, s)}", _runs(n)] for e, m, s, n in numbers]
        figure.add_scatter(
            x=at.index.tolist(),
            y=at["mean"].tolist(),
            mode="lines+markers",
            line={"dash": dashes[values[1]] if values[1:] else "solid", "width": 2},
            marker={"size": 5},
            hovertext=[_lines(lines) for lines in told],
            hovertemplate="%{hovertext}<extra></extra>",
            legendgroup=group,
            showlegend=False,
            meta={f"line_{ground}": colour for ground, colour in colours.items()},
        )
    for value, dash in dashes.items():
        if len(set(dashes.values())) > 1:
            name = f"{column_label(second)} {value_text(value)}"
            _add_legend_entry(figure, name, str(value), mode="lines", line={"dash": dash, "width": 2, "color": GREY})
    # A colour bar needs a trace of its own: lines have none.
    figure.add_scatter(x=[None], y=[None], mode="markers", marker={"color": [0], "coloraxis": "coloraxis"}, showlegend=False)
    return figure


def _figure(places: Mapping, column: str, x_title: str, y_title: str) -> go.Figure:
    """An empty figure whose colour axis has the values of a column where they stand on its scale."""
    shown = list(places)[:: math.ceil(len(places) / 10)] if places else []
    bar = {
        "title": {"text": _plain(column_label(column)), "side": "right"},
        "tickvals": [places[value] for value in shown],
        "ticktext": [_plain(value_text(value)) for value in shown],
        "thickness": 12,
        "outlinewidth": 0,
    }
    layout = go.Layout(
        template=go.layout.Template(),
        margin={"l": 60, "r": 10, "t": 36, "b": 50},  # above it: the buttons
        hovermode="closest",
        dragmode=False,  # a finger on a phone scrolls the page
        legend={"orientation": "h", "y": -0.2, "yanchor": "top"},
        xaxis={"title": {"text": _plain(x_title)}, "zeroline": False, "automargin": True},
        yaxis={"title": {"text": _plain(y_title)}, "zeroline": False, "automargin": True},
        coloraxis={"cmin": 0, "cmax": 1, "colorscale": _viridis(*GROUNDS["light"]), "showscale": len(places) > 1},
        meta={ground: _viridis(*part) for ground, part in GROUNDS.items()},
    )
    layout.coloraxis.colorbar = bar
    return go.Figure(layout=layout)


def _add_legend_entry(figure: go.Figure, name: str, group: str, mode: str = "markers", **style) -> None:
    """An entry in grey, since colours mean something else; a click on it hides what is of its group."""
    style.setdefault("marker", {}).setdefault("color", GREY)
    figure.add_scatter(x=[None], y=[None], mode=mode, name=_plain(name), legendgroup=group, **style)


def summarizes(runs: pd.DataFrame, group_by: Sequence[str]) -> str:
    """What `count_against_gap` leaves out of these runs, in words for its caption; empty where that is nothing."""
    dots = runs.groupby([column for column in group_by if column in runs], dropna=False).ngroups
    if len(_some(dots)) < dots:
        return f"{len(_some(dots)):,} of {dots:,} configurations are drawn, evenly chosen"
    return "single runs are left out" if dots < len(runs) and len(runs) + dots > MOST_DOTS else ""


def _some(number: int) -> np.ndarray:
    return np.unique(np.linspace(0, number - 1, min(number, MOST_DOTS)).round().astype(int))


def _tell_configuration(dot: Mapping, firsts: pd.DataFrame, columns: Sequence[str], measure: str, target: str) -> str:
    """firsts: identity and seed of the first run of each configuration."""
    lines = _settings(columns, dot)
    for column in (measure, target):
        error = dot[f"{column}_error"] if dot["runs"] > 1 else math.nan
        lines.append(f"{column_label(column)}: {_mean_and_error(dot[column], error)}")
    which = _runs(dot["runs"])
    if dot["runs"] == 1:
        only = firsts.loc[tuple(dot[column] for column in columns)]
        which = f"run {only['identity'][:8]}, seed {value_text(only['seed'])}"
    fitted = "" if dot["fits"] else ", not all fitted"
    return _lines([*lines, which + fitted])


def _tell_run(run: Mapping, columns: Sequence[str], measure: str, target: str) -> str:
    values = [f"{column_label(column)}: {run[column]:.3f}" for column in (measure, target)]
    which = f"run {run['identity'][:8]}, seed {value_text(run['seed'])}"
    return _lines([*_settings(columns, run), *values, which + ("" if run["fits"] else ", not fitted")])


def _settings(columns: Sequence[str], values: Mapping) -> list[str]:
    return [f"{column_label(column)} {value_text(values[column])}" for column in columns if values[column] != ""]


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _mean_and_error(mean: float, error: float) -> str:
    return f"{mean:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")


def _lines(lines: Sequence[str]) -> str:
    return "<br>".join(map(_plain, lines))


def _plain(text: str) -> str:
    """Text as plotly shows it letter by letter: it reads some HTML."""
    return html.escape(str(text), quote=False)


def _viridis(start: float, stop: float) -> list[list]:
    """A part of viridis as plotly takes it: places from 0 to 1 and colours."""
    steps = [step / 10 for step in range(11)]
    return [[step, to_hex(colormaps["viridis"](start + step * (stop - start)))] for step in steps]


def _colour(place: float, ground: str) -> str:
    start, stop = GROUNDS[ground]
    return to_hex(colormaps["viridis"](start + place * (stop - start)))
