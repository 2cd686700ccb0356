"""Correlations of measures and targets with hyperparameters held fixed."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from regioncount.analysis.observations import (
    HYPERPARAMETERS,
    TARGETS,
    Floats,
    Observations,
    Statistics,
    require_level,
    tabulate,
)
from regioncount.errors import InputError

FORMS = ("categories", "log_linear")
MAX_EXPLAINED = 1 - 1e-10  # if a larger share of the variance is explained, the residuals are rounding errors


def partial_correlations(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    form: str = "categories",
    given: Sequence[str] | None = None,
    level: float = 0.95,
    keep_seeds: bool = False,
) -> pd.DataFrame:
    """Compute partial correlations of measures and targets, with hyperparameters held fixed.

    This is Pearson's r of the residuals of measure and target after a least-squares fit on a constant and, depending on
    `form`,
    - categories: an indicator of each value of each hyperparameter, for effects of any shape, without interactions;
    - log_linear: the logarithm of each hyperparameter that varies, with one slope each.
    The interval is Fisher's (1924): tanh(artanh r -+ z / sqrt(configurations - k - 3)), where k is the rank of the
    regressors without the constant and z the normal quantile of `level`. It assumes that residuals are normal and, if seeds
    are kept, counts the runs of a configuration as one observation.

    Args:
        runs: One row per run; see `correlations`.
        measures: Columns of `runs`.
        targets: Columns of `runs`, or generalization_gap and test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        form: categories or log_linear.
        given: The hyperparameters that are held fixed, among `group_by`; all of them by default.
        level: The nominal coverage of the interval.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.

    Returns:
        One row per measure and target: measure, target, runs, configurations, partial_correlation, partial_correlation_low,
        partial_correlation_high (NaN unless configurations - k - 3 is positive), and note: why the correlation is undefined
        (NaN), else empty. It is undefined if a hyperparameter has no logarithm, if there are too few configurations for the
        regressors, or if these determine the measure or target.

    Raises:
        InputError: If a column is missing or not numeric, accuracies are in percent, the form is unknown, a column of
            `given` is not in `group_by`, or the level is not from 0.5 to 0.995.
    """
    require_level(level)
    given = list(group_by if given is None else given)
    if form not in FORMS:
        raise InputError(f"form={form} is unknown; use one of {', '.join(FORMS)}")
    if outside := [name for name in given if name not in group_by]:
        raise InputError(f"{', '.join(outside)} cannot be held fixed: not in group_by")

    def statistic(observed: Observations, measure: str, target: str) -> Statistics:
        return _partial(observed, measure, target, form, given, level)

    columns = [f"partial_correlation{end}" for end in ("", "_low", "_high")]
    return tabulate(statistic, columns, runs, measures, targets, group_by, keep_seeds)


def _partial(observed: Observations, measure: str, target: str, form: str, given: list[str], level: float) -> Statistics:
    if form == "categories":
        regressors = _indicators(observed.settings[given])
    else:
        regressors, note = _logarithms(observed.settings[given])
        if note:
            return {"note": note}
    design = np.column_stack([np.ones(len(regressors)), regressors])
    rank = int(np.linalg.matrix_rank(design))
    if observed.configurations < rank + 2:
        held = f"{rank - 1} degree{'s' * (rank != 2)} of freedom held fixed"
        return {"note": f"undefined: {observed.configurations} configurations, {rank + 2} are needed with {held}"}
    residuals: list[Floats] = []
    for name in (measure, target):
        values = observed.values[name].to_numpy()
        values = (values - values.mean()) / np.abs(values - values.mean()).max()
        residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        if residual @ residual <= (1 - MAX_EXPLAINED) * (values @ values):
            return {"note": f"undefined: {name} follows from {', '.join(given)}"}
        residuals.append(residual / np.sqrt(residual @ residual))
    correlation = float(np.clip(residuals[0] @ residuals[1], -1, 1))
    result: Statistics = {"partial_correlation": correlation}
    if observed.configurations > rank + 2:
        error = 1 / np.sqrt(observed.configurations - rank - 2)  # rank counts the constant: k = rank - 1
        with np.errstate(divide="ignore"):
            ends = np.tanh(np.arctanh(correlation) + NormalDist().inv_cdf((1 + level) / 2) * error * np.array([-1, 1]))
        result |= dict(zip(["partial_correlation_low", "partial_correlation_high"], map(float, ends), strict=True))
    return result


def _indicators(settings: pd.DataFrame) -> Floats:
    """Return indicators of all values but the first of each hyperparameter, (n, indicators)."""
    codes = [pd.factorize(settings[name], use_na_sentinel=False)[0] for name in settings]
    return np.column_stack([np.equal.outer(code, np.unique(code)[1:]) for code in codes] or [np.empty((len(settings), 0))])


def _logarithms(settings: pd.DataFrame) -> tuple[Floats, str]:
    """Return the centred logarithms of hyperparameters that vary, (n, k), and the reason if one is undefined."""
    columns = [np.empty((len(settings), 0))]
    for name in settings:
        if settings[name].nunique(dropna=False) == 1:
            continue
        values = pd.to_numeric(settings[name], errors="coerce").astype(float)
        kind = "not a number" if not np.isfinite(values).all() else "negative" if (values < 0).any() else "zero"
        if not (np.isfinite(values) & (values > 0)).all():
            return columns[0], f"undefined: {name} is {kind} in some runs, so it has no logarithm"
        columns.append(np.log(values.to_numpy()))
    return np.column_stack([column - column.mean() if column.size else column for column in columns]), ""
