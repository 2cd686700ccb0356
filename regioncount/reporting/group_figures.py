"""The data of all figures of a sweep, shared by the PNG files, the page and the tracker."""

from dataclasses import dataclass

import numpy as np

from regioncount.errors import InputError
from regioncount.reporting import figure_data
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.figure_data import HeatMap, Lines, Panels, Scatter
from regioncount.reporting.groups import Group
from regioncount.runs.identity import measurement_key
from regioncount.runs.measurements import measurement_settings


@dataclass(frozen=True, eq=False)
class GroupFigures:
    """The data of the figures of one group of runs."""

    group: Group
    scatters: list[Scatter]
    """Region counts against the gap, one per subspace."""
    heat_maps: list[HeatMap]
    lines: list[Lines]
    """Region counts through training, one per subspace and panel; two hyperparameters distinguish lines."""
    detailed_lines: list[Lines]
    """Like `lines`, but all hyperparameters distinguish lines."""
    panels: Panels | None
    """All measures against the gap, if they were ranked."""
    trajectories: list[tuple[float, np.ndarray, np.ndarray]]
    """Learning rate, steps (n,) and Hessian eigenvalues (n,) of single runs, from the measure `theorem`."""

    def file_name(self, kind: str) -> str:
        """Return the name of a figure's file, without the extension."""
        return f"{kind}{self.group.file_suffix}"


def group_figures(results: SweepResults, group: Group) -> GroupFigures:
    """Compute the data of the figures of one group of runs."""
    rows, columns = group.rows, results.plan.drawn_columns
    region_counts = [column for column in results.columns.region_counts(rows) if rows[column.key].notna().any()]
    scatters = [figure_data.scatter(rows, column, group_by=columns) for column in region_counts if "train_accuracy" in rows]
    lines, detailed_lines = [], []
    for column in region_counts:
        counts = group.select_counts(results.counts, results.plan, column.subspace or "")
        if counts["epoch"].nunique() > 1:
            lines += figure_data.lines_through_training(counts, columns)
            detailed_lines += figure_data.lines_through_training(counts, columns, facets=False)
    ranking = group.select(results.ranking, selection="all")
    return GroupFigures(
        group,
        [scatter for scatter in scatters if scatter is not None],
        figure_data.heat_maps(rows, results.columns.for_heat_maps(rows), columns),
        lines,
        detailed_lines,
        figure_data.measure_panels(rows, ranking, results.columns.__getitem__, columns) if len(ranking) else None,
        _trajectories(results, group) if "theorem_learning_rate" in rows else [],
    )


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
