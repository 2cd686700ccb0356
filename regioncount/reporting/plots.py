"""Pictures of runs: tables or arrays in, a matplotlib Figure out, without a display and in any thread.

Hyperparameters are told apart by the first column of group_by (colour) and the second (marker, line style or axis). Values
that are missing or infinite, as those of diverged runs, are left out. Accuracies are fractions in tables, percent in print.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from regioncount.analysis import FITTED_ACCURACY, with_targets
from regioncount.errors import InputError
from regioncount.reporting.columns import column_label, column_unit, value_text

# Okabe and Ito's colours, which every kind of colour vision tells apart, then three more.
CLASS_COLOURS = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#BBBBBB",
    "#333333",
    "#882255",
)
# The brightest end of viridis cannot be seen on white.
ORDERED_COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, 256)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
LINE_STYLES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (8, 2, 1, 2, 1, 2)), (0, (3, 4)))
MOST_CLASSES_NAMED = 24
# Beyond these, figures of large sweeps would say less the more they showed.
MOST_BARS = 300  # dots with bars
MOST_STYLES = 20  # values that are told apart by a marker or a line style
MOST_LINES = 200
MOST_NUMBERS = 24  # rows or columns of a heat map with its numbers in it


def count_against_gap(
    runs: pd.DataFrame,
    measure: str,
    target: str = "generalization_gap",
    group_by: Sequence[str] = ("learning_rate", "batch_size"),
    correlation: Mapping | None = None,
    title: str | None = None,
) -> Figure:
    """A dot a configuration, the runs that share group_by: the mean of measure and target, bars of one standard error.

    runs has a row a run: measure, train_accuracy, test_accuracy (fractions), group_by, and target where that cannot be
    derived from the accuracies. A hollow dot has runs that do not fit their training set. correlation is a row of
    `analysis.correlations`, printed above. Raises InputError where a column is missing or accuracies are in percent.
    """
    if runs.empty:
        return _nothing()
    runs, dots, group_by = average_configurations(runs, measure, target, group_by)
    if runs.empty:
        return _nothing()

    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    axes = _clean(figure.subplots(), column_label(measure), column_label(target))
    positions, markers = place_on_scale(runs[group_by[0]]), assign_styles(runs[group_by[1]], MARKERS)
    slope, offset = least_squares(dots[measure], dots[target])
    ends = np.array([dots[measure].min(), dots[measure].max()])
    axes.plot(ends, slope * ends + offset, color="0.6", linestyle="--", linewidth=1.2, zorder=1)
    if len(dots) > MOST_BARS:
        _scatter(axes, dots, measure, target, group_by, positions, markers)
    for _, dot in dots.iterrows() if len(dots) <= MOST_BARS else ():
        colour = ORDERED_COLOURS(positions[dot[group_by[0]]])
        axes.errorbar(
            dot[measure],
            dot[target],
            xerr=dot[f"{measure}_error"],
            yerr=dot[f"{target}_error"],
            marker=markers[dot[group_by[1]]],
            markersize=7.5,
            markerfacecolor=colour if dot["fits"] else "white",
            markeredgecolor=colour if not dot["fits"] else "white",
            markeredgewidth=0.6 if dot["fits"] else 1.6,
            ecolor=(*colour[:3], 0.5),
            elinewidth=1.2,
        )
    _colour_bar(figure, axes, group_by[0], positions)
    style = {"linestyle": "none", "markersize": 7.5, "color": "0.35"}
    handles = [
        Line2D([], [], marker=marker, label=f"{column_label(group_by[1])} {value_text(value)}", **style)
        for value, marker in markers.items()
        if len(set(markers.values())) > 1
    ]
    if not dots["fits"].all():
        unfitted = f"below {FITTED_ACCURACY:.0%} train accuracy"
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", markeredgewidth=1.6, label=unfitted, **style))
    _legend(figure, handles)
    if title:
        figure.suptitle(title, fontsize=13)
    if correlation is not None:
        axes.set_title("\n".join(_describe(correlation)), fontsize=10, color="0.25")
    return figure


def heat_maps(
    runs: pd.DataFrame, measures: Sequence[str], group_by: Sequence[str] = ("learning_rate", "batch_size")
) -> Figure:
    """A panel a measure: its mean over the runs of each cell of the grid that the first two columns of group_by span.

    runs has a row a run, the columns measures and group_by. Raises InputError where a measure is missing.
    """
    if runs.empty:
        return _nothing()
    _require(runs, measures)
    runs, (across, up, *_) = complete_rows(runs, [], group_by)
    runs[list(measures)] = runs[list(measures)].apply(pd.to_numeric).replace([math.inf, -math.inf], math.nan)
    runs = runs[runs[list(measures)].notna().any(axis=1)]
    if runs.empty or not len(measures):
        return _nothing()
    columns, rows = list(place_on_scale(runs[across])), list(place_on_scale(runs[up]))
    wide, high = (min(len(values), MOST_NUMBERS) for values in (columns, rows))
    width, height = max(3.0, 0.75 * wide + 1.1), max(0.8, 0.55 * high) + 1.1
    panels = min(max(1, int(14 / width)), len(measures))
    lines = math.ceil(len(measures) / panels)
    figure = Figure(figsize=(panels * width, lines * height), layout="constrained")
    all_axes = figure.subplots(lines, panels, squeeze=False).ravel()
    for axes in all_axes[len(measures) :]:
        axes.remove()
    for axes, measure in zip(all_axes, measures, strict=False):
        cells = runs.groupby([up, across])[measure].mean().unstack().reindex(index=rows, columns=columns)
        _heat_map(axes, cells.to_numpy(dtype=float) * column_unit(measure))
        axes.set_title(column_label(measure), fontsize=11)
        axes.set_xlabel(column_label(across))
        at, values = _ticks(columns)
        axes.set_xticks(at, values, rotation=45 * (len(columns) > 8))
        axes.set_ylabel(column_label(up))
        axes.set_yticks(*_ticks(rows))
        for axis, values in ((axes.xaxis, columns), (axes.yaxis, rows)):
            if len(values) == 1 and values[0] == "":
                axis.set_visible(False)
    return figure


def measures_against_gap(
    runs: pd.DataFrame,
    ranking: pd.DataFrame,
    group_by: Sequence[str] = ("learning_rate", "batch_size"),
    title: str | None = None,
) -> Figure:
    """A small panel a measure, in the order of a table of `analysis.ranking`, a dot a configuration.

    runs and group_by are as in `count_against_gap`. Each panel has its Kendall's tau-b; measures that are undefined
    everywhere are left out. Raises InputError where a column is missing or accuracies are in percent.
    """
    if runs.empty:
        return _nothing()
    runs = with_targets(runs)
    target = ranking["target"].iloc[0]
    _require(runs, [*ranking["measure"], target])
    runs, columns = complete_rows(runs, [], group_by)
    panels = []
    for measure, tau in zip(ranking["measure"], ranking["kendall"], strict=True):
        defined, _ = complete_rows(runs, [measure, target], [])
        if len(defined):
            panels.append((measure, tau, defined.groupby(columns)[[measure, target]].mean().reset_index()))
    if not panels:
        return _nothing()
    width = min(6, len(panels))
    height = math.ceil(len(panels) / width)
    figure = Figure(figsize=(2.1 * width + 1, max(3.4, 1.9 * height + 0.6)), layout="constrained")
    all_axes = figure.subplots(height, width, squeeze=False, sharey=True)
    positions = place_on_scale(runs[columns[0]])
    for axes in all_axes.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (measure, tau, dots) in zip(all_axes.flat, panels, strict=False):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=4)
        axes.xaxis.get_offset_text().set_fontsize(7)
        colours = [ORDERED_COLOURS(positions[value]) for value in dots[columns[0]]]
        axes.scatter(dots[measure] * column_unit(measure), dots[target] * column_unit(target), s=16, c=colours, linewidths=0)
        axes.set_title(
            f"{column_label(measure)}\ntau {tau:.2f}" if tau == tau else f"{column_label(measure)}\nconstant", fontsize=7.5
        )
    figure.supylabel(column_label(target), fontsize=10)
    _colour_bar(figure, list(all_axes.flat), columns[0], positions, fraction=0.015)
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def count_through_training(counts: pd.DataFrame, group_by: Sequence[str] = ("learning_rate", "batch_size")) -> Figure:
    """Mean region count at each epoch: a panel a subspace, a line a configuration, its band one standard error over runs.

    counts has a row a run, subspace and epoch: subspace, epoch, mean, and the columns of group_by, of which the first two
    are told apart. Raises InputError where a column is missing.
    """
    if counts.empty:
        return _nothing()
    _require(counts, ["subspace", "epoch", "mean"])
    counts, (first, second, *_) = complete_rows(counts, ["epoch", "mean"], group_by)
    if counts.empty:
        return _nothing()
    positions, styles = place_on_scale(counts[first]), assign_styles(counts[second], LINE_STYLES)
    subspaces = list(counts["subspace"].unique())
    figure = Figure(figsize=(1.4 + 5.2 * len(subspaces), 4.4), layout="constrained")
    panels = figure.subplots(1, len(subspaces), squeeze=False)[0]
    for axes, subspace in zip(panels, subspaces, strict=True):
        _clean(axes, "epoch", column_label(f"region_count_{subspace}"))
        axes.xaxis.get_major_locator().set_params(integer=True)
        shown = counts[counts["subspace"] == subspace]
        for (value, *other), line in shown.groupby(choose_lines(shown, [first, second])):
            at = line.groupby("epoch")["mean"].agg(["mean", "sem"])
            colour = ORDERED_COLOURS(positions[value])
            axes.plot(
                at.index,
                at["mean"],
                color=colour,
                linestyle=styles[other[0]] if other else "-",
                linewidth=1.7,
                marker=".",
                markersize=5,
            )
            band = (at["mean"] - at["sem"], at["mean"] + at["sem"])
            axes.fill_between(at.index, *band, color=colour, alpha=0.12, linewidth=0)
    _colour_bar(figure, list(panels), first, positions)
    handles = [
        Line2D([], [], color="0.35", linewidth=1.7, linestyle=style, label=f"{column_label(second)} {value_text(value)}")
        for value, style in styles.items()
        if len(set(styles.values())) > 1
    ]
    _legend(figure, handles)
    return figure


def decision_regions(
    grids: Sequence[np.ndarray],
    titles: Sequence[str],
    class_names: Sequence[str],
    anchors: Sequence[np.ndarray | None] | None = None,
) -> Figure:
    """Panels side by side of the class predicted at each point of a plane; the same class has the same colour in all.

    grids are integer labels (n, n), row 0 at the bottom, blank where -1. anchors holds for each panel points (k, 2) to mark,
    as (x, y) in grid steps: the images that span the plane.
    """
    if not len(grids):
        return _nothing()
    present, areas = np.unique(np.concatenate([np.ravel(grid) for grid in grids]), return_counts=True)
    present, areas = present[present >= 0], areas[present >= 0]
    colours = _class_colours(present)
    palette = ListedColormap([colours[label] for label in present] or ["white"])
    named = np.sort(present[np.argsort(-areas, kind="stable")][:MOST_CLASSES_NAMED])
    figure = Figure(figsize=(max(3.6 * len(grids), 5.2), 4.0), layout="constrained")
    for position, axes in enumerate(figure.subplots(1, len(grids), squeeze=False)[0]):
        grid = np.asarray(grids[position])
        ranks = np.ma.masked_where(grid < 0, np.searchsorted(present, grid))
        axes.imshow(ranks, cmap=palette, vmin=-0.5, vmax=len(present) - 0.5, origin="lower", interpolation="nearest")
        axes.set_title(titles[position], fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color("0.7")
        if anchors is not None and anchors[position] is not None:
            x, y = np.asarray(anchors[position], dtype=float).T
            axes.plot(
                x, y, linestyle="none", marker="o", markersize=9, color="white", markeredgecolor="black", clip_on=False
            )
    handles = [Patch(facecolor=colours[label], edgecolor="0.4", label=_class_name(label, class_names)) for label in named]
    if len(present) > len(named):
        handles.append(Patch(facecolor="none", label=f"and {len(present) - len(named)} more"))
    _legend(figure, handles)
    return figure


def theorem(runs: pd.DataFrame, trajectories: Sequence[tuple[float, np.ndarray, np.ndarray]]) -> Figure:
    """The parts of the theorem over learning rates, a line a width, bars of one standard error over seeds; and the largest
    Hessian eigenvalue through training.

    runs has the columns of the measure `theorem`; trajectories: learning rate, steps and eigenvalues of single runs.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    rates = pd.Series(sorted(runs["theorem_learning_rate"].unique()))
    positions = place_on_scale(rates)
    axes = _clean(panels[0], "step of gradient descent", "largest Hessian eigenvalue")
    for rate, steps, eigenvalues in trajectories:
        colour = ORDERED_COLOURS(positions[rate])
        axes.plot(steps + 1, eigenvalues, color=colour, linewidth=1.7)
        axes.axhline(2 / rate, color=colour, linewidth=0.8, linestyle=(0, (2, 2)))
    low, high = (extreme(e[e > 0]) for extreme, e in ((np.min, trajectories[-1][2]), (np.max, trajectories[-1][2])))
    axes.set(xscale="log", yscale="log", ylim=(low / 2, max(high, *(e.max() for _, _, e in trajectories)) * 3))
    axes.set_title("through training; dashed: 2 / learning rate", fontsize=10)
    shown = {
        "Hessian eigenvalue at the end": ["hessian_eigenvalue"],
        "neurons active at an image": ["active_neurons"],
        "neurons that change on a segment": ["activation_changes"],
        "regions on a segment": ["region_count_all_pairs"],
        "bound, and changes (dashed)": ["bound", "activation_changes"],
    }
    handles = []
    for axes, (label, columns) in zip(panels[1:], shown.items(), strict=True):
        _clean(axes, "learning rate", label)
        for (width, rows), marker in zip(runs.groupby("theorem_width"), MARKERS, strict=False):
            for column, style in zip(columns, LINE_STYLES, strict=False):
                at = rows.groupby("theorem_learning_rate")[f"theorem_{column}"].agg(["mean", "sem"])
                line = axes.errorbar(
                    at.index, at["mean"], at["sem"], marker=marker, color="0.25", linestyle=style, linewidth=1.2
                )
            if axes is panels[1]:
                handles.append(line)
                line.set_label(f"width {value_text(width)}")
        axes.set(xscale="log", yscale="linear" if columns[0].startswith("region") else "log")
    panels[1].plot(rates, 2 / rates, color="0.6", linestyle=LINE_STYLES[2], linewidth=1)
    panels[1].text(rates.iloc[0], 2 / rates.iloc[0], " 2 / learning rate", color="0.4", fontsize=9, va="top")
    _colour_bar(figure, [panels[0]], "learning_rate", positions)
    _legend(figure, handles)
    return figure


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure as a PNG file, whole or not at all. Identical data gives identical bytes.

    Raises InputError where the name does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: figures are written as PNG, give it a name that ends in .png")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(picture.getvalue())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def average_configurations(
    runs: pd.DataFrame, measure: str, target: str, group_by: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Runs and configurations as they are drawn, and the columns that make a configuration, at least two.

    The first table has the runs that are complete, measure and target in print's units and `fits`; the second a row a
    configuration: the means of measure and target over its runs, one standard error of each (..._error), whether all fit,
    and how many `runs` they are. Raises InputError where a column is missing or accuracies are in percent.
    """
    runs = with_targets(runs)
    _require(runs, [measure, target])
    runs, group_by = complete_rows(runs, [measure, target, "train_accuracy"], group_by)
    runs["fits"] = runs["train_accuracy"] >= FITTED_ACCURACY
    runs[target] *= column_unit(target)
    runs[measure] *= column_unit(measure)
    groups = runs.groupby(group_by)
    dots = groups[[measure, target]].mean().join(groups[[measure, target]].sem().fillna(0).add_suffix("_error"))
    return runs, dots.join(groups["fits"].all()).join(groups.size().rename("runs")).reset_index(), group_by


def _nothing() -> Figure:
    figure = Figure(figsize=(4.8, 2.4))
    figure.text(0.5, 0.5, "no finished runs", ha="center", va="center", fontsize=13, color="0.4")
    return figure


def _require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"the table to draw has no column {', '.join(missing)}; it has {', '.join(map(str, table))}")


def complete_rows(table: pd.DataFrame, numbers: Sequence[str], group_by: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The rows with every number there, and at least two columns to group them by: of one value "" where there are fewer."""
    table = table.copy()
    for column in numbers:
        table[column] = pd.to_numeric(table[column]).astype(float)
    table = table[np.isfinite(table[list(numbers)]).all(axis=1)]
    group_by = [column for column in group_by if column in table]
    for column in group_by:
        table[column] = _sortable(table[column])
    while len(group_by) < 2:
        group_by.append(f"only {len(group_by)}")
        table[group_by[-1]] = ""
    return table, group_by


