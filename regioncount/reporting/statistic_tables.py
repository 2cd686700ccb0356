"""Statistics of a sweep as tables of text: correlations, their comparison with published ones, reliability, rankings."""

import math

import pandas as pd

from regioncount import analysis
from regioncount.analysis.ranking import describe_best, format_comparisons, format_statistics
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.formatting import DASH, interval
from regioncount.reporting.frames import keys
from regioncount.reporting.groups import Group
from regioncount.reporting.published import COMPARED
from regioncount.reporting.tables import (
    INTERVALS,
    MAIN,
    Table,
    columns_from,
    data_description,
    identifying,
    least_text,
    make_table,
    of_group,
    statistic_text,
)

MAX_EARLY = 5  # measures whose correlations at each epoch are printed


def correlations(results: SweepResults, group: Group | None = None) -> Table:
    """Return the correlations of region counts and entropies with the targets, and of all measures with requested ones.

    If some runs are not fitted, a second row has the correlation among the fitted runs.

    Args:
        results: The sweep's results.
        group: The group whose correlations are shown; all groups by default.
    """
    table = group.select(results.correlations) if group else results.correlations
    rows, left_out = [], ""
    for _, row in table.iterrows():
        measure, target = results.columns[row["measure"]], results.columns[row["target"]]
        if not measure.is_region_statistic and target.key in ("generalization_gap", "test_error"):
            continue  # other measures are in the ranking
        if target.key == "test_error" and row["fitted"] == row["runs"]:
            left_out = (
                "; where all runs fit, the test error is left out, since it and the gap coincide within 1 percentage point"
            )
            continue
        name = target.label if target.subspace else target.name
        names = identifying(row, "measure", group) | {"measure": measure.label, "target": name}
        for among, suffix, runs in (("all", "", "runs"), ("fitted", "_fitted", "fitted")):
            if suffix and row["fitted"] == row["runs"]:
                continue
            numbers = {"among": among, "runs": str(row[runs]), "configurations": str(row[f"configurations{suffix}"])}
            numbers |= {MAIN: statistic_text(row, MAIN, suffix), "kendall_least": least_text(row, suffix)}
            numbers |= {name: statistic_text(row, name, suffix) for name in ("spearman", "pearson")}
            rows.append(names | numbers)
    caption = f"Correlations{of_group(group)} over configurations, with {INTERVALS}, and τ without the value of a "
    caption += f"hyperparameter on which it rests most{left_out}"
    numeric = ("runs", "configurations", *analysis.STATISTICS)
    return make_table(results, "correlations", caption, pd.DataFrame(rows), numeric)


def comparison(results: SweepResults) -> Table:
    """Return our correlations beside the published ones, with test accuracies."""
    rows = []
    for _, row in results.comparison.iterrows():
        names = identifying(row, "measure") | {"measure": results.columns.label(row["measure"])}
        for name in COMPARED:
            names[name] = _correlation_text(row, name, "configurations", (f"{name}_low", f"{name}_high"))
            names[f"published_{name}"] = _correlation_text(row, f"published_{name}", "published_configurations")
            p_value = row[f"{name}_p_value"]
            names[f"{name}_p_value"] = DASH if pd.isna(p_value) else f"{p_value:.3f}"
        rows.append(
            names
            | {"pearson_fitted": _correlation_text(row, "pearson_fitted", "configurations_fitted")}
            | {"published_pearson_fitted": _correlation_text(row, "published_pearson_fitted", "published_fitted")}
            | {"test_accuracy %": _range_text(row, ""), "published test accuracy %": _range_text(row, "published_")}
        )
    caption = f"Correlations of measure and generalization gap (configurations) on {data_description(results)}, beside the "
    caption += f"paper's, with {INTERVALS}, and the p value of the test that both are equal; "
    caption += "fitted configurations have a mean train accuracy of at least 99 %"
    cells = pd.DataFrame(rows)
    return make_table(results, "comparison", caption, cells, columns_from(cells, COMPARED[0]))


