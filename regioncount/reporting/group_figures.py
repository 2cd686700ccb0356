"""The data of all figures of a sweep, shared by the PNG files, the page and the tracker."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from regioncount.columns import Column
from regioncount.errors import InputError
from regioncount.reporting import figure_data
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.figure_data import HeatMap, Panels, Scatter
from regioncount.reporting.frames import keys
from regioncount.reporting.groups import Group
from regioncount.reporting.lines_data import Lines, lines_along
from regioncount.runs.identity import measurement_key
from regioncount.runs.measurements import measurement_settings

# Measured at each epoch by `accuracy`, in the order of figures; the others follow from these.
PERFORMANCE = ("train_accuracy", "test_accuracy", "generalization_gap", "train_loss", "test_loss")

# Drawn against hyperparameters beside the region counts.
TARGETS = ("generalization_gap", "test_error")

# The targets whose words in file names are not their keys.
TARGET_WORDS = {"generalization_gap": "gap"}


@dataclass(frozen=True, eq=False)
class GroupFigures:
    """The data of the figures of one group of runs."""

    group: Group
    scatters: list[Scatter]
    """Region counts against each of `scatter_targets`, one per subspace."""
    heat_maps: list[HeatMap]
    against_hyperparameters: list[Lines]
    """Region counts, generalization gap and test error against each of the first two hyperparameters, with a line per value
    of the other, one per measure and panel."""
    lines: list[Lines]
    """Region counts through training, one per subspace and panel; two hyperparameters distinguish lines."""
    detailed_lines: list[Lines]
    """Like `lines`, but all hyperparameters distinguish lines."""
    measures_through_training: list[Lines]
    """Accuracies, gap and other measures through training; all hyperparameters distinguish lines."""
    largest_stable: dict[float, float]
    """By learning rate, the largest Hessian eigenvalue at which gradient descent is stable, 2 (1 + momentum) / learning rate
    (Cohen et al. 2021); empty for other optimizers, or if the momentum varies."""
    panels: Panels | None
    """All measures against the gap, if they were ranked."""
    trajectories: list[tuple[float, np.ndarray, np.ndarray]]
    """Learning rate, steps (n,) and Hessian eigenvalues (n,) of single runs, from the measure `theorem`."""

    def file_name(self, kind: str) -> str:
        """Return the name of a figure's file, without the extension."""
        return f"{kind}{self.group.file_suffix}"


def figure_name(data: Lines) -> str:
    """Return the kind of a figure of lines of region counts, for `GroupFigures.file_name`."""
    if data.axis == "epoch":
        return f"count_through_training_{data.column.subspace}"
    return f"count_against_{data.axis.replace('/', '-')}_{data.column.subspace}"


def scatter_name(x: Column, y: Column) -> str:
    """Return the kind of a figure of region counts against a target, for `GroupFigures.file_name`."""
    return f"count_against_{TARGET_WORDS.get(y.key, y.key)}_{x.subspace}"


def scatter_targets(results: SweepResults) -> list[Column]:
    """Return what region counts are drawn against: the gap, and the test error if it is one of the sweep's targets."""
    requested = ["test_error"] if "test_error" in results.plan.options.targets else []
    return [results.columns[key] for key in ("generalization_gap", *requested)]


def group_figures(results: SweepResults, group: Group) -> GroupFigures:
    """Compute the data of the figures of one group of runs."""
    rows, columns = group.rows, results.plan.drawn_columns
    region_counts = [column for column in results.columns.region_counts(rows) if rows[column.key].notna().any()]
    scatters = [
        figure_data.scatter(rows, column, target, group_by=columns)
        for column in region_counts
        for target in scatter_targets(results)
        if "train_accuracy" in rows
    ]
    against: list[Lines] = []
    targets = [results.columns[key] for key in TARGETS if key in rows]
    for axis in [name for name in columns[:2] if is_axis(rows, name)] if region_counts else ():
        others = [name for name in columns if name != axis]
        for column in (*region_counts, *targets):
            against += lines_along(rows, column, axis, others)
    snapshots = group.select_snapshots(results.snapshots, results.plan)
    lines, detailed_lines, other_lines = [], [], []
    for column in map(results.columns.__getitem__, keys(snapshots)):
        if column.is_region_count:
            lines += lines_along(snapshots, column, group_by=columns)
            detailed_lines += lines_along(snapshots, column, group_by=columns, facets=False)
        elif column.key in (*PERFORMANCE, *results.columns.measures):
            other_lines += lines_along(snapshots, column, group_by=columns, facets=False)
    ranking = group.select(results.ranking, selection="all")
    return GroupFigures(
        group,
        [scatter for scatter in scatters if scatter is not None],
        figure_data.heat_maps(rows, results.columns.for_heat_maps(rows), columns),
        against,
        lines,
        detailed_lines,
        other_lines,
        largest_stable(results, group),
        figure_data.measure_panels(rows, ranking, results.columns.__getitem__, columns) if len(ranking) else None,
        _trajectories(results, group) if "theorem_learning_rate" in rows else [],
    )


def is_axis(rows: pd.DataFrame, name: str) -> bool:
    """Return whether an option has several values, all of them numbers."""
    return rows[name].nunique() > 1 and bool(pd.to_numeric(rows[name], errors="coerce").notna().all())


def largest_stable(results: SweepResults, group: Group) -> dict[float, float]:
    """Compute `GroupFigures.largest_stable`."""
    optimizers = [results.plan.runs[position].config.optimizer for position in group.rows.index]
    if any(options.get("name") != "sgd" or options.get("nesterov") for options in optimizers):
        return {}
    pairs = {(options["learning_rate"], options.get("momentum", 0.0)) for options in optimizers}
    stable = {rate: 2 * (1 + momentum) / rate for rate, momentum in pairs if rate > 0}
    return stable if len(pairs) == len({rate for rate, _ in pairs}) else {}


def _trajectories(results: SweepResults, group: Group) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Return learning rate, steps and Hessian eigenvalues of the first run of each learning rate at the largest width.

    Raises:
        InputError: The run or the arrays of the measure cannot be read.
    """
    trajectories = []
    widest = group.rows[group.rows["theorem_width"] == group.rows["theorem_width"].max()]
    for rate, rows in widest.groupby("theorem_learning_rate"):
        planned = results.plan.runs[rows.index[0]]
        run, settings = planned.find_run(), measurement_settings(planned.config, planned.dataset)
        if run is None:
            raise InputError(f"{planned.name}-{planned.identity}: the run is missing")
        key = measurement_key(settings["theorem"], run.epochs_trained)
        arrays = run.region_arrays()
        trajectories.append((rate, arrays[f"{key}/steps"], arrays[f"{key}/eigenvalues"]))
    return trajectories
