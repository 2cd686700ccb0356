"""Rankings: every statistic of every measure in one table, and its text."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.correlation import ENDS, LEAST, STATISTICS, correlations
from regioncount.analysis.granulated import granulated_kendall
from regioncount.analysis.information import conditional_mutual_information
from regioncount.analysis.multiplicity import associate, differences, permutation_p_values, rank_intervals
from regioncount.analysis.observations import HYPERPARAMETERS, Floats, complete, join_notes, observe, prepare
from regioncount.analysis.partial import FORMS, partial_correlations
from regioncount.analysis.sign_error import robust_sign_error
from regioncount.errors import InputError

DIFFERENCES = [f"difference_to_{other}{end}" for other in ("best", "reference") for end in ENDS]
COMPARISONS = ["rank", "rank_low", "rank_high", "p_value", "p_adjusted", *DIFFERENCES]


def ranking(
    runs: pd.DataFrame,
    measures: Sequence[str],
    target: str = "generalization_gap",
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    reference: str | None = None,
    keep_seeds: bool = False,
    test_size: int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compute every statistic of every measure against one target, sorted by decreasing |Kendall's tau-b|.

    Kendall's tau, the granulated coefficient, the mutual information and the sign-error depend only on the order of
    pairs, not on the units or the shape of a measure. Measures are ranked regardless of the sign of tau, but a measure
    that decreases as the target increases has sign-errors near 1. The comparisons of measures (ranks, p values and
    differences) are those of `regioncount.analysis.multiplicity`. They rest on averages over seeds, also if seeds are kept.

    Args:
        runs: One row per run; see `correlations`. Use `select` first to rank measures among a selection of runs.
        measures: Columns of `runs`.
        target: A column of `runs`, or generalization_gap or test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        reference: The measure that the others are compared with; by default, the first of `measures`.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.
        test_size: The number of test examples; see `robust_sign_error`.
        level: The nominal coverage of the intervals.

    Returns:
        One row per measure; measures without tau come last. Columns: measure, target, runs, configurations; kendall,
        spearman, pearson, each with _low and _high; rank by |tau|, with rank_low and rank_high; p_value and p_adjusted of
        tau, two-sided; difference_to_best and difference_to_reference (|tau| of the measure minus that of the other, which
        is named in reference), each with _low and _high; kendall_least, kendall_least_without and so on, as in
        `correlations`; granulated_kendall; conditional_mutual_information, its quantile for unrelated measures, given,
        mutual_information; robust_sign_error, sign_error_quantile_90, mean_sign_error, environments, worst_environment;
        partial_correlation_categories and partial_correlation_log_linear, each with _low and _high; note. The note gives the
        reason for every undefined statistic, preceded by its column's name if only some are undefined.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, test_size is not positive, or the
            reference is not among the measures.
    """
    measures = list(measures)
    reference = next(iter(measures), "") if reference is None else reference
    if len(measures) and reference not in measures:
        raise InputError(f"reference={reference} is not among the measures: {', '.join(measures)}")
    common = (runs, measures, [target], group_by)
    correlation_table = correlations(*common, keep_seeds=keep_seeds, level=level)
    kept = ["measure", "target", "runs", "configurations"]
    intervals = [f"{name}{end}" for name in reversed(STATISTICS) for end in ENDS]
    tables = {
        "granulated_kendall": granulated_kendall(*common, keep_seeds=keep_seeds),
        "conditional_mutual_information": conditional_mutual_information(*common, keep_seeds=keep_seeds),
        "robust_sign_error": robust_sign_error(*common, test_size=test_size, keep_seeds=keep_seeds),
    }
    for form in FORMS:
        table = partial_correlations(*common, form=form, level=level, keep_seeds=keep_seeds)
        names = {f"partial_correlation{end}": f"partial_correlation_{form}{end}" for end in ENDS}
        tables[f"partial_correlation_{form}"] = table.rename(columns=names)
    per_hyperparameter = [f"{name}_{option}" for name in ("granulated_kendall", "mean_sign_error") for option in group_by]
    parts = [table.drop(columns=[*kept, "note", *per_hyperparameter], errors="ignore") for table in tables.values()]
    compared = _compare(runs, measures, target, group_by, reference, level)
    ranked = pd.concat([correlation_table[[*kept, *intervals]], compared, correlation_table[list(LEAST)], *parts], axis=1)
    remarks = []
    if keep_seeds and (ranked["runs"] > ranked["configurations"]).any():
        remarks.append("rank, p values and differences are those of averages over seeds")
    if ranked["difference_to_reference_low"].isna().all() and ranked["rank_low"].notna().any():
        remarks.append(f"no intervals of differences to {reference}, which has no interval")
    notes = list(correlation_table["note"])
    for position in np.flatnonzero(ranked["kendall"].notna()):
        others = [f"{name} {table['note'][position]}" for name, table in tables.items() if table["note"][position]]
        notes[position] = join_notes(notes[position], *others, *remarks)
    # If a correlation is undefined, so is every other statistic, for the same reason.
    ranked["note"] = notes
    return ranked.sort_values("rank", kind="stable", na_position="last").reset_index(drop=True)