def reliability(results: SweepResults, group: Group | None = None) -> Table:
    """Return the reliability of averaged region counts and gaps, and their correlation corrected for it.

    Args:
        results: The sweep's results.
        group: The group whose reliability is shown; all groups by default.
    """
    table = group.select(results.reliability) if group else results.reliability
    rows = []
    for _, row in table.iterrows():
        measure = results.columns[row["measure"]]
        if row["target"] != "generalization_gap" or not measure.is_region_count:
            continue
        names = identifying(row, "between", group) | {"between": row["between"], "measure": measure.label}
        for name in ("reliability_measure", "reliability_target", "correlation", "seed_correlation"):
            names[name] = DASH if pd.isna(row[name]) else f"{row[name]:.2f}"
        ends = (row[f"corrected_correlation{end}"] for end in ("", "_low", "_high"))
        rows.append(names | {"corrected_correlation": interval(*ends), "note": row["note"]})
    caption = "Reliability of averages over seeds (1: no seed effects), of all configurations and between the values of one "
    caption += "hyperparameter where the others are equal; "
    caption += "correlation of count and gap, corrected for seed effects, and over seeds"
    cells = pd.DataFrame(rows)
    return make_table(results, "reliability", caption, cells, columns_from(cells, "reliability_measure")[:-1])


def early(results: SweepResults, group: Group | None = None) -> Table:
    """Return the correlations of each measure at each epoch with the final gap; of many measures, those of region counts.

    Args:
        results: The sweep's results.
        group: The group whose correlations are shown; all groups by default.
    """
    table = group.select(results.early) if group else results.early
    rows, omitted = [], ""
    if len(table) and table["measure"].nunique() > MAX_EARLY:
        table = table[[results.columns[key].is_region_count for key in table["measure"]]]
        omitted = " (all measures are in early.csv)"
    for _, row in table.iterrows():
        names = identifying(row, "epoch", group) | {"measure": results.columns.label(row["measure"])}
        numbers = {"epoch": str(row["epoch"]), "mean": f"{row['mean']:.4g}"}
        numbers |= {"configurations": str(row["configurations"]), MAIN: statistic_text(row, MAIN)}
        rows.append(names | numbers)
    caption = f"Kendall's tau of a measure at an epoch and the generalization gap at the end{omitted}"
    cells = pd.DataFrame(rows)
    return make_table(results, "early", caption, cells, columns_from(cells, "epoch"))


def regression(results: SweepResults, group: Group | None = None) -> Table:
    """Return the contribution of each measure in a multiple linear regression of the test error.

    Args:
        results: The sweep's results.
        group: The group whose regression is shown; all groups by default.
    """
    table = group.select(results.regression) if group else results.regression
    rows = []
    for _, row in table.iterrows():
        names = identifying(row, "measure", group) | {"measure": results.columns.label(row["measure"])}
        shown = ("standardized_coefficient", "partial_r_squared", "r_squared_drop", "variance_inflation", "r_squared")
        texts = {name: DASH if pd.isna(row[name]) else f"{row[name]:.3f}" for name in shown}
        rows.append(names | texts | {"configurations": str(row["configurations"]), "note": row["note"]})
    caption = "Multiple linear regression of the test error: what each measure explains of what the others leave"
    cells = pd.DataFrame(rows)
    return make_table(results, "regression", caption, cells, columns_from(cells, "standardized_coefficient")[:-1])


def rankings(results: SweepResults, group: Group) -> list[Table]:
    """Return two tables per selection of a group's runs: comparisons of the measures, and their other statistics."""
    tables = []
    for selection in analysis.SELECTIONS:
        ranking = group.select(results.ranking, selection=selection)
        if ranking.empty:
            continue
        among = f"{group.title}, {selection} runs"
        caption = f"Measures against the generalization gap by |Kendall's tau|, {among}"
        caption += f": {best}" if (best := describe_best(ranking, results.columns.label)) else ""
        parts = {
            "ranking": (caption, format_comparisons(ranking, results.columns.label)),
            "statistics": (f"Other statistics of these measures, {among}", format_statistics(ranking)),
        }
        for name, (caption, cells) in parts.items():
            cells["measure"] = ranking["measure"].map(results.columns.label).tolist()
            tables.append(make_table(results, f"{name}-{selection}{group.file_suffix}", caption, cells, keys(cells)[1:]))
    return tables


def _correlation_text(row: pd.Series, name: str, number: str, ends: tuple[str, str] | None = None) -> str:
    """Return a correlation, its interval if there is one, and the number of configurations; a dash if it is undefined."""
    if pd.isna(row[name]):
        return DASH
    low, high = (row[ends[0]], row[ends[1]]) if ends else (math.nan, math.nan)
    return f"{interval(row[name], low, high)} ({row[number]:.0f})"


def _range_text(row: pd.Series, prefix: str) -> str:
    low, high = row[f"{prefix}test_accuracy_low"], row[f"{prefix}test_accuracy_high"]
    return DASH if pd.isna(low) else f"{100 * low:.1f}{DASH}{100 * high:.1f}"
