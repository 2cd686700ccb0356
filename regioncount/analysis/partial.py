"""What is left of a correlation once hyperparameters are held fixed."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Observations, tabulate
from regioncount.errors import InputError

FORMS = ("categories", "log_linear")
EXPLAINED = 1 - 1e-10  # a share of variance beyond which what is left is rounding


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
    """The partial correlation of measures and targets given the hyperparameters `given`, by default all of group_by.

    Pearson's r of the residuals of measure and target after least squares on a constant and, by form,
    - categories: an indicator of each value of each hyperparameter, so an effect of any shape, but no interactions;
    - log_linear: the logarithm of each hyperparameter that varies, one slope each.
    The interval is Fisher's (1924): tanh(artanh r -+ z / sqrt(configurations - k - 3)), k the rank of what is held fixed
    without the constant, z the normal quantile of `level`. It takes residuals for normal and, where seeds are kept, a
    configuration's runs for one observation.

    runs, measures, targets, group_by and keep_seeds are those of `correlations`. Returns a row a measure and target:
    measure, target, runs, configurations, partial_correlation, partial_correlation_low, partial_correlation_high (NaN where
    configurations - k - 3 is not positive), and note, which says why it is undefined (NaN): a hyperparameter without a
    logarithm, too few configurations for what is held fixed, or a measure or target that follows from it.

    Raises InputError where a column is missing or not numeric, where accuracies are in percent, for another form, and
    where a column of `given` is not in group_by.
    """
    given = list(group_by if given is None else given)
    if form not in FORMS:
        raise InputError(f"no form {form} of a partial correlation: one of {', '.join(FORMS)}")
    if outside := [name for name in given if name not in group_by]:
        raise InputError(f"{', '.join(outside)} cannot be held fixed: not in group_by")

    def statistic(observed: Observations, measure: str, target: str) -> dict:
        return _partial(observed, measure, target, form, given, level)

    columns = [f"partial_correlation{end}" for end in ("", "_low", "_high")]
    return tabulate(statistic, columns, runs, measures, targets, group_by, keep_seeds)


def _partial(observed: Observations, measure: str, target: str, form: str, given: list[str], level: float) -> dict:
    if form == "categories":
        fixed = _indicators(observed.settings[given])
    else:
        fixed, note = _logarithms(observed.settings[given])
        if note:
            return {"note": note}
    design = np.column_stack([np.ones(len(fixed)), fixed])
    rank = int(np.linalg.matrix_rank(design))
    if observed.configurations < rank + 2:
        held = f"{rank - 1} degree{'s' * (rank != 2)} of freedom held fixed"
        return {"note": f"undefined: {observed.configurations} configurations, {rank + 2} are needed with {held}"}
    residuals = []
    for name in (measure, target):
        values = observed.values[name].to_numpy()
        values = (values - values.mean()) / np.abs(values - values.mean()).max()
        left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        if left @ left <= (1 - EXPLAINED) * (values @ values):
            return {"note": f"undefined: {name} follows from {', '.join(given)}"}
        residuals.append(left / np.sqrt(left @ left))
    correlation = float(np.clip(residuals[0] @ residuals[1], -1, 1))
    found = {"partial_correlation": correlation}
    if observed.configurations > rank + 2:
        error = 1 / np.sqrt(observed.configurations - rank - 2)  # rank counts the constant: k = rank - 1
        with np.errstate(divide="ignore"):
            ends = np.tanh(np.arctanh(correlation) + NormalDist().inv_cdf((1 + level) / 2) * error * np.array([-1, 1]))
        found |= dict(zip(["partial_correlation_low", "partial_correlation_high"], map(float, ends), strict=True))
    return found


def _indicators(settings: pd.DataFrame) -> np.ndarray:
    codes = [pd.factorize(settings[name], use_na_sentinel=False)[0] for name in settings]
    return np.column_stack([np.equal.outer(code, np.unique(code)[1:]) for code in codes] or [np.empty((len(settings), 0))])


def _logarithms(settings: pd.DataFrame) -> tuple[np.ndarray, str]:
    """The logarithms, or why there are none."""
    columns = [np.empty((len(settings), 0))]
    for name in settings:
        if settings[name].nunique(dropna=False) == 1:
            continue
        values = pd.to_numeric(settings[name], errors="coerce").astype(float)
        kind = "not a number" if not np.isfinite(values).all() else "negative" if (values < 0).any() else "zero"
        if not (np.isfinite(values) & (values > 0)).all():
            return columns[0], f"undefined: {name} is {kind} in some runs, so has no logarithm"
        columns.append(np.log(values.to_numpy()))
    return np.column_stack([column - column.mean() if column.size else column for column in columns]), ""