def _compare(
    runs: pd.DataFrame, measures: list[str], target: str, group_by: Sequence[str], reference: str, level: float
) -> pd.DataFrame:
    """Return the comparisons of measures, one row per measure, in their order."""
    compared = pd.DataFrame(np.nan, index=range(len(measures)), columns=COMPARISONS)
    compared["reference"] = reference
    if not measures:
        return compared
    values, targets, y = _configurations(prepare(runs, [*measures, target], group_by), measures, target, group_by)
    if not len(y):
        return compared
    associations = associate(values, targets, level)
    if not np.isfinite(associations.values).any():
        return compared
    compared["rank"] = pd.Series(associations.values).rank(ascending=False, method="min")
    compared[["rank_low", "rank_high"]] = rank_intervals(associations)
    compared["p_value"], compared["p_adjusted"] = permutation_p_values(values, y)
    others = {"best": int(np.nanargmax(associations.values)), "reference": measures.index(reference)}
    for name, position in others.items():
        compared[[f"difference_to_{name}{end}" for end in ENDS]] = differences(associations, position)
    return compared


def _configurations(
    runs: pd.DataFrame, measures: list[str], target: str, group_by: Sequence[str]
) -> tuple[Floats, Floats, Floats]:
    """Return averages over the seeds of each configuration.

    Returns:
        The measures, (n, M), and the target over the runs that have the measure, (n, M), NaN where a measure is missing; and
        the target over all runs, (n,).
    """
    columns: list[pd.DataFrame] = []
    for name in (target, *measures):
        observed = observe(complete(runs, [name, target], group_by), [name, target], group_by, False)
        values = observed.values[[name, target]].set_axis(["measure", "target"], axis=1)
        columns.append(values.set_axis(pd.MultiIndex.from_frame(observed.settings)))
    index = columns[0].index
    if not len(index):
        return np.empty((0, len(measures))), np.empty((0, len(measures))), np.empty(0)
    aligned = np.stack([values.reindex(index).to_numpy() for values in columns[1:]], axis=2)
    return aligned[:, 0], aligned[:, 1], columns[0]["target"].to_numpy()


def describe_ranking(table: pd.DataFrame) -> str:
    """Return a table of `ranking` as text: a heading, one line per measure, and the reasons for undefined statistics."""
    if table.empty:
        return "no ranking: no measures"
    heading = f"measures against {table['target'].iloc[0]}, by |Kendall's tau|"
    lines = [heading, describe_best(table)]
    lines += [format_comparisons(table).to_string(index=False), "", format_statistics(table).to_string(index=False), NULLS]
    for notes, rows in table[table["note"] != ""].groupby("note", sort=False):
        lines.append(f"{', '.join(map(str, rows['measure']))}: {notes}")
    sizes = table[["configurations", "runs"]].drop_duplicates()
    if len(sizes) == 1:
        lines[0] += " ({} configurations, {} runs)".format(*sizes.iloc[0])
    else:
        each = [f"{row['measure']} {row['configurations']} and {row['runs']}" for _, row in table.iterrows()]
        lines.append(f"configurations and runs: {', '.join(each)}")
    return "\n".join(filter(None, lines))


