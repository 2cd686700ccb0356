"""Kendall's coefficient one hyperparameter at a time (Jiang et al. 2020, arXiv 1912.02178: the granulated coefficient)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Observations, combine, tabulate


def granulated_kendall(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
) -> pd.DataFrame:
    """The granulated Kendall coefficient of measures and targets: does a measure follow each hyperparameter's effect?

    tau(P) = the mean over the pairs P of sign(measure_1 - measure_2) sign(target_1 - target_2): the paper's tau, in which a
    tie counts 0 (tau-a). psi_i = the mean, over the settings of all hyperparameters but i, of tau over the pairs of
    observations there that differ in hyperparameter i. Psi = the mean of the psi_i. Settings with a single value of i have
    no pair and do not enter; nor does a hyperparameter without any pair enter Psi.

    runs, measures, targets, group_by and keep_seeds are those of `correlations`. Returns a row a measure and target:
    measure, target, runs, configurations, granulated_kendall (Psi), granulated_kendall_learning_rate (psi_i) and so on for
    each of group_by, and note, which says why Psi is undefined (NaN), else it is empty.

    Raises InputError where a column is missing or not numeric, and where accuracies are in percent.
    """
    columns = ["granulated_kendall", *(f"granulated_kendall_{name}" for name in group_by)]
    return tabulate(_granulate, columns, runs, measures, targets, group_by, keep_seeds)


def _granulate(observed: Observations, measure: str, target: str) -> dict:
    x, y = observed.pair(measure, target)
    concordance = np.sign(np.subtract.outer(x, x)) * np.sign(np.subtract.outer(y, y))
    levels = observed.levels()
    psi = {}
    for position, name in enumerate(observed.settings):
        differ = levels[:, [position]] != levels[:, position]
        others = combine(np.delete(levels, position, axis=1))
        squares = [np.ix_(others == setting, others == setting) for setting in np.unique(others)]
        taus = [concordance[square][differ[square]].mean() for square in squares if differ[square].any()]
        if taus:
            psi[f"granulated_kendall_{name}"] = float(np.mean(taus))
    if not psi:
        return {"note": "undefined: no two configurations differ in one hyperparameter alone"}
    return psi | {"granulated_kendall": float(np.mean(list(psi.values())))}