def _sortable(values: pd.Series) -> pd.Series:
    """Numbers where every value is one, else text."""
    try:
        if values.notna().all():
            return pd.to_numeric(values)
    except (TypeError, ValueError):
        pass
    return values.map(lambda value: "none" if pd.isna(value) else str(value)).astype(object)


def place_on_scale(values: pd.Series) -> dict:
    """Where each value stands on a scale from 0 to 1, in order: by its logarithm, or evenly where there is none."""
    ordered = sorted(values.unique())
    places = np.arange(len(ordered), dtype=float)
    if pd.api.types.is_numeric_dtype(values) and ordered[0] >= 0 and ordered[-1] > 0:
        logs = np.log10([value for value in ordered if value > 0])
        # Zero has no logarithm: it stands one step below the smallest value that has.
        zero = logs[0] - (np.diff(logs).min() if len(logs) > 1 else 1)
        places = np.concatenate([np.full(len(ordered) - len(logs), zero), logs])
    span = places[-1] - places[0]
    return dict(zip(ordered, (places - places[0]) / span if span else np.full(len(ordered), 0.4), strict=True))


def assign_styles(values: pd.Series, styles: Sequence) -> dict:
    """A style for each value, in order, again from the first where there are more values than styles. The same for all
    where they are too many to be told apart.
    """
    ordered = sorted(values.unique())
    return {value: styles[rank % len(styles) if len(ordered) <= MOST_STYLES else 0] for rank, value in enumerate(ordered)}


