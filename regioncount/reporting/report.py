"""Write the report of a sweep: tables, figures and pages on disk, on the screen and in the tracker.

`python -m regioncount.report DIR` rewrites it from the files on disk, without data, models or torch. DIR is the
directory of one sweep, or one that contains several; the default is results/sweeps.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

import regioncount
from regioncount import analysis
from regioncount.errors import InputError, one_line, say
from regioncount.reporting import markup, page, statistic_tables, tables, unchanged
from regioncount.reporting.collect import SweepResults, collect
from regioncount.reporting.draw import DecisionRegions, draw, draw_sweep
from regioncount.reporting.frames import records
from regioncount.reporting.group_figures import group_figures
from regioncount.reporting.headline import headline, summarize
from regioncount.reporting.sweep_figures import sweep_figures
from regioncount.reporting.sweep_tracking import track_sweep
from regioncount.reporting.tables import Table
from regioncount.reporting.unchanged import SUMMARY
from regioncount.runs import files, plans


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of each sweep in a directory.

    Args:
        arguments: The arguments of the command line; by default those in sys.argv.

    Returns:
        The exit status: 1 if a run failed or is missing, 2 if a sweep cannot be reported.
    """
    parser = _Parser(prog="python -m regioncount.report", description="Rewrite the report of a sweep.")
    parser.add_argument(
        "directory", type=Path, nargs="?", default=Path("results/sweeps"), help="directory of one sweep or of several"
    )
    parser.add_argument("--version", action="version", version=f"regioncount {regioncount.__version__}")
    try:
        directory = parser.parse_args(arguments).directory
        sweeps = sorted(path.parent for path in directory.glob(f"*/{plans.FILE}"))
        if (directory / plans.FILE).is_file() or not sweeps:
            return report(directory)
        statuses = []
        for sweep in sweeps:
            try:
                statuses.append(report(sweep))
            except InputError as error:
                statuses.append(_print_error(error))
        return max(statuses)
    except InputError as error:
        return _print_error(error)
    except OSError as error:
        return _print_error(f"{error.filename}: {error.strerror}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (--help lists the options)")


def report(
    directory: Path, *, decision_regions: DecisionRegions | None = None, track: bool = False, inputs: str | None = None
) -> int:
    """Write and print a sweep's tables, figures and pages.

    Args:
        directory: The sweep's directory.
        decision_regions: Evaluates the model of a planned run in a plane. Returns labels (n, n) and the positions
            (3, 2) of the three training images in grid steps. If None, decision regions on disk are kept.
        track: Whether to log the results to the sweep's tracker.
        inputs: `unchanged.inputs_digest` of the plan. If given, a report that lacks nothing is recorded, so that an equal
            one need not be made.

    Returns:
        The exit status: 0, or 1 if a run failed or is missing.

    Raises:
        InputError: The directory is not that of a sweep, or its plan cannot be read.
    """
    results = collect(plans.read(directory))
    lacks_columns = _print_absent_columns(results)
    _write_csv_files(results)
    printed = _describe_results(results)
    say(printed)
    figures = [group_figures(results, group) for group in results.groups]
    shared = sweep_figures(results)
    drawn = [file for group in figures for file in draw(results, group, decision_regions)] + draw_sweep(results, shared)
    _write_tables(results)
    files.write_text(results.plan.directory / "report.html", page.build(results, figures, shared))
    files.write_json(results.plan.directory / SUMMARY, page.summary(results))
    write_index(results.plan.directory.parent)
    say(f"report: {results.plan.directory / 'report.html'}")
    was_logged = track_sweep(results, figures, drawn) if track else True
    status = _print_unfinished(results)
    pictures = {group.file_name("decision_regions") for group in figures} <= {file.stem for file in drawn}
    if inputs is not None and status == 0 and was_logged and pictures and not lacks_columns:
        unchanged.record(results.plan.directory, inputs, printed)
    return status


def write_index(directory: Path) -> None:
    """Write the page that lists the sweeps of a directory, from the summaries of their reports."""
    summaries = {path.parent.name: _read_summary(path.parent / SUMMARY) for path in directory.glob(f"*/{plans.FILE}")}
    files.write_text(directory / "index.html", page.build_index(summaries))


