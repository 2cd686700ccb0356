"""A sweep's results as tables of text.

Cells have their printed form: accuracies in percent, means ± standard errors, statistics with their intervals.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from regioncount.analysis.intervals import MIN_OBSERVATIONS
from regioncount.columns import PERCENT, Column
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.formatting import DASH, interval, mean_and_error, value_text
from regioncount.reporting.frames import keys, records
from regioncount.reporting.groups import Group, group_columns

TITLES = {
    "model": "network",
    "dataset": "data",
    "pearson": "Pearson's r",
    "spearman": "Spearman's ρ",
    "kendall": "Kendall's τ",
    "kendall_fitted": "Kendall's τ, fitted runs",
    "published_kendall": "published τ",
    "published_pearson": "published r",
    "kendall_p_value": "p of equal τ",
    "pearson_p_value": "p of equal r",
    "pearson_fitted": "r, fitted configurations",
    "published_pearson_fitted": "published",
    "kendall_least": "τ without one value",
    "reliability_measure": "reliability of the count",
    "reliability_target": "reliability of the gap",
    "correlation": "Pearson's r of averages",
    "corrected_correlation": "corrected r",
    "seed_correlation": "r over seeds",
}
INTERVALS = f"95 % intervals, which need {MIN_OBSERVATIONS} configurations"
MAIN = "kendall"  # the correlation in headlines, by which measures are ranked


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
    plan = results.plan
    datasets = dict.fromkeys(
        (names["dataset"], run.dataset.train_size) for names, run in zip(plan.names, plan.runs, strict=True)
    )
    return " and ".join(f"{name}, {size:,} training images" for name, size in datasets)


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
        row |= {MAIN: DASH, f"{MAIN}_fitted": DASH, "kendall_least": DASH, "test_accuracy %": DASH}
        if correlation is not None:
            row |= {"fitted": str(correlation["fitted"]), "configurations": str(correlation["configurations"])}
            row |= {f"{MAIN}{suffix}": statistic_text(correlation, MAIN, suffix) for suffix in ("", "_fitted")}
            row["kendall_least"] = least_text(correlation, "")
        if group and "test_accuracy" in group.rows:
            accuracies = 100 * group.rows["test_accuracy"]
            row["test_accuracy %"] = f"{accuracies.min():.2f}{DASH}{accuracies.max():.2f}"
        rows.append(row)
    cells = pd.DataFrame(rows)
    constant = [column for column in columns if column != "model" and cells[column].nunique() == 1]
    cells = cells.drop(columns=constant)
    caption = (
        "Kendall's tau of region count and generalization gap for each network, among all runs and among those that fit, "
    )
    caption += f"with {INTERVALS}"
    return make_table(results, "overview", caption, cells, [column for column in keys(cells) if column not in columns])


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
    caption = f"Runs by configuration{of_group(group)}, averaged over seeds, ± one standard error over them"
    numeric = [column for column in keys(cells) if column not in settings or pd.api.types.is_numeric_dtype(table[column])]
    return make_table(results, "configurations", caption, cells, numeric)


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
    numeric += columns_from(cells, "status")[1:]
    caption = "Every run; ± is the standard error over subspaces"
    return make_table(results, "runs", caption, cells.replace("nan", DASH), numeric)


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
    if pd.isna(value):
        return row[f"note{suffix}"] if name == MAIN else DASH
    return interval(value, low, high, decimals) + (" (no interval)" if pd.isna(low) else "")


def least_text(row: pd.Series, suffix: str) -> str:
    """Return Kendall's tau without the value on which it rests most, and that value."""
    value, without = row[f"kendall_least{suffix}"], row[f"kendall_least_without{suffix}"]
    return DASH if pd.isna(value) else f"{value:.3f} ({without})"


def make_table(results: SweepResults, name: str, caption: str, cells: pd.DataFrame, numeric: Sequence[str]) -> Table:
    """Return a table with the headings of its columns; `numeric` are those that are aligned as numbers."""
    titles = {key: TITLES.get(key) or results.columns.label(key.removesuffix(" %")) for key in keys(cells)}
    return Table(name, caption, cells, titles, frozenset(numeric))


def _add_region_counts(cells: pd.DataFrame, results: SweepResults, table: pd.DataFrame) -> None:
    for column in results.columns.region_counts(table):
        errors = table.get(column.with_part("standard_error").key, [math.nan] * len(table))
        cells[column.key] = [mean_and_error(*pair) for pair in zip(table[column.key], errors, strict=True)]


def identifying(row: pd.Series, first: str, group: Group | None = None) -> dict[str, str]:
    """Return a row's columns before `first`, which identify its group; empty if a single group is shown."""
    return {} if group else {str(key): str(value) for key, value in row[: row.index.get_loc(first)].items()}


def of_group(group: Group | None) -> str:
    """Return the words of a caption that name a group; empty without one."""
    return f" of {group.title}" if group else ""


def columns_from(cells: pd.DataFrame, first: str) -> list[str]:
    """Return the columns from `first` on."""
    columns = keys(cells)
    return columns[columns.index(first) :] if columns else []
