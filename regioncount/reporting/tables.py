"""A sweep's results as tables of text.

Cells have their printed form: accuracies in percent, means ± standard errors, statistics with their intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regioncount import analysis
from regioncount.analysis.ranking import format_ranking
from regioncount.columns import PERCENT, Column
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.formatting import DASH, interval, mean_and_error, value_text
from regioncount.reporting.frames import keys, records
from regioncount.reporting.groups import Group, group_columns

TITLES = {
    "model": "network",
    "dataset": "data",
    "pearson": "Pearson's r",
    "pearson_fitted": "Pearson's r, fitted runs",
    "spearman": "Spearman's ρ",
    "kendall": "Kendall's τ",
}


@dataclass(frozen=True, eq=False)
class Table:
    """A table of text."""

    name: str
    caption: str
    cells: pd.DataFrame
    titles: Mapping[str, str]
    """The heading of each column."""
    numeric: frozenset[str]
    """The columns that are sorted and aligned as numbers."""


def data_description(results: SweepResults) -> str:
    """Return the data sets with their sizes, since the name of a sweep may refer to other data."""
    datasets = {run.dataset.name: run.dataset.train_size for run in results.plan.runs}
    return " and ".join(f"{name}, {size:,} training images" for name, size in datasets.items())


def overview(results: SweepResults) -> Table:
    """Return one row per data set, network and measuring setting, including those without a finished run."""
    columns = group_columns(results.plan)
    groups = {tuple(group.settings.values()): group for group in results.groups}
    rows = []
    for values, planned in results.runs.groupby(columns, sort=False):
        group, settings = groups.get(values), dict(zip(columns, values, strict=True))
        correlation = main_correlation(results, group) if group else None
        finished = len(group.rows) if group else 0
        row = settings | {"runs": f"{finished} of {len(planned)}", "fitted": DASH, "configurations": DASH}
        row |= {"pearson": DASH, "pearson_fitted": DASH, "test_accuracy %": DASH}
        if correlation is not None:
            row |= {"fitted": str(correlation["fitted"]), "configurations": str(correlation["configurations"])}
            row |= {f"pearson{suffix}": statistic_text(correlation, "pearson", suffix) for suffix in ("", "_fitted")}
        if group and "test_accuracy" in group.rows:
            accuracies = 100 * group.rows["test_accuracy"]
            row["test_accuracy %"] = f"{accuracies.min():.2f}{DASH}{accuracies.max():.2f}"
        rows.append(row)
    cells = pd.DataFrame(rows)
    constant = [column for column in columns if column != "model" and cells[column].nunique() == 1]
    cells = cells.drop(columns=constant)
    caption = "Pearson's r of region count and generalization gap for each network, among all runs and among those that fit"
    return _table(results, "overview", caption, cells, [column for column in keys(cells) if column not in columns])


def configurations(results: SweepResults, group: Group | None = None) -> Table:
    """Return one row per configuration, averaged over seeds.

    Args:
        results: The sweep's results.
        group: The group whose configurations are shown; all groups by default.
    """
    table = results.configurations
    fixed = {column: value for column, value in (group.settings if group else {}).items() if column in table}
    if fixed:
        table = table[(table[list(fixed)] == list(fixed.values())).all(axis=1)].drop(columns=list(fixed))
    cells = pd.DataFrame(index=table.index)
    for column in table.columns[: table.columns.get_loc("runs")] if len(table) else ():
        cells[column] = table[column].map(value_text)
    settings = list(cells)
    if len(table):
        cells["runs"] = table["runs"].map(str)
        if "fitted" in table and (table["fitted"] < table["runs"]).any():
            cells["fitted"] = table["fitted"].map(str)
        cells["epochs"] = table["epochs_trained"].map("{:.4g}".format)
    for key in PERCENT:
        if key in table:
            cells[f"{key} %"] = (Column(key).factor * table[key]).map("{:.2f}".format)
    _add_region_counts(cells, results, table)
    caption = f"Runs by configuration{_of_group(group)}, averaged over seeds, ± one standard error over them"
    numeric = [column for column in keys(cells) if column not in settings or pd.api.types.is_numeric_dtype(table[column])]
    return _table(results, "configurations", caption, cells, numeric)


def correlations(results: SweepResults, group: Group | None = None) -> Table:
    """Return the correlations of region counts and entropies with the targets.

    If some runs are not fitted, a second row has the correlation among the fitted runs.

    Args:
        results: The sweep's results.
        group: The group whose correlations are shown; all groups by default.
    """
    table = group.select(results.correlations) if group else results.correlations
    rows = []
    for _, row in table.iterrows():
        measure, target = results.columns[row["measure"]], results.columns[row["target"]]
        if not measure.is_region_statistic:
            continue  # other measures are in the ranking
        names = _identifying(row, "measure", group) | {"measure": measure.label, "target": target.name}
        for among, suffix, runs in (("all", "", "runs"), ("fitted", "_fitted", "fitted")):
            if suffix and row["fitted"] == row["runs"]:
                continue
            numbers = {"among": among, "runs": str(row[runs]), "configurations": str(row[f"configurations{suffix}"])}
            rows.append(names | numbers | {name: statistic_text(row, name, suffix) for name in analysis.STATISTICS})
    caption = f"Correlations{_of_group(group)} over configurations, with 95 % bootstrap intervals over them"
    numeric = ("runs", "configurations", *analysis.STATISTICS)
    return _table(results, "correlations", caption, pd.DataFrame(rows), numeric)


def comparison(results: SweepResults) -> Table:
    """Return our correlations beside the published ones, with test accuracies."""
    rows = []
    for _, row in results.comparison.iterrows():
        names = _identifying(row, "measure") | {"measure": results.columns.label(row["measure"])}
        ours = _correlation_text(row, "pearson", "configurations", ("pearson_low", "pearson_high"))
        rows.append(
            names
            | {"pearson": ours, "published": _correlation_text(row, "published_pearson", "published_configurations")}
            | {"pearson_fitted": _correlation_text(row, "pearson_fitted", "configurations_fitted")}
            | {"published, fitted": _correlation_text(row, "published_pearson_fitted", "published_fitted")}
            | {"test_accuracy %": _range_text(row, ""), "published test accuracy %": _range_text(row, "published_")}
        )
    caption = f"Pearson's r of measure and generalization gap (configurations) on {data_description(results)}"
    cells = pd.DataFrame(rows)
    return _table(results, "comparison", f"{caption}, beside the paper's", cells, _columns_from(cells, "pearson"))


def early(results: SweepResults, group: Group | None = None) -> Table:
    """Return the correlations of the region count at each epoch with the final generalization gap.

    Args:
        results: The sweep's results.
        group: The group whose correlations are shown; all groups by default.
    """
    table = group.select(results.early) if group else results.early
    rows = []
    for _, row in table.iterrows():
        names = _identifying(row, "epoch", group) | {"measure": results.columns.label(row["measure"])}
        numbers = {"epoch": str(row["epoch"]), "mean": f"{row['mean_count']:.3f}"}
        numbers |= {"configurations": str(row["configurations"]), "pearson": statistic_text(row, "pearson")}
        rows.append(names | numbers)
    caption = "Pearson's r of the region count at an epoch and the generalization gap at the end"
    cells = pd.DataFrame(rows)
    return _table(results, "early", caption, cells, _columns_from(cells, "epoch"))


def regression(results: SweepResults, group: Group | None = None) -> Table:
    """Return the contribution of each measure in a multiple linear regression of the test error.

    Args:
        results: The sweep's results.
        group: The group whose regression is shown; all groups by default.
    """
    table = group.select(results.regression) if group else results.regression
    rows = []
    for _, row in table.iterrows():
        names = _identifying(row, "measure", group) | {"measure": results.columns.label(row["measure"])}
        statistics = {name: row[name] for name in ("standardized_coefficient", "partial_r_squared", "r_squared")}
        texts = {name: DASH if pd.isna(value) else f"{value:.3f}" for name, value in statistics.items()}
        rows.append(names | texts | {"configurations": str(row["configurations"]), "note": row["note"]})
    caption = "Multiple linear regression of the test error: what each measure explains of what the others leave"
    cells = pd.DataFrame(rows)
    return _table(results, "regression", caption, cells, _columns_from(cells, "standardized_coefficient")[:-1])


def rankings(results: SweepResults, group: Group) -> list[Table]:
    """Return every statistic of every measure, in one table per selection of a group's runs."""
    tables = []
    for selection in analysis.SELECTIONS:
        ranking = group.select(results.ranking, selection=selection)
        if ranking.empty:
            continue
        cells = format_ranking(ranking).rename(columns={"mean": "sign-error: mean"})
        cells["measure"] = ranking["measure"].map(results.columns.label).tolist()
        caption = f"Measures against the generalization gap by |Kendall's tau|, {group.title}, {selection} runs"
        tables.append(_table(results, f"ranking-{selection}{group.file_suffix}", caption, cells, keys(cells)[1:]))
    return tables