def describe_best(table: pd.DataFrame, label: Callable[[str], str] = str) -> str:
    """Return how many measures cannot be told from the best, and how many are related to the target."""
    ranked, related = table[table["rank"].notna()], int((table["p_adjusted"] <= 0.05).sum())
    if len(ranked) < 2 or ranked["rank_low"].isna().all():
        return ""
    alike = int(((ranked["rank_low"] == 1) | ranked["rank_low"].isna()).iloc[1:].sum())
    best = label(ranked["measure"].iloc[0])
    told = f"{alike} of the {len(ranked) - 1} other measures cannot be told from the best, {best}"
    return f"{told}; {related} of {len(table)} are related to the target (adjusted p at most 0.05)"


def format_comparisons(table: pd.DataFrame, label: Callable[[str], str] = str) -> pd.DataFrame:
    """Return the comparisons of a table of `ranking` as text; `label` gives the names of measures in headings."""
    shown = pd.DataFrame({"measure": table["measure"]})
    shown["Kendall"] = [_interval(row, "kendall") for _, row in table.iterrows()]
    shown["rank"] = [_rank(row) for _, row in table.iterrows()]
    shown["p"] = table["p_value"].map(_p)
    shown["adjusted p"] = table["p_adjusted"].map(_p)
    best, reference = table["measure"].iloc[0], table["reference"].iloc[0]
    others = {"best": best} if best == reference else {"best": best, "reference": reference}
    for name, other in others.items():
        shown[f"minus {label(other)}"] = [
            "-" if row["measure"] == other else _interval(row, f"difference_to_{name}") for _, row in table.iterrows()
        ]
    shown["without one value"] = [
        f"{_number(row['kendall_least'])} ({row['kendall_least_without']})" if row["kendall_least_without"] else "-"
        for _, row in table.iterrows()
    ]
    return shown


def format_statistics(table: pd.DataFrame) -> pd.DataFrame:
    """Return the other statistics of a table of `ranking` as text."""
    shown = pd.DataFrame({"measure": table["measure"]})
    for name in ("spearman", "pearson"):
        shown[name.capitalize()] = [_interval(row, name) for _, row in table.iterrows()]
    shown["granulated"] = table["granulated_kendall"].map(_number)
    shown["information"] = table["conditional_mutual_information"].map(_number)
    shown["if unrelated"] = table["conditional_mutual_information_null"].map(_number)
    shown["sign-error: mean"] = table["mean_sign_error"].map(_number)
    shown["90 %"] = table["sign_error_quantile_90"].map(_number)
    shown["worst"] = table["robust_sign_error"].map(_number)
    for form in FORMS:
        name = f"partial_correlation_{form}"
        shown[f"partial: {form.replace('_', '-')}"] = [_interval(row, name) for _, row in table.iterrows()]
    return shown


NULLS = """\
if unrelated: the 95 % quantile of the information of a measure that is unrelated to the target. Its sign-error is 0.5 on
average, and 1 in the worst environment of almost every table."""


def _interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[f"{name}_low"]):
        return _number(row[name])
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def _rank(row: pd.Series) -> str:
    if pd.isna(row["rank"]):
        return "-"
    ends = "" if pd.isna(row["rank_low"]) else f" [{row['rank_low']:.0f}, {row['rank_high']:.0f}]"
    return f"{row['rank']:.0f}{ends}"


def _p(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.4f}"


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}"
