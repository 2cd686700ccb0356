"""Linear regression of a target on several measures: what each adds to the others."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, Floats, complete, observe, prepare
from regioncount.analysis.partial import MAX_EXPLAINED
from regioncount.errors import InputError

COLUMNS = (
    *("coefficient", "standardized_coefficient", "partial_r_squared", "r_squared_drop", "variance_inflation"),
    *("intercept", "r_squared", "adjusted_r_squared"),
)


def regression(
    runs: pd.DataFrame,
    measures: Sequence[str],
    target: str = "test_error",
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
) -> pd.DataFrame:
    """Fit a multiple linear regression of a target on measures by ordinary least squares.

    The model is target = intercept + sum_j coefficient_j measure_j. Runs that lack any of the measures are left out. With n
    observations, p measures, SS the sum of squares of the target about its mean and RSS that of the residuals:

        R^2 = 1 - RSS / SS,    adjusted R^2 = 1 - (1 - R^2) (n - 1) / (n - p - 1),
        partial R^2 of measure j = 1 - RSS / (RSS without j), the share that j explains of the others' residual variance,
        R^2 drop of measure j = R^2 - (R^2 without j), which the paper calls partial R^2 (Li et al. 2025),
        variance inflation factor of measure j = 1 / (1 - R^2 of j regressed on the other measures),
        standardized coefficient = coefficient times the standard deviation of the measure over that of the target.

    Args:
        runs: One row per run; see `correlations`.
        measures: Columns of `runs`.
        target: A column of `runs`, or generalization_gap or test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.

    Returns:
        One row per measure: measure, target, runs, configurations, note, coefficient (units of the target per unit of the
        measure), standardized_coefficient, partial_r_squared, r_squared_drop, variance_inflation and, the same in every row,
        intercept, r_squared, adjusted_r_squared. They are undefined (NaN), and note gives the reason, if there are fewer
        than p + 2 configurations, if the target or a measure is constant, or if a measure is a linear function of the
        others.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, or a measure is given twice.
    """
    measures = list(measures)
    if len(set(measures)) < len(measures) or target in measures:
        raise InputError(f"a regression takes each measure once, and not the target: {', '.join(measures)} on {target}")
    runs = prepare(runs, [*measures, target], group_by)
    observed = observe(complete(runs, [*measures, target], group_by), [*measures, target], group_by, keep_seeds)
    table = pd.DataFrame({"measure": measures}, columns=["measure", "target", "runs", "configurations", *COLUMNS, "note"])
    table = table.assign(target=target, runs=observed.runs, configurations=observed.configurations, note="")
    note = observed.reason_undefined([*measures, target])
    if not note and observed.configurations < len(measures) + 2:
        needed = f"{len(measures) + 2} are needed with {len(measures)} measures"
        note = f"undefined: {observed.configurations} configurations, {needed}"
    if note:
        return table.assign(note=note)

    values = observed.values[[*measures, target]].to_numpy()
    largest = np.abs(values).max(axis=0)  # in units of the largest value, no square overflows
    means, deviations = (
        largest * statistic for statistic in ((values / largest).mean(axis=0), (values / largest).std(axis=0))
    )
    standardized = (values - means) / deviations
    x, y = standardized[:, :-1], standardized[:, -1]
    own = np.array([_residual(np.delete(x, j, axis=1), x[:, j]) for j in range(len(measures))])
    if collinear := [name for name, share in zip(measures, own, strict=True) if share <= 1 - MAX_EXPLAINED]:
        return table.assign(note=f"undefined: {' and '.join(collinear)} are linear functions of the other measures")
    slopes = np.linalg.lstsq(x, y, rcond=None)[0]
    unexplained = _residual(x, y)
    unexplained_without = np.array([_residual(np.delete(x, j, axis=1), y) for j in range(len(measures))])
    table["standardized_coefficient"] = slopes
    table["coefficient"] = slopes * deviations[-1] / deviations[:-1]
    table["intercept"] = means[-1] - table["coefficient"] @ means[:-1]
    table["r_squared"] = 1 - unexplained
    table["adjusted_r_squared"] = 1 - unexplained * (len(y) - 1) / (len(y) - len(measures) - 1)
    table["r_squared_drop"] = np.clip(unexplained_without - unexplained, 0, 1)
    table["variance_inflation"] = 1 / own
    # If the residuals without the measure are rounding errors, there is no variance left for it to explain.
    table["partial_r_squared"] = np.where(
        unexplained_without > 1 - MAX_EXPLAINED,
        np.clip(1 - unexplained / np.maximum(unexplained_without, 1e-300), 0, 1),
        np.nan,
    )
    return table


def describe_regression(table: pd.DataFrame) -> str:
    """Return a table of `regression` as text: a heading with R^2, and one line per measure."""
    if table.empty:
        return "no regression: no measures"
    row = table.iloc[0]
    heading = f"{row['target']} regressed on {', '.join(table['measure'])} ({row['configurations']} configurations, "
    heading += f"{row['runs']} runs)"
    if row["note"]:
        return f"{heading}: {row['note']}"
    lines = [f"{heading}: R^2 {row['r_squared']:.3f}, adjusted {row['adjusted_r_squared']:.3f}"]
    shown = table[
        ["measure", "coefficient", "standardized_coefficient", "partial_r_squared", "r_squared_drop", "variance_inflation"]
    ]
    decimals = dict.fromkeys(map(str, shown.columns[1:]), "{:.3f}".format)
    formats = decimals | {"coefficient": "{:.4g}".format, "variance_inflation": "{:.4g}".format}
    return "\n".join([*lines, shown.to_string(index=False, formatters=formats, na_rep="-")])


def _residual(x: Floats, y: Floats) -> float:
    """Return the share of y's variance that x does not explain; x (n, p) and y (n,) are standardized."""
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(residual @ residual / (y @ y))
