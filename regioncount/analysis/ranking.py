"""Rankings: every statistic of every measure in one table, and its text."""

from collections.abc import Sequence

import pandas as pd

from regioncount.analysis.correlation import STATISTICS, correlations
from regioncount.analysis.granulated import granulated_kendall
from regioncount.analysis.information import conditional_mutual_information
from regioncount.analysis.observations import HYPERPARAMETERS
from regioncount.analysis.partial import FORMS, partial_correlations
from regioncount.analysis.sign_error import robust_sign_error


def ranking(
    runs: pd.DataFrame,
    measures: Sequence[str],
    target: str = "generalization_gap",
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
    test_size: int | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute every statistic of every measure against one target, sorted by decreasing |Kendall's tau-b|.

    Kendall's tau, the granulated coefficient, the mutual information and the sign-error depend only on the order of
    pairs, not on the units or the shape of a measure. Measures are ranked regardless of the sign of tau, but a measure
    that decreases as the target increases has sign-errors near 1.

    Args:
        runs: One row per run; see `correlations`. Use `select` first to rank measures among a selection of runs.
        measures: Columns of `runs`.
        target: A column of `runs`, or generalization_gap or test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.
        test_size: The number of test examples; see `robust_sign_error`.
        resamples: The number of bootstrap samples.
        level: The nominal coverage of the intervals.
        seed: The seed of the bootstrap.

    Returns:
        One row per measure; measures without tau come last. Columns: measure, target, runs, configurations; kendall,
        spearman, pearson, each with _low and _high; granulated_kendall; conditional_mutual_information, given,
        mutual_information; robust_sign_error, mean_sign_error, environments, worst_environment;
        partial_correlation_categories and partial_correlation_log_linear, each with _low and _high; note. The note gives the
        reason for every undefined statistic, preceded by its column's name if only some are undefined.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, or test_size is not positive.
    """
    common = (runs, measures, [target], group_by)
    correlation_table = correlations(*common, keep_seeds=keep_seeds, resamples=resamples, level=level, seed=seed)
    kept = ["measure", "target", "runs", "configurations"]
    intervals = [f"{name}{end}" for name in reversed(STATISTICS) for end in ("", "_low", "_high")]
    tables = {
        "granulated_kendall": granulated_kendall(*common, keep_seeds=keep_seeds),
        "conditional_mutual_information": conditional_mutual_information(*common, keep_seeds=keep_seeds),
        "robust_sign_error": robust_sign_error(*common, test_size=test_size, keep_seeds=keep_seeds),
    }
    for form in FORMS:
        table = partial_correlations(*common, form=form, level=level, keep_seeds=keep_seeds)
        names = {f"partial_correlation{end}": f"partial_correlation_{form}{end}" for end in ("", "_low", "_high")}
        tables[f"partial_correlation_{form}"] = table.rename(columns=names)
    per_hyperparameter = [f"granulated_kendall_{name}" for name in group_by]
    parts = [table.drop(columns=[*kept, "note", *per_hyperparameter], errors="ignore") for table in tables.values()]
    ranked = pd.concat([correlation_table[[*kept, *intervals]], *parts], axis=1)
    notes = pd.DataFrame({name: table["note"] for name, table in tables.items()})
    # If a correlation is undefined, so is every other statistic.
    note = correlation_table["note"]
    ranked["note"] = note.where(note != "", [_join(row) for _, row in notes.iterrows()])
    order = ranked["kendall"].abs().sort_values(ascending=False, kind="stable", na_position="last").index
    return ranked.loc[order].reset_index(drop=True)


def describe_ranking(table: pd.DataFrame) -> str:
    """Return a table of `ranking` as text: a heading, one line per measure, and the reasons for undefined statistics."""
    if table.empty:
        return "no ranking: no measures"
    heading = f"measures against {table['target'].iloc[0]}, by |Kendall's tau|"
    lines = [heading, format_ranking(table).to_string(index=False)]
    for notes, rows in table[table["note"] != ""].groupby("note", sort=False):
        lines.append(f"{', '.join(rows['measure'])}: {notes}")
    sizes = table[["configurations", "runs"]].drop_duplicates()
    if len(sizes) == 1:
        lines[0] += " ({} configurations, {} runs)".format(*sizes.iloc[0])
    else:
        each = [f"{row['measure']} {row['configurations']} and {row['runs']}" for _, row in table.iterrows()]
        lines.append(f"configurations and runs: {', '.join(each)}")
    return "\n".join(lines)


def format_ranking(table: pd.DataFrame) -> pd.DataFrame:
    """Return the main columns of a table of `ranking` as text, each statistic with its interval."""
    shown = pd.DataFrame({"measure": table["measure"]})
    for name in reversed(STATISTICS):
        shown[name.capitalize()] = [_interval(row, name) for _, row in table.iterrows()]
    shown["granulated"] = table["granulated_kendall"].map(_number)
    shown["information"] = table["conditional_mutual_information"].map(_number)
    shown["sign-error: worst"] = table["robust_sign_error"].map(_number)
    shown["mean"] = table["mean_sign_error"].map(_number)
    for form in FORMS:
        name = f"partial_correlation_{form}"
        shown[f"partial: {form.replace('_', '-')}"] = [_interval(row, name) for _, row in table.iterrows()]
    return shown


def _join(notes: pd.Series) -> str:
    return "; ".join(f"{name} {note}" for name, note in notes.items() if note)


def _interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[f"{name}_low"]):
        return _number(row[name])
    return f"{row[name]:.3f} [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]"


def _number(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.3f}"