def _write_csv_files(results: SweepResults) -> None:
    required = {
        "runs": results.runs,
        "region_counts": results.counts,
        "configurations": results.configurations,
        "correlations": results.correlations,
    }
    # Written only if they have rows.
    optional = {
        "ranking": results.ranking,
        "reliability": results.reliability,
        "comparison": results.comparison,
        "early": results.early,
        "snapshots": results.snapshots,
        "regression": results.regression,
    }
    for name, table in (required | {name: table for name, table in optional.items() if len(table)}).items():
        files.write_csv(results.plan.directory / f"{name}.csv", table)


def _describe_results(results: SweepResults) -> str:
    """Return the tables that are printed, as text."""
    parts = [f"\n{results.plan.name}, on {tables.data_description(results)}\n\n{summarize(results)}\n"]
    parts.append(f"{headline(results)}\n")
    for make_table in (
        statistic_tables.correlations,
        statistic_tables.comparison,
        statistic_tables.reliability,
        statistic_tables.early,
        statistic_tables.regression,
    ):
        table = make_table(results)
        if len(table.cells):
            text = table.cells.rename(columns=dict(table.titles)).to_string(index=False)
            parts.append(f"{table.caption}:\n{text}\n")
    for group in results.groups:
        for selection in analysis.SELECTIONS:
            ranking = group.select(results.ranking, selection=selection)
            if len(ranking):
                parts.append(f"{group.title}, {selection}: {analysis.describe_ranking(ranking)}\n")
    return "\n".join(parts)


def _print_absent_columns(results: SweepResults) -> bool:
    """Print the columns that `sweep.targets` and `sweep.regression` name and no measure returned.

    Returns:
        Whether there are any.
    """
    found = False
    options = results.plan.options
    for option, columns in (("targets", options.targets), ("regression", options.regression)):
        if absent := [column for column in columns if column not in results.runs]:
            say(f"sweep.{option}: no run has a column {', '.join(absent)}; it is left out of the report", sys.stderr)
            found = True
    return found


def _write_tables(results: SweepResults) -> None:
    """Write tables.md and tables.tex, the tables for a paper."""
    group = results.groups[0] if len(results.groups) == 1 else None
    written: list[Table] = [tables.overview(results)] if len(results.groups) > 1 else []
    written += [
        statistic_tables.comparison(results),
        tables.configurations(results, group),
        statistic_tables.correlations(results, group),
    ]
    written += [
        statistic_tables.reliability(results, group),
        statistic_tables.early(results, group),
        statistic_tables.regression(results, group),
    ]
    written += [table for group in results.groups for table in statistic_tables.rankings(results, group)]
    written = [table for table in written if len(table.cells)]
    directory, name = results.plan.directory, results.plan.name
    heading = markup.escape_markdown(f"{name}, on {tables.data_description(results)}: {headline(results)}")
    files.write_text(directory / "tables.md", "\n".join([heading, "", *map(markup.markdown, written)]))
    parts = [markup.latex(table, f"{name}-{table.name}") for table in written]
    files.write_text(directory / "tables.tex", "\n".join([markup.LATEX_PREAMBLE, *parts]))


def _print_unfinished(results: SweepResults) -> int:
    """Print the runs that failed or are missing; return the exit status."""
    table, budget = results.runs, results.plan.options.time_budget
    not_started = table["status"].isin(["missing", "running"]) & bool(budget)
    if not_started.any():
        count = not_started.sum()
        say(f"{count} runs were not started within the time budget of {budget}; rerun the same command to resume")
    unusable = ~table["status"].isin(["finished", "diverged"]) & ~not_started
    for position, row in enumerate(records(table)):
        if unusable[position]:
            reason = "" if pd.isna(row.get("error")) else f", {one_line(row['error'])}"
            say(f"{row['status']}: {results.describe_cell(position)}{reason}", sys.stderr)
    return int(unusable.any())


def _read_summary(path: Path) -> dict[str, Any] | None:
    """Return the summary of a report; None if it is missing or invalid."""
    types = {"name": str, "date": str, "datasets": list, "networks": list, "runs": int, "finished": int, "headline": str}
    try:
        summary = files.read_json(path)
    except InputError:
        return None
    complete = all(type(summary.get(key)) is kind for key, kind in types.items())
    valid = complete and all(isinstance(name, str) for name in summary["datasets"] + summary["networks"])
    return summary if valid else None


def _print_error(reason: object) -> int:
    say(f"regioncount.report: {one_line(reason)}", sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
