"""Draw the figures of a sweep as PNG and PDF files in its directory."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from regioncount.columns import Column
from regioncount.errors import InputError, say
from regioncount.reporting import plots
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.formatting import value_text
from regioncount.reporting.frames import records
from regioncount.reporting.group_figures import GroupFigures, figure_name, is_axis, scatter_name
from regioncount.reporting.groups import Group
from regioncount.reporting.lines_data import Lines
from regioncount.reporting.sweep_figures import SweepFigures
from regioncount.runs.plans import PlannedRun

MAX_PANELS = 5  # decision regions side by side

# Returns the labels (n, n) in the plane through three training images, and the positions (k, 2) of the images in grid
# steps.
DecisionRegions = Callable[[PlannedRun], tuple[np.ndarray, np.ndarray]]


def draw(results: SweepResults, figures: GroupFigures, decision_regions: DecisionRegions | None) -> list[Path]:
    """Draw the figures of a group of runs.

    Args:
        results: The sweep's results.
        figures: The data of the group's figures.
        decision_regions: Evaluates the model of a run. If None, decision regions are not drawn.

    Returns:
        The paths of the PNG files.
    """
    group, files = figures.group, []

    def save(figure: Figure, kind: str) -> None:
        files.append(_save(results, figure, figures.file_name(kind)))

    for data in figures.scatters:
        correlation = next(iter(records(group.select(results.correlations, measure=data.x.key, target=data.y.key))), None)
        save(plots.count_against_gap(data, correlation, group.title), scatter_name(data.x, data.y))
    figures_of_lines: dict[str, list[Lines]] = {}
    against = figures.against_hyperparameters
    for lines in (*figures.lines, *(data for data in against if data.column.is_region_count)):
        figures_of_lines.setdefault(figure_name(lines), []).append(lines)
    for name, panels in figures_of_lines.items():
        targets = [data for data in against if data.axis == panels[0].axis and not data.column.is_region_count]
        save(plots.lines([*panels, *targets]), name)
    if figures.measures_through_training:
        panels = [*figures.detailed_lines, *figures.measures_through_training]  # counts first, to be compared with
        save(plots.measures_through_training(panels, figures.largest_stable), "measures_through_training")
    if figures.panels is not None:
        save(plots.measures_against_gap(figures.panels, group.title), "measures_against_gap")
    if figures.heat_maps:
        save(plots.heat_maps(figures.heat_maps), "heat_maps")
    if figures.trajectories:
        save(plots.theorem(group.rows, figures.trajectories), "theorem")
    if decision_regions is not None:
        try:
            save(_decision_regions(results, group, decision_regions), "decision_regions")
        except InputError as error:
            say(f"the decision regions of {group.title} were not drawn: {error}", sys.stderr)
    return files


def draw_sweep(results: SweepResults, figures: SweepFigures) -> list[Path]:
    """Draw the figures of a sweep as a whole.

    Args:
        results: The sweep's results.
        figures: The data of the figures.

    Returns:
        The paths of the PNG files.
    """
    files = [_save(results, plots.series(data), name) for name, data in figures.series.items()]
    files += [_save(results, plots.against_measuring(data), name) for name, data in figures.against_measuring.items()]
    return files


def _save(results: SweepResults, figure: Figure, name: str) -> Path:
    for suffix in plots.FORMATS:
        plots.save(figure, results.plan.directory / f"{name}{suffix}")
    return results.plan.directory / f"{name}.png"


def _decision_regions(results: SweepResults, group: Group, decision_regions: DecisionRegions) -> Figure:
    """Draw decision regions at up to `MAX_PANELS` learning rates of the grid, with all other options equal.

    If models have no learning rate of the optimizer, the panels show the values of the first option that varies.

    Returns:
        The figure.
    """
    rates = group.rows["learning_rate"]
    axis = results.plan.drawn_columns[0] if rates.isna().all() else "learning_rate"
    equal = [column for column in (*results.plan.hyperparameters, "seed") if column != axis]
    subsets = [rows for _, rows in group.rows.groupby(equal, dropna=False)]
    rows = max(subsets, key=lambda rows: rows[axis].nunique())
    if is_axis(rows, axis):
        rows = rows.sort_values(axis, key=pd.to_numeric, kind="stable")
    candidates = rows.drop_duplicates(axis).index
    drawn = list(candidates[np.unique(np.linspace(0, len(candidates) - 1, MAX_PANELS).round().astype(int))])
    planned = [results.plan.runs[position] for position in drawn]
    labels, positions = zip(*map(decision_regions, planned), strict=True)
    titles = [_title(row, axis, results) for row in records(rows.loc[drawn])]
    return plots.decision_regions(labels, titles, planned[0].dataset.classes, positions)


def _title(row: Mapping[str, Any], axis: str, results: SweepResults) -> str:
    """Return the title of a panel of decision regions: the value of the option that varies, and the region count."""
    lines = [] if pd.isna(row[axis]) else [f"{Column(axis).label.split('.')[-1]} {value_text(row[axis])}"]
    counts = [column.key for column in results.columns.region_counts(results.runs)]
    for key in [key for key in ("theorem_region_count_all_pairs", *counts) if not pd.isna(row.get(key))][:1]:
        exact = key.startswith("theorem")
        lines.append(f"{row[key]:.3g} regions per segment" if exact else f"{results.columns.label(key)} {row[key]:.2f}")
    return "\n".join(lines)
