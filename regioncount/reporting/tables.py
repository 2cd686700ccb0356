"""What a sweep says, as tables of text and in one sentence; and these tables in Markdown and LaTeX.

Cells are what is printed: accuracies in percent, means ± standard errors, statistics with their intervals.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from regioncount import analysis
from regioncount.analysis.ranking import format_ranking
from regioncount.reporting.collect import Group, Sweep, groups, region_measures
from regioncount.reporting.columns import PERCENT, column_label, column_unit, interval, value_text

CORRELATION = "Pearson's r of region count and generalization gap"
DASH = "–"


@dataclass(frozen=True)
class Table:
    """cells: text by column. numeric: the columns that are numbers first of all, and are sorted and aligned as such."""

    name: str
    caption: str
    cells: pd.DataFrame
    numeric: tuple[str, ...]


def headline(sweep: Sweep) -> str:
    """What the sweep found, in a sentence or two: the correlation of region count and gap, and how many runs it rests on."""
    table = sweep.runs
    sentences = [f"{_findings(sweep)}."]
    for status, count in table["status"].value_counts().items():
        if status != "finished":
            verb = {"failed": "failed", "diverged": "diverged"}.get(status, f"{'is' if count == 1 else 'are'} {status}")
            sentences.append(f"{count} of {len(table)} runs {verb}.")
    if "degenerate" in table and (count := int((table["degenerate"] & (table["status"] == "finished")).sum())):
        sentences.append(f"{count} of {len(table)} runs {'is' if count == 1 else 'are'} degenerate.")
    return " ".join(sentences)


def ran_on(sweep: Sweep) -> str:
    """The data of a sweep, which its name may not say: an experiment scaled down runs on others than it is named after."""
    sizes = {run.dataset.name: f"{run.dataset.name}, {run.dataset.train_size:,} training images" for run in sweep.plan.runs}
    return " and ".join(sizes.values())


def overview(sweep: Sweep) -> Table:
    """A row a data set, network and measuring setting, those without a finished run too."""
    columns = ["dataset", "model", *sweep.plan.measuring_columns]
    finished = {tuple(group.name.values()): group for group in groups(sweep.runs, sweep.plan)}
    rows = []
    for values, planned in sweep.runs.groupby(columns, sort=False):
        group, name = finished.get(values), dict(zip(columns, values, strict=True))
        found = main_correlation(sweep, group) if group else None
        row = name | {"runs": f"{len(group.rows) if group else 0} of {len(planned)}", "fitted": DASH, "configurations": DASH}
        row |= {"pearson": DASH, "pearson_fitted": DASH, "test_accuracy %": DASH}
        if found is not None:
            row |= {"fitted": str(found["fitted"]), "configurations": str(found["configurations"])}
            row |= {f"pearson{suffix}": _statistic(found, "pearson", suffix) for suffix in ("", "_fitted")}
        if group and "test_accuracy" in group.rows:
            accuracies = 100 * group.rows["test_accuracy"]
            row["test_accuracy %"] = f"{accuracies.min():.2f}{DASH}{accuracies.max():.2f}"
        rows.append(row)
    cells = pd.DataFrame(rows)
    alike = [column for column in columns if column != "model" and cells[column].nunique() == 1]
    cells = cells.drop(columns=alike)
    caption = "Pearson's r of region count and generalization gap for each network, among all runs and among those that fit"
    return Table("overview", caption, cells, tuple(column for column in cells if column not in columns))


def configurations(sweep: Sweep, group: Group | None = None) -> Table:
    """A row a configuration, seeds averaged; of one group or of all."""
    table = sweep.configurations
    given = {column: value for column, value in (group.name if group else {}).items() if column in table}
    if given:
        table = table[(table[list(given)] == list(given.values())).all(axis=1)].drop(columns=list(given))
    cells = pd.DataFrame(index=table.index)
    for column in table.columns[: table.columns.get_loc("runs")] if len(table) else ():
        cells[column] = table[column].map(value_text)
    settings = list(cells)
    if len(table):
        cells["runs"] = table["runs"].map(str)
        if "fitted" in table and (table["fitted"] < table["runs"]).any():
            cells["fitted"] = table["fitted"].map(str)
        cells["epochs"] = table["epochs_trained"].map("{:.4g}".format)
    for column in PERCENT:
        if column in table:
            cells[f"{column} %"] = (100 * table[column]).map("{:.2f}".format)
    for column in region_measures(table):
        pairs = zip(table[column], table[f"{column}_standard_error"], strict=True)
        cells[column] = [mean_and_error(mean, error) for mean, error in pairs]
    of = f" of {group.title}" if group else ""
    caption = f"Runs by configuration{of}, averaged over seeds, ± one standard error over them"
    numeric = [column for column in cells if column not in settings or pd.api.types.is_numeric_dtype(table[column])]
    return Table("configurations", caption, cells, tuple(numeric))


def correlations(sweep: Sweep, group: Group | None = None) -> Table:
    """Region counts and entropies with their targets, among all runs and, where these differ, among the fitted."""
    table = group.of(sweep.correlations) if group else sweep.correlations
    rows = []
    for _, row in table.iterrows():
        if not row["measure"].startswith("region_"):
            continue  # of these the ranking tells
        name = {} if group else {column: str(row[column]) for column in table.columns[: table.columns.get_loc("measure")]}
        name |= {"measure": column_label(row["measure"]), "target": column_label(row["target"]).split(" (")[0]}
        for among, suffix, runs in (("all", "", "runs"), ("fitted", "_fitted", "fitted")):
            if suffix and row["fitted"] == row["runs"]:
                continue
            numbers = {"among": among, "runs": str(row[runs]), "configurations": str(row[f"configurations{suffix}"])}
            rows.append(name | numbers | {name: _statistic(row, name, suffix) for name in analysis.STATISTICS})
    cells = pd.DataFrame(rows)
    of = f" of {group.title}" if group else ""
    caption = f"Correlations{of} over configurations, with 95 % bootstrap intervals over them"
    return Table("correlations", caption, cells, ("runs", "configurations", *analysis.STATISTICS))


def comparison(sweep: Sweep) -> Table:
    """Our correlations beside the published ones: r (configurations), of all and of those that fit; test accuracies."""
    rows = []
    for _, row in sweep.comparison.iterrows():
        name = row[: row.index.get_loc("measure")].astype(str).to_dict() | {"measure": column_label(row["measure"])}
        ours = _statistic_of(row, "pearson", "configurations", "pearson_low", "pearson_high")
        rows.append(
            name
            | {"pearson": ours, "published": _statistic_of(row, "published_pearson", "published_configurations")}
            | {"pearson_fitted": _statistic_of(row, "pearson_fitted", "configurations_fitted")}
            | {"published, fitted": _statistic_of(row, "published_pearson_fitted", "published_fitted")}
            | {"test_accuracy %": _range(row, ""), "published test accuracy %": _range(row, "published_")}
        )
    cells = pd.DataFrame(rows)
    caption = f"Pearson's r of measure and generalization gap (configurations) on {ran_on(sweep)}, beside the paper's"
    return Table("comparison", caption, cells, _between(cells, "pearson") if rows else ())


def early(sweep: Sweep, group: Group | None = None) -> Table:
    """What the region count at each epoch tells of the gap at the end."""
    table = group.of(sweep.early) if group else sweep.early
    rows = []
    for _, row in table.iterrows():
        name = {} if group else row[: row.index.get_loc("epoch")].astype(str).to_dict()
        name |= {"measure": column_label(row["measure"]), "epoch": str(row["epoch"]), "mean": f"{row['mean_count']:.3f}"}
        rows.append(name | {"configurations": str(row["configurations"]), "pearson": _statistic(row, "pearson", "")})
    cells = pd.DataFrame(rows)
    caption = "Pearson's r of the region count at an epoch and the generalization gap at the end"
    return Table("early", caption, cells, _between(cells, "epoch") if rows else ())


def regression(sweep: Sweep, group: Group | None = None) -> Table:
    """What each measure adds to the others in a linear regression of the test error."""
    table = group.of(sweep.regression) if group else sweep.regression
    rows = []
    for _, row in table.iterrows():
        name = {} if group else row[: row.index.get_loc("measure")].astype(str).to_dict()
        numbers = {column: row[column] for column in ("standardized_coefficient", "partial_r_squared", "r_squared")}
        texts = {column: DASH if pd.isna(value) else f"{value:.3f}" for column, value in numbers.items()}
        counted = {"configurations": str(row["configurations"]), "note": row["note"]}
        rows.append(name | {"measure": column_label(row["measure"])} | texts | counted)
    cells = pd.DataFrame(rows)
    caption = "Multiple linear regression of the test error: what each measure explains of what the others leave"
    return Table("regression", caption, cells, _between(cells, "standardized_coefficient")[:-1] if rows else ())


def rankings(sweep: Sweep, group: Group) -> list[Table]:
    """All measures by all statistics: a table for all runs of a group, and for other selections that were ranked."""
    found = []
    for selection in analysis.SELECTIONS:
        ranking = group.of(sweep.ranking, selection=selection)
        if ranking.empty:
            continue
        cells = format_ranking(ranking).rename(columns={"mean": "sign-error: mean"})
        cells["measure"] = ranking["measure"].map(column_label).tolist()
        caption = f"Measures against the generalization gap by |Kendall's tau|, {group.title}, {selection} runs"
        found.append(Table(f"ranking-{selection}{group.suffix}", caption, cells, tuple(cells.columns[1:])))
    return found


def runs(sweep: Sweep) -> Table:
    """A row a run of what tells runs apart and what was found; everything else is in runs.csv."""
    table = sweep.runs
    settings = [column for column in ("dataset", "model") if table[column].nunique() > 1] + sweep.plan.varied_columns
    settings += ["seed"] * ("seed" in sweep.plan.runs[0].varied)
    cells = pd.DataFrame(
        {"run": table["identity"].str[:8], **{column: table[column].map(value_text) for column in settings}}
    )
    cells["status"] = [", ".join(marks(row)) for row in table.to_dict("records")]
    if "epochs_trained" in table:
        cells["epochs"] = table["epochs_trained"].map("{:.4g}".format)
    for column in ("train_accuracy", "test_accuracy", "generalization_gap"):
        if column in table:
            cells[f"{column} %"] = (column_unit(column) * table[column]).map("{:.2f}".format)
    for column in region_measures(table):
        cells[column] = [
            mean_and_error(*pair) for pair in zip(table[column], table[f"{column}_standard_error"], strict=True)
        ]
    if "seconds" in table:
        cells["seconds"] = table["seconds"].map("{:.1f}".format)
    numeric = [column for column in settings if pd.api.types.is_numeric_dtype(table[column])]
    numeric += list(cells.columns[cells.columns.get_loc("status") + 1 :])
    caption = "Every run; ± is the standard error over subspaces"
    return Table("runs", caption, cells.replace("nan", DASH), tuple(numeric))


def marks(run: Mapping) -> list[str]:
    """What a reader has to know of a run before its numbers: how it ended, and whether it is fitted and not degenerate."""
    if run["status"] != "finished":
        return [run["status"]]
    told = [
        word for word, told in (("not fitted", not run.get("fitted", True)), ("degenerate", run.get("degenerate"))) if told
    ]
    return told or ["finished"]


def main_correlation(sweep: Sweep, group: Group) -> pd.Series | None:
    """The row of the correlations that a group's headline is of: the first subspace's region count and the gap."""
    measures = region_measures(sweep.runs)
    if sweep.correlations.empty or not measures:
        return None
    return group.of(sweep.correlations, measure=measures[0], target="generalization_gap").iloc[0]


def mean_and_error(mean: float, error: float) -> str:
    """A dash where there is no mean; the mean alone where there is no standard error."""
    if pd.isna(mean):
        return DASH
    return f"{mean:.3f}" + ("" if pd.isna(error) else f" ± {error:.3f}")


def column_title(column: str) -> str:
    """The heading of a column of cells."""
    titles = {"model": "network", "dataset": "data", "pearson": "Pearson's r", "pearson_fitted": "Pearson's r, fitted runs"}
    titles |= {"spearman": "Spearman's ρ", "kendall": "Kendall's τ"}
    return titles.get(column) or column_label(column.removesuffix(" %"))


def markdown(table: Table) -> str:
    """A table as Markdown, its caption above; numbers are aligned to the right."""
    heads = [escape_markdown(column_title(column)) for column in table.cells]
    ends = ["---:" if column in table.numeric else "---" for column in table.cells]
    rows = [[escape_markdown(cell) for cell in row] for row in table.cells.itertuples(index=False)]
    lines = [f"| {' | '.join(row)} |" for row in (heads, ends, *rows)]
    return "\n".join([f"**{escape_markdown(table.caption)}.**", "", *lines, ""])


def latex(table: Table, label: str) -> str:
    r"""A table as LaTeX (booktabs), with caption and \label{tab:label}; one of many columns is scaled to the line."""
    alignment = "".join("r" if column in table.numeric else "l" for column in table.cells)
    heads = [_escape_latex(column_title(column)) for column in table.cells]
    rows = [[_escape_latex(cell) for cell in row] for row in table.cells.itertuples(index=False)]
    body = [" & ".join(row) + r" \\" for row in rows]
    wide = len(table.cells.columns) > 6
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape_latex(table.caption)}.}}",
            rf"\label{{tab:{label}}}",
            *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}" + ("}" if wide else ""),
            r"\end{table}",
            "",
        ]
    )


def _findings(sweep: Sweep) -> str:
    found = [(group, main_correlation(sweep, group)) for group in groups(sweep.runs, sweep.plan)]
    if not found:
        return f"None of the {len(sweep.runs)} runs has finished"
    found = [(group, row) for group, row in found if row is not None]
    if not found:
        return f"{(sweep.runs['status'] == 'finished').sum()} runs have finished; nothing to correlate was measured"
    if len(found) == 1:
        return _finding(found[0][1])
    runs, fitted = (sum(row[column] for _, row in found) for column in ("runs", "fitted"))
    suffix = "" if fitted == runs else "_fitted"
    defined = [(row[f"pearson{suffix}"], group) for group, row in found if not row[f"note{suffix}"]]
    of_networks = len({group.name["model"] for group, _ in found}) == len(found)
    counted = f"{len(found)} {'networks' if of_networks else 'networks and settings'}"
    counted += f" ({runs} runs, {'all' if fitted == runs else fitted} fitted)"
    what = f"Over {counted}, {CORRELATION}{' among the fitted runs' if suffix else ''}"
    if not defined:
        return f"{what} is undefined"
    (low, lowest), (high, highest) = (end(defined, key=lambda pair: pair[0]) for end in (min, max))
    left = len(found) - len(defined)
    besides = f", and is undefined for {left}" if left else ""
    return f"{what} lies between {low:.2f} ({lowest.short}) and {high:.2f} ({highest.short}){besides}"


def _finding(row: pd.Series) -> str:
    runs, fitted, configurations = row["runs"], row["fitted"], row["configurations"]
    if fitted == runs or row["note_fitted"]:
        share = "all" if fitted == runs else fitted
        what = (
            f"Over {_counted(configurations, 'configuration')} ({_counted(runs, 'run')}, {share} fitted), {CORRELATION} is "
        )
        among = "" if fitted == runs or row["note"] else f"; among the fitted runs alone it is {row['note_fitted']}"
        return what + _statistic(row, "pearson", "", 2) + among
    counted = f"the {row['configurations_fitted']} configurations that fit their training set ({fitted} of {runs} runs)"
    everything = f"; over all {configurations} it is {_statistic(row, 'pearson', '', 2)}"
    return f"Over {counted}, {CORRELATION} is {_statistic(row, 'pearson', '_fitted', 2)}{everything}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _statistic(row: pd.Series, name: str, suffix: str, decimals: int = 3) -> str:
    """A correlation with its interval, or why there is none."""
    value, low, high = (row[f"{name}{end}{suffix}"] for end in ("", "_low", "_high"))
    return (row[f"note{suffix}"] if name == "pearson" else "") or interval(value, low, high, decimals)


def _statistic_of(row: pd.Series, name: str, number: str, low: str = "", high: str = "") -> str:
    """A correlation, its interval if there is one, and over how many configurations it is; a dash where it is undefined."""
    if pd.isna(row[name]):
        return DASH
    ends = (row[low], row[high]) if low else (math.nan, math.nan)
    return f"{interval(row[name], *ends, 2)} ({row[number]:.0f})"


def _range(row: pd.Series, start: str) -> str:
    low, high = row[f"{start}test_accuracy_low"], row[f"{start}test_accuracy_high"]
    return DASH if pd.isna(low) else f"{100 * low:.1f}{DASH}{100 * high:.1f}"


def _between(cells: pd.DataFrame, start: str) -> list[str]:
    columns = list(cells)
    return columns[columns.index(start) :]


def escape_markdown(text: str) -> str:
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for special in "\\`*_|":
        text = text.replace(special, f"\\{special}")
    return text.replace("](", "]\\(")


def _escape_latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "ρ": r"$\rho$", "τ": r"$\tau$"}
    special |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
    return "".join(special.get(letter, letter) for letter in " ".join(text.split()))
