"""The paper's published statistics, which reports print beside a sweep's own.

They were computed from the runs that the authors published (Li et al., ICML 2025, arXiv 2505.11370): seeds are averaged
first, and statistics are computed over configurations. The authors' train accuracies are running averages over the last
epoch, in training mode. Ours are computed on the whole training set in evaluation mode, so more of our runs count as
fitted.
"""

import csv
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from regioncount.analysis import FITTED_ACCURACY, correlations
from regioncount.analysis.intervals import compare as compare_correlations
from regioncount.analysis.observations import HYPERPARAMETERS
from regioncount.columns import Column
from regioncount.errors import InputError
from regioncount.suggestions import suggest, unknown_choice

# One row per experiment and network. Correlations are between region count and generalization gap; in the last rows,
# between the measure that the experiment is named after and the gap. pearson_error and kendall_error are standard errors of
# Fisher's z; see `regioncount.analysis.intervals`. Fitted configurations have a mean train accuracy of at least 0.99.
# test_accuracy_low and _high are the lowest and highest test accuracy of a configuration.
FILE = Path(__file__).parent / "published.csv"

COMPARED = ("kendall", "pearson")
STATISTICS = (
    *(f"{name}{end}" for name in COMPARED for end in ("", "_error")),
    *("configurations", "pearson_fitted", "fitted", "test_accuracy_low", "test_accuracy_high"),
)


def statistics(experiment: str | None, network: str) -> dict[str, float] | None:
    """Return the published statistics of an experiment and a network.

    Args:
        experiment: The name of the experiment in published.csv.
        network: The name of the network.

    Returns:
        configurations, fitted, pearson, pearson_error, pearson_fitted, spearman, kendall, kendall_error, test_accuracy_low
        and test_accuracy_high (fractions). Undefined statistics are NaN. None if nothing was published.
    """
    return table().get((experiment or "", network))


def check(experiments: Mapping[str, str], known: Sequence[str]) -> None:
    """Check the published experiments with which a sweep is compared.

    Args:
        experiments: The experiment in published.csv, by the name of a subspace or of another measure.
        known: The names of subspaces and measures. Some of them may not be measured.

    Raises:
        InputError: An experiment or a name does not exist.
    """
    published = list(dict.fromkeys(experiment for experiment, _ in table()))
    for name, experiment in experiments.items():
        if experiment not in published:
            raise InputError(unknown_choice(f"sweep.published.{name}", experiment, published))
        if name not in known:
            raise InputError(f"sweep.published.{name}: no subspace or measure has this name{suggest(name, known)}")


def compare(
    measured_correlations: pd.DataFrame,
    runs: pd.DataFrame,
    experiments: Mapping[str, str],
    subspaces: Sequence[str],
    group_by: Sequence[str] = HYPERPARAMETERS,
) -> pd.DataFrame:
    """Return correlations with the generalization gap beside the published ones, one row per network and measure.

    Every region count has a row. Other measures have one if `experiments` contains them. Whether a correlation differs from
    the published one is tested as for two independent samples; see `regioncount.analysis.intervals.compare`. Fitted
    configurations have a mean train accuracy of at least 0.99, as in the published figures.

    Args:
        measured_correlations: A sweep's correlations, as in correlations.csv.
        runs: The sweep's runs, as in runs.csv.
        experiments: The experiment in published.csv, by the name of a subspace or of another measure.
        subspaces: The names of the subspaces in which regions were counted.
        group_by: The columns of `runs` that define a configuration.

    Returns:
        A table with the columns that identify the group of runs (dataset, model, ...), measure; kendall and pearson, each
        with _low, _high and _error; configurations, pearson_fitted, configurations_fitted, test_accuracy_low and
        test_accuracy_high (fractions, over configurations), published_experiment, the published statistics, NaN if there are
        none: published_pearson and so on, and the p values kendall_p_value and pearson_p_value.
    """
    measured = [f"{name}{end}" for name in COMPARED for end in ("", "_low", "_high", "_error")]
    rows = []
    for _, row in measured_correlations.iterrows():
        column = Column.parse(row["measure"], subspaces)
        name = (column.subspace if column.is_region_count else None) or column.key
        if row["target"] != "generalization_gap" or (not column.is_region_count and name not in experiments):
            continue
        group = row[: row.index.get_loc("measure")].to_dict()
        group_runs = runs[(runs[list(group)] == list(group.values())).all(axis=1)]
        by_configuration = group_runs.groupby(list(group_by), dropna=False)
        accuracies = by_configuration["test_accuracy"].mean()
        fitted = group_runs[by_configuration["train_accuracy"].transform("mean") >= FITTED_ACCURACY]
        among_fitted = correlations(fitted, [row["measure"]], ["generalization_gap"], group_by).iloc[0]
        theirs = statistics(experiments.get(name), row["model"]) or dict.fromkeys(STATISTICS, math.nan)
        rows.append(
            {
                **group,
                "measure": row["measure"],
                **row[[*measured, "configurations"]],
                "pearson_fitted": among_fitted["pearson"],
                "configurations_fitted": among_fitted["configurations"],
                "test_accuracy_low": accuracies.min(),
                "test_accuracy_high": accuracies.max(),
                "published_experiment": experiments.get(name),
            }
            | {f"published_{name}": theirs[name] for name in STATISTICS}
            | {f"{name}_p_value": _p_value(row, theirs, name) for name in COMPARED}
        )
    return pd.DataFrame(rows)


def _p_value(ours: pd.Series, theirs: Mapping[str, float], name: str) -> float:
    if pd.isna(theirs["configurations"]):
        return math.nan
    values, errors = ((ours[column], theirs[column]) for column in (name, f"{name}_error"))
    return compare_correlations(values, errors, (ours["configurations"], int(theirs["configurations"])))


@functools.cache
def table() -> dict[tuple[str, str], dict[str, float]]:
    """Return all published statistics, by experiment and network."""
    with FILE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        (row.pop("experiment"), row.pop("network")): {key: float(value or "nan") for key, value in row.items()}
        for row in rows
    }
