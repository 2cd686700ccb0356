"""Statistics of a sweep's runs, for each group of comparable runs separately."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from regioncount import analysis
from regioncount.columns import Column
from regioncount.reporting import published
from regioncount.reporting.groups import Group
from regioncount.reporting.result_columns import ResultColumns
from regioncount.runs.plans import Plan


def configurations(table: pd.DataFrame, columns: ResultColumns, plan: Plan) -> pd.DataFrame:
    """Return one row per configuration of finished runs: its options, the number of runs, means and standard errors."""
    finished = table[table["status"] == "finished"]
    if finished.empty:
        return pd.DataFrame()
    several = [column for column in ("dataset", "model") if table[column].nunique() > 1]
    names = [*several, *plan.varied_columns] or ["dataset", "model"]
    by = finished.groupby(names, dropna=False)
    averages: dict[str, Any] = {"runs": by.size()}
    if "fitted" in finished:
        averages["fitted"] = by["fitted"].sum().astype(int)
    averages["epochs_trained"] = by["epochs_trained"].mean()
    accuracies = [Column(name) for name in ("train_accuracy", "test_accuracy", "generalization_gap")]
    for column in (*accuracies, *columns.region_counts(finished)):
        if column.key in finished:
            averages[column.key] = by[column.key].mean()
            averages[column.with_part("standard_error").key] = by[column.key].sem()
    return pd.DataFrame(averages).reset_index().sort_values(names, key=_as_numbers, kind="stable", ignore_index=True)


def correlations(groups: Sequence[Group], columns: ResultColumns, plan: Plan) -> pd.DataFrame:
    """Return the correlations of all measures with the targets over configurations."""
    results = []
    for group in _with_accuracies(groups):
        requested = [target for target in plan.options.targets if target in group.rows]
        targets = list(dict.fromkeys(["generalization_gap", "test_error", *requested]))
        if measures := columns.measures_of(group.rows):
            table = analysis.correlations(group.rows, measures, targets, group_by=plan.hyperparameters)
            results.append(_prepend(group.settings, table[table["measure"] != table["target"]]))
    return _concatenate(results)


def ranking(groups: Sequence[Group], columns: ResultColumns, plan: Plan) -> pd.DataFrame:
    """Return every statistic of every measure against the gap; an empty table if only regions were counted.

    The ranking is computed over all runs, and again over the fitted and the nondegenerate runs if these are fewer.
    """
    results = []
    for group in _with_accuracies(groups):
        if not columns.generalization_measures(group.rows):
            continue
        test_size = plan.runs[group.rows.index[0]].dataset.test_size
        for selection in analysis.SELECTIONS:
            selected = analysis.select(group.rows, selection)
            if selection == "all" or 0 < len(selected) < len(group.rows):
                measures = columns.measures_of(group.rows)
                # The first measure is a region count, if regions were counted; the others are compared with it.
                table = analysis.ranking(selected, measures, group_by=plan.hyperparameters, test_size=test_size)
                results.append(_prepend(group.settings | {"selection": selection}, table))
    return _concatenate(results)


def reliability(groups: Sequence[Group], columns: ResultColumns, plan: Plan) -> pd.DataFrame:
    """Return the reliability of averages over seeds, if there are several: of all configurations, and in cells.

    A cell has the configurations that share all hyperparameters that vary but one, which the column `between` names.
    """
    results = []
    targets = ["generalization_gap", "test_error"]
    for group in _with_accuracies(groups):
        rows = group.rows
        measures = [
            column.key for column in map(columns.__getitem__, columns.measures_of(rows)) if column.is_region_statistic
        ]
        if not measures or not rows.duplicated(list(plan.hyperparameters)).any():
            continue
        varying = [name for name in plan.hyperparameters if rows[name].nunique(dropna=False) > 1]
        cells = {"all": []} | {name: [n for n in varying if n != name] for name in varying if len(varying) > 1}
        for between, within in cells.items():
            table = analysis.reliability(rows, measures, targets, plan.hyperparameters, within=within)
            results.append(_prepend(group.settings | {"between": between}, table))
    return _concatenate(results)


def comparison(correlations: pd.DataFrame, table: pd.DataFrame, columns: ResultColumns, plan: Plan) -> pd.DataFrame:
    """Return the correlations beside the published ones of the experiments that the sweep names."""
    experiments = plan.options.published
    if not experiments or correlations.empty:
        return pd.DataFrame()
    return published.compare(correlations, table, experiments, columns.subspaces, plan.hyperparameters)


def early(groups: Sequence[Group], snapshots: pd.DataFrame, columns: ResultColumns, plan: Plan) -> pd.DataFrame:
    """Return the correlations of the final gap with each measure at each epoch at which all runs were measured."""
    results = []
    for group in _with_accuracies(groups):
        measured = group.select_snapshots(snapshots, plan)
        measures = [key for key in columns.measures_of(group.rows) if key in measured]
        for epoch, at_epoch in measured.groupby("epoch") if measures else ():
            if len(at_epoch) < len(group.rows):
                continue
            rows = group.rows.drop(columns=measures).merge(at_epoch[["identity", *measures]], on="identity")
            table = analysis.correlations(rows, measures, ["generalization_gap"], group_by=plan.hyperparameters)
            table.insert(2, "mean", table["measure"].map(at_epoch[measures].mean()))
            results.append(_prepend(group.settings | {"epoch": epoch}, table))
    return _concatenate(results)


def regression(groups: Sequence[Group], plan: Plan) -> pd.DataFrame:
    """Return the multiple regression of the test error on the measures that the sweep names."""
    measures = plan.options.regression
    return _concatenate(
        _prepend(group.settings, analysis.regression(group.rows, measures, group_by=plan.hyperparameters))
        for group in groups
        if measures and set(measures) <= set(group.rows)
    )


def _with_accuracies(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if "train_accuracy" in group.rows]


def _as_numbers(column: pd.Series) -> pd.Series:
    """Convert a column of numbers or numeric strings to numbers; return any other column unchanged."""
    numbers = pd.to_numeric(column, errors="coerce")
    return column if numbers.isna().any() else numbers


def _prepend(settings: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Prepend a group's identifying columns to a table."""
    for position, (column, value) in enumerate(settings.items()):
        table.insert(position, column, value)
    return table


def _concatenate(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    tables = list(tables)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
