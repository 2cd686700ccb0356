"""Kendall's coefficient, one hyperparameter at a time (Jiang et al. 2020, arXiv 1912.02178)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Observations, Statistics, combine, tabulate


def granulated_kendall(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
) -> pd.DataFrame:
    """Compute the granulated Kendall coefficient: does a measure follow the effect of each hyperparameter?

    tau(P) is the mean of sign(measure_1 - measure_2) sign(target_1 - target_2) over a set P of pairs; a tie counts 0 (tau-a,
    as in the paper). psi_i is the mean of tau over the settings of all hyperparameters except i, where P has the pairs of
    observations with this setting that differ in hyperparameter i. Psi is the mean of the psi_i. Settings and
    hyperparameters without such pairs are left out of the means.

    Args:
        runs: One row per run; see `correlations`.
        measures: Columns of `runs`.
        targets: Columns of `runs`, or generalization_gap and test_error, which are derived from the accuracies.
        group_by: The hyperparameters that make a configuration.
        keep_seeds: Whether every run is an observation; by default, the seeds of a configuration are averaged.

    Returns:
        One row per measure and target: measure, target, runs, configurations, granulated_kendall (Psi), one column such as
        granulated_kendall_learning_rate (psi_i) per hyperparameter, and note: why Psi is undefined (NaN), else empty.

    Raises:
        InputError: If a column is missing or not numeric, or accuracies are in percent.
    """
    columns = ["granulated_kendall", *(f"granulated_kendall_{name}" for name in group_by)]
    return tabulate(_granulate, columns, runs, measures, targets, group_by, keep_seeds)


def _granulate(observed: Observations, measure: str, target: str) -> Statistics:
    x, y = observed.pair(measure, target)
    concordance = np.sign(np.subtract.outer(x, x)) * np.sign(np.subtract.outer(y, y))
    levels = observed.levels()
    psi: dict[str, float] = {}
    for position, name in enumerate(observed.settings):
        differ = levels[:, [position]] != levels[:, position]
        others = combine(np.delete(levels, position, axis=1))
        squares = [np.ix_(others == setting, others == setting) for setting in np.unique(others)]
        taus = [concordance[square][differ[square]].mean() for square in squares if differ[square].any()]
        if taus:
            psi[f"granulated_kendall_{name}"] = float(np.mean(taus))
    if not psi:
        return {"note": "undefined: no two configurations differ in one hyperparameter alone"}
    return {**psi, "granulated_kendall": float(np.mean(list(psi.values())))}
