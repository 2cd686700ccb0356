"""The data of figures that show several groups of runs, or several series of one group, on one pair of axes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regioncount.columns import Column
from regioncount.reporting import series_data
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.group_figures import figure_name, is_axis, scatter_name, scatter_targets
from regioncount.reporting.groups import file_name_part
from regioncount.reporting.lines_data import lines_along
from regioncount.reporting.series_data import AgainstMeasuring, Series


@dataclass(frozen=True, eq=False)
class SweepFigures:
    """The data of the figures of a sweep as a whole, by the names of their files without the extension."""

    series: dict[str, Series]
    """Region counts against each of `scatter_targets`: a series for each data set and network, and for each value of a
    hyperparameter that is not a number."""
    against_measuring: dict[str, AgainstMeasuring]
    """Region counts against each option of the measurement that is a number."""


def sweep_figures(results: SweepResults) -> SweepFigures:
    """Compute the data of the figures of a sweep as a whole."""
    drawn: dict[str, Series] = {}
    for name, title, runs in _series(results):
        for column in results.columns.region_counts(results.runs):
            for target in scatter_targets(results):
                data = _compare(results, runs, column, target, title)
                if data is not None:
                    drawn[_unused(f"{scatter_name(column, target)}_by_{name}", drawn)] = data
    against: dict[str, AgainstMeasuring] = {}
    for name, measuring in _against_measuring(results):
        against[_unused(name, against)] = measuring
    return SweepFigures(drawn, against)


def _series(results: SweepResults) -> Iterator[tuple[str, str, dict[str, pd.DataFrame]]]:
    """Yield the part of the file's name, the title, and the runs of each series of the figures that compare series."""
    plan, groups = results.plan, results.groups
    measured: dict[str, dict[str, pd.DataFrame]] = {}
    several = [c for c in ("dataset", "model") if len({group.settings[c] for group in groups}) > 1]
    for group in groups:
        name = ", ".join(str(group.settings[column]) for column in several)
        settings = ", ".join(f"{Column(column).label} {group.settings[column]}" for column in plan.measuring_columns)
        measured.setdefault(settings, {})[name] = group.rows
    for settings, runs in measured.items() if several else ():
        shared = [str(groups[0].settings[column]) for column in ("dataset", "model") if column not in several]
        suffix = f"_{file_name_part(settings)}" if settings else ""
        yield "_and_".join(several) + suffix, ", ".join(filter(None, [*shared, settings])), runs
    for group in groups:
        for column in plan.drawn_columns:
            values = group.rows[column].dropna().unique()
            if len(values) > 1 and not is_axis(group.rows, column):
                runs = {f"{Column(column).label} {value}": group.rows[group.rows[column] == value] for value in values}
                yield file_name_part(column) + group.file_suffix, group.title, runs


def _compare(results: SweepResults, runs: Mapping[str, pd.DataFrame], x: Column, y: Column, title: str) -> Series | None:
    """Return the series of those runs that have the measure and the target."""
    complete = {name: rows for name, rows in runs.items() if {x.key, y.key, "train_accuracy"} <= set(rows)}
    constant = [c for c in results.plan.drawn_columns if all(rows[c].nunique() < 2 for rows in complete.values())]
    group_by = [c for c in results.plan.drawn_columns if c not in constant] or results.plan.drawn_columns[:1]
    return series_data.series(complete, x, y, group_by, results.plan.hyperparameters, title)


def _against_measuring(results: SweepResults) -> Iterator[tuple[str, AgainstMeasuring]]:
    plan = results.plan
    finished = results.runs[results.runs["status"] == "finished"]
    for axis in [column for column in plan.measuring_columns if is_axis(finished, column)]:
        settings = ["dataset", "model", *(column for column in plan.measuring_columns if column != axis)]
        several = [column for column in settings if finished[column].nunique() > 1]
        groups: Any = finished.groupby(settings, sort=False)
        for values, rows in groups:
            equal = dict(zip(settings, values, strict=True))
            for column in results.columns.region_counts(rows):
                correlations = results.correlations
                if len(correlations):
                    chosen = equal | {"measure": column.key, "target": "generalization_gap"}
                    correlations = correlations[(correlations[list(chosen)] == list(chosen.values())).all(axis=1)]
                error = column.with_part("standard_error")
                for lines in lines_along(rows, column, axis, plan.drawn_columns, facets=False, error=error):
                    if all(len(line.x) == 1 for line in lines.lines):
                        continue
                    correlation = series_data.correlation_line(correlations, axis)
                    name = figure_name(lines) + "".join(f"_{file_name_part(equal[c])}" for c in several)
                    title = ", ".join(str(value) if c in settings[:2] else f"{c} {value}" for c, value in equal.items())
                    yield name, AgainstMeasuring(lines, correlation, title)


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name of a file, with a number if another figure has it."""
    return f"{name}_{len(taken)}" if name in taken else name
