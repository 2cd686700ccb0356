"""What a measure's order says of a target's, given hyperparameters (Jiang et al. 2020, arXiv 1912.02178)."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from regioncount.analysis.observations import HYPERPARAMETERS, TARGETS, Observations, combine, tabulate


def conditional_mutual_information(
    runs: pd.DataFrame,
    measures: Sequence[str],
    targets: Sequence[str] = TARGETS,
    group_by: Sequence[str] = HYPERPARAMETERS,
    *,
    keep_seeds: bool = False,
) -> pd.DataFrame:
    """The least normalized mutual information of the orders of measure and target, given hyperparameters.

    Draw a pair of observations of different configurations, both orders alike. V_m = sign(measure_1 - measure_2), V_g =
    sign(target_1 - target_2), U_S = the values that the hyperparameters S have in the first and in the second. For a set S

        I(V_m; V_g | U_S) / H(V_g | U_S),    0 = the measure adds nothing to S, 1 = it determines the target's order,

    with probabilities replaced by shares of pairs. The result is the minimum over every S that leaves at least one of the
    hyperparameters that vary out (the paper: |S| <= 2). A set for which H(V_g | U_S) = 0 has no ratio and does not enter.
    The sign of a tie is 0, a third value. The association's direction does not matter.

    Shares of few pairs overstate information, the more so the larger S: with three values of each of three hyperparameters,
    two of them given leave nine pairs to a value of U_S.

    runs, measures, targets, group_by and keep_seeds are those of `correlations`. Returns a row a measure and target:
    measure, target, runs, configurations, conditional_mutual_information (the minimum), given (the S that has it, the
    smallest and first such; empty for none), mutual_information (S empty), and note, which says why they are undefined
    (NaN).

    Raises InputError where a column is missing or not numeric, and where accuracies are in percent.
    """
    columns = ["conditional_mutual_information", "given", "mutual_information"]
    return tabulate(_inform, columns, runs, measures, targets, group_by, keep_seeds)


def _inform(observed: Observations, measure: str, target: str) -> dict:
    first, second = np.nonzero(np.not_equal.outer(observed.configuration, observed.configuration))
    # Signs as 0, 1, 2; both in one number.
    orders = [1 + np.sign(v[first] - v[second]).astype(int) for v in observed.pair(measure, target)]
    orders = 3 * orders[0] + orders[1]
    levels = observed.levels()
    varying = [position for position in range(levels.shape[1]) if len(np.unique(levels[:, position])) > 1]
    found = {}
    for size in range(len(varying)):
        for given in combinations(varying, size):
            settings = combine(levels[:, given])
            number = settings.max() + 1
            shares = _count(settings[first] * number + settings[second], number**2, orders) / len(first)
            entropy = _entropy(shares.sum(axis=1)) - _entropy(shares.sum(axis=(1, 2)))
            if entropy > 1e-12:
                information = _entropy(shares.sum(axis=2)) + _entropy(shares.sum(axis=1))
                information -= _entropy(shares) + _entropy(shares.sum(axis=(1, 2)))
                # Sums of logarithms differ in their last digits: rounded, so that equal sets tie.
                found[given] = float(np.clip(np.round(information / entropy, 12), 0, 1))
    given = min(found, key=found.get)
    return {
        "conditional_mutual_information": found[given],
        "given": ", ".join(observed.settings.columns[list(given)]),
        "mutual_information": found[()],
    }


def _count(cells: np.ndarray, number: int, orders: np.ndarray) -> np.ndarray:
    """How many pairs are in each cell and have each order of measure and of target, (cells, 3, 3); cells below `number`."""
    if number > len(cells):  # most are empty
        present, cells = np.unique(cells, return_inverse=True)
        number = len(present)
    return np.bincount(9 * cells + orders, minlength=9 * number).reshape(-1, 3, 3)


def _entropy(shares: np.ndarray) -> float:
    """Of a distribution, in nats."""
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())
