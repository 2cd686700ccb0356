"""The main result of a sweep in a sentence or two, and the table that a sweep prints."""

import pandas as pd

from regioncount.reporting import tables
from regioncount.reporting.collect import SweepResults
from regioncount.reporting.formatting import counted
from regioncount.reporting.groups import Group
from regioncount.reporting.tables import MAIN, main_correlation, statistic_text

CORRELATION = "Kendall's tau of region count and generalization gap"


def headline(results: SweepResults) -> str:
    """Return the correlation of region count and gap, and the numbers of runs behind it and of unusable runs."""
    table = results.runs
    sentences = [f"{_main_result(results)}."]
    for status, count in table["status"].value_counts().items():
        if status != "finished":
            verb = status if status in ("failed", "diverged") else f"{_is_or_are(count)} {status}"
            sentences.append(f"{count} of {len(table)} runs {verb}.")
    if "degenerate" in table and (count := int((table["degenerate"] & (table["status"] == "finished")).sum())):
        sentences.append(f"{count} of {len(table)} runs {_is_or_are(count)} degenerate.")
    return " ".join(sentences)


def summarize(results: SweepResults) -> str:
    """Return the printed table of a sweep: one line per configuration, averaged over seeds, accuracies in percent."""
    table = results.runs
    finished = table[table["status"] == "finished"]
    lines = []
    if len(finished):
        cells = tables.configurations(results).cells
        lines = [cells.to_string(index=False), "(± is the standard error over seeds)"]
    if "fitted" in finished:
        fitted, degenerate = int(finished["fitted"].sum()), int(finished["degenerate"].sum())
        lines.append(f"{fitted} of {len(finished)} finished runs fit their training set (train accuracy of at least 99 %)")
        lines.append(f"{degenerate} of them are degenerate (at chance level, or one region on most subspaces)")
    lines += [f"{count} {status}" for status, count in table["status"].value_counts().items() if status != "finished"]
    return "\n".join(lines)


def _main_result(results: SweepResults) -> str:
    if not results.groups:
        return f"None of the {len(results.runs)} runs has finished"
    rows = [(group, main_correlation(results, group)) for group in results.groups]
    correlations = [(group, row) for group, row in rows if row is not None]
    if not correlations:
        return f"{(results.runs['status'] == 'finished').sum()} runs have finished; nothing to correlate was measured"
    if len(correlations) > 1:
        return _describe_groups(correlations)
    return _describe_group(correlations[0][1]) + _describe_rank(results, *correlations[0])


def _describe_rank(results: SweepResults, group: Group, correlation: pd.Series) -> str:
    """Return the rank of the region count among the measures of all runs; an empty string if there is no ranking."""
    ranking = group.select(results.ranking, selection="all")
    ranked = ranking[ranking["measure"] == correlation["measure"]] if len(ranking) else ranking
    if ranked.empty or ranked["rank"].isna().all():
        return ""
    rank, low, high = ranked.iloc[0][["rank", "rank_low", "rank_high"]]
    interval = "" if pd.isna(low) else f" [{low:.0f}, {high:.0f}]"
    return f"; among {ranking['rank'].notna().sum()} measures of all runs, its rank is {rank:.0f}{interval}"


def _describe_group(row: pd.Series) -> str:
    runs, fitted, configurations = row["runs"], row["fitted"], row["configurations"]
    if fitted == runs or pd.isna(row[f"{MAIN}_fitted"]):
        share = "all" if fitted == runs else fitted
        subject = f"Over {counted(configurations, 'configuration')} ({counted(runs, 'run')}, {share} fitted), {CORRELATION}"
        among_fitted = (
            "" if fitted == runs or pd.isna(row[MAIN]) else f"; among the fitted runs alone it is {row['note_fitted']}"
        )
        return f"{subject} is {statistic_text(row, MAIN, '', 2)}{among_fitted}"
    subset = f"the {row['configurations_fitted']} configurations that fit their training set ({fitted} of {runs} runs)"
    over_all = f"over all {configurations} it is {statistic_text(row, MAIN, '', 2)}"
    return f"Over {subset}, {CORRELATION} is {statistic_text(row, MAIN, '_fitted', 2)}; {over_all}"


def _describe_groups(correlations: list[tuple[Group, pd.Series]]) -> str:
    runs, fitted = (sum(row[column] for _, row in correlations) for column in ("runs", "fitted"))
    suffix = "" if fitted == runs else "_fitted"
    column = f"{MAIN}{suffix}"
    defined = [(row[column], group) for group, row in correlations if not pd.isna(row[column])]
    only_networks = len({group.settings["model"] for group, _ in correlations}) == len(correlations)
    groups = f"{len(correlations)} {'networks' if only_networks else 'networks and settings'}"
    groups += f" ({runs} runs, {'all' if fitted == runs else fitted} fitted)"
    subject = f"Over {groups}, {CORRELATION}{' among the fitted runs' if suffix else ''}"
    if not defined:
        return f"{subject} is undefined"
    (low, lowest), (high, highest) = (end(defined, key=lambda pair: pair[0]) for end in (min, max))
    undefined = len(correlations) - len(defined)
    exceptions = f", and is undefined for {undefined}" if undefined else ""
    if len(defined) == 1:
        return f"{subject} is {low:.2f} ({lowest.short_title}){exceptions}"
    return f"{subject} lies between {low:.2f} ({lowest.short_title}) and {high:.2f} ({highest.short_title}){exceptions}"


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"