def choose_lines(counts: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The columns by which counts through training are averaged: the first two, or of too many lines the first."""
    columns = list(columns[:2])
    return columns if counts.groupby(columns).ngroups <= MOST_LINES else columns[:1]


def _clean(axes: Axes, x_label: str, y_label: str) -> Axes:
    axes.set_xlabel(x_label, fontsize=11)
    axes.set_ylabel(y_label, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _colour_bar(figure: Figure, axes, column: str, positions: dict, fraction: float = 0.04) -> None:
    if len(positions) < 2:
        return
    bar = figure.colorbar(ScalarMappable(cmap=ORDERED_COLOURS), ax=axes, fraction=fraction, pad=0.02)
    shown = list(positions)[:: math.ceil(len(positions) / 10)]
    bar.set_ticks([positions[value] for value in shown], labels=[value_text(value) for value in shown])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label(column_label(column), fontsize=11)


def _legend(figure: Figure, handles: list) -> None:
    """A legend below, in as many columns as fit; the figure grows by its height."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    columns = int(width / (0.6 + 0.085 * max(len(handle.get_label()) for handle in handles)))
    columns = max(1, min(columns, len(handles)))
    figure.set_size_inches(width, height + 0.23 * math.ceil(len(handles) / columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=10)


def least_squares(x: pd.Series, y: pd.Series) -> tuple[float, float]:
    """Slope and offset of the line that fits best; not numbers where x is constant."""
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else math.nan
    return slope, y.mean() - slope * x.mean()


def _describe(correlation: Mapping) -> list[str]:
    """Pearson's r in words, and again among the fitted runs where these are not all."""
    lines = []
    for name, suffix in (("all runs", ""), ("fitted runs alone", "_fitted")):
        r, low, high = (correlation.get(f"pearson{end}{suffix}", math.nan) for end in ("", "_low", "_high"))
        number = correlation.get(f"configurations{suffix}")
        value = f"Pearson r = {r:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")
        value = value if not math.isnan(r) else correlation.get(f"note{suffix}") or "Pearson r is undefined"
        counted = "" if number is None or math.isnan(r) else f", {number:g} configurations"
        lines.append(f"{name}: {value}{counted}")
    if correlation.get("fitted") == correlation.get("runs"):
        return [lines[0].removeprefix("all runs: ")]
    return lines


def _ticks(values: Sequence) -> tuple[list[int], list[str]]:
    """Where the rows or columns of a heat map are named, and what: all, or some of many."""
    at = list(range(0, len(values), math.ceil(len(values) / MOST_NUMBERS)))
    return at, [value_text(values[place]) for place in at]


def _scatter(axes: Axes, dots: pd.DataFrame, measure: str, target: str, group_by: Sequence[str], positions, markers) -> None:
    """The dots of `count_against_gap` where they are many: small, and without bars."""
    for (marker, fits), chosen in dots.groupby([dots[group_by[1]].map(markers), "fits"]):
        colours = ORDERED_COLOURS([positions[value] for value in chosen[group_by[0]]])
        faces = colours if fits else "none"
        axes.scatter(
            chosen[measure], chosen[target], s=12, marker=marker, facecolors=faces, edgecolors=colours, linewidths=0.6
        )


def _heat_map(axes: Axes, cells: np.ndarray) -> None:
    image = axes.imshow(np.ma.masked_invalid(cells), cmap="viridis", origin="lower", aspect="auto")
    size = 10 if cells.shape[1] <= 8 else 7
    if max(cells.shape) > MOST_NUMBERS:  # too small to be read
        bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
        bar.outline.set_visible(False)
    for (row, column), value in np.ndenumerate(cells) if max(cells.shape) <= MOST_NUMBERS else ():
        if not math.isnan(value):
            luminance = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114))
            number = f"{value:.2f}" if 0.1 <= abs(value) < 100 else f"{value:.4g}"
            axes.text(
                column, row, number, ha="center", va="center", fontsize=size, color="black" if luminance > 0.5 else "white"
            )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _class_colours(present: np.ndarray) -> dict[int, tuple[float, float, float]]:
    """A colour for each class: its own where classes are few, else in order of presence, in lighter and darker rounds."""
    few = len(present) == 0 or present.max() < len(CLASS_COLOURS)
    colours = {}
    for rank, label in enumerate(present):
        turn, place = divmod(int(label) if few else rank, len(CLASS_COLOURS))
        colour = np.array(to_rgb(CLASS_COLOURS[place]))
        colours[label] = tuple((colour, 0.5 + 0.5 * colour, 0.6 * colour)[turn % 3])
    return colours


def _class_name(label: int, class_names: Sequence[str]) -> str:
    name = str(class_names[label]) if label < len(class_names) else f"class {label}"
    return name if len(name) <= 18 else f"{name[:17].rstrip()}…"