def runs(results: SweepResults) -> Table:
    """Return one row per run: its options, status and main results. All other results are in runs.csv."""
    table = results.runs
    settings = [column for column in ("dataset", "model") if table[column].nunique() > 1] + results.plan.varied_columns
    settings += ["seed"] * ("seed" in results.plan.runs[0].varied)
    options = {column: table[column].map(value_text) for column in settings}
    cells = pd.DataFrame({"run": table["identity"].str[:8], **options})
    cells["status"] = [", ".join(marks(row)) for row in records(table)]
    if "epochs_trained" in table:
        cells["epochs"] = table["epochs_trained"].map("{:.4g}".format)
    for key in ("train_accuracy", "test_accuracy", "generalization_gap"):
        if key in table:
            cells[f"{key} %"] = (Column(key).factor * table[key]).map("{:.2f}".format)
    _add_region_counts(cells, results, table)
    if "seconds" in table:
        cells["seconds"] = table["seconds"].map("{:.1f}".format)
    numeric = [column for column in settings if pd.api.types.is_numeric_dtype(table[column])]
    numeric += _columns_from(cells, "status")[1:]
    caption = "Every run; ± is the standard error over subspaces"
    return _table(results, "runs", caption, cells.replace("nan", DASH), numeric)


def marks(run: Mapping[str, Any]) -> list[str]:
    """Return the status of a run or, for a finished run, whether it is not fitted or degenerate."""
    if run["status"] != "finished":
        return [run["status"]]
    qualifiers = {"not fitted": not run.get("fitted", True), "degenerate": run.get("degenerate")}
    return [mark for mark, applies in qualifiers.items() if applies] or ["finished"]


def main_correlation(results: SweepResults, group: Group) -> pd.Series | None:
    """Return the correlation in the headline: the region count in the first subspace and the generalization gap."""
    measures = results.columns.region_counts(results.runs)
    if results.correlations.empty or not measures:
        return None
    return group.select(results.correlations, measure=measures[0].key, target="generalization_gap").iloc[0]


def statistic_text(row: pd.Series, name: str, suffix: str = "", decimals: int = 3) -> str:
    """Return a correlation with its interval, or the reason why it is undefined."""
    value, low, high = (row[f"{name}{end}{suffix}"] for end in ("", "_low", "_high"))
    return (row[f"note{suffix}"] if name == "pearson" else "") or interval(value, low, high, decimals)


def _table(results: SweepResults, name: str, caption: str, cells: pd.DataFrame, numeric: Sequence[str]) -> Table:
    titles = {key: TITLES.get(key) or results.columns.label(key.removesuffix(" %")) for key in keys(cells)}
    return Table(name, caption, cells, titles, frozenset(numeric))


def _add_region_counts(cells: pd.DataFrame, results: SweepResults, table: pd.DataFrame) -> None:
    for column in results.columns.region_counts(table):
        errors = table.get(column.with_part("standard_error").key, [math.nan] * len(table))
        cells[column.key] = [mean_and_error(*pair) for pair in zip(table[column.key], errors, strict=True)]


def _identifying(row: pd.Series, first: str, group: Group | None = None) -> dict[str, str]:
    """Return a row's columns before `first`, which identify its group; empty if a single group is shown."""
    return {} if group else {str(key): str(value) for key, value in row[: row.index.get_loc(first)].items()}


def _of_group(group: Group | None) -> str:
    return f" of {group.title}" if group else ""


def _correlation_text(row: pd.Series, name: str, number: str, ends: tuple[str, str] | None = None) -> str:
    """Return a correlation, its interval if there is one, and the number of configurations; a dash if it is undefined."""
    if pd.isna(row[name]):
        return DASH
    low, high = (row[ends[0]], row[ends[1]]) if ends else (math.nan, math.nan)
    return f"{interval(row[name], low, high)} ({row[number]:.0f})"


def _range_text(row: pd.Series, prefix: str) -> str:
    low, high = row[f"{prefix}test_accuracy_low"], row[f"{prefix}test_accuracy_high"]
    return DASH if pd.isna(low) else f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def _columns_from(cells: pd.DataFrame, first: str) -> list[str]:
    """Return the columns from `first` on."""
    columns = keys(cells)
    return columns[columns.index(first) :] if columns else []
